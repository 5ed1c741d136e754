"""Section 4: samples of the posterior around the minimum, over a ladder of step sizes.

The posterior is looked at in the plane of the stiffest directions of the Hessian, where the
data speak loudest, in units in which each direction is a standard deviation wide (to second
order). Everywhere at once would be useless: with fewer draws than dimensions a discrepancy
cannot tell a perfect sample from one that never left its start.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fathometer.drawing import Axis, Panel, Picture, Points, Rule
from fathometer.drawing.texts import number
from fathometer.errors import CapabilityError
from fathometer.linalg import eigenpairs
from fathometer.results import Row, Table
from fathometer.stein import ess, ksd
from fathometer.stein.samplers import langevin
from fathometer.stein.targets import Density
from fathometer.survey.subject import Subject
from fathometer.survey.vocabulary import Fact, Section, records

PRIOR = 0.01
"""Precision of the Gaussian prior around the weights, as a share of the stiffest direction's."""
LADDER = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""Variances of the noise of one step, in squared standard deviations; from 4 on nothing is stable."""


@dataclass(frozen=True)
class Rung:
    """What one step size gave."""

    step: float
    discrepancy: float
    error: float
    yardstick: float
    ess: float


def measure(subject: Subject) -> Section:
    """Langevin chains at six step sizes: their discrepancy beside their effective sample size."""
    surface = subject.surface
    draws = subject.effort.draws
    target, dimension = _target(subject)
    rungs = []
    for i, step in enumerate(LADDER):
        subject.progress(i, len(LADDER), f"step size {i + 1} of {len(LADDER)}")
        found = subject.attempt(
            f"sampling with step size {step:g}",
            lambda step=step: _rung(subject, target, dimension, step, draws),
        )
        if found is not None:
            rungs.append(found)
    if not rungs:
        raise CapabilityError("no chain stayed finite; is the loss finite around the weights?")
    best = min(rungs, key=lambda rung: rung.discrepancy)
    return Section(
        name="sampling",
        title="Sampling",
        question="Can Langevin dynamics sample the posterior around this point, and at which step size?",
        verdict=_verdict(rungs, best),
        facts=_facts(best, dimension, draws),
        pictures=records([_picture(rungs, best)]),
        tables=(_table(rungs),),
        notes=(
            f"The posterior of {surface.examples:,} examples at temperature 1, in the plane of the "
            f"{dimension} stiffest directions through the weights; lengths are in standard deviations to "
            "second order.",
            "The discrepancy compares the draws with the posterior itself; the effective sample size "
            "compares a chain with itself only.",
        ),
    )


def _target(subject: Subject) -> tuple[Density, int]:
    """The posterior as a density of the coordinates along the stiffest directions, and their number."""
    surface = subject.surface
    count = min(subject.effort.directions, surface.size)
    pairs = eigenpairs(surface.hessian(), count, "largest", tolerance=1e-2, seed=subject.seed)
    values = torch.as_tensor(pairs.values).double()
    positive = values > 1e-6 * values.abs().max()
    if not positive.any():
        raise CapabilityError("no direction curves upward here, so there is no local posterior to sample.")
    stiffness = surface.examples * values[positive]
    prior = PRIOR * float(stiffness.max())
    frame = torch.as_tensor(pairs.vectors).double()[:, positive] / (stiffness + prior).sqrt()
    weight = prior / (stiffness + prior)
    return Density(both=_density(subject, frame, weight), dimension=int(positive.sum())), int(positive.sum())


def _density(subject: Subject, frame: Tensor, weight: Tensor) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    surface = subject.surface
    center, type_ = surface.theta.double(), surface.theta.dtype

    def both(z: Tensor) -> tuple[Tensor, Tensor]:
        values, scores = [], []
        for point in z:
            theta = (center + frame @ point).to(type_)
            values.append(-surface.examples * surface.energy(theta).double() - 0.5 * weight @ point.square())
            scores.append(-surface.examples * (frame.T @ surface.gradient(theta).double()) - weight * point)
        return torch.stack(values), torch.stack(scores)

    return both


def _rung(subject: Subject, target: Density, dimension: int, step: float, draws: int) -> Rung:
    start = torch.zeros(dimension, dtype=torch.float64)
    chain = langevin(target, start, draws, step, seed=subject.seed, metropolis=False, warmup=draws // 5)
    found = ksd(chain.points, chain.scores)
    sizes = ess(chain.points)
    return Rung(step, float(found.value), float(found.error), float(found.expected), float(np.median(sizes)))


def _facts(best: Rung, dimension: int, draws: int) -> tuple[Fact, ...]:
    return (
        Fact(
            label="chosen step size",
            value=best.step,
            kind="exact",
            meaning="of the smallest discrepancy on the ladder, in squared standard deviations",
        ),
        Fact(
            label="kernel Stein discrepancy there",
            value=best.discrepancy,
            kind="exact",
            meaning=f"of these {draws} draws in {dimension} dimensions",
        ),
        Fact(
            label="of a perfect sample of that size",
            value=best.yardstick,
            kind="estimate",
            error=None,
            meaning="about what independent draws would have",
        ),
        Fact(
            label="effective sample size there",
            value=best.ess,
            kind="estimate",
            error=None,
            meaning=f"median coordinate, of {draws} draws",
        ),
    )


def _verdict(rungs: list[Rung], best: Rung) -> str:
    widest = max(rungs, key=lambda rung: rung.ess)
    ratio = best.discrepancy / best.yardstick if best.yardstick else math.inf
    text = (
        f"Of {len(rungs)} step sizes tried, a step of {number(best.step, 2)} comes closest to the posterior, "
        f"with a discrepancy {number(ratio, 3)} times that of a perfect sample"
    )
    if widest.step != best.step:
        gap = widest.discrepancy / best.discrepancy
        return (
            f"{text}; effective sample size would choose a step of {number(widest.step, 2)}, whose draws are "
            f"{number(gap, 3)} times farther away."
        )
    return f"{text}; effective sample size agrees."


def _table(rungs: list[Rung]) -> Table:
    rows = tuple(
        Row(
            step_size=r.step,
            discrepancy=r.discrepancy,
            kind="exact",
            error=r.error,
            perfect_sample=r.yardstick,
            effective_sample_size=r.ess,
        )
        for r in rungs
    )
    return Table(title="Ladder of step sizes", rows=rows)


def _picture(rungs: list[Rung], best: Rung) -> Picture:
    steps = [r.step for r in rungs]
    axis = Axis(label="step size", scale="log")
    chosen = Rule(x=best.step, label="chosen")
    return Picture(
        title="Discrepancy and effective sample size",
        caption="Left: distance of the draws from the posterior, lower is better; rings are what a perfect "
        "sample of that size would have. Right: effective sample size, which rewards long steps even when "
        "they are biased.",
        panels=(
            Panel(
                title="Discrepancy",
                marks=(
                    Points(x=steps, y=[r.discrepancy for r in rungs], label="draws", color=0),
                    Points(
                        x=steps,
                        y=[r.yardstick for r in rungs],
                        label="perfect sample",
                        marker="ring",
                        color=1,
                    ),
                    chosen,
                ),
                x=axis,
                y=Axis(label="kernel Stein discrepancy", scale="log"),
            ),
            Panel(
                title="Effective sample size",
                marks=(
                    Points(
                        x=steps, y=[r.ess for r in rungs], label="median coordinate", marker="square", color=2
                    ),
                    chosen,
                ),
                x=axis,
                y=Axis(label="effective sample size", scale="log"),
            ),
        ),
    )
