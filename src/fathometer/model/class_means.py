"""Class means of back-propagated errors: what the Gauss-Newton matrix of a classifier is made of."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fathometer.errors import CapabilityError
from fathometer.model.factors import gauss_newton_factors
from fathometer.model.losses import rows_of

if TYPE_CHECKING:
    from fathometer.model.surface import LossSurface


def class_means(surface: "LossSurface") -> tuple[Tensor, Tensor, float]:
    """Means of ``J_i' (e_k - p_i)`` over examples of true class c, weighted by ``p_ik / n``.

    Returns:
        Means (C, C, P) by (c, k), masses (C, C), and the trace of the Gauss-Newton matrix; float64.

    Raises:
        CapabilityError: If outputs are not (N, C) or targets are not class numbers of all examples.
    """
    double = surface.double()
    problem = double._problem
    C = 0
    sums: Tensor = torch.zeros(0)
    masses: Tensor = torch.zeros(0)
    with problem.replica.running():
        for i in range(len(problem.batches)):
            inputs, targets = problem.batches[i]
            leaves = problem.leaves(double.theta)
            outputs = problem.outputs(leaves, (inputs, targets))
            if outputs.ndim != 2 or targets.is_floating_point() or bool((targets < 0).any()):
                raise CapabilityError(
                    f"outputs have shape {tuple(outputs.shape)} and targets {targets.dtype}; the class split "
                    "needs outputs (N, C) and the class number of every example."
                )
            if not C:
                C = outputs.shape[1]
                sums = torch.zeros(C, C, double.size, dtype=torch.float64)
                masses = torch.zeros(C, C, dtype=torch.float64)
            for c in targets.unique().tolist():
                rows = targets == c
                own = rows_of((inputs, targets), rows)
                logits = problem.outputs(leaves, own)
                p = logits.detach().softmax(1)
                weights = p / problem.count
                for k in range(C):
                    aim = torch.zeros_like(p)
                    aim[:, k] = 1.0
                    back = (aim - p) * weights[:, k : k + 1]
                    found = torch.autograd.grad(
                        logits, list(leaves.values()), back, retain_graph=True, allow_unused=True
                    )
                    sums[c, k] += problem.space.flatten(found)
                masses[c] += weights.sum(0)
    means = sums / masses.clamp(min=1e-300)[:, :, None]
    return means, masses, sum(gauss_newton_factors(surface).traces().values())
