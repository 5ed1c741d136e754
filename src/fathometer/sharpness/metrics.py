"""Curvature and slope against a metric that is carried along: what a change of coordinates leaves alone.

A Hessian alone has no eigenvalues that mean something: they need a metric, and the Euclidean one of
the weights changes with the coordinates (Kristiadi, Dangel & Hennig 2023). The metric here is that of the
weights' own sizes, layer by layer (Rangamani et al. 2019) or weight by weight, or the Fisher matrix, which
measures by how much the predictions change (Jang, Lee, Park & Noh 2022).
"""

import math
import warnings
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.sparse.linalg import LinearOperator as ScipyOperator
from scipy.sparse.linalg import lobpcg
from torch import Tensor

from fathometer.errors import CapabilityError, InputError
from fathometer.linalg import LinearOperator, eigenpairs, solve
from fathometer.linalg.counted import DENSE_LIMIT
from fathometer.model import LossSurface
from fathometer.model.exact_diagonal import gauss_newton_diagonal
from fathometer.results import Estimate
from fathometer.sharpness.curvature import gauss_newton_weights
from fathometer.work import numpy_generator


def scaled(A: LinearOperator, scale: Tensor, name: str) -> LinearOperator:
    """``diag(scale) A diag(scale)``."""
    column = scale[:, None]
    return LinearOperator(
        shape=A.shape,
        product=lambda V: column * A.product(column * V),
        dtype=A.dtype,
        device=A.device,
        name=name,
    )


def quotient_norm(surface: LossSurface, tolerance: float = 1e-3, seed: int = 0) -> Estimate:
    """Spectral norm of the Hessian in units of each tensor's Euclidean norm, ``|W_l| H_lm |W_m|``.

    Invariant to one factor a tensor (Rangamani et al. 2019), not to one a unit. Tensors that are zero
    are left out.

    Args:
        surface: Loss surface, at its point.
        tolerance: Relative residual of the eigenvalue.
        seed: Of the random start.
    """
    exact = surface.double()
    parts = {name: torch.full_like(t, float(t.norm())) for name, t in exact.space.split(exact.theta).items()}
    H = scaled(exact.hessian(), exact.space.flatten(parts), "Hessian in units of the layers")
    pairs = eigenpairs(H, 1, "magnitude", tolerance=tolerance, seed=seed)
    value, residual = abs(float(pairs.values[0])), float(pairs.residuals[0])
    return Estimate(value=value, kind=pairs.kind, error=residual, method="block Lanczos", cost=pairs.products)


def metric_norm(
    surface: LossSurface, damping: float = 1e-3, *, tolerance: float = 1e-4, seed: int = 0
) -> Estimate:
    """Largest curvature per unit of Fisher length: top eigenvalue of ``(H, F + damping diag(1/theta^2))``.

    Both matrices of the metric change with a rescaling of the weights as the Hessian does, so the value does
    not change at all. Where the network fits its data H is close to F and the value close to 1.

    Args:
        surface: Loss surface, at its point, with a loss that is a likelihood.
        damping: Weight of the relative metric, positive, in units of the loss: the Fisher matrix is singular.
        tolerance: Relative residual, for large networks.
        seed: Of the random start.

    Raises:
        InputError: If damping is not positive, or the loss has no Fisher matrix.
    """
    if not (math.isfinite(damping) and damping > 0):
        raise InputError(f"damping is {damping!r}; a positive number is needed, in units of the loss.")
    exact = surface.double()
    scale = exact.theta.abs()
    H, F = (scaled(A, scale, "relative") for A in (exact.hessian(), exact.fisher()))
    if exact.size <= DENSE_LIMIT:
        metric = F.to_dense() + damping * torch.eye(exact.size, dtype=torch.float64)
        root = torch.linalg.inv(torch.linalg.cholesky(metric))
        value = float(torch.linalg.eigvalsh(root @ H.to_dense() @ root.T)[-1])
        return Estimate(value=value, kind="exact", error=0.0, method="dense eigenvalues", cost=2 * exact.size)
    cost = 0
    Scipy: Any = ScipyOperator  # its stubs know only the abstract class

    def as_scipy(A: LinearOperator, shift: float) -> ScipyOperator:
        def product(X: np.ndarray) -> np.ndarray:
            nonlocal cost
            V = torch.from_numpy(np.ascontiguousarray(X)).reshape(exact.size, -1)
            cost += V.shape[1]
            return (A.product(V) + shift * V).numpy().reshape(X.shape)

        return Scipy((exact.size, exact.size), matvec=product, matmat=product, dtype=np.float64)

    start = numpy_generator(seed, "metric_norm").standard_normal((exact.size, 1))
    top = eigenpairs(H, 1, "largest", tolerance=0.05, seed=seed, check=False).vectors.numpy()
    each = 1.0 / (scale.square() * gauss_newton_weights(exact, seed) + damping)
    precondition = Scipy(H.shape, matvec=lambda x: (each * torch.from_numpy(x.ravel())).numpy())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # how far it came is in the error
        found, vectors = lobpcg(
            as_scipy(H, 0.0),
            np.hstack([top, start]),
            B=as_scipy(F, damping),
            M=precondition,
            tol=tolerance,
            maxiter=60,
        )[:2]
    v = torch.from_numpy(np.ascontiguousarray(vectors[:, :1]))
    length = F.product(v) + damping * v
    residual = float(
        (H.product(v) - found[0] * length).norm() / math.sqrt(damping * float((v * length).sum()))
    )
    return Estimate(value=float(found[0]), kind="estimate", error=residual, method="LOBPCG", cost=cost)


def information_geometric(
    surface: LossSurface, radius: float = 0.1, *, tolerance: float = 1e-4, max_products: int = 600
) -> Estimate:
    """Rise of the loss in a ball of the Fisher metric, to first order: ``radius sqrt(g' F^+ g)``.

    A ball of predictions, not of weights: no smooth change of coordinates changes it (Jang, Lee, Park & Noh
    2022). Zero at an exact minimum.

    Args:
        surface: Loss surface, at its point, with a loss that is a likelihood.
        radius: Of the ball, positive, in square roots of the loss.
        tolerance: Of the residual of the linear system.
        max_products: Products to spend at the most.

    Returns:
        An estimate from below whose error is the part that the residual may still add, to first order.

    Raises:
        InputError: If radius is not positive, or the loss has no Fisher matrix.
    """
    if not (math.isfinite(radius) and radius > 0):
        raise InputError(f"radius is {radius!r}; a positive number is needed.")
    exact = surface.double()
    scale = exact.theta.abs()
    F, g = scaled(exact.fisher(), scale, "relative Fisher matrix"), scale * exact.gradient()
    if float(g.norm()) == 0.0:
        return Estimate(value=0.0, kind="exact", error=0.0, method="the gradient is zero", cost=1)
    found = solve(F, g, tolerance=tolerance, max_products=min(max_products, 8 * exact.size))
    x = found.value
    residual = g - F.product(x[:, None])[:, 0]
    # g'F^+g = 2 g'x - x'Fx + r'F^+r with r what is left of g
    squared = max(2.0 * float(g @ x) - float(x @ (g - residual)), 0.0)
    value = radius * math.sqrt(squared)
    error = radius * abs(float(residual @ x)) / max(math.sqrt(squared), 1e-300) if squared else float("inf")
    return Estimate(
        value=value, kind="estimate", error=error, method="minimal residuals", cost=found.products + 1
    )


def normalized_sharpness(surface: LossSurface, seed: int = 0) -> Estimate:
    """Curvature under the best noise that is a product of one factor a row and one a column of each weight.

    ``sum over weights of sqrt(min over r, c > 0 of (sum h_ij r_i c_j) (sum W_ij^2 / (r_i c_j)))`` with h the
    diagonal of the Gauss-Newton matrix: the rise of the loss under the noise, and its cost in the PAC-Bayes
    bound (after Tsuzuku, Sato & Sugiyama 2020). Factors of rows and columns cancel, so that no rescaling
    of units changes it. Convex in the logarithms. Kernels of a convolution share their factor.

    Args:
        surface: Loss surface, at its point.
        seed: Of the diagonal's random vectors, where it is not exact.

    Raises:
        InputError: If no weight of the surface has two axes.
    """
    exact = surface.double()
    weights = exact.space.split(exact.theta)
    if all(weight.ndim < 2 for weight in weights.values()):
        raise InputError("no weight of the surface has two axes; normalized sharpness needs a matrix.")

    def total(h: Tensor) -> float:
        diagonal = exact.space.split(h)
        return math.fsum(
            _best_product(diagonal[name], w.square()) for name, w in weights.items() if w.ndim > 1
        )

    try:
        return Estimate(
            value=total(gauss_newton_diagonal(exact)),
            kind="exact",
            error=0.0,
            method="convex minimum",
            cost=1,
        )
    except CapabilityError:  # no structured pass: the diagonal is sampled, twice
        try:
            found = [total(gauss_newton_weights(exact, s)) for s in (seed, seed + 1)]
        except InputError as cause:
            raise InputError(f"the loss has no Gauss-Newton matrix ({cause})") from cause
    return Estimate(
        value=sum(found) / 2, kind="estimate", error=abs(found[1] - found[0]), method="convex minimum", cost=2
    )


def _best_product(h: Tensor, squares: Tensor) -> float:
    """``sqrt(min over r, c of (sum h r c) (sum squares / (r c)))`` for tensors (rows, columns, ...)."""
    A, B = (t.flatten(2).sum(2).numpy() if t.ndim > 2 else t.numpy() for t in (h, squares))
    rows, columns = A.shape
    if not (A.sum() > 0 and B.sum() > 0):
        return 0.0

    def objective(z: np.ndarray) -> tuple[float, np.ndarray]:
        s = z[:rows, None] + z[None, rows:]
        up, down = A * np.exp(s), B * np.exp(-s)
        p, q = up / up.sum(), down / down.sum()
        slope = p - q
        return math.log(up.sum()) + math.log(down.sum()), np.concatenate([slope.sum(1), slope.sum(0)])

    start = (
        np.concatenate(
            [0.5 * np.log((B.sum(axis) + 1e-300) / (A.sum(axis) + 1e-300)) for axis in (1, 0)]
        ).clip(-30, 30)
        * 0.5
    )
    bounds = [(-60.0, 60.0)] * (rows + columns)
    options = {"maxiter": 3000, "maxfun": 4000, "ftol": 1e-15, "gtol": 1e-10}
    best = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return math.exp(0.5 * float(best.fun))
