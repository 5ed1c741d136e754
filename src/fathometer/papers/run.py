"""Run items of the papers and keep their outcomes.

A run with a folder goes on where it was killed, if the code is still the same: results of
two versions of the code do not mix.
"""

import dataclasses
import hashlib
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from fathometer import __version__
from fathometer.drawing.picture import Picture
from fathometer.drawing.record import from_record, to_record
from fathometer.errors import InputError
from fathometer.papers.catalog import Entry, entries
from fathometer.papers.item import ITEMS, Check
from fathometer.results import Result, Table, load, pack
from fathometer.types import Kind, Progress
from fathometer.work import check_seed, environment, task_map

_HERE = Path(__file__).parent


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Reproduction(Result):
    """The outcome of one item, as it is kept on disk.

    Attributes:
        paper: Name of the paper's module.
        name: Name within the paper.
        title: What the reader finds there in the paper.
        explanation: The docstring of the function: what is rebuilt, and what differs.
        checks: The claims with their verdicts.
        table: The numbers behind them.
        pictures: Records of the pictures (see `drawing.record`).
        seconds: Time it took.
        full: Whether it ran at the published size.
        seed: Of its random streams.
        failure: Empty, or the error that ended it.
        machine: Versions, threads and processor.
        warned: What it was warned of, such as a theorem that does not apply; each once.
    """

    paper: str
    name: str
    title: str
    explanation: str
    checks: tuple[Check, ...]
    table: Table | None
    pictures: tuple[dict[str, Any], ...]
    seconds: float
    full: bool
    seed: int
    failure: str
    machine: dict[str, Any]
    warned: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """``paper:name``."""
        return f"{self.paper}:{self.name}"

    @property
    def passed(self) -> bool:
        """Whether it ran to its end and every claim holds."""
        return not self.failure and all(check.passed for check in self.checks)

    @property
    def value(self) -> str:
        """The verdict in one clause."""
        if self.failure:
            return f"broken: {self.failure}"
        held = sum(check.passed for check in self.checks)
        failed = "; ".join(check.claim for check in self.checks if not check.passed)
        return f"{held} of {len(self.checks)} claims hold" + (f"; not: {failed}" if failed else "")

    @property
    def kind(self) -> Kind:
        """The verdict is exact; the numbers in the claims carry their own errors."""
        return "exact"

    @property
    def error(self) -> None:
        """None: each claim states its tolerance."""
        return None

    def drawn(self) -> tuple[Picture, ...]:
        """The pictures."""
        return tuple(from_record(record) for record in self.pictures)

    def __str__(self) -> str:
        return f"{'pass' if self.passed else 'FAIL'}  {self.key}  {self.value}  ({self.seconds:.1f} s)"


def reproduce(
    items: Sequence[Entry],
    *,
    full: bool = False,
    seed: int = 0,
    run_dir: str | Path | None = None,
    each: Callable[[Reproduction], None] | None = None,
    progress: Progress | None = None,
) -> list[Reproduction]:
    """Run items; a failing one is recorded as such and does not stop the others.

    Args:
        items: From `choose`.
        full: At the published sizes.
        seed: Of all random streams.
        run_dir: Folder for finished work; the same call with the same code goes on there.
        each: Called with every outcome as soon as it is there, once an item; outcomes that
            the folder held already, or that other processes made, come at the end.
        progress: Called with (done, total, item).

    Raises:
        InputError: If the folder holds another run.
    """
    check_seed(seed)
    told: set[str] = set()

    def tell(outcome: Reproduction) -> None:
        if each is not None and outcome.key not in told:
            told.add(outcome.key)
            each(outcome)

    def task(entry: Entry) -> Reproduction:
        if progress is not None:
            progress(len(told), len(items), entry.key)
        outcome = run_item(entry, full=full, seed=seed)
        tell(outcome)
        return outcome

    key = f"{__version__}|{full}|{seed}|{_digest(items)}"
    outcomes = task_map(task, items, run_dir=run_dir, name="items", key=key)
    for outcome in outcomes:
        tell(outcome)
    return outcomes


def run_item(entry: Entry, *, full: bool = False, seed: int = 0) -> Reproduction:
    """Run one item; its errors and warnings become part of the outcome."""
    start, failure, explanation = time.perf_counter(), "", ""
    checks, table, pictures, seen = (), None, (), []
    try:
        import_module(entry.module)
        function = ITEMS[entry.key].run
        explanation = function.__doc__ or ""
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            outcome = function(full=full, seed=seed)
        checks, table = tuple(outcome.checks), outcome.table
        pictures = tuple(to_record(picture) for picture in outcome.pictures)
        pack((checks, table, pictures))  # what has no place in a file is a fault of the item
        if not checks:
            failure = "it states no claim"
    except Exception as cause:
        failure = f"{type(cause).__name__}: {' '.join(str(cause).split())}"
    return Reproduction(
        paper=entry.paper,
        name=entry.name,
        title=entry.title,
        explanation=explanation,
        checks=checks,
        table=table,
        pictures=pictures,
        seconds=time.perf_counter() - start,
        full=full,
        seed=seed,
        failure=failure,
        machine=environment(),
        warned=tuple(dict.fromkeys(" ".join(str(w.message).split()) for w in seen)),
    )


def save(outcome: Reproduction, folder: Path) -> Path:
    """Write an outcome to ``folder/paper/item.safetensors``; the published size has its own file."""
    path = folder / outcome.paper / f"{outcome.name}{'.full' if outcome.full else ''}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    return outcome.save(path)


def saved(folder: Path) -> list[Reproduction]:
    """The outcomes in a folder, in the order of the papers.

    Raises:
        InputError: If a file there is damaged or not an outcome.
    """
    outcomes = []
    for path in sorted(folder.glob("*/*.safetensors")):
        outcome = load(path)
        if not isinstance(outcome, Reproduction):
            raise InputError(f"{path}: holds a {type(outcome).__name__}, not the outcome of an item.")
        outcomes.append(outcome)
    order = {key: place for place, key in enumerate(entries())}
    return sorted(outcomes, key=lambda one: (one.paper, order.get(one.key, len(order)), one.full))


def _digest(items: Iterable[Entry]) -> str:
    """A hash of the items and of the whole source, so that results of two versions do not mix."""
    content = hashlib.sha256("|".join(entry.key for entry in items).encode())
    for path in sorted(_HERE.parent.rglob("*.py")):
        content.update(path.read_bytes())
    return content.hexdigest()[:16]
