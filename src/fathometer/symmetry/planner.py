"""Which kernel computes a tied layer fastest, from counts of operations alone.

No timing is involved, so the choice, and with it every bit of the result, is the same on
every machine. The dense kernel is kept unless another is expected to be clearly cheaper.
"""

from collections.abc import Callable

import numpy as np
from torch import nn

from fathometer.errors import InputError
from fathometer.symmetry.action import Action
from fathometer.symmetry.blocks import LARGEST_BASIS, BlockKernel, Term, block_terms, orbit_terms, terms_cost
from fathometer.symmetry.fourier import FourierKernel, abelian_coordinates
from fathometer.symmetry.halves import HalvesKernel, halves_cost, involution
from fathometer.symmetry.kernels import DenseKernel
from fathometer.symmetry.rows import RowsKernel, UntiedKernel, free_subgroup
from fathometer.symmetry.tying import Tying

KERNELS = ("auto", "dense", "untied", "halves", "rows", "blocks", "fourier", "im2col")
WORTHWHILE = 0.6
"""Share of the dense cost that another kernel must stay below."""

OVERHEAD = 7e4
"""What the calls of a structured kernel cost, in multiplications a sample of a batch of 64."""

LARGEST_HALF = 0.85
"""The same for the two halves by an element of order two, whose products are as regular."""

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
    if tying.signs is not None or tying.num_orbits == 0 or WORTHWHILE * dense < OVERHEAD:
        return DenseKernel(tying)
    choices: list[tuple[float, str, object]] = []
    edges = int(tying.orbit_sizes.sum())
    if tying.num_orbits * m <= n * m * WORTHWHILE and edges <= n * m * WORTHWHILE:
        terms = orbit_terms(tying)
        choices.append((terms_cost(terms, m, in_channels, out_channels), "im2col", terms))
    if tying.action is not None:
        basis = _basis(tying)
        if basis is not None:
            choices.append((terms_cost(basis, m, in_channels, out_channels), "blocks", basis))
        coordinates = abelian_coordinates(tying.action)
        if coordinates is not None:
            choices.append(
                (FourierKernel.cost(coordinates, in_channels, out_channels), "fourier", coordinates)
            )
    cost, kind, found = min(choices, key=lambda c: c[0], default=(dense, "dense", None))
    if cost + OVERHEAD > WORTHWHILE * dense:
        return _halves_or_dense(tying, in_channels, out_channels)
    return FourierKernel(tying, found) if kind == "fourier" else BlockKernel(tying, found, kind)  # type: ignore[arg-type]


def _halves_or_dense(tying: Tying, in_channels: int, out_channels: int) -> nn.Module:
    pair = None if tying.action is None else involution(tying.action)
    n, m = tying.sizes
    dense = float(n * m * in_channels * out_channels)
    if pair is not None and halves_cost(pair, in_channels, out_channels) + OVERHEAD <= LARGEST_HALF * dense:
        return HalvesKernel(tying, pair)
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
