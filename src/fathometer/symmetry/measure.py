"""How equivariant a weight matrix is: the distance to its tied neighbor.

The nearest matrix that commutes with the group is the mean over each orbit of index
pairs (the Reynolds projection), found in ``O(N M)`` without any sum over the group. The
relative distance to it says how far a layer is from a symmetry: 0 when it has it; for
K weights in N M entries, about sqrt(1 - K / (N M)) when it knows nothing of it.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fathometer.errors import InputError
from fathometer.symmetry.action import Action
from fathometer.symmetry.tying import Tying, as_tying


def project(weight: Any, act: Action | Tying) -> Any:
    """The nearest equivariant matrix: the mean over every orbit.

    Args:
        weight: (M, N), or (out_channels * M, in_channels * N) with features flattened as
            (channel, index); numpy or torch.
        act: An Action or a Tying.

    Returns:
        The same shape and kind.

    Raises:
        InputError: If the shape does not fit or an entry is not finite.

    >>> project(np.array([[1.0, 2.0], [4.0, 3.0]]), Action.cyclic(2)).tolist()
    [[2.0, 3.0], [3.0, 2.0]]
    """
    tying = as_tying(act, "act")
    W = _checked(weight, tying)
    means = orbit_means(W.double(), tying)
    nearest = spread(means, tying).to(W.dtype)
    return nearest.numpy() if isinstance(weight, np.ndarray) else nearest


def defect(weight: Any, act: Action | Tying) -> float:
    """Relative distance ``|W - P W| / |W|`` to the equivariant matrices, between 0 and 1.

    A float; exact up to rounding. The zero matrix has every symmetry: its defect is 0.

    Args:
        weight: As in `project`.
        act: An Action or a Tying.
    """
    tying = as_tying(act, "act")
    W = _checked(weight, tying).double()
    # subtracting first keeps small defects exact
    rest = W - spread(orbit_means(W, tying), tying)
    size = float(torch.linalg.vector_norm(W))
    return float(torch.linalg.vector_norm(rest)) / size if size > 0 else 0.0


def orbit_means(weight: Tensor, tying: Tying) -> Tensor:
    """Mean of the entries of each orbit (out_channels, in_channels, K), each with its sign."""
    n, m = tying.sizes
    blocks = weight.detach().reshape(weight.shape[0] // m, m, weight.shape[1] // n, n).transpose(1, 2)
    return label_means(blocks.flatten(2), tying.labels.ravel(), tying.signs, tying.num_orbits)


def label_means(entries: Tensor, labels: np.ndarray, signs: np.ndarray | None, count: int) -> Tensor:
    """Mean of the entries (..., positions) with label 0, 1, ..., in float64 and then as given."""
    index = torch.from_numpy(np.where(labels < 0, count, labels).astype("int64")).to(entries.device)
    values = entries.double()
    if signs is not None:
        values = values * torch.from_numpy(signs.ravel()).to(values)
    sizes = torch.bincount(index, minlength=count + 1).clamp(min=1)
    rows = values.reshape(-1, values.shape[-1])
    sums = torch.stack([torch.bincount(index, row, minlength=count + 1) for row in rows])
    return (sums / sizes)[:, :count].reshape(*entries.shape[:-1], count).to(entries.dtype)


def spread(weights: Tensor, tying: Tying) -> Tensor:
    """The matrix (out_channels * M, in_channels * N) with these orbit weights."""
    from fathometer.symmetry.kernels import DenseKernel

    return DenseKernel(tying).to(weights.device).matrix(weights)


def _checked(weight: Any, tying: Tying) -> Tensor:
    W = torch.as_tensor(weight).detach()
    n, m = tying.sizes
    if W.ndim != 2 or W.numel() == 0 or W.shape[0] % m or W.shape[1] % n:
        raise InputError(
            f"weight has shape {tuple(W.shape)}; rows must be a multiple of the {m} outputs and columns "
            f"of the {n} inputs of the action."
        )
    if not W.is_floating_point():
        raise InputError(f"weight is {W.dtype}; real floating point entries are needed.")
    if not torch.isfinite(W).all():
        row, column = (~torch.isfinite(W)).nonzero()[0].tolist()
        raise InputError(f"weight[{row}, {column}] is not finite.")
    return W
