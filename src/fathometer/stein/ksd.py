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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from fathometer.errors import InputError
from fathometer.results import Result
from fathometer.stein.kernels import read_kernel
from fathometer.stein.sample import read_sample, read_weights
from fathometer.stein.tiles import SteinGram
from fathometer.types import Kind

if TYPE_CHECKING:
    from fathometer.drawing.picture import Picture

STATISTICS = ("V", "U")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class KernelSteinDiscrepancy(Result):
    """The discrepancy of one sample.

    Attributes:
        value: Root of ``squared``; zero where the U-statistic is negative.
        kind: "exact": the double sum itself is computed, no pair is left out.
        error: Bound on the rounding error of ``value``.
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

    Returns:
        The discrepancy with its yardstick, witness and contributions. ``n^2 / 2`` pairs are
        visited, in ``O(n d)`` memory.

    Raises:
        InputError: If shapes differ, something is not finite, weights do not sum to one, the
            statistic is unknown, or "U" is asked of one point.

    Warns:
        TheoryWarning: If a small discrepancy proves nothing for this kernel and dimension.

    >>> import numpy as np
    >>> x = np.zeros((1, 3))  # one point at the mode of N(0, I): sqrt(-2 beta d / c)
    >>> f"{ksd(x, -x).squared:.6f}"
    '3.000000'
    """
    if statistic not in STATISTICS:
        raise InputError(f'statistic is {statistic!r}; it is "V" or "U".')
    sample = read_sample(points, scores)
    w = read_weights(weights, sample.size, signed=True)
    gram = SteinGram(sample, read_kernel(kernel, sample))
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
    value = float(np.sqrt(max(squared, 0.0)))
    return KernelSteinDiscrepancy(
        value=value,
        kind="exact",
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


def witness(
    points: Any, scores: Any, at: Any, at_scores: Any, kernel: Any = None, *, weights: Any = None
) -> Any:
    """The witness ``h(y) = sum_i w_i k0(x_i, y) / KSD`` at other points (m, d): (m,).

    Its mean under the target is zero and its mean over the sample is the discrepancy.

    Args:
        points: (n, d), the sample.
        scores: (n, d), its scores.
        at: (m, d), where to evaluate.
        at_scores: (m, d), the target's scores there.
        kernel: As for `ksd`.
        weights: (n,), as for `ksd`.

    Raises:
        InputError: As for `ksd`, or if ``at`` has another number of coordinates.
    """
    sample, places, gram, w = _both(points, scores, at, at_scores, kernel, weights)
    values = np.empty(places.size)
    for rows, block in gram.against(places.points, places.scores):
        values[rows] = block @ w
    norm = np.sqrt(max(float(w @ gram.product(w)), 0.0))
    return sample.out(values / norm if norm > 0 else values)


def stein_function(points: Any, scores: Any, at: Any, kernel: Any = None, *, weights: Any = None) -> Any:
    """The maximizing function ``g(y) = sum_i w_i (b(x_i) k(x_i, y) + grad_x k(x_i, y)) / KSD``: (m, d).

    Args:
        points: (n, d), the sample.
        scores: (n, d), its scores.
        at: (m, d), where to evaluate.
        kernel: As for `ksd`.
        weights: (n,), as for `ksd`.

    Raises:
        InputError: As for `witness`.
    """
    sample, places, gram, w = _both(points, scores, at, None, kernel, weights)
    values = np.zeros((places.size, sample.dimension))
    for radial in gram.kernel:
        factor = np.eye(sample.dimension) if radial.factor is None else radial.factor
        for i, y in enumerate(places.points):
            difference = (sample.points - y) @ factor
            value, slope = radial.profile(np.square(difference).sum(1))
            values[i] += (w * value) @ sample.scores + 2 * ((w * slope) @ difference) @ factor.T
    norm = np.sqrt(max(float(w @ gram.product(w)), 0.0))
    return sample.out(values / norm if norm > 0 else values)


def _both(points, scores, at, at_scores, kernel, weights):  # noqa: ANN001, ANN202
    """The sample, the places, the Gram engine of the sample and its weights."""
    sample = read_sample(points, scores)
    places = read_sample(at, at_scores if at_scores is not None else np.zeros_like)
    if places.dimension != sample.dimension:
        raise InputError(f"at has {places.dimension} coordinates and the points {sample.dimension}.")
    w = read_weights(weights, sample.size, signed=True)
    return sample, places, SteinGram(sample, read_kernel(kernel, sample)), w


def _rounding(w: np.ndarray, diagonal: np.ndarray, d: int) -> float:
    """Bound on the rounding error of the double sum.

    ``K0`` is positive semi-definite, so ``|k0(x, y)|^2 <= k0(x, x) k0(y, y)``; each entry is
    a sum of d terms, and the sum over the pairs loses a few more bits.
    """
    scale = float((np.abs(w) * np.sqrt(np.clip(diagonal, 0, None))).sum()) ** 2
    return np.finfo(float).eps * (8 + d + np.log2(1 + len(w))) * scale


def _standard_error(w: np.ndarray, rows: np.ndarray, own: np.ndarray) -> float:
    """Standard error of the double sum for independent points: ``2 sd(E[k0 | x]) sqrt(sum w^2)``."""
    if len(w) < 2:
        return float("nan")
    share = np.divide(own, w, out=np.zeros_like(own), where=w != 0)
    means = rows - share
    center = float(w @ means)
    variance = float((np.abs(w) @ np.square(means - center)) / np.abs(w).sum())
    return 2.0 * float(np.sqrt(max(variance, 0.0) * np.square(w).sum()))
