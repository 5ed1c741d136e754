"""The same function with layered wiring: what later layers still need is carried along.

At each layer the later units and the output read certain linear combinations of what was
computed before it. Their rank is the least number of carriers; a carrier is a ReLU
shifted so that it is always active. Its range is taken from the linear pieces of a ReLU network of
one input, and from interval arithmetic for steps and several inputs; with a margin, and the result is
certified like any other network.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from fathometer.approximation.network import SkipNetwork

_RANK = 1e-11


def layered(network: SkipNetwork, domain: Any) -> SkipNetwork:
    """A layered network of the same depth that computes the same function on the domain.

    Args:
        network: Any network.
        domain: ``(a, b)``, or one pair an input.
    """
    if network.wiring == "layered":
        return network
    d = network.inputs
    box = np.asarray(domain, dtype=float).reshape(-1, 2)
    table, units = network.table(), network.units
    dense = np.zeros((units + 1, units + d))  # rows: units, output; columns: inputs, units
    for j in range(units + 1):
        part = slice(table["starts"][j], table["starts"][j + 1])
        dense[j, table["indices"][part]] = table["weights"][part]
    column_layer = np.concatenate([np.zeros(d, dtype=int), network.layers])
    row_layer = np.append(network.layers, network.depth + 1)
    lowest = _lowest(network, box)
    unit = np.eye(units + d)
    built: list[tuple[dict[int, float], float, str]] = []
    # current: index in the new network -> (coefficients over old features, shift)
    current: dict[int, tuple[np.ndarray, float]] = {k: (unit[k], 0.0) for k in range(d)}
    for layer in range(1, network.depth + 1):
        fresh: dict[int, tuple[np.ndarray, float]] = {}
        for j in np.flatnonzero(row_layer[:-1] == layer):
            weights, shift = _expressed(dense[j], current)
            built.append(
                (weights, float(table["biases"][j]) + shift, "step" if table["steps"][j] else "relu")
            )
            fresh[d - 1 + len(built)] = (unit[d + j], 0.0)
        needed = dense[row_layer > layer] * (column_layer < layer)
        for row in _basis(needed):
            low = lowest(row)
            margin = 1e-6 * (1.0 + abs(low))
            weights, shift = _expressed(row, current)
            built.append((weights, shift - low + margin, "relu"))
            fresh[d - 1 + len(built)] = (row, -low + margin)
        current = fresh
    weights, shift = _expressed(dense[-1], current)
    return SkipNetwork(d, built, (weights, float(table["biases"][-1]) + shift))


def _basis(rows: np.ndarray) -> np.ndarray:
    """A well-conditioned basis of the row space, in few nonzero weights where one row spans it."""
    rows = rows[np.abs(rows).max(axis=1, initial=0.0) > 0]
    if not len(rows):
        return rows
    used = np.flatnonzero(np.abs(rows).max(axis=0))
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    _, size, right = np.linalg.svd(rows, full_matrices=False)
    rank = int((size > _RANK * size[0]).sum())
    if rank == len(used):  # the features themselves: bits stay bits
        return np.eye(rows.shape[1])[used]
    return rows[:1] if rank == 1 else right[:rank]


def _expressed(
    row: np.ndarray, current: dict[int, tuple[np.ndarray, float]]
) -> tuple[dict[int, float], float]:
    """Weights over the current layer that give a functional of the old features, and the constant left."""
    if not row.any():
        return {}, 0.0
    indices = list(current)
    columns = np.column_stack([current[i][0] for i in indices])
    solution = np.linalg.lstsq(columns, row, rcond=None)[0]
    solution[np.abs(solution) < 1e-14 * np.abs(solution).max()] = 0.0
    shift = -sum(float(c) * current[i][1] for c, i in zip(solution, indices, strict=True))
    return {i: float(c) for i, c in zip(indices, solution, strict=True) if c}, shift


def _lowest(network: SkipNetwork, box: np.ndarray) -> Callable[[np.ndarray], float]:
    """Least value of any combination of inputs and units over the box, or a bound below it."""
    if network.inputs == 1 and not network.steps:
        from fathometer.approximation.extraction import fast_pieces

        lines = fast_pieces(network, (box[0, 0], box[0, 1]))
        points = np.append(lines.left[:, 0], lines.right[-1, 0])
        values = [points]  # at every break, where extremes are
        for weights, bias, _ in network.definition():
            z = bias + sum((w * values[i] for i, w in weights.items()), np.zeros_like(points))
            values.append(np.maximum(z, 0.0))
        table = np.array(values)
        return lambda row: float((row @ table).min())
    ends = [(float(a), float(b)) for a, b in box]
    for weights, bias, kind in network.definition():
        low = bias + sum(min(w * ends[i][0], w * ends[i][1]) for i, w in weights.items())
        high = bias + sum(max(w * ends[i][0], w * ends[i][1]) for i, w in weights.items())
        ends.append(
            (float(low >= 0), float(high >= 0)) if kind == "step" else (max(low, 0.0), max(high, 0.0))
        )
    low, high = np.array(ends).T
    return lambda row: float(np.minimum(row * low, row * high).sum())
