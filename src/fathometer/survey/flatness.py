"""Section 3: sharpness - the numbers, what they are invariant to, and equivalent networks."""

from typing import Any

from fathometer import sharpness
from fathometer.drawing.texts import number
from fathometer.errors import CapabilityError
from fathometer.results import Table
from fathometer.survey.subject import Subject
from fathometer.survey.vocabulary import Fact, Section, Skipped, records

FACTOR = 1e6

RESCALINGS = ("layer_scale", "neuron_scale")
"""Transformations of the audit in the report."""


def measure(subject: Subject) -> Section:
    """Every sharpness with its invariances, equivalent networks sharper and flatter, a landscape."""
    surface, seed, effort = subject.surface, subject.seed, subject.effort
    subject.progress(0, 4, "measures")
    table = subject.attempt(
        "the table of sharpness measures", lambda: sharpness.measure(surface, effort.measures)
    )
    subject.skipped += [] if table is None else _omissions(table)
    subject.progress(1, 4, "a sharper network with the same outputs")
    sharper = subject.attempt(
        "an equivalent sharper network", lambda: sharpness.sharpen(surface, factor=FACTOR, seed=seed)
    )
    subject.progress(2, 4, "the flattest network with the same outputs")
    flatter = subject.attempt("the flattest equivalent network", lambda: _flattest(subject))
    audit = subject.attempt(
        "the audit of invariances",
        lambda: sharpness.audit(surface, effort.audited, transformations=RESCALINGS, seed=seed),
    )
    subject.progress(3, 4, "landscape")
    landscape = subject.attempt(
        "the landscape", lambda: sharpness.landscape(surface, "filter", effort.points, seed=seed)
    )
    facts = [*_facts("sharper", sharper), *_facts("flattest", flatter)]
    pictures = [result.picture() for result in (sharper, audit, landscape) if result is not None]
    return Section(
        name="sharpness",
        title="Sharpness",
        question="How sharp is this place, and which of these numbers mean anything?",
        verdict=_verdict(table, audit, sharper, flatter),
        facts=tuple(facts),
        pictures=records(pictures),
        tables=() if table is None else (Table(title=table.title, rows=table.rows),),
    )


def _flattest(subject: Subject) -> Any:
    if not subject.effort.flattest:
        raise CapabilityError("a brief look does not search the orbit; a thorough survey does.")
    return sharpness.flatten(subject.surface, seed=subject.seed)


def _omissions(table: Table) -> list[Skipped]:
    """What the table could not measure, one entry a reason."""
    names: dict[str, list[str]] = {}
    for note in table.notes:
        what, _, reason = note.partition(" was not measured: ")
        names.setdefault(reason, []).append(what)
    return [Skipped(what=", ".join(group), reason=reason) for reason, group in names.items()]


def _facts(which: str, equivalent: Any) -> list[Fact]:
    if equivalent is None:
        return []
    name = equivalent.measure.replace("_", " ")
    return [
        Fact(
            label=f"{name} here",
            value=float(equivalent.before.value),
            kind=equivalent.before.kind,
            error=equivalent.before.error,
        ),
        Fact(
            label=f"{name} of the {which} equivalent",
            value=float(equivalent.after.value),
            kind=equivalent.after.kind,
            error=equivalent.after.error,
            meaning=f"outputs change by {equivalent.output_error:.1e} of the largest",
        ),
    ]


def _verdict(table: Any, audit: Any, sharper: Any, flatter: Any) -> str:
    parts = []
    if sharper is not None:
        parts.append(
            f"the largest curvature is {number(float(sharper.before.value), 3)}, but a network with the same "
            f"outputs (to {number(sharper.output_error, 1)}) has {number(sharper.value, 3)} times as much"
        )
    if flatter is not None:
        ratio = float(flatter.before.value) / float(flatter.after.value)
        parts.append(f"the flattest equivalent has a trace {number(ratio, 3)} times smaller")
    if audit is not None and audit.rows:
        moved = {row.measure for row in audit.rows if row.verdict != "invariant"}
        measures = {row.measure for row in audit.rows}
        parts.append(
            f"taken again at rescaled networks, {len(measures - moved)} of {len(measures)} measures stay "
            "as they are"
        )
    if not parts and table is not None and table.rows:
        first = table.rows[0]
        parts.append(
            f"the {first.measure.replace('_', ' ')} is {number(first.value, 3)}; no rescaling keeps the "
            "function, so none of the measures can be changed by one"
        )
    if not parts:
        return "No sharpness could be measured."
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."
