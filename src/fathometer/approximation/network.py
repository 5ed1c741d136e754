"""Networks as exact graphs: every unit, every wire, every count.

A hidden unit is a ReLU ``max(0, z)`` or a binary step ``1{z >= 0}`` (one *at* zero)
of an affine function of the inputs and of any earlier units (Liang & Srikant 2017,
sec. 2; the figures of the paper use such skip edges). The affine output is not
counted. ``wiring`` is "layered" when every layer reads the layer before it and nothing
else, and "skip" otherwise: the same function needs up to three times the units then.

Cost of a call: one product with the dense weights of each unit, in float64.
"""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fathometer.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from fathometer.drawing.picture import Picture

Unit = tuple[Mapping[int, float], float, str]
_BLOCK = 1 << 15


@dataclass(frozen=True, eq=False)
class Affine:
    """An affine function of inputs and units: ``{index: weight}`` and a constant."""

    weights: Mapping[int, float]
    constant: float = 0.0

    def __add__(self, other: "Affine | float") -> "Affine":
        if not isinstance(other, Affine):
            return Affine(self.weights, self.constant + other)
        total = dict(self.weights)
        for index, weight in other.weights.items():
            total[index] = total.get(index, 0.0) + weight
        return Affine(total, self.constant + other.constant)

    __radd__ = __add__

    def __mul__(self, factor: float) -> "Affine":
        return Affine({i: factor * w for i, w in self.weights.items()}, factor * self.constant)

    __rmul__ = __mul__

    def __neg__(self) -> "Affine":
        return self * -1.0

    def __sub__(self, other: "Affine | float") -> "Affine":
        return self + (-other)

    def __rsub__(self, other: float) -> "Affine":
        return -self + other


class Builder:
    """Collects units one after the other; what it returns are affine functions to go on with."""

    def __init__(self, inputs: int) -> None:
        self.inputs = inputs
        self.units: list[Unit] = []

    def variable(self, index: int = 0) -> Affine:
        """One input."""
        return Affine({index: 1.0})

    def relu(self, argument: Affine) -> Affine:
        """A new ReLU unit."""
        return self._unit(argument, "relu")

    def step(self, argument: Affine) -> Affine:
        """A new step unit."""
        return self._unit(argument, "step")

    def network(self, output: Affine) -> "SkipNetwork":
        """The network of all units so far, with this affine output."""
        return SkipNetwork(self.inputs, self.units, (output.weights, output.constant))

    def _unit(self, argument: Affine, kind: str) -> Affine:
        weights = {i: w for i, w in argument.weights.items() if w != 0.0}
        self.units.append((weights, argument.constant, kind))
        return Affine({self.inputs + len(self.units) - 1: 1.0})


class SkipNetwork:
    """A network of ReLU and step units on a graph without cycles.

    Args:
        inputs: Number of inputs d; they have the indices 0..d-1.
        units: One ``(weights, bias, "relu" or "step")`` for each hidden unit, in order;
            ``weights`` maps the index of an input or of an *earlier* unit (the first
            unit has index d) to a weight.
        output: ``(weights, bias)`` of the affine output, over inputs and all units.

    >>> tent = SkipNetwork(1, [({0: 1.0}, -0.5, "relu")], ({0: 2.0, 1: -4.0}, 0.0))
    >>> tent(np.array([0.0, 0.25, 0.5, 1.0])).tolist()
    [0.0, 0.5, 1.0, 0.0]
    >>> tent.units, tent.depth, tent.wiring
    (1, 1, 'skip')

    Raises:
        InputError: If a unit reads itself or a later one, a weight is not finite, or an
            activation is neither "relu" nor "step".
    """

    def __init__(
        self, inputs: int, units: Sequence[Unit], output: tuple[Mapping[int, float], float] | None = None
    ) -> None:
        if isinstance(inputs, bool) or not isinstance(inputs, int) or inputs < 1:
            raise InputError(f"inputs is {inputs!r}; a network has a whole number of inputs, at least 1.")
        if output is None:
            raise InputError("output is missing; pass output=(weights, bias), for example ({0: 1.0}, 0.0).")
        self.inputs = inputs
        checked = [_checked_unit(inputs, j, unit) for j, unit in enumerate(units)]
        self._rows = [rows for rows, _, _ in checked]
        self._biases = np.array([bias for _, bias, _ in checked], dtype=float)
        self._steps = np.array([kind == "step" for _, _, kind in checked], dtype=bool)
        self._rows.append(_checked_weights(output[0], inputs + len(checked), "the output"))
        self._constant = _checked_number(output[1], "the bias of the output")

    @property
    def units(self) -> int:
        """Number of hidden units, ReLUs and steps."""
        return len(self._biases)

    @property
    def steps(self) -> int:
        """Number of binary step units."""
        return int(self._steps.sum())

    @property
    def relus(self) -> int:
        """Number of ReLU units."""
        return self.units - self.steps

    @cached_property
    def layers(self) -> np.ndarray:
        """(units,) layer of each unit, from 1: one more than the deepest unit that it reads."""
        layer = np.zeros(self.inputs + self.units, dtype=int)
        for j, (indices, _) in enumerate(self._rows[:-1]):
            layer[self.inputs + j] = 1 + (layer[indices].max() if len(indices) else 0)
        return layer[self.inputs :]

    @property
    def depth(self) -> int:
        """Number of hidden layers: units on the longest path."""
        return int(self.layers.max()) if self.units else 0

    @property
    def widths(self) -> tuple[int, ...]:
        """Units in each hidden layer."""
        return tuple(int(n) for n in np.bincount(self.layers, minlength=self.depth + 1)[1:])

    @property
    def parameters(self) -> int:
        """Nonzero weights and biases, those of the output included."""
        weights = sum(len(indices) for indices, _ in self._rows)
        return weights + int(np.count_nonzero(self._biases)) + int(self._constant != 0)

    @cached_property
    def wiring(self) -> Literal["skip", "layered"]:
        """Either "layered" (every layer reads only the one before it, the output the last) or "skip"."""
        layer = np.concatenate([np.zeros(self.inputs, dtype=int), self.layers, [self.depth + 1]])
        for j, (indices, _) in enumerate(self._rows):
            if np.any(layer[indices] != layer[self.inputs + j] - 1):
                return "skip"
        return "layered"

    @property
    def largest_weight(self) -> float:
        """Largest absolute weight or bias."""
        weights = max((float(np.abs(w).max()) for _, w in self._rows if len(w)), default=0.0)
        return max(weights, float(np.abs(self._biases).max(initial=0.0)), abs(self._constant))

    def definition(self) -> Iterator[Unit]:
        """The units as they were given: ``(weights, bias, activation)``."""
        for (indices, weights), bias, step in zip(self._rows, self._biases, self._steps, strict=False):
            pairs = dict(zip(indices.tolist(), weights.tolist(), strict=True))
            yield pairs, float(bias), "step" if step else "relu"

    @property
    def output(self) -> tuple[dict[int, float], float]:
        """Weights and bias of the affine output."""
        indices, weights = self._rows[-1]
        return dict(zip(indices.tolist(), weights.tolist(), strict=True)), self._constant

    def table(self) -> dict[str, np.ndarray]:
        """All weights as arrays: row pointers (units + 2,), indices, weights, biases and kinds.

        Rows are the units in order, then the output; ``steps`` marks step units.
        """
        lengths = [len(indices) for indices, _ in self._rows]
        return {
            "inputs": np.array(self.inputs),
            "starts": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            "indices": np.concatenate([indices for indices, _ in self._rows]).astype(np.int64),
            "weights": np.concatenate([weights for _, weights in self._rows]),
            "biases": np.append(self._biases, self._constant),
            "steps": self._steps.copy(),
        }

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> "SkipNetwork":
        """The network that `table` describes."""
        starts, biases = np.asarray(table["starts"]), np.asarray(table["biases"])
        indices, weights = np.asarray(table["indices"]), np.asarray(table["weights"])
        rows = [
            dict(zip(indices[a:b].tolist(), weights[a:b].tolist(), strict=True))
            for a, b in itertools.pairwise(starts)
        ]
        kinds = ["step" if s else "relu" for s in np.asarray(table["steps"])]
        units = list(zip(rows[:-1], biases[:-1].tolist(), kinds, strict=True))
        return cls(int(table["inputs"]), units, (rows[-1], float(biases[-1])))

    def rounded(self, dtype: str) -> "SkipNetwork":
        """The network whose weights and biases are those that a dtype can hold."""
        if dtype == "float64":
            return self
        import torch

        table = self.table()
        for name in ("weights", "biases"):
            table[name] = torch.from_numpy(table[name]).to(getattr(torch, dtype)).double().numpy()
        return SkipNetwork.from_table(table)

    def to_json(self) -> str:
        """The whole network as JSON; numbers are hexadecimal floats, so nothing is rounded."""
        units = [
            {"weights": {str(i): w.hex() for i, w in weights.items()}, "bias": bias.hex(), "activation": kind}
            for weights, bias, kind in self.definition()
        ]
        weights, bias = self.output
        output = {"weights": {str(i): w.hex() for i, w in weights.items()}, "bias": bias.hex()}
        return json.dumps({"inputs": self.inputs, "units": units, "output": output})

    @classmethod
    def from_json(cls, text: str) -> "SkipNetwork":
        """Read what `to_json` wrote.

        Raises:
            InputError: If the text is not such a network.
        """

        def row(item: dict[str, Any]) -> tuple[dict[int, float], float]:
            return {int(i): float.fromhex(w) for i, w in item["weights"].items()}, float.fromhex(item["bias"])

        try:
            data = json.loads(text)
            units = [(*row(item), item["activation"]) for item in data["units"]]
            return cls(data["inputs"], units, row(data["output"]))
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as cause:
            raise InputError(f"text is not a network written by to_json ({cause!r}).") from None

    def __call__(self, x: Any) -> Any:
        """Outputs (n,) at points (n,) or (n, d), in float64; torch in, torch out.

        Raises:
            InputError: If the points have another shape or are not finite.
        """
        given_torch = type(x).__module__.partition(".")[0] == "torch"
        points = np.asarray(x.detach().cpu() if given_torch else x, dtype=float)
        single = points.ndim == 0 and self.inputs == 1
        points = np.atleast_1d(points)
        if points.ndim == 1 and self.inputs == 1:
            points = points[:, None]
        if points.ndim != 2 or points.shape[1] != self.inputs:
            wanted = "(n,) or (n, 1)" if self.inputs == 1 else f"(n, {self.inputs})"
            raise InputError(f"x has shape {points.shape}; this network takes {wanted}.")
        if not np.isfinite(points).all():
            raise InputError(f"x is not finite at row {int(np.argmin(np.isfinite(points).all(axis=1)))}.")
        parts = [self._evaluate(points[i : i + _BLOCK]) for i in range(0, len(points), _BLOCK)]
        values = np.concatenate(parts) if parts else np.empty(0)
        if given_torch:
            import torch

            return torch.from_numpy(values)[0] if single else torch.from_numpy(values)
        return float(values[0]) if single else values

    def _evaluate(self, points: np.ndarray) -> np.ndarray:
        values = np.empty((self.inputs + self.units, len(points)))
        values[: self.inputs] = points.T
        for j, (indices, weights) in enumerate(self._rows[:-1]):
            z = weights @ values[indices] + self._biases[j]
            values[self.inputs + j] = (z >= 0) if self._steps[j] else np.maximum(z, 0.0)
        indices, weights = self._rows[-1]
        return weights @ values[indices] + self._constant

    @property
    def module(self) -> "nn.Module":
        """A new ``nn.Module`` in float64: (n, d) to (n, 1), or (n,) to (n,) for one input."""
        from fathometer.approximation.export import to_module

        return to_module(self)

    def to_onnx(self, path: str | Path) -> Path:
        """Write an ONNX model in float64 and return its path (needs the extra ``onnx``)."""
        from fathometer.approximation.export import to_onnx

        return to_onnx(self, path)

    def picture(self) -> "Picture":
        """The network drawn: inputs left, one column a layer, output right."""
        from fathometer.approximation.pictures import network_picture

        return network_picture(self)

    def __repr__(self) -> str:
        kinds = f"{self.relus} ReLU" + (f" + {self.steps} step" if self.steps else "")
        return f"<{self.wiring} network: {self.inputs} in, {kinds} units, depth {self.depth}>"


def _checked_unit(inputs: int, j: int, unit: Unit) -> tuple[tuple[np.ndarray, np.ndarray], float, str]:
    try:
        weights, bias, kind = unit
    except (TypeError, ValueError):
        raise InputError(f'unit {j} is {unit!r}; a unit is (weights, bias, "relu" or "step").') from None
    if kind not in ("relu", "step"):
        raise InputError(f'unit {j} has the activation {kind!r}; there are "relu" and "step".')
    return (
        _checked_weights(weights, inputs + j, f"unit {j}"),
        _checked_number(bias, f"the bias of unit {j}"),
        kind,
    )


def _checked_weights(weights: Mapping[int, float], limit: int, who: str) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(weights, Mapping):
        raise InputError(
            f"{who} has weights of type {type(weights).__name__}; pass a mapping {{index: weight}}."
        )
    for index, weight in weights.items():
        if isinstance(index, bool) or not isinstance(index, int | np.integer) or not 0 <= index < limit:
            raise InputError(
                f"{who} reads index {index!r}; it may read 0..{limit - 1}, inputs first, then earlier units."
            )
        _checked_number(weight, f"the weight of {who} from index {index}")
    kept = sorted((int(i), float(w)) for i, w in weights.items() if w != 0)
    return np.array([i for i, _ in kept], dtype=np.int64), np.array([w for _, w in kept], dtype=float)


def _checked_number(value: float, what: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InputError(f"{what} is {value!r}; a real number is needed.") from None
    if not np.isfinite(number):
        raise InputError(f"{what} is {number}; all weights are finite.")
    return number
