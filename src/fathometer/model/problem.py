"""Model, loss and data as sums over chunks, at any parameters: what a surface is made of."""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from fathometer.errors import CapabilityError, InputError
from fathometer.model.batches import Arrays, Loader
from fathometer.model.losses import Objective, OpaqueLoss, length
from fathometer.model.params import ParamSpace
from fathometer.model.replica import Replica

Leaves = dict[str, Tensor]
_NO_SECOND = ("not implemented", "once_differentiable", "double backward", "higher order")


@dataclass(frozen=True, eq=False)
class Problem:
    """One measured problem; `LossSurface` is this with a point.

    Attributes:
        replica: The private copy of the model.
        space: Its parameters as a flat vector.
        objective: The loss.
        batches: The data, chunk by chunk.
        count: What the mean divides by.
    """

    replica: Replica
    space: ParamSpace
    objective: Objective
    batches: Arrays | Loader
    count: float = 0.0

    def leaves(self, theta: Tensor, *, differentiable: bool = True) -> Leaves:
        """The parameters at ``theta`` as tensors of their own, ready for autograd."""
        parts = self.space.split(theta.detach())
        return {name: part.clone().requires_grad_(differentiable) for name, part in parts.items()}

    def outputs(self, leaves: Mapping[str, Tensor], batch: Any) -> Any:
        """What the model returns for the inputs of a batch."""
        return self.replica.apply(leaves, _forward, _pair(batch, self.objective.name)[0])

    def evaluate(self, leaves: Mapping[str, Tensor], batch: Any) -> tuple[Tensor, float]:
        """Sum of the loss over a batch (0-d, differentiable), and what the batch counts."""
        if isinstance(self.objective, OpaqueLoss):
            total, count, _ = self.replica.apply(leaves, self.objective.evaluate, batch)
            return total, count
        targets = _pair(batch, self.objective.name)[1]
        outputs = self.outputs(leaves, batch)
        self.objective.check(outputs, targets)
        return self.objective.total(outputs, targets), self.objective.count(targets)

    def each(self, leaves: Mapping[str, Tensor], batch: Any) -> Tensor:
        """Loss of each example of a batch (n,)."""
        if isinstance(self.objective, OpaqueLoss):
            _, _, losses = self.replica.apply(leaves, self.objective.evaluate, batch)
            if losses is None:
                raise InputError(
                    f"the loss {self.objective.name} returns only a mean; return the loss of each example, "
                    "shape (n,), to have them one by one."
                )
            return losses
        targets = _pair(batch, self.objective.name)[1]
        outputs = self.outputs(leaves, batch)
        self.objective.check(outputs, targets)
        return self.objective.each(outputs, targets)

    def finite(self, leaves: Mapping[str, Tensor], index: int) -> tuple[Tensor, float]:
        """As `evaluate` for chunk ``index``; a loss that is not finite is refused."""
        total, count = self.evaluate(leaves, self.batches[index])
        self.check_finite(total, index)
        return total, count

    def check_finite(self, total: Tensor, index: int) -> None:
        """Refuse a ``total`` of chunk ``index`` that is not finite."""
        if not torch.isfinite(total):
            raise InputError(
                f"the loss is {total.item()} on {self.batches.where(index)}; look for inputs, targets or "
                "parameters that are not finite, or for a logarithm of zero in the loss."
            )

    def gradient(self, leaves: Leaves, index: int) -> Tensor:
        """Gradient of the sum over chunk ``index`` (P,)."""
        total, _ = self.finite(leaves, index)
        grads = first_derivatives(total, leaves, create_graph=False)
        for name, grad in zip(leaves, grads, strict=True):
            if grad is not None and not torch.isfinite(grad).all():
                raise InputError(
                    f"the gradient of {name} is not finite on {self.batches.where(index)}; the loss is "
                    "finite there, so look for a square root or a norm at zero."
                )
        return self.space.flatten(grads)


def first_derivatives(total: Tensor, leaves: Leaves, *, create_graph: bool) -> list[Tensor | None]:
    """Gradient with respect to every leaf; None where the value does not depend on it."""
    if not total.requires_grad:
        return [None] * len(leaves)
    with differentiable_twice():
        return list(
            torch.autograd.grad(total, list(leaves.values()), create_graph=create_graph, allow_unused=True)
        )


def weighted(values: list[Tensor], weights: list[Tensor]) -> Tensor:
    """Sum of values times weights, 0-d.

    Autograd's own ``grad_outputs`` means the same, but torch imports its symbolic algebra
    when it is first used: two seconds for nothing.
    """
    parts = [
        torch.dot(value.reshape(-1), weight.reshape(-1))  # half the passes of a product and a sum
        for value, weight in zip(values, weights, strict=True)
    ]
    return torch.stack([part.to(parts[0].dtype) for part in parts]).sum()


@contextmanager
def differentiable_twice() -> Generator[None, None, None]:
    """Say it in our words when an operation of the model has no (second) derivative."""
    try:
        yield
    except RuntimeError as cause:
        if any(phrase in str(cause) for phrase in _NO_SECOND):
            raise CapabilityError(
                f"an operation of the model has no derivative of the order that is needed ({cause}); "
                "replace it by one made of elementary operations."
            ) from cause
        raise


@contextmanager
def fitting(batch: Any) -> Generator[None, None, None]:
    """Say it in our words when the model or the loss cannot take the examples."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, IndexError) as cause:
        raise InputError(
            f"data does not fit the model and its loss: {' '.join(str(cause).split())} "
            f"(the first examples are {_shapes(batch)})."
        ) from cause


def _shapes(batch: Any) -> str:
    if isinstance(batch, Tensor):
        return f"{tuple(batch.shape)} {batch.dtype}".replace("torch.", "")
    if isinstance(batch, dict):
        return ", ".join(f"{name} {_shapes(part)}" for name, part in batch.items())
    if isinstance(batch, tuple | list):
        return " and ".join(_shapes(part) for part in batch)
    return type(batch).__name__


def _forward(module: nn.Module, inputs: Any) -> Any:
    if isinstance(inputs, tuple | list):
        return module(*inputs)
    if isinstance(inputs, dict):
        return module(**inputs)
    return module(inputs)


def _pair(batch: Any, loss: str) -> tuple[Any, Any]:
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        found = f"a {type(batch).__name__}" + (f" of {len(batch)}" if isinstance(batch, tuple | list) else "")
        raise InputError(
            f"a batch is {found}; the loss {loss} needs (inputs, targets). For other batches pass a "
            "callable loss(model, batch)."
        )
    inputs, targets = batch
    if length(inputs) != length(targets):
        raise InputError(
            f"a batch has {length(inputs)} inputs and {length(targets)} targets; they must agree."
        )
    return inputs, targets


def saved_bytes(build: Callable[[], Any]) -> int:
    """Bytes that autograd keeps for the graph that ``build`` makes, each storage once."""
    seen: dict[int, int] = {}
    kept = []

    def meter(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            seen[storage.data_ptr()] = storage.nbytes()
            kept.append(storage)  # so that an address is not used twice while we count
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(meter, lambda tensor: cast(Tensor, tensor)):
        build()
    return sum(seen.values())
