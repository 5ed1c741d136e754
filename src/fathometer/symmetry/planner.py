"""Which kernel computes a tied layer fastest, from counts of operations alone.

No timing is involved, so the choice, and with it every bit of the result, is the same on
every machine. The dense kernel is kept unless another is expected to be clearly cheaper.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from torch import nn

from fathometer.errors import InputError
from fathometer.symmetry.action import Action
from fathometer.symmetry.blocks import LARGEST_BASIS, BlockKernel, Term, block_terms, orbit_terms, terms_cost
from fathometer.symmetry.cycles import CyclesKernel, prime_element, products_left
from fathometer.symmetry.fourier import FourierKernel, abelian_coordinates
from fathometer.symmetry.halves import HalvesKernel, halves_cost, involution
from fathometer.symmetry.kernels import AT_ONCE, DenseKernel
from fathometer.symmetry.rows import RowsKernel, UntiedKernel, free_subgroup
from fathometer.symmetry.tying import Tying

KERNELS = ("auto", "dense", "untied", "halves", "cycles", "rows", "blocks", "fourier", "im2col")
WORTHWHILE = 0.6
"""Share of the dense cost that another kernel must stay below."""

OVERHEAD = {"blocks": 1e4, "im2col": 1e4, "fourier": 0.0, "halves": 7e4, "cycles": 2e5}
"""What the calls of a structured kernel cost, in multiplications a sample of a batch of 64 ..."""

PER_PART = {"blocks": 6e3, "im2col": 6e3, "fourier": 4e4}
"""... and what they cost for each term or each axis of the transform."""

SCATTERED = 1.3
"""How much more costly terms are that do not lie regularly."""

LARGEST_WHOLE = 0.95
"""Share of the dense cost that another kernel must stay below, calls included."""

LARGEST_HALF = 0.85
"""The same for the parts along one element, whose products are as regular."""

SMALLEST = 2e4
"""Multiplications a sample below which the calls of any other kernel cost more than the product."""

LARGEST_SIDE = 1500
"""Indices of one side up to which partitions are looked for."""


def plan(name: str, tying: Tying, in_channels: int, out_channels: int) -> nn.Module:
    """The kernel of that name, or the one expected to be cheapest.

    Raises:
        InputError: If the name is unknown or the kernel does not fit the tying.
    """
    if name not in KERNELS:
        raise InputError(f"kernel is {name!r}; choose one of {', '.join(KERNELS)}.")
    if name == "auto":
        return _cheapest(tying, in_channels, out_channels)
    if name == "dense":
        return DenseKernel(tying)
    if tying.signs is not None or tying.num_orbits == 0:
        raise InputError(f'kernel is "{name}", but the tying is signed or empty; only "dense" computes it.')
    if name in _WITHOUT_GROUP:
        return _WITHOUT_GROUP[name](tying)
    if tying.action is None:
        raise InputError(f'kernel is "{name}", but the tying knows no action; choose "dense" or "im2col".')
    return _of_the_group(name, tying, tying.action)


def _untied(tying: Tying) -> UntiedKernel:
    if not _is_untied(tying):
        raise InputError(
            f'kernel is "untied", but the entries are not {tying.labels.size} weights in their order.'
        )
    return UntiedKernel(tying)


_WITHOUT_GROUP: dict[str, Callable[[Tying], nn.Module]] = {
    "im2col": lambda tying: BlockKernel(tying, orbit_terms(tying), "im2col"),
    "rows": lambda tying: RowsKernel(tying, free_subgroup(tying.action, tying.sizes)),
    "untied": _untied,
}


def _of_the_group(name: str, tying: Tying, action: Action) -> nn.Module:
    """A kernel that needs to know the group."""
    if name == "blocks":
        terms = _basis(tying)
        if terms is None:
            raise InputError(
                f'kernel is "blocks", but it is for dense designs of at most {LARGEST_BASIS} weights and '
                f"{LARGEST_SIDE} indices a side."
            )
        return BlockKernel(tying, terms)
    if name == "halves":
        pair = involution(action)
        if pair is None:
            raise InputError('kernel is "halves", but no element of order two was found in the group.')
        return HalvesKernel(tying, pair)
    if name == "cycles":
        found = prime_element(action)
        if found is None:
            raise InputError(
                'kernel is "cycles", but no element of order 2, 3, 5 or 7 was found in the group.'
            )
        return CyclesKernel(tying, *found)
    coordinates = abelian_coordinates(action)
    if coordinates is None:
        raise InputError(
            'kernel is "fourier", but no abelian subgroup that is semi-regular on both sides was found.'
        )
    return FourierKernel(tying, coordinates)


def _cheapest(tying: Tying, in_channels: int, out_channels: int) -> nn.Module:
    n, m = tying.sizes
    dense = float(n * m * in_channels * out_channels)
    if tying.signs is None and _is_untied(tying):
        return UntiedKernel(tying)
    if tying.signs is not None or tying.num_orbits == 0 or dense < SMALLEST:
        return DenseKernel(tying)
    choices = []
    for cost, kind, found, parts in _structured(tying, in_channels, out_channels):
        whole = cost + OVERHEAD[kind] + PER_PART[kind] * parts
        if cost <= WORTHWHILE * dense and whole <= LARGEST_WHOLE * dense:
            choices.append((whole, kind, found))
    if not choices:
        return _along_one_element(tying, in_channels, out_channels)
    _, kind, found = min(choices, key=lambda c: c[0])
    return FourierKernel(tying, found) if kind == "fourier" else BlockKernel(tying, found, kind)


def _structured(tying: Tying, in_channels: int, out_channels: int) -> Iterator[tuple[float, str, Any, int]]:
    """Cost without calls, kind, what it is made of, and how many terms or axes."""
    n, m = tying.sizes
    edges = int(tying.orbit_sizes.sum())
    if tying.num_orbits * m <= n * m * WORTHWHILE and edges <= n * m * WORTHWHILE:
        terms = orbit_terms(tying)
        yield _cost(terms, m, in_channels, out_channels), "im2col", terms, len(terms)
    if tying.action is None:
        return
    basis = _basis(tying)
    if basis is not None:
        yield _cost(basis, m, in_channels, out_channels), "blocks", basis, len(basis)
    coordinates = abelian_coordinates(tying.action)
    if coordinates is not None:
        cost = FourierKernel.cost(coordinates, in_channels, out_channels)
        yield cost, "fourier", coordinates, coordinates[0].ndim - 1


def _cost(terms: list[Term], outputs: int, in_channels: int, out_channels: int) -> float:
    cost = terms_cost(terms, outputs, in_channels, out_channels)
    return cost if all(term.views for term in terms) else SCATTERED * cost


def _along_one_element(tying: Tying, in_channels: int, out_channels: int) -> nn.Module:
    """By an element of order two or another small prime, or else the matrix as a whole."""
    n, m = tying.sizes
    dense = float(n * m * in_channels * out_channels)
    pair = None if tying.action is None else involution(tying.action)
    found = None if tying.action is None else prime_element(tying.action)
    halved = dense if pair is None else halves_cost(pair, in_channels, out_channels)
    if found is not None and found[1] > 2:
        # a part of the cost is that of filling the entries, and no smaller for fewer products
        cost = (0.05 * n * m + 1.3 * products_left(*found)) * in_channels * out_channels
        if cost + OVERHEAD["cycles"] <= LARGEST_WHOLE * dense and cost < halved:
            return CyclesKernel(tying, *found)
    if pair is not None and halved + OVERHEAD["halves"] <= LARGEST_HALF * dense:
        return HalvesKernel(tying, pair)
    if dense <= AT_ONCE:
        return DenseKernel(tying)
    rows = RowsKernel(tying, free_subgroup(tying.action, tying.sizes))
    return rows if rows.entries.by_runs else DenseKernel(tying)


def _is_untied(tying: Tying) -> bool:
    """Whether the weights are the matrix, entry by entry."""
    return tying.num_orbits == tying.labels.size and bool((np.diff(tying.labels.ravel()) == 1).all())


def _basis(tying: Tying) -> list[Term] | None:
    whole = tying.design == "dense" and tying.action is not None and tying.signs is None
    if not whole or tying.num_orbits > LARGEST_BASIS or max(tying.sizes) > LARGEST_SIDE:
        return None
    return block_terms(tying, tying.action)  # type: ignore[arg-type]
