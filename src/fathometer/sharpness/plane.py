"""Losses at many points of a line or plane through the weights, cheaper than one by one.

Along ``theta + a u + b v`` what leaves the first layer is affine in (a, b): three passes through it are
kept, and every point starts behind it. For a perceptron on images that is most of the work; a layer with
few weights for each output is computed anew, which moves less memory. The rest is a
plain forward pass of a private copy whose weights are written in place, on so few examples at a time that
activations stay in the cache.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fathometer.model import LossSurface
from fathometer.model.batches import Arrays
from fathometer.work import allowance, reduce_chunks

CACHE = 2**21
"""Examples are cut until a chunk leaves the first layer with fewer bytes than this.

Measured on one thread: 512 examples of 12.5 kB take 12 ms at once and 4.2 ms by 128 in a network of three
convolutions; 512 of 4 kB take 23 ms at once and 21 ms by 256 in a ResNet-20.
"""
WORTH = 32
"""Weights for each output from which on keeping the layer is quicker (with 9 it is 5 to 20 % slower)."""
SHARE = 4
"""The kept layer may take one part in this many of the memory that is left."""


class Plane:
    """The mean loss at ``theta + sum coefficients[i] * directions[i]``.

    Args:
        surface: Loss surface, at its point.
        directions: Flat vectors (P,).

    Attributes:
        cached: Name of the layer whose outputs are kept, "" if none.
    """

    def __init__(self, surface: LossSurface, directions: Sequence[Tensor]) -> None:
        self.surface, self.directions, self.cached = surface, tuple(directions), ""
        self.coefficients: tuple[float, ...] = (0.0,) * len(self.directions)
        self._kept: list[list[Tensor]] = []
        self._batch = 0
        self._problem = surface._problem
        if self._problem.objective.opaque:
            return
        self._model = surface.write().eval()
        named = dict(self._model.named_parameters())
        self._parts = [
            (named[name].data, center, along)
            for (name, center), *along in zip(
                surface.space.split(surface.theta).items(),
                *(surface.space.split(d).values() for d in self.directions),
                strict=True,
            )
        ]
        self._keep_first_layer()

    def energy(self, *coefficients: float) -> float:
        """Mean loss at a point."""
        self.coefficients = coefficients
        problem = self._problem
        if problem.objective.opaque:
            moves = (c * d for c, d in zip(coefficients, self.directions, strict=True))
            return float(self.surface.energy(sum(moves, self.surface.theta)))
        for parameter, center, along in self._parts:
            parameter.copy_(center)
            for c, d in zip(coefficients, along, strict=True):
                parameter.add_(d, alpha=c)

        def total(i: int) -> Tensor:
            self._batch = i
            inputs, targets = problem.batches[i]
            outputs = self._model(*inputs) if isinstance(inputs, tuple | list) else (
                self._model(**inputs) if isinstance(inputs, dict) else self._model(inputs)
            )  # fmt: skip
            problem.objective.check(outputs, targets)
            return problem.objective.total(outputs, targets)

        with problem.replica.running(), torch.no_grad():
            (found,) = reduce_chunks(total, range(len(problem.batches)), what="loss on a plane")
        return float(found) / problem.count

    @torch.no_grad()
    def _keep_first_layer(self) -> None:
        """Keep the outputs of the first layer at the center and along the directions, if they fit."""
        name = first_layer(self._model, self._problem.batches)
        if not name:
            return
        layer: Any = self._model.get_submodule(name)
        out = _apply(layer, self._inputs(layer, 0)[:1], dict(layer.named_parameters()))
        self._cut(out.numel() * out.element_size())
        if layer.weight[0].numel() < WORTH:
            return
        along = [self.surface.space.split(d) for d in self.directions]
        zero = {kind: torch.zeros_like(p) for kind, p in layer.named_parameters()}
        sets = [dict(layer.named_parameters())]
        sets += [{kind: d.get(f"{name}.{kind}", zero[kind]) for kind in zero} for d in along]
        spent = 0
        for i in range(len(self._problem.batches)):
            x = self._inputs(layer, i)
            self._kept.append([_apply(layer, x, part) for part in sets])
            spent += sum(t.numel() * t.element_size() for t in self._kept[-1])
            if SHARE * spent * len(self._problem.batches) > allowance() * (i + 1):
                self._kept = []
                return

        def forward(_: Tensor) -> Tensor:
            center, *parts = self._kept[self._batch]
            for c, part in zip(self.coefficients, parts, strict=True):
                center = torch.add(center, part, alpha=c)
            return center

        layer.forward = forward
        self.cached = name

    def _cut(self, each: int) -> None:
        """Fewer examples at a time, where arrays were given: the value does not depend on it."""
        batches = self._problem.batches
        if isinstance(batches, Arrays):
            fitting = 2 ** max(0, ((CACHE - 1) // each).bit_length() - 1)
            self._problem = replace(self._problem, batches=batches.cut(min(batches.chunk, fitting)))

    def _inputs(self, layer: nn.Module, i: int) -> Tensor:
        """What enters the layer for a batch."""
        seen: list[Tensor] = []

        def stop(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            seen.append(inputs[0])
            raise _FoundError

        handle = layer.register_forward_pre_hook(stop)
        try:
            self._model(self._problem.batches[i][0])
        except _FoundError:
            pass
        finally:
            handle.remove()
        return seen[0]


class _FoundError(Exception):
    """Stops a forward pass at the layer whose inputs were wanted."""


def first_layer(model: nn.Module, batches: Any) -> str:
    """Name of a linear or convolutional layer that alone reads the network's inputs, once; "" if none."""
    inputs = batches[0][0]
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        return ""
    calls: list[tuple[str, bool]] = []
    memory = inputs.untyped_storage().data_ptr()

    def watch(name: str) -> Any:
        def seen(_: nn.Module, arguments: tuple[Any, ...]) -> None:
            x = arguments[0] if arguments else None
            calls.append((name, isinstance(x, Tensor) and x.untyped_storage().data_ptr() == memory))

        return seen

    plain = {nn.Linear: nn.Linear.forward, nn.Conv2d: nn.Conv2d.forward, nn.Conv1d: nn.Conv1d.forward}
    layers = {name: m for name, m in model.named_modules() if type(m) in plain and "forward" not in vars(m)}
    handles = [layer.register_forward_pre_hook(watch(name)) for name, layer in layers.items()]
    try:
        with torch.no_grad():
            model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    names = [name for name, _ in calls]
    readers = [name for name, same in calls if same]
    return readers[0] if len(readers) == 1 and names.count(readers[0]) == 1 else ""


def _apply(layer: Any, x: Tensor, part: dict[str, Tensor]) -> Tensor:
    """The layer with other weights and bias."""
    if isinstance(layer, nn.Linear):
        return F.linear(x, part["weight"], part.get("bias"))
    return layer._conv_forward(x, part["weight"], part.get("bias"))
