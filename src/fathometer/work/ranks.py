"""Which process this is, and how the processes agree.

Library code never starts processes: it asks whether ``torch.distributed`` has been
initialized, by whatever launcher. All processes run the same program, so every
exchange below is reached by all of them. A failure in one process is passed on in the
next exchange, so that the others stop with its message and do not wait for ever.
"""

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.distributed as dist

from fathometer.errors import BudgetError, CapabilityError, InputError

_ALONE: ContextVar[bool] = ContextVar("alone", default=False)
_PASSED_ON = {cls.__name__: cls for cls in (InputError, CapabilityError, BudgetError)}


def world() -> int:
    """How many processes share the work; 1 without ``torch.distributed``."""
    if _ALONE.get() or not (dist.is_available() and dist.is_initialized()):
        return 1
    return dist.get_world_size()


def rank() -> int:
    """The number of this process, from 0; 0 without ``torch.distributed``."""
    return dist.get_rank() if world() > 1 else 0


@contextmanager
def alone() -> Generator[None, None, None]:
    """Inside this block the process works for itself: nothing is shared or exchanged.

    A task that is itself one of many shared ones runs in such a block, because the
    other processes are busy with tasks of their own and would not answer.
    """
    token = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(token)


def exchange(value: Any, failure: Exception | None = None) -> list[Any]:
    """The values of all processes, in the order of their ranks.

    Args:
        value: A small picklable value of this process.
        failure: What went wrong in this process, if anything did.

    Raises:
        Exception: ``failure`` itself, in the process that passed it; in the others an
            error of the same class (`CapabilityError` for foreign classes) that names
            the process and repeats the message.
    """
    if world() == 1:
        if failure is not None:
            raise failure
        return [value]
    report = None if failure is None else (type(failure).__name__, str(failure))
    everyone: list[Any] = [None] * world()
    dist.all_gather_object(everyone, (value, report))
    if failure is not None:
        raise failure
    for number, (_, other) in enumerate(everyone):
        if other is not None:
            raise _PASSED_ON.get(other[0], CapabilityError)(
                f"process {number} stopped: {other[0]}: {other[1]}"
            )
    return [entry for entry, _ in everyone]


def exchange_device() -> torch.device:
    """Where tensors must be for the processes to exchange them."""
    if "nccl" in dist.get_backend():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
