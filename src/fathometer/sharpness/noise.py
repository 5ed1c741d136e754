"""Flatness by random displacements: PAC-Bayes noise, volume and local entropy of a minimum.

The PAC-Bayes family asks how much Gaussian noise the weights bear before the accuracy falls
(Neyshabur et al. 2017; Jiang et al. 2020). Volume: of the region around the point, star-shaped
from it, in which the loss rises by less than a height (Hochreiter & Schmidhuber 1997, as in
Dinh et al. 2017, def. 1), cut off at a reach because theorem 2 makes it infinite. Local entropy:
``-log`` of the integral of ``exp(-L - scope/2 |move|^2)`` (Chaudhari et al. 2017).

Directions are drawn in coordinates in which the Hessian is round; drawn evenly they would miss the
flat ones that make up the volume, and the answer would be far too small.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor

from fathometer.errors import InputError
from fathometer.linalg.counted import DENSE_LIMIT
from fathometer.model import LossSurface
from fathometer.model.labels import labels
from fathometer.results import Estimate, Result
from fathometer.sharpness.curvature import gauss_newton_weights
from fathometer.types import Kind
from fathometer.work import generator

FEW = 10.0
"""Effective draws below which the usual standard error of a log mean is too small."""
MAGNITUDE_FLOOR = 1e-3
"""Of the magnitude-aware bound, in units of the weights (Jiang et al. 2020)."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PacBayes(Result):
    """How much noise the weights bear.

    Attributes:
        sigma: Standard deviation of the noise at which the accuracy has dropped as asked; relative
            to each weight if ``relative``.
        error: Standard error of sigma: the spread of the draws over the slope of the mean accuracy, and half
            the last interval of the bisection.
        bound: ``sqrt(C / N)`` with the complexity term C of Jiang et al. 2020: for absolute noise
            ``|theta - prior|^2 / (4 sigma^2) + log(N / sigma) + 10``, for relative noise their
            magnitude-aware sum.
        accuracy: Without noise.
        relative: Whether noise is in units of each weight.
        largest: Noise beyond which no one looked; sigma is a lower bound if it got there.
        cost: Passes over the data, as ``cost_unit`` says.
    """

    sigma: float
    error: float
    bound: float
    accuracy: float
    relative: bool
    largest: float
    cost: int
    cost_unit: str = "passes"

    @property
    def value(self) -> float:
        """The noise, ``sigma``."""
        return self.sigma

    @property
    def kind(self) -> Kind:
        """An estimate, since the accuracy is averaged over few draws; a bound at the end of the search."""
        return "bound" if self.sigma > 0.999 * self.largest else "estimate"

    @property
    def flatness(self) -> float:
        """``1 / sigma^2``, as it is used in comparisons; large is sharp."""
        return 1.0 / self.sigma**2 if self.sigma else math.inf


def pac_bayes(
    surface: LossSurface,
    accuracy_drop: float = 0.1,
    *,
    relative: bool = False,
    prior: Tensor | None = None,
    draws: int = 10,
    depth: int = 15,
    largest: float = 2.0,
    seed: int = 0,
) -> PacBayes:
    """Largest Gaussian noise under which the mean accuracy drops by no more than asked.

    The same draws are scaled at every step of the bisection.

    Args:
        surface: Loss surface of a classifier, at its point.
        accuracy_drop: Between 0 and 1.
        relative: Noise in units of each weight (magnitude-aware), which no rescaling changes.
        prior: Weights (P,) in the middle of the prior, such as those at initialization; the origin if None.
        draws: Noise vectors, at least 2.
        depth: Halvings of [0, largest].
        largest: Noise beyond which no one looks.
        seed: Of the noise.

    Raises:
        InputError: If an argument is out of range or the problem is no classification.
    """
    if not 0 < accuracy_drop < 1:
        raise InputError(f"accuracy_drop is {accuracy_drop!r}; a share between 0 and 1 is needed.")
    if draws < 2 or depth < 1 or not largest > 0:
        raise InputError(
            f"draws is {draws}, depth {depth} and largest {largest!r}; at least 2, at least 1 and positive."
        )
    exact = surface.double()
    wanted, theta = labels(exact), exact.theta
    away = theta if prior is None else theta - exact.at(prior).theta
    noise = generator(seed, "pac_bayes")
    unit = theta.abs() if relative else torch.ones_like(theta)
    moves = [
        unit * torch.randn(len(theta), generator=noise, dtype=torch.float64).to(unit) for _ in range(draws)
    ]

    def accuracies(sigma: float) -> np.ndarray:
        points = (theta + sigma * move for move in moves)
        return np.array([float((exact.outputs(p).argmax(1) == wanted).double().mean()) for p in points])

    here = float((exact.outputs().argmax(1) == wanted).double().mean())
    low, high = 0.0, float(largest)
    for _ in range(depth):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if here - accuracies(middle).mean() <= accuracy_drop else (low, middle)
    sigma = 0.5 * (low + high)
    error = math.hypot(0.5 * (high - low), _spread_of(accuracies, sigma))
    n = exact.examples
    complexity = _complexity(theta, away, sigma, relative) + math.log(n / sigma) + 10
    return PacBayes(
        sigma=sigma,
        error=error,
        bound=math.sqrt(max(complexity, 0.0) / n),
        accuracy=here,
        relative=relative,
        largest=float(largest),
        cost=1 + (depth + 3) * draws,
    )


def _spread_of(accuracies: Callable[[float], np.ndarray], sigma: float) -> float:
    """Standard error of the noise at which a mean accuracy is met: that of the mean, over its slope."""
    down, middle, up = (accuracies(f * sigma) for f in (0.8, 1.0, 1.25))
    slope = (down.mean() - up.mean()) / (0.45 * sigma)
    mean_error = float(middle.std(ddof=1)) / math.sqrt(len(middle))
    return mean_error / slope if slope > 0 else (0.45 * sigma if mean_error else 0.0)


def _complexity(theta: Tensor, away: Tensor, sigma: float, relative: bool) -> float:
    """The divergence from the prior in the bounds of Jiang et al. 2020, without the terms of sigma alone."""
    if not relative:
        return float(away.square().sum()) / (4 * sigma**2)
    share = (sigma**2 + 1.0) * float(away.square().sum()) / len(theta)
    each = (MAGNITUDE_FLOOR**2 + share) / (MAGNITUDE_FLOOR**2 + sigma**2 * away.square())
    return 0.25 * float(each.log().sum())


def local_volume(
    surface: LossSurface,
    height: float = 0.1,
    *,
    reach: float | None = None,
    directions: int = 100,
    seed: int = 0,
) -> Estimate:
    """Natural logarithm of the volume around the point on which the loss rises by less than ``height``.

    The region is taken as star-shaped from the point, and cut off at a distance.

    Args:
        surface: Loss surface, at its point.
        height: Rise of the loss, positive.
        reach: Distance at which the region is cut off; the norm of the weights if None.
        directions: Random directions, at least 2.
        seed: Of the directions.

    Returns:
        The log volume, in units of log(parameter^P); ``error`` is its standard error. For a quadratic
        below the cut it is exact with any number of directions (for P up to 512).

    Raises:
        InputError: If an argument is out of range.
    """
    exact = surface.double()
    theta, P = exact.theta, exact.size
    limit = float(theta.norm()) if reach is None else reach
    if not (math.isfinite(height) and height > 0) or not (math.isfinite(limit) and limit > 0):
        raise InputError(f"height is {height!r} and reach is {limit!r}; both must be positive.")
    if directions < 2:
        raise InputError(f"directions is {directions}; a standard error needs at least 2.")
    # Flat directions are as long as the reach: curvature below this does not matter before the cut.
    stretch, log_determinant = _rounding(exact, 2.0 * height / limit**2)
    top = float(exact.energy()) + height
    noise, cost = generator(seed, "local_volume"), 0
    logs = torch.empty(directions, dtype=torch.float64)
    for i in range(directions):
        z = torch.randn(P, generator=noise, dtype=torch.float64).to(theta)
        move = stretch(z / z.norm())
        end = limit / float(move.norm())
        r, spent = _crossing(
            lambda r, m=move: float(exact.energy(theta + r * m)) - top, end, math.sqrt(2 * height)
        )
        logs[i] = P * math.log(r)
        cost += spent
    ball = 0.5 * P * math.log(math.pi) - math.lgamma(0.5 * P + 1.0)
    return _log_mean(logs, ball + log_determinant, "star-shaped sampling", cost)


def local_entropy(surface: LossSurface, scope: float = 1.0, *, samples: int = 100, seed: int = 0) -> Estimate:
    """``-log integral exp(-L(theta + move) - scope/2 |move|^2)``: small where low loss is wide.

    By importance sampling from the Gaussian that a quadratic loss would give.

    Args:
        surface: Loss surface, at its point.
        scope: Stiffness of the spring to the point, positive, in loss per squared parameter.
        samples: Random displacements, at least 2.
        seed: Of the displacements.

    Raises:
        InputError: If an argument is out of range.
    """
    if not (math.isfinite(scope) and scope > 0):
        raise InputError(f"scope is {scope!r}; a positive number is needed.")
    if samples < 2:
        raise InputError(f"samples is {samples}; a standard error needs at least 2.")
    exact = surface.double()
    theta, P = exact.theta, exact.size
    stretch, log_determinant = _rounding(exact, scope, add=True)
    noise = generator(seed, "local_entropy")
    logs = torch.empty(samples, dtype=torch.float64)
    for i in range(samples):
        z = torch.randn(P, generator=noise, dtype=torch.float64).to(theta)
        move = stretch(z)
        energy = float(exact.energy(theta + move))
        logs[i] = -energy - 0.5 * scope * float(move.square().sum()) + 0.5 * float(z.square().sum())
    constant = 0.5 * P * math.log(2 * math.pi) + log_determinant
    found = _log_mean(logs, constant, "importance sampling", samples)
    return Estimate(
        value=-found.value,
        kind="estimate",
        error=found.error,
        method=found.method,
        cost=samples,
        cost_unit="energies",
    )


def average_sharpness(
    surface: LossSurface, radius: float = 0.01, *, samples: int = 64, seed: int = 0
) -> Estimate:
    """Mean rise of the loss under Gaussian noise of this standard deviation on every weight.

    Args:
        surface: Loss surface, at its point.
        radius: Standard deviation, positive.
        samples: Random displacements, at least 2.
        seed: Of the displacements.

    Raises:
        InputError: If an argument is out of range.
    """
    if not (math.isfinite(radius) and radius > 0):
        raise InputError(f"radius is {radius!r}; a positive number is needed.")
    if samples < 2:
        raise InputError(f"samples is {samples}; a standard error needs at least 2.")
    exact = surface.double()
    theta, energy = exact.theta, float(exact.energy())
    noise = generator(seed, "average_sharpness")
    rises = torch.empty(samples, dtype=torch.float64)
    for i in range(samples):
        move = torch.randn(len(theta), generator=noise, dtype=torch.float64).to(theta)
        rises[i] = float(exact.energy(theta + radius * move)) - energy
    return Estimate(
        value=float(rises.mean()),
        kind="estimate",
        error=float(rises.std()) / math.sqrt(samples),
        method="mean of random displacements",
        cost=samples,
        cost_unit="energies",
    )


def _rounding(
    surface: LossSurface, floor: float, add: bool = False
) -> tuple[Callable[[Tensor], Tensor], float]:
    """A map that makes the Hessian round, ``(H + ...)^(-1/2)``, and the log of its determinant.

    Dense for few parameters, else by the diagonal of the Gauss-Newton matrix. Curvature below
    ``floor`` counts as floor, or floor is added to it.
    """
    if surface.size <= DENSE_LIMIT:
        values, vectors = torch.linalg.eigh(surface.hessian().to_dense())
        values = values.clamp(min=0.0) + floor if add else values.clamp(min=floor)
        return lambda z: vectors @ ((vectors.T @ z) / values.sqrt()), float(-0.5 * values.log().sum())
    bend = gauss_newton_weights(surface)
    values = bend + floor if add else bend.clamp(min=floor)
    return lambda z: z / values.sqrt(), float(-0.5 * values.log().sum())


def _crossing(gap: Callable[[float], float], end: float, guess: float) -> tuple[float, int]:
    """First place up to ``end`` at which ``gap`` is found positive, and the evaluations spent."""
    low, high, spent = 0.0, min(guess, end), 1
    while gap(high) < 0:
        if high >= end:
            return end, spent
        low, high = high, min(1.5 * high, end)
        spent += 1
    root, report = brentq(gap, low, high, xtol=1e-12 * high, rtol=np.float64(1e-9), full_output=True)
    return float(root), spent + report.function_calls


def _log_mean(logs: Tensor, constant: float, method: str, cost: int) -> Estimate:
    """``constant + log mean exp(logs)`` with the standard error of the logarithm."""
    n = len(logs)
    total = logs.logsumexp(0) - math.log(n)
    shares = (logs - total).exp()
    error = float(shares.std()) / math.sqrt(n)
    effective = float(shares.sum() ** 2 / shares.square().sum())
    if effective < FEW:  # a few draws carry the mean: their spread says more than the formula
        error = max(error, float(logs.std()) / math.sqrt(effective))
    return Estimate(
        value=float(total) + constant,
        kind="estimate",
        error=error,
        method=method,
        cost=cost,
        cost_unit="energies",
    )
