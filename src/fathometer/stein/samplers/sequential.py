"""Markov chains that decide on a part of the data: approximate Metropolis-Hastings and slice sampling.

Whether the mean of all N log-likelihood ratios exceeds a threshold is asked of growing batches without
replacement. The test stops as soon as the tail of Student's t at

    t = (mean - threshold) / (sd * sqrt(1 / m - 1 / N))

falls to the tolerance (Korattikara, Chen & Welling 2014; DuBois et al. 2014; form of the finite
population factor as in Gorham & Mackey's experiments). Tolerance 0 goes through all the data and is exact.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from scipy import special
from torch import Tensor

from fathometer.errors import InputError
from fathometer.stein.chains import Chain
from fathometer.stein.samplers.walk import Walk, read_batch, read_step_size, start_walk
from fathometer.stein.targets import Posterior, read_posterior

_MOST_STEPS_OUT = 100
_BATCH = 10


def approximate_metropolis(
    target: Any,
    start: Any,
    steps: int,
    step_size: float,
    *,
    seed: int = 0,
    tolerance: float = 0.05,
    batch_size: int | None = None,
    warmup: int = 0,
    thin: int = 1,
) -> Chain:
    """Random-walk Metropolis-Hastings whose acceptance is decided by a sequential test.

    Args:
        target: A `Posterior` or a ``LossSurface``; a log density is a single term, decided exactly.
        start: (d,) or (chains, d).
        steps: Draws to keep of each chain.
        step_size: Variance of the proposal in each coordinate.
        seed: Of the random stream.
        tolerance: Error probability allowed to one test, in [0, 0.5); 0 is exact.
        batch_size: Examples added at a time; 10 or all, if there are fewer, by default.
        warmup: Steps to leave out first.
        thin: Steps from one kept draw to the next.

    Raises:
        InputError: If an argument is out of range or shapes do not fit.
    """
    test = _begin(
        target, start, steps, step_size, "approximate metropolis", seed, tolerance, batch_size, warmup, thin
    )
    aim, walk = test.aim, test.walk
    c, d = walk.x.shape

    def step(_: int) -> None:
        proposal = walk.x + test.size**0.5 * walk.noise(c, d)
        bar = walk.uniform(c).log() + aim.log_prior(walk.x) - aim.log_prior(proposal)
        for i in range(c):
            walk.proposed += 1
            here, there = walk.x[i], proposal[i]

            def ratios(rows: Tensor, here: Tensor = here, there: Tensor = there) -> Tensor:
                return aim.terms(there, rows) - aim.terms(here, rows)

            if test.exceeds(ratios, float(bar[i])):
                walk.x = walk.x.clone()
                walk.x[i] = there
                walk.accepted += 1

    walk.run(step)
    return walk.chain(aim, f"approximate Metropolis step {test.size:g}, tolerance {test.level:g}")


def approximate_slice(
    target: Any,
    start: Any,
    steps: int,
    step_size: float,
    *,
    seed: int = 0,
    tolerance: float = 0.05,
    batch_size: int | None = None,
    warmup: int = 0,
    thin: int = 1,
) -> Chain:
    """Slice sampling of one random coordinate a step, with decisions by a sequential test.

    The slice is found by stepping out (at most 100 steps, split at random between both sides) and shrinkage
    (Neal 2003; DuBois et al. 2014).

    Args:
        target: A `Posterior` or a ``LossSurface``; a log density is a single term, decided exactly.
        start: (d,) or (chains, d).
        steps: Draws to keep of each chain.
        step_size: First width of the slice, in units of ``start``.
        seed: Of the random stream.
        tolerance: Error probability allowed to one test, in [0, 0.5); 0 is exact.
        batch_size: Examples added at a time; 10 or all, if there are fewer, by default.
        warmup: Steps to leave out first.
        thin: Steps from one kept draw to the next.

    Raises:
        InputError: If an argument is out of range or shapes do not fit.
    """
    test = _begin(
        target, start, steps, step_size, "approximate slice", seed, tolerance, batch_size, warmup, thin
    )
    walk = test.walk
    c, d = walk.x.shape

    def step(_: int) -> None:
        axes = torch.randint(d, (c,), generator=walk.random)
        walk.x = torch.stack([_slice(test, walk.x[i], int(axes[i])) for i in range(c)])

    walk.run(step)
    return walk.chain(test.aim, f"approximate slice width {test.size:g}, tolerance {test.level:g}")


def _slice(test: "SequentialTest", x: Tensor, axis: int) -> Tensor:
    """A new point on the line through ``x`` along one axis."""
    aim, walk, width = test.aim, test.walk, test.size
    log_height = float(walk.uniform(1).log()) + float(aim.log_prior(x[None]))

    def inside(place: float) -> bool:
        y = x.clone()
        y[axis] = place
        bar = log_height - float(aim.log_prior(y[None]))

        def ratios(rows: Tensor) -> Tensor:
            return aim.terms(y, rows) - aim.terms(x, rows)

        return test.exceeds(ratios, bar)

    offset, share = walk.uniform(2).tolist()
    low = float(x[axis]) - width * offset
    high = low + width
    left = int(_MOST_STEPS_OUT * share)
    right = _MOST_STEPS_OUT - 1 - left
    while left > 0 and inside(low):
        low, left = low - width, left - 1
    while right > 0 and inside(high):
        high, right = high + width, right - 1
    while True:
        place = low + (high - low) * float(walk.uniform(1))
        if inside(place) or high - low < 1e-14 * max(1.0, abs(float(x[axis]))):
            y = x.clone()
            y[axis] = place
            return y
        low, high = (place, high) if place < float(x[axis]) else (low, place)


@dataclass(frozen=True, kw_only=True)
class SequentialTest:
    """A run of a chain that decides by a sequential test.

    Attributes:
        aim: The target.
        walk: The state of the run.
        size: Of the step.
        batch: Examples added at a time.
        level: Error probability allowed to one decision.
    """

    aim: Posterior
    walk: Walk
    size: float
    batch: int
    level: float

    def exceeds(self, ratios: Callable[[Tensor], Tensor], bar: float) -> bool:
        """Whether the sum of all ratios exceeds ``bar``, by as many batches as the tolerance asks for."""
        N, walk = self.aim.examples, self.walk
        threshold = bar / N
        if self.level == 0:
            walk.evaluations += 2 * N
            return float(ratios(torch.arange(N)).sum()) > bar
        order = torch.randperm(N, generator=walk.random)
        total, square, m = 0.0, 0.0, 0
        while True:
            values = ratios(order[m : m + self.batch]).tolist()
            walk.evaluations += 2 * len(values)
            m += len(values)
            total += sum(values)
            square += sum(value * value for value in values)
            mean = total / m
            if m == N:
                return mean > threshold
            if m < 2:
                continue
            deviation = max(square / m - mean**2, 0.0) * m / (m - 1)
            spread = (deviation * (1 / m - 1 / N)) ** 0.5
            if spread > 0 and special.stdtr(m - 1, -abs(mean - threshold) / spread) <= self.level:
                return mean > threshold


def _begin(
    target: Any,
    start: Any,
    steps: int,
    step_size: float,
    name: str,
    seed: int,
    tolerance: float,
    batch_size: int | None,
    warmup: int,
    thin: int,
) -> SequentialTest:
    """Read what both samplers take."""
    aim = read_posterior(target)
    size = read_step_size(step_size)
    batch = read_batch(min(_BATCH, aim.examples) if batch_size is None else batch_size, aim.examples)
    level = _read_tolerance(tolerance)
    walk = start_walk(aim, start, steps, seed=seed, name=name, warmup=warmup, thin=thin)
    return SequentialTest(aim=aim, walk=walk, size=size, batch=batch, level=level)


def _read_tolerance(tolerance: float) -> float:
    level = float(tolerance)
    if not 0 <= level < 0.5:
        raise InputError(f"tolerance is {tolerance!r}; an error probability from 0 to below 0.5 is needed.")
    return level
