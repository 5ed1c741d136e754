"""Gauss quadrature from a three-term recurrence (Golub & Welsch 1969).

A measure is known through the recurrence of its orthogonal polynomials, that is through a
symmetric tridiagonal (Jacobi) matrix. The eigenvalues of the leading m x m block are the
nodes of the Gauss rule with m points, the squared first entries of its eigenvectors
the weights; the rule is exact for polynomials of degree 2 m - 1.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def jacobi_matrix(
    diagonal: Float[Tensor, "*batch m"], off_diagonal: Float[Tensor, "*batch m-1"]
) -> Float[Tensor, "*batch m m"]:
    """Symmetric tridiagonal matrices (..., m, m) of ``diagonal`` (..., m) and ``off_diagonal`` beside it."""
    T = torch.diag_embed(diagonal)
    return T + torch.diag_embed(off_diagonal, offset=1) + torch.diag_embed(off_diagonal, offset=-1)


def gauss_rule(
    diagonal: Float[Tensor, "*batch m"], off_diagonal: Float[Tensor, "*batch m-1"]
) -> tuple[Float[Tensor, "*batch m"], Float[Tensor, "*batch m"]]:
    """Nodes, ascending, and weights of the Gauss rule of a measure of mass one.

    Args:
        diagonal: Diagonal of the Jacobi matrix; several at once along leading dimensions.
        off_diagonal: Its off-diagonal; signs do not matter.

    Returns:
        Nodes and weights; the weights sum to one.

    >>> half = torch.tensor([1 / 3**0.5, 2 / 15**0.5], dtype=torch.float64)  # Legendre on [-1, 1]
    >>> nodes, weights = gauss_rule(torch.zeros(3, dtype=torch.float64), half)
    >>> (nodes**2 * 5 / 3).round().tolist(), (weights * 18).round().tolist()
    ([1.0, 0.0, 1.0], [5.0, 8.0, 5.0])
    """
    nodes, vectors = torch.linalg.eigh(jacobi_matrix(diagonal, off_diagonal))
    weights = vectors[..., 0, :].square()
    return nodes, weights / weights.sum(-1, keepdim=True)
