"""How much memory may be used, and how work is cut to fit.

On Linux a process that takes too much is killed without a message, so the sizes
are forecast and the chunk is chosen before the work begins. The default budget is
0.8 of the memory that is available now: the least of what the machine has free,
what the control group (container, batch job) leaves and what the address-space
limit leaves, shared between the processes of a launch on one machine.
"""

import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import psutil

from fathometer.errors import BudgetError, InputError
from fathometer.work.ranks import exchange, world

SHARE = 0.8
_CGROUP = Path("/sys/fs/cgroup")
_CGROUP_FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    2: ("memory.max", "memory.current"),
}
_UNITS = ("B", "kB", "MB", "GB", "TB")
_chosen: int | None = None


class Budget:
    """The handle that `budget` returns: leaving its block puts the budget ``previous`` back."""

    def __init__(self, previous: int | None) -> None:
        self._previous = previous

    def __enter__(self) -> "Budget":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        global _chosen
        _chosen = self._previous


def budget(bytes: int | None) -> Budget:  # noqa: A002 - the unit is the best name
    """Set how many bytes the work of this process may use.

    A plain call holds until the next one; ``with budget(2 * 10**9):`` holds for the
    block. None goes back to the default, 0.8 of what is available.

    Raises:
        InputError: If bytes is not a whole number, one or more.
    """
    global _chosen
    if bytes is not None and (isinstance(bytes, bool) or not isinstance(bytes, int) or bytes < 1):
        raise InputError(f"bytes is {bytes!r}; a whole number of bytes, one or more, or None is needed.")
    handle = Budget(_chosen)
    _chosen = bytes
    return handle


def chosen_budget() -> int | None:
    """Bytes that the user allowed by `budget`; None if nothing was said. Costs nothing to ask."""
    return _chosen


def allowance() -> int:
    """Bytes that may be used now: the budget, or 0.8 of what is available."""
    if _chosen is not None:
        return _chosen
    free = [psutil.virtual_memory().available, _address_space_left(), *_control_groups_left()]
    here = max(1, int(os.environ.get("LOCAL_WORLD_SIZE") or 1)) if world() > 1 else 1
    return max(1, int(SHARE * min(free) / here))


@dataclass(frozen=True)
class Forecast:
    """What a piece of work will need.

    Attributes:
        what: Name of the work, for messages.
        fixed: Bytes that are needed whatever the chunk.
        bytes_per_item: Bytes for each item that is in work at a time.
        items: How many items there are.
    """

    what: str
    fixed: int
    bytes_per_item: float
    items: int

    def needs(self, chunk: int) -> int:
        """Bytes needed with ``chunk`` items at a time."""
        return self.fixed + math.ceil(self.bytes_per_item * chunk)

    def largest_chunk(self, allowed: int) -> int:
        """The largest chunk that fits into ``allowed`` bytes; 0 if not even one item does."""
        room = allowed - self.fixed
        if room < 0:
            return 0
        if self.needs(self.items) <= allowed:
            return self.items
        return int(room // self.bytes_per_item)


def chunk_size(items: int, bytes_per_item: float, *, fixed: int = 0, what: str = "") -> int:
    """The largest number of items at a time that fits into the budget.

    Without a budget set by the user, a chunk smaller than ``items`` is rounded down to
    a power of two: the memory that happens to be free varies from one minute to the
    next, and equal chunks are what makes two runs give equal bits. With several
    processes they agree on the least of their chunks; all of them must call.

    Args:
        items: How many items there are in all.
        bytes_per_item: Bytes needed for each item in work.
        fixed: Bytes needed whatever the chunk is.
        what: Name of the work, for messages.

    Raises:
        InputError: If a size is negative or there are no items.
        BudgetError: If not even one item fits; the message says what would.
    """
    if items < 1 or not bytes_per_item >= 0 or fixed < 0:
        raise InputError(
            f"items is {items}, bytes_per_item {bytes_per_item} and fixed {fixed}; "
            "at least one item and no negative size is needed."
        )
    forecast = Forecast(what or "this work", fixed, bytes_per_item, items)
    allowed, failure = allowance(), None
    chunk = forecast.largest_chunk(allowed)
    if chunk < 1:
        failure = BudgetError(
            f"{forecast.what} needs {in_words(forecast.needs(1))} for one of its {items} items at a time, "
            f"and {in_words(allowed)} may be used; fathometer.budget({forecast.needs(1)}) would fit."
        )
    elif _chosen is None and chunk < items:
        chunk = 1 << (chunk.bit_length() - 1)
    return min(exchange(chunk, failure))


def in_words(size: float) -> str:
    """A ``size`` in bytes as people write it.

    >>> in_words(1_234_000)
    '1.23 MB'
    """
    power = min(len(_UNITS) - 1, int(math.log10(size) // 3)) if size >= 1 else 0
    return f"{size / 1000**power:.3g} {_UNITS[power]}"


def _address_space_left() -> int:
    """What ulimit -v leaves to this process."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return sys.maxsize
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return sys.maxsize
    return max(0, limit - psutil.Process().memory_info().vms)


def _control_groups_left(root: Path = _CGROUP, membership: Path = Path("/proc/self/cgroup")) -> list[int]:
    """What each control group above this process leaves, Linux versions 2 and 1."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return []
    left = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory") and "memory" not in controllers.split(","):
            continue
        top = root / "memory" if controllers else root
        version = 1 if controllers else 2
        folder = top / path.lstrip("/")
        for level in (folder, *folder.parents):
            if level != top and top not in level.parents:
                break
            limit, used = (_number(level / name) for name in _CGROUP_FILES[version])
            if limit is not None and used is not None:
                left.append(max(0, limit - used + _reclaimable(level / "memory.stat")))
    return left


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _reclaimable(path: Path) -> int:
    """File pages that the kernel would drop before it refuses memory."""
    try:
        pairs = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return 0
    values = {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}
    return values.get("total_inactive_file", values.get("inactive_file", 0))
