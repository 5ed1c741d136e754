"""A race: the same work by us and by named peers, side by side in one process.

All contenders run once to warm up (imports, compilation); their answers must agree. Then
they run in turn, the order rotating from round to round, on the same threads and cores.
The ratio of a row is the median over the rounds of (time of the peer / our time), so that
what slows the machine for a while slows both. A peer that is not installed or fails is
listed as such, and a race that we lose stays in the table.
"""

import ctypes
import gc
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.goal import Goal

PATIENCE = 45.0
"""Seconds that the rounds of one race may take; slow contenders run fewer rounds."""

OURS = "fathometer"


@dataclass(frozen=True)
class Race:
    """One row of the table.

    Attributes:
        title: The work, with its sizes.
        goal: What we set out to reach: goals that the race can miss, or words that nothing checks.
        ours: Does the work with this package.
        peers: Does the same work with a peer, by the peer's name; imports it inside.
        agree: Given our answer and the peers' by name, one line on how far they agree;
            raises if they do not. A peer that did not run is missing from the dictionary.
        repeats: Rounds, at most.
        shares: By the peer's name, the share of the work that it is given; its times are divided by it.
        yardsticks: Names among the peers that do other work, a measure of what ours costs: being slower
            than these is not a loss.
        note: Where a goal is missed or a race lost: why.
    """

    title: str
    goal: str | Goal | tuple[Goal, ...]
    ours: Callable[[], Any]
    peers: dict[str, Callable[[], Any]]
    agree: Callable[[Any, dict[str, Any]], str]
    repeats: int = 5
    shares: dict[str, float] = field(default_factory=dict)
    yardsticks: tuple[str, ...] = ()
    note: str = ""

    @property
    def goals(self) -> tuple[Goal, ...]:
        """The goals that can be missed."""
        if isinstance(self.goal, str):
            return ()
        return (self.goal,) if isinstance(self.goal, Goal) else self.goal


@dataclass(frozen=True)
class Scaling:
    """Time and memory against a size, for a plot: ``make(size)`` is the work at that size.

    Attributes:
        title: The work.
        axis: What the size counts, with its letter ("points n").
        sizes: Ascending.
        contenders: For each name a function from the size to the work; ``fathometer`` is ours.
        repeats: Rounds at each size.
    """

    title: str
    axis: str
    sizes: tuple[int, ...]
    contenders: dict[str, Callable[[int], Callable[[], Any]]]
    repeats: int = 3


@dataclass
class Lane:
    """What was measured of one contender.

    Attributes:
        name: Of the contender.
        seconds: Time of each round.
        megabytes: Rise of the peak of resident memory in one call; None where it cannot be read.
        status: Empty, or why it did not run.
        answer: Of the first call.
    """

    name: str
    seconds: list[float] = field(default_factory=list)
    megabytes: float | None = None
    status: str = ""
    answer: Any = None

    @property
    def median(self) -> float:
        """Median time in seconds."""
        return statistics.median(self.seconds) if self.seconds else float("nan")


def run_race(race: Race) -> dict[str, Any]:
    """All rounds of a race; a record of plain values."""
    works = {OURS: race.ours, **race.peers}
    lanes = _warmed(works)
    ours = lanes[OURS]
    answers = {name: lane.answer for name, lane in lanes.items() if not lane.status and name != OURS}
    agreement, agreed = "", True
    if not ours.status:
        try:
            agreement = str(race.agree(ours.answer, answers))
        except Exception as cause:
            agreement, agreed = f"DISAGREES: {type(cause).__name__}: {_line(cause)}", False
    _rounds(works, lanes, race.repeats)
    for name, share in race.shares.items():
        lanes[name].seconds = [seconds / share for seconds in lanes[name].seconds]
    rows = {name: _row(lane, ours, name in race.yardsticks) for name, lane in lanes.items()}
    if not ours.status:
        answers[OURS] = ours.answer
    goals = [goal.judge(rows, answers) for goal in race.goals]
    return {
        "title": race.title,
        "goal": race.goal if isinstance(race.goal, str) else "; ".join(goal["words"] for goal in goals),
        "goals": goals,
        "note": race.note,
        "agreement": agreement,
        "agreed": agreed and not ours.status,
        "rows": list(rows.values()),
    }


def run_scaling(scaling: Scaling) -> dict[str, Any]:
    """Medians at every size; a contender that fails at a size stops there."""
    curves: dict[str, dict[str, Any]] = {
        name: {"sizes": [], "seconds": [], "megabytes": [], "status": ""} for name in scaling.contenders
    }
    for size in scaling.sizes:
        works = {
            name: _made(make, size) for name, make in scaling.contenders.items() if not curves[name]["status"]
        }
        lanes = _warmed(works)
        _rounds(works, lanes, scaling.repeats)
        for name, lane in lanes.items():
            curve = curves[name]
            if lane.status:
                curve["status"] = f"{lane.status} at {size}"
                continue
            curve["sizes"].append(size)
            curve["seconds"].append(lane.median)
            curve["megabytes"].append(lane.megabytes)
    return {"title": scaling.title, "axis": scaling.axis, "curves": curves}


def _made(make: Callable[[int], Callable[[], Any]], size: int) -> Callable[[], Any]:
    """The work at a size; what fails in making it fails when it is called."""
    made: list[Callable[[], Any]] = []

    def work() -> Any:
        if not made:
            made.append(make(size))
        return made[0]()

    return work


def _warmed(works: dict[str, Callable[[], Any]]) -> dict[str, Lane]:
    """Each contender called twice: for its answer, and for its memory."""
    lanes = {name: Lane(name) for name in works}
    for name, work in works.items():
        lane = lanes[name]
        try:
            start = time.perf_counter()
            lane.answer = work()
            if time.perf_counter() - start < PATIENCE / 2:
                lane.megabytes = _rise(work)
        except ImportError as cause:
            lane.status = f"not installed ({_line(cause)})"
        except Exception as cause:
            lane.status = f"failed ({type(cause).__name__}: {_line(cause)})"
        print(f"    {name}: {lane.status or 'warm'}", file=sys.stderr, flush=True)
    return lanes


def _rounds(works: dict[str, Callable[[], Any]], lanes: dict[str, Lane], repeats: int) -> None:
    """Run in turn until the rounds or the patience are used up; one round at least."""
    running = [name for name, lane in lanes.items() if not lane.status]
    start = time.perf_counter()
    for number in range(repeats):
        shift = number % max(1, len(running))
        for name in running[shift:] + running[:shift]:
            gc.collect()
            before = time.perf_counter()
            works[name]()
            lanes[name].seconds.append(time.perf_counter() - before)
        if (time.perf_counter() - start) * (number + 2) / (number + 1) > PATIENCE:
            break


def _row(lane: Lane, ours: Lane, yardstick: bool) -> dict[str, Any]:
    ratios = sorted(a / b for a, b in zip(lane.seconds, ours.seconds, strict=False))
    entry = {k: v for k, v in asdict(lane).items() if k not in ("answer", "seconds")}
    return entry | {
        "seconds": lane.median if lane.seconds else None,
        "rounds": len(lane.seconds),
        "yardstick": yardstick,
        "ratio": statistics.median(ratios) if ratios else None,
        "spread": [ratios[0], ratios[-1]] if ratios else None,
    }


def _line(cause: BaseException) -> str:
    return " ".join(str(cause).split())[:160]


def _rise(work: Callable[[], Any]) -> float | None:
    """Megabytes by which the peak of resident memory rises over what stood before the call."""
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        before = _status("VmRSS")
    except OSError:  # not Linux
        work()
        return None
    work()
    return (_status("VmHWM") - before) / 1024


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith(name)).split()[1])
