"""A list of finished tasks that survives a kill at any moment.

One line a record, appended, flushed to the disk, and never rewritten: JSON with a
checksum. A line that was torn by a kill or a full disk fails its checksum and is
passed over, so its task is done again; what was recorded stays recorded. The first
line carries the key of the run, and a ledger with another key is refused.
"""

import base64
import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors.numpy

from fathometer.errors import InputError
from fathometer.results import pack, unpack

_FORMAT = 1


class Ledger:
    """Finished records by name, on disk in one append-only file.

    The file is made by the first `record`; opening and reading leave the disk as it is.
    Only one process may write to a ledger at a time.

    Args:
        path: The file.
        key: What the records belong to, such as the hash of a manifest. A ledger with
            another key is refused, so that results of different runs do not mix.

    Raises:
        InputError: If the file holds another run, or cannot be read.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with Ledger(f"{folder}/tasks.jsonl", key="run 1") as ledger:
    ...         ledger.record("first", {"loss": 0.5})
    ...     Ledger(f"{folder}/tasks.jsonl", key="run 1")["first"]
    {'loss': 0.5}
    """

    def __init__(self, path: str | Path, *, key: str = "") -> None:
        self.path = Path(path)
        self._key = key
        self._file: int | None = None
        self._lines, self._torn = _read(self.path, key)

    def record(self, name: str, value: Any) -> None:
        """Append a value (JSON, arrays, results, and containers of them) by ``name``; sync it to the disk.

        Raises:
            InputError: If the value has no place in a file, or another process writes here.
        """
        code, arrays = pack(value)
        entry: dict[str, Any] = {"name": name, "value": code}
        if arrays:
            entry["arrays"] = base64.b64encode(safetensors.numpy.save(arrays)).decode()
        if self._file is None:
            self._file = self._opened()
        _append(self._file, _line(entry))
        self._lines[name] = entry

    def close(self) -> None:
        """Give the file free for another writer; reading goes on."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __getitem__(self, name: str) -> Any:
        if name not in self._lines:
            raise InputError(f"{self.path} has no record {name!r}.")
        entry = self._lines[name]
        arrays = safetensors.numpy.load(base64.b64decode(entry["arrays"])) if "arrays" in entry else {}
        return unpack(entry["value"], arrays)

    def __contains__(self, name: object) -> bool:
        return name in self._lines

    def __iter__(self) -> Iterator[str]:
        return iter(self._lines)

    def __len__(self) -> int:
        return len(self._lines)

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _opened(self) -> int:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = not self.path.exists()
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            _lock(file, self.path)
        except InputError:
            os.close(file)
            raise
        # another writer may have been here between reading and locking
        self._lines, self._torn = _read(self.path, self._key)
        if self._torn:
            _append(file, b"\n")
        if not self._lines:
            _append(file, _line({"ledger": _FORMAT, "key": self._key}))
        if fresh:
            _sync_folder(self.path.parent)
        return file


def _line(entry: dict[str, Any]) -> bytes:
    return json.dumps({"entry": entry, "sha256": _digest(entry)}).encode() + b"\n"


def _digest(entry: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()


def _read(path: Path, key: str) -> tuple[dict[str, dict[str, Any]], bool]:
    """The valid records by name, and whether the last line lacks its end."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}, False
    except OSError as cause:
        raise InputError(f"{path}: not a readable ledger ({cause}).") from None
    entries = [entry for line in content.split(b"\n") if (entry := _checked(line)) is not None]
    heads = [entry for entry in entries if "ledger" in entry]
    records = {entry["name"]: entry for entry in entries if "name" in entry}
    if records and not heads:
        raise InputError(
            f"{path}: its first line is damaged, so it is not known which run this is; remove the file."
        )
    for head in heads:
        if head["ledger"] > _FORMAT:
            raise InputError(
                f"{path}: written by a newer version (format {head['ledger']}, this one reads {_FORMAT})."
            )
        if head["key"] != key:
            raise InputError(
                f"{path}: holds another run (key {head['key']!r}, this run is {key!r}); "
                "resume with the same arguments, or choose another folder."
            )
    return records, bool(content) and not content.endswith(b"\n")


def _checked(line: bytes) -> dict[str, Any] | None:
    try:
        outer = json.loads(line)
        entry = outer["entry"]
        return entry if outer["sha256"] == _digest(entry) else None
    except (ValueError, KeyError, TypeError):
        return None


def _append(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]
    os.fsync(file)


def _sync_folder(folder: Path) -> None:
    """Make a new name in the folder durable, where folders can be opened."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _lock(file: int, path: Path) -> None:
    """Hold the file for this writer; the lock ends with the process, however it ends."""
    try:
        import fcntl
    except ImportError:  # Windows: a second writer is not noticed
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(
            f"{path}: another process is writing to it; wait for it, or choose another folder."
        ) from None
    except OSError:  # a file system without locks
        return
