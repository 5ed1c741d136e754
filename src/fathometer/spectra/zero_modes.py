"""Why a Gauss-Newton matrix is singular: every exact zero with its cause.

- A weight that no output depends on: unused, or before or behind a unit that is dead on all examples.
- A rescaling: rows and columns of weights up or down without any effect on the outputs, whatever the
  input. A hidden rectifier has one (its incoming weights up, its outgoing ones down), a stage of
  a residual network one for each channel, a query and its key one for each of their dimensions.
  They are found without knowing the network, as the combinations of scaled rows, columns and biases whose
  derivative vanishes at random inputs, which happens by chance with probability zero; zero modes of the
  whole Hessian too where the gradient vanishes.
- The shift of a softmax: the same vector added to all rows of the last layer, and the same number
  to its biases, changes no probability.
- Few examples: N examples of C outputs give at most N C nonzero eigenvalues, N (C - 1) with a softmax.

Each direction is verified by a product before it counts. Batch normalization is measured with its running
statistics, so that the scale of what enters it is no symmetry here. What is left is "unexplained".
"""

import math
from typing import Any

import torch
from torch import Tensor

from fathometer.errors import BudgetError, CapabilityError, InputError
from fathometer.model import LossSurface
from fathometer.results import Row, Table
from fathometer.spectra.density import fits_dense
from fathometer.work import generator

VERIFIED, RANK = 1e-9, 1e-9
NULL = 1e-13
"""Share of the largest eigenvalue below which a derivative, squared, is rounding."""


def zero_modes(surface: Any, *, seed: int = 0) -> Table:
    """The zero eigenvalues of the Gauss-Newton matrix of a surface, counted by cause.

    Cost: the whole matrix (P, P), and one Gauss-Newton product at random inputs for each row and column of
    the weights.

    Args:
        surface: A `LossSurface` with outputs (N, C).
        seed: Of the random inputs that tell a symmetry from a coincidence of the data.

    Returns:
        Rows with ``cause``, ``directions`` (that were verified) and ``new`` (those that are independent of
        the rows before); then "explained", "measured" and "unexplained", their difference.

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
    C, softmax = outputs.shape[1], surface.loss == "cross_entropy"
    notes: list[str] = []
    causes = {
        "weights without effect": torch.eye(P, dtype=torch.float64)[:, G.diagonal() <= VERIFIED**2 * largest],
        "rescaling": _rescalings(exact, C, seed, notes),
        "shift of the softmax": _shifts(exact, C) if softmax else torch.zeros(P, 0, dtype=torch.float64),
    }
    rows, basis = [], torch.zeros(P, 0, dtype=torch.float64)
    for cause, D in causes.items():
        D = D[:, torch.linalg.vector_norm(D, dim=0) > 0]
        D = D / torch.linalg.vector_norm(D, dim=0)
        kept = torch.linalg.vector_norm(G @ D, dim=0) <= VERIFIED * largest
        before = basis.shape[1]
        basis = _span(torch.cat([basis, D[:, kept]], 1))
        rows.append(Row(cause=cause, directions=int(kept.sum()), new=basis.shape[1] - before))
    bound = surface.examples * (C - softmax)
    few = max(0, P - bound)
    rows.append(Row(cause="few examples", directions=few, new=max(0, few - basis.shape[1])))
    explained = max(few, basis.shape[1])
    measured = int((values.abs() <= P * 1e-14 * largest).sum())
    last = {"explained": explained, "measured": measured, "unexplained": measured - explained}
    rows += [Row(cause=name, directions=n, new=n) for name, n in last.items()]
    return Table(
        title=f"zero modes of a Gauss-Newton matrix of {P} rows", rows=tuple(rows), notes=tuple(notes)
    )


def _span(D: Tensor) -> Tensor:
    """An orthonormal basis of the columns."""
    U, s, _ = torch.linalg.svd(D, full_matrices=False)
    return U[:, s > RANK]


def _rescalings(surface: LossSurface, outputs: int, seed: int, notes: list[str]) -> Tensor:
    """Combinations of scaled rows and columns (P, k) along which the outputs stay at random inputs."""
    U = _span(_slices(surface))
    count = math.ceil(2 * U.shape[1] / outputs) + 8
    try:
        inputs = _random_inputs(surface, count, seed)
    except InputError as cause:
        notes.append(f"rescalings were not looked for: {cause}")
        return U[:, :0]
    zeros = torch.zeros(count, outputs, dtype=torch.float64, device=U.device)
    at = LossSurface(surface.write(), "half_mse", (inputs, zeros), parameters=surface.names)
    G = at.gauss_newton(check=False)
    values, V = torch.linalg.eigh(U.T @ (G @ U))
    return U @ V[:, values <= NULL * values[-1]]


def _slices(surface: LossSurface) -> Tensor:
    """The point restricted to each row and each column of every tensor, and each bias: (P, slices)."""
    space, found = surface.space, []
    for name, part in space.split(surface.theta).items():
        for dim in range(min(2, part.ndim)):
            for j in range(part.shape[dim]):
                move = torch.zeros_like(part)
                move.select(dim, j).copy_(part.select(dim, j) if part.ndim > 1 else torch.ones_like(part[j]))
                wide = surface.theta.new_zeros(surface.size)
                wide[space.slices[name]] = move.flatten()
                found.append(wide)
    D = torch.stack(found, 1) if found else surface.theta.new_zeros(surface.size, 0)
    length = torch.linalg.vector_norm(D, dim=0)
    return D[:, length > 0] / length[length > 0]


def _random_inputs(surface: LossSurface, count: int, seed: int) -> tuple[Tensor, ...]:
    """Normal inputs of 1 to 100 times the spread of the surface's own, or its whole numbers anew.

    Wide, so that units switch which do not on the data: those are facts of the data, not of the network.
    """
    random, found = generator(seed, "zero modes"), []
    wide = 10.0 ** (2 * torch.rand(count, generator=random, dtype=torch.float64))
    for given in surface.example_inputs(min(surface.examples, 256)):
        if given.is_floating_point():
            noise = torch.randn(count, *given.shape[1:], generator=random, dtype=torch.float64)
            spread = float(given.std()) if given.numel() > 1 else 1.0
            noise *= wide.view(-1, *(1,) * (given.ndim - 1))
            found.append((float(given.mean()) + (spread or 1.0) * noise).to(given))
        else:
            values = given.flatten()
            chosen = torch.randint(len(values), (count, *given.shape[1:]), generator=random)
            found.append(values[chosen.to(values.device)])
    return tuple(found)


def _shifts(surface: LossSurface, outputs: int) -> Tensor:
    """Directions that add one number along the first axis of a tensor with as many rows as outputs."""
    space, found = surface.space, []
    for name, part in space.split(surface.theta).items():
        if part.ndim in (1, 2) and len(part) == outputs:
            for j in range(part[0].numel()):  # one for each input, and one for the biases
                wide = surface.theta.new_zeros(surface.size)
                wide[space.slices[name]].view(outputs, -1)[:, j] = 1.0
                found.append(wide)
    return torch.stack(found, 1) if found else surface.theta.new_zeros(surface.size, 0)
