"""Convolutions, ReLUs and losses whose second derivatives are as cheap as their first.

Differentiating a gradient, torch writes the double backward pass of a convolution as other
convolutions, with the examples in the place of the channels. Those are slow on a CPU and move a lot
of memory. But its four terms are the three kernels that a gradient uses already: for
y = x * W, gx = y' *' W, gW = x *' y' and directions u of gx, v of gW,

    y' term: u * W + x * v,   x term: y' *' v,   W term: u *' y'.

A ReLU passes nothing back to its input in second order, but torch writes that nothing down as a tensor
of zeros and adds it to what comes from elsewhere.

The logarithm of a softmax, differentiated twice, keeps and passes over several tensors of the size
of the outputs; its Hessian is a formula (`Objective.curvature`).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_CONVOLUTIONS = {torch.conv1d: 1, torch.conv2d: 2, torch.conv3d: 3}
_RECTIFIERS = (torch.relu, nn.functional.relu, Tensor.relu)
_convolve = torch.ops.aten.convolution.default
_backward = torch.ops.aten.convolution_backward.default
_gated = torch.ops.aten.threshold_backward.default


class _Convolution(torch.autograd.Function):
    """A convolution."""

    @staticmethod
    def forward(x: Tensor, W: Tensor, bias: Tensor | None, sizes: tuple[Any, ...]) -> Tensor:
        return _convolve(x, W, bias, *sizes)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, W, bias, ctx.sizes = inputs
        ctx.biased = bias is not None and ctx.needs_input_grad[2]
        ctx.save_for_backward(x, W)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Any, ...]:
        (slope,), (x, W) = grad_outputs, ctx.saved_tensors
        needed = ctx.needs_input_grad[:2]
        gx, gW = _Gradient.apply(slope, x, W, ctx.sizes, needed)
        bias = slope.sum([0, *range(2, slope.ndim)]) if ctx.biased else None
        return gx, gW, bias, None


class _Gradient(torch.autograd.Function):
    """What a convolution passes back to its input and its kernel."""

    @staticmethod
    def forward(
        slope: Tensor, x: Tensor, W: Tensor, sizes: tuple[Any, ...], needed: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        gx, gW, _ = _backward(slope, x, W, None, *sizes, [*needed, False])
        return gx, gW

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        slope, x, W, ctx.sizes, _ = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(slope, x, W)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Any, ...]:
        (u, v), (slope, x, W) = grad_outputs, ctx.saved_tensors
        wanted, sizes = ctx.needs_input_grad, ctx.sizes
        of_slope = of_x = of_W = None
        if wanted[0] and u is not None:
            of_slope = _convolve(u, W, None, *sizes)
        if wanted[0] and v is not None:
            part = _convolve(x, v, None, *sizes)
            of_slope = part if of_slope is None else of_slope + part
        if wanted[1] and v is not None:
            of_x = _backward(slope, x, v, None, *sizes, [True, False, False])[0]
        if wanted[2] and u is not None:
            of_W = _backward(slope, u, W, None, *sizes, [False, True, False])[1]
        return of_slope, of_x, of_W, None, None


class _Rectifier(torch.autograd.Function):
    """max(x, 0), with torch's derivative 0 at 0."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.relu(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Tensor:
        return _Gate.apply(grad_outputs[0], ctx.saved_tensors[0].detach())


class _Gate(torch.autograd.Function):
    """A slope where the output of a ReLU is positive, else zero; constant in that output."""

    @staticmethod
    def forward(slope: Tensor, output: Tensor) -> Tensor:
        return _gated(slope, output, 0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Any, ...]:
        return _Gate.apply(grad_outputs[0], ctx.saved_tensors[0]), None


class CheapTwice(TorchFunctionMode):
    """Within it, convolutions and ReLUs are recorded in the form above."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Take over plain convolutions and ReLUs; leave everything else alone."""
        kwargs = kwargs or {}
        if func in _RECTIFIERS and len(args) == 1 and not kwargs.get("inplace"):
            return _Rectifier.apply(*args)
        if func in _CONVOLUTIONS and not kwargs and len(args) >= 2:
            sizes = _sizes(_CONVOLUTIONS[func], *args[3:])
            bias = args[2] if len(args) > 2 else None
            if sizes is not None and args[0].ndim == _CONVOLUTIONS[func] + 2:
                return _Convolution.apply(args[0], args[1], bias, sizes)
        return func(*args, **kwargs)


def _sizes(
    dims: int, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> tuple[Any, ...] | None:
    """Stride, padding, dilation, not transposed, no output padding, groups; None for padding by name."""
    if isinstance(padding, str):
        return None
    full = [list(s) if isinstance(s, tuple | list) else [s] for s in (stride, padding, dilation)]
    stride, padding, dilation = (s * dims if len(s) == 1 else s for s in full)
    return stride, padding, dilation, False, [0] * dims, groups


def with_curvature(total: Tensor, outputs: Tensor, product: Callable[[Tensor], Tensor]) -> Tensor:
    """``total``, a function of ``outputs``, whose Hessian in them is ``product`` from here on."""
    (slope,) = torch.autograd.grad(total, outputs, retain_graph=True)
    return _Loss.apply(outputs, total.detach(), slope, product)


class _Loss(torch.autograd.Function):
    """A loss with a known slope and a known Hessian in the outputs."""

    @staticmethod
    def forward(outputs: Tensor, total: Tensor, slope: Tensor, product: Callable[[Tensor], Tensor]) -> Tensor:
        return total.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        outputs, _, slope, ctx.product = inputs
        ctx.save_for_backward(outputs, slope)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Any, ...]:
        (weight,), (outputs, slope) = grad_outputs, ctx.saved_tensors
        return _Slope.apply(outputs, slope, ctx.product, weight), None, None, None


class _Slope(torch.autograd.Function):
    """The slope of a loss in its outputs, times a number."""

    @staticmethod
    def forward(
        outputs: Tensor, slope: Tensor, product: Callable[[Tensor], Tensor], weight: Tensor
    ) -> Tensor:
        return slope * weight

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, slope, ctx.product, weight = inputs
        ctx.save_for_backward(slope, weight)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Any, ...]:
        (u,), (slope, weight) = grad_outputs, ctx.saved_tensors
        return ctx.product(u) * weight, None, None, (slope * u).sum() if ctx.needs_input_grad[3] else None


def root(values: list[Tensor], weights: list[Tensor]) -> Tensor:
    """Where a backward pass through ``values`` with given ``weights`` starts; its own value is nothing.

    Autograd's ``grad_outputs`` means the same, but torch imports its symbolic algebra when it
    is first used: two seconds for nothing.
    """
    return _Root.apply(weights, *values)


class _Root(torch.autograd.Function):
    """A node whose derivatives are given numbers."""

    @staticmethod
    def forward(weights: list[Tensor], *values: Tensor) -> Tensor:
        return values[0].new_zeros(())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.weights = inputs[0]

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Any, ...]:
        return None, *ctx.weights
