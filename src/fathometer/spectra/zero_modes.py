"""Why a Gauss-Newton matrix is singular: every exact zero with its cause.

- A weight that no output depends on: unused, or before or behind a unit that is dead on all examples.
- A rectifier's scale: its incoming weights up, its outgoing ones down. One for each hidden unit;
  zero modes of the whole Hessian too where the gradient vanishes.
- The shift of a softmax: the same vector added to all rows of the last layer, and the same number
  to its biases, changes no probability.
- Few examples: N examples of C outputs give at most N C nonzero eigenvalues, N (C - 1) with a softmax.

Each direction is verified by a product before it counts.
"""

from typing import Any

import torch
from torch import Tensor, nn

from fathometer.errors import BudgetError, CapabilityError, InputError
from fathometer.results import Row, Table
from fathometer.spectra.density import fits_dense

VERIFIED, RANK = 1e-9, 1e-9
RECTIFIERS = (nn.ReLU, nn.LeakyReLU)
TRANSPARENT = (nn.Dropout, nn.Identity)


def zero_modes(surface: Any) -> Table:
    """The zero eigenvalues of the Gauss-Newton matrix of a surface, counted by cause.

    Symmetries are looked for in `torch.nn.Sequential` networks of linear layers; weights without
    effect and the bound by the data in any. Cost: the whole matrix (P, P).

    Args:
        surface: A `LossSurface` with outputs (N, C).

    Returns:
        Rows with ``cause``, ``directions`` (that were verified) and ``new`` (those that are independent of
        the rows before); then "explained" and "measured". They differ by zeros without a known cause.

    Raises:
        InputError: If the surface is none, or its loss is opaque.
        CapabilityError: If the outputs are not one tensor (N, C).
        BudgetError: If the matrix does not fit the memory budget.
    """
    if not hasattr(surface, "gauss_newton"):
        raise InputError(f"surface is a {type(surface).__name__}; pass a LossSurface.")
    P = surface.size
    if not fits_dense(P):
        raise BudgetError(f"the whole matrix of {P} parameters does not fit; raise fm.budget.")
    exact = surface.double()
    outputs = exact.outputs()
    if outputs.ndim != 2:
        raise CapabilityError(f"the outputs are {tuple(outputs.shape)}; the bound needs (N, C).")
    G = exact.gauss_newton().to_dense()
    values = torch.linalg.eigvalsh(G)
    largest = float(values.abs().max())
    softmax = surface.loss == "cross_entropy"
    causes = {
        "weights without effect": torch.eye(P, dtype=torch.float64)[:, G.diagonal() <= VERIFIED**2 * largest],
        "scale of a rectifier": _scales(exact),
        "shift of the softmax": _shifts(exact) if softmax else torch.zeros(P, 0, dtype=torch.float64),
    }
    rows, basis, notes = [], torch.zeros(P, 0, dtype=torch.float64), []
    for cause, D in causes.items():
        D = D[:, torch.linalg.vector_norm(D, dim=0) > 0]
        D = D / torch.linalg.vector_norm(D, dim=0)
        kept = torch.linalg.vector_norm(G @ D, dim=0) <= VERIFIED * largest
        if not kept.all():
            notes.append(f"{int((~kept).sum())} directions of {cause} are no zero modes here.")
        before = basis.shape[1]
        basis = _span(torch.cat([basis, D[:, kept]], 1))
        rows.append(Row(cause=cause, directions=int(kept.sum()), new=basis.shape[1] - before))
    C = outputs.shape[1]
    bound = surface.examples * (C - softmax)
    few = max(0, P - bound)
    rows.append(Row(cause="few examples", directions=few, new=max(0, few - basis.shape[1])))
    explained = max(few, basis.shape[1])
    measured = int((values.abs() <= P * 1e-14 * largest).sum())
    rows += [
        Row(cause=name, directions=n, new=n) for name, n in (("explained", explained), ("measured", measured))
    ]
    return Table(
        title=f"zero modes of a Gauss-Newton matrix of {P} rows", rows=tuple(rows), notes=tuple(notes)
    )


def _span(D: Tensor) -> Tensor:
    """An orthonormal basis of the columns."""
    U, s, _ = torch.linalg.svd(D, full_matrices=False)
    return U[:, s > RANK]


def _layers(surface: Any) -> list[tuple[str, nn.Module]]:
    model = surface.write()
    if not isinstance(model, nn.Sequential):
        return []
    return [(name, layer) for name, layer in model.named_children() if not isinstance(layer, TRANSPARENT)]


def _scales(surface: Any) -> Tensor:
    """One direction for each unit between two linear layers with a rectifier."""
    found, layers = [], _layers(surface)
    parts = surface.space.split(surface.theta)
    for (first, lower), (_, act), (second, upper) in zip(layers, layers[1:], layers[2:], strict=False):
        if not (
            isinstance(lower, nn.Linear) and isinstance(act, RECTIFIERS) and isinstance(upper, nn.Linear)
        ):
            continue
        names = [f"{first}.weight", f"{first}.bias", f"{second}.weight"]
        if (
            names[0] not in parts
            or names[2] not in parts
            or (lower.bias is not None and names[1] not in parts)
        ):
            continue
        for j in range(lower.out_features):
            move = {name: torch.zeros_like(part) for name, part in parts.items()}
            for name in names[:2]:
                if name in parts:
                    move[name][j] = parts[name][j]
            move[names[2]][:, j] = -parts[names[2]][:, j]
            found.append(surface.space.flatten(move))
    return torch.stack(found, 1) if found else torch.zeros(surface.size, 0, dtype=torch.float64)


def _shifts(surface: Any) -> Tensor:
    """Directions that add one number to all outputs."""
    parts, layers, found = surface.space.split(surface.theta), _layers(surface), []
    last = layers[-1] if layers else None
    if last is not None and isinstance(last[1], nn.Linear):
        for name in sorted({f"{last[0]}.weight", f"{last[0]}.bias"} & set(parts)):
            for j in range(parts[name][0].numel()):  # one for each input, and one for the biases
                move = {n: torch.zeros_like(part) for n, part in parts.items()}
                move[name].view(len(parts[name]), -1)[:, j] = 1.0
                found.append(surface.space.flatten(move))
    return torch.stack(found, 1) if found else torch.zeros(surface.size, 0, dtype=torch.float64)
