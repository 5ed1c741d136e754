"""Solving with a symmetric operator, definite or not, singular or not.

MINRES (Paige & Saunders 1975) makes |A x - b| as small as the Krylov space of b allows;
every right-hand side runs its own recurrence, all of them in lock-step as one block of
products. If A is singular and b is in its range, the answer is the shortest one; if b is
not, it minimizes the residual, and the search ends when A r vanishes instead of r (Choi,
Paige & Saunders 2011).

Cost: one product a step; memory: seven vectors for each right-hand side.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fathometer.errors import InputError
from fathometer.linalg.counted import Counted, check_symmetric
from fathometer.linalg.operator import as_operator
from fathometer.results import Result
from fathometer.types import Kind


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Solution(Result):
    """The solution of ``A x - shift x = b`` and what is left of b.

    Attributes:
        value: x, of the shape of b.
        error: ``|b - A x + shift x|`` of each right-hand side, from a fresh product.
        converged: Whether that is at most ``tolerance |b|``. False also where b is not in the
            range of a singular operator: then x is a least-squares solution as far as it went.
        products: Products with A, the one for the residuals included.
        kind: "estimate": the residual says how good.
    """

    value: Any
    error: Any
    converged: Any
    products: int
    kind: Kind = "estimate"


def solve(
    A: Any, b: Any, *, shift: float = 0.0, tolerance: float = 1e-8, max_products: int | None = None
) -> Solution:
    """Solve ``(A - shift) x = b`` for a symmetric operator.

    Args:
        A: Symmetric `LinearOperator` (P, P) or a plain symmetric matrix.
        b: Right-hand sides (P,) or (P, k), numpy or torch.
        shift: Subtracted from every eigenvalue of A.
        tolerance: Of the residual, relative to ``|b|``.
        max_products: Where to stop; default 4 P for each right-hand side, at most 10,000 steps.

    Raises:
        InputError: If A is not symmetric or gives a product that is not finite, b does not fit
            or is not finite, or an argument is out of range.

    >>> solve([[2.0, 0.0], [0.0, -4.0]], torch.tensor([2.0, 4.0])).value.round().tolist()
    [1.0, -1.0]
    """
    A = as_operator(A)
    check_symmetric(A, "solve")
    sides = torch.as_tensor(b)
    if sides.ndim not in (1, 2) or sides.shape[0] != A.shape[0] or sides.numel() == 0:
        raise InputError(
            f"b has shape {tuple(sides.shape)}; {A.name} needs ({A.shape[0]},) or ({A.shape[0]}, k)."
        )
    if not torch.isfinite(sides).all():
        raise InputError("b holds NaN or infinity; a right-hand side is finite.")
    if not tolerance > 0 or not np.isfinite(shift):
        raise InputError(f"tolerance is {tolerance} and shift {shift}; positive and finite are needed.")
    B = sides.detach().to(A.device, A.dtype).reshape(A.shape[0], -1)
    steps = min(4 * A.shape[0], 10_000) if max_products is None else max_products // B.shape[1] - 1
    if steps < 1:
        raise InputError(f"max_products is {max_products}; {2 * B.shape[1]} are needed for one step.")
    product = Counted(A)
    x = _minres(product, B, shift, tolerance, steps)
    error = torch.linalg.vector_norm(B - product(x) + shift * x, dim=0)
    converged = error <= tolerance * torch.linalg.vector_norm(B, dim=0)
    answer, parts = x.reshape(sides.shape), [error, converged]
    if sides.ndim == 1:
        parts = [part[0] for part in parts]
    if isinstance(b, np.ndarray):
        answer, parts = answer.cpu().numpy(), [part.cpu().numpy() for part in parts]
    return Solution(value=answer, error=parts[0], converged=parts[1], products=product.spent)


def _minres(product: Counted, B: Tensor, shift: float, tolerance: float, steps: int) -> Tensor:
    """One recurrence a column; a column that is done keeps its x while the others go on."""
    eps = torch.finfo(B.dtype).eps
    flat = max(10 * eps, min(tolerance, 1e-8))  # a residual is least up to the square of this
    x = torch.zeros_like(B)
    length = torch.linalg.vector_norm(B, dim=0)
    going = length > 0
    v_old, v = torch.zeros_like(B), B / torch.where(going, length, 1.0)
    w_old, w = torch.zeros_like(B), torch.zeros_like(B)
    beta, eta = torch.zeros_like(length), length.clone()
    c_old, c = torch.ones_like(length), torch.ones_like(length)
    s_old, s = torch.zeros_like(length), torch.zeros_like(length)
    norm = torch.zeros_like(length)
    for _ in range(steps):
        image = product(v) - shift * v
        alpha = (v * image).sum(0)
        image = image - alpha * v - beta * v_old
        beta_next = torch.linalg.vector_norm(image, dim=0)
        norm = torch.maximum(norm, torch.sqrt(alpha**2 + beta**2 + beta_next**2))
        # the next column of the tridiagonal matrix, after the two rotations before
        pivot = c * alpha - c_old * s * beta
        second, third = s * alpha + c_old * c * beta, s_old * beta
        # |A r| of the x so far; nothing is left to gain where it vanishes
        slope = torch.hypot(pivot, c * beta_next)
        going = going & (slope > flat * norm) & (eta.abs() > 0.5 * tolerance * length)
        if not going.any():
            break
        size = torch.where(going, torch.hypot(pivot, beta_next), 1.0)
        w_old, w = w, (v - third * w_old - second * w) / size
        c_old, c, s_old, s = c, pivot / size, s, beta_next / size
        step = c * eta * w
        # a step whose rounding exceeds what it gains comes from a pivot that is noise
        rounding = 10 * eps * norm * torch.linalg.vector_norm(step, dim=0)
        gain = eta.abs() * c**2 / (1 + s.abs())
        going = going & (rounding <= torch.maximum(gain, 0.1 * tolerance * length))
        x = torch.where(going, x + step, x)
        eta = torch.where(going, -s * eta, eta)
        ended = beta_next <= 10 * eps * norm
        v_old, v = v, torch.where(ended, 0.0, image / torch.where(ended, 1.0, beta_next))
        beta = torch.where(ended, 0.0, beta_next)
        going = going & ~ended
    return x
