"""Flatness measures that read the Hessian: norm, trace, Frobenius norm.

The spectral norm and the trace are what Dinh, Pascanu, Bengio & Bengio (2017, sec. 3)
call the Hessian measures; at a critical point both can be made as large as one likes
without changing the function (theorems 4 and 5). Away from a critical point they are
numbers about a slope, and a warning says so.
"""

import warnings
from dataclasses import replace

import torch
from torch import Tensor

from fathometer.errors import CapabilityError, InputError, TheoryWarning
from fathometer.linalg import Eigenpairs, diagonal, eigenpairs, frobenius_norm, trace
from fathometer.model import LossSurface
from fathometer.model.exact_diagonal import gauss_newton_diagonal, hessian_diagonal
from fathometer.model.flops import forward_flops
from fathometer.results import Estimate
from fathometer.sharpness.bijections import Place

OPERATIONS, FEWEST_PRODUCTS, MOST_PRODUCTS = 3e12, 48, 3000
"""What a sampled trace may cost: operations, and Hessian products whatever they are."""
MOST_SKETCHED = 1_000_000
"""Parameters beyond which a hundred vectors of a sketch are too much memory (10 GB for a ResNet-18)."""
CRITICAL = 0.1
"""Slope beyond which a point is no minimum at the scale that is measured: see `warn_if_sloped`."""


def hessian_norm(surface: Place, tolerance: float = 1e-3, seed: int = 0) -> Estimate:
    """Spectral norm of the Hessian: the largest eigenvalue in size.

    Args:
        surface: Loss surface; the Hessian is taken at its point.
        tolerance: Relative residual of the eigenvalue.
        seed: Of the random start.

    Returns:
        The norm, in loss per squared parameter; ``error`` is the residual: an eigenvalue
        lies that close.

    Raises:
        InputError: If an argument is out of range.
    """
    return sharpest_pair(surface, tolerance, seed)[0]


def sharpest_pair(
    surface: Place,
    tolerance: float = 1e-3,
    seed: int = 0,
    *,
    start: Tensor | None = None,
    check: bool = True,
) -> tuple[Estimate, Tensor]:
    """`hessian_norm` and its eigenvector (P,), searched from ``start`` if one is given.

    Args:
        surface: Loss surface; the Hessian is taken at its point.
        tolerance: Relative residual of the eigenvalue.
        seed: Of the random start.
        start: Vectors (P,) or (P, j) near the eigenvector.
        check: Look for a larger eigenvalue that the search may have missed.

    Raises:
        InputError: If an argument is out of range.
    """
    H = surface.hessian()
    pairs = eigenpairs(H, 1, "magnitude", tolerance=tolerance, seed=seed, start=start, check=check)
    return _norm_of(pairs), pairs.vectors[:, 0]


def confirmed_pair(
    surface: Place, tolerance: float = 1e-3, seed: int = 0, *, start: Tensor | None = None
) -> tuple[Estimate, Tensor]:
    """`sharpest_pair` in float64, searched in the surface's own type.

    Products in float64 cost up to five times those in float32 (convolutions have no fast path), so
    that only the last ones, which give the value and its residual, are made in it.
    """
    found, vector = sharpest_pair(surface, tolerance, seed, start=start)
    if surface.theta.dtype == torch.float64:
        return found, vector
    exact, finer = sharpest_pair(surface.double(), tolerance, seed, start=vector, check=False)
    return replace(exact, cost=found.cost + exact.cost), finer.to(vector.dtype)


def _norm_of(pairs: Eigenpairs) -> Estimate:
    return Estimate(
        value=abs(float(pairs.values[0])),
        kind=pairs.kind,
        error=float(pairs.residuals[0]),
        method="block Lanczos" if pairs.kind == "estimate" else "dense eigenvalues",
        cost=pairs.products,
    )


def gauss_newton_norm(surface: Place, tolerance: float = 1e-3, seed: int = 0) -> Estimate:
    """Largest eigenvalue of the Gauss-Newton part of the Hessian.

    Args:
        surface: Loss surface, at its point.
        tolerance: Relative residual of the eigenvalue.
        seed: Of the random start.

    Raises:
        InputError: If an argument is out of range or the loss has no outputs.
    """
    G = surface.gauss_newton()
    return _norm_of(eigenpairs(G, 1, "magnitude", tolerance=tolerance, seed=seed))


def hessian_trace(
    surface: Place, tolerance: float = 0.01, seed: int = 0, *, max_products: int | None = None
) -> Estimate:
    """Trace of the Hessian, in loss per squared parameter.

    Exact, without sampling, where the network is affine in each single weight (see
    `fathometer.model.exact_diagonal`); else sampled, with XTrace up to a million parameters and by
    plain random signs beyond, which keep one vector in memory.

    Args:
        surface: Loss surface; the Hessian is taken at its point.
        tolerance: Relative standard error at which sampling stops.
        seed: Of the random vectors.
        max_products: Products to spend at the most; the error then says how far it came. If None, 3,000
            or what 3e12 floating-point operations pay for (a minute or two on one core), at least 48.

    Raises:
        InputError: If an argument is out of range.
    """
    known = known_diagonal(surface)
    if known is not None:
        return exact_sum(known)
    if max_products is None:
        max_products = _affordable(surface)
    method = "auto" if surface.size <= MOST_SKETCHED else "hutchinson"
    return trace(surface.hessian(), method, tolerance, seed, max_products=max_products)


def _affordable(surface: Place) -> int:
    """Hessian products that `OPERATIONS` pay for."""
    if not isinstance(surface, LossSurface):
        return MOST_PRODUCTS
    return int(min(MOST_PRODUCTS, max(FEWEST_PRODUCTS, OPERATIONS / (6.0 * forward_flops(surface)))))


def known_diagonal(surface: Place) -> Tensor | None:
    """Diagonal (P,) of the Hessian in float64 where it is provably that of one structured pass, else None."""
    if not isinstance(surface, LossSurface):
        return None
    try:
        return hessian_diagonal(surface)
    except (CapabilityError, InputError):  # not provably affine, or no graph to prove it on
        return None


def exact_sum(terms: Tensor) -> Estimate:
    """A sum over the exact diagonal, as an answer; its error is of the size of the rounding."""
    return Estimate(
        value=float(terms.sum()),
        kind="exact",
        error=8 * torch.finfo(terms.dtype).eps * float(terms.abs().sum()),
        method="structured pass",
        cost=1,
        cost_unit="passes",
    )


def gauss_newton_weights(surface: LossSurface, seed: int = 0) -> Tensor:
    """Diagonal (P,) of the Gauss-Newton matrix in float64: exact where the layers allow it, else sampled."""
    try:
        return gauss_newton_diagonal(surface)
    except CapabilityError:
        return diagonal(surface.double().gauss_newton(), seed=seed).value.clamp(min=0.0)


def hessian_frobenius(
    surface: Place, tolerance: float = 0.01, seed: int = 0, *, max_products: int = 3000
) -> Estimate:
    """Frobenius norm of the Hessian, in loss per squared parameter.

    Args:
        surface: Loss surface; the Hessian is taken at its point.
        tolerance: Relative standard error at which sampling stops.
        seed: Of the random vectors.
        max_products: Products to spend at the most.

    Raises:
        InputError: If an argument is out of range.
    """
    return frobenius_norm(surface.hessian(), tolerance, seed, max_products=max_products)


def slope(surface: Place) -> tuple[float, float]:
    """Gradient norm, and the share of the loss that one exact step along the gradient would gain.

    The second number is ``|g|^2 / (2 g'Hg/|g|^2) / L``: the share of the loss that is
    explained by not having arrived. It does not depend on the unit of the loss.
    """
    gradient = surface.gradient()
    norm = float(gradient.norm())
    if norm == 0.0:
        return 0.0, 0.0
    direction = gradient / norm
    bend = float(direction @ (surface.hessian() @ direction))
    loss = abs(float(surface.energy()))
    if bend <= 0.0 or loss == 0.0:
        return norm, float("inf")
    return norm, norm**2 / (2.0 * bend) / loss


def warn_if_sloped(surface: Place) -> float:
    """Warn where the point is no minimum at the scale that is measured; returns the gradient norm."""
    norm, share = slope(surface)
    if share > CRITICAL:
        warnings.warn(
            f"the gradient norm is {norm:.3g}: a step along it would still gain {min(share, 1.0):.0%} of "
            "the loss or more, so this is no minimum and flatness measures describe a slope.",
            TheoryWarning,
            stacklevel=3,
        )
    return norm
