"""The loss on a plane through the parameters.

Directions: random ones with the norm of the weights filter by filter (Li, Xu, Taylor, Studer &
Goldstein 2018, sec. 4), the two sharpest directions of the Hessian, or one's own. Filter
normalization takes out a factor of a whole filter, not one of the channels that feed it: an equivalent
network may look different, unless the point of its orbit with the smallest norm is shown.

A loss is mostly smooth on such a plane, so a tensor grid of few Chebyshev points
determines it: the grid is refined until true values at points of the picture that were left out
of the fit agree within the tolerance. Cost: 178, 234, 442 or 1,242 energies instead of 2,601 for
51 x 51 points; all of them where the surface is too rough.

The error is certified without any assumption on the surface. The points left out are drawn at random, one in
17: if ``K`` of the ``N`` points of the picture were further off than every one of the ``n`` drawn, the draw
missed them all, which happens with probability ``C(N - K, n) / C(N, n)``. So with the confidence asked for,
fewer points than the ``K`` where this falls to ``1 - confidence`` (shared among the grids tried) are off by
more. It is no bound on the largest error, and none can be had from values at fewer than all points: a
surface changed at ``K`` points that were not looked at gives the same answers.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import hypergeom
from torch import Tensor

from fathometer.calculus import ChebyshevSeries, chebyshev_points
from fathometer.drawing import Picture
from fathometer.errors import InputError
from fathometer.linalg import eigenpairs
from fathometer.model import LossSurface
from fathometer.results import Result
from fathometer.sharpness.equivalent import canonical
from fathometer.sharpness.plane import Plane
from fathometer.types import Kind, Progress
from fathometer.work import generator, numpy_generator, silent

LEVELS = (5, 9, 17, 33)
"""Chebyshev points along each axis, tried in turn; each holds the ones before it."""
SHARE, FEWEST = 17, 32
"""One point of the picture in so many is held out of the fit, and at least so many points.

For 51 x 51 points these are 153. On 36 planes through small perceptrons and convolutional networks
(rectifiers, tanh, GELU, BatchNorm) the largest error of all points was 1.2 times the largest at 144 random
points (median over planes, degrees and draws), and at most 3.4 times.
"""

Grid = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Landscape(Result):
    """The mean loss at ``theta + axes[0][i] * directions[0] + axes[1][j] * directions[1]``.

    Attributes:
        axes: Two ascending arrays, in units of the directions.
        values: (len(axes[0]), len(axes[1])) losses.
        directions: Two flat vectors (P,).
        center: The loss at the surface's own point.
        kind: "exact" where every point was evaluated, else "estimate".
        error: The largest difference from the true loss at points drawn at random and held out of the fit.
        coverage: Share of the points of the picture that are off by no more than ``error``: at least this,
            whatever the surface, with probability ``confidence`` over the draw. 1 where every point was
            evaluated. Of the largest error of all points nothing is certified.
        confidence: See ``coverage``.
        evaluations: Energies spent.
        source: "filter", "canonical", "hessian" or "given".
    """

    axes: tuple[Grid, Grid]
    values: Grid
    directions: tuple[Tensor, Tensor]
    center: float
    kind: Kind
    error: float
    coverage: float
    confidence: float
    evaluations: int
    source: str

    @property
    def value(self) -> float:
        """The loss in the middle."""
        return self.center

    @property
    def level(self) -> Literal["exact", "probabilistic"]:
        """Whether every value is the loss, or a share of them is close to it with some confidence."""
        return "exact" if self.kind == "exact" else "probabilistic"

    def certificate(self) -> str:
        """What is known about the error, in one sentence."""
        if self.level == "exact":
            return "Every point was evaluated."
        return (
            f"Interpolated; off by at most {self.error:.2g} at {math.floor(1000 * self.coverage) / 10:g} % "
            f"of the points or more, with confidence {self.confidence:g}."
        )

    def picture(self) -> Picture:
        """Heat map with contours."""
        from fathometer.sharpness.pictures import landscape_picture

        return landscape_picture(self)

    def __str__(self) -> str:
        low, high = self.values.min(), self.values.max()
        return (
            f"loss {self.center:.4g} in the middle of a plane, {low:.4g} to {high:.4g} on it "
            f"({self.evaluations} evaluations for {self.values.size} points, {self.kind})"
        )


def landscape(
    surface: LossSurface,
    directions: Literal["filter", "canonical", "hessian"] | tuple[Any, Any] = "filter",
    points: int = 51,
    *,
    span: float = 1.0,
    tolerance: float | None = 0.01,
    confidence: float = 0.99,
    seed: int = 0,
    progress: Progress = silent,
) -> Landscape:
    """The loss on a plane through the surface's point.

    Args:
        surface: Loss surface, at its point.
        directions: "filter": two random directions, each filter (row of a weight) with the norm
            of the network's own, biases and scales of norms left alone. "canonical": the same at the
            point of the rescaling orbit with the smallest norm, so that equivalent networks have one
            picture. "hessian": the unit
            eigenvectors of the two largest eigenvalues. Or two vectors (P,).
        points: Points along each axis.
        span: The plane reaches from -span to span in units of the directions.
        tolerance: Error accepted, as a share of the range of the losses, at random points held out of the
            fit; None evaluates every point.
        confidence: Of the certificate, between 0 and 1; the more, the smaller its ``coverage``.
        seed: Of random directions and of the choice of held-out points.
        progress: Called while energies are taken.

    Raises:
        InputError: If an argument is out of range, the directions are no two independent vectors
            (P,), or the loss is not finite somewhere on the plane.
    """
    _check(points, span, tolerance, confidence)
    source = directions if isinstance(directions, str) else "given"
    if source == "canonical":
        surface = canonical(surface)
    u, v = _directions(surface, directions, seed)
    plane = Plane(surface, (u, v))
    axis = np.linspace(-span, span, points)
    spent = 0

    def losses(a: Grid, b: Grid) -> Grid:
        nonlocal spent
        spent += len(a)
        found = np.empty(len(a))
        for i, (s, t) in enumerate(zip(a.tolist(), b.tolist(), strict=True)):
            found[i] = plane.energy(s, t)
            progress(i + 1, len(a), "loss on a plane")
        return found

    fitted = None if tolerance is None else _fitted(losses, axis, tolerance, seed)
    if fitted is None:
        rows, columns = np.meshgrid(axis, axis, indexing="ij")
        values, error, kind = losses(rows.ravel(), columns.ravel()).reshape(points, points), 0.0, "exact"
        coverage = confidence = 1.0
    else:
        (values, error), kind = fitted, "estimate"
        coverage = certified_share(points**2, held_out(points), confidence, len(LEVELS))
    return Landscape(
        axes=(axis, axis.copy()),
        values=values,
        directions=(u, v),
        center=float(surface.energy()),
        kind=kind,
        error=error,
        coverage=coverage,
        confidence=confidence,
        evaluations=spent + 1,
        source=source,
    )


def held_out(points: int) -> int:
    """How many of the points of a square picture the fit does not see."""
    return max(FEWEST, points**2 // SHARE)


def certified_share(total: int, drawn: int, confidence: float, looks: int = 1) -> float:
    """Share of ``total`` numbers that no more than the largest of some drawn without return exceeds.

    With probability ``confidence`` over the draw, for each of ``looks`` lists of numbers read at the same
    places (Bonferroni's inequality): the exact hypergeometric form of Wilks (1941).
    """
    risk = (1.0 - confidence) / looks
    missed = hypergeom.pmf(0, total, np.arange(total - drawn + 2), drawn)  # of the k largest, none is drawn
    return 1.0 - (int(np.argmax(missed <= risk)) - 1) / total


def _check(points: int, span: float, tolerance: float | None, confidence: float) -> None:
    if isinstance(points, bool) or not isinstance(points, int) or points < 2:
        raise InputError(f"points is {points!r}; at least 2 along each axis are needed.")
    if not (isinstance(span, int | float) and np.isfinite(span) and span > 0):
        raise InputError(f"span is {span!r}; a positive number is needed.")
    if tolerance is not None and not (isinstance(tolerance, int | float) and 0 < tolerance < 1):
        raise InputError(
            f"tolerance is {tolerance!r}; pass a share of the range between 0 and 1, or None for every point."
        )
    if not (isinstance(confidence, int | float) and 0 < confidence < 1):
        raise InputError(f"confidence is {confidence!r}; a probability between 0 and 1 is needed, 0.99 say.")


def _fitted(
    losses: Callable[[Grid, Grid], Grid], axis: Grid, tolerance: float, seed: int
) -> tuple[Grid, float] | None:
    """Values on the picture's grid and their error, or None if fitting is no bargain."""
    n, box, drawn = len(axis), (float(axis[0]), float(axis[-1])), held_out(len(axis))
    if LEVELS[0] ** 2 + drawn >= n * n:
        return None
    chosen = numpy_generator(seed, "landscape", "held out").choice(n * n, drawn, replace=False)
    rows, columns = chosen // n, chosen % n
    truth = losses(axis[rows], axis[columns])
    known: dict[tuple[int, int], float] = {}
    finest = LEVELS[-1] - 1
    for count in LEVELS:
        if count**2 - len(known) >= n * n:
            return None
        nodes, stride = chebyshev_points(count, box), finest // (count - 1)
        wanted = [(i * stride, j * stride) for i in range(count) for j in range(count)]
        new = [place for place in wanted if place not in known]
        a, b = (nodes[[place[k] // stride for place in new]] for k in (0, 1))
        known.update(zip(new, losses(a, b).tolist(), strict=True))
        values = np.array([known[place] for place in wanted]).reshape(count, count)
        fit = ChebyshevSeries.through(values, [box, box]).on_grid(axis, axis)
        error = float(np.abs(fit[rows, columns] - truth).max())
        if error <= tolerance * float(np.ptp(np.concatenate([truth, values.ravel()]))):
            fit[rows, columns] = truth
            return fit, error
    return None


def _directions(surface: LossSurface, directions: Any, seed: int) -> tuple[Tensor, Tensor]:
    if isinstance(directions, str):
        if directions in ("filter", "canonical"):
            u, v = (filter_direction(surface, seed, i) for i in (0, 1))
        elif directions == "hessian":
            if surface.size < 2:
                raise InputError("the surface has one parameter; a plane needs two directions.")
            vectors = eigenpairs(surface.hessian(), 2, "largest", seed=seed).vectors
            u, v = vectors[:, 0].contiguous(), vectors[:, 1].contiguous()
        else:
            raise InputError(
                f"directions is {directions!r}; pass 'filter', 'canonical', 'hessian' or two vectors (P,)."
            )
    else:
        if not isinstance(directions, tuple | list) or len(directions) != 2:
            raise InputError(
                f"directions is a {type(directions).__name__}; pass 'filter', 'hessian' or two vectors (P,)."
            )
        u, v = (_vector(surface, d, i) for i, d in enumerate(directions))
    return _independent(u, v)


def _vector(surface: LossSurface, direction: Any, i: int) -> Tensor:
    d = torch.as_tensor(direction).detach().to(surface.theta)
    if tuple(d.shape) != (surface.size,) or not bool(torch.isfinite(d).all()):
        raise InputError(
            f"directions[{i}] has shape {tuple(d.shape)}; a finite vector ({surface.size},) is needed."
        )
    return d.clone()


def _independent(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Refuse a plane that is a line."""
    for i, d in enumerate((u, v)):
        if not float(d.norm()) > 0:
            raise InputError(f"directions[{i}] is zero: there is nothing to walk along.")
    cosine = float(u.double() @ v.double() / (u.double().norm() * v.double().norm()))
    if 1.0 - abs(cosine) < 1e-12:
        raise InputError("the two directions are parallel; a plane needs independent ones.")
    return u, v


def filter_direction(surface: LossSurface, seed: int = 0, number: int = 0) -> Tensor:
    """A random direction (P,) with the norm of the weights, filter by filter (Li et al. 2018).

    A filter is what feeds one output: a row of a linear layer, one kernel of a convolution.
    Vectors (biases, scales of norms) are left alone.

    Raises:
        InputError: If the surface has no weight with two axes or more, or they are all zero.
    """
    noise = generator(seed, "landscape", "filter", number)
    parts = {}
    for name, weight in surface.space.split(surface.theta).items():
        draw = torch.randn(weight.shape, generator=noise, dtype=torch.float64).to(weight)
        if weight.ndim < 2:
            parts[name] = torch.zeros_like(weight)
            continue
        rows, noises = weight.flatten(1), draw.flatten(1)
        scale = rows.norm(dim=1, keepdim=True) / noises.norm(dim=1, keepdim=True)
        parts[name] = (noises * scale).reshape(weight.shape)
    direction = surface.space.flatten(parts)
    if not float(direction.norm()) > 0:
        raise InputError(
            "the surface has no filter with a norm (no weight with two axes, or only zeros); "
            "pass two directions."
        )
    return direction
