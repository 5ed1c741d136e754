"""The same function at another point: as sharp or as flat as one likes.

`sharpen` walks along one rescaling until a flatness measure has the value that was asked
for: theorems 4 and 5 of Dinh, Pascanu, Bengio & Bengio (2017) as an instrument, for any
network that has a rescaling. `flatten` goes to the point of the orbit with the smallest
Gauss-Newton trace: a convex problem in the log-scales,
``min over z of sum_i h_i exp(-2 (B z)_i)`` with h >= 0 the diagonal.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, cast

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.sparse import csr_array, vstack
from scipy.sparse.linalg import lsqr
from torch import Tensor, nn

from fathometer.drawing import Picture
from fathometer.errors import CapabilityError, InputError
from fathometer.linalg import eigenpairs
from fathometer.model import LossSurface
from fathometer.results import Estimate, Result
from fathometer.sharpness.curvature import (
    confirmed_pair,
    gauss_newton_weights,
    hessian_norm,
    hessian_trace,
    sharpest_pair,
)
from fathometer.sharpness.rescalings import Rescalings, output_change, rescalings
from fathometer.sharpness.worst_case import epsilon_sharpness, keskar
from fathometer.types import Kind

WALKABLE: dict[str, Callable[..., Estimate]] = {
    "hessian_norm": hessian_norm,
    "hessian_trace": hessian_trace,
    "epsilon_sharpness": epsilon_sharpness,
    "keskar": keskar,
}
RANKING = 64
"""Examples by which the sharpest tensor is chosen; what is measured afterwards uses all."""
RANKING_PRODUCTS = 12
"""Products for the eigenvector by which it is chosen."""
LARGEST_STEP = 60.0
"""Log-factor beyond which float32 weights overflow."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Equivalent(Result):
    """A network with the same outputs and another sharpness.

    Attributes:
        model: The network, in the type of the original.
        measure: What was changed.
        before, after: The measure at the original and at ``model``, both from fresh products.
        output_error: Largest change of any output over all data, relative to the largest output.
        moved: Share of the weights' norm by which they moved.
        tensor: The tensor whose scale was walked along; "" for `flatten`.
        log_factor: Natural logarithm of the factor of that tensor.
    """

    model: nn.Module = field(metadata={"saved": False})
    measure: str
    before: Estimate
    after: Estimate
    output_error: float
    moved: float
    tensor: str = ""
    log_factor: float = 0.0

    @property
    def value(self) -> float:
        """How many times larger the measure is afterwards."""
        before = float(self.before.value)
        return float(self.after.value) / before if before else math.inf

    @property
    def kind(self) -> Kind:
        """That of the two measurements."""
        kinds = {self.before.kind, self.after.kind}
        return "exact" if kinds == {"exact"} else "estimate" if "estimate" in kinds else "bound"

    @property
    def error(self) -> float:
        """Of the ratio, from the errors of both measurements."""
        parts = [abs(float(m.error) / float(m.value)) for m in (self.before, self.after) if float(m.value)]
        return abs(self.value) * math.hypot(*parts)

    def picture(self) -> Picture:
        """Bars: the measure before and after."""
        from fathometer.sharpness.pictures import equivalent_picture

        return equivalent_picture(self)

    def __str__(self) -> str:
        return (
            f"{self.measure}: {float(self.before.value):.4g} -> {float(self.after.value):.4g} "
            f"({self.value:.4g} times), outputs within {self.output_error:.1e}"
        )


def sharpen(
    surface: LossSurface,
    measure: str = "hessian_norm",
    factor: float | None = None,
    *,
    target: float | None = None,
    example_inputs: Any = None,
    tolerance: float = 0.01,
    seed: int = 0,
    **options: Any,
) -> Equivalent:
    """An equivalent network at which a flatness measure has another value.

    Args:
        surface: Loss surface of the network.
        measure: "hessian_norm", "hessian_trace", "epsilon_sharpness" or "keskar".
        factor: How many times larger the measure shall be; a million if no target is given.
        target: The value it shall have instead.
        example_inputs: Arguments of the model, where the surface cannot tell them.
        tolerance: Relative distance from the wanted value that is accepted.
        seed: Of the measurements.
        options: Of the measure, such as ``radius``.

    Returns:
        The network with the measure before and after, each measured, not computed by a formula.

    Raises:
        InputError: If the measure is unknown, both factor and target are given, the wanted value
            is not positive, the network has no rescaling that changes a measured weight, or
            the value is out of reach on the orbit (the message says what was reached).
        CapabilityError: If the network cannot be exported.
    """
    if measure not in WALKABLE:
        raise InputError(f"measure is {measure!r}; pass one of {', '.join(WALKABLE)}.")
    if factor is not None and target is not None:
        raise InputError("pass factor or target, not both.")

    ruler = _Ruler(measure, seed, options)
    before = ruler(surface)
    if not float(before.value) > 0:
        raise InputError(f"{measure} is {float(before.value):.4g} here; only a positive value can be scaled.")
    wanted = target if target is not None else (1e6 if factor is None else factor) * float(before.value)
    if not (math.isfinite(wanted) and wanted > 0):
        raise InputError(f"the wanted {measure} is {wanted!r}; it must be positive and finite.")
    group = group_of(surface, example_inputs)
    name, z, bend = sharpest_tensor(surface, group, seed, ruler.vector)
    here, start = (0.0, math.log(float(before.value) / wanted)), 0.5 * math.log(wanted / float(before.value))
    if measure == "hessian_norm":
        start = 0.5 * math.log(wanted / bend)  # where the scaled block alone would have the wanted norm
        ruler.vector = cut(surface, cast(Tensor, ruler.vector), name)
        start = _walk(surface, group, z, ruler.roughly, (start, here), wanted, tolerance)[2]
    reached, model, t = _walk(surface, group, z, ruler, (start, here), wanted, tolerance)
    if not abs(math.log(float(reached.value) / wanted)) <= math.log1p(tolerance):
        raise InputError(
            f"{measure} cannot be brought to {wanted:.4g} along the scale of {name}; "
            f"{float(reached.value):.4g} was reached, from {float(before.value):.4g}. Ask for a larger value."
        )
    return _equivalent(surface, group, model, measure, before, reached, name, t)


class _Ruler:
    """Reads the measure at one place after the other, in float64.

    For the spectral norm each search sets out from the last eigenvector: from place to place it hardly turns.
    """

    def __init__(self, measure: str, seed: int, options: dict[str, Any]) -> None:
        self.measure, self.seed, self.options = measure, seed, options
        self.vector: Tensor | None = None

    def __call__(self, place: LossSurface) -> Estimate:
        if self.measure != "hessian_norm":
            return WALKABLE[self.measure](place.double(), seed=self.seed, **self.options)
        found, self.vector = confirmed_pair(place, seed=self.seed, start=self.vector, **self.options)
        return found

    def roughly(self, place: LossSurface) -> Estimate:
        """The norm to some thousandths, in the type of the surface, without a look for what was missed."""
        found, self.vector = sharpest_pair(place, 0.02, self.seed, start=self.vector, check=False)
        return found


def flatten(
    surface: LossSurface, *, example_inputs: Any = None, largest: float = 12.0, seed: int = 0
) -> Equivalent:
    """The point of the rescaling orbit with the smallest Gauss-Newton trace.

    For networks of piecewise linear operations in which no path meets a weight twice the
    diagonals of Hessian and Gauss-Newton matrix agree, so this is the smallest Hessian trace
    too. The problem is convex: every point of the orbit leads to the same minimum.

    Args:
        surface: Loss surface of the network.
        example_inputs: Arguments of the model, where the surface cannot tell them.
        largest: Bound on the log-scales, where the infimum lies at infinity.
        seed: Of the diagonal's random vectors, if it is estimated.

    Raises:
        InputError: If the network has no rescaling that changes a measured weight.
        CapabilityError: If the network cannot be exported.
    """
    group = group_of(surface, example_inputs)
    exact = surface.double()
    curvature = gauss_newton_weights(exact, seed)
    model = group.move(orbit_minimum(exact, group, curvature, -2.0, largest)[0])
    before = hessian_trace(exact, seed=seed)
    after = hessian_trace(surface.around(model).double(), seed=seed)
    return _equivalent(surface, group, model, "hessian_trace", before, after, "", 0.0)


def group_of(surface: LossSurface, example_inputs: Any = None) -> Rescalings:
    """The rescalings of a surface's network.

    Raises:
        InputError: If none of them changes a parameter of the surface.
    """
    inputs = surface.example_inputs() if example_inputs is None else example_inputs
    group = rescalings(surface.write(), inputs)
    if not any(name in group.tensors for name in surface.names):
        reason = "; ".join(f"{k}: {v}" for k, v in list(group.untreated.items())[:3])
        raise InputError(
            "the network has no rescaling that changes a parameter of the surface"
            + (f" ({reason})." if reason else ": its activations are not homogeneous.")
        )
    refuse_other_terms(surface, group)
    return group


def refuse_other_terms(surface: LossSurface, group: Rescalings) -> None:
    """Refuse a loss that sees more of the network than its outputs; one of outputs and targets cannot.

    Raises:
        InputError: If the loss changes along the orbit.
    """
    if not surface._problem.objective.opaque:
        return
    here, there = (
        float(place.energy()) for place in (surface, surface.around(group.move(seed=0, spread=0.3)))
    )
    if abs(there - here) > 1e-4 * abs(here):
        raise InputError(
            f"the loss goes from {here:.6g} to {there:.6g} along a rescaling that keeps all outputs: it "
            "reads the weights themselves (weight decay?). Leave such terms out of a loss to be measured."
        )


def orbit_minimum(
    surface: LossSurface, group: Rescalings, weights: Tensor, power: float, largest: float = 12.0
) -> tuple[np.ndarray, float]:
    """Coordinates z and value of ``min over z of sum_i weights_i exp(power (B z)_i)``, weights (P,) >= 0.

    Convex. Weights that no rescaling moves are a constant of the sum.
    """
    basis, terms = _orbit_terms(surface, group, weights)
    constant = float(weights.sum()) - float(terms.sum())

    def objective(z: np.ndarray) -> tuple[float, np.ndarray]:
        parts = terms * np.exp(power * (basis @ z))
        return float(parts.sum()), power * (basis.T @ parts)

    start = np.zeros(group.dimension)
    bounds = [(-largest, largest)] * group.dimension
    limits = {"maxiter": 2000, "ftol": 1e-14, "gtol": 1e-12 * terms.sum()}
    found = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options=limits)
    return found.x, float(found.fun) + constant


def canonical(surface: LossSurface, example_inputs: Any = None) -> LossSurface:
    """The surface at the point of its rescaling orbit with the smallest norm of the weights.

    The same for all equivalent networks: the problem is convex, and strictly so where weights move.

    Args:
        surface: Loss surface of the network.
        example_inputs: Arguments of the model, where the surface cannot tell them.

    Raises:
        InputError: If the network has no rescaling that changes a measured weight.
        CapabilityError: If the network cannot be exported.
    """
    group = group_of(surface, example_inputs)
    z, _ = orbit_minimum(surface, group, surface.theta.double().square(), 2.0)
    return surface.around(group.move(z))


def _rows(group: Rescalings, name: str) -> tuple[csr_array, Tensor]:
    """Distinct rows of the log-scale map for a tensor, and for each entry the number of its row."""
    space, uses, shapes = group.generators.parts
    use = uses[name]
    groups, shape = torch.from_numpy(space.group), shapes[name]
    plus, minus = (groups[ids].expand(shape).reshape(-1) for ids in (use.plus, use.minus))
    size = cast(tuple[int, int], space.basis.shape)[0]
    pairs, place = torch.unique(plus * size + minus, return_inverse=True)
    first, second = (pairs // size).numpy(), (pairs % size).numpy()
    return csr_array(space.basis[first] - space.basis[second]), place


def _some_examples(surface: LossSurface) -> LossSurface:
    """Enough of the data to rank the tensors by; all of it where examples cannot be picked."""
    try:
        return surface.select(slice(0, RANKING))
    except InputError:
        return surface


def sharpest_tensor(
    surface: LossSurface, group: Rescalings, seed: int, top: Tensor | None = None
) -> tuple[str, np.ndarray, float]:
    """A tensor that can shrink as a whole and is sharp: its name, how it shrinks, its curvature.

    The sharpest direction of the network (``top``, if it is known), cut to one tensor, is a direction of
    positive curvature in nearly all cases; where it is not for any, every block is searched by itself.
    """
    few = _some_examples(surface)
    H = few.hessian()
    sharpest = top
    if sharpest is None:
        sharpest = eigenpairs(
            H, 1, "largest", tolerance=0.05, seed=seed, check=False, max_products=RANKING_PRODUCTS
        ).vectors[:, 0]
    best: tuple[float, str, np.ndarray] = (0.0, "", np.zeros(0))
    shares = {name: float(sharpest[surface.space.positions(name)].norm()) for name in surface.names}
    ranked = iter(sorted(shares, key=lambda name: -shares[name]))
    ways = ((name, z) for name in ranked if (z := _shrinking(group, name)) is not None)
    tried = list(islice(ways, 4))
    for name, z in tried:
        part = cut(surface, sharpest, name)
        best = max(best, (float(part @ (H @ part)), name, z), key=lambda found: found[0])
    for name, z in () if best[1] else chain(tried, ways):
        part = H.restrict(surface.space.positions(name))
        found = eigenpairs(part, 1, "largest", tolerance=0.05, seed=seed, check=False, max_products=20)
        best = max(best, (float(found.values[0]), name, z), key=lambda found: found[0])
    if not best[1]:
        raise InputError(
            "no tensor with positive curvature can shrink as a whole; the orbit does not sharpen it."
        )
    return best[1], best[2], best[0]


def cut(surface: LossSurface, vector: Tensor, name: str) -> Tensor:
    """The entries of a vector (P,) that belong to one tensor, at length one; zero elsewhere."""
    at = surface.space.positions(name)
    part = torch.zeros_like(vector)
    part[at] = vector[at] / vector[at].norm().clamp(min=torch.finfo(vector.dtype).tiny)
    return part


def _shrinking(group: Rescalings, name: str) -> np.ndarray | None:
    """Coordinates that divide every entry of a tensor by e, on average; None if some cannot follow."""
    if name not in group.tensors:
        return None
    rows, place = _rows(group, name)
    z = lsqr(rows, -np.ones(cast(tuple[int, int], rows.shape)[0]), atol=1e-12, btol=1e-12)[0]
    shrink = -np.asarray(rows @ z)[place.numpy()]
    return z / shrink.mean() if shrink.min() >= 0.5 else None


def _walk(
    surface: LossSurface,
    group: Rescalings,
    z: np.ndarray,
    read: Callable[[LossSurface], Estimate],
    start: tuple[float, tuple[float, float]],
    wanted: float,
    tolerance: float,
) -> tuple[Estimate, nn.Module, float]:
    """Walk along ``z`` until the measure is as wanted: secants on log-log axes, halving where they leave.

    ``start`` is the first step to try, and a known point (step, log of the measure over the wish).

    Far out the logarithm of a curvature grows with slope two in ``t``.
    """
    (t, last), low, high = start, -LARGEST_STEP, LARGEST_STEP
    best = None
    for _ in range(24):
        t = min(max(t, low), high)
        try:
            model = group.move(t * z)
            found = read(surface.around(model))
        except (InputError, CapabilityError):  # beyond the range of the type: come back
            low, high = (low, t) if t > 0 else (t, high)
            t = 0.5 * (t + last[0])
            continue
        gap = math.log(float(found.value) / wanted)
        if best is None or abs(gap) < best[0]:
            best = (abs(gap), found, model, t)
        if abs(gap) <= 0.3 * math.log1p(tolerance):
            break
        low, high = (t, high) if gap < 0 else (low, t)
        slope = (gap - last[1]) / (t - last[0]) if t != last[0] else 2.0
        last = (t, gap)
        t -= gap / slope if slope > 0.1 else 0.5 * gap
        if not low < t < high:
            t = 0.5 * (low + high)
    if best is None:
        raise InputError("no step along the orbit keeps the weights within the range of their type.")
    return best[1], best[2], best[3]


def _orbit_terms(surface: LossSurface, group: Rescalings, curvature: Tensor) -> tuple[csr_array, np.ndarray]:
    """Distinct rows of the log-scale map over all measured weights, with the curvature on each."""
    rows, weights = [], []
    for name in surface.names:
        if name not in group.tensors:
            continue
        block, place = _rows(group, name)
        total = torch.zeros(int(place.max()) + 1, dtype=torch.float64)
        total.index_add_(0, place, curvature[surface.space.positions(name)].cpu())
        rows.append(block)
        weights.append(total.numpy())
    return csr_array(vstack(rows)), np.concatenate(weights)


def _equivalent(
    surface: LossSurface,
    group: Rescalings,
    model: nn.Module,
    measure: str,
    before: Estimate,
    after: Estimate,
    name: str,
    t: float,
) -> Equivalent:
    moved = surface.around(model)
    if (
        surface._problem.objective.opaque
    ):  # outputs are the loss's own affair: compare what the graph was read of
        change = output_change(group.model, model, group.example_inputs)
    else:
        first, second = surface.outputs().double(), moved.outputs().double()
        change = (second - first).abs().max() / first.abs().max().clamp(min=torch.finfo(first.dtype).tiny)
    distance = (moved.theta - surface.theta).norm() / surface.theta.norm()
    return Equivalent(
        model=model,
        measure=measure,
        before=before,
        after=after,
        output_error=float(change),
        moved=float(distance),
        tensor=name,
        log_factor=-t,
    )
