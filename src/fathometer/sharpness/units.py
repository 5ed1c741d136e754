"""Hidden units that may change places: permutations that leave the function as it is.

Numbers are given to channels as in `rules`, but here they stand for places, not for scales: an
elementwise operation keeps them whatever its shape, a norm over channels does not care for their order, and
whatever treats channels differently keeps them where they are. Channels that occur in the same tensors and
operations in the same way form a class; any permutation of a class, in all of its tensors, is a move.
"""

import copy
import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn

from fathometer.errors import InputError
from fathometer.model.tracing import as_arguments, trace_graph
from fathometer.sharpness.rescalings import check_same_function
from fathometer.sharpness.rules import NONLINEAR, ZERO, Reader, Rule, Weight, features, shape_of
from fathometer.sharpness.scales import compact
from fathometer.work import numpy_generator

ACROSS = frozenset(["softmax", "log_softmax", "softmin", "logsumexp", "glu", "cross_entropy_loss"])
ELEMENTWISE = (NONLINEAR - ACROSS) | {
    "square", "sqrt", "rsqrt", "reciprocal", "pow", "clamp", "clamp_min", "threshold", "sign",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class UnitClass:
    """Units that may change places with one another.

    Attributes:
        size: How many.
        places: (tensor name, axis, positions): ``positions[u]`` lists where unit u stands along the axis.
    """

    size: int
    places: tuple[tuple[str, int, Tensor], ...]


@dataclass(frozen=True, eq=False)
class Units:
    """All classes of interchangeable units of one network.

    Attributes:
        classes: The classes.
        untreated: Operation -> why what it touches stays in place.
        model: The network.
        example_inputs: Arguments of it.
    """

    classes: tuple[UnitClass, ...]
    untreated: dict[str, str]
    model: nn.Module
    example_inputs: tuple[Any, ...]

    @property
    def log_order(self) -> float:
        """Natural logarithm of the number of permutations."""
        return math.fsum(math.lgamma(c.size + 1) for c in self.classes)

    def permute(self, permutations: list[Any] | None = None, *, seed: int | None = None) -> nn.Module:
        """A copy of the network with its units in another order.

        Args:
            permutations: For each class, the unit that comes to each place (size,).
            seed: Draw them instead.

        Raises:
            InputError: If neither or both are given, or an entry is no permutation of its class.
            CapabilityError: If the outputs on the example inputs changed beyond rounding.
        """
        if (permutations is None) == (seed is None):
            raise InputError("pass either permutations, one for each class, or seed.")
        if permutations is None:
            draw = numpy_generator(seed or 0, "units")
            permutations = [draw.permutation(c.size) for c in self.classes]
        moved = copy.deepcopy(self.model)
        for i, (units, order) in enumerate(zip(self.classes, permutations, strict=True)):
            if sorted(int(k) for k in order) != list(range(units.size)):
                raise InputError(f"permutations[{i}] does not name each of 0..{units.size - 1} once.")
            exchange(moved, units, torch.as_tensor(np.asarray(order)))
        check_same_function(self.model, moved, self.example_inputs)
        return moved


def exchange(model: nn.Module, units: UnitClass, order: Tensor) -> None:
    """Put unit ``order[u]`` in the place of unit u, in place."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    with torch.no_grad():
        for name, axis, positions in units.places:
            index = torch.arange(tensors[name].shape[axis])
            index[positions.reshape(-1)] = positions[order].reshape(-1)
            tensors[name].copy_(tensors[name].index_select(axis, index.to(tensors[name].device)))


def units(model: nn.Module, example_inputs: Any) -> Units:
    """The classes of units of ``model`` that may change places.

    Args:
        model: Any module that ``torch.export`` can trace; it is not changed.
        example_inputs: A tensor or a tuple of arguments.

    Raises:
        InputError: If the example inputs are not arguments.
        CapabilityError: If the module cannot be exported.
    """
    arguments = as_arguments(example_inputs)
    graph = trace_graph(model, arguments)
    reader = UnitReader(graph)
    reader.read()
    classes = _classes(reader)
    return Units(classes=classes, untreated=dict(reader.untreated), model=model, example_inputs=arguments)


def match(
    first: nn.Module, second: nn.Module, found: Units, *, sweeps: int = 50, seed: int = 0
) -> list[np.ndarray]:
    """For each class, the order in which the units of ``second`` are most like those of ``first``.

    Greatest sum of products of the weights, by an assignment problem for one class at a time until nothing
    changes (Ainsworth, Hayase & Srinivasa 2023, weight matching): a local optimum.
    """
    moved = copy.deepcopy(second)
    orders = [np.arange(c.size) for c in found.classes]
    draw = numpy_generator(seed, "match")
    for _ in range(sweeps):
        changed = False
        for c in draw.permutation(len(found.classes)):
            units = found.classes[c]
            likeness = _likeness(first, moved, units)
            order = linear_sum_assignment(likeness, maximize=True)[1]
            if likeness[np.arange(units.size), order].sum() > np.trace(likeness) + 1e-9 * abs(likeness).max():
                exchange(moved, units, torch.from_numpy(order))
                orders[c], changed = orders[c][order], True
        if not changed:
            break
    return orders


def _likeness(first: nn.Module, second: nn.Module, units: UnitClass) -> np.ndarray:
    """(size, size) inner products of the parameters of each unit of one network with each of the other."""
    total = torch.zeros(units.size, units.size, dtype=torch.float64)
    here, there = dict(first.named_parameters()), dict(second.named_parameters())
    for name, axis, positions in units.places:
        if name in here:
            a, b = (
                t[name].detach().double().movedim(axis, 0)[positions.reshape(-1)].reshape(units.size, -1)
                for t in (here, there)
            )
            total += (a @ b.T).cpu()
    return total.numpy()


class UnitReader(Reader):
    """As `Reader`, with numbers for the places of channels instead of their scales."""

    def _call(self, node: Any, arguments: Any, options: dict[str, Any]) -> Any:
        self.touched.append((node.name, _numbers((arguments, options))))
        return super()._call(node, arguments, options)

    @property
    def touched(self) -> list[tuple[str, list[Tensor]]]:
        """Operation -> the numbers that it acts on."""
        return self.__dict__.setdefault("_touched", [])

    def rule_of(self, name: str) -> Any:
        """Rules of this module first."""
        plain = name.rstrip("_")
        if plain in ELEMENTWISE:
            return _kept
        return UNIT_RULES.get(plain) or super().rule_of(name)

    def use(self, weight: Weight, plus: Tensor, minus: Tensor = ZERO) -> None:
        """State which numbers stand along the axes of a weight; agree with earlier uses."""
        seen = []
        for ids in (plus, minus):
            ids = compact(ids.reshape((1,) * (len(weight.axes) - ids.ndim) + tuple(ids.shape)))
            seen.append(ids.permute(sorted(range(len(weight.axes)), key=weight.axes.__getitem__)))
        axes = [{d for d, n in enumerate(ids.shape) if n > 1} for ids in seen]
        if any(len(found) > 1 for found in axes):  # groups: not one number for each entry of an axis
            for ids in seen:
                self.system.ground(ids)
        elif axes[0] & axes[1]:
            self.system.equate(*seen)
        along = {
            axis: ids for ids, found in zip(seen, axes, strict=True) for axis in found if len(found) == 1
        }
        for axis, size in enumerate(weight.shape):
            # An axis along which nothing has a number of its own stays as it is, here and at other uses.
            line = along[axis].reshape(-1) if axis in along else ZERO.expand(size)
            known = self.lines.setdefault((weight.name, axis), line)
            if known is not line:
                self.system.equate(known, line)

    @property
    def lines(self) -> dict[tuple[str, int], Tensor]:
        """(Tensor, axis) -> the numbers along it."""
        return self.__dict__.setdefault("_lines", {})

    def follow(self, weight: Weight, ids: Tensor) -> None:
        """A bias stands where its output does."""
        self.use(weight, ids)

    def shifted(self, node: Any, arriving: Tensor) -> None:
        """Nothing: places of an invisible bias matter as little as others."""


def _numbers(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [compact(value).reshape(-1)]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [ids for part in parts for ids in _numbers(part)]


def _kept(reader: Reader, node: Any, x: Any, *more: Any, **options: Any) -> Any:
    if any(isinstance(other, Tensor | Weight) for other in (*more, *options.values())):
        return None  # a bound or an exponent of its own for each channel
    return reader.ids(x)


def _joined(reader: Reader, node: Any, a: Any, b: Any, *_: Any, **__: Any) -> Any:
    """An elementwise operation of two: channels that meet stand in the same place."""
    if a is None or b is None:  # whole numbers or a mask, perhaps not the same for all channels
        return None
    if isinstance(a, int | float) or isinstance(b, int | float):
        return reader.ids(b if isinstance(a, int | float) else a)
    shape = shape_of(node)
    parts = [reader.ids(t) for t in (a, b)]
    parts = [p.reshape((1,) * (len(shape) - p.ndim) + tuple(p.shape)) for p in parts]
    wide = []
    for p in parts:
        other = parts[1] if p is parts[0] else parts[0]
        if any(n == 1 and m > 1 for n, m in zip(p.shape[1:], other.shape[1:], strict=True)):
            line = compact(p)
            if bool((line != 0).any()):
                reader.system.ground(line)  # one channel that meets many
        else:
            wide.append(p)
    if len(wide) == 2:
        reader.system.equate(*wide)
    if not wide:
        return None
    return torch.broadcast_to(wide[0], shape)


def _batch_norm(
    reader: Reader, node: Any, x: Any, weight: Any, bias: Any, mean: Any, variance: Any, *_: Any
) -> Any:
    inputs = features(reader, x, 1)
    for tensor in (weight, bias, mean, variance):
        if isinstance(tensor, Weight):
            reader.use(tensor, inputs)
    return reader.ids(x)


def _layer_norm(
    reader: Reader, node: Any, x: Any, sizes: Any, weight: Any = None, bias: Any = None, *_: Any, **__: Any
) -> Any:
    if len(sizes) != 1:
        return None
    inputs = features(reader, x, -1)
    for tensor in (weight, bias):
        if isinstance(tensor, Weight):
            reader.use(tensor, inputs)
    return reader.ids(x)


def _prelu(reader: Reader, node: Any, x: Any, slope: Any) -> Any:
    if isinstance(slope, Weight) and slope.shape[0] > 1:
        reader.use(slope, features(reader, x, 1))
    return reader.ids(x)


def _pinned(*_: Any, **__: Any) -> None:
    """No rule: what meets here stays in place."""
    return


PINNED = [
    "scaled_dot_product_attention",
    "group_norm",
    "instance_norm",
    "tril",
    "triu",
    "masked_fill",
    "where",
]
UNIT_RULES: dict[str, Rule] = {
    **dict.fromkeys(("add", "sub", "mul", "multiply", "div", "maximum", "minimum"), _joined),
    **dict.fromkeys(PINNED, _pinned),
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "rms_norm": _layer_norm,
    "prelu": _prelu,
}


def _classes(reader: UnitReader) -> tuple[UnitClass, ...]:
    """Groups of numbers with the same occurrences in all tensors and operations, two or more of them."""
    system = reader.system
    left, right = (
        torch.cat([pair[i] for pair in system.equal]).numpy() if system.equal else np.zeros(0, dtype=np.int64)
        for i in (0, 1)
    )
    graph = coo_array((np.ones(len(left), dtype=np.int8), (left, right)), shape=(system.count, system.count))
    group = connected_components(graph, directed=False)[1]
    pinned = {int(group[0])} | {int(g) for ids, _ in system.rows for g in group[ids.numpy()].reshape(-1)}
    # Only whole axes can be permuted: every entry of the axis has a number.
    where: dict[int, list[tuple[str, int, int]]] = {}
    for (name, axis), line in reader.lines.items():
        for position, g in enumerate(group[line.numpy()].tolist()):
            where.setdefault(g, []).append((name, axis, position))
    history: dict[int, list[tuple[str, int]]] = {}
    for name, parts in reader.touched:
        for ids in parts:
            seen, times = np.unique(group[ids.numpy()], return_counts=True)
            for g, count in zip(seen.tolist(), times.tolist(), strict=True):
                history.setdefault(g, []).append((name, count))
    classes: dict[Any, list[int]] = {}
    for g, places in where.items():
        if g not in pinned:
            counts = Counter((name, axis) for name, axis, _ in places)
            key = (tuple(sorted(counts.items())), tuple(history.get(g, ())))
            classes.setdefault(key, []).append(g)
    return tuple(
        UnitClass(len(members), tuple((*axis, _positions(axis, members, where)) for axis, _ in signature))
        for (signature, _), members in classes.items()
        if len(members) > 1
    )


def _positions(
    axis: tuple[str, int], members: list[int], where: dict[int, list[tuple[str, int, int]]]
) -> Tensor:
    """Positions of the members along an axis of a tensor, one row each."""
    return torch.tensor([[at for *place, at in where[g] if tuple(place) == axis] for g in members])
