"""Sums over chunks of data, the same bits on one process and on many.

The chunks are cut on a grid that does not depend on who computes them. Each belongs to
one of a fixed number of *slots*; a slot is summed in the order of its chunks, by one
process, in float64, and the slot sums are added in the order of the slots. So the
association of the sum, and with it every rounding error, is the same for every number
of processes (up to the number of slots: more processes than slots stay idle).

Cost of the exchange: the used slots, each as large as the result, go to every process.
Memory: two results in a single process; slots / processes + processes results otherwise.
"""

from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from fathometer.errors import InputError
from fathometer.types import Progress
from fathometer.work.progress import silent
from fathometer.work.ranks import alone, exchange, exchange_device, rank, world

Item = TypeVar("Item")
SLOTS = 8


def grid(n: int, chunk: int) -> list[slice]:
    """Cut ``range(n)`` into slices of length ``chunk``, the last one shorter.

    Raises:
        InputError: If n or chunk is not a whole number, one or more.

    >>> grid(5, 2)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    for name, value in (("n", n), ("chunk", chunk)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{name} is {value!r}; a whole number, one or more, is needed.")
    return [slice(start, min(start + chunk, n)) for start in range(0, n, chunk)]


def reduce_chunks(
    fn: Callable[[Item], Tensor | tuple[Tensor, ...]],
    items: Iterable[Item],
    *,
    progress: Progress | None = None,
    what: str = "",
    slots: int = SLOTS,
) -> tuple[Tensor, ...]:
    """Sum ``fn(item)`` over the items, shared over the processes.

    Args:
        fn: Gives one tensor or a tuple of them for an item, of the same shapes for every
            item. It runs without sharing: a sum inside it is this process's own.
        items: Slices of a `grid`, or batches. Every process must see the same items in the
            same order; each goes through all of them and computes its own. An iterable
            without a length is allowed and costs the memory of ``slots`` results.
        progress: Called in the first process with (items passed, number of items, what).
        what: Name of the work, for progress and messages.
        slots: Number of partial sums. The bits depend on it, not on the processes.

    Returns:
        The sums, always as a tuple, detached, in float64, on the device of the results
        (the CPU where a device has no float64), the same on every process.

    Raises:
        InputError: If there are no items, results differ in shape, are complex, or the
            processes see a different number of items.
        Exception: What ``fn`` raises; the other processes then raise the same class
            (`CapabilityError` for foreign classes), naming the process.

    >>> reduce_chunks(lambda part: torch.arange(10)[part].sum(), grid(10, 3))
    (tensor(45., dtype=torch.float64),)
    """
    total = _Sum(what)
    if world() == 1:
        slot_sums = _SlotSums(fn, items, slots, progress or silent, what)
        for _, values in slot_sums:
            total.add(values)
        return total.finished()
    sums, failure, slot_sums = {}, None, _SlotSums(fn, items, slots, progress or silent, what)
    try:
        sums = dict(slot_sums)
    except Exception as cause:
        failure = cause
    mine = next(iter(sums.values()), None)
    form = None if mine is None else [(tuple(v.shape), v.device.type) for v in mine]
    reports = exchange((slot_sums.count, form), failure)
    _check_agreement([count for count, _ in reports])
    forms = [other for _, other in reports if other is not None]
    for values in _collected(sums, forms[0], min(slots, slot_sums.count)):
        total.add(values)
    return tuple(v.to(device) for v, (_, device) in zip(total.finished(), forms[0], strict=True))


class _Sum:
    """A running float64 sum that never writes into a tensor it was given."""

    def __init__(self, what: str) -> None:
        self._what = what or "fn"
        self._parts: list[Tensor] = []
        self._owned = False

    def add(self, values: tuple[Tensor, ...]) -> None:
        if not self._parts:
            self._parts = [_double(value, self._what) for value in values]
            return
        shapes, found = [tuple(p.shape) for p in self._parts], [tuple(v.shape) for v in values]
        if shapes != found:
            raise InputError(
                f"{self._what} gave shapes {found} for an item and {shapes} for the ones before it."
            )
        if not self._owned:
            parts = zip(self._parts, values, strict=True)
            self._parts = [part + value.detach().to(part.device) for part, value in parts]
            self._owned = True
            return
        for part, value in zip(self._parts, values, strict=True):
            part += value.detach().to(part.device)

    def finished(self) -> tuple[Tensor, ...]:
        if not self._parts:
            raise InputError(f"items is empty; {self._what} has nothing to sum.")
        return tuple(self._parts)


class _SlotSums:
    """Iterates over (slot, sums) of the slots of this process, in the order of the slots."""

    def __init__(
        self, fn: Callable[..., Any], items: Iterable[Any], slots: int, progress: Progress, what: str
    ) -> None:
        if isinstance(slots, bool) or not isinstance(slots, int) or slots < 1:
            raise InputError(f"slots is {slots!r}; a whole number, one or more, is needed.")
        self._fn, self._items, self._slots, self._what = fn, items, slots, what
        self._progress = progress if rank() == 0 else silent
        self._length = len(items) if isinstance(items, Sized) else None
        self.count = 0

    def __iter__(self) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
        open_slots: dict[int, _Sum] = {}
        number, processes = rank(), world()
        for i, item in enumerate(self._items):
            self.count = i + 1
            slot = self._slot(i)
            if self._length is not None and slot not in open_slots:  # contiguous: the last one is complete
                yield from ((s, open_slots.pop(s).finished()) for s in tuple(open_slots))
            if slot % processes != number:
                continue
            with alone():
                result = self._fn(item)
            values = (result,) if isinstance(result, Tensor) else tuple(result)
            open_slots.setdefault(slot, _Sum(self._what)).add(values)
            self._progress(i + 1, self._length or 0, self._what)
        if self._length is not None and self.count != self._length:
            raise InputError(
                f"items has length {self._length} but gave {self.count} items; its length must be right."
            )
        yield from ((s, open_slots[s].finished()) for s in sorted(open_slots))
        self._progress(self.count, self.count, self._what)

    def _slot(self, i: int) -> int:
        """Contiguous runs when the length is known (least memory), dealt out in turn otherwise."""
        if self._length is None:
            return i % self._slots
        return i * min(self._slots, self._length) // self._length


def _double(value: Tensor, what: str) -> Tensor:
    if value.is_complex():
        raise InputError(f"{what} gave a {value.dtype} tensor; only real numbers are summed.")
    value = value.detach()
    return value.cpu().double() if value.device.type == "mps" else value.double()


def _check_agreement(counts: list[int]) -> None:
    if len(set(counts)) > 1:
        raise InputError(
            f"the processes saw {', '.join(map(str, counts))} items; every process needs the same items, "
            "cut in the same way (pass the chunk, or set the same budget everywhere)."
        )
    if counts[0] == 0:
        raise InputError("items is empty; there is nothing to sum.")


def _collected(
    sums: dict[int, tuple[Tensor, ...]], form: list[tuple[tuple[int, ...], str]], used: int
) -> Iterator[tuple[Tensor, ...]]:
    """The sums of all slots in order, as many slots in one exchange as there are processes."""
    sizes = [torch.Size(shape).numel() for shape, _ in form]
    number, processes, device = rank(), world(), exchange_device()
    for first in range(0, used, processes):
        mine = torch.zeros(sum(sizes), dtype=torch.float64, device=device)
        if first + number < used:
            torch.cat([v.reshape(-1).to(device) for v in sums.pop(first + number)], out=mine)
        everyone = [torch.empty_like(mine) for _ in range(processes)]
        dist.all_gather(everyone, mine)
        for flat in everyone[: used - first]:
            parts = flat.split(sizes)
            yield tuple(part.view(shape) for part, (shape, _) in zip(parts, form, strict=True))
