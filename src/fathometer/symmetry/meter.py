"""Which symmetry has this layer learned? A trained weight against a library of actions.

For every candidate the relative distance to the equivariant matrices is measured, and set
beside what a matrix without structure would give: with K weights in E entries, the
explained share of the squared norm of independent normal entries is Beta(K/2, (E-K)/2),
of mean K / E; ``z`` counts standard deviations above that mean. A small group always
explains at least as much as a larger one around it, so candidates are ranked by
``evidence``, half the difference of the Bayesian information criterion (in nats) to a matrix
without structure: ``-(E log(defect**2) + K log(E)) / 2``. ``O(N M)`` a candidate.
"""

import math
from collections.abc import Sequence
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fathometer.errors import InputError
from fathometer.results import Row, Table
from fathometer.symmetry.action import Action
from fathometer.symmetry.generators import check_count
from fathometer.symmetry.measure import defect

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT = 1 << 24
"""Largest number of index pairs a candidate is measured on."""


def candidates(inputs: int, outputs: int) -> list[Action]:
    """Actions that a layer from N inputs to M outputs may have learned.

    Equal sides: shifts, shifts with reflections, reversal, all permutations, blocks, arrays,
    pairs, and the moves of a square image. Unequal sides: the same on the inputs with outputs
    that do not move, and shifts where one side is a whole multiple of the other.
    """
    return list(_same_side(inputs)) if inputs == outputs else list(_between(inputs, outputs))


def meter(
    weight: Any,
    actions: Sequence[Action] | None = None,
    *,
    channels: tuple[int, int] = (1, 1),
) -> Table:
    """Measure a layer against candidate actions, the best first.

    Args:
        weight: (M, N) numpy or torch, a `torch.nn.Linear`, or a convolution, whose filters
            are then measured under turns and flips of their window.
        actions: Candidates; None for the library that fits the sizes.
        channels: (in_channels, out_channels) where rows and columns are flattened as
            (channel, index).

    Returns:
        Rows with action, order, weights, entries, defect, expected (the defect of a matrix
        without structure), explained (0 none to 1 all of what could be), z, evidence, kind and error.

    Raises:
        InputError: If the weight is not a finite matrix that the channels divide.
    """
    W, channels = _weight(weight, channels)
    in_channels, out_channels = (check_count(c, "channels") for c in channels)
    if W.ndim != 2 or W.shape[1] % in_channels or W.shape[0] % out_channels:
        raise InputError(
            f"weight has shape {tuple(W.shape)}; channels {tuple(channels)} must divide its sides."
        )
    n, m = W.shape[1] // in_channels, W.shape[0] // out_channels
    notes: list[str] = []
    if actions is None:
        actions = _filters(weight, n) if isinstance(weight, nn.Conv1d | nn.Conv2d) else candidates(n, m)
    rows = []
    for action in actions:
        if tuple(action.sizes) != (n, m):
            notes.append(f"{action.name} acts on {tuple(action.sizes)} indices, not {(n, m)}.")
        elif n * m > LIMIT:
            notes.append(f"{action.name}: {n * m} index pairs are more than {LIMIT}.")
        else:
            rows.append(_row(W, action, in_channels * out_channels))
    rows.sort(key=lambda row: -row.evidence)
    return Table(
        title=f"Symmetries of a layer from {n} inputs to {m} outputs", rows=tuple(rows), notes=tuple(notes)
    )


def _row(W: Tensor, action: Action, pairs: int) -> Row:
    entries, weights = W.numel(), action.tying().num_orbits * pairs
    found = defect(W, action)
    share, mean = 1 - found**2, weights / entries
    # standard deviation of the beta distribution named above
    spread = math.sqrt(2 * mean * (1 - mean) / (entries + 2))
    return Row(
        action=action.name,
        order=action.order if action.order < 10**12 else f"{Decimal(action.order):.2e}",
        weights=weights,
        entries=entries,
        defect=found,
        expected=math.sqrt(1 - mean),
        explained=(share - mean) / (1 - mean) if mean < 1 else 0.0,
        z=(share - mean) / spread if spread > 0 else 0.0,
        evidence=-(entries * math.log(max(found**2, 1e-30)) + weights * math.log(entries)) / 2,
        kind="exact",
        error=0.0,
    )


def _weight(weight: Any, channels: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
    if isinstance(weight, nn.Conv1d | nn.Conv2d):
        filters = weight.weight.detach()
        return filters.flatten(1), (filters.shape[1], filters.shape[0])
    if isinstance(weight, nn.Linear):
        return weight.weight.detach(), channels
    return torch.as_tensor(weight).detach(), channels


def _filters(layer: Any, size: int) -> list[Action]:
    window = layer.weight.shape[2:]
    if len(window) == 1:
        return [Action([list(range(size))[::-1]], [[0]], name="reversed window")] if size > 1 else []
    height, width = window
    grid = partial(Action.grid, height, width, translations=False, outputs="invariant")
    found = [grid(flips=True)] if size > 1 else []
    if height == width and size > 1:
        found += [grid(rotations=True), grid(rotations=True, flips=True)]
    return found + ([Action.symmetric(size, outputs="invariant")] if size > 1 else [])


def _same_side(n: int) -> "Iterator[Action]":
    if n < 2:
        return
    shift = [(i + 1) % n for i in range(n)]
    mirror = list(range(n))[::-1]
    yield Action.cyclic(n)
    if n > 2:
        yield Action([shift], [[(i - 1) % n for i in range(n)]], name=f"reverse convolution({n})")
        yield Action.dihedral(n)
    yield Action([mirror], name=f"mirror({n})")
    yield Action.symmetric(n)
    for a in _middle_divisors(n):
        b = n // a
        yield Action.wreath(Action.symmetric(a), Action.symmetric(b))
        yield Action.product(Action.symmetric(b), Action.symmetric(a))
    side = math.isqrt(n)
    if side * side == n and side > 1:
        yield Action.tuples(side, 2)
        for still in (False, True):
            yield Action.grid(side, side, translations=still, flips=True)
            yield Action.grid(side, side, translations=still, rotations=True, flips=True)
        yield Action.grid(side, side)


def _between(n: int, m: int) -> "Iterator[Action]":
    short, long = min(n, m), max(n, m)
    if short > 1 and long % short == 0:
        left, right = [(i + 1) % n for i in range(n)], [(i + 1) % m for i in range(m)]
        yield Action([left], [right], name=f"shifts of {n} and {m}")
    rest = list(range(m))
    if n > 1:
        swaps = Action.symmetric(n).inputs
        yield Action(swaps, [rest] * len(swaps), name=f"symmetric({n}), outputs still")
        yield Action([[(i + 1) % n for i in range(n)]], [rest], name=f"cyclic({n}), outputs still")
        yield Action([list(range(n))[::-1]], [rest], name=f"mirror({n}), outputs still")
    side = math.isqrt(n)
    if side * side == n and side > 1:
        for options in ({"flips": True}, {"rotations": True}, {"rotations": True, "flips": True}):
            moves = Action.grid(side, side, translations=False, **options)
            yield Action(moves.inputs, [rest] * len(moves.inputs), name=f"{moves.name}, outputs still")


def _middle_divisors(n: int) -> list[int]:
    """The divisors next to the square root, on both sides."""
    proper = [a for a in range(2, n) if n % a == 0]
    root = math.isqrt(n)
    below, above = [a for a in proper if a <= root][-1:], [a for a in proper if a > root][:1]
    return sorted({*below, *above})
