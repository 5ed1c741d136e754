"""Square roots of a loss's curvature in the outputs: what every Gauss-Newton row starts from.

With S_i the Hessian of the loss of example i in its C outputs, columns s_ik with
``S_i = sum_k s_ik s_ik'`` turn the Gauss-Newton matrix into a sum of outer products. A softmax is
blind to a shift of all outputs, so C - 1 columns are enough for it, and the Cholesky factor
of ``diag(p) - p p'`` has just those, without cancellation (Tanabe & Sagae 1992):

    s_k[k] = sqrt(p_k q_{k+1} / q_k),   s_k[j] = -p_j sqrt(p_k / (q_k q_{k+1}))  for j > k,

q_k being the sum of p_j over j >= k.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fathometer.errors import InputError
from fathometer.model.losses import CrossEntropy, Objective, SquaredError

ROUNDING = 1e-9


def root_count(objective: Objective, outputs: int) -> int:
    """Columns for each example that `output_roots` gives for so many ``outputs``."""
    return outputs - 1 if isinstance(objective, CrossEntropy) and outputs > 1 else outputs


def output_roots(objective: Objective, outputs: Tensor, targets: Any) -> Float[Tensor, "k n C"]:
    """Columns whose outer products, summed over k, are the Hessian of each example's loss in its outputs.

    Args:
        objective: The loss; its sum over the examples is meant.
        outputs: (n, C).
        targets: As the loss takes them.

    Raises:
        InputError: If the loss is not convex in the outputs.
    """
    n, C = outputs.shape
    if isinstance(objective, SquaredError):
        units = torch.eye(C, dtype=outputs.dtype, device=outputs.device)
        return math.sqrt(2.0 * objective.factor) * units[:, None, :].expand(C, n, C)
    if isinstance(objective, CrossEntropy) and C > 1:
        weight = objective.scale(outputs, targets)
        if weight is not None and bool((weight >= 0).all()):
            return _softmax_roots(outputs.softmax(1)) * weight.sqrt()
    return _roots_by_eigenvectors(objective, outputs, targets)


def _softmax_roots(p: Tensor) -> Tensor:
    """The Cholesky factor of ``diag(p) - p p'`` for each row of p (n, C): (C - 1, n, C)."""
    tail = p.flip(1).cumsum(1).flip(1).clamp(min=torch.finfo(p.dtype).tiny)
    share, after = (p[:, :-1] / tail[:, :-1]).sqrt(), tail[:, 1:].sqrt()
    columns = -(share / after).T[:, :, None] * p
    columns *= torch.ones(columns.shape[::2], dtype=p.dtype, device=p.device).triu(1)[:, None]
    columns.diagonal(dim1=0, dim2=2).copy_(share * after)
    return columns


def _roots_by_eigenvectors(objective: Objective, outputs: Tensor, targets: Any) -> Tensor:
    """For a loss without a closed form: by the eigenvectors of its Hessian in the outputs."""
    seen = outputs.detach().clone().requires_grad_()
    (slope,) = torch.autograd.grad(objective.total(seen, targets), seen, create_graph=True)
    columns = []
    for c in range(outputs.shape[1]):
        column = None
        if slope.requires_grad:
            (column,) = torch.autograd.grad(slope[:, c].sum(), seen, retain_graph=True, allow_unused=True)
        columns.append(torch.zeros_like(seen) if column is None else column)
    S = torch.stack(columns, 1)
    values, U = torch.linalg.eigh(0.5 * (S + S.mT))
    if (bent := values < -ROUNDING * values.abs().amax()).any():
        row = int(bent.any(1).nonzero()[0])
        raise InputError(
            f"the loss is not convex in the outputs of example {row} of a batch (curvature "
            f"{float(values[row].min()):.3g}); a Gauss-Newton matrix has no rows there."
        )
    return (U * values.clamp(min=0.0).sqrt()[:, None, :]).permute(2, 0, 1)
