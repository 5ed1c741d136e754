"""The same function with layered wiring: what later layers still need is carried along.

At each layer the later units and the output read certain linear combinations of what was
computed before it. Their rank is the least number of carriers; a carrier is a ReLU
shifted so that it is always active. The ranges are taken from the linear pieces of the
network itself, with a margin, and the result is certified like any other network.
"""

import numpy as np

from fathometer.approximation.network import SkipNetwork
from fathometer.errors import CapabilityError

_RANK = 1e-11


def layered(network: SkipNetwork, interval: tuple[float, float]) -> SkipNetwork:
    """A layered network of the same depth that computes the same function on the interval.

    Raises:
        CapabilityError: If the network has steps or several inputs.
    """
    if network.wiring == "layered":
        return network
    if network.steps or network.inputs != 1:
        raise CapabilityError(
            "layered wiring is built for ReLU networks of one input; this one has "
            f"{network.steps} steps and {network.inputs} inputs. Use wiring='skip'."
        )
    table, units = network.table(), network.units
    dense = np.zeros((units + 1, units + 1))  # rows: units, output; columns: input, units
    for j in range(units + 1):
        part = slice(table["starts"][j], table["starts"][j + 1])
        dense[j, table["indices"][part]] = table["weights"][part]
    column_layer = np.concatenate([[0], network.layers])
    row_layer = np.append(network.layers, network.depth + 1)
    values = _unit_values(network, interval)
    built: list[tuple[dict[int, float], float, str]] = []
    # current: index in the new network -> (coefficients over old features, shift)
    current: dict[int, tuple[np.ndarray, float]] = {0: (np.eye(units + 1)[0], 0.0)}
    for layer in range(1, network.depth + 1):
        fresh: dict[int, tuple[np.ndarray, float]] = {}
        for j in np.flatnonzero(row_layer[:-1] == layer):
            weights, shift = _expressed(dense[j], current)
            built.append((weights, float(table["biases"][j]) + shift, "relu"))
            fresh[len(built)] = (np.eye(units + 1)[1 + j], 0.0)
        needed = dense[row_layer > layer] * (column_layer < layer)
        for row in _basis(needed):
            low = float((row @ values).min())
            margin = 1e-6 * (1.0 + abs(low))
            weights, shift = _expressed(row, current)
            built.append((weights, shift - low + margin, "relu"))
            fresh[len(built)] = (row, -low + margin)
        current = fresh
    weights, shift = _expressed(dense[-1], current)
    return SkipNetwork(1, built, (weights, float(table["biases"][-1]) + shift))


def _basis(rows: np.ndarray) -> np.ndarray:
    """A well-conditioned basis of the row space, in few nonzero weights where one row spans it."""
    rows = rows[np.abs(rows).max(axis=1, initial=0.0) > 0]
    if not len(rows):
        return rows
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    _, size, right = np.linalg.svd(rows, full_matrices=False)
    rank = int((size > _RANK * size[0]).sum())
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


def _unit_values(network: SkipNetwork, interval: tuple[float, float]) -> np.ndarray:
    """(1 + units, points) input and unit values at every break of the network, where extremes are."""
    from fathometer.approximation.extraction import fast_pieces

    lines = fast_pieces(network, interval)
    points = np.append(lines.left[:, 0], lines.right[-1, 0])
    values = [points]
    for weights, bias, _ in network.definition():
        z = bias + sum((w * values[i] for i, w in weights.items()), np.zeros_like(points))
        values.append(np.maximum(z, 0.0))
    return np.array(values)
