"""Between two networks: slices, barriers after alignment, and curves of low loss.

A straight line between equivalent networks has a barrier although nothing changed but the coordinates.
So both are first brought to the balanced point of their rescaling orbits, and the hidden units of one are
put in the order of the other (Ainsworth, Hayase & Srinivasa 2023). What is left may still be joined by a
curve with one bend, which is trained (Garipov et al. 2018). Where batch normalization is, its statistics are
taken anew at every point of a path.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fathometer.drawing import Axis, Line, Panel, Picture
from fathometer.errors import CapabilityError, InputError
from fathometer.model import LossSurface
from fathometer.results import Result
from fathometer.sharpness.equivalent import canonical
from fathometer.sharpness.landscape import filter_direction
from fathometer.sharpness.plane import Plane
from fathometer.sharpness.units import match, units
from fathometer.types import Kind
from fathometer.work import numpy_generator


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class LossPath(Result):
    """Losses along a path between two networks (or through one).

    Attributes:
        positions: (k,) from 0 to 1, or in units of the direction for a slice.
        losses: (k,) mean losses.
        shape: "line", "bezier", "polygon" or "slice".
        aligned: What was done to the second network first.
        points: Flat vectors (P,) that define the path: the ends, and the bend between them if there is one.
        model: The second network after alignment, in the order and scale of the first.
    """

    positions: np.ndarray
    losses: np.ndarray
    shape: str
    aligned: tuple[str, ...]
    points: tuple[Tensor, ...]
    model: nn.Module | None = field(default=None, metadata={"saved": False})

    @property
    def value(self) -> float:
        """The barrier: the largest rise above the straight line between the losses at the ends; 0 or more."""
        t = (self.positions - self.positions[0]) / (self.positions[-1] - self.positions[0])
        return float((self.losses - (1 - t) * self.losses[0] - t * self.losses[-1]).max())

    @property
    def kind(self) -> Kind:
        """A lower bound: between the points the loss may be higher."""
        return "bound"

    @property
    def error(self) -> float:
        """Largest second difference of the losses: what a peak between points may add, to second order."""
        return float(np.abs(np.diff(self.losses, 2)).max() / 8) if len(self.losses) > 2 else math.inf

    def picture(self) -> Picture:
        """The loss along the path."""
        return Picture(
            title="Loss along a path" if self.shape == "slice" else "Loss between two networks",
            caption=f"Shape: {self.shape}. "
            + (f"First {' and '.join(self.aligned)}." if self.aligned else ""),
            panels=(
                Panel(
                    marks=(Line(x=self.positions, y=self.losses, label=self.shape),),
                    x=Axis(label="position on the path"),
                    y=Axis(label="loss"),
                ),
            ),
        )

    def __str__(self) -> str:
        how = f" after {' and '.join(self.aligned)}" if self.aligned else ""
        return f"barrier {self.value:.4g} along a {self.shape}{how} ({len(self.losses)} points)"


def slice_through(
    surface: LossSurface, direction: Any = "filter", points: int = 51, *, span: float = 1.0, seed: int = 0
) -> LossPath:
    """The loss on a line through the surface's point, every point evaluated.

    Args:
        surface: Loss surface, at its point.
        direction: "filter" (see `landscape`) or a vector (P,).
        points: At least 3.
        span: The line reaches from -span to span in units of the direction.
        seed: Of the random direction.

    Raises:
        InputError: If an argument is out of range or the direction is no vector (P,).
    """
    check_points(points)
    if not (math.isfinite(span) and span > 0):
        raise InputError(f"span is {span!r}; a positive number is needed.")
    if isinstance(direction, str) and direction != "filter":
        raise InputError(f"direction is {direction!r}; pass 'filter' or a vector ({surface.size},).")
    d = filter_direction(surface, seed) if isinstance(direction, str) else surface.at(direction).theta
    line, places = Plane(surface, (d,)), np.linspace(-span, span, points)
    losses = np.array([line.energy(t) for t in places.tolist()])
    ends = tuple(surface.theta + t * d for t in (-span, span))
    return LossPath(positions=places, losses=losses, shape="slice", aligned=(), points=ends)


def trajectory_plane(points: Sequence[Any]) -> tuple[tuple[Tensor, Tensor], np.ndarray, np.ndarray]:
    """The plane through the last of some points that holds most of their variance (Li et al. 2018, sec. 7).

    Args:
        points: Weights (P,) along a training run, three or more; the last is the origin.

    Returns:
        Two unit directions (P,), the coordinates (k, 2) of all points, the shares (2,) of the sum of squares.

    Raises:
        InputError: If there are fewer than three points, they differ in length, or lie on a line.
    """
    rows = [torch.as_tensor(p).detach().double().reshape(-1) for p in points]
    if len(rows) < 3 or len({len(row) for row in rows}) > 1:
        raise InputError(f"points holds {len(rows)} vectors; three or more of one length are needed.")
    away = torch.stack(rows) - rows[-1]
    U, S, V = torch.linalg.svd(away, full_matrices=False)
    if not float(S[1]) > 1e-12 * float(S[0]):
        raise InputError("the points lie on a line; a plane needs a second direction.")
    shares = (S[:2].square() / S.square().sum()).numpy()
    return (V[0].clone(), V[1].clone()), (U[:, :2] * S[:2]).numpy(), shares


def align(
    surface: LossSurface, other: nn.Module, *, seed: int = 0
) -> tuple[LossSurface, nn.Module, tuple[str, ...]]:
    """Both networks in comparable coordinates: balanced, the second with its units in the order of the first.

    Args:
        surface: Loss surface of the first network.
        other: A network of the same architecture.
        seed: Of the order in which classes of units are matched.

    Returns:
        The first (balanced), the second (balanced and permuted), and what was done.

    Raises:
        InputError: If the second network has another architecture.
        CapabilityError: If the network cannot be exported.
    """
    second, done = surface.around(other), []
    try:
        surface, second = canonical(surface), canonical(second)
        done.append("balancing the scales")
    except InputError:  # no rescalings
        pass
    found = units(surface.write(), surface.example_inputs())
    model = second.write()
    if found.classes:
        orders = match(surface.write(), model, found, seed=seed)
        model = replace(found, model=model).permute(orders)
        done.append("matching the units")
    return surface, model, tuple(done)


def barrier(
    surface: LossSurface, other: nn.Module, points: int = 25, *, aligned: bool = True, seed: int = 0
) -> LossPath:
    """The loss on the straight line between two networks, as a rule after alignment.

    Args:
        surface: Loss surface of the first network.
        other: The second, of the same architecture.
        points: At least 3.
        aligned: Balance and match the networks first; False takes the weights as they are.
        seed: Of the matching.

    Raises:
        InputError: If an argument is out of range or the networks do not fit.
    """
    check_points(points)
    done: tuple[str, ...] = ()
    if aligned:
        surface, other, done = align(surface, other, seed=seed)
    ends = (surface.theta, surface.around(other).theta)
    return _followed(surface, other, ends, lambda t: (1 - t) * ends[0] + t * ends[1], points, "line", done)


def connect(
    surface: LossSurface,
    other: nn.Module,
    shape: Literal["bezier", "polygon"] = "bezier",
    *,
    steps: int = 100,
    step_size: float = 0.02,
    points: int = 25,
    aligned: bool = True,
    seed: int = 0,
) -> LossPath:
    """A curve of low loss between two networks, with one bend that is trained (Garipov et al. 2018).

    Args:
        surface: Loss surface of the first network.
        other: The second, of the same architecture.
        shape: A Bezier curve of second degree, or a polygon with one corner.
        steps: Of Adam on the bend, each with the gradient at one random point of the curve.
        step_size: Of Adam.
        points: At which the loss is taken afterwards, at least 3.
        aligned: Balance and match the networks first.
        seed: Of the random points.

    Raises:
        InputError: If an argument is out of range or the networks do not fit.
    """
    check_points(points)
    if shape not in ("bezier", "polygon"):
        raise InputError(f"shape is {shape!r}; pass 'bezier' or 'polygon'.")
    if steps < 1 or not (math.isfinite(step_size) and step_size > 0):
        raise InputError(f"steps is {steps} and step_size {step_size!r}; both must be positive.")
    done: tuple[str, ...] = ()
    if aligned:
        surface, other, done = align(surface, other, seed=seed)
    a, b = surface.theta, surface.around(other).theta
    weights = _bezier if shape == "bezier" else _polygon
    bend = (0.5 * (a + b)).requires_grad_(True)
    optimizer, draw = torch.optim.Adam([bend], step_size), numpy_generator(seed, "connect")
    for t in draw.random(steps).tolist():
        wa, wm, wb = weights(t)
        with torch.no_grad():
            bend.grad = wm * surface.gradient(wa * a + wm * bend + wb * b)
        optimizer.step()
    middle = bend.detach()

    def at(t: float) -> Tensor:
        wa, wm, wb = weights(t)
        return wa * a + wm * middle + wb * b

    return _followed(surface, other, (a, middle, b), at, points, shape, done)


def _bezier(t: float) -> tuple[float, float, float]:
    return (1 - t) ** 2, 2 * t * (1 - t), t**2


def _polygon(t: float) -> tuple[float, float, float]:
    return (1 - 2 * t, 2 * t, 0.0) if t < 0.5 else (0.0, 2 - 2 * t, 2 * t - 1)


def check_points(points: int) -> None:
    """Refuse a path with too few points."""
    if isinstance(points, bool) or not isinstance(points, int) or points < 3:
        raise InputError(f"points is {points!r}; at least 3 are needed.")


def _followed(
    surface: LossSurface,
    other: nn.Module,
    ends: tuple[Tensor, ...],
    at: Callable[[float], Tensor],
    points: int,
    shape: str,
    done: tuple[str, ...],
) -> LossPath:
    """Losses along a path; statistics of batch normalization are taken anew between the ends."""
    places = np.linspace(0.0, 1.0, points)
    losses = np.empty(points)
    norms = any(isinstance(m, _BatchNorm) for m in other.modules())
    last = surface.around(other)
    for i, t in enumerate(places.tolist()):
        place = surface.at(at(t)) if i < points - 1 else last
        losses[i] = float((reestimated(place) if norms and 0 < i < points - 1 else place).energy())
    return LossPath(positions=places, losses=losses, shape=shape, aligned=done, points=ends, model=other)


def reestimated(surface: LossSurface) -> LossSurface:
    """The surface with the statistics of batch normalization taken over its data at its point.

    Raises:
        CapabilityError: If the loss takes (model, batch).
    """
    problem = surface._problem
    if problem.objective.opaque:
        raise CapabilityError(f"the loss {surface.loss} takes (model, batch); its inputs are its own affair.")
    model = surface.write().eval()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.reset_running_stats()
            module.momentum = None  # the mean over all batches
            module.train()
    with torch.no_grad():
        for i in range(len(problem.batches)):
            model(problem.batches[i][0])
    return surface.around(model.eval())
