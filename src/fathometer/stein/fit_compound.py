"""Tests built on the kernel test: several kernels at once, two samplers, a family of targets."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import special

from fathometer.errors import InputError
from fathometer.stein.fit import TestResult, finished, read_replicates, wild_bootstrap
from fathometer.stein.kernels import InverseMultiquadric, read_kernel
from fathometer.stein.ksd import ksd
from fathometer.stein.sample import read_points, read_sample
from fathometer.stein.tiles import SteinGram

_LADDER = (0.25, 0.5, 1.0, 2.0, 4.0)


def aggregated_test(
    points: Any,
    scores: Any,
    kernels: Sequence[Any] | None = None,
    *,
    correlated: bool = False,
    replicates: int = 1000,
    seed: int = 0,
    flip: float | None = None,
) -> TestResult:
    """One test of fit out of several kernels, so that no bandwidth need be chosen (Schrab et al. 2022).

    The statistic is the least of the single tests' p-values. All kernels see the same signs, so every
    replicate has its own least p-value, and these imitate the null law of the statistic: rejecting where the
    p-value is at most the level is the aggregated test with equal weights.

    Args:
        points: (n, d), in the order of drawing if they are correlated.
        scores: (n, d), or a function of the points.
        kernels: Two or more; by default inverse multiquadrics, scales 1/4 ... 4 times the median distance.
        correlated: As for `goodness_of_fit`.
        replicates: As for `goodness_of_fit`.
        seed: As for `goodness_of_fit`.
        flip: As for `goodness_of_fit`.

    Returns:
        ``statistic`` is minus the logarithm of the least p-value.

    Raises:
        InputError: As for `goodness_of_fit`, or there are fewer than two kernels.
    """
    draws, sample = read_replicates(replicates), read_sample(points, scores)
    chosen = kernels
    if chosen is None:
        chosen = [InverseMultiquadric(c=step, preconditioner="median") for step in _LADDER]
    if len(chosen) < 2:
        raise InputError(f"kernels hold {len(chosen)}; two or more are needed to aggregate.")
    laws = np.stack(
        [
            wild_bootstrap(sample, kernel, draws, "V", correlated=correlated, flip=flip, seed=seed)
            for kernel in chosen
        ]
    )
    # the sample and the replicates are exchangeable under the null law, so all are ranked alike
    above = [draws + 1 - np.searchsorted(np.sort(law), law, side="left") for law in laws]
    least = -np.log(np.min(above, axis=0) / (draws + 1))
    return finished(float(least[0]), least[1:], f"least p-value of {len(chosen)} kernels, wild bootstrap")


def relative_test(
    points: Any, scores: Any, other_points: Any, other_scores: Any, kernel: Any = None
) -> TestResult:
    """Is the first sampler farther from the target than the second?

    Draws of both are independent. The difference of the two squared U-statistics is asymptotically
    normal (Hoeffding 1948); small p-values say that the first discrepancy is the larger one.

    Args:
        points: (n, d) draws of the first sampler.
        scores: (n, d) of the common target there, or a function of the points.
        other_points: (m, d) draws of the second one.
        other_scores: (m, d), or a function of the points.
        kernel: As for `ksd`, without a recipe: both samples must see one kernel.

    Raises:
        InputError: As for `ksd`, or the kernel's preconditioner is a recipe.
    """
    parts = () if kernel is None else getattr(kernel, "parts", ())
    if any(isinstance(getattr(part, "preconditioner", None), str) for part in parts):
        raise InputError(
            "kernel: a preconditioner recipe would give the samples different kernels; pass a matrix."
        )
    a = ksd(points, scores, kernel, statistic="U")
    b = ksd(other_points, other_scores, kernel, statistic="U")
    deviation = float(np.hypot(a.standard_error, b.standard_error))
    statistic = (a.squared - b.squared) / deviation if deviation > 0 else 0.0
    return TestResult(
        statistic=float(statistic),
        p_value=float(special.ndtr(-statistic)),
        error=float("nan"),
        replicates=np.empty(0),
        method="difference of two U-statistics, normal limit",
    )


def family_test(
    points: Any,
    fit: Callable[[Any], Any],
    draw: Callable[[Any, int, int], Any],
    score: Callable[[Any, Any], Any],
    kernel: Any = None,
    *,
    replicates: int = 200,
    seed: int = 0,
) -> TestResult:
    """Does any member of a family of targets fit the sample? Parametric bootstrap, refitted every time.

    Testing a fitted target as if it had been given in advance hardly ever rejects; here every
    replicate is fitted too (Key et al. 2025).

    Args:
        points: (n, d), independent draws.
        fit: ``fit(points)`` gives the parameter.
        draw: ``draw(parameter, n, seed)`` gives n points of that member.
        score: ``score(parameter, points)`` gives their scores (n, d).
        kernel: As for `ksd`.
        replicates: Fitted samples, one or more.
        seed: Of the first replicate.

    Raises:
        InputError: As for `ksd`, or replicates is out of range.
    """
    draws, x = read_replicates(replicates), read_points(points)

    def statistic(sample: Any) -> float:
        parameter = fit(sample)
        given = read_sample(sample, score(parameter, sample))
        weights = np.full(given.size, 1.0 / given.size)
        gram = SteinGram(given, read_kernel(kernel, given))
        return given.size * float(weights @ gram.product(weights))

    parameter = fit(x)
    law = np.array([statistic(read_points(draw(parameter, len(x), seed + r))) for r in range(draws)])
    return finished(statistic(x), law, "Stein V-statistic of a fitted target, parametric bootstrap")
