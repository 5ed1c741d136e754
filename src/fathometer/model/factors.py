"""The Gauss-Newton matrix taken apart: one row for each example and output.

With S_i the Hessian of the loss of example i in its outputs and S_i = sum_c s_ic s_ic', the
Gauss-Newton matrix is ``sum_ic r_ic r_ic'`` for the rows ``r_ic = J_i' s_ic / sqrt(count)``. In a
linear layer y = W a + b the row is the outer product of a vector that arrives at the output
of the layer (``delta``, from C backward passes through all examples at once) and its input:
norms and inner products of rows need no row. Other parameters get their rows written down,
example by example. Everything that is exact about Gauss-Newton matrices follows: traces, the
whole spectrum through the Gram matrix, distances to Kronecker factors.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fathometer.errors import BudgetError, CapabilityError, InputError
from fathometer.model.losses import rows_of
from fathometer.work import allowance, in_words

if TYPE_CHECKING:
    from fathometer.model.surface import LossSurface

ROUNDING = 1e-9


@dataclass(frozen=True, eq=False, kw_only=True)
class LinearFactors:
    """One linear layer: its rows are ``delta[i, c] x inputs[i]``, and ``delta[i, c]`` for the bias.

    Attributes:
        name: Of the layer.
        inputs: (N, d_in) what comes in.
        deltas: (N, C, d_out) what comes back, scaled by 1 / sqrt(count).
        weight, bias: Names of its parameters on the surface; None if constant or absent.
    """

    name: str
    inputs: Tensor
    deltas: Tensor
    weight: str | None
    bias: str | None

    def gram(self) -> Tensor:
        """Inner products of the rows (N C, N C)."""
        a = (
            self.inputs @ self.inputs.T
            if self.weight
            else self.inputs.new_zeros(len(self.inputs), len(self.inputs))
        )
        a = a + 1.0 if self.bias else a
        N, C, d = self.deltas.shape
        flat = self.deltas.reshape(N * C, d)
        return (flat @ flat.T) * a.to(flat).repeat_interleave(C, 0).repeat_interleave(C, 1)


@dataclass(frozen=True, eq=False, kw_only=True)
class Factors:
    """All rows of a Gauss-Newton matrix, in float64.

    Attributes:
        layers: Linear layers, in order.
        rows: Name of every other parameter with its rows (N C, size).
        examples, outputs: N and C.
    """

    layers: tuple[LinearFactors, ...]
    rows: dict[str, Tensor]
    examples: int
    outputs: int

    def gram(self) -> Tensor:
        """Inner products of all rows (N C, N C): the eigenvalues of the matrix that are not zero."""
        parts = [layer.gram() for layer in self.layers] + [rows @ rows.T for rows in self.rows.values()]
        return sum(parts[1:], parts[0])

    def traces(self) -> dict[str, float]:
        """Trace of the diagonal block of every parameter tensor."""
        found: dict[str, float] = {}
        for layer in self.layers:
            back = layer.deltas.square().sum((1, 2))
            if layer.weight:
                found[layer.weight] = float(back @ layer.inputs.square().sum(1))
            if layer.bias:
                found[layer.bias] = float(back.sum())
        found.update({name: float(rows.square().sum()) for name, rows in self.rows.items()})
        return found


def gauss_newton_factors(surface: "LossSurface") -> Factors:
    """Take the Gauss-Newton matrix of a surface apart, at its own point, in float64.

    Cost: C backward passes through the data, one row at a time for parameters outside linear layers.

    Args:
        surface: Its loss takes (outputs, targets) and is convex in the outputs, which are (N, C).

    Raises:
        InputError: If the loss has no outputs, or is not convex in them here.
        CapabilityError: If the outputs are not one tensor (N, C).
        BudgetError: If the rows do not fit the memory budget.
    """
    double = surface.double()
    problem = double._problem
    if problem.objective.opaque:
        raise InputError(f"the loss {surface.loss} takes (model, batch); it has no Gauss-Newton matrix.")
    parts = []
    with problem.replica.running():
        for i in range(len(problem.batches)):
            parts.append(_of_batch(double, problem.batches[i]))
    first = parts[0]
    layers = tuple(
        LinearFactors(
            name=name,
            inputs=torch.cat([part.layers[name].inputs for part in parts]),
            deltas=torch.cat([part.layers[name].deltas for part in parts]),
            weight=layer.weight,
            bias=layer.bias,
        )
        for name, layer in first.layers.items()
    )
    rows = {name: torch.cat([part.rows[name] for part in parts]) for name in first.rows}
    return Factors(layers=layers, rows=rows, examples=surface.examples, outputs=first.outputs)


@dataclass(frozen=True, eq=False, kw_only=True)
class _Part:
    """The factors of one batch."""

    layers: dict[str, LinearFactors]
    rows: dict[str, Tensor]
    outputs: int


def _of_batch(surface: "LossSurface", batch: Any) -> _Part:
    problem = surface._problem
    leaves = problem.leaves(surface.theta)
    seen: dict[str, list[tuple[Tensor, Tensor]]] = {}
    with _watched(problem.replica.module, seen):
        outputs = problem.outputs(leaves, batch)
    if not isinstance(outputs, Tensor) or outputs.ndim != 2:
        shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise CapabilityError(f"the outputs are {shape}; Gauss-Newton rows need one tensor (N, C) here.")
    problem.objective.check(outputs, batch[1])
    roots = _curvature_roots(problem, outputs.detach(), batch[1]) / problem.count**0.5
    layers = _usable(problem.replica.module, surface.names, seen)
    deltas: dict[str, list[Tensor]] = {name: [] for name in layers}
    for c in range(outputs.shape[1] if layers else 0):
        targets = [seen[name][0][1] for name in layers]
        back = torch.autograd.grad(outputs, targets, roots[:, c], retain_graph=True, allow_unused=True)
        for name, target, delta in zip(layers, targets, back, strict=True):
            deltas[name].append(torch.zeros_like(target) if delta is None else delta)
    found = {
        name: LinearFactors(
            name=name,
            inputs=seen[name][0][0].detach(),
            deltas=torch.stack(deltas[name], 1),
            weight=weight,
            bias=bias,
        )
        for name, (weight, bias) in layers.items()
    }
    covered = {n for pair in layers.values() for n in pair if n}
    others = [name for name in surface.names if name not in covered]
    return _Part(layers=found, rows=_rows(surface, batch, roots, others), outputs=outputs.shape[1])


def _rows(surface: "LossSurface", batch: Any, roots: Tensor, names: list[str]) -> dict[str, Tensor]:
    """Rows of the parameters outside linear layers, one example at a time."""
    problem = surface._problem
    n, C = roots.shape[:2]
    sizes = {name: leaf.numel() for name, leaf in problem.leaves(surface.theta).items() if name in names}
    needed, free = 8 * surface.examples * C * sum(sizes.values()), allowance()
    if needed > free:
        raise BudgetError(
            f"Gauss-Newton rows of {', '.join(names[:3])} for {surface.examples} examples take "
            f"{in_words(needed)} and {in_words(free)} may be used; "
            f"{int(surface.examples * free / needed)} examples fit."
        )
    found = {name: torch.zeros(n, C, size, dtype=torch.float64) for name, size in sizes.items()}
    for i in range(n) if names else ():
        leaves = problem.leaves(surface.theta)
        one = rows_of(batch, slice(i, i + 1))
        outputs = problem.outputs(leaves, one)
        wanted = [leaves[name] for name in sizes]
        for c in range(C):
            back = torch.autograd.grad(
                outputs, wanted, roots[i : i + 1, c], retain_graph=True, allow_unused=True
            )
            for name, row in zip(sizes, back, strict=True):
                if row is not None:
                    found[name][i, c] = row.reshape(-1)
    return {name: value.reshape(n * C, -1) for name, value in found.items()}


def _curvature_roots(problem: Any, outputs: Tensor, targets: Any) -> Tensor:
    """Columns s_ic (n, C, C), indexed by example, c and output, with sum_c s_ic s_ic' = S_i."""
    seen = outputs.clone().requires_grad_()
    (slope,) = torch.autograd.grad(problem.objective.total(seen, targets), seen, create_graph=True)
    columns = []
    for c in range(outputs.shape[1]):
        column = None
        if slope.requires_grad:
            (column,) = torch.autograd.grad(slope[:, c].sum(), seen, retain_graph=True, allow_unused=True)
        columns.append(torch.zeros_like(seen) if column is None else column)
    S = torch.stack(columns, 1)
    values, U = torch.linalg.eigh(0.5 * (S + S.mT))
    if (values < -ROUNDING * values.abs().amax()).any():
        row = int((values < -ROUNDING * values.abs().amax()).any(1).nonzero()[0])
        raise InputError(
            f"the loss is not convex in the outputs of example {row} of a batch (curvature "
            f"{float(values[row].min()):.3g}); a Gauss-Newton matrix has no rows there."
        )
    return (U * values.clamp(min=0.0).sqrt()[:, None, :]).mT


@contextmanager
def _watched(module: nn.Module, seen: dict[str, list[tuple[Tensor, Tensor]]]) -> Iterator[None]:
    """Note what goes into and comes out of every linear layer."""
    handles = []
    for name, layer in module.named_modules():
        if type(layer) is nn.Linear:

            def note(_layer: nn.Module, inputs: Any, output: Tensor, name: str = name) -> None:
                seen.setdefault(name, []).append((inputs[0], output))

            handles.append(layer.register_forward_hook(note))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _usable(
    module: nn.Module, names: tuple[str, ...], seen: dict[str, list[tuple[Tensor, Tensor]]]
) -> dict[str, tuple[str | None, str | None]]:
    """Layers used once, on (N, d) inputs, whose tensors nothing else uses: (weight, bias) by layer name."""
    owners: dict[int, int] = {}
    for layer in module.modules():
        for parameter in layer._parameters.values():
            if parameter is not None:
                owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    found: dict[str, tuple[str | None, str | None]] = {}
    for name, calls in seen.items():
        layer = module.get_submodule(name)
        own = [p for p in layer._parameters.values() if p is not None]
        if len(calls) != 1 or calls[0][0].ndim != 2 or any(owners[id(p)] > 1 for p in own):
            continue
        if not calls[0][1].requires_grad:
            continue
        prefix = f"{name}." if name else ""
        weight, bias = (n if n in names else None for n in (f"{prefix}weight", f"{prefix}bias"))
        if weight or bias:
            found[name] = (weight, bias)
    return found
