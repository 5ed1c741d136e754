"""Path norms: all weights along all paths, in one forward pass.

The product of the weights along a path from an input (or a bias) to an output does not change
under any rescaling that keeps the function. The sum of the p-th powers of all of them is the output
of the network with weights ``|w|^p``, without non-linearities, on an input of ones (Neyshabur, Tomioka &
Srebro 2015; for networks with skips and pooling Gonon et al. 2024). A maximum over a window is a
choice among paths, so max-pooling counts as a sum.

Cost: one forward pass of one example.
"""

import operator
from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.fx.node import map_arg
from torch.nn import functional as F

from fathometer.errors import CapabilityError, InputError
from fathometer.model import LossSurface
from fathometer.model.tracing import TracedGraph, trace_graph
from fathometer.results import Estimate
from fathometer.sharpness.rules import operation_name

_LINEAR = (
    "view _unsafe_view reshape permute transpose t squeeze unsqueeze expand slice select cat concat "
    "stack split split_with_sizes chunk unbind flatten unflatten movedim contiguous clone alias "
    "detach pad constant_pad_nd numpy_T mT sum linear conv1d conv2d conv3d conv_transpose1d "
    "conv_transpose2d matmul mm addmm"
)
LINEAR = frozenset(_LINEAR.split())
PRODUCTS = frozenset(["matmul", "mm", "addmm", "linear", "conv1d", "conv2d", "conv3d"])
SAME = frozenset(["relu", "relu_", "dropout", "dropout_", "feature_dropout", "to", "_to_copy", "abs"])


def path_norm(surface: LossSurface, p: int = 1) -> Estimate:
    """The p-norm of the vector of all path products: ``(sum over paths |product|^p)^(1/p)``.

    Invariant to every rescaling that keeps the function. Paths start at each input and each bias and
    end at each output.

    Args:
        surface: Loss surface, at its point; only its network is used.
        p: 1 or 2.

    Raises:
        InputError: If p is neither 1 nor 2, or the inputs are not floating.
        CapabilityError: If the network has an operation that is no linear map, rectifier or pooling
            (the message names it), or cannot be exported.
    """
    if p not in (1, 2):
        raise InputError(f"p is {p!r}; pass 1 or 2.")
    exact = surface.double()
    inputs = exact.example_inputs(1)
    if not all(isinstance(x, Tensor) and x.is_floating_point() for x in inputs):
        raise InputError("the inputs are no floating tensors; paths start at numbers that are multiplied.")
    graph = trace_graph(exact.write().eval(), inputs)
    total = float(_Paths(graph, p).total())
    return Estimate(
        value=total ** (1.0 / p),
        kind="exact",
        error=0.0,
        method="forward pass of ones",
        cost=1,
        cost_unit="passes",
    )


class _Paths:
    """Runs a graph with weights to the p-th power of their size, on ones."""

    def __init__(self, graph: TracedGraph, p: int) -> None:
        self.graph, self.p = graph, p
        self.values: dict[Any, Any] = {}
        self.active: set[Any] = set()

    @torch.no_grad()
    def total(self) -> Tensor:
        """Sum of the outputs."""
        *steps, output = self.graph.nodes  # a graph ends with its output
        for node in steps:
            if self._is_active(node):
                self.active.add(node)
            if node.op == "placeholder":
                self.values[node] = self._placeholder(node)
            elif node.op == "call_function":
                self.values[node] = self._call(node)
        found = map_arg(output.args, self.values.__getitem__)
        return sum((t.sum() for t in _tensors(found)), torch.zeros((), dtype=torch.float64))

    def _placeholder(self, node: Any) -> Any:
        name = self.graph.weights.get(node.name)
        if name is not None:
            return self.graph.tensors[name].detach().double().abs() ** self.p
        if node.name in self.graph.constants:
            return self.graph.constants[node.name].detach().double().abs() ** self.p
        return torch.ones(node.meta["val"].shape, dtype=torch.float64)

    def _call(self, node: Any) -> Any:
        name = operation_name(node)
        if node.target is operator.getitem:
            return self.values[node.args[0]][node.args[1]]
        arguments = map_arg(node.args, self.values.__getitem__)
        options = map_arg(node.kwargs, self.values.__getitem__)
        if name in SAME:
            return arguments[0]
        if name in LINEAR and (name not in PRODUCTS or self._is_linear(node)):
            return node.target(*arguments, **options)
        if name in ("add", "add_"):
            return self._size(arguments[0]) + self._size(arguments[1]) * self._size(options.get("alpha", 1))
        if name == "mul" and self._is_linear(node):
            return arguments[0] * self._size(arguments[1])
        if name == "div" and isinstance(node.args[1], int | float) and self._is_linear(node):
            return arguments[0] / self._size(arguments[1])
        rule = _RULES.get(name)
        if rule is None:
            raise CapabilityError(
                f"the network uses {name}; path norms are defined for linear maps, rectifiers and pooling."
            )
        return rule(self, node, arguments)

    def _size(self, value: Any) -> Any:
        return value if isinstance(value, Tensor) else abs(value) ** self.p

    def _is_active(self, node: Any) -> bool:
        """Whether a node depends on the network's inputs."""
        if node.op == "placeholder":
            return node.name not in self.graph.weights and node.name not in self.graph.constants
        return any(x in self.active for x in node.all_input_nodes)

    def _is_linear(self, node: Any) -> bool:
        """Whether at most one factor of a product depends on the inputs."""
        factors = node.args[1:3] if operation_name(node) == "addmm" else node.args[:2]
        return sum(x in self.active for x in factors if hasattr(x, "op")) <= 1

    def raw(self, node: Any) -> Tensor | None:
        """A weight or buffer itself."""
        return None if node is None else self.graph.tensors[self.graph.weights[node.name]].detach().double()


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [t for part in (value if isinstance(value, tuple | list) else ()) for t in _tensors(part)]


def _leaky(paths: _Paths, node: Any, arguments: Any) -> Tensor:
    slope = arguments[1] if len(arguments) > 1 else 0.01
    return arguments[0] * max(1.0, abs(slope) ** paths.p)


def _batch_norm(paths: _Paths, node: Any, arguments: Any) -> Tensor:
    x, eps = arguments[0], arguments[7]
    weight, bias, mean, variance = (paths.raw(n) for n in node.args[1:5])
    if mean is None or variance is None:
        raise CapabilityError("batch normalization without running statistics is no linear map.")
    scale = (variance + eps).rsqrt() * (1.0 if weight is None else weight)
    shift = (0.0 if bias is None else bias) - mean * scale
    shape = (1, -1) + (1,) * (x.ndim - 2)
    return x * scale.abs().pow(paths.p).reshape(shape) + shift.abs().pow(paths.p).reshape(shape)


def _window(kernel: Any, dims: int) -> tuple[int, ...]:
    return (kernel,) * dims if isinstance(kernel, int) else tuple(kernel) * (dims if len(kernel) == 1 else 1)


def _max_pool(dims: int) -> Callable[..., Tensor]:
    average = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[dims]

    def apply(paths: _Paths, node: Any, arguments: Any) -> Tensor:
        x, kernel, *rest = arguments
        given: list[Any] = [*rest, *[None, 0, 1, False][len(rest) :]]
        stride, padding, dilation, ceil = given
        if set(_window(dilation, dims)) != {1}:
            raise CapabilityError("max-pooling with dilation has no path norm here.")
        window = _window(kernel, dims)
        return average(x, window, stride or window, padding, ceil) * prod(window)

    return apply


def _average_pool(dims: int) -> Callable[..., Tensor]:
    def apply(paths: _Paths, node: Any, arguments: Any) -> Tensor:
        return node.target(*arguments) * float(prod(_window(arguments[1], dims))) ** (1 - paths.p)

    return apply


def _mean(paths: _Paths, node: Any, arguments: Any) -> Tensor:
    found = node.target(*arguments)
    count = arguments[0].numel() / found.numel()
    if operation_name(node).startswith("adaptive") and any(
        n % m for n, m in zip(arguments[0].shape[2:], found.shape[2:], strict=True)
    ):
        raise CapabilityError("adaptive pooling with uneven windows has no path norm here.")
    return found * count ** (1 - paths.p)


_RULES: dict[str, Callable[..., Tensor]] = {
    "leaky_relu": _leaky,
    "leaky_relu_": _leaky,
    "batch_norm": _batch_norm,
    "mean": _mean,
    **{f"max_pool{d}d": _max_pool(d) for d in (1, 2, 3)},
    **{f"avg_pool{d}d": _average_pool(d) for d in (1, 2, 3)},
    **{f"adaptive_avg_pool{d}d": _mean for d in (1, 2, 3)},
}
