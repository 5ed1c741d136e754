"""Critical points of small networks: saddles of a wanted index, verified.

Two searches. The paper's minimizes the squared gradient, here by Levenberg-Marquardt steps; it
may end at *gradient-flat* points, where the gradient does not vanish but lies in the kernel of
the Hessian, or at infinity, where saturated units make any gradient small (Frye et al. 2021). The
other works in the eigenbasis of the Hessian and pins the index k: it goes up along the k lowest
eigenvectors and down along all others,

    theta <- theta - sum_i s_i (u_i . g) / max(|lambda_i|, floor) u_i,   s_i = -1 for i <= k, else 1,

with a capped length. Its stable points are the saddles of index k and nothing else. Both end with
Newton's method, to rounding.

A point is accepted if the gradient is below the tolerance *and* the Newton step that is left
is negligible against theta, eigenvalues counted as at least a small share of the largest. A
gradient-flat point has a long step left, and so has a tail at infinity.

Searches run side by side. Cost of a step at P = 128 on one core: 0.6 ms for networks with one
hidden layer, whose derivatives have a closed form, else 3 ms. Of searches on networks that memorize
noise, one in twenty ends at a true critical point: some thirty points a minute.
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from fathometer.drawing.picture import Picture
from fathometer.errors import InputError
from fathometer.model.dense import StackedDerivatives, most_stacked
from fathometer.results import Row, Table
from fathometer.spectra.laws import check_positive
from fathometer.spectra.searches import SINGULAR, descended, gradient_norm, newton, pinned
from fathometer.types import Progress
from fathometer.work import check_seed, generator, silent

Method = Literal["pinned", "gradient_norm"]
STEPS, STEP_LEFT, SAME = 150, 1e-6, 1e-6
LOWEST = 0.1
"""Share of the start's energy down to which a search may descend first."""
ATTEMPTS = 60
WAVE, SMALL = 64, 8
"""Searches side by side: on surfaces of a factory, on one surface."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class CriticalPoints(Table):
    """Verified critical points, one `Row` each.

    Columns: ``energy`` (the surface's loss), ``index`` (share of negative eigenvalues), ``negative``,
    ``zero`` (counts), ``gradient_norm``, ``flatness`` (|H g| / |g|; tiny at gradient-flat points, or where
    g is rounding), ``step_left`` (length of the last Newton step), ``smallest`` (smallest curvature that
    is not a zero mode), ``norm`` (length of theta), ``attempt`` and ``theta``.

    Attributes:
        attempts: Searches that were started.
        refused: Searches that ended at a small gradient without a critical point: gradient-flat
            points and tails at infinity.
    """

    attempts: int = 0
    refused: int = 0

    def picture(self) -> Picture:
        """Index against energy, one dot a point."""
        from fathometer.spectra.pictures import critical_points_picture

        return critical_points_picture(self)


def critical_points(
    surface_or_factory: Any,
    count: int,
    tolerance: float = 1e-8,
    seed: int = 0,
    *,
    index: int | None = None,
    attempts: int | None = None,
    method: Method | None = None,
    descend: bool | None = None,
    steps: int = STEPS,
    progress: Progress | None = None,
) -> CriticalPoints:
    """Search for critical points of a loss surface.

    Args:
        surface_or_factory: A `LossSurface`: the first search starts at its theta, later ones at
            random points around it. Or a function of one integer seed that returns one: every
            search starts at the theta of a new surface.
        count: Points wanted.
        tolerance: Largest gradient norm of an accepted point.
        seed: Of the random starts; the factory is called with seed, seed + 1, ...
        index: Number of negative eigenvalues wanted; any number if None.
        attempts: Searches at most; 60 for each point wanted if None.
        method: "pinned" or "gradient_norm" (see the module). By default pinned on one surface,
            the other for a factory, and both in turn where a factory's points must have an index.
        descend: Follow the gradient first, until the energy has fallen to a random value between
            that of the start and a tenth of it, as the paper does; by default for a factory only.
        steps: Steps of one search.
        progress: Called with (points found, points wanted, what).

    Returns:
        The points found, which may be fewer than wanted; `CriticalPoints.notes` says so.

    Raises:
        InputError: If an argument is out of range or the factory returns no surface.
        BudgetError: If a dense Hessian does not fit the memory budget.
    """
    check_positive("tolerance", tolerance)
    check_seed(seed)
    limit = ATTEMPTS * count if attempts is None else attempts
    _check_numbers(method, count=count, attempts=limit, steps=steps)
    factory, one = _factory(surface_or_factory)
    if one is not None:
        _check_index(index, one.size)
    wanted = _Wanted(index, one is None if descend is None else descend, tolerance, steps, seed)
    report = progress or silent
    rows: list[Row] = []
    refused = attempt = waves = 0
    while len(rows) < count and attempt < limit:
        report(len(rows), count, "critical points")
        size = 1 if one is not None and not attempt else min(8 * (count - len(rows)), SMALL if one else WAVE)
        numbers = range(attempt, min(attempt + size, limit))
        surfaces = _fitting([factory(seed + number) for number in numbers])
        _check_index(index, surfaces[0].size)
        numbers = numbers[: len(surfaces)]
        pins = one is not None or (index is not None and waves % 2 == 0)
        pins = pins if method is None else method == "pinned"
        attempt, waves = attempt + len(surfaces), waves + 1
        for row in _wave(surfaces, list(numbers), wanted, one is not None, pins):
            refused += row is None
            new = row is not None and (index is None or row.negative == index)
            if row is not None and new and len(rows) < count and not (one and _known(row, rows)):
                rows.append(row)
    short = f"{len(rows)} of {count} points found in {attempt} searches; allow more attempts."
    flat = f"{refused} searches ended at a small gradient that is no critical point; refused."
    return CriticalPoints(
        title=f"critical points with a gradient below {tolerance:.1e}",
        rows=tuple(rows),
        notes=(short,) * (len(rows) < count) + (flat,) * (refused > 0),
        attempts=attempt,
        refused=refused,
    )


@dataclass(frozen=True)
class _Wanted:
    """What a search is told."""

    index: int | None
    descend: bool
    tolerance: float
    steps: int
    seed: int


def _check_numbers(method: Method | None, **numbers: int) -> None:
    for name, number in numbers.items():
        if not isinstance(number, int) or number < 1:
            raise InputError(f"{name} is {number!r}; at least 1 is needed.")
    if method not in (None, *get_args(Method)):
        raise InputError(f"method is {method!r}; it is 'pinned' or 'gradient_norm'.")


def _check_index(index: int | None, size: int) -> None:
    if index is not None and not 0 <= index <= size:
        raise InputError(f"index is {index}; a surface of {size} parameters has 0 to {size}.")


def _fitting(surfaces: list[Any]) -> list[Any]:
    """As many of a wave as the memory budget holds."""
    sizes = {surface.size for surface in surfaces}
    if len(sizes) > 1:
        raise InputError(
            f"the factory returned surfaces of {min(sizes)} and {max(sizes)} parameters; one size is needed."
        )
    return surfaces[: most_stacked(surfaces[0].size)]


def _wave(
    surfaces: list[Any], numbers: list[int], wanted: _Wanted, one: bool, pins: bool
) -> list[Row | None]:
    """Some searches side by side: a row for each accepted point, None for each refused one."""
    at = StackedDerivatives(surfaces)
    streams = [generator(wanted.seed, "critical point", number) for number in numbers]
    theta = torch.stack([surface.theta.detach().double() for surface in surfaces])
    if one and numbers[0]:  # the first search starts at the surface's own point
        noise = torch.stack([torch.randn(theta.shape[1:], generator=s, dtype=torch.float64) for s in streams])
        spread = 0.3 * torch.linalg.vector_norm(theta, dim=1, keepdim=True) / math.sqrt(theta.shape[1])
        theta = theta + spread.clamp(min=3e-4) * noise
    if wanted.descend:
        draws = torch.stack([torch.rand((), generator=s, dtype=torch.float64) for s in streams])
        theta = descended(at, theta, LOWEST + (1.0 - LOWEST) * draws, 4 * wanted.steps)
    if one and not numbers[0]:
        (row,) = _judged(at, newton(at, theta), numbers, wanted.tolerance) or (None,)
        if row is not None and wanted.index in (None, row.negative):
            return [row]
    if pins:
        ends = pinned(at, theta, _indices(at, theta, streams, wanted.index), wanted.steps)
    else:
        ends = gradient_norm(at, theta, wanted.steps, wanted.tolerance)
    return _judged(at, ends, numbers, wanted.tolerance)


def _indices(
    at: StackedDerivatives, theta: Tensor, streams: list[torch.Generator], wanted: int | None
) -> Tensor:
    """The index to pin in each search: the wanted one, or a random one up to that of the start."""
    if wanted is not None:
        return torch.full((len(theta),), wanted)
    values = torch.linalg.eigvalsh(at(torch.arange(len(theta)), theta)[2])
    here = (values < -1e-3 * values.abs().amax(1, keepdim=True)).sum(1)
    drawn = [int(torch.randint(0, int(h) + 1, (), generator=s)) for h, s in zip(here, streams, strict=True)]
    return torch.tensor(drawn)


def _judged(at: StackedDerivatives, ends: Tensor, numbers: list[int], tolerance: float) -> list[Row | None]:
    """The verdict on every end with a small gradient."""
    rows: list[Row | None] = []
    finite = ends.isfinite().all(1).nonzero()[:, 0]
    if not len(finite):
        return rows
    _, gradients = at.gradient(finite, ends[finite])
    small = finite[torch.linalg.vector_norm(gradients, dim=1) <= tolerance]
    for i in small.tolist():
        found = at(torch.tensor([i]), ends[i : i + 1])
        energy, g, H = (part[0] for part in found)
        rows.append(_verdict(ends[i], energy, g, H, numbers[i]))
    return rows


def _verdict(theta: Tensor, energy: Tensor, g: Tensor, H: Tensor, attempt: int) -> Row | None:
    """The row of a point whose gradient is small, or None if it is no critical point."""
    size, slope = float(torch.linalg.vector_norm(theta)), float(torch.linalg.vector_norm(g))
    if not bool(torch.isfinite(H).all()):
        return None
    values, U = torch.linalg.eigh(H)
    largest = float(values.abs().max())
    if largest == 0:
        return None
    left = (U.T @ g) / values.abs().clamp(min=SINGULAR * largest)
    step_left = float(torch.linalg.vector_norm(left))
    if step_left > STEP_LEFT * max(size, 1.0):
        return None
    zero = values.abs() <= len(values) * 1e-13 * largest
    negative = int(((values < 0) & ~zero).sum())
    return Row(
        energy=float(energy),
        index=negative / len(values),
        gradient_norm=slope,
        negative=negative,
        zero=int(zero.sum()),
        flatness=float(torch.linalg.vector_norm(H @ g)) / slope if slope > 0 else math.nan,
        step_left=step_left,
        smallest=float(values[~zero].abs().min()),
        norm=size,
        attempt=attempt,
        theta=theta.clone(),
    )


def _factory(subject: Any) -> tuple[Callable[[int], Any], Any]:
    """A function of a seed, and the one surface if it is always the same."""
    if hasattr(subject, "theta") and hasattr(subject, "hessian"):
        return lambda _seed: subject, subject
    if not callable(subject) or inspect.isclass(subject):
        raise InputError(
            f"surface_or_factory is a {type(subject).__name__}; pass a LossSurface, or a function of one "
            "seed that returns one."
        )

    def build(seed: int) -> Any:
        surface = subject(seed)
        if not (hasattr(surface, "theta") and hasattr(surface, "hessian")):
            raise InputError(
                f"the factory returned a {type(surface).__name__} for seed {seed}; a LossSurface is needed."
            )
        return surface

    return build, None


def _known(row: Row, rows: list[Row]) -> bool:
    """Whether a point was found before: the same place on the same surface."""
    size = max(row.norm, 1.0)
    return any(float(np.linalg.norm((row.theta - old.theta).numpy())) < SAME * size for old in rows)
