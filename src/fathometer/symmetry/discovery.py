"""Which weights are meant to be equal? The tying of a given matrix, found from its values.

Sorted entries fall into clusters where a gap is much wider than the next: the largest
ratio of consecutive sorted gaps is scale-free, and needs no number of clusters. Among the
best few cuts one is preferred whose clusters are just the orbits of their own symmetries,
as those of a group are. Clusters around zero are "no edge". Values that coincide by
accident merge clusters and add symmetry, so the neighbors on the path of tolerances are
reported too.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fathometer.errors import InputError
from fathometer.results import Result, Row, Table
from fathometer.symmetry.automorphisms import Automorphisms
from fathometer.symmetry.orbits import pair_orbits
from fathometer.symmetry.tying import Tying
from fathometer.types import Kind

if TYPE_CHECKING:
    from fathometer.drawing.picture import Picture

CANDIDATES = 10
"""Cuts that are looked at more closely."""

CLEAR = 2.0
"""Ratio of gaps below which entries are taken as all different."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Discovery(Result):
    """The tying found in a matrix.

    Attributes:
        labels: (M, N) cluster of every entry, by first appearance; -1 for zeros.
        automorphisms: Symmetries of the labels.
        gap: Narrowest gap between clusters over the widest within one; infinite for
            exactly equal entries. Near 1 there is no sign of tying.
        tolerance: Entries closer than this (along a chain) are one cluster.
        path: Other cuts, from fine to coarse: tolerance, clusters, order, gap.
        kind: "exact" for exactly equal entries, else "estimate".
        error: Zero: the number of clusters at this tolerance is a count.
    """

    headline = "num_orbits"

    labels: np.ndarray
    automorphisms: Automorphisms
    gap: float
    tolerance: float
    path: Table
    kind: Kind = "estimate"
    error: float = 0.0

    @property
    def num_orbits(self) -> int:
        """Number of different weights."""
        return int(self.labels.max(initial=-1)) + 1

    @property
    def value(self) -> int:
        """Number of different weights."""
        return self.num_orbits

    @cached_property
    def tying(self) -> Tying:
        """The orbits of the symmetries found: the labels, or finer where values coincide."""
        generators = self.automorphisms.generators
        sizes = (self.labels.shape[1], self.labels.shape[0])
        return Tying(pair_orbits([a for a, _ in generators], [b for _, b in generators], sizes))

    def __str__(self) -> str:
        return (
            f"{self.num_orbits} different weights, {self.automorphisms.order} symmetries, "
            f"gap ratio {self.gap:.3g} at tolerance {self.tolerance:.3g}"
        )

    def picture(self) -> "Picture":
        """The clusters as a colored matrix."""
        from fathometer.symmetry.pictures import tying_picture

        return tying_picture(Tying(self.labels, design="discovered"))


def discover(weight: Any, tolerance: float | None = None) -> Discovery:
    """Cluster the entries of a matrix and find the symmetries of the clusters.

    Args:
        weight: (M, N) real, numpy or torch.
        tolerance: Entries closer than this are one weight; None finds it.

    Raises:
        InputError: If weight is not a finite matrix or the tolerance is negative.

    >>> found = discover(np.array([[1.0, 2.0, 3.0], [3.0, 1.0, 2.0], [2.0, 3.0, 1.0]]))
    >>> found.num_orbits, found.automorphisms.order
    (3, 3)
    """
    W = _matrix(weight)
    values = np.sort(W.ravel())
    gaps = np.diff(values)
    scale = float(np.abs(values).max(initial=0.0))
    # equal numbers that went through different sums differ in their last digits
    floor = 64 * _resolution(weight) * scale
    if tolerance is not None:
        if not tolerance >= 0:
            raise InputError(f"tolerance is {tolerance}; it must be zero or more, in units of the weights.")
        return _result(W, [_cut(W, values, gaps, tolerance)], exact=tolerance <= floor)
    wide = np.sort(gaps[gaps > floor])[::-1]
    if len(wide) < len(gaps) or not len(gaps):
        return _result(W, [_cut(W, values, gaps, floor)], exact=True)
    if len(wide) < 2:
        return _result(W, [_cut(W, values, gaps, floor)], exact=False)
    ratios = wide[:-1] / wide[1:]
    # a tied matrix uses each weight at least twice on average
    ratios = ratios[: max(len(values) // 2 - 1, 1)]
    best = [int(k) for k in np.argsort(-ratios)[:CANDIDATES] if ratios[k] >= CLEAR]
    if not best:
        return _result(W, [_cut(W, values, gaps, floor)], exact=False)
    cuts = [_cut(W, values, gaps, float(np.sqrt(wide[k] * wide[k + 1]))) for k in best]
    return _result(W, cuts, exact=False)


def discover_from_data(inputs: Any, outputs: Any, tolerance: float | None = None) -> Discovery:
    """The tying of the linear map that best fits examples (least squares, with intercept).

    Args:
        inputs: (examples, N).
        outputs: (examples, M).
        tolerance: As in `discover`.

    Raises:
        InputError: If the numbers of examples differ or do not determine the map.
    """
    X, Y = _matrix(inputs, "inputs"), _matrix(outputs, "outputs")
    if len(X) != len(Y):
        raise InputError(f"inputs has {len(X)} examples and outputs {len(Y)}; one output for each input.")
    A = np.column_stack([X, np.ones(len(X))])
    solution, _, rank, _ = np.linalg.lstsq(A, Y, rcond=None)
    if rank < A.shape[1]:
        raise InputError(
            f"inputs span {rank} of {A.shape[1]} dimensions (with the intercept); "
            "more, or more varied, examples are needed."
        )
    return discover(solution[:-1].T, tolerance)


@dataclass(frozen=True)
class _Cut:
    tolerance: float
    gap: float
    labels: np.ndarray
    found: Automorphisms
    closed: bool


def _cut(W: np.ndarray, values: np.ndarray, gaps: np.ndarray, tolerance: float) -> _Cut:
    cluster = np.concatenate([[0], np.cumsum(gaps > tolerance)])
    between, within = gaps[gaps > tolerance], gaps[gaps <= tolerance]
    inside = float(within.max(initial=0.0))
    gap = float(between.min() / inside) if len(between) and inside > 0 else float("inf")
    lows = values[np.concatenate([[True], np.diff(cluster) > 0])]
    highs = values[np.concatenate([np.diff(cluster) > 0, [True]])]
    of_entry = np.searchsorted(lows, W.ravel(), side="right") - 1
    zero = (lows - tolerance <= 0) & (highs + tolerance >= 0)
    numbers = np.where(zero[of_entry], -1, of_entry)
    used, first = np.unique(numbers[numbers >= 0], return_index=True)
    rank = np.full(len(lows) + 1, -1)
    rank[used[np.argsort(first)]] = np.arange(len(used))
    labels = rank[numbers].reshape(W.shape).astype(np.int32)
    found = Tying(labels).automorphisms()
    sizes = (W.shape[1], W.shape[0])
    orbits = pair_orbits([a for a, _ in found.generators], [b for _, b in found.generators], sizes)
    closed = int(orbits.max()) + 1 == len(np.unique(labels)) and found.order > 1
    return _Cut(tolerance, gap, labels, found, closed)


def _result(W: np.ndarray, cuts: list[_Cut], *, exact: bool) -> Discovery:
    # cuts come in order of their gap; closed ones first, then clear ones with symmetry
    clear = [c for c in cuts if c.found.order > 1 and c.gap > 2 * CLEAR]
    chosen = next((c for c in cuts if c.closed), (clear or cuts)[0])
    rows = tuple(
        Row(
            tolerance=c.tolerance,
            clusters=len(np.unique(c.labels)),
            order=c.found.order,
            closed=c.closed,
            gap=c.gap,
            kind="estimate",
            error=0.0,
        )
        for c in sorted(cuts, key=lambda c: c.tolerance)
    )
    return Discovery(
        labels=chosen.labels,
        automorphisms=chosen.found,
        gap=chosen.gap,
        tolerance=chosen.tolerance,
        path=Table(title="Cuts of the sorted entries, from fine to coarse", rows=rows),
        kind="exact" if exact else "estimate",
    )


def _resolution(weight: Any) -> float:
    if hasattr(weight, "detach"):
        return float(torch.finfo(weight.dtype).eps) if weight.is_floating_point() else 0.0
    dtype = np.asarray(weight).dtype
    return float(np.finfo(dtype).eps) if dtype.kind == "f" else 0.0


def _matrix(weight: Any, name: str = "weight") -> np.ndarray:
    if hasattr(weight, "detach"):
        weight = weight.detach().cpu().numpy()
    W = np.asarray(weight)
    if W.ndim != 2 or W.size == 0:
        raise InputError(f"{name} has shape {W.shape}; a non-empty matrix is needed.")
    if W.dtype.kind not in "fiu":
        raise InputError(f"{name} is {W.dtype}; real numbers are needed.")
    W = W.astype(np.float64)
    if not np.isfinite(W).all():
        row, column = np.argwhere(~np.isfinite(W))[0]
        raise InputError(f"{name}[{row}, {column}] is not finite.")
    return W
