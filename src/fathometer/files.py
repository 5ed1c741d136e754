"""Safe reading of other people's files, and whole-or-nothing writing of ours.

Weights come from safetensors, or from PyTorch files read with ``weights_only``, so that
no code in them runs; arrays from .npz, .npy, .csv or .safetensors without pickle; draws
from ArviZ netCDF files. What a file declares is compared with what it holds before
anything is allocated: a 2 kB file may claim a billion numbers. Whatever is wrong, the
answer is an `InputError` that names the file and the reason.
"""

import json
import math
import os
import warnings
import zipfile
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import psutil
from numpy.lib import format as npy
from safetensors import SafetensorError, safe_open

from fathometer.errors import CapabilityError, InputError

if TYPE_CHECKING:
    from torch import Tensor

_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "weights")
_INDEX_SUFFIX = ".index.json"


def read_weights(path: str | Path, *, trust_pickle: bool = False) -> "dict[str, Tensor]":
    """The named tensors of a file of weights, on the CPU, each with memory of its own.

    Args:
        path: A safetensors file, the ``.index.json`` of a sharded one, or a PyTorch file that
            holds a dictionary of tensors (also under a name such as ``state_dict``).
        trust_pickle: Read PyTorch files that only open by running code in them. Such a file
            can do whatever its author likes; say yes only to files of your own.

    Raises:
        InputError: If the file is missing, damaged, claims more numbers than it holds, or
            holds something else than named tensors.
    """
    path = _existing(path)
    if path.name.endswith(_INDEX_SUFFIX):
        return _read_shards(path)
    with path.open("rb") as file:
        head = file.read(9)
    safe = head[8:9] == b"{"  # a safetensors file begins with eight bytes of length and its header
    if not safe and (head[:2] == b"PK" or head[:1] == b"\x80"):
        return _read_torch(path, trust_pickle)
    return {name: tensor.clone() for name, tensor in _safetensors(path, "pt").items()}


def read_arrays(path: str | Path, *names: str | tuple[str, ...]) -> tuple[np.ndarray, ...]:
    """Arrays by name from .npz, .npy, .csv or .safetensors, never by pickle.

    Args:
        path: The file. An .npy file has one array, so it answers to any one name. In a .csv
            file with a header, ``points`` takes the columns ``points``, ``points.1``,
            ``points_2``, ``points[3]``, ...; one name takes all columns if none is its own.
        names: Which arrays; a tuple gives names that mean the same, the first one found counts.

    Returns:
        One array of numbers or booleans for each name, in this order.

    Raises:
        InputError: If the file is missing or damaged, lacks an array, or holds other things
            than numbers.
    """
    path = _existing(path)
    readers: dict[str, Callable[[Path], Mapping[str, np.ndarray]]] = {
        ".npz": _read_npz,
        ".npy": _read_npy,
        ".csv": _read_csv,
        ".safetensors": lambda file: _safetensors(file, "numpy"),
    }
    suffix = path.suffix.lower()
    if suffix not in readers:
        raise InputError(f"{path}: files of arrays end in {', '.join(readers)}, not in {suffix!r}.")
    arrays = readers[suffix](path)
    found = []
    for wanted in names:
        synonyms = (wanted,) if isinstance(wanted, str) else wanted
        own = next((arrays[name] for name in synonyms if name in arrays), None)
        if own is None and suffix == ".csv":
            own = _columns(arrays, synonyms, whole=len(names) == 1)
        if own is None and suffix == ".npy" and len(names) == 1:
            (own,) = arrays.values()
        if own is None:
            has = ", ".join(arrays) or "nothing"
            raise InputError(f"{path}: there is no array {' or '.join(map(repr, synonyms))}; it holds {has}.")
        found.append(own)
    return tuple(found)


def read_draws(path: str | Path, group: str = "posterior") -> dict[str, np.ndarray]:
    """The variables of an ArviZ netCDF file, each (chain, draw, ...).

    Args:
        path: A .nc file as ArviZ writes it.
        group: Which group of it.

    Raises:
        InputError: If the file is missing or damaged, or has no such group.
        CapabilityError: Without the extra ``arviz``.
    """
    path = _existing(path)
    try:
        import h5py
    except ImportError:
        raise CapabilityError(f'{path}: netCDF needs h5py; pip install "fathometer[arviz]".') from None
    with _refusing(path, "not a readable netCDF file"), h5py.File(path, "r") as file:
        if group not in file:
            raise InputError(f"{path}: there is no group {group!r}; it has {', '.join(file) or 'none'}.")
        draws: dict[str, np.ndarray] = {}
        members: Any = file[group]
        for name, member in members.items():
            if not isinstance(member, h5py.Dataset) or member.is_scale or member.dtype.kind not in "biuf":
                continue
            _check_room(path, member.size * member.dtype.itemsize)
            dimensions = [Path(scale[0].name or "").name if len(scale) else "" for scale in member.dims]
            if dimensions[:2] != ["chain", "draw"]:
                raise InputError(
                    f"{path}: {name} has dimensions {dimensions}; chain and draw must be the first."
                )
            draws[name] = np.asarray(member)
    if not draws:
        raise InputError(f"{path}: the group {group!r} holds no draws.")
    return draws


def write_atomic(path: str | Path, data: bytes | str) -> Path:
    """Write a file whole or not at all, flushed to the disk, and return its path.

    The data goes into a file beside it, which then takes its name: a kill leaves the
    old content or the new one.

    Raises:
        InputError: If the folder is missing or cannot be written to.
    """
    target = Path(path)
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except OSError as cause:
        raise InputError(f"{target}: cannot be written ({cause.strerror or cause}).") from None
    finally:
        part.unlink(missing_ok=True)
    return target


@contextmanager
def _refusing(path: Path, what: str) -> Generator[None, None, None]:
    """Turn whatever a reader raises on a damaged file into one line about that file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (InputError, CapabilityError):
        raise
    except Exception as cause:  # damaged files make the readers fail in every possible way
        reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
        raise InputError(f"{path}: {what} ({reason}).") from None


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; a file is needed.")
    if not path.exists():
        raise InputError(f"{path}: there is no such file.")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: may not be read; check its permissions.")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty.")
    return path


def _check_room(path: Path, declared: int) -> None:
    """Refuse before memory runs out."""
    free = psutil.virtual_memory().available
    if declared > free:
        raise InputError(
            f"{path}: declares {declared / 1e9:.3g} GB of numbers; {free / 1e9:.3g} GB are free."
        )


# weights


def _safetensors(path: Path, framework: str) -> dict[str, Any]:
    _check_room(path, path.stat().st_size)
    try:
        with safe_open(path, framework=framework) as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError, AttributeError) as cause:
        raise InputError(f"{path}: not a readable safetensors file ({cause}).") from None


def _read_shards(path: Path) -> "dict[str, Tensor]":
    """All parts that an index file names."""
    with _refusing(path, "not a readable index of shards"):
        placed: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        parts = sorted(set(placed.values()))
    weights: dict[str, Tensor] = {}
    for part in parts:
        shard = path.parent / part
        if shard.resolve().parent != path.parent.resolve():
            raise InputError(f"{path}: names the shard {part!r}; shards must lie beside their index.")
        if not shard.exists():
            raise InputError(f"{path}: the shard {part!r} is missing; all of {', '.join(parts)} are needed.")
        weights |= read_weights(shard)
    missing = sorted(set(placed) - weights.keys())
    if missing:
        raise InputError(f"{path}: no shard holds {missing[0]!r} ({len(missing)} tensors are missing).")
    return weights


def _read_torch(path: Path, trust_pickle: bool) -> "dict[str, Tensor]":
    import pickle

    import torch

    _check_torch_archive(path)
    with _refusing(path, "not a readable PyTorch file"), path.open("rb") as file:
        try:
            content = torch.load(file, map_location="cpu", weights_only=not trust_pickle)
        except pickle.UnpicklingError as cause:
            if trust_pickle or "weights_only" not in str(cause).lower():
                raise
            raise InputError(
                f"{path}: opens only by running code in it, because it holds more than tensors; save "
                "model.state_dict(), or trust the file (trust_pickle=True, --trust-pickle) if it is yours."
            ) from None
    if isinstance(content, torch.nn.Module):
        content = content.state_dict()
    weights = _named_tensors(path, content)
    for name, tensor in weights.items():
        _check_storage(path, name, tensor)
    return {name: tensor.detach().clone() for name, tensor in weights.items()}


def _check_torch_archive(path: Path) -> None:
    """Refuse zip archives that unpack to more than they are, and compiled programs."""
    if not zipfile.is_zipfile(path):
        return
    with _refusing(path, "not a readable PyTorch file"), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if any(Path(member.filename).name == "constants.pkl" for member in members):
            raise InputError(f"{path}: a TorchScript program, not weights; save its state_dict() instead.")
        declared = sum(member.file_size for member in members)
        if declared > path.stat().st_size:
            raise InputError(
                f"{path}: unpacks to {declared} bytes from {path.stat().st_size}; PyTorch does not pack."
            )


def _named_tensors(path: Path, content: Any) -> "dict[str, Tensor]":
    import torch

    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds a {type(content).__name__}; a dictionary of tensors is needed.")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise InputError(
                f"{path}: the entry {name!r} is a {type(value).__name__}; a dictionary of named tensors is "
                f"needed, at the top or under {', '.join(_WRAPPERS)}."
            )
    return dict(content)


def _check_storage(path: Path, name: str, tensor: "Tensor") -> None:
    import torch

    if tensor.layout is not torch.strided or tensor.is_quantized:
        raise InputError(f"{path}: {name} is not a dense tensor; dequantize or densify it before saving.")
    declared, held = tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes()
    if declared > held:
        raise InputError(f"{path}: {name} claims {declared} bytes, and {held} are there.")


# arrays


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    arrays = {}
    with _refusing(path, "not a readable .npz file"), zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            with archive.open(member) as file:
                _check_npy(path, file, member.file_size, member.filename)
        with np.load(path, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
    return arrays


def _read_npy(path: Path) -> dict[str, np.ndarray]:
    with _refusing(path, "not a readable .npy file"):
        with path.open("rb") as file:
            _check_npy(path, file, path.stat().st_size, path.name)
        return {path.stem: np.load(path, allow_pickle=False)}


def _check_npy(path: Path, file: IO[bytes] | BufferedIOBase, size: int, name: str) -> None:
    """Compare what the header declares with the bytes that are there."""
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.kind not in "biufc":
        raise InputError(f"{path}: {name} holds {dtype}; arrays of numbers or booleans are needed.")
    declared = math.prod(shape) * dtype.itemsize
    if declared > size:
        raise InputError(f"{path}: {name} claims {declared} bytes, and {size} are there.")
    _check_room(path, declared)


def _read_csv(path: Path) -> dict[str, np.ndarray]:
    """Columns by the names in the header, or by number; lines that begin with # are passed over."""
    with _refusing(path, "not a readable text file"):
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    rows = [
        (number, [cell.strip() for cell in line.split(",")])
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not rows:
        raise InputError(f"{path}: there are no numbers in it.")
    header = [str(i) for i in range(len(rows[0][1]))]
    if not all(_is_number(cell) for cell in rows[0][1]):
        header = rows.pop(0)[1]
    if len(set(header)) < len(header):
        raise InputError(f"{path}: the header names a column twice.")
    numbers = np.empty((len(rows), len(header)))
    for i, (line, cells) in enumerate(rows):
        bad = next((cell for cell in cells if not _is_number(cell)), None)
        if len(cells) != len(header) or bad is not None:
            what = f"{len(cells)} cells" if bad is None else f"{bad!r}"
            raise InputError(f"{path}: line {line} has {what}; {len(header)} numbers are needed.")
        numbers[i] = [float(cell) for cell in cells]
    if not rows:
        raise InputError(f"{path}: there are no numbers in it.")
    return dict(zip(header, numbers.T, strict=True))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _columns(table: Mapping[str, np.ndarray], names: Sequence[str], whole: bool) -> np.ndarray | None:
    """The numbered columns of a name side by side (n, d), or all columns."""
    for name in names:
        rest = {
            column: column.removeprefix(name).strip(".[]_ ") for column in table if column.startswith(name)
        }
        numbered = [column for column, number in rest.items() if number.isdigit()]
        if numbered:
            numbered.sort(key=lambda column: int(rest[column]))
            return np.stack([table[column] for column in numbered], axis=1)
    return np.stack(list(table.values()), axis=1) if whole else None
