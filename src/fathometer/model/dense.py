"""Energy, gradient and whole Hessian of a small surface in one call.

Operators are made for products; a search that diagonalizes the Hessian of a small network at
every step wants the matrix. One gradient is recorded with its graph and pulled back along all
P unit vectors at once (reverse over reverse, batched), in float64.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fathometer.errors import BudgetError
from fathometer.model.problem import differentiable_twice
from fathometer.model.shallow import shallow_networks
from fathometer.work import allowance, in_words

if TYPE_CHECKING:
    from fathometer.model.surface import LossSurface


class DenseDerivatives:
    """Value and derivatives of a surface at any point, as numbers, vectors and matrices in float64.

    Args:
        surface: Any surface; it is measured in float64.

    Raises:
        BudgetError: If a few matrices (P, P) do not fit the memory budget.
    """

    def __init__(self, surface: "LossSurface") -> None:
        P = surface.size
        most_stacked(P)
        self._problem = surface.double()._problem
        self._units = torch.eye(P, dtype=torch.float64, device=surface.space.device)

    def gradient(self, theta: Tensor) -> tuple[float, Tensor]:
        """Energy and gradient (P,) at ``theta`` (P,)."""
        with self._problem.replica.running():
            point = theta.detach().clone().requires_grad_()
            energy = self._energy(point)
            (gradient,) = torch.autograd.grad(energy, point)
        return energy.item(), gradient

    def __call__(self, theta: Tensor) -> tuple[float, Tensor, Tensor]:
        """Energy, gradient (P,) and symmetric Hessian (P, P) at ``theta`` (P,)."""
        with self._problem.replica.running(), differentiable_twice():
            point = theta.detach().clone().requires_grad_()
            energy = self._energy(point)
            (gradient,) = torch.autograd.grad(energy, point, create_graph=True)
            if gradient.requires_grad:
                (rows,) = torch.autograd.grad(gradient, point, self._units, is_grads_batched=True)
            else:
                rows = torch.zeros_like(self._units)
        return energy.item(), gradient.detach(), 0.5 * (rows + rows.T)

    def _energy(self, theta: Tensor) -> Tensor:
        problem = self._problem
        leaves = problem.space.split(theta)
        totals = [problem.evaluate(leaves, problem.batches[i])[0] for i in range(len(problem.batches))]
        return torch.stack(totals).sum() / problem.count


class StackedDerivatives:
    """`DenseDerivatives` of several surfaces of one size, each at points of its own.

    Networks with one hidden layer and a squared error are evaluated together in closed form.

    Args:
        surfaces: The surfaces; the same one may stand there many times.

    Raises:
        BudgetError: As `DenseDerivatives`.
    """

    def __init__(self, surfaces: Sequence["LossSurface"]) -> None:
        most_stacked(surfaces[0].size)
        self.closed = shallow_networks(surfaces)
        self._each: list[DenseDerivatives] = []
        if self.closed is None:
            made = {id(surface): DenseDerivatives(surface) for surface in surfaces}
            self._each = [made[id(surface)] for surface in surfaces]

    def gradient(self, rows: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Energies (b,) and gradients (b, P) of the surfaces ``rows`` (b,) at ``theta`` (b, P)."""
        if self.closed is not None:
            return self.closed.gradient(rows, theta)
        found = [self._each[int(i)].gradient(point) for i, point in zip(rows, theta, strict=True)]
        return torch.tensor([e for e, _ in found], dtype=torch.float64), torch.stack([g for _, g in found])

    def __call__(self, rows: Tensor, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `gradient`, and symmetric Hessians (b, P, P)."""
        if self.closed is not None:
            return self.closed(rows, theta)
        found = [self._each[int(i)](point) for i, point in zip(rows, theta, strict=True)]
        energies = torch.tensor([e for e, _, _ in found], dtype=torch.float64)
        return energies, torch.stack([g for _, g, _ in found]), torch.stack([H for _, _, H in found])


def most_stacked(size: int) -> int:
    """How many surfaces of ``size`` parameters may be searched at once under the memory budget.

    Raises:
        BudgetError: If not even the matrices of one fit.
    """
    needed, free = 32 * size**2, allowance()
    if needed > free:
        raise BudgetError(
            f"dense derivatives of {size} parameters take {in_words(needed)} and {in_words(free)} may be "
            f"used, enough for {int((free / 32) ** 0.5)} parameters."
        )
    return max(1, int(free // (3 * needed)))
