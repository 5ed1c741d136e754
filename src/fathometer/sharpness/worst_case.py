"""The largest loss in a neighborhood, and the mean loss: sharpness by looking around.

Neighborhoods: the Euclidean ball of Dinh, Pascanu, Bengio & Bengio (2017, def. 2), the box
of Keskar et al. (2017) with or without a random subspace, and the ellipsoid or box that
moves with the weights (Kwon et al. 2021; Andriushchenko et al. 2023).

The maximum is hard in general; what is returned is the loss at a point that was found, so
it is a *lower bound*, and it says so. The climb starts from many points (the sharpest
direction, the gradient, random ones), because at a minimum the gradient at the center is
zero and a climb from there would answer zero. One step goes to the point of the
neighborhood where the linearized loss is largest; for a quadratic and a ball that is a power iteration.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from fathometer.errors import InputError
from fathometer.linalg import LinearOperator, diagonal, eigenpairs
from fathometer.model import LossSurface
from fathometer.results import Estimate
from fathometer.sharpness.bijections import Place
from fathometer.types import Progress
from fathometer.work import generator, silent

FLIPS = 6
"""Corners of a box tried at a stall."""


@runtime_checkable
class Region(Protocol):
    """A neighborhood of zero, convex and symmetric."""

    def furthest(self, slope: Tensor) -> Tensor:
        """The displacement (P,) in the region with the largest inner product with ``slope``."""
        ...

    def clip(self, move: Tensor) -> Tensor:
        """A displacement in the region, ``move`` itself if it lies inside."""
        ...

    def neighbors(self, move: Tensor, slope: Tensor, bend: Tensor) -> list[Tensor]:
        """Displacements to try where the climb stalls; ``bend`` is the diagonal of the Hessian."""
        ...


@runtime_checkable
class Slope(Protocol):
    """What a climb asks of a surface: a `LossSurface`, or one in other coordinates."""

    @property
    def theta(self) -> Tensor:
        """The point in the middle."""
        ...

    def energy(self, theta: Tensor, /) -> Tensor:
        """Mean loss at a point."""
        ...

    def gradient(self, theta: Tensor | None = None, /) -> Tensor:
        """Gradient at a point, or in the middle."""
        ...

    def hessian(self) -> LinearOperator:
        """The Hessian in the middle."""
        ...


@dataclass(frozen=True)
class Ellipsoid:
    """``|move / scale|_2 <= radius``; coordinates with scale 0 stay."""

    radius: float
    scale: Tensor

    def furthest(self, slope: Tensor) -> Tensor:
        """See `Region`."""
        stretched = self.scale * slope
        norm = stretched.norm()
        return self.radius * self.scale * stretched / norm if norm > 0 else torch.zeros_like(slope)

    def clip(self, move: Tensor) -> Tensor:
        """See `Region`."""
        free = self.scale > 0
        size = (move[free] / self.scale[free]).norm()
        inside = torch.where(free, move, torch.zeros_like(move))
        return inside if size <= self.radius else inside * (self.radius / size)

    def neighbors(self, move: Tensor, slope: Tensor, bend: Tensor) -> list[Tensor]:
        """None: a smooth region has no corners to be caught in."""
        return []


@dataclass(frozen=True)
class Box:
    """``|move| <= half_width`` in every coordinate."""

    half_width: Tensor

    def furthest(self, slope: Tensor) -> Tensor:
        """See `Region`."""
        return self.half_width * torch.sign(slope)

    def clip(self, move: Tensor) -> Tensor:
        """See `Region`."""
        return move.clamp(-self.half_width, self.half_width)

    def neighbors(self, move: Tensor, slope: Tensor, bend: Tensor) -> list[Tensor]:
        """The corners one flip away that promise most: ``-2 move slope + 2 move^2 bend``."""
        promise = 2.0 * move * (move * bend - slope)
        best = promise.topk(min(FLIPS, len(move))).indices
        chosen = [int(i) for i in best if promise[i] > 0]
        flipped = []
        for i in chosen:
            corner = move.clone()
            corner[i] = -corner[i]
            flipped.append(corner)
        return flipped


def epsilon_sharpness(
    surface: Place,
    radius: float,
    *,
    starts: int = 12,
    steps: int = 30,
    seed: int = 0,
    progress: Progress = silent,
) -> Estimate:
    """Largest relative rise of the loss in the closed Euclidean ball, the plain ratio of definition 2.

    ``max over |move| <= radius of (L(theta + move) - L(theta)) / (1 + L(theta))`` (Dinh,
    Pascanu, Bengio & Bengio 2017); near a minimum about ``norm radius^2 / (2 (1 + L))``
    with the spectral norm of the Hessian. Measured in float64.

    Args:
        surface: Loss surface, at its point; the loss must not be negative.
        radius: Of the ball, in the units of the parameters; positive.
        starts: Points to climb from; the sharpest direction and the gradient, both signs, come first.
        steps: Most steps of one climb.
        seed: Of the random starts.
        progress: Called after each climb.

    Returns:
        A lower bound (``kind`` "bound"); ``error`` is the spread of the climbs that came
        within 10 % of the best, a sign of how much better another start might do.

    Raises:
        InputError: If radius is not positive, the loss is negative, or starts or steps is below 1.
    """
    check_region(surface, radius, starts, steps)
    exact = surface.double()
    region = Ellipsoid(float(radius), torch.ones(exact.size, dtype=torch.float64, device=exact.theta.device))
    best, spread, cost = highest_loss(exact, region, starts, steps, seed, progress)
    energy = float(exact.energy())
    return lower_bound((best - energy) / (1.0 + energy), spread / (1.0 + energy), cost)


def keskar(
    surface: LossSurface,
    radius: float = 1e-3,
    subspace: int | None = None,
    *,
    starts: int = 12,
    steps: int = 30,
    seed: int = 0,
) -> Estimate:
    """Largest relative rise of the loss in the box of Keskar et al. (2017), in percent.

    ``100 max (L(theta + A y) - L(theta)) / (1 + L(theta))`` over the box
    ``|y_i| <= radius (|(A^+ theta)_i| + 1)``; A is the identity, or ``subspace`` random normal columns.

    Args:
        surface: Loss surface, at its point; the loss must not be negative.
        radius: Their epsilon, positive; they use 1e-3 and 5e-4.
        subspace: Number of random columns; None for the whole space.
        starts: Points to climb from.
        steps: Most steps of one climb.
        seed: Of the columns and the random starts.

    Returns:
        A lower bound in percent (``kind`` "bound"); ``error`` as in `epsilon_sharpness`.

    Raises:
        InputError: If an argument is out of range.
    """
    check_region(surface, radius, starts, steps)
    exact = surface.double()
    theta, energy = exact.theta, float(exact.energy())
    if subspace is None:
        frame, center = None, theta
    else:
        if isinstance(subspace, bool) or not isinstance(subspace, int) or not 1 <= subspace <= exact.size:
            raise InputError(
                f"subspace is {subspace!r}; pass a number of columns, 1 to {exact.size}, or None."
            )
        noise = generator(seed, "keskar", "frame")
        frame = torch.randn(exact.size, subspace, generator=noise, dtype=torch.float64).to(theta.device)
        center = torch.linalg.lstsq(frame, theta[:, None]).solution[:, 0]
    region = Box(float(radius) * (center.abs() + 1.0))
    best, spread, cost = highest_loss(exact, region, starts, steps, seed, silent, frame)
    factor = 100.0 / (1.0 + energy)
    return lower_bound(factor * (best - energy), factor * spread, cost)


def adaptive(
    surface: LossSurface,
    radius: float,
    norm: float = 2,
    average: bool = False,
    *,
    starts: int = 12,
    steps: int = 30,
    samples: int = 64,
    seed: int = 0,
) -> Estimate:
    """Rise of the loss in a neighborhood that scales with the weights.

    Worst case: ``max over |move / |theta||_norm <= radius`` of ``L(theta + move) - L(theta)``.
    Average case: the mean over ``move ~ N(0, radius^2 theta^2)`` for norm 2, and over
    the uniform distribution on the box for the maximum norm (Andriushchenko et al. 2023).
    A weight that is zero stays zero. Invariant to every rescaling of the weights. In float64.

    Args:
        surface: Loss surface, at its point.
        radius: Relative size of the neighborhood, positive.
        norm: 2 or infinity.
        average: The mean instead of the maximum.
        starts: Points to climb from (worst case).
        steps: Most steps of one climb (worst case).
        samples: Random displacements (average case), at least 2.
        seed: Of every random number.

    Returns:
        Worst case: a lower bound, in units of the loss. Average: an estimate with its standard error.

    Raises:
        InputError: If an argument is out of range.
    """
    check_region(surface, radius, starts, steps, nonnegative=False)
    if norm not in (2, math.inf):
        raise InputError(f"norm is {norm!r}; pass 2 or math.inf.")
    exact = surface.double()
    theta, energy = exact.theta, float(exact.energy())
    if average:
        if samples < 2:
            raise InputError(f"samples is {samples}; a standard error needs at least 2.")
        return _average(exact, radius * theta.abs(), norm, energy, samples, seed)
    scale = theta.abs()
    region = Ellipsoid(float(radius), scale) if norm == 2 else Box(float(radius) * scale)
    best, spread, cost = highest_loss(exact, region, starts, steps, seed, silent, scale=scale)
    return lower_bound(best - energy, spread, cost)


def _average(
    surface: LossSurface, widths: Tensor, norm: float, energy: float, samples: int, seed: int
) -> Estimate:
    noise = generator(seed, "adaptive", "average")
    theta = surface.theta
    rises = torch.empty(samples, dtype=torch.float64)
    for i in range(samples):
        if norm == 2:
            draw = torch.randn(surface.size, generator=noise, dtype=torch.float64)
        else:
            draw = 2.0 * torch.rand(surface.size, generator=noise, dtype=torch.float64) - 1.0
        rises[i] = float(surface.energy(theta + widths * draw.to(theta.device))) - energy
    return Estimate(
        value=float(rises.mean()),
        kind="estimate",
        error=float(rises.std() / math.sqrt(samples)),
        method="mean of random displacements",
        cost=samples,
        cost_unit="energies",
    )


def check_region(surface: Place, radius: float, starts: int, steps: int, nonnegative: bool = True) -> None:
    """Refuse a neighborhood that is none, and a negative loss where a measure divides by 1 + loss."""
    if not (isinstance(radius, int | float) and math.isfinite(radius) and radius > 0):
        raise InputError(f"radius is {radius!r}; a positive number is needed.")
    if starts < 1 or steps < 1:
        raise InputError(f"starts is {starts} and steps is {steps}; each must be at least 1.")
    if nonnegative and (energy := float(surface.energy())) < 0:
        raise InputError(
            f"the loss is {energy:.4g}; this measure divides by 1 + loss and needs a loss of at least 0."
        )


def lower_bound(value: float, spread: float, cost: int) -> Estimate:
    """The highest loss found, as what it is."""
    return Estimate(
        value=value,
        kind="bound",
        error=spread,
        method="multi-start climb (lower bound)",
        cost=cost,
        cost_unit="gradients",
    )


def highest_loss(
    surface: Slope,
    region: Region,
    starts: int,
    steps: int,
    seed: int,
    progress: Progress,
    frame: Tensor | None = None,
    scale: Tensor | None = None,
) -> tuple[float, float, int]:
    """Highest loss found in the region (mapped by ``frame``), spread of the good climbs, gradients spent."""
    theta = surface.theta

    def energy(move: Tensor) -> float:
        return float(surface.energy(theta + (move if frame is None else frame @ move)))

    def gradient(move: Tensor) -> Tensor:
        slope = surface.gradient(theta + (move if frame is None else frame @ move))
        return slope if frame is None else frame.T @ slope

    found: list[float] = []
    cost, top = 0, energy(torch.zeros(len(theta) if frame is None else frame.shape[1], dtype=theta.dtype))
    base, summit = top, None
    known = _directions(surface, seed, frame, scale)
    bend = _bend(surface, frame) if isinstance(region, Box) else torch.zeros_like(known[0])
    noise = generator(seed, "climb")
    for i in range(starts):
        if i < len(known):
            direction = known[i]
        else:
            draw = torch.randn(len(known[0]), generator=noise, dtype=theta.dtype).to(theta.device)
            draw = draw if scale is None else draw * scale
            # Every other start leaves the best point found, to get off a local summit.
            direction = draw if summit is None or i % 2 else draw / draw.norm() + summit / summit.norm()
        height, move, spent = _climb(energy, gradient, region, direction, steps, bend)
        found.append(height)
        cost += spent
        if height > top:
            top, summit = height, move
        progress(i + 1, starts, "climbing")
    near = [value for value in found if value - base >= 0.9 * (top - base)]
    return top, top - min(near, default=top), cost


def _directions(surface: Slope, seed: int, frame: Tensor | None, scale: Tensor | None) -> list[Tensor]:
    """Where the first climbs set out: the sharpest direction and the gradient, both ways.

    In the coordinates of an adaptive region (``scale``) the sharpest direction is that of
    the scaled Hessian, so that a rescaled network gets the rescaled starts.
    """
    H = surface.hessian()
    slope = surface.gradient()
    if frame is not None:
        bent = frame.T @ (H @ frame)
        top = eigenpairs((bent + bent.T) / 2, 1, "largest", seed=seed).vectors[:, 0]
        slope = frame.T @ slope
    elif scale is not None:
        top = scale * _sharpest(surface, scale, seed)
    else:
        top = eigenpairs(H, 1, "largest", tolerance=0.01, seed=seed, check=False).vectors[:, 0]
    downhill = [slope, -slope] if float(slope.norm()) > 0 else []
    return [top, -top, *downhill]


def _bend(surface: Slope, frame: Tensor | None) -> Tensor:
    """Diagonal of the Hessian in the coordinates of the region; rough where the network is large."""
    H = surface.hessian()
    if frame is not None:
        return (frame * (H @ frame)).sum(0)
    return diagonal(H, tolerance=0.2, max_products=60).value


def _sharpest(surface: Slope, scale: Tensor, seed: int) -> Tensor:
    """Top eigenvector of the Hessian in units of the weights, ``|theta| H |theta|``."""
    H = surface.hessian()
    scaled = LinearOperator(
        shape=H.shape,
        product=lambda V: scale[:, None] * H.product(scale[:, None] * V),
        dtype=H.dtype,
        device=H.device,
        name="scaled Hessian",
    )
    return eigenpairs(scaled, 1, "largest", tolerance=0.01, seed=seed, check=False).vectors[:, 0]


def _climb(
    energy: Callable[[Tensor], float],
    gradient: Callable[[Tensor], Tensor],
    region: Region,
    direction: Tensor,
    steps: int,
    bend: Tensor,
) -> tuple[float, Tensor, int]:
    """Highest loss on one climb, where it is, and the gradients spent; the loss never falls on the way."""
    move = region.furthest(direction)
    height, spent = energy(move), 0
    for _ in range(steps):
        slope = gradient(move)
        goal = region.furthest(slope)
        spent += 1
        ahead = [region.clip(move + share * (goal - move)) for share in (1.0, 0.5, 0.25, 0.1, 0.02)]
        for candidate in [*ahead, *region.neighbors(move, slope, bend)]:
            value = energy(candidate)
            if value > height:
                break
        else:
            break
        gain, move, height = value - height, candidate, value
        if gain <= 1e-9 * abs(height):
            break
    return height, move, spent
