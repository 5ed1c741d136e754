"""The machine: how many threads work on it, and what a manifest must say of it."""

import os
import platform
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from fathometer.errors import InputError
from fathometer.work.ranks import world

_PACKAGES = ("fathometer", "torch", "numpy", "scipy", "numba", "safetensors", "highspy", "clarabel")


@contextmanager
def threads(n: int) -> Generator[None, None, None]:
    """Run the block with ``n`` threads in torch, BLAS and OpenMP, then as before.

    Numba is left alone: no kernel here starts threads of it, and asking it for their number
    would start them, and set torch's number to theirs.

    More threads are not always faster: a small product on a busy machine took 1.9 s
    with one thread and 8.7 s with two.

    Raises:
        InputError: If n is not a whole number, one or more.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise InputError(f"n is {n!r}; a whole number of threads, one or more, is needed.")
    before = torch.get_num_threads()
    with ExitStack() as stack:
        stack.callback(torch.set_num_threads, before)
        stack.enter_context(threadpool_limits(n))
        torch.set_num_threads(n)
        yield


def environment() -> dict[str, Any]:
    """Versions, threads and processor: what equal bits depend on, for manifests.

    Nothing of the user's files, folders, host name or account is in it.
    """
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory": psutil.virtual_memory().total,
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "processes": world(),
        "cuda": torch.version.cuda,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "blas": _blas(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _blas() -> list[str]:
    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    return sorted({f"{pool['internal_api']} {pool['version']}" for pool in pools})


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
