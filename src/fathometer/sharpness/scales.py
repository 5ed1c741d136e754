"""Exact linear equations between log-scales.

Every channel of every activation has an unknown ``s``: the logarithm of the factor by
which it may grow. Operators relate these unknowns: most say "equal", some say
"the sum of these is that". Number 0 is grounded: its scale is zero.

Equalities are merged as connected components; the few longer rows are eliminated in
exact rational arithmetic. So the null space has integer generators, and powers of two
move a network without rounding.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import lcm

import numpy as np
import torch
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

Row = dict[int, Fraction]


@dataclass
class ScaleSystem:
    """Unknown log-scales and what is known about them.

    Attributes:
        count: Unknowns so far; number 0 is grounded.
        equal: Pairs of arrays of unknowns that are equal elementwise.
        rows: Arrays (k, terms) of unknowns with their coefficients (terms,): the
            weighted sum is zero in each of the k rows.
    """

    count: int = 1
    equal: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    rows: list[tuple[Tensor, tuple[int, ...]]] = field(default_factory=list)

    def fresh(self, *shape: int) -> Tensor:
        """New unknowns in an array of this shape."""
        size = int(np.prod(shape)) if shape else 1
        ids = torch.arange(self.count, self.count + size).reshape(shape)
        self.count += size
        return ids

    def equate(self, a: Tensor, b: Tensor) -> None:
        """``s[a] = s[b]``, elementwise after broadcasting."""
        a, b = torch.broadcast_tensors(compact(a), compact(b))
        self.equal.append((a.reshape(-1), b.reshape(-1)))

    def ground(self, a: Tensor) -> None:
        """``s[a] = 0``."""
        self.equate(a, torch.zeros((), dtype=torch.long))

    def relate(self, *terms: tuple[int, Tensor]) -> None:
        """``sum of coefficient * s[ids] = 0``, elementwise after broadcasting."""
        columns = torch.broadcast_tensors(*(compact(ids) for _, ids in terms))
        stacked = torch.stack([column.reshape(-1) for column in columns], dim=1)
        self.rows.append((torch.unique(stacked, dim=0), tuple(c for c, _ in terms)))

    def uniform(self, ids: Tensor, dims: Iterable[int]) -> Tensor:
        """Make ``ids`` equal along ``dims``; returns them with those dimensions of length 1."""
        for dim in dims:
            if ids.shape[dim] > 1:
                head = ids.narrow(dim, 0, 1)
                if ids.stride(dim) != 0:
                    self.equate(ids.narrow(dim, 1, ids.shape[dim] - 1), head)
                ids = head
        return ids

    def solve(
        self, extra: Sequence[tuple[Tensor, Tensor]] = (), grounded: Sequence[int] = ()
    ) -> "ScaleSpace":
        """The null space; ``extra`` equalities and ``grounded`` unknowns hold besides."""
        pairs = [*self.equal, *extra]
        if grounded:
            pairs.append((torch.tensor(list(grounded)), torch.zeros(len(grounded), dtype=torch.long)))
        left = np.concatenate([a.numpy() for a, _ in pairs]) if pairs else np.zeros(0, dtype=np.int64)
        right = np.concatenate([b.numpy() for _, b in pairs]) if pairs else np.zeros(0, dtype=np.int64)
        ones = np.ones(len(left), dtype=np.int8)
        graph = coo_array((ones, (left, right)), shape=(self.count, self.count))
        groups, group = connected_components(graph, directed=False)
        pivots = _eliminate(self._contracted(group))
        return _space(groups, group, pivots)

    def _contracted(self, group: np.ndarray) -> list[Row]:
        """The longer rows over groups, without the grounded one and without duplicates."""
        ground = int(group[0])
        found: dict[tuple[tuple[int, int], ...], None] = {}
        for ids, coefficients in self.rows:
            for line in np.unique(group[ids.numpy()], axis=0).tolist():
                total: dict[int, int] = {}
                for column, coefficient in zip(line, coefficients, strict=True):
                    if column != ground:
                        total[column] = total.get(column, 0) + coefficient
                key = tuple(sorted((c, k) for c, k in total.items() if k))
                if key:
                    found[key] = None
        rows = sorted(found, key=len)
        return [{c: Fraction(k) for c, k in row} for row in rows]


@dataclass(frozen=True)
class ScaleSpace:
    """All solutions: ``s[unknown] = basis[group[unknown]] @ z`` with integer ``basis``.

    Attributes:
        group: (unknowns,) the group of equal unknowns each one belongs to.
        basis: (groups, dimension) sparse integers.
        free: (dimension,) an unknown of each free group.
    """

    group: np.ndarray
    basis: csr_array
    free: tuple[int, ...]

    @property
    def dimension(self) -> int:
        """Number of free directions."""
        return len(self.free)

    def values(self, z: np.ndarray) -> np.ndarray:
        """``s`` of every unknown, (unknowns,), for coordinates ``z`` (dimension,)."""
        return (self.basis @ z)[self.group]


def compact(ids: Tensor) -> Tensor:
    """The same array, cut to length 1 along every dimension in which it only repeats."""
    for dim in range(ids.ndim):
        if ids.shape[dim] > 1:
            head = ids.narrow(dim, 0, 1)
            if ids.stride(dim) == 0 or bool((ids == head).all()):
                ids = head
    return ids


def _eliminate(rows: list[Row]) -> dict[int, Row]:
    """Pivot -> the pivot as a combination of columns that never become pivots."""
    pivots: dict[int, Row] = {}
    for row in rows:
        row = _substitute(row, pivots)
        if not row:
            continue
        pivot = max(row, key=lambda column: (abs(row[column]) == 1, column))
        scale = -row.pop(pivot)
        pivots[pivot] = {column: k / scale for column, k in row.items()}
    # A pivot's row knows only columns that were free when it was made: later pivots first.
    for pivot in reversed(list(pivots)):
        pivots[pivot] = _substitute(pivots[pivot], pivots)
    return pivots


def _substitute(row: Row, pivots: dict[int, Row]) -> Row:
    """``row`` with every pivot replaced, until none is left."""
    pending = dict(row)
    done: Row = {}
    while pending:
        column, k = pending.popitem()
        if column in pivots:
            for other, factor in pivots[column].items():
                into = done if other in done else pending
                into[other] = into.get(other, Fraction(0)) + k * factor
        else:
            done[column] = done.get(column, Fraction(0)) + k
    return {column: k for column, k in done.items() if k}


def _space(groups: int, group: np.ndarray, pivots: dict[int, Row]) -> ScaleSpace:
    """Free groups as coordinates; columns are scaled to integers."""
    ground = int(group[0])
    free = [g for g in range(groups) if g != ground and g not in pivots]
    place = {g: j for j, g in enumerate(free)}
    scale = dict.fromkeys(free, 1)
    for row in pivots.values():
        for column, k in row.items():
            scale[column] = lcm(scale[column], k.denominator)
    rows, columns, values = list(free), list(range(len(free))), [float(scale[g]) for g in free]
    for pivot, row in pivots.items():
        for column, k in row.items():
            rows.append(pivot)
            columns.append(place[column])
            values.append(float(k * scale[column]))
    basis = csr_array((values, (rows, columns)), shape=(groups, len(free)))
    representative = np.zeros(groups, dtype=np.int64)
    representative[group[::-1]] = np.arange(len(group))[::-1]
    return ScaleSpace(group=group, basis=basis, free=tuple(int(representative[g]) for g in free))
