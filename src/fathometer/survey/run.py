"""Run the instruments on one network, keep what is finished, write the report.

Sections are measured one after the other. Each finished one is recorded in a ledger in
``run_dir``, so that a survey that was killed goes on where it stopped; the ledger is
bound to the hashes of weights, data and version, and refuses to mix runs.
"""

import hashlib
import html
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from fathometer import __version__
from fathometer.errors import FathometerError, InputError
from fathometer.files import write_atomic
from fathometer.results import Result
from fathometer.survey import equivariance, expressiveness, flatness, network, sampling, terrain
from fathometer.survey.effort import worth
from fathometer.survey.report import build_report
from fathometer.survey.subject import Subject, subject_of
from fathometer.survey.vocabulary import Section, Skipped
from fathometer.types import Kind, Progress
from fathometer.work import Ledger, check_seed, environment, exchange, phase, rank, silent, threads

T = TypeVar("T")
Measure = Callable[[Subject], Section]

# instrument (None: always), what is told while it runs, share of the time, how it is measured
_PLAN: tuple[tuple[str | None, str, float, Measure], ...] = (
    (None, "the network", 0.04, network.measure),
    ("spectra", "the loss surface", 0.36, terrain.measure),
    ("sharpness", "sharpness", 0.26, flatness.measure),
    ("stein", "sampling", 0.18, sampling.measure),
    ("symmetry", "symmetry", 0.06, equivariance.measure),
    ("approximation", "expressiveness", 0.10, expressiveness.measure),
)
INSTRUMENTS = tuple(name for name, *_ in _PLAN if name)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SurveyResult(Result):
    """What a survey found.

    Attributes:
        name: Of the network.
        story: One line on where it comes from.
        sections: The chapters of the report.
        skipped: What could not be measured, and why.
        manifest: Versions, seeds, hashes, times.
        path: Where the report was written; empty if nowhere.
    """

    name: str
    story: str
    sections: tuple[Section, ...]
    skipped: tuple[Skipped, ...]
    manifest: dict[str, Any]
    path: str = ""

    @property
    def value(self) -> int:
        """Number of sections."""
        return len(self.sections)

    @property
    def kind(self) -> Kind:
        """The count is exact; facts carry their own kinds."""
        return "exact"

    @property
    def error(self) -> float:
        """Zero: see the facts."""
        return 0.0

    def __getitem__(self, name: str) -> Section:
        """A section by its name."""
        for section in self.sections:
            if section.name == name:
                return section
        raise KeyError(f"{name!r} was not surveyed; there are {', '.join(s.name for s in self.sections)}")

    def __str__(self) -> str:
        lines = [f"Survey of {self.name}", *(f"  {section}" for section in self.sections)]
        lines += [f"  skipped: {item}" for item in self.skipped]
        return "\n".join(lines + ([f"  report: {self.path}"] if self.path else []))

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"

    def report(self) -> str:
        """The report as one HTML page, from the saved numbers alone."""
        return build_report(
            self.sections, title=self.name, subtitle=self.story, skipped=self.skipped, manifest=self.manifest
        )


def survey(
    model: Any = None,
    loss: Any = None,
    data: Any = None,
    *,
    out: str | Path | None = "report.html",
    instruments: Sequence[str] | None = None,
    run_dir: str | Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    thorough: bool = False,
    name: str = "",
) -> SurveyResult:
    """Survey a trained network and write one report.

    With no arguments a trained network that comes with the package is surveyed. The model is
    copied and left as it was. A measurement that cannot be made is listed with its reason.

    Args:
        model: A trained module, or a `LossSurface`.
        loss: As `LossSurface` takes it.
        data: As `LossSurface` takes it.
        out: Where the report is written; None for nowhere.
        instruments: Some of "spectra", "sharpness", "stein", "symmetry", "approximation"; all if None.
        run_dir: Folder that keeps finished sections; the same call resumes from it, also after a kill.
        seed: Of every random number.
        progress: Called as ``progress(done, total, what)``.
        thorough: Take minutes instead of a minute, for smaller errors.
        name: What the report calls the network; the class of the module if empty.

    Raises:
        InputError: If model, loss and data do not fit together, an instrument is unknown, or
            ``run_dir`` holds the survey of something else.
    """
    chosen = _chosen(instruments)
    check_seed(seed)
    report = progress or silent
    start = time.perf_counter()
    report(0, 1000, "reading model and data")
    subject = subject_of(model, loss, data, seed=seed, thorough=thorough, name=name)
    manifest = {
        "version": __version__,
        "network": subject.name,
        "loss": subject.surface.loss,
        "seed": seed,
        "thorough": thorough,
        "sha256": subject.fingerprint,
    }
    ledger = _opened(run_dir, _key(manifest))
    with threads(worth(subject.surface)):
        try:
            sections, skipped = _measured(subject, chosen, ledger, run_dir is not None, report)
        finally:
            if ledger is not None:
                ledger.close()
        manifest |= {
            "instruments": list(chosen),
            "seconds": {section.name: round(section.seconds, 2) for section in sections},
            "total_seconds": round(time.perf_counter() - start, 2),
            "environment": environment(),
        }
    result = SurveyResult(
        name=subject.name,
        story=subject.story,
        sections=sections,
        skipped=skipped,
        manifest=manifest,
        path="" if out is None else str(out),
    )
    if out is not None:
        _in_the_first_process(lambda: write_atomic(out, result.report()))
    report(1000, 1000, "done")
    return result


def _chosen(instruments: Sequence[str] | None) -> tuple[str, ...]:
    if instruments is None:
        return INSTRUMENTS
    names = (instruments,) if isinstance(instruments, str) else tuple(instruments)
    for name in names:
        if name not in INSTRUMENTS:
            raise InputError(f"instruments names {name!r}; there are {', '.join(INSTRUMENTS)}.")
    return tuple(name for name in INSTRUMENTS if name in names)


def _key(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _in_the_first_process(act: Callable[[], T]) -> T | None:
    """What touches files is done once; the other processes wait, and stop if it fails."""
    value, failure = None, None
    if rank() == 0:
        try:
            value = act()
        except (FathometerError, OSError) as cause:
            failure = cause
    exchange(None, failure)
    return value


def _opened(run_dir: str | Path | None, key: str) -> Ledger | None:
    """The ledger of the run, in the first process only: the others learn from it what it holds."""
    if run_dir is None:
        return None
    return _in_the_first_process(lambda: Ledger(Path(run_dir) / "survey.jsonl", key=key))


def _measured(
    subject: Subject, chosen: tuple[str, ...], ledger: Ledger | None, kept: bool, report: Progress
) -> tuple[tuple[Section, ...], tuple[Skipped, ...]]:
    plan = [step for step in _PLAN if step[0] is None or step[0] in chosen]
    whole = sum(share for _, _, share, _ in plan)
    done = 0.0
    sections: list[Section] = []
    skipped: list[Skipped] = []
    for _, what, share, measure in plan:
        report(round(1000 * done / whole), 1000, what)
        found = ledger[what] if ledger is not None and what in ledger else None
        if kept:
            found = exchange(found)[0]
        if found is None:
            subject.progress = phase(report, done / whole, (done + share) / whole, what)
            found = _section(subject, what, measure)
            if ledger is not None:
                ledger.record(what, found)
        done += share
        if isinstance(found, Section):
            sections.append(found)
            skipped += found.skipped
        else:
            skipped.append(found)
    return tuple(sections), tuple(skipped)


def _section(subject: Subject, what: str, measure: Measure) -> Section | Skipped:
    """A finished section with its time, notes and refusals; or why there is none."""
    start = time.perf_counter()
    subject.drain()
    try:
        section = measure(subject)
    except FathometerError as cause:
        return Skipped(what=what, reason=str(cause))
    notes, skipped = subject.drain()
    return replace(
        section,
        notes=(*section.notes, *notes),
        skipped=skipped,
        seconds=time.perf_counter() - start,
    )
