"""The alpha-scale transformation: one positive factor a layer, the same function.

``T_alpha`` multiplies the weights of layer k by ``a_k``; the function stays if the factors
cancel along every path (Dinh, Pascanu, Bengio & Bengio 2017, def. 5). Biases follow the
activations they are added to: ``b_k`` is multiplied by ``a_1 ... a_k`` (appendix B).
"""

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fathometer.errors import InputError
from fathometer.model.tracing import as_arguments, trace_graph
from fathometer.sharpness.rescalings import (
    check_same_function,
    effective_space,
    log_scales,
    read_graph,
    scaled_copy,
)
from fathometer.sharpness.rules import Reader, Weight
from fathometer.sharpness.scales import ScaleSpace


def layer_scale(model: nn.Module, factors: Mapping[str, float], example_inputs: Any) -> nn.Module:
    """A copy of ``model`` with the weights of the named layers multiplied by the factors.

    Args:
        model: Any module that ``torch.export`` can trace; it is not changed.
        factors: Layer (or weight tensor) name -> positive factor. A layer that is not named
            keeps its weights; biases and running means carry the scale on.
        example_inputs: A tensor or a tuple of the model's arguments.

    Returns:
        A module with the same outputs up to rounding (to the bit for powers of two).

    Raises:
        InputError: If a name is no layer with weights, a factor is not positive and finite, the
            function would change (the message says which product of factors must be 1), or a
            weight would leave the range of its type.
        CapabilityError: If the module cannot be exported.
    """
    arguments = as_arguments(example_inputs)
    logarithms = _checked(factors)
    graph, reader = read_graph(model, arguments)
    names = {layer: _weight_of(layer, reader) for layer in logarithms}
    shapes = {name: tuple(tensor.shape) for name, tensor in graph.tensors.items()}
    wanted = _pin(reader, names)
    space = effective_space(reader)
    z = _coordinates(space, wanted, logarithms, reader)
    exact_bits = all(math.frexp(value)[0] == 0.5 for value in factors.values())
    moved = scaled_copy(model, log_scales(space, reader.uses, shapes, z), exact_bits=exact_bits)
    check_same_function(model, moved, arguments, exact_bits=exact_bits)
    return moved


def _checked(factors: Mapping[str, float]) -> dict[str, float]:
    if not isinstance(factors, Mapping) or not factors:
        raise InputError("factors must name at least one layer, for example {'fc1': 10.0, 'fc2': 0.1}.")
    for layer, factor in factors.items():
        if not isinstance(factor, int | float) or not (math.isfinite(factor) and factor > 0):
            raise InputError(
                f"the factor of {layer} is {factor!r}; it must be positive and finite: a rectifier commutes "
                "with positive scaling only."
            )
    return {layer: math.log(factor) for layer, factor in factors.items()}


def _weight_of(layer: str, reader: Reader) -> str:
    """The tensor a layer name stands for."""
    weights = [name for name in reader.uses if name not in reader.followers]
    for name in (layer, f"{layer}.weight"):
        if name in weights:
            return name
    known = ", ".join(name.removesuffix(".weight") for name in weights[:12])
    raise InputError(
        f"factors names {layer!r}, which is no layer with weights in this network; it has {known}."
    )


def _pin(reader: Reader, names: Mapping[str, str]) -> dict[str, int]:
    """Named weights scale by one unknown each, all others do not scale; returns those unknowns."""
    wanted = {}
    for name, use in reader.uses.items():
        if name in names.values():
            unknown = reader.system.fresh(1)
            wanted[name] = int(unknown)
            reader.system.relate((1, use.plus), (-1, use.minus), (-1, unknown))
        elif name not in reader.followers:
            reader.system.equate(*torch.broadcast_tensors(use.plus, use.minus))
    return {layer: wanted[name] for layer, name in names.items()}


def _coordinates(
    space: ScaleSpace, wanted: Mapping[str, int], logarithms: Mapping[str, float], reader: Reader
) -> np.ndarray:
    """Coordinates at which every named layer has its factor, or the reason why there are none."""
    layers = sorted(wanted, key=wanted.__getitem__)  # in the order of the network
    rows = space.basis[np.array([space.group[wanted[layer]] for layer in layers])].toarray()
    target = np.array([logarithms[layer] for layer in layers])
    z = np.linalg.lstsq(rows, target, rcond=None)[0] if space.dimension else np.zeros(0)
    slack = 1e-9 * (1.0 + np.abs(target).max())
    if np.abs(rows @ z - target).max() <= slack:
        return z
    broken = max(_relations(rows), key=lambda relation: abs(relation @ target))
    raise InputError(_refusal(layers, broken, target, reader))


def _relations(rows: np.ndarray) -> list[np.ndarray]:
    """Whole-number combinations of the rows that vanish, by exact elimination."""
    found = []
    kept: list[tuple[int, list[Fraction], list[Fraction]]] = []
    for i, row in enumerate(rows):
        values = [Fraction(int(v)) for v in row]
        combination = [Fraction(int(i == j)) for j in range(len(rows))]
        for pivot, other, how in kept:
            if values[pivot]:
                k = values[pivot] / other[pivot]
                values = [a - k * b for a, b in zip(values, other, strict=True)]
                combination = [a - k * b for a, b in zip(combination, how, strict=True)]
        pivot = next((j for j, v in enumerate(values) if v), None)
        if pivot is None:
            scale = math.lcm(*(c.denominator for c in combination))
            found.append(np.array([float(c * scale) for c in combination]))
        else:
            kept.append((pivot, values, combination))
    return found


def _refusal(layers: list[str], relation: np.ndarray, target: np.ndarray, reader: Reader) -> str:
    used = [(layer, k) for layer, k in zip(layers, relation, strict=True) if k]
    found = math.exp(min(700.0, float(relation @ target)))
    why = (
        f" ({'; '.join(f'{k}: {v}' for k, v in list(reader.untreated.items())[:2])})"
        if reader.untreated
        else ""
    )
    if len(used) == 1:
        layer = used[0][0]
        factor = math.exp(target[layers.index(layer)])
        return (
            f"{layer} cannot be scaled by {factor:.4g} alone: no other named layer makes up for it without "
            f"changing the function{why}."
        )
    product = " * ".join(layer if k == 1 else f"{layer}^{k:g}" for layer, k in used)
    return f"the function would change: {product} must be 1, and it is {found:.6g}{why}."


def output_scale(model: nn.Module, factor: float, example_inputs: Any) -> nn.Module:
    """A copy of ``model`` whose outputs are multiplied by ``factor``, by weights alone.

    Classes that are read off the largest output stay; a loss changes.

    Args:
        model: Any module that ``torch.export`` can trace; it is not changed.
        factor: Positive.
        example_inputs: A tensor or a tuple of the model's arguments.

    Raises:
        InputError: If factor is not positive and finite, or the weights cannot scale the outputs.
        CapabilityError: If the module cannot be exported.
    """
    if not (isinstance(factor, int | float) and math.isfinite(factor) and factor > 0):
        raise InputError(f"factor is {factor!r}; it must be positive and finite.")
    arguments = as_arguments(example_inputs)
    graph = trace_graph(model, arguments)
    reader = _FreeOutputs(graph)
    reader.read()
    space = effective_space(reader)
    row = space.basis[[int(space.group[reader.number])]].toarray()[0]
    if not row.any():
        raise InputError(
            "no weights scale all outputs by one factor: the network ends in what is not linear."
        )
    z = np.zeros(space.dimension)
    j = int(np.argmax(abs(row)))
    z[j] = math.log(factor) / row[j]
    shapes = {name: tuple(tensor.shape) for name, tensor in graph.tensors.items()}
    return scaled_copy(model, log_scales(space, reader.uses, shapes, z))


class _FreeOutputs(Reader):
    """All outputs have one scale, which is not zero."""

    number = 0

    def finish(self, outputs: Any) -> None:
        """Equate the outputs with one new unknown."""
        scale = self.system.fresh()
        self.number = int(scale)
        pending = [outputs]
        while pending:
            value = pending.pop()
            if isinstance(value, Tensor | Weight):
                self.system.equate(self.ids(value), scale)
            elif isinstance(value, list | tuple):
                pending.extend(value)
