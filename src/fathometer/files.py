"""Safe reading of other people's files, and whole-or-nothing writing of ours."""

import os
from pathlib import Path

from fathometer.errors import InputError


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
