"""Discrepancies of samples too large for all their pairs: estimates that say how far off they may be.

Two unbiased estimates of the squared discrepancy, each a mean of independent rounds:

*   "features": ``KSD^2 = E |mean_i e^(i<w, x_i>) (b(x_i) + i w)|^2`` over frequencies w drawn from the
    kernel's spectrum (as in Huggins & Mackey 2018). A round goes over *all* points, and its relative
    error does not depend on n: the choice where a good sample is to be measured.
*   "pairs": an incomplete U-statistic. A round shuffles the points and takes the n pairs of neighbors at a
    random distance along a circle; every point counts twice, so only the pair interaction is left as noise.
    Cheap and good at telling a bad sample; near zero its absolute error does not shrink with n.

After any number of rounds the interval of an asymptotic confidence sequence (Waudby-Smith et al. 2024)
covers the exact value: it may be looked at as often as one likes, and stopped when it is narrow enough.

The Nystrom value uses the columns of some landmark points and projects on them; it never exceeds the
exact one, so it is a bound.
"""

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from scipy import special

from fathometer.errors import InputError
from fathometer.results import Result
from fathometer.stein.kernels import Radial, read_kernel
from fathometer.stein.sample import Sample, read_sample
from fathometer.stein.tiles import SteinGram
from fathometer.stein.witness import refuse_tilted
from fathometer.types import Kind, Progress
from fathometer.work import chunk_size, grid, numpy_generator, reduce_chunks

if TYPE_CHECKING:
    from fathometer.drawing.picture import Picture

METHODS = ("features", "pairs")
_FREQUENCIES = 32
_ROWS = 4096
_FEWEST_ROUNDS = 8


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class KernelSteinEstimate(Result):
    """An estimate of the discrepancy (V-statistic) of a large sample.

    Attributes:
        value: Root of ``squared``, zero where that is negative.
        error: Half the width of ``interval``.
        squared: The mean of the rounds, an unbiased estimate of the squared discrepancy.
        interval: (low, high) for the discrepancy of these points, at the confidence asked for, valid
            at every time of stopping.
        expected: The yardstick, exact: about what a correct independent sample of this size has.
        rounds: (r,) the estimates of the squared discrepancy of single rounds.
        path: (r, 2) low and high ends after every round.
        method: "features" or "pairs".
        size: Number of points.
    """

    value: float
    error: float
    squared: float
    interval: tuple[float, float]
    expected: float
    rounds: Float[np.ndarray, " r"]
    path: Float[np.ndarray, "r 2"]
    method: str
    size: int

    @property
    def kind(self) -> Kind:
        """An estimate."""
        return "estimate"

    def picture(self) -> "Picture":
        """The interval after every round."""
        from fathometer.stein.pictures import estimate_picture

        return estimate_picture(self)

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"kernel Stein discrepancy {self.value:.4g}, in [{low:.4g}, {high:.4g}] (estimate, "
            f"{len(self.rounds)} rounds of {self.method}; {self.size} points); a correct independent sample "
            f"has about {self.expected:.3g}"
        )


def estimate_ksd(
    points: Any,
    scores: Any,
    kernel: Any = None,
    *,
    method: str = "features",
    tolerance: float = 0.05,
    rounds: int = 1000,
    seconds: float | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    progress: Progress | None = None,
) -> KernelSteinEstimate:
    """Estimate the kernel Stein discrepancy of a sample that is too large for all pairs.

    Args:
        points: (n, d), two points or more.
        scores: (n, d), or a function of the points.
        kernel: As for `ksd`. Features need an inverse multiquadric, a Gaussian or a sum: the spectrum of the
            Matern kernel has no fourth moment, so a mean of its features has no error to state.
        method: "features" or "pairs" (see the module).
        tolerance: Stop when the interval's half width is below this share of the value.
        rounds: Rounds at most; 32 frequencies, or n pairs, each.
        seconds: Stop after about this time; None for no limit.
        confidence: Of the interval, in (0, 1).
        seed: Of the frequencies or shuffles.
        progress: Called with (rounds done, rounds at most, what).

    Raises:
        InputError: As for `ksd`, or an argument is out of range.
    """
    if method not in METHODS:
        raise InputError(f'method is {method!r}; it is "features" or "pairs".')
    _check_numbers(tolerance, rounds, confidence)
    sample = read_sample(points, scores)
    if sample.size < 2:
        raise InputError("points: an estimate over pairs needs at least 2 points.")
    fitted = read_kernel(kernel, sample)
    refuse_tilted(fitted)
    one_round = _Features(sample, fitted) if method == "features" else _Pairs(sample, fitted)
    found, path, begin = [], [], time.monotonic()
    for number in range(rounds):
        found.append(one_round(numpy_generator(seed, f"{method} {number}")))
        path.append(_interval(np.array(found), 1 - confidence))
        if progress is not None:
            progress(number + 1, rounds, method)
        low, high = path[-1]
        narrow = high - low <= 2 * tolerance * max(np.mean(found), 0.0) ** 0.5
        late = seconds is not None and time.monotonic() - begin >= seconds
        if len(found) >= _FEWEST_ROUNDS and (narrow or late):
            break
    squared = float(np.mean(found))
    low, high = path[-1]
    return KernelSteinEstimate(
        value=math.sqrt(max(squared, 0.0)),
        error=0.5 * (high - low),
        squared=squared,
        interval=(low, high),
        expected=math.sqrt(one_round.own),
        rounds=np.array(found),
        path=np.array(path),
        method=method,
        size=sample.size,
    )


def nystrom_ksd(
    points: Any, scores: Any, landmarks: int | None = None, kernel: Any = None, *, seed: int = 0
) -> tuple[float, float]:
    """A lower bound of the discrepancy (V-statistic) from the columns of some points.

    ``1' K_nm K_mm^+ K_mn 1 / n^2``: the squared length of the projection of the sample's mean embedding on
    the span of the landmarks (Kalinke et al. 2024). ``O(n m d + m^3)``.

    Args:
        points: (n, d).
        scores: (n, d), or a function of the points.
        landmarks: How many points, drawn without replacement; ``4 sqrt(n)`` by default.
        kernel: As for `ksd`.
        seed: Of the choice.

    Returns:
        The bound on the discrepancy, and the share of the mean of ``k0(x, x)`` over the sample that the
        landmarks span: near 1 the bound is near the exact value.

    Raises:
        InputError: As for `ksd`, or landmarks is not a whole number from 1 to n.
    """
    sample = read_sample(points, scores)
    n = sample.size
    m = min(n, int(4 * math.sqrt(n))) if landmarks is None else landmarks
    if isinstance(m, bool) or not isinstance(m, int) or not 1 <= m <= n:
        raise InputError(f"landmarks is {landmarks!r}; a whole number from 1 to {n} is needed.")
    chunk_size(1, 8 * 4 * m * m, what=f"the columns of {m} landmarks")
    gram = SteinGram(sample, read_kernel(kernel, sample))
    rng = numpy_generator(seed, "landmarks")
    chosen = np.sort(rng.choice(n, m, replace=False))
    near = type(sample)(points=sample.points[chosen], scores=sample.scores[chosen])
    square = SteinGram(near, gram.kernel).dense()
    values, vectors = np.linalg.eigh(square)
    kept = values > 1e-12 * max(values[-1], 0.0)
    root = vectors[:, kept] / np.sqrt(values[kept])
    mean, spanned = np.zeros(m), 0.0
    for _, block in SteinGram(near, gram.kernel).against(sample.points, sample.scores):
        mean += block.sum(0) / n
        spanned += float(np.square(block @ root).sum())
    return float(np.linalg.norm(root.T @ mean)), spanned / float(gram.diagonal.sum())


class _Features:
    """Rounds of random frequencies; ``own`` is the mean of ``k0(x, x)`` over n."""

    def __init__(self, sample: Sample, kernel: tuple[Radial, ...]) -> None:
        if any(radial.code == 2 for radial in kernel):
            raise InputError(
                "kernel: random features of the Matern kernel have infinite variance; pass "
                'InverseMultiquadric or Gaussian, or method="pairs".'
            )
        self._kernel, self._scores = kernel, sample.scores
        self._points = sample.points - sample.points.mean(0)
        self.own = float(SteinGram(sample, kernel).diagonal.sum()) / sample.size**2

    def __call__(self, rng: np.random.Generator) -> float:
        return sum(self._one(radial, rng) for radial in self._kernel)

    def _one(self, radial: Radial, rng: np.random.Generator) -> float:
        n, d = self._points.shape
        normal = rng.standard_normal((d, _FREQUENCIES))
        if radial.code == 1:
            frequencies, mass = normal / radial.first, 1.0
        else:  # (c^2 + r^2)^beta = c^(2 beta) E e^(-t r^2), t ~ Gamma(-beta, rate c^2)
            rate = rng.gamma(-radial.second, 1 / radial.first**2, _FREQUENCIES)
            frequencies, mass = normal * np.sqrt(2 * rate), radial.first ** (2 * radial.second)
        if radial.factor is not None:
            frequencies = radial.factor @ frequencies

        def part(rows: slice) -> torch.Tensor:
            phase = self._points[rows] @ frequencies
            c, s = np.cos(phase), np.sin(phase)
            b = self._scores[rows]
            real = c.T @ b - s.sum(0)[:, None] * frequencies.T
            imaginary = s.T @ b + c.sum(0)[:, None] * frequencies.T
            return torch.from_numpy(np.stack([real, imaginary]))

        total = reduce_chunks(part, grid(n, _ROWS), what="frequencies")[0].numpy() / n
        return mass * float(np.square(total).sum()) / _FREQUENCIES


class _Pairs:
    """Rounds of pairs; ``own`` is the mean of ``k0(x, x)`` over n, exact."""

    def __init__(self, sample: Sample, kernel: tuple[Radial, ...]) -> None:
        self._kernel, self._scores = kernel, sample.scores
        self._points = sample.points - sample.points.mean(0)
        self.own = float(SteinGram(sample, kernel).diagonal.sum()) / sample.size**2

    def __call__(self, rng: np.random.Generator) -> float:
        n = len(self._points)
        order = rng.permutation(n)
        partner = np.roll(order, -int(rng.integers(1, n)))

        def part(rows: slice) -> torch.Tensor:
            i, j = order[rows], partner[rows]
            x, b, other = self._points[i] - self._points[j], self._scores[i], self._scores[j]
            return torch.tensor(sum(pair_values(x, b, other, radial).sum() for radial in self._kernel))

        mean = float(reduce_chunks(part, grid(n, _ROWS), what="pairs")[0]) / n
        return (1 - 1 / n) * mean + self.own


def pair_values(x: np.ndarray, b: np.ndarray, other: np.ndarray, radial: Radial) -> Float[np.ndarray, " n"]:
    """The Stein kernel of n pairs with differences ``x`` and scores ``b`` and ``other``, (n, d) each."""
    y = x if radial.inverse is None else x @ radial.inverse
    value, first, second = radial.derivatives((x * y).sum(1), 2)
    cross = ((b - other) * y).sum(1) + radial.trace
    return value * (b * other).sum(1) - 2 * first * cross - 4 * second * np.square(y).sum(1)


def _interval(values: Float[np.ndarray, " r"], level: float) -> tuple[float, float]:
    """Ends of the confidence sequence for the root of the mean, after all of ``values``."""
    t = len(values)
    if t < _FEWEST_ROUNDS:
        return 0.0, math.inf
    # the width parameter that is best around 50 rounds
    rho = (-2 * math.log(level) + math.log(-2 * math.log(level)) + 1) / 50
    spread = float(values.std(ddof=1))
    # the quantile of Student's t over that of the normal law pays for the estimated spread
    spread *= float(special.stdtrit(t - 1, 1 - level / 2) / special.ndtri(1 - level / 2))
    width = spread * math.sqrt((t * rho + 1) / (t**2 * rho) * math.log((t * rho + 1) / level**2))
    mean = float(values.mean())
    return math.sqrt(max(mean - width, 0.0)), math.sqrt(max(mean + width, 0.0))


def _check_numbers(tolerance: float, rounds: int, confidence: float) -> None:
    if not 0 <= tolerance < 1:
        raise InputError(f"tolerance is {tolerance!r}; a share of the value from 0 to below 1 is needed.")
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < _FEWEST_ROUNDS:
        raise InputError(f"rounds is {rounds!r}; a whole number, {_FEWEST_ROUNDS} or more, is needed.")
    if not 0 < confidence < 1:
        raise InputError(f"confidence is {confidence!r}; a number between 0 and 1 is needed.")
