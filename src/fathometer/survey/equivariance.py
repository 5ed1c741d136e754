"""Section 5: which changes of the weights keep the function, and which symmetries the layers have."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from fathometer import sharpness, symmetry
from fathometer.drawing import Axis, Line, Panel, Picture, Points
from fathometer.drawing.texts import number
from fathometer.errors import CapabilityError
from fathometer.results import Row, Table
from fathometer.survey.subject import Subject
from fathometer.survey.vocabulary import Fact, Section, records
from fathometer.work import numpy_generator

SHUFFLES = 20
LARGEST = 1024
"""Inputs or outputs of a layer beyond which its table of tied weights is not made."""


@dataclass(frozen=True)
class Reading:
    """The distance of one layer to one symmetry, beside what chance would give."""

    layer: str
    name: str
    defect: float
    chance: float
    spread: float

    @property
    def lead(self) -> float:
        """How far below chance the layer is, in standard deviations of shuffled weights."""
        return (self.chance - self.defect) / max(self.spread, 1e-12)


def measure(subject: Subject) -> Section:
    """Rescalings and unit permutations of the network; a meter of symmetries for every layer."""
    subject.progress(0, 3, "rescalings")
    group = subject.attempt(
        "the group of rescalings",
        lambda: sharpness.rescalings(subject.model, subject.surface.example_inputs()),
    )
    subject.progress(1, 3, "permutations of hidden units")
    exchanges = subject.attempt("the permutations of hidden units", lambda: _exchanges(subject.model))
    subject.progress(2, 3, "symmetries of layers")
    readings = [reading for layer, weight in _layers(subject) for reading in _read(subject, layer, weight)]
    facts = []
    if group is not None:
        facts.append(
            Fact(
                label="rescalings that keep the function",
                value=group.dimension,
                kind=group.kind,
                meaning="dimension of the group; every sharpness that it changes says nothing by itself",
            )
        )
    if exchanges is not None:
        facts.append(
            Fact(
                label="permutations of hidden units",
                value=exchanges,
                kind="exact",
                meaning="as a power of 10: networks that differ only in the order of their units",
            )
        )
    return Section(
        name="symmetry",
        title="Symmetry",
        question="Which changes of the weights change nothing, and which symmetry has each layer learned?",
        verdict=_verdict(group, readings),
        facts=tuple(facts),
        pictures=records([_picture(readings)] if readings else []),
        tables=(_table(readings),) if readings else (),
        notes=_untreated(group),
    )


def _exchanges(model: nn.Module) -> float:
    """Base-10 logarithm of the number of permutations of hidden units, for a chain of linear layers."""
    trained = [m for m in model.modules() if list(m.parameters(recurse=False))]
    layers = [m for m in trained if isinstance(m, nn.Linear)]
    fits = len(layers) == len(trained) and all(b.in_features == a.out_features for a, b in pairwise(layers))
    if not fits or not isinstance(model, nn.Sequential):
        raise CapabilityError("they are counted for a plain chain of linear layers (nn.Sequential) only.")
    return sum(math.lgamma(width + 1) for width in (layer.out_features for layer in layers[:-1])) / math.log(
        10
    )


def _layers(subject: Subject) -> Iterator[tuple[str, Tensor]]:
    for name, module in subject.model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            yield name, module.weight.detach().double()


def _read(subject: Subject, layer: str, weight: Tensor) -> list[Reading]:
    readings = []
    for name, action in _library(weight):
        shaped = weight if weight.ndim == 2 else weight.reshape(-1, weight.shape[2] * weight.shape[3])
        if max(action.sizes) > LARGEST:
            continue
        generator = numpy_generator(subject.seed, "survey", "symmetry", layer, name)
        defect = symmetry.defect(shaped, action)
        flat = shaped.numpy().ravel()
        shuffled = [
            symmetry.defect(torch.from_numpy(generator.permutation(flat).reshape(shaped.shape)), action)
            for _ in range(SHUFFLES)
        ]
        readings.append(
            Reading(layer, name, defect, float(np.mean(shuffled)), float(np.std(shuffled, ddof=1)))
        )
    return readings


def _library(weight: Tensor) -> Iterator[tuple[str, symmetry.Action]]:
    """Symmetries worth asking for, by the shape of the weights."""
    if weight.ndim == 4:
        height, width = weight.shape[2:]
        if height == width and height > 1:
            yield "flips of the filter", _invariant(_grid(height, width, flips=True))
            yield "quarter turns of the filter", _invariant(_grid(height, width, rotations=4))
        return
    outputs, inputs = weight.shape
    side = math.isqrt(inputs)
    if side * side == inputs and side > 2:
        for name, action in (
            ("left-right and up-down flips", _grid(side, side, flips=True)),
            ("quarter turns", _grid(side, side, rotations=4)),
            ("shifts of the image", symmetry.Action.grid(side, side)),
        ):
            yield f"blind to {name}", _invariant(action)
    if outputs == inputs:
        yield "cyclic shifts of the units", symmetry.Action.cyclic(inputs)
        yield "all permutations of the units", symmetry.Action.symmetric(inputs)
    yield "blind to the order of its inputs", _invariant(symmetry.Action.symmetric(inputs))


def _grid(
    height: int, width: int, *, rotations: Literal[False, 4] = False, flips: bool = False
) -> symmetry.Action:
    return symmetry.Action.grid(height, width, translations=False, rotations=rotations, flips=flips)


def _invariant(action: symmetry.Action) -> symmetry.Action:
    """The same moves of the inputs; every output stays where it is."""
    moves = list(action.inputs)
    return symmetry.Action(inputs=moves, outputs=[[0]] * len(moves))


def _verdict(group: sharpness.Rescalings | None, readings: list[Reading]) -> str:
    parts = []
    if group is not None:
        least = "at least " if group.kind == "bound" else ""
        count = group.dimension
        parts.append(
            f"{least}{count:,} independent rescalings of the weights keep the function"
            if count
            else f"{least}no rescaling of the weights keeps the function"
        )
    if readings:
        best = max(readings, key=lambda reading: reading.lead)
        if best.lead > 4:
            parts.append(
                f"the clearest learned symmetry is “{best.name}” in {best.layer or 'the layer'}: "
                f"distance {number(best.defect, 3)} where shuffled weights have {number(best.chance, 3)}"
            )
        else:
            parts.append(
                "no layer is clearly closer to a symmetry of the library than its shuffled weights are "
                f"({best.lead:.1f} standard deviations at the most)"
            )
    if not parts:
        return "No symmetry could be measured."
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _untreated(group: sharpness.Rescalings | None) -> tuple[str, ...]:
    if group is None:
        return ()
    return tuple(f"Not rescaled: {name}, {reason}." for name, reason in list(group.untreated.items())[:6])


def _table(readings: list[Reading]) -> Table:
    rows = tuple(
        Row(
            layer=r.layer,
            symmetry=r.name,
            distance=r.defect,
            kind="exact",
            shuffled=r.chance,
            shuffled_spread=r.spread,
            standard_deviations_below_chance=r.lead,
        )
        for r in readings
    )
    note = (
        "Distance is that to the nearest layer with the symmetry, as a share of the weights' norm: 0 has it."
    )
    return Table(title="Symmetry meter", rows=rows, notes=(note,))


def _picture(readings: list[Reading]) -> Picture:
    shown = sorted(readings, key=lambda r: -r.lead)[:14]
    places = np.arange(len(shown), dtype=float)
    chance = np.array([r.chance for r in shown])
    gap = [math.nan, math.nan]
    bridge = np.array([p for i, r in enumerate(shown) for p in ([r.chance, i], [r.defect, i], gap)])
    panel = Panel(
        marks=(
            Line(x=bridge[:, 0], y=bridge[:, 1], color=7),
            Points(x=chance, y=places, label="shuffled weights", marker="ring", color=1),
            Points(
                x=[r.defect for r in shown],
                y=places,
                label="this layer",
                color=0,
                texts=tuple(f"{r.layer}, {r.name}: {r.defect:.3f}, chance {r.chance:.3f}" for r in shown),
            ),
        ),
        x=Axis(label="distance to the nearest layer with the symmetry"),
        y=Axis(scale="category", categories=tuple(f"{r.layer}: {r.name}" for r in shown), reverse=True),
    )
    return Picture(
        title="Symmetry meter",
        caption="A dot left of its ring: the layer is closer to the symmetry than the same weights in random "
        "order. At 0 it has the symmetry exactly.",
        panels=(panel,),
    )
