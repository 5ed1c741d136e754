"""Lanczos: a symmetric operator seen from one vector, as a small tridiagonal matrix.

From a start vector q the recurrence builds an orthonormal basis Q of the Krylov
space span(q, Aq, ..., A^(m-1) q) in which A is tridiagonal. Its eigenvalues are the
nodes, and the squared first components of its eigenvectors the weights, of the
Gauss rule for the measure of q (Golub & Meurant 2010, ch. 3 and 4).

In floating point the basis loses its orthogonality as soon as an eigenvalue
converges, and copies ("ghosts") appear. Projecting every new vector twice against
the whole basis prevents that, at 4 m P operations a step and m vectors of memory.
Gauss rules do not need it: a ghost splits its weight with the original (Greenbaum
1989). So densities run many probes in lock-step without a basis, three vectors each.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fathometer.calculus import gauss_rule, jacobi_matrix
from fathometer.errors import BudgetError, InputError
from fathometer.linalg.counted import Counted, check_symmetric, normal
from fathometer.linalg.operator import LinearOperator
from fathometer.work import allowance, generator, in_words


@dataclass(frozen=True, eq=False, kw_only=True)
class Tridiagonal:
    """What Lanczos saw: one tridiagonal matrix a probe (no leading axis for a single start vector).

    Attributes:
        diagonal: (probes, m), float64.
        off_diagonal: (probes, m - 1), float64; zero where an invariant space ended and
            a random vector started the next one.
        last: (probes,): norm of the vector that would come next.
        basis: (probes, P, m) orthonormal columns, or None without re-orthogonalization.
        products: Products with the operator.
    """

    diagonal: Tensor
    off_diagonal: Tensor
    last: Tensor
    basis: Tensor | None
    products: int

    def to_dense(self) -> Tensor:
        """The tridiagonal matrices (probes, m, m)."""
        return jacobi_matrix(self.diagonal, self.off_diagonal)

    def gauss(self) -> tuple[Tensor, Tensor]:
        """Nodes (probes, m), ascending, and weights (probes, m) of the Gauss rule; weights sum to one."""
        return gauss_rule(self.diagonal, self.off_diagonal)


def lanczos(
    A: LinearOperator, steps: int, start: Tensor, reorthogonalize: bool = True, *, seed: int = 0
) -> Tridiagonal:
    """Run ``steps`` steps from ``start``; several starts run in lock-step, each on its own.

    If the Krylov space of a start vector ends early, the recurrence goes on from a
    random vector (with re-orthogonalization: orthogonal to the space already found).

    Args:
        A: Symmetric operator (P, P).
        steps: Number m of steps, at most P.
        start: (P,) or (P, probes); any length but zero.
        reorthogonalize: Keep the basis and project against it twice. Memory
            8 m P bytes a probe (float64) instead of 24 P.
        seed: Of the random vectors after an early end.

    Raises:
        InputError: If A is not symmetric or gives a product that is not finite, if ``steps`` is
            not in 1..P, or if a start vector is zero, not finite or of another length.
        BudgetError: If the basis does not fit the memory budget.
    """
    check_symmetric(A, "lanczos")
    size = A.shape[0]
    if not 1 <= steps <= size:
        raise InputError(f"steps is {steps}; {A.name} of size {size} takes 1 to {size} steps.")
    q = _unit_starts(A, start)
    probes = q.shape[1]
    _check_memory(A, steps if reorthogonalize else 3, probes)

    product, random = Counted(A), generator(seed, "lanczos", "restart")
    basis = torch.zeros(probes, size, steps, dtype=A.dtype, device=A.device) if reorthogonalize else None
    alpha = torch.zeros(probes, steps, dtype=torch.float64)
    beta = torch.zeros(probes, steps, dtype=torch.float64)
    before = torch.zeros_like(q)
    for j in range(steps):
        if basis is not None:
            basis[:, :, j] = q.T
        w = product(q)
        if j:
            w = w - before * beta[:, j - 1].to(w)
        alpha[:, j] = (q * w).sum(0)
        w = w - q * alpha[:, j].to(w)
        if basis is not None:
            w = _project(basis[:, :, : j + 1], w)
        length = torch.linalg.vector_norm(w, dim=0).cpu().double()
        ended = length <= _negligible(A, alpha[:, : j + 1], beta[:, : j + 1])
        beta[:, j] = torch.where(ended, 0.0, length)
        if j + 1 < steps and ended.any():
            w[:, ended] = normal(A, int(ended.sum()), random)
            if basis is not None:
                w = torch.where(ended.to(A.device), _project(basis[:, :, : j + 1], w), w)
            length = torch.linalg.vector_norm(w, dim=0).cpu().double()
        before, q = q, w / length.to(w)
    single = start.ndim == 1
    return Tridiagonal(
        diagonal=alpha[0] if single else alpha,
        off_diagonal=beta[0, :-1] if single else beta[:, :-1],
        last=beta[0, -1] if single else beta[:, -1],
        basis=None if basis is None else basis[0] if single else basis,
        products=product.spent,
    )


def _project(basis: Tensor, w: Tensor) -> Tensor:
    """Each column of w (P, probes) without its part in its own basis (probes, P, j), twice."""
    columns = w.T[:, :, None]
    for _ in range(2):
        columns = columns - basis @ (basis.mT @ columns)
    return columns[:, :, 0].T


def _negligible(A: LinearOperator, alpha: Tensor, beta: Tensor) -> Tensor:
    """Length below which a new direction is rounding noise: some ulps of the largest entry so far."""
    scale = torch.maximum(alpha.abs().amax(1), beta.amax(1))
    return 10 * torch.finfo(A.dtype).eps * scale


def _unit_starts(A: LinearOperator, start: Tensor) -> Tensor:
    if start.ndim not in (1, 2) or start.shape[0] != A.shape[0]:
        raise InputError(
            f"start has shape {tuple(start.shape)}; {A.name} needs ({A.shape[0]},) or ({A.shape[0]}, probes)."
        )
    q = start.reshape(A.shape[0], -1).to(A.device, A.dtype)
    length = torch.linalg.vector_norm(q, dim=0)
    if not (torch.isfinite(length) & (length > 0)).all():
        column = int((~(torch.isfinite(length) & (length > 0))).nonzero()[0])
        raise InputError(
            f"start column {column} has length {length[column].item()}; it must be finite and not 0."
        )
    return q / length


def _check_memory(A: LinearOperator, vectors: int, probes: int) -> None:
    one, free = vectors * A.shape[0] * A.dtype.itemsize, allowance()
    if one * probes > free:
        raise BudgetError(
            f"lanczos on {A.name} keeps {vectors} vectors of {A.shape[0]} numbers for each of {probes} "
            f"probes, {in_words(one * probes)}, and {in_words(free)} may be used; {free // one} probes fit."
        )
