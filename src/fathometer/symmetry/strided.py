"""Pooling and broadcasting by strides: sums over views of the signal instead of sparse products.

Blocks of equal size that lie regularly (all indices, rows, columns, diagonals, single
indices) are views of the signal with strides of their own. Then a term of the basis is a
sum over a view, a product of channel matrices, and an addition into a view, and its
gradient the same backwards. Set layers, the 15 operations on pairs, arrays and hierarchies
are of this kind.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class View:
    """C blocks of s indices each, by offset and strides.

    Attributes:
        offset: The first index of the first block.
        blocks: (lengths, strides) from block to block; the product of the lengths is C.
        inside: (lengths, strides) within a block.
    """

    offset: int
    blocks: tuple[tuple[int, ...], tuple[int, ...]]
    inside: tuple[tuple[int, ...], tuple[int, ...]]

    @cached_property
    def count(self) -> int:
        """Number of blocks."""
        return math.prod(self.blocks[0])

    def of(self, x: Tensor) -> Tensor:
        """The view (batch, channels, *blocks, *inside) of a contiguous (batch, channels, size)."""
        sizes = (*x.shape[:2], *self.blocks[0], *self.inside[0])
        strides = (*x.stride()[:2], *self.blocks[1], *self.inside[1])
        return x.as_strided(sizes, strides, x.storage_offset() + self.offset)

    def pool(self, x: Tensor) -> Tensor:
        """Sums over the blocks, (batch, channels, C)."""
        view = self.of(x)
        if self.inside[0]:
            view = view.sum(tuple(range(2 + len(self.blocks[0]), view.ndim)))
        return view.reshape(*x.shape[:2], self.count)

    def add(self, values: Tensor, x: Tensor) -> None:
        """Add (batch, channels, C) to every index of the blocks, in place."""
        shape = (*x.shape[:2], *self.blocks[0], *(1 for _ in self.inside[0]))
        self.of(x).add_(values.reshape(shape))

    def is_all(self, size: int) -> bool:
        """Whether it is all indices as one block."""
        return self.offset == 0 and self.count == 1 and self.inside == ((size,), (1,))

    def covers(self, size: int) -> bool:
        """Whether it is the signal itself."""
        return self.offset == 0 and self.blocks == ((size,), (1,)) and not self.inside[0]


def view_of(table: np.ndarray) -> View | None:
    """The view whose blocks are the rows (C, s), if they lie regularly and do not overlap."""
    inside = table[0] - table[0, 0]
    if (table - table[:, :1] != inside).any() or len(np.unique(table)) < table.size:
        return None
    blocks, within = _strides(table[:, 0]), _strides(table[0])
    if blocks is None or within is None:
        return None
    return View(int(table[0, 0]), blocks, within)


def _strides(values: np.ndarray) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Lengths and strides, slowest first, of numbers that count as an odometer does."""
    if len(values) == 1:
        return (), ()
    step = int(values[1] - values[0])
    breaks = np.flatnonzero(np.diff(values) != step)
    length = int(breaks[0]) + 1 if len(breaks) else len(values)
    if len(values) % length or step <= 0:
        return None
    rows = values.reshape(-1, length)
    if (rows - rows[:, :1] != step * np.arange(length)).any():
        return None
    rest = _strides(rows[:, 0])
    return None if rest is None else ((*rest[0], length), (*rest[1], step))


def views_of(term: Any) -> tuple[View, View] | None:
    """Where a term of a basis takes and where it puts, if both lie regularly."""
    used = [b for b, s in enumerate(term.sources) if len(s)]
    members = np.argsort(term.blocks, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(term.blocks))])
    targets = [members[starts[b] : starts[b + 1]] for b in used]
    rows = [np.sort(term.sources[b]) for b in used]
    if len({len(r) for r in rows}) != 1 or len({len(r) for r in targets}) != 1:
        return None
    source, target = view_of(np.stack(rows)), view_of(np.stack(targets))
    return None if source is None or target is None else (source, target)


class StridedTerms:
    """A sum of terms pool, mix channels, broadcast, where all pools and broadcasts are views."""

    def __init__(
        self,
        sources: list[View],
        groups: list[tuple[View, list[tuple[int, int]]]],
        sizes: tuple[int, int],
    ) -> None:
        # groups: a view of the outputs, then (number of the term, number of its source); the sources
        # and groups that are the signal itself come first
        self.sources, self.groups = sources, groups
        self.whole_in, self.whole_out = sources[0].covers(sizes[0]), groups[0][0].covers(sizes[1])
        # what is the same for all indices is the start of the product that writes them
        self.all_in = next((i for i, v in enumerate(sources) if v.is_all(sizes[0]) and self.whole_in), None)
        self.all_out = next(
            (i for i, (v, _) in enumerate(groups) if v.is_all(sizes[1]) and self.whole_out), None
        )

    @classmethod
    def found(cls, terms: Sequence[Any], sizes: tuple[int, int]) -> "StridedTerms | None":
        """From terms of a basis; None if one of them does not lie regularly."""
        found = [term.views for term in terms]
        if not found or None in found:
            return None
        sources = sorted({source for source, _ in found}, key=lambda v: not v.covers(sizes[0]))
        number = {source: i for i, source in enumerate(sources)}
        groups: dict[View, list[tuple[int, int]]] = {}
        for t, (source, target) in enumerate(found):
            groups.setdefault(target, []).append((t, number[source]))
        ordered = sorted(groups.items(), key=lambda item: not item[0].covers(sizes[1]))
        return cls(sources, ordered, sizes)

    def compute(self, coefficients: Tensor, x: Tensor, outputs: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        """From coefficients (terms, out_channels, in_channels) and a contiguous signal."""
        pooled = tuple(source.pool(x) for source in self.sources)
        parts = [_side_by_side(coefficients, pooled, members) for _, members in self.groups]
        start = None if self.all_out is None else _mixed(*parts[self.all_out])
        if self.whole_out:
            y = _mixed(*parts[0], start)
        else:
            y = x.new_zeros(len(x), coefficients.shape[1], outputs)
        for i in range(int(self.whole_out), len(parts)):
            if i != self.all_out:
                self.groups[i][0].add(_mixed(*parts[i]), y)
        return y, pooled

    def gradients(
        self, gy: Tensor, coefficients: Tensor, x: Tensor, pooled: Sequence[Tensor], needs: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Gradients of the coefficients and of the signal, from a contiguous ``gy``."""
        by_coefficient = torch.empty_like(coefficients)
        by_source: list[list[tuple[Tensor, Tensor]]] = [[] for _ in self.sources]
        for target, members in self.groups:
            g = target.pool(gy)
            if needs[0]:
                signals = [pooled[s] for _, s in members]
                sums = _correlated(g, signals[0] if len(signals) == 1 else torch.cat(signals, dim=1))
                width = signals[0].shape[1]
                for j, (t, _) in enumerate(members):  # one by one: lists of indices cost more
                    by_coefficient[t].copy_(sums[:, j * width : (j + 1) * width])
            for t, s in members:
                by_source[s].append((coefficients[t].T, g))
        gx = self._spread(by_source, x) if needs[1] else None
        return by_coefficient if needs[0] else None, gx

    def _spread(self, by_source: Sequence[Sequence[tuple[Tensor, Tensor]]], x: Tensor) -> Tensor:
        parts = [_stacked(*zip(*found, strict=True)) for found in by_source]
        start = None if self.all_in is None else _mixed(*parts[self.all_in])
        gx = _mixed(*parts[0], start) if self.whole_in else torch.zeros_like(x)
        for i in range(int(self.whole_in), len(parts)):
            if i != self.all_in:
                self.sources[i].add(_mixed(*parts[i]), gx)
        return gx


def _side_by_side(
    coefficients: Tensor, pooled: Sequence[Tensor], members: Sequence[tuple[int, int]]
) -> tuple[Tensor, Tensor]:
    """The matrices and signals of the terms of one group, as one matrix and one signal."""
    return _stacked([coefficients[t] for t, _ in members], [pooled[s] for _, s in members])


def _stacked(matrices: Sequence[Tensor], signals: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    if len(matrices) == 1:
        return matrices[0], signals[0]
    return torch.cat(list(matrices), dim=1), torch.cat(list(signals), dim=1)


def _mixed(matrix: Tensor, signals: Tensor, start: Tensor | None = None) -> Tensor:
    """``start + matrix @ signals`` in every example; one product where each has a single column."""
    if signals.shape[2] == 1:
        y = (signals[:, :, 0] @ matrix.T)[:, :, None]
        return y if start is None else y + start
    matrices = matrix.expand(len(signals), *matrix.shape)
    return torch.bmm(matrices, signals) if start is None else torch.baddbmm(start, matrices, signals)


def _correlated(g: Tensor, signals: Tensor) -> Tensor:
    """The sum over examples of ``g @ signals.T``."""
    if signals.shape[2] == 1:
        return g[:, :, 0].T @ signals[:, :, 0]
    return torch.bmm(g, signals.transpose(1, 2)).sum(0)
