"""Numbers that need the weights and first derivatives only: norms, slopes, one step of ascent."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fathometer.errors import InputError
from fathometer.linalg import trace
from fathometer.model import LossSurface
from fathometer.results import Estimate
from fathometer.sharpness.equivalent import group_of, orbit_minimum


def weight_norm(surface: LossSurface) -> Estimate:
    """Euclidean norm of the weights."""
    return _exact(float(surface.theta.double().norm()), "norm", 0)


def orbit_weight_norm(surface: LossSurface) -> Estimate:
    """Smallest Euclidean norm of the weights among all networks of the rescaling orbit.

    ``min over z of sum theta_i^2 exp(2 (B z)_i)``, a convex problem (Stock et al. 2019).

    Raises:
        InputError: If the network has no rescaling.
    """
    exact = surface.double()
    _, smallest = orbit_minimum(exact, group_of(surface), exact.theta.square(), 2.0)
    return _exact(math.sqrt(smallest), "convex minimum on the orbit", 0)


def spectral_product(surface: LossSurface) -> Estimate:
    """Product of the spectral norms of the weights, each as a matrix (outputs, rest)."""
    return _product(surface, lambda W: float(torch.linalg.matrix_norm(W, 2)))


def frobenius_product(surface: LossSurface) -> Estimate:
    """Product of the Frobenius norms of the weights with two axes or more."""
    return _product(surface, lambda W: float(W.norm()))


def gradient_norm(surface: LossSurface) -> Estimate:
    """Euclidean norm of the gradient: zero at a minimum."""
    return _exact(float(surface.double().gradient().norm()), "gradient", 1)


def gradient_variance(surface: LossSurface, tolerance: float = 0.01, seed: int = 0) -> Estimate:
    """Mean squared norm of the gradients of single examples, less that of their mean.

    Args:
        surface: Loss surface, at its point.
        tolerance: Relative standard error at which sampling of the trace stops.
        seed: Of the random vectors.
    """
    exact = surface.double()
    found = trace(exact.fisher(kind="empirical"), "auto", tolerance, seed, max_products=200)
    mean = float(exact.gradient().square().sum())
    return Estimate(
        value=float(found.value) - mean,
        kind=found.kind,
        error=found.error,
        method=found.method,
        cost=found.cost,
    )


def one_step_sharpness(surface: LossSurface, radius: float = 0.05, *, adaptive: bool = False) -> Estimate:
    """Rise of the loss after one step of ascent: what SAM and ASAM climb in training.

    ``radius g / |g|``, or ``radius theta^2 g / |theta g|`` (Foret et al. 2021; Kwon et al. 2021). A lower
    bound of the worst case in the ball; zero at an exact minimum, where `adaptive` is not.

    Args:
        surface: Loss surface, at its point.
        radius: Positive.
        adaptive: In units of each weight.

    Raises:
        InputError: If radius is not positive.
    """
    if not (math.isfinite(radius) and radius > 0):
        raise InputError(f"radius is {radius!r}; a positive number is needed.")
    exact = surface.double()
    theta = exact.theta
    unit = theta.abs() if adaptive else torch.ones_like(theta)
    slope = unit * exact.gradient()
    size = float(slope.norm())
    step = radius * unit * slope / size if size > 0 else torch.zeros_like(theta)
    rise = float(exact.energy(theta + step)) - float(exact.energy())
    return Estimate(
        value=rise, kind="bound", error=0.0, method="one step of ascent", cost=1, cost_unit="gradients"
    )


def _product(surface: LossSurface, norm: Callable[[Tensor], float]) -> Estimate:
    total = 0.0
    for weight in surface.space.split(surface.theta).values():
        if weight.ndim > 1:
            total += math.log(max(norm(weight.double().flatten(1)), 5e-324))
    return _exact(math.exp(min(total, 700.0)), "singular values", 0)


def _exact(value: float, method: str, cost: int) -> Estimate:
    return Estimate(value=value, kind="exact", error=0.0, method=method, cost=cost, cost_unit="gradients")
