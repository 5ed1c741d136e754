"""Flatness measures that a change of scale does not change.

Dinh, Pascanu, Bengio & Bengio (2017) show that norm, trace and ball sharpness can be moved
at will along a rescaling. These measures cannot: the Fisher-Rao norm (Liang et al. 2019),
the scaled Hessian in the units of the weights, and the smallest trace on the orbit.
"""

from typing import Literal

import torch

from fathometer.linalg import LinearOperator, eigenpairs, trace
from fathometer.model import LossSurface
from fathometer.results import Estimate
from fathometer.sharpness.curvature import exact_sum, known_diagonal
from fathometer.sharpness.equivalent import flatten


def fisher_rao(
    surface: LossSurface,
    kind: Literal["exact", "empirical"] = "exact",
    *,
    parameters: str | None = None,
) -> Estimate:
    """Squared Fisher-Rao norm ``theta' F theta`` (Liang et al. 2019), in units of the loss.

    F is the Fisher matrix at the point, over the model's own predictions ("exact") or over
    the targets of the data ("empirical"). Invariant to every rescaling that keeps the function.

    Args:
        surface: Loss surface; "exact" needs a loss that is a likelihood.
        kind: Which Fisher matrix.
        parameters: Name or glob of the parameters whose block is taken; all if None.

    Raises:
        InputError: If the kind is unknown or the loss has no such matrix.
    """
    exact = surface.double()
    theta = exact.theta
    if parameters is not None:
        mine = torch.zeros_like(theta)
        mine[exact.space.positions(parameters)] = 1.0
        theta = theta * mine
    image = exact.fisher(kind=kind) @ theta
    return Estimate(
        value=float(theta @ image), kind="exact", error=0.0, method=f"{kind} Fisher matrix", cost=1
    )


def relative_hessian(surface: LossSurface) -> LinearOperator:
    """The Hessian in units of the weights, ``|theta| H |theta|`` (P, P).

    Its entries are second derivatives with respect to the logarithms of the weights (for
    a linear loss in them), so no rescaling changes its spectrum.
    """
    exact = surface.double()
    scale, H = exact.theta.abs(), exact.hessian()
    return LinearOperator(
        shape=H.shape,
        product=lambda V: scale[:, None] * H.product(scale[:, None] * V),
        dtype=H.dtype,
        device=H.device,
        name="relative Hessian",
    )


def relative_norm(surface: LossSurface, tolerance: float = 1e-3, seed: int = 0) -> Estimate:
    """Spectral norm of the Hessian in units of the weights; see `relative_hessian`.

    Args:
        surface: Loss surface, at its point.
        tolerance: Relative residual of the eigenvalue.
        seed: Of the random start.
    """
    pairs = eigenpairs(relative_hessian(surface), 1, "magnitude", tolerance=tolerance, seed=seed)
    value, residual = abs(float(pairs.values[0])), float(pairs.residuals[0])
    return Estimate(value=value, kind=pairs.kind, error=residual, method="block Lanczos", cost=pairs.products)


def relative_trace(surface: LossSurface, tolerance: float = 0.01, seed: int = 0) -> Estimate:
    """Trace of the Hessian in units of the weights, ``sum theta_i^2 H_ii``.

    Twice the rise of the loss under a relative Gaussian noise of the weights, to second
    order, divided by its variance (Andriushchenko et al. 2023, average case).

    Args:
        surface: Loss surface, at its point.
        tolerance: Relative standard error at which sampling stops.
        seed: Of the random vectors.
    """
    known = known_diagonal(surface)
    if known is not None:
        return exact_sum(surface.theta.double().square() * known)
    return trace(relative_hessian(surface), "auto", tolerance, seed)


def orbit_trace(surface: LossSurface, seed: int = 0) -> Estimate:
    """Smallest Hessian trace over the rescaling orbit: `flatten`, as a number.

    Args:
        surface: Loss surface, at its point.
        seed: Of the random vectors.

    Raises:
        InputError: If the network has no rescaling.
    """
    return flatten(surface, seed=seed).after
