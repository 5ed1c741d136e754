"""The linear pieces of a network of one input.

A network of ReLUs and steps is affine between finitely many breaks. They are found by
walking through the units in order and splitting an interval wherever a unit
changes side inside it: the work is pieces times wires, and only one path is in memory.

Two engines do the walk. `exact_pieces` uses rational numbers, is right to the last bit and
takes steps and ReLUs. `fast_pieces` is compiled, uses pairs of floats (106 bits) for ReLU
networks of up to millions of pieces, and bounds for every piece how far the true network
can be from the line it reports: rounding of all earlier units and misplaced breaks
included. The bound is rigorous, because a ReLU never enlarges an error.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from fathometer.approximation.expression import flint
from fathometer.approximation.network import SkipNetwork
from fathometer.errors import BudgetError, InputError

MOST_EXACT_PIECES = 1 << 15
MOST_PIECES = 1 << 22


@dataclass(frozen=True, eq=False, kw_only=True)
class Lines:
    """Linear pieces in order; every number is the pair sum ``[:, 0] + [:, 1]``.

    Attributes:
        left, right: (pieces, 2) ends.
        at_left, at_right: (pieces, 2) one-sided values of the line at the ends.
        deviation: (pieces,) bound on ``|network - line|`` inside the piece.
    """

    left: np.ndarray
    right: np.ndarray
    at_left: np.ndarray
    at_right: np.ndarray
    deviation: np.ndarray

    def __len__(self) -> int:
        return len(self.deviation)


def exact_pieces(
    network: SkipNetwork, interval: tuple[float, float], limit: int = MOST_EXACT_PIECES
) -> Iterator[tuple[Any, Any, Any, Any]]:
    """Pieces ``(a, b, value at a+, value at b-)`` as rational numbers (``flint.fmpq``), left to right.

    The weights are taken as the exact binary fractions that they are.

    Raises:
        InputError: If the network has more than one input.
        BudgetError: If there are more than ``limit`` pieces.
    """
    fmpq = flint().fmpq
    rows, (out, constant) = _rational_rows(network, fmpq)
    a, b = (rational(end, fmpq) for end in interval)
    stack = [(0, a, b, [a], [b])]
    found = 0
    while stack:
        j, a, b, at_a, at_b = stack.pop()
        while j < len(rows):
            wires, bias, step = rows[j]
            za = bias + sum(w * at_a[i] for i, w in wires)
            zb = bias + sum(w * at_b[i] for i, w in wires)
            if (za < 0 < zb) or (zb < 0 < za):
                t = za / (za - zb)
                c = a + (b - a) * t
                at_c = [va + (vb - va) * t for va, vb in zip(at_a, at_b, strict=True)]
                stack.append((j, c, b, list(at_c), at_b))
                b, at_b = c, at_c
                continue
            if step:
                inside = za >= 0 and zb >= 0  # an affine function that is 0 at one end has one sign inside
                at_a.append(fmpq(1 if inside else 0))
                at_b.append(fmpq(1 if inside else 0))
            else:
                at_a.append(max(za, 0))
                at_b.append(max(zb, 0))
            j += 1
        found += 1
        if found > limit:
            raise BudgetError(
                f"the network has more than {limit} linear pieces on the interval; exact enumeration stops "
                "there. A structural certificate, or a shorter interval, would fit."
            )
        yield a, b, constant + sum(w * at_a[i] for i, w in out), constant + sum(w * at_b[i] for i, w in out)


def exact_value(network: SkipNetwork, point: Any) -> Any:
    """The network at a rational point, exactly (``step(0) = 1``)."""
    fmpq = flint().fmpq
    rows, (out, constant) = _rational_rows(network, fmpq)
    values = [point]
    for wires, bias, step in rows:
        z = bias + sum(w * values[i] for i, w in wires)
        values.append(fmpq(int(z >= 0)) if step else max(z, fmpq(0)))
    return constant + sum(w * values[i] for i, w in out)


def fast_pieces(network: SkipNetwork, interval: tuple[float, float], limit: int = MOST_PIECES) -> Lines:
    """Pieces of a ReLU network in pairs of floats, with a rigorous deviation for each.

    Raises:
        InputError: If the network has steps or more than one input.
        BudgetError: If there are more than ``limit`` pieces.
    """
    _check_one_input(network)
    if network.steps:
        raise InputError("the network has steps; their jumps need the exact engine.")
    from fathometer.approximation.pieces_kernel import walk

    table = network.table()
    capacity = 1 << 12
    while True:
        start, stop = (float(end) for end in interval)
        data: Any = walk(
            table["starts"], table["indices"], table["weights"], table["biases"], start, stop, capacity
        )
        if len(data) <= capacity:
            break
        if capacity >= limit:
            raise BudgetError(
                f"the network has more than {limit} linear pieces on the interval. A structural "
                "certificate, or a shorter interval, would fit."
            )
        capacity = min(capacity * 16, limit)
    return Lines(
        left=data[:, 0:2],
        right=data[:, 2:4],
        at_left=data[:, 4:6],
        at_right=data[:, 6:8],
        deviation=data[:, 8],
    )


def rational(value: float, fmpq: Any) -> Any:
    """A float as the fraction that it is."""
    return fmpq(*float(value).as_integer_ratio())


def _rational_rows(network: SkipNetwork, fmpq: Any) -> tuple[list[Any], tuple[list[Any], Any]]:
    _check_one_input(network)
    rows = [
        ([(i, rational(w, fmpq)) for i, w in weights.items()], rational(bias, fmpq), kind == "step")
        for weights, bias, kind in network.definition()
    ]
    weights, bias = network.output
    return rows, ([(i, rational(w, fmpq)) for i, w in weights.items()], rational(bias, fmpq))


def _check_one_input(network: SkipNetwork) -> None:
    if network.inputs != 1:
        raise InputError(f"the network has {network.inputs} inputs; linear pieces are listed along one.")
