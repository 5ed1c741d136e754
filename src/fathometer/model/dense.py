"""Energy, gradient and whole Hessian of a small surface in one call.

Operators are made for products; a search that diagonalizes the Hessian of a small network at
every step wants the matrix. One gradient is recorded with its graph and pulled back along all
P unit vectors at once (reverse over reverse, batched), in float64.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fathometer.errors import BudgetError
from fathometer.model.problem import differentiable_twice
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
        needed, free = 32 * P * P, allowance()
        if needed > free:
            raise BudgetError(
                f"dense derivatives of {P} parameters take {in_words(needed)} and {in_words(free)} may be "
                f"used, enough for {int((free / 32) ** 0.5)} parameters."
            )
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
