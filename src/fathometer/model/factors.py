"""The Gauss-Newton matrix taken apart: one row for each example and output.

With S_i the Hessian of the loss of example i in its outputs and S_i = sum_c s_ic s_ic' (`roots`; K
columns, C - 1 for a softmax), the Gauss-Newton matrix is ``sum_ic r_ic r_ic'`` for the rows
``r_ic = J_i' s_ic / sqrt(count)``. In a linear layer y = W a + b the row is the outer product of a vector
that arrives at its output (``delta``, from K backward passes through all examples) and of its input:
norms and inner products of rows need no row. Other parameters get their rows written down,
example by example. Everything that is exact about Gauss-Newton matrices follows: traces, the
whole spectrum through the Gram matrix, distances to Kronecker factors.
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fathometer.errors import BudgetError, CapabilityError, InputError
from fathometer.model.losses import rows_of
from fathometer.model.roots import output_roots
from fathometer.work import allowance, in_words

if TYPE_CHECKING:
    from fathometer.model.surface import LossSurface

EXAMPLES = 32
"""Examples whose rows meet all others at a time: the block of products stays near the cache."""


@dataclass(frozen=True, eq=False, kw_only=True)
class LinearFactors:
    """One linear layer: its rows are ``delta[i, c] x inputs[i]``, and ``delta[i, c]`` for the bias.

    Attributes:
        name: Of the layer.
        inputs: (N, d_in) what comes in.
        deltas: (N, K, d_out) what comes back, scaled by 1 / sqrt(count).
        weight, bias: Names of its parameters on the surface; None if constant or absent.
    """

    name: str
    inputs: Tensor
    deltas: Tensor
    weight: str | None
    bias: str | None

    def add_gram(self, total: Tensor) -> None:
        """Add the inner products of the rows to ``total`` (N K, N K), on and below the diagonal blocks."""
        N, K, d = self.deltas.shape
        flat = self.deltas.reshape(N * K, d)
        for at in range(0, N, EXAMPLES):
            stop = min(at + EXAMPLES, N)
            a = (
                self.inputs[at:stop] @ self.inputs[:stop].T
                if self.weight
                else flat.new_zeros(stop - at, stop)
            )
            a = a + 1.0 if self.bias else a
            block = flat[at * K : stop * K] @ flat[: stop * K].T
            block.view(stop - at, K, stop, K).mul_(a[:, None, :, None])
            total[at * K : stop * K, : stop * K] += block


@dataclass(frozen=True, eq=False, kw_only=True)
class Factors:
    """All rows of a Gauss-Newton matrix, in float64.

    Attributes:
        layers: Linear layers, in order.
        rows: Name of every other parameter with its rows (N K, size).
        count: N K.
    """

    layers: tuple[LinearFactors, ...]
    rows: dict[str, Tensor]
    count: int

    def gram(self) -> Tensor:
        """Inner products of all rows (N K, N K), with the nonzero eigenvalues of the matrix."""
        total = torch.zeros(self.count, self.count, dtype=torch.float64)
        for layer in self.layers:
            layer.add_gram(total)
        for rows in self.rows.values():
            total.addmm_(rows, rows.T)
        return total.tril_().add_(total.tril(-1).T)

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

    Cost: K backward passes through the data, one row at a time for parameters outside linear layers.

    Args:
        surface: Its loss takes (outputs, targets) and is convex in the outputs, which are (N, C).

    Raises:
        InputError: If the loss has no outputs, or is not convex in them here.
        CapabilityError: If the outputs are not one tensor (N, C).
        BudgetError: If the rows do not fit the memory budget.
    """
    double = surface.double()
    problem = double._problem
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
    return Factors(layers=layers, rows=rows, count=sum(part.count for part in parts))


@dataclass(frozen=True, eq=False, kw_only=True)
class _Part:
    """The factors of one batch."""

    layers: dict[str, LinearFactors]
    rows: dict[str, Tensor]
    count: int


def rooted(surface: "LossSurface", leaves: dict[str, Tensor], batch: Any) -> tuple[Tensor, Tensor]:
    """Outputs (n, C) of a batch and the columns (K, n, C) of its curvature, scaled by 1 / sqrt(count).

    Raises:
        InputError: If the loss has no outputs, or is not convex in them.
        CapabilityError: If the outputs are not one tensor (n, C).
    """
    problem = surface._problem
    if problem.objective.opaque:
        raise InputError(f"the loss {surface.loss} takes (model, batch); it has no Gauss-Newton matrix.")
    outputs = problem.outputs(leaves, batch)
    if not isinstance(outputs, Tensor) or outputs.ndim != 2:
        shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise CapabilityError(f"the outputs are {shape}; Gauss-Newton rows need one tensor (N, C) here.")
    problem.objective.check(outputs, batch[1])
    return outputs, output_roots(problem.objective, outputs.detach(), batch[1]) / problem.count**0.5


def _of_batch(surface: "LossSurface", batch: Any) -> _Part:
    problem = surface._problem
    seen: dict[str, list[tuple[Tensor, Tensor]]] = {}
    with watched(problem.replica.module, seen, (nn.Linear,)):
        outputs, roots = rooted(surface, problem.leaves(surface.theta), batch)
    found_layers = usable(problem.replica.module, surface.names, seen)
    layers = {name: pair for name, pair in found_layers.items() if seen[name][0][0].ndim == 2}
    deltas: dict[str, list[Tensor]] = {name: [] for name in layers}
    for root in roots if layers else ():
        targets = [seen[name][0][1] for name in layers]
        back = torch.autograd.grad(outputs, targets, root, retain_graph=True, allow_unused=True)
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
    return _Part(
        layers=found, rows=_rows(surface, batch, roots, others), count=roots.shape[0] * roots.shape[1]
    )


def _rows(surface: "LossSurface", batch: Any, roots: Tensor, names: list[str]) -> dict[str, Tensor]:
    """Rows of the parameters outside linear layers, one example at a time."""
    problem = surface._problem
    K, n = roots.shape[:2]
    sizes = {name: leaf.numel() for name, leaf in problem.leaves(surface.theta).items() if name in names}
    needed, free = 8 * surface.examples * K * sum(sizes.values()), allowance()
    if needed > free:
        raise BudgetError(
            f"Gauss-Newton rows of {', '.join(names[:3])} for {surface.examples} examples take "
            f"{in_words(needed)} and {in_words(free)} may be used; "
            f"{int(surface.examples * free / needed)} examples fit."
        )
    found = {name: torch.zeros(n, K, size, dtype=torch.float64) for name, size in sizes.items()}
    for i in range(n) if names else ():
        leaves = problem.leaves(surface.theta)
        one = rows_of(batch, slice(i, i + 1))
        outputs = problem.outputs(leaves, one)
        wanted = [leaves[name] for name in sizes]
        for c in range(K):
            back = torch.autograd.grad(
                outputs, wanted, roots[c, i : i + 1], retain_graph=True, allow_unused=True
            )
            for name, row in zip(sizes, back, strict=True):
                if row is not None:
                    found[name][i, c] = row.reshape(-1)
    return {name: value.reshape(n * K, -1) for name, value in found.items()}


@contextmanager
def watched(
    module: nn.Module, seen: dict[str, list[tuple[Tensor, Tensor]]], kinds: tuple[type[nn.Module], ...]
) -> Generator[None, None, None]:
    """Note what goes into and comes out of every layer of some kinds."""
    handles = []
    for name, layer in module.named_modules():
        if type(layer) in kinds:

            def note(_layer: nn.Module, inputs: Any, output: Tensor, name: str = name) -> Tensor:
                seen.setdefault(name, []).append((inputs[0], output))
                return output.clone()  # the next operation may write in place

            handles.append(layer.register_forward_hook(note))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def usable(
    module: nn.Module, names: tuple[str, ...], seen: dict[str, list[tuple[Tensor, Tensor]]]
) -> dict[str, tuple[str | None, str | None]]:
    """Layers used once, whose tensors nothing else uses: (weight, bias) by layer name."""
    owners: dict[int, int] = {}
    for layer in module.modules():
        for parameter in layer._parameters.values():
            if parameter is not None:
                owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    found: dict[str, tuple[str | None, str | None]] = {}
    for name, calls in seen.items():
        layer = module.get_submodule(name)
        own = [p for p in layer._parameters.values() if p is not None]
        if len(calls) != 1 or any(owners[id(p)] > 1 for p in own):
            continue
        if not calls[0][1].requires_grad:
            continue
        prefix = f"{name}." if name else ""
        weight, bias = (n if n in names else None for n in (f"{prefix}weight", f"{prefix}bias"))
        if weight or bias:
            found[name] = (weight, bias)
    return found
