"""One item of a paper: a figure, a table, a theorem or an experiment, rebuilt and judged.

A module holds one paper. Each of its items is a function without required
arguments, marked with `item`, that rebuilds one thing from public names and
returns an `Outcome`: the claims of the paper, each with what was published and
what was found here, a table, pictures.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from fathometer.drawing.picture import Picture
from fathometer.errors import InputError
from fathometer.results import Result, Table
from fathometer.types import Kind


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Check(Result):
    """One claim, what was published and what was found.

    Attributes:
        claim: The sentence of the paper that is checked, in words of our own.
        published: The number or shape in print.
        found: The same, as found here.
        passed: Whether they agree by the rule that the claim states.
        note: Why a difference is legitimate, or which erratum applies.
    """

    claim: str
    published: str
    found: str
    passed: bool
    note: str = ""

    @property
    def value(self) -> str:
        """What was found."""
        return self.found

    @property
    def kind(self) -> Kind:
        """The verdict is exact; the numbers in the text carry their own errors."""
        return "exact"

    @property
    def error(self) -> None:
        """None: the claim states its tolerance."""
        return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What an item returns.

    Attributes:
        checks: The claims, at least one.
        table: The numbers behind them.
        pictures: The figures, as they stand in the paper or better.
    """

    checks: tuple[Check, ...]
    table: Table | None = None
    pictures: tuple[Picture, ...] = ()


@runtime_checkable
class Runner(Protocol):
    """A function that rebuilds one item."""

    __name__: str
    __module__: str

    def __call__(self, *, full: bool = False, seed: int = 0) -> Outcome:
        """Rebuild it, at the published size if ``full``."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item:
    """An item as the register knows it.

    Attributes:
        paper: Name of the paper's module, for example "dinh_2017".
        name: Name within the paper, for example "figure-3".
        title: What the reader finds there in the paper.
        seconds: About how long the default size takes on two cores.
        run: The function.
    """

    paper: str
    name: str
    title: str
    seconds: float
    run: Runner

    @property
    def key(self) -> str:
        """``paper:name``, as typed after ``fathometer reproduce``."""
        return f"{self.paper}:{self.name}"


ITEMS: dict[str, Item] = {}


def item(name: str, title: str, *, seconds: float) -> Callable[[Runner], Runner]:
    """Enter a function into the register of its paper.

    Args:
        name: Name within the paper: "figure-1", "theorem-4", "table-2", "section-5.1".
        title: One line: what it shows.
        seconds: About how long the default size takes on two cores.
    """

    def enter(run: Runner) -> Runner:
        paper = run.__module__.removeprefix("fathometer.papers.").partition(".")[0]
        entry = Item(paper=paper, name=name, title=title, seconds=seconds, run=run)
        if entry.key in ITEMS:
            raise InputError(f"item is {entry.key!r} twice; names within a paper differ.")
        ITEMS[entry.key] = entry
        return run

    return enter


def check(claim: str, published: Any, found: Any, passed: bool, note: str = "") -> Check:
    """A `Check` from numbers, texts or named numbers; floats are shown with four digits."""

    def text(value: Any) -> str:
        if isinstance(value, dict):
            return ", ".join(f"{name} {text(part)}" for name, part in value.items())
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    return Check(claim=claim, published=text(published), found=text(found), passed=bool(passed), note=note)
