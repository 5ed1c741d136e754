"""Section 6: how much of its freedom to bend the network uses between examples."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from fathometer import approximation
from fathometer.drawing import Axis, Line, Panel, Picture
from fathometer.drawing.texts import number
from fathometer.errors import CapabilityError
from fathometer.results import Row, Table
from fathometer.survey.subject import Subject
from fathometer.survey.vocabulary import Fact, Section, records

SEGMENTS = 8
ACCURACY = 0.01
"""Error of the small network for a slice, as a share of the slice's range."""


@dataclass(frozen=True)
class Small:
    """The smallest one-layer network for a slice: its knots, their values, units and error.

    Both functions are piecewise linear, so their largest distance lies at a knot of one of
    them: ``error`` is the whole truth up to rounding.
    """

    knots: np.ndarray
    values: np.ndarray
    units: int
    error: float
    optimal: bool


def measure(subject: Subject) -> Section:
    """Linear pieces on segments between examples; the smallest network for one slice."""
    inputs = _inputs(subject)
    counts = []
    for i, (start, end) in enumerate(pairwise(inputs)):
        subject.progress(i, len(inputs), f"segment {i + 1}")
        counts.append(approximation.pieces(subject.model, (start, end)))
    subject.progress(len(inputs) - 1, len(inputs), "the smallest network for a slice")
    small = subject.attempt("the smallest network for the same slice", lambda: _smallest(counts[0]))
    values = np.array([int(count) for count in counts])
    mean, error = float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))
    facts = [
        Fact(label="linear pieces between two examples", value=mean, kind="estimate", error=error),
        Fact(label="fewest and most", value=f"{values.min()} and {values.max()}", kind="exact"),
        Fact(
            label="most that this architecture could make",
            value=_power(counts[0].ceiling),
            kind="bound",
            meaning=f"{counts[0].units} units that can bend",
        ),
    ]
    if small is not None:
        facts += _small_facts(counts[0], small)
    return Section(
        name="expressiveness",
        title="Expressiveness",
        question="How often does the function bend between examples, and how small a network would do?",
        verdict=_verdict(mean, counts[0], small),
        facts=tuple(facts),
        pictures=records([_slice(counts[0], small)]),
        tables=(_table(counts),),
    )


def _inputs(subject: Subject) -> list[torch.Tensor]:
    """Some examples, one tensor each."""
    arguments = subject.surface.example_inputs(SEGMENTS + 1)
    if len(arguments) != 1 or not isinstance(arguments[0], torch.Tensor):
        raise CapabilityError("segments are drawn for models of one input tensor.")
    if not arguments[0].is_floating_point():
        raise CapabilityError(f"inputs are {arguments[0].dtype}; there is no segment between whole numbers.")
    if len(arguments[0]) < 3:
        raise CapabilityError(f"there are {len(arguments[0])} examples; three are needed for two segments.")
    return list(arguments[0].double())


def _curve(count: Any) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the pieces of a slice, and there the output that changes most."""
    ends = np.concatenate([[0.0], np.asarray(count.breaks, float), [1.0]])
    outputs = np.asarray(count.outputs, float).reshape(len(ends), -1)
    return ends, outputs[:, np.ptp(outputs, axis=0).argmax()]


def _smallest(count: Any) -> Small:
    """The one-layer network with the fewest units that follows the slice within `ACCURACY`."""
    ends, values = _curve(count)
    span = float(np.ptp(values))
    if span == 0.0:
        raise CapabilityError("the outputs do not change along the slice.")
    fit = approximation.shallow(
        lambda t: np.interp(t, ends, values), (0.0, 1.0), error=ACCURACY * span, breakpoints=tuple(ends[1:-1])
    )
    network = fit.network("skip")
    places = np.union1d(ends, np.asarray(fit.knots, float))
    gap = float(np.abs(np.asarray(network(places)).reshape(-1) - np.interp(places, ends, values)).max())
    return Small(
        knots=np.asarray(fit.knots, float),
        values=np.asarray(fit.values, float),
        units=network.units,
        error=gap / span,
        optimal=fit.optimal,
    )


def _small_facts(count: Any, small: Small) -> list[Fact]:
    return [
        Fact(
            label="units that the first slice needs",
            value=small.units,
            kind="exact" if small.optimal else "bound",
            meaning=f"one hidden layer beside the input, instead of {int(count) - 1} bends",
        ),
        Fact(
            label="error of that small network",
            value=small.error,
            kind="exact",
            meaning="largest distance anywhere on the slice, as a share of its range",
        ),
    ]


def _verdict(mean: float, first: Any, small: Small | None) -> str:
    text = (
        f"Between two examples the function is made of {number(mean, 3)} linear pieces on average, where the "
        f"architecture could make {_power(first.ceiling)}"
    )
    if small is None:
        return f"{text}."
    return (
        f"{text}; {small.units} units in one layer follow the first slice of {int(first)} pieces to "
        f"{number(100 * small.error, 2)} % of its range."
    )


def _power(ceiling: str) -> str:
    """A whole number, as a power of ten when it is long."""
    if len(ceiling) < 7:
        return ceiling
    return f"10^{len(ceiling) - 6 + math.log10(int(ceiling[:6])):.1f}"


def _table(counts: list[Any]) -> Table:
    rows = tuple(
        Row(segment=f"example {i} to {i + 1}", pieces=int(c), activation_regions=c.regions, kind="exact")
        for i, c in enumerate(counts)
    )
    return Table(title="Linear pieces along segments", rows=rows)


def _slice(count: Any, small: Small | None) -> Picture:
    ends, values = _curve(count)
    marks = [Line(x=ends, y=values, label=f"the network, {int(count)} pieces")]
    if small is not None:
        marks.append(
            Line(x=small.knots, y=small.values, label=f"the smallest, {len(small.knots) - 1} pieces")
        )
    return Picture(
        title="A slice through the network",
        caption="The output that changes most, along the straight line from the first to the second example.",
        panels=(
            Panel(
                marks=tuple(marks),
                x=Axis(label="share of the way from the first example to the second"),
                y=Axis(label="output"),
            ),
        ),
    )
