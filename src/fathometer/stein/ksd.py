"""Kernel Stein discrepancy: how far a sample is from a target known by its scores.

    KSD^2 = sum_ij w_i w_j k0(x_i, x_j)

with the Langevin Stein kernel ``k0`` of a base kernel (Gorham & Mackey 2017, Prop. 2;
Liu, Lee & Jordan 2016; Chwialkowski, Strathmann & Gretton 2016). No normalizing constant and no second sample
are needed. The value is the largest mean over the sample of ``(T g)(x) = <g, b> + div g``,
over all ``g`` in the unit ball of the kernel's space, which has mean zero under the target.

Read it with three things in mind. It depends on units and on the dimension: compare
samples under one target and one kernel only, or standardize. A correct independent
sample of n points has about ``sqrt(E k0(x, x) / n)``; that yardstick is part of the answer.
And like every measure built on the Langevin operator it hardly sees wrong proportions of
well separated modes.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from fathometer.errors import InputError, TheoryWarning
from fathometer.results import Result
from fathometer.stein.kernels import read_kernel
from fathometer.stein.sample import Sample, read_sample, read_weights
from fathometer.stein.tiles import SteinGram
from fathometer.types import Kind

if TYPE_CHECKING:
    from fathometer.drawing.picture import Picture

STATISTICS = ("V", "U")
PRECISIONS = ("double", "single")
_PROBED = 64
_FADED = 0.2
_FEWEST_FOR_TAILS = 200
_MIDDLE = 200
_LARGEST_SINGLE = 1e8  # fourth powers must stay below 3e38, also in sums over coordinates


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class KernelSteinDiscrepancy(Result):
    """The discrepancy of one sample.

    Attributes:
        value: Root of ``squared``; zero where the U-statistic is negative.
        kind: "exact": the double sum itself is computed, no pair is left out. In single precision
            an "estimate".
        error: Bound on the rounding error of ``value``; in single precision, what the row sums of
            64 points differ by from those in double precision, carried over to all rows (mean plus three
            standard errors).
        squared: The double sum; the U-statistic can be negative.
        statistic: "V" (all pairs) or "U" (without the diagonal).
        expected: The yardstick ``sqrt(sum w_i^2 k0(x_i, x_i))``: about what a correct
            independent sample of this size and these weights would have (V-statistic).
        standard_error: Of ``squared`` as an estimate of the discrepancy of the distribution
            that the points are independent draws of (two times the standard error of the mean
            row sum); it says nothing for dependent points or a discrepancy near zero.
        points: (n, d) as measured.
        witness: (n,) the function ``h = T g`` of the maximizing ``g`` at the points, divided by
            the discrepancy: where it is large, the sample has too much mass. Its weighted
            mean is the V value.
        contributions: (n,) the part of ``squared`` owed to each point; they sum to it.
        kernel: The kernel as text.
    """

    value: float
    kind: Kind
    error: float
    squared: float
    statistic: str
    expected: float
    standard_error: float
    points: Float[np.ndarray, "n d"]
    witness: Float[np.ndarray, " n"]
    contributions: Float[np.ndarray, " n"]
    kernel: str

    @property
    def ratio(self) -> float:
        """Discrepancy over the yardstick: about 1 for a correct independent sample, 0 below it."""
        return self.value / self.expected

    def picture(self) -> "Picture":
        """Where the sample has too much and too little mass."""
        from fathometer.stein.pictures import ksd_picture

        return ksd_picture(self)

    def __str__(self) -> str:
        n, d = self.points.shape
        return (
            f"kernel Stein discrepancy {self.value:.4g} ({self.kind}, {self.statistic}-statistic; {n} "
            f"points, {d} coordinates); a correct independent sample has about {self.expected:.3g}. "
            f"{self.kernel}"
        )


def ksd(
    points: Any,
    scores: Any,
    kernel: Any = None,
    *,
    statistic: str = "V",
    weights: Any = None,
    precision: str = "double",
) -> KernelSteinDiscrepancy:
    """Kernel Stein discrepancy between a weighted sample and the target of its scores.

    Args:
        points: (n, d), (n,) or (chain, draw, d), numpy or torch, or an ArviZ object.
        scores: The gradient of the log target density at every point, the same shape; or a
            function of the points.
        kernel: `InverseMultiquadric` (the default), `Gaussian`, `Matern32`, or a sum.
        statistic: "V" takes all pairs, is never negative, and is the measure of quality;
            "U" leaves the diagonal out, is unbiased for independent draws, and serves tests. On
            catastrophic samples U can be near zero or negative.
        weights: (n,) summing to one, negative ones allowed; uniform by default.
        precision: "double", or "single" to compute the pairs in float32 (about twice as fast from some
            20 coordinates on; sums stay in float64). The error is then measured, see ``error``.

    Returns:
        The discrepancy with its yardstick, witness and contributions. ``n^2 / 2`` pairs are
        visited, in ``O(n d)`` memory.

    Raises:
        InputError: If shapes differ, something is not finite, weights do not sum to one, the
            statistic or precision is unknown, "U" is asked of one point, or a number is beyond 1e8 in single
            precision.
        BudgetError: If the prepared points do not fit the memory.

    Warns:
        TheoryWarning: If a small discrepancy proves nothing for this kernel and dimension, or the
            scores fade far out as those of a heavy-tailed target.

    >>> import numpy as np
    >>> x = np.zeros((1, 3))  # one point at the mode of N(0, I): sqrt(-2 beta d / c)
    >>> f"{ksd(x, -x).squared:.6f}"
    '3.000000'
    """
    if statistic not in STATISTICS:
        raise InputError(f'statistic is {statistic!r}; it is "V" or "U".')
    if precision not in PRECISIONS:
        raise InputError(f'precision is {precision!r}; it is "double" or "single".')
    sample = read_sample(points, scores)
    w = read_weights(weights, sample.size, signed=True)
    _warn_of_heavy_tails(sample)
    fitted = read_kernel(kernel, sample)
    if precision == "single":
        _refuse_overflow(sample)
    gram = SteinGram(sample, fitted, single=precision == "single")
    rows = gram.product(w)
    parts = w * rows
    own = np.square(w) * gram.diagonal
    v_squared = max(float(parts.sum()), 0.0)
    pairs = 1.0
    if statistic == "U":
        pairs = 1.0 - float(np.square(w).sum())
        if abs(pairs) < 1e-15:
            raise InputError(
                "statistic 'U' leaves out the pairs of a point with itself; one point has no others."
            )
        parts = (parts - own) / pairs
    squared = float(parts.sum()) if statistic == "U" else v_squared
    rounding = _rounding(w, gram.diagonal, sample.dimension) / abs(pairs)
    if precision == "single":
        rounding += _single_error(gram, SteinGram(sample, fitted), w, rows) / abs(pairs)
    value = float(np.sqrt(max(squared, 0.0)))
    return KernelSteinDiscrepancy(
        value=value,
        kind="exact" if precision == "double" else "estimate",
        error=min(float(np.sqrt(rounding)), rounding / (2 * value) if value > 0 else np.inf),
        squared=squared,
        statistic=statistic,
        expected=float(np.sqrt(own.sum())),
        standard_error=_standard_error(w, rows, own),
        points=sample.points,
        witness=rows / np.sqrt(v_squared) if v_squared > 0 else rows,
        contributions=parts,
        kernel=str(kernel) if kernel is not None else "InverseMultiquadric(c=1.0, beta=-0.5)",
    )


def ksd_path(points: Any, scores: Any, sizes: Sequence[int], kernel: Any = None) -> Any:
    """Discrepancy (V-statistic, not squared) of the first ``m`` points for each m of ``sizes``.

    One pass over the pairs of the longest prefix serves all of them.

    Args:
        points: (n, d), in the order in which they were drawn.
        scores: (n, d).
        sizes: Prefix lengths, whole numbers from 1 to n, in any order.
        kernel: As for `ksd`. A preconditioner recipe uses all the points, so prefixes are comparable.

    Returns:
        One discrepancy for each size, numpy or torch as the points are.

    Raises:
        InputError: As for `ksd`, or if a size is not a whole number from 1 to n.
    """
    sample = read_sample(points, scores)
    lengths = read_sizes(sizes, sample.size)
    fitted = read_kernel(kernel, sample)
    longest = int(lengths.max())
    head = type(sample)(points=sample.points[:longest], scores=sample.scores[:longest])
    gram = SteinGram(head, fitted)
    running = np.cumsum(gram.diagonal + 2 * gram.row_sums_below())
    return sample.out(np.sqrt(np.clip(running[lengths - 1], 0, None)) / lengths)


def read_sizes(sizes: Sequence[int], n: int, *, name: str = "sizes") -> np.ndarray:
    """Whole numbers from 1 to n.

    Raises:
        InputError: If there is none, or one is not whole or out of range.
    """
    try:
        lengths = np.atleast_1d(np.asarray(sizes))
    except ValueError:
        lengths = np.empty(0, dtype=object)
    if lengths.ndim != 1 or lengths.size == 0 or lengths.dtype.kind not in "iu":
        raise InputError(f"{name} are {sizes!r}; pass whole numbers from 1 to {n}.")
    bad = (lengths < 1) | (lengths > n)
    if bad.any():
        raise InputError(f"{name} hold {int(lengths[np.argmax(bad)])}; the sample has {n} points.")
    return lengths


def _rounding(w: np.ndarray, diagonal: np.ndarray, d: int) -> float:
    """Bound on the rounding error of the double sum.

    ``K0`` is positive semi-definite, so ``|k0(x, y)|^2 <= k0(x, x) k0(y, y)``; each entry is
    a sum of d terms, and the sum over the pairs loses a few more bits.
    """
    scale = float((np.abs(w) * np.sqrt(np.clip(diagonal, 0, None))).sum()) ** 2
    return np.finfo(float).eps * (8 + d + np.log2(1 + len(w))) * scale


def _refuse_overflow(sample: Sample) -> None:
    largest = max(np.abs(sample.points).max(), np.abs(sample.scores).max())
    if largest > _LARGEST_SINGLE:
        raise InputError(
            f"points or scores hold {largest:g} in size; in single precision the sums overflow beyond "
            f'{_LARGEST_SINGLE:g}. Use precision="double".'
        )


def _single_error(gram: SteinGram, exact: SteinGram, w: np.ndarray, rows: np.ndarray) -> float:
    """Error of the double sum in float32, from the row sums of some points in both precisions."""
    n = len(w)
    chosen = np.unique(np.linspace(0, n - 1, min(n, _PROBED)).round().astype(int))
    picked = np.concatenate(
        [block @ w for _, block in exact.against(gram.sample.points[chosen], gram.sample.scores[chosen])]
    )
    differences = n * w[chosen] * (rows[chosen] - picked)
    spread = float(differences.std(ddof=1)) if len(chosen) > 1 else 0.0
    return abs(float(differences.mean())) + 3 * spread / np.sqrt(len(chosen))


def _warn_of_heavy_tails(sample: Sample) -> None:
    """Warn if the pull of the scores fades with the distance, as it does for Student's t.

    Theorem 8 asks for distant dissipativity: ``-<b(x) - b(y), x - y> / |x - y|^2`` stays positive for
    far points. For a Gaussian it is the same at all distances. Here the points around the middle
    are compared with the farthest ones, so it sees as far as the sample reaches.
    """
    if sample.size < _FEWEST_FOR_TAILS:
        return
    # some points give the middle: medians of all coordinates would cost a fifth of a small discrepancy
    some = np.linspace(0, sample.size - 1, min(sample.size, _MIDDLE)).astype(int)
    center = np.median(sample.points[some], axis=0)
    away = sample.points - center
    spread = np.median(np.abs(away[some]), axis=0)
    if (spread == 0).any():
        return
    # in units of the spread, so that one wide coordinate does not pass for a tail
    away, force = away / spread, (sample.scores - np.median(sample.scores[some], axis=0)) * spread
    distance = np.linalg.norm(away, axis=1)
    pull = -(away * force).sum(1) / np.maximum(distance, 1e-150) ** 2
    order = np.argsort(distance, kind="stable")
    n = len(order)
    near, far = order[n // 4 : n // 2], order[-max(5, n // 100) :]
    fades = np.median(pull[far]) < _FADED * np.median(pull[near])
    weak = np.median(np.abs(force[far]).max(1)) < np.median(np.abs(force[near]).max(1))
    if np.median(pull[near]) > 0 and fades and weak:
        warnings.warn(
            "the scores fade far from the middle of the sample, as those of a heavy-tailed target do; then a "
            "small discrepancy does not prove convergence (Gorham & Mackey 2017, Theorem 8 needs distant "
            "dissipativity).",
            TheoryWarning,
            stacklevel=3,
        )


def _standard_error(w: np.ndarray, rows: np.ndarray, own: np.ndarray) -> float:
    """Standard error of the double sum for independent points: ``2 sd(E[k0 | x]) sqrt(sum w^2)``."""
    if len(w) < 2:
        return float("nan")
    share = np.divide(own, w, out=np.zeros_like(own), where=w != 0)
    means = rows - share
    center = float(w @ means)
    variance = float((np.abs(w) @ np.square(means - center)) / np.abs(w).sum())
    return 2.0 * float(np.sqrt(max(variance, 0.0) * np.square(w).sum()))
