"""Second derivatives of a surface as linear operators.

Hessian: one gradient is recorded with its own graph, and every product is one more
backward pass through that graph (reverse over reverse). The graphs of as many chunks as
the memory budget allows are kept, the rest is recorded again in every product. Forward
over reverse would be as exact on paper, but torch's forward derivatives of normalization
layers are wrong or missing at this order, and fused attention and LSTM have none.

Gauss-Newton matrix, with J the Jacobian of the outputs and S the Hessian of the loss in
the outputs: J' S J v, where J v is the derivative of w -> J' w (a backward pass through a
recorded backward pass). The Fisher matrices are J' J of the losses of the examples.

Cost, in gradients of the whole data: a kept Hessian product 1.4 to 2.1 (`twice`), a Gauss-Newton
product about the same; recorded anew, one to two more.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from fathometer.errors import InputError
from fathometer.linalg import LinearOperator
from fathometer.model.problem import Leaves, Problem, differentiable_twice, first_derivatives, weighted
from fathometer.model.twice import CheapTwice, root, with_curvature
from fathometer.work import allowance, generator, reduce_chunks, world

KEPT_SHARE = 0.5
STREAM_ROWS = 64
"""Examples that share a random stream, by their place in the data."""


@runtime_checkable
class Graph(Protocol):
    """A recorded chunk that can be multiplied with."""

    def product(self, v: dict[str, Tensor]) -> list[Tensor | None]:
        """The chunk's part of the matrix times one vector."""
        ...


@dataclass(frozen=True, eq=False)
class HessianGraph:
    """A recorded gradient of the sum of the loss over one chunk."""

    leaves: Leaves
    gradient: dict[str, Tensor]

    @classmethod
    def record(cls, problem: Problem, theta: Tensor, index: int) -> "HessianGraph":
        """Record chunk ``index`` at ``theta``."""
        leaves = problem.leaves(theta)
        total = _recorded_total(problem, leaves, index)
        grads = first_derivatives(total, leaves, create_graph=True)
        curved = {n: g for n, g in zip(leaves, grads, strict=True) if g is not None and g.requires_grad}
        return cls(leaves, curved)

    def product(self, v: dict[str, Tensor]) -> list[Tensor | None]:
        """Hessian of the chunk's sum times ``v``."""
        if not self.gradient:
            return [None] * len(self.leaves)
        return _backward(list(self.gradient.values()), self.leaves, [v[name] for name in self.gradient])


def _recorded_total(problem: Problem, leaves: Leaves, index: int) -> Tensor:
    """The sum of the loss over a chunk, with cheap second derivatives where they are known."""
    with CheapTwice():
        if problem.objective.opaque:
            return problem.finite(leaves, index)[0]
        batch = problem.batches[index]
        outputs = problem.outputs(leaves, batch)
        problem.objective.check(outputs, batch[1])
        total = problem.objective.total(outputs, batch[1])
    problem.check_finite(total, index)
    closed = problem.objective.curvature(outputs, batch[1]) if total.requires_grad else None
    return total if closed is None else with_curvature(total, outputs, closed)


@dataclass(frozen=True, eq=False)
class JacobianGraph:
    """Recorded values y of one chunk with their backward pass w -> J' w, and a middle matrix."""

    leaves: Leaves
    values: Tensor
    weights: Tensor
    pullback: dict[str, Tensor]
    middle: Callable[[Tensor], Tensor]

    @classmethod
    def record(cls, leaves: Leaves, values: Tensor, middle: Callable[[Tensor], Tensor]) -> "JacobianGraph":
        """Record J' w for the values y, for J' M J products."""
        weights = torch.zeros_like(values, requires_grad=True)
        pulled = first_derivatives(weighted([values], [weights]), leaves, create_graph=True)
        kept = {n: p for n, p in zip(leaves, pulled, strict=True) if p is not None and p.requires_grad}
        return cls(leaves, values, weights, kept, middle)

    def push(self, v: dict[str, Tensor]) -> Tensor:
        """J v, in the shape of the values."""
        parts = [v[name] for name in self.pullback]
        (image,) = _backward(list(self.pullback.values()), {"": self.weights}, parts)
        return torch.zeros_like(self.weights) if image is None else image

    def product(self, v: dict[str, Tensor]) -> list[Tensor | None]:
        """J' M J v."""
        if not self.pullback:
            return [None] * len(self.leaves)
        return _backward([self.values], self.leaves, [self.middle(self.push(v))])


def output_graph(problem: Problem, theta: Tensor, index: int) -> JacobianGraph:
    """Record the Gauss-Newton matrix of the sum of the loss over chunk ``index``.

    Raises:
        InputError: If the loss does not go through a tensor of outputs.
    """
    if problem.objective.opaque:
        raise InputError(
            f"the loss {problem.objective.name} takes (model, batch): it has no outputs that a Gauss-Newton "
            "matrix could be taken at. Pass loss(outputs, targets) with (inputs, targets) as data."
        )
    leaves = problem.leaves(theta)
    batch = problem.batches[index]
    with CheapTwice():
        outputs = problem.outputs(leaves, batch)
    if not isinstance(outputs, Tensor):
        raise InputError(
            f"the model returned a {type(outputs).__name__}; the Gauss-Newton matrix needs one tensor of "
            "outputs. Wrap the model in a module that returns it."
        )
    problem.objective.check(outputs, batch[1])
    closed = problem.objective.curvature(outputs, batch[1])
    if closed is not None:
        return JacobianGraph.record(leaves, outputs, closed)
    seen = outputs.detach().requires_grad_()
    total = problem.objective.total(seen, batch[1])
    (slope,) = torch.autograd.grad(total, seen, create_graph=True)

    def loss_hessian(u: Tensor) -> Tensor:
        if not slope.requires_grad:
            return torch.zeros_like(u)
        (image,) = _backward([slope], {"": seen}, [u])
        return torch.zeros_like(u) if image is None else image

    return JacobianGraph.record(leaves, outputs, loss_hessian)


def example_graph(problem: Problem, theta: Tensor, index: int) -> JacobianGraph:
    """Record the sum over chunk ``index`` of the outer products of the examples' gradients."""
    leaves = problem.leaves(theta)
    with CheapTwice():
        losses = problem.each(leaves, problem.batches[index])
    return JacobianGraph.record(leaves, losses, lambda u: u)


def sampled_graph(problem: Problem, theta: Tensor, index: int, seed: int) -> JacobianGraph:
    """As `example_graph`, for targets drawn from the model's own predictions."""
    leaves = problem.leaves(theta)
    batch = problem.batches[index]
    with CheapTwice():
        outputs = problem.outputs(leaves, batch)
    problem.objective.check(outputs, batch[1])
    stream = partial(_example_rows, seed, problem.batches.start(index))
    drawn = problem.objective.draw(outputs, batch[1], stream)
    return JacobianGraph.record(leaves, problem.objective.each(outputs, drawn), lambda u: u)


def _example_rows(seed: int, start: int, draw: Callable[..., Tensor], shape: torch.Size) -> Tensor:
    """Random rows, one for each example from ``start`` on: a row is the same in every cut of the data."""
    parts, at, stop = [], start, start + shape[0]
    while at < stop:
        block, first = divmod(at, STREAM_ROWS)
        last = min(first + stop - at, STREAM_ROWS)
        random = generator(seed, "sampled fisher", block)
        rows = draw(STREAM_ROWS, *shape[1:], generator=random, dtype=torch.float64)
        parts.append(rows[first:last])
        at += last - first
    return torch.cat(parts)


def operator(
    problem: Problem, record: Callable[[int], Graph], *, name: str, bytes_per_chunk: float
) -> LinearOperator:
    """The operator (P, P) whose chunks ``record`` makes, divided by the count."""
    chunks = _Chunks(problem, record, bytes_per_chunk)
    return LinearOperator(
        shape=(problem.space.size, problem.space.size),
        product=chunks.product,
        dtype=problem.space.dtype,
        device=problem.space.device,
        name=name,
    )


class _Chunks:
    """Recorded chunks, as many as the memory budget allows, and products summed over all."""

    def __init__(self, problem: Problem, record: Callable[[int], Graph], bytes_per_chunk: float) -> None:
        self.problem, self.record, self.bytes_per_chunk = problem, record, bytes_per_chunk
        self.kept: dict[int, Graph] = {}

    def graph(self, index: int) -> Graph:
        found = self.kept.get(index)
        if found is None:
            found = self.record(index)
            if self.bytes_per_chunk * (len(self.kept) + 1) <= KEPT_SHARE * allowance():
                self.kept[index] = found
        return found

    def product(self, V: Tensor) -> Tensor:
        space = self.problem.space
        columns = [space.split(column) for column in V.detach().T.contiguous()]

        def of_chunk(index: int) -> Tensor:
            graph = self.graph(index)
            images = [space.flatten(graph.product(v)) for v in columns]
            return torch.stack(images) if len(images) > 1 else images[0][None]

        count = self.problem.count
        with self.problem.replica.running():
            if len(self.problem.batches) == 1 and world() == 1 and _float32_divides(space.dtype, count):
                return of_chunk(0).div_(count).T
            (total,) = reduce_chunks(of_chunk, range(len(self.problem.batches)), what="curvature product")
        return total.div_(count).to(space.dtype).T


def _float32_divides(dtype: torch.dtype, count: float) -> bool:
    """Whether dividing in float32 gives the bits of dividing in float64 and rounding.

    It does if the divisor is a float32: 53 >= 2 * 24 + 2 (Figueroa 1995). It spares three passes
    over the product.
    """
    return dtype == torch.float32 and torch.tensor(count, dtype=dtype).item() == count


def _backward(values: list[Tensor], leaves: Leaves, weights: list[Tensor]) -> list[Tensor | None]:
    """One more backward pass through a recorded one, which stays."""
    with differentiable_twice():
        return list(
            torch.autograd.grad(
                root(values, weights), list(leaves.values()), retain_graph=True, allow_unused=True
            )
        )
