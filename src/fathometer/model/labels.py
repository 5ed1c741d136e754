"""The targets of a surface's data, for measures that count correct answers."""

import torch
from torch import Tensor

from fathometer.errors import InputError
from fathometer.model.surface import LossSurface


def labels(surface: LossSurface) -> Tensor:
    """Class of each example (N,) of a classification problem.

    Raises:
        InputError: If the targets are no classes.
    """
    problem = surface._problem
    if problem.objective.opaque:
        raise InputError(f"the loss {surface.loss} takes (model, batch); its targets are its own affair.")
    targets = torch.cat([problem.batches[i][1] for i in range(len(problem.batches))])
    if targets.ndim != 1 or targets.is_floating_point():
        raise InputError(
            f"targets are {targets.dtype} of shape {tuple(targets.shape)}; an accuracy needs one whole "
            "number an example."
        )
    return targets
