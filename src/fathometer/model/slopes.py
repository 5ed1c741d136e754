"""What a loss asks of the outputs: its slope at every one of them."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fathometer.errors import InputError

if TYPE_CHECKING:
    from fathometer.model.surface import LossSurface


def output_slopes(surface: "LossSurface", theta: Any = None) -> Tensor:
    """Derivative of each example's loss with respect to the outputs, (N, ...) like the outputs.

    For half a squared error these are the residuals, for "mse" twice the residuals, for
    cross-entropy softmax probabilities minus targets.

    Args:
        surface: The surface; its loss takes (outputs, targets).
        theta: The point (P,), by default the surface's own.

    Raises:
        InputError: If the loss takes (model, batch), or the outputs are not one tensor.
    """
    problem = surface._problem
    if problem.objective.opaque:
        raise InputError(
            f"the loss {surface.loss} takes (model, batch); it has no outputs to take slopes at."
        )
    point, slopes = surface._point(theta), []
    with problem.replica.running():
        leaves = problem.leaves(point, differentiable=False)
        for i in range(len(problem.batches)):
            batch = problem.batches[i]
            with torch.no_grad():
                outputs = problem.outputs(leaves, batch)
            if not isinstance(outputs, Tensor):
                raise InputError(f"the model returned a {type(outputs).__name__}; slopes need one tensor.")
            problem.objective.check(outputs, batch[1])
            seen = outputs.detach().requires_grad_()
            (slope,) = torch.autograd.grad(problem.objective.total(seen, batch[1]), seen)
            slopes.append(slope)
    return torch.cat(slopes)
