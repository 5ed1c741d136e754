"""What the loss of a surface is: sums over examples, and what the mean divides by.

Everything downstream needs three things of a loss: its sum over a chunk of data, the
loss of each example, and a *count* that adds up over chunks so that
``sum of sums / sum of counts`` is the mean the user means, whatever the chunks are.

| loss | count of a chunk |
|---|---|
| "cross_entropy", `nn.CrossEntropyLoss` | targets that are not ignored (their class weights, if any) |
| "mse", "half_mse", `nn.MSELoss` | scalars in the targets, as torch's mean |
| ``loss(outputs, targets)``, ``loss(model, batch)`` | examples |

A callable whose first parameter is called ``model``, ``module``, ``net`` or ``network``
takes ``(model, batch)``; any other takes ``(outputs, targets)``. It returns the losses of
the examples, shape (n,), or their mean; ``loss(model, batch)`` may also return a pair
(mean, count) where the mean is not over the first dimension (tokens, say).
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fathometer.errors import InputError

_MODEL_NAMES = ("model", "module", "net", "network")
Likelihood = Literal["categorical", "gaussian"]
Rows = Callable[[Callable[..., Tensor], torch.Size], Tensor]
"""Random numbers of a shape (n, ...) in float64 by `torch.rand` or `torch.randn`, a row an example."""


class Objective:
    """A loss of (outputs, targets), summed over examples. Base of the cases below.

    Attributes:
        name: What the user called it.
        opaque: Whether it takes (model, batch).
        likelihood: The distribution of targets whose negative log it is, if known.
    """

    name = "callable"
    opaque = False
    likelihood: Likelihood | None = None

    def each(self, outputs: Any, targets: Any) -> Tensor:
        """Loss of each example (n,); their sum over the total count is the energy."""
        raise NotImplementedError

    def total(self, outputs: Any, targets: Any) -> Tensor:
        """Sum over the chunk, 0-d."""
        return self.each(outputs, targets).sum()

    def count(self, targets: Any) -> float:
        """What this chunk adds to the denominator of the mean."""
        return float(length(targets))

    def check(self, outputs: Any, targets: Any) -> None:
        """Refuse outputs and targets that do not belong together."""

    def audit(self, outputs: Any, targets: Any) -> None:
        """Refuse a loss that is no mean over examples; tried once, on a few examples."""

    def curvature(self, outputs: Any, targets: Any) -> Callable[[Tensor], Tensor] | None:
        """Product with the Hessian of `total` in the outputs, or None where it has no closed form."""
        return None

    def draw(self, outputs: Tensor, targets: Tensor, rows: Rows) -> Tensor:
        """Targets drawn from the model's own predictive distribution, with random numbers by ``rows``."""
        raise NotImplementedError  # the callers ask for a likelihood first


class CrossEntropy(Objective):
    """Softmax cross-entropy, classes along dimension 1 as in torch."""

    name = "cross_entropy"

    def __init__(
        self, weight: Tensor | None = None, ignore_index: int = -100, label_smoothing: float = 0.0
    ) -> None:
        self.weight, self.ignore_index, self.label_smoothing = weight, ignore_index, label_smoothing
        self.likelihood = "categorical" if weight is None and not label_smoothing else None

    def each(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Loss of each example (n,)."""
        losses = F.cross_entropy(
            outputs,
            targets,
            weight=None if self.weight is None else self.weight.to(outputs),
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            reduction="none",
        )
        return losses.flatten(1).sum(1) if losses.ndim > 1 else losses

    def count(self, targets: Tensor) -> float:
        """What this chunk adds to the denominator of the mean."""
        if targets.is_floating_point():  # class probabilities (n, C, ...)
            return float(targets.numel() // targets.shape[1])
        kept = targets[targets != self.ignore_index]
        return float(
            kept.numel() if self.weight is None else self.weight.to(kept.device)[kept].double().sum()
        )

    def check(self, outputs: Tensor, targets: Tensor) -> None:
        """Refuse outputs and targets that do not belong together."""
        _check_tensor(outputs, self.name)
        if outputs.ndim < 2:
            raise InputError(
                f"outputs have shape {tuple(outputs.shape)}; cross-entropy needs (n, classes, ...)."
            )
        if targets.is_floating_point():
            if targets.shape != outputs.shape:
                raise InputError(
                    f"targets are {targets.dtype} of shape {tuple(targets.shape)} and outputs "
                    f"{tuple(outputs.shape)}; pass integer classes, or class probabilities of the same shape."
                )
            return
        if targets.shape != outputs.shape[:1] + outputs.shape[2:]:
            raise InputError(
                f"targets have shape {tuple(targets.shape)} and outputs {tuple(outputs.shape)}; "
                f"cross-entropy needs targets {tuple(outputs.shape[:1] + outputs.shape[2:])}, with the "
                "classes of the outputs along dimension 1."
            )
        wrong = (targets != self.ignore_index) & ((targets < 0) | (targets >= outputs.shape[1]))
        if wrong.any():
            at = wrong.nonzero()[0].tolist()
            raise InputError(
                f"targets{at} is {int(targets[tuple(at)])}; the model has {outputs.shape[1]} classes, "
                f"0..{outputs.shape[1] - 1} (ignored: {self.ignore_index})."
            )

    def curvature(self, outputs: Tensor, targets: Tensor) -> Callable[[Tensor], Tensor] | None:
        """``u -> w (p u - p (p . u))`` with the probabilities p and the weight w of each example.

        Keeps one tensor of the size of the outputs; differentiating the logarithm of a softmax over a
        large vocabulary twice keeps several.
        """
        weight = self.scale(outputs, targets)
        if weight is None:
            return None
        p = outputs.detach().softmax(1)

        def product(u: Tensor) -> Tensor:
            pu = p * u
            return weight * (pu - p * pu.sum(1, keepdim=True))

        return product

    def scale(self, outputs: Tensor, targets: Tensor) -> Tensor | None:
        """The weight w (n, 1, ...) of each example in `curvature`, or None where it has no closed form."""
        if targets.is_floating_point():
            return None if self.weight is not None else targets.sum(1, keepdim=True).to(outputs)
        if self.weight is not None and self.label_smoothing:
            return None
        kept = targets != self.ignore_index
        weight = kept[:, None].to(outputs)
        if self.weight is not None:
            weight = weight * self.weight.to(outputs)[torch.where(kept, targets, 0)][:, None]
        return weight

    def draw(self, outputs: Tensor, targets: Tensor, rows: Rows) -> Tensor:
        """Targets drawn from the model's own predictive distribution."""
        chances = outputs.detach().double().softmax(1).movedim(1, -1)
        uniform = rows(torch.rand, chances.shape[:-1])
        below = chances.cumsum(-1) < uniform.to(chances.device)[..., None]
        drawn = below.sum(-1).clamp(max=outputs.shape[1] - 1)
        if targets.is_floating_point():
            return drawn
        return torch.where(targets == self.ignore_index, targets, drawn)


class SquaredError(Objective):
    """Squared error, a mean over all scalars of the targets, times ``factor``."""

    likelihood = "gaussian"

    def __init__(self, name: str, factor: float) -> None:
        self.name, self.factor = name, factor

    def each(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Loss of each example (n,)."""
        squares = self.factor * (outputs - targets.to(outputs.dtype)).square()
        return squares.flatten(1).sum(1) if squares.ndim > 1 else squares

    def count(self, targets: Tensor) -> float:
        """What this chunk adds to the denominator of the mean."""
        return float(targets.numel())

    def check(self, outputs: Tensor, targets: Tensor) -> None:
        """Refuse outputs and targets that do not belong together."""
        _check_tensor(outputs, self.name)
        if targets.shape != outputs.shape:
            raise InputError(
                f"targets have shape {tuple(targets.shape)} and outputs {tuple(outputs.shape)}; a squared "
                "error needs equal shapes (torch would broadcast them into another loss)."
            )

    def curvature(self, outputs: Tensor, targets: Any) -> Callable[[Tensor], Tensor] | None:
        """A number times the vector."""
        return lambda u: (2.0 * self.factor) * u

    def draw(self, outputs: Tensor, targets: Tensor, rows: Rows) -> Tensor:
        """Targets drawn from the model's own predictive distribution."""
        noise = rows(torch.randn, outputs.shape)
        # factor * (o - t)^2 is the negative log of a normal density of variance 1 / (2 factor)
        return outputs.detach() + (noise / (2 * self.factor) ** 0.5).to(outputs)


class CallableLoss(Objective):
    """``loss(outputs, targets)`` of the user: (n,) losses, or their mean."""

    def __init__(self, function: Callable[[Any, Any], Tensor]) -> None:
        self.function = function
        self.name = _called(function)

    def total(self, outputs: Any, targets: Any) -> Tensor:
        """Sum over the chunk, 0-d."""
        n = length(targets)
        losses = _as_losses(self.function(outputs, targets), n, self.name)
        return losses * n if losses.ndim == 0 else losses.sum()

    def each(self, outputs: Any, targets: Any) -> Tensor:
        """Loss of each example (n,)."""
        n = length(targets)
        losses = _as_losses(self.function(outputs, targets), n, self.name)
        if losses.ndim == 1:
            return losses
        rows = [(rows_of(outputs, slice(i, i + 1)), rows_of(targets, slice(i, i + 1))) for i in range(n)]
        return torch.stack([self.function(o, t) for o, t in rows])

    def audit(self, outputs: Any, targets: Any) -> None:
        """Refuse a scalar that is a sum, or that couples the examples."""
        n = length(targets)
        losses = _as_losses(self.function(outputs, targets), n, self.name)
        if losses.ndim == 1 or n < 2:
            return
        cut = (n + 1) // 2
        parts = [
            self.function(rows_of(outputs, part), rows_of(targets, part)).double()
            for part in (slice(0, cut), slice(cut, n))
        ]
        whole, mean = losses.double(), (cut * parts[0] + (n - cut) * parts[1]) / n
        tolerance = 1e3 * torch.finfo(losses.dtype).eps * (1 + max(abs(float(p)) for p in (whole, *parts)))
        if abs(float(whole - mean)) <= tolerance:
            return
        if abs(float(whole - sum(parts))) <= tolerance:
            raise InputError(
                f"the loss {self.name} returns a sum over examples; return the loss of each, shape (n,), "
                "or their mean."
            )
        raise InputError(
            f"the loss {self.name} is {float(whole):.6g} on {n} examples, but its mean over two parts of "
            f"them is {float(mean):.6g}: it is no mean over examples. Return the loss of each, shape (n,), "
            "or pass loss(model, batch) with the whole data as one batch."
        )


class OpaqueLoss(Objective):
    """``loss(model, batch)`` of the user: (n,) losses, their mean, or (mean, count)."""

    opaque = True

    def __init__(self, function: Callable[[nn.Module, Any], Any]) -> None:
        self.function = function
        self.name = _called(function)

    def evaluate(self, module: nn.Module, batch: Any) -> tuple[Tensor, float, Tensor | None]:
        """Sum, count and, if known, the loss of each example of one batch."""
        found = self.function(module, batch)
        if isinstance(found, tuple | list) and len(found) == 2:
            mean, count = found
            count = float(count)
            if not count > 0:
                raise InputError(f"the loss {self.name} returned count {count}; it must be positive.")
            return _as_losses(mean, None, self.name) * count, count, None
        losses = _as_losses(found, None, self.name)
        if losses.ndim == 1:
            return losses.sum(), float(len(losses)), losses
        n = length(batch)
        return losses * n, float(n), None


def objective(loss: Any) -> Objective:
    """Make sense of the user's ``loss``.

    Raises:
        InputError: If it is none of the accepted kinds, a module that sums, or ``NLLLoss`` with its
            own mean.
    """
    if isinstance(loss, Objective):
        return loss
    if isinstance(loss, str) and loss in _named():
        return _named()[loss]
    if not callable(loss):
        found = repr(loss) if isinstance(loss, str) else f"a {type(loss).__name__}"
        raise InputError(f"loss is {found}; pass one of {', '.join(_named())}, or a callable.")
    if isinstance(loss, nn.Module):
        known = _of_module(loss)
        if known is not None:
            return known
    function: Callable[..., Any] = loss
    return OpaqueLoss(function) if _takes_model(function) else CallableLoss(function)


def _named() -> dict[str, Objective]:
    return {
        "cross_entropy": CrossEntropy(),
        "mse": SquaredError("mse", 1.0),
        "half_mse": SquaredError("half_mse", 0.5),
    }


def _of_module(loss: nn.Module) -> Objective | None:
    """Torch's own means of losses, which have analytic parts here; None for any other module."""
    reduction = getattr(loss, "reduction", None)
    if reduction == "sum":
        raise InputError(f"loss is {loss} with reduction='sum'; use reduction='mean' or 'none'.")
    if reduction != "mean":
        return None
    if isinstance(loss, nn.NLLLoss):
        raise InputError(
            "loss is NLLLoss with reduction='mean', whose denominator depends on ignored classes and "
            "weights; use 'cross_entropy' on the logits, or reduction='none'."
        )
    if type(loss) is nn.CrossEntropyLoss:  # a subclass may compute something else
        return CrossEntropy(loss.weight, loss.ignore_index, loss.label_smoothing)
    return _named()["mse"] if type(loss) is nn.MSELoss else None


def length(batch: Any) -> int:
    """Examples in a batch: the first dimension of its first tensor.

    Raises:
        InputError: If there is no tensor in it, or the first one is 0-d.
    """
    tensor = next(_tensors(batch), None)
    if tensor is None or tensor.ndim == 0:
        raise InputError(
            f"a batch is a {type(batch).__name__} without a tensor to count examples by; return the loss of "
            "each example, shape (n,), or a pair (mean, count)."
        )
    return int(tensor.shape[0])


def rows_of(batch: Any, rows: Any) -> Any:
    """The examples ``rows`` of every tensor in nested tuples, lists and mappings."""
    if isinstance(batch, Tensor):
        return batch[rows]
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(rows_of(part, rows) for part in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(rows_of(part, rows) for part in batch)
    if isinstance(batch, dict):
        return {key: rows_of(part, rows) for key, part in batch.items()}
    return batch


def _tensors(batch: Any) -> Any:
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, tuple | list):
        for part in batch:
            yield from _tensors(part)
    elif isinstance(batch, Mapping):
        for part in batch.values():
            yield from _tensors(part)


def _takes_model(function: Callable[..., Any]) -> bool:
    try:
        names = [p.name for p in inspect.signature(function).parameters.values()]
    except (TypeError, ValueError):
        return False
    return bool(names) and names[0] in _MODEL_NAMES


def _as_losses(found: Any, n: int | None, name: str) -> Tensor:
    if not isinstance(found, Tensor):
        raise InputError(
            f"the loss {name} returned a {type(found).__name__}; a tensor that depends on the model is "
            "needed."
        )
    if found.ndim == 0 or (found.ndim == 1 and n in (None, len(found))):
        return found
    wanted = f"({n},)" if n is not None else "(n,)"
    raise InputError(
        f"the loss {name} returned shape {tuple(found.shape)}; return one loss an example, shape {wanted}, "
        "or their mean."
    )


def _check_tensor(outputs: Any, name: str) -> None:
    if not isinstance(outputs, Tensor):
        raise InputError(
            f"the model returned a {type(outputs).__name__}; {name} needs a tensor. Pass loss(outputs, "
            "targets) that picks the tensor out."
        )


def _called(function: Callable[..., Any]) -> str:
    return cast(str, getattr(function, "__name__", type(function).__name__))
