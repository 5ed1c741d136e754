"""The data of a surface, cut once into a fixed sequence of chunks.

Whole arrays are cut on a fixed grid. A loader is read in the order it gives, one chunk a
batch; small data is kept in memory, large data is read again in every pass, and the first
batch is compared by checksum each time: a loader that shuffles or augments would give a
different loss surface at every look, and is refused.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fathometer.errors import InputError
from fathometer.model.losses import Objective, length, rows_of
from fathometer.model.params import ParamSpace
from fathometer.model.replica import unchanged_random_state
from fathometer.work import allowance

LARGEST_CHUNK = 1024  # larger matrix products gain nothing on a CPU, and chunks can be shared


class Arrays:
    """Inputs and targets with examples along their first dimension, cut every ``chunk`` rows."""

    def __init__(self, inputs: Any, targets: Any, chunk: int) -> None:
        self.inputs, self.targets, self.chunk = inputs, targets, chunk
        self.examples = length(inputs)

    def __len__(self) -> int:
        return -(-self.examples // self.chunk)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        rows = slice(index * self.chunk, min((index + 1) * self.chunk, self.examples))
        return rows_of(self.inputs, rows), rows_of(self.targets, rows)

    def start(self, index: int) -> int:
        """Examples before chunk ``index``."""
        return index * self.chunk

    def where(self, index: int) -> str:
        """Which part of the data chunk ``index`` is, for messages."""
        return f"examples {index * self.chunk}..{min((index + 1) * self.chunk, self.examples) - 1}"

    def select(self, rows: Tensor) -> "Arrays":
        """The examples at ``rows`` only."""
        return Arrays(rows_of(self.inputs, rows), rows_of(self.targets, rows), self.chunk)

    def cut(self, chunk: int) -> "Arrays":
        """The same data on another grid."""
        return Arrays(self.inputs, self.targets, chunk)

    def to(self, device: torch.device, dtype: torch.dtype | None) -> "Arrays":
        """The same data on a device, floats as ``dtype``."""
        return Arrays(moved(self.inputs, device, dtype), moved(self.targets, device, dtype), self.chunk)


class Loader:
    """Batches of a re-iterable, each one chunk.

    Args:
        source: Anything that can be iterated again and again, in the same order.
        device, dtype: Where batches go, and the type of their floats (None: as they are).

    Raises:
        InputError: If it is empty, can be read only once, or changes between two readings.
    """

    def __init__(self, source: Iterable[Any], device: torch.device, dtype: torch.dtype | None) -> None:
        self.source, self.device, self.dtype = source, device, dtype
        with unchanged_random_state():  # a DataLoader draws a seed whenever it is iterated
            once = iter(source) is source
        if once:
            raise InputError(
                f"data is a {type(source).__name__}, which can be read only once; pass a list of batches, a "
                "DataLoader with shuffle=False, or (inputs, targets)."
            )
        self._kept: list[Any] | None = []
        self._reader: Iterator[Any] = iter(())
        self._next = 0
        self._read_once()

    def _read_once(self) -> None:
        """Count the batches, keep them if they are small, and compare two readings."""
        with unchanged_random_state():
            room, size = allowance() // 4, 0
            first = ""
            self._count, self._lengths = 0, list[int]()
            for batch in self.source:
                self._count += 1
                self._lengths.append(_rows(batch))
                if not first:
                    first = _checksum(batch)
                if self._kept is not None:
                    size += _bytes(batch)
                    self._kept = [*self._kept, batch] if size <= room else None
            if not first:
                raise InputError("data has no batches; pass at least one example.")
            # the second reading continues the random stream of the first, so that a shuffle shows
            again = _checksum(next(iter(self.source)))
        self._first = first
        self._compare(again)

    def _compare(self, checksum: str) -> None:
        if checksum != self._first:
            raise InputError(
                "data changes between two passes (its first batch differs): a loss surface needs fixed data. "
                "Use shuffle=False and no random augmentation."
            )

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Any:
        batch = self._streamed(index) if self._kept is None else self._kept[index]
        return moved(batch, self.device, self.dtype)

    def _streamed(self, index: int) -> Any:
        with unchanged_random_state():
            if index < self._next or self._next == 0:
                self._reader, self._next = iter(self.source), 0
            while True:
                batch = next(self._reader, None)
                if batch is None:
                    raise InputError(
                        f"data ended after {self._next} batches; an earlier pass had {self._count}."
                    )
                if self._next == 0:
                    self._compare(_checksum(batch))
                self._next += 1
                if self._next > index:
                    return batch

    def start(self, index: int) -> int:
        """Examples before batch ``index``, by the first tensor of each."""
        return sum(self._lengths[:index])

    def where(self, index: int) -> str:
        """Which part of the data chunk ``index`` is, for messages."""
        return f"batch {index}"

    def select(self, rows: Tensor) -> "Loader":
        """The examples at ``rows`` only, in ascending order, kept in memory batch by batch."""
        chosen, first, parts = rows.sort().values, 0, []
        for index in range(len(self)):
            batch = self[index]
            last = first + length(batch)
            inside = chosen[(chosen >= first) & (chosen < last)] - first
            parts += [rows_of(batch, inside)] if len(inside) else []
            first = last
        return Loader(parts, self.device, self.dtype)

    def to(self, device: torch.device, dtype: torch.dtype | None) -> "Loader":
        """The same batches on a device, floats as ``dtype``."""
        other = Loader.__new__(Loader)
        other.__dict__.update(self.__dict__, device=device, dtype=dtype, _next=0)
        return other


def arranged(data: Any, kind: Objective, space: ParamSpace, chunk: int | str) -> Arrays | Loader:
    """The user's data as chunks on the device and in the type of the parameters.

    Raises:
        InputError: If it is neither a pair of arrays of equal length nor re-iterable batches.
    """
    dtype = None if kind.opaque else space.dtype
    if _is_pair(data, opaque=kind.opaque):
        inputs, targets = (moved(part, space.device, space.dtype) for part in data)
        n, m = length(inputs), length(targets)
        if n != m:
            raise InputError(f"data has {n} inputs and {m} targets; one target for each input is needed.")
        if n == 0:
            raise InputError("data has no examples; at least one is needed.")
        return Arrays(inputs, targets, min(n, LARGEST_CHUNK) if chunk == "auto" else min(n, int(chunk)))
    if chunk != "auto":
        raise InputError(
            f"chunk is {chunk} and data yields batches, which are never cut; set the batch size of the "
            "loader."
        )
    if isinstance(data, Tensor | np.ndarray | str | bytes | dict) or not isinstance(data, Iterable):
        raise InputError(
            f"data is a {type(data).__name__}; pass (inputs, targets), or something that yields batches "
            "again and again."
        )
    return Loader(data, space.device, dtype)


def _is_pair(data: Any, *, opaque: bool) -> bool:
    """Whether data is (inputs, targets) as whole arrays.

    A tuple of two arrays is; a list of two arrays is too, unless the batches are opaque.
    """
    arrays = (Tensor, np.ndarray)
    return (
        isinstance(data, tuple if opaque else tuple | list)
        and len(data) == 2
        and isinstance(data[1], arrays)
        and (isinstance(data[0], arrays) or (isinstance(data[0], tuple | dict) and isinstance(data, tuple)))
    )


def moved(batch: Any, device: torch.device, dtype: torch.dtype | None) -> Any:
    """Arrays and tensors of nested containers as tensors on ``device``, floats as ``dtype``."""
    if isinstance(batch, np.ndarray):
        batch = torch.as_tensor(batch)
    if isinstance(batch, Tensor):
        batch = batch.clone() if batch.is_inference() else batch.detach()
        return batch.to(device, dtype if batch.is_floating_point() else None)
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(moved(part, device, dtype) for part in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(moved(part, device, dtype) for part in batch)
    if isinstance(batch, dict):
        return {key: moved(part, device, dtype) for key, part in batch.items()}
    return batch.to(device) if hasattr(batch, "to") else batch


def _leaves(batch: Any) -> Iterator[Any]:
    if isinstance(batch, tuple | list):
        for part in batch:
            yield from _leaves(part)
    elif isinstance(batch, Mapping):
        for part in batch.values():
            yield from _leaves(part)
    else:
        yield batch


def _checksum(batch: Any) -> str:
    digest = hashlib.sha256()
    for leaf in _leaves(batch):
        if isinstance(leaf, Tensor):
            leaf = leaf.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        digest.update(
            np.ascontiguousarray(leaf).tobytes() if isinstance(leaf, np.ndarray) else repr(leaf).encode()
        )
    return digest.hexdigest()


def _rows(batch: Any) -> int:
    """Length of the first array with a dimension; 0 if there is none."""
    arrays = (leaf for leaf in _leaves(batch) if isinstance(leaf, Tensor | np.ndarray) and leaf.ndim)
    return next((int(leaf.shape[0]) for leaf in arrays), 0)


def _bytes(batch: Any) -> int:
    return sum(int(leaf.nbytes) for leaf in _leaves(batch) if isinstance(leaf, Tensor | np.ndarray))
