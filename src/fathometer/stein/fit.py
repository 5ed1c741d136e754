"""Does this sample come from that target? Tests by the kernel Stein discrepancy.

The statistic is n times the squared discrepancy. Under the null hypothesis its law is imitated by
a wild bootstrap (Chwialkowski, Strathmann & Gretton 2016): the sum over pairs is taken with random
signs, ``sum s_i s_j k0(x_i, x_j) / n``. For independent draws the signs are independent. For the draws
of a chain they are a slow two-state Markov chain, which flips with a small probability; that
imitates the dependence of the draws (Leucht & Neumann 2013).

The p-value is ``(1 + #{replicates >= statistic}) / (1 + replicates)``, never zero. All replicates
come out of one pass over the pairs, as a product with a matrix of signs.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from fathometer.errors import InputError
from fathometer.results import Result
from fathometer.stein.kernels import read_kernel
from fathometer.stein.ksd import STATISTICS
from fathometer.stein.sample import Sample, read_points, read_sample
from fathometer.stein.tiles import SteinGram
from fathometer.types import Kind
from fathometer.work import chunk_size, grid, numpy_generator

_FLIP = 0.1


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TestResult(Result):
    """The outcome of a test.

    Attributes:
        statistic: n times the squared V- or U-statistic (or the comparator's own statistic).
        p_value: Share of the imitated statistics at least as large, counting the statistic itself.
        error: Standard error of the p-value from the finite number of replicates.
        replicates: (B,) the imitated statistics.
        method: What was tested, and how the null law was imitated.
    """

    __test__ = False  # the name is not a test of this package

    statistic: float
    p_value: float
    error: float
    replicates: Float[np.ndarray, " b"]
    method: str

    @property
    def value(self) -> float:
        """The p-value."""
        return self.p_value

    @property
    def kind(self) -> Kind:
        """A Monte Carlo p-value is an estimate."""
        return "estimate"

    def picture(self) -> Any:
        """The imitated null law and the statistic."""
        from fathometer.stein.pictures import fit_picture

        return fit_picture(self)

    def __str__(self) -> str:
        return f"{self.method}: statistic {self.statistic:.4g}, p = {self.p_value:.3g} +- {self.error:.1g}"


def goodness_of_fit(
    points: Any,
    scores: Any,
    kernel: Any = None,
    *,
    correlated: bool = False,
    replicates: int = 1000,
    seed: int = 0,
    statistic: str = "V",
    flip: float | None = None,
) -> TestResult:
    """Test whether the points come from the target of the scores.

    Args:
        points: (n, d), in the order of drawing if they are correlated.
        scores: (n, d), or a function of the points.
        kernel: As for `ksd`.
        correlated: Whether the points are successive draws of a chain.
        replicates: Bootstrap replicates B, one or more.
        seed: Of the random signs.
        statistic: "V" or "U".
        flip: Probability that the sign changes from one draw to the next, in (0, 0.5]; 0.5 for independent
            points, 0.1 for correlated ones. It should be small against the inverse of the
            autocorrelation time and large against 1 / n.

    Raises:
        InputError: As for `ksd`; if there are fewer than 2 points or replicates or flip is out of range.
    """
    if statistic not in STATISTICS:
        raise InputError(f'statistic is {statistic!r}; it is "V" or "U".')
    draws, sample = read_replicates(replicates), read_sample(points, scores)
    law = wild_bootstrap(sample, kernel, draws, statistic, correlated=correlated, flip=flip, seed=seed)
    how = "independent signs"
    if correlated or flip is not None:
        how = f"Markov signs, flip {_FLIP if flip is None else flip:g}"
    return finished(float(law[0]), law[1:], f"Stein {statistic}-statistic, wild bootstrap ({how})")


def wild_bootstrap(
    sample: Sample,
    kernel: Any,
    replicates: int,
    statistic: str,
    *,
    correlated: bool,
    flip: float | None,
    seed: int,
) -> Float[np.ndarray, " b"]:
    """The statistic, and behind it the same with random signs, as many as replicates.

    Raises:
        InputError: If there are fewer than 2 points or flip is out of range.
        BudgetError: If not even one replicate fits the memory.
    """
    change = (_FLIP if correlated else 0.5) if flip is None else float(flip)
    if not 0 < change <= 0.5:
        raise InputError(f"flip is {change:g}; a probability above 0 and at most 0.5 is needed.")
    n = sample.size
    if n < 2:
        raise InputError("points: a test needs at least 2 points.")
    gram = SteinGram(sample, read_kernel(kernel, sample))
    signs = np.concatenate([np.ones((n, 1)), _signs(n, replicates, change, seed)], axis=1)
    # a strip's part, the running sums and the images, each as large as the signs in work
    step = chunk_size(replicates + 1, 8 * 6 * n, what=f"bootstrap replicates of {n} points")
    forms = [
        np.einsum("ib,ib->b", signs[:, part], gram.product(signs[:, part]))
        for part in grid(replicates + 1, step)
    ]
    values = np.concatenate(forms)
    # signs square to one, so the diagonal is the same in every replicate
    return (values - float(gram.diagonal.sum())) / (n - 1) if statistic == "U" else values / n


def read_replicates(replicates: Any) -> int:
    """A whole number, one or more.

    Raises:
        InputError: If it is not.
    """
    if isinstance(replicates, bool) or not isinstance(replicates, int) or replicates < 1:
        raise InputError(f"replicates is {replicates!r}; a whole number, one or more, is needed.")
    return replicates


def finished(statistic: float, law: np.ndarray, method: str) -> TestResult:
    """The outcome for a statistic and an imitated null law."""
    p = float((1 + (law >= statistic).sum()) / (1 + len(law)))
    return TestResult(
        statistic=statistic,
        p_value=p,
        error=float(np.sqrt(p * (1 - p) / len(law))),
        replicates=law,
        method=method,
    )


def baringhaus_henze(points: Any, *, replicates: int = 600, seed: int = 0) -> TestResult:
    """Test of N(0, I) by the empirical characteristic function: the comparator of the kernel tests.

    ``n * integral |phi_n - phi|^2`` with a standard normal weight (Baringhaus & Henze 1988, with the
    mean and covariance known); the null law by fresh normal samples of the same size.

    Args:
        points: (n, d).
        replicates: Fresh samples, one or more.
        seed: Of the fresh samples.

    Raises:
        InputError: If the points are not finite (n, d), or replicates is out of range.
    """
    draws, x = read_replicates(replicates), read_points(points)
    rng = numpy_generator(seed, "baringhaus-henze")
    law = np.array([_henze(rng.standard_normal(x.shape)) for _ in range(draws)])
    return finished(_henze(x), law, "Baringhaus-Henze statistic, Monte Carlo")


def _henze(x: np.ndarray) -> float:
    n, d = x.shape
    square = np.square(x).sum(1)
    pairs = np.exp(-0.5 * np.clip(square[:, None] + square - 2 * x @ x.T, 0, None))
    single = np.exp(-0.25 * square) * 2.0 ** (-d / 2)
    return float(pairs.sum() / n - 2 * single.sum() + n * 3.0 ** (-d / 2))


def _signs(n: int, replicates: int, flip: float, seed: int) -> Float[np.ndarray, "n b"]:
    """Columns of signs, each a two-state Markov chain in equilibrium."""
    rng = numpy_generator(seed, "wild bootstrap")
    first = rng.random((1, replicates)) < 0.5
    flips = np.concatenate([first, rng.random((n - 1, replicates)) < flip])
    return 1.0 - 2.0 * (np.cumsum(flips, axis=0) % 2)
