"""What a report is made of: facts, sections, and what was skipped.

All of it are saved `Result` objects, so a report can be built again from the files of
a run, without the model. Pictures travel as records (see `drawing.record`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from fathometer.drawing import Picture, from_record, to_record
from fathometer.errors import InputError
from fathometer.results import Result, Table, check_kind, describe
from fathometer.types import Kind


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Fact(Result):
    """One number of a report, with what it means.

    Attributes:
        label: Its name in words.
        value: The number (or a short text).
        kind: "exact", "bound" or "estimate".
        error: In the units of ``value``; 0 for an exact one.
        unit: Of ``value``; empty for a pure number.
        meaning: One clause on how to read it; may be empty.
    """

    label: str
    value: Any
    kind: Kind
    error: Any = 0.0
    unit: str = ""
    meaning: str = ""

    def __post_init__(self) -> None:
        check_kind(self.kind)

    def __str__(self) -> str:
        return f"{self.label}: {describe(self.value, self.kind, self.error)}"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Skipped(Result):
    """A measurement that could not be made, and why.

    Attributes:
        what: The measurement.
        reason: Why not, as the error said it.
    """

    what: str
    reason: str

    @property
    def value(self) -> str:
        """What was skipped."""
        return self.what

    @property
    def kind(self) -> Kind:
        """That it was skipped is exact."""
        return "exact"

    @property
    def error(self) -> float:
        """Zero."""
        return 0.0

    def __str__(self) -> str:
        return f"{self.what}: {self.reason}"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Section(Result):
    """One chapter of a report.

    Attributes:
        name: Short id: lower-case letters and hyphens.
        title: Heading.
        question: The question it answers.
        verdict: The answer in one sentence, computed from the numbers.
        facts: The numbers behind the verdict.
        pictures: Records of the pictures; `illustrated` makes them.
        tables: Tables with a kind in each row.
        notes: What to bear in mind, and what could not be treated; one sentence each.
        skipped: Parts of it that could not be measured.
        seconds: Time the measurement took.
    """

    name: str
    title: str
    question: str
    verdict: str
    facts: tuple[Fact, ...] = ()
    pictures: tuple[dict[str, Any], ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if not self.name.replace("-", "").isalnum() or self.name != self.name.lower():
            raise InputError(
                f"name is {self.name!r}; a section's id has lower-case letters, digits and hyphens."
            )

    @property
    def value(self) -> str:
        """The verdict."""
        return self.verdict

    @property
    def kind(self) -> Kind:
        """The weakest kind among the facts."""
        kinds = {fact.kind for fact in self.facts}
        return "estimate" if "estimate" in kinds else "bound" if "bound" in kinds else "exact"

    @property
    def error(self) -> float:
        """Zero: see the facts."""
        return 0.0

    def __str__(self) -> str:
        return f"{self.title}: {self.verdict}"

    def drawn(self) -> tuple[Picture, ...]:
        """The pictures of the section."""
        return tuple(from_record(record) for record in self.pictures)


def records(pictures: Iterable[Picture]) -> tuple[dict[str, Any], ...]:
    """Pictures in the form that a `Section` keeps."""
    return tuple(to_record(picture) for picture in pictures)
