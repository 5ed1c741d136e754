"""Stochastic Lanczos quadrature: the spectrum of an operator as weighted nodes.

For a random unit vector q the measure sum_i (q . u_i)^2 delta(lambda_i) has the
spectrum of A as its mean, and m Lanczos steps give its m-point Gauss rule (Golub &
Meurant 2010; Ubaru, Chen & Saad 2017). One probe resolves the shape of a large
spectrum already: the error of the mean falls like one over the square root of
(probes x P); what limits the resolution is the number of steps.

Eigenvalues known beforehand can be deflated: the probes then see the rest of the
spectrum only, and the known ones enter with their exact weight 1/P.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fathometer.errors import InputError
from fathometer.linalg.counted import check_symmetric, normal, orthogonal_to
from fathometer.linalg.eigenpairs import Eigenpairs
from fathometer.linalg.lanczos import lanczos
from fathometer.linalg.operator import LinearOperator
from fathometer.work import chunk_size, generator


@dataclass(frozen=True, eq=False, kw_only=True)
class Quadrature:
    """Gauss rules of random probes, and the eigenvalues that were known exactly.

    Attributes:
        nodes: (probes, steps), ascending in each row, float64.
        weights: (probes, steps); each row sums to one and stands for the ``size - r``
            eigenvalues that were not deflated.
        exact: (r,) deflated eigenvalues, descending.
        size: P, the number of eigenvalues in all.
        products: Products with the operator.
    """

    nodes: Tensor
    weights: Tensor
    exact: Tensor
    size: int
    products: int

    def merged(self) -> tuple[Tensor, Tensor]:
        """All nodes (m,) ascending, and their shares (m,) of the whole spectrum, which sum to one."""
        probes, r = len(self.nodes), len(self.exact)
        rest = self.weights.flatten() * ((self.size - r) / (self.size * probes))
        nodes = torch.cat([self.nodes.flatten(), self.exact.to(self.nodes)])
        weights = torch.cat([rest, torch.full((r,), 1.0 / self.size, dtype=rest.dtype)])
        nodes, order = nodes.sort(stable=True)
        return nodes, weights[order]


def slq(
    A: LinearOperator, probes: int = 10, steps: int = 100, seed: int = 0, *, deflate: Eigenpairs | None = None
) -> Quadrature:
    """Estimate the spectral measure of a symmetric operator.

    Memory is three vectors a probe; probes run in lock-step as blocks of columns, as
    many at a time as the memory budget holds. The answer does not depend on that number
    beyond rounding.

    Args:
        A: Symmetric operator (P, P).
        probes: Random unit vectors, each with ``steps`` products.
        steps: Nodes for each probe, at most P less the number of deflated eigenvalues.
        seed: Of the probes.
        deflate: Eigenpairs to take out; only the converged ones are.

    Raises:
        InputError: If A is not symmetric, or ``probes`` or ``steps`` is out of range.
        BudgetError: If not even one probe fits the memory budget.
    """
    check_symmetric(A, "slq")
    size = A.shape[0]
    known, rest = _deflated(A, deflate)
    free = size - len(known)
    if probes < 1:
        raise InputError(f"probes is {probes}; at least 1 is needed.")
    if not 1 <= steps <= free:
        raise InputError(
            f"steps is {steps}; {A.name} has {free} eigenvalues to find, so 1 to {free} steps have a meaning."
        )
    at_once = chunk_size(probes, 6 * size * A.dtype.itemsize, what=f"probes of {A.name}")
    nodes, weights, spent = [], [], 0
    for first in range(0, probes, at_once):
        batch = range(first, min(first + at_once, probes))
        starts = torch.cat([normal(A, 1, generator(seed, "slq", probe)) for probe in batch], dim=1)
        if deflate is not None:
            starts = orthogonal_to(_converged(deflate, A), starts)[0]
        seen = lanczos(rest, steps, starts, reorthogonalize=False, seed=seed)
        x, w = seen.gauss()
        nodes.append(x)
        weights.append(w)
        spent += seen.products
    return Quadrature(
        nodes=torch.cat(nodes), weights=torch.cat(weights), exact=known, size=size, products=spent
    )


def _converged(pairs: Eigenpairs, A: LinearOperator) -> Tensor:
    vectors = torch.as_tensor(pairs.vectors)[:, torch.as_tensor(pairs.converged)].to(A.device, A.dtype)
    return torch.linalg.qr(vectors)[0]


def _deflated(A: LinearOperator, pairs: Eigenpairs | None) -> tuple[Tensor, LinearOperator]:
    """The eigenvalues that are known, and the operator on what is orthogonal to their vectors."""
    if pairs is None:
        return torch.zeros(0, dtype=torch.float64), A
    if pairs.vectors.shape[0] != A.shape[0]:
        raise InputError(
            f"deflate has vectors of length {pairs.vectors.shape[0]}; "
            f"{A.name} of shape {A.shape} needs {A.shape[0]}."
        )
    V = _converged(pairs, A)
    values = torch.as_tensor(pairs.values)[torch.as_tensor(pairs.converged)].double().cpu()

    def product(X: Tensor) -> Tensor:
        inside = X - V @ (V.T @ X)
        return orthogonal_to(V, A @ inside)[0]

    rest = LinearOperator(
        shape=A.shape,
        product=product,
        dtype=A.dtype,
        device=A.device,
        name=f"{A.name} without {len(values)} eigenvalues",
    )
    return values.sort(descending=True).values, rest
