"""Pooling and broadcasting by strides: sums over views of the signal instead of sparse products.

Blocks of equal size that lie regularly (all indices, rows, columns, diagonals, single
indices) are views of the signal with strides of their own. Then a term of the basis is a
sum over a view, a product of channel matrices, and an addition into a view, and its
gradient the same backwards. Set layers, the 15 operations on pairs, arrays and hierarchies
are of this kind.
"""

from collections.abc import Sequence
from dataclasses import dataclass
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

    @property
    def count(self) -> int:
        """Number of blocks."""
        return int(np.prod(self.blocks[0]))

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

    def __init__(self, sources: list[View], groups: list[tuple[View, list[tuple[int, int]]]]) -> None:
        self.sources = sources
        # groups: a view of the outputs, then (number of the term, number of its source)
        self.groups = groups

    @classmethod
    def found(cls, terms: Sequence[Any], outputs: int) -> "StridedTerms | None":
        """From terms of a basis; None if one of them does not lie regularly."""
        sources: dict[View, int] = {}
        groups: dict[View, list[tuple[int, int]]] = {}
        for t, term in enumerate(terms):
            found = term.views
            if found is None:
                return None
            source, target = found
            groups.setdefault(target, []).append((t, sources.setdefault(source, len(sources))))
        # the finest outputs first: they are written, the others added
        ordered = sorted(groups.items(), key=lambda item: not item[0].covers(outputs))
        return cls(list(sources), ordered)

    def compute(self, coefficients: Tensor, x: Tensor, outputs: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        """From coefficients (terms, out_channels, in_channels) and a contiguous signal."""
        pooled = tuple(source.pool(x) for source in self.sources)
        y: Tensor | None = None
        for target, members in self.groups:
            mixed = _mixed(*_side_by_side(coefficients, pooled, members))
            if y is None and target.covers(outputs):
                y = mixed
                continue
            y = x.new_zeros(len(x), coefficients.shape[1], outputs) if y is None else y
            target.add(mixed, y)
        if y is None:
            y = x.new_zeros(len(x), coefficients.shape[1], outputs)
        return y, pooled

    def gradients(
        self, gy: Tensor, coefficients: Tensor, x: Tensor, pooled: Sequence[Tensor], needs: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Gradients of the coefficients and of the signal, from a contiguous ``gy``."""
        by_coefficient = torch.empty_like(coefficients)
        by_pool: list[Tensor | None] = [None] * len(self.sources)
        for target, members in self.groups:
            g = target.pool(gy)
            matrix, signals = _side_by_side(coefficients, pooled, members)
            if needs[0]:
                sums = _correlated(g, signals).unflatten(1, (len(members), -1))
                for i, (t, _) in enumerate(members):
                    by_coefficient[t] = sums[:, i]
            if needs[1]:
                back = _mixed(matrix.T, g).unflatten(1, (len(members), -1))
                for i, (_, s) in enumerate(members):
                    before = by_pool[s]
                    by_pool[s] = back[:, i] if before is None else before + back[:, i]
        gx = self._spread(by_pool, x) if needs[1] else None
        return by_coefficient if needs[0] else None, gx

    def _spread(self, by_pool: Sequence[Tensor | None], x: Tensor) -> Tensor:
        pairs = sorted(zip(self.sources, by_pool, strict=True), key=lambda p: not p[0].covers(x.shape[2]))
        gx: Tensor | None = None
        for source, g in pairs:
            if g is None:
                continue
            if gx is None and source.covers(x.shape[2]):
                gx = g.contiguous()
                continue
            gx = torch.zeros_like(x) if gx is None else gx
            source.add(g, gx)
        return torch.zeros_like(x) if gx is None else gx


def _side_by_side(
    coefficients: Tensor, pooled: Sequence[Tensor], members: Sequence[tuple[int, int]]
) -> tuple[Tensor, Tensor]:
    """The matrices and signals of the terms of one group, as one matrix and one signal."""
    if len(members) == 1:
        ((term, source),) = members
        return coefficients[term], pooled[source]
    matrix = torch.cat([coefficients[t] for t, _ in members], dim=1)
    return matrix, torch.cat([pooled[s] for _, s in members], dim=1)


def _mixed(matrix: Tensor, signals: Tensor) -> Tensor:
    """``matrix @ signals`` in every example; one product where each has a single column."""
    if signals.shape[2] == 1:
        return (signals[:, :, 0] @ matrix.T)[:, :, None]
    return torch.bmm(matrix.expand(len(signals), *matrix.shape), signals)


def _correlated(g: Tensor, signals: Tensor) -> Tensor:
    """The sum over examples of ``g @ signals.T``."""
    if signals.shape[2] == 1:
        return g[:, :, 0].T @ signals[:, :, 0]
    return torch.bmm(g, signals.transpose(1, 2)).sum(0)
