"""Discrepancies from stochastic scores: a random batch of the examples at every point.

A score estimated from m of N terms is unbiased, so every pair of *different* points keeps its expected
Stein kernel. The diagonal does not: ``k0(x, x)`` holds ``phi(0) |b(x)|^2``, which grows by ``phi(0)`` times
the variance of the estimate. The V-statistic is therefore too large by

    bias = sum_i w_i^2 phi(0) tr Cov(b_i),    Cov(b_i) ~ N^2 (1 / m - 1 / N) S_i

with the sample covariance S_i of the batch's single gradients (Gorham, Raj & Mackey 2020 drop the term
for large n; here it is estimated, stated and taken off).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from fathometer.errors import InputError
from fathometer.results import Result
from fathometer.stein.kernels import read_kernel
from fathometer.stein.sample import Sample, read_points, read_sample, read_weights
from fathometer.stein.samplers.walk import read_batch
from fathometer.stein.targets import read_posterior
from fathometer.stein.tiles import SteinGram
from fathometer.stein.witness import refuse_tilted
from fathometer.types import Kind
from fathometer.work import check_seed, generator


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class StochasticSteinDiscrepancy(Result):
    """A discrepancy from stochastic scores.

    Attributes:
        value: Root of ``squared``, zero where that is negative.
        error: Half the difference that two standard errors of ``squared`` make in ``value``; the standard
            error is that of the mean over the repetitions: it speaks of the noise of the scores only.
        squared: Mean over the repetitions with the bias taken off; unbiased for the squared V-statistic with
            exact scores.
        plain: The squared V-statistic as it comes out of the noisy scores, mean over the repetitions.
        bias: What the noise of the scores adds to ``plain``, estimated from the batches.
        evaluations: Evaluations of single terms.
    """

    value: float
    error: float
    squared: float
    plain: float
    bias: float
    evaluations: int

    @property
    def kind(self) -> Kind:
        """An estimate."""
        return "estimate"

    def __str__(self) -> str:
        return (
            f"kernel Stein discrepancy {self.value:.4g} +- {self.error:.2g} (estimate from stochastic "
            f"scores; squared: {self.plain:.4g} of which {self.bias:.4g} is bias, taken off)"
        )


def stochastic_scores(
    target: Any, points: Any, batch_size: int, *, seed: int = 0
) -> tuple[Any, Float[np.ndarray, " n"]]:
    """Scores from an independent random batch at every point, and how much they vary.

    Args:
        target: A `Posterior` or a ``LossSurface``.
        points: (n, d), numpy or torch.
        batch_size: Terms at each point, drawn without replacement, from 2 to N.
        seed: Of the batches.

    Returns:
        (n, d) scores, numpy or torch as the points are, and the estimated trace of the covariance of
        each (n,).

    Raises:
        InputError: If shapes do not fit, or the target has fewer than 2 terms, or batch_size is out of range.
    """
    aim, x = read_posterior(target), read_points(points)
    N = aim.examples
    batch = read_batch(batch_size, N)
    if batch < 2:
        raise InputError("batch_size is 1; the variance of a score needs at least 2 examples.")
    random = generator(check_seed(seed), "stochastic scores")
    places = torch.from_numpy(x)
    scores = aim.prior(places)[1].clone()
    variances = np.empty(len(x))
    for i, place in enumerate(places):
        each = aim.each_gradient(place, torch.randperm(N, generator=random)[:batch])
        scores[i] += N * each.mean(0)
        variances[i] = N**2 * (1 / batch - 1 / N) * float(each.var(0).sum())
    like = points if isinstance(points, torch.Tensor) else None
    return (scores.numpy() if like is None else scores.to(like)), variances


def stochastic_ksd(
    points: Any,
    target: Any,
    batch_size: int,
    kernel: Any = None,
    *,
    repetitions: int = 4,
    weights: Any = None,
    seed: int = 0,
) -> StochasticSteinDiscrepancy:
    """Kernel Stein discrepancy (V-statistic) from stochastic scores, with its bias stated and taken off.

    Args:
        points: (n, d).
        target: A `Posterior` or a ``LossSurface``.
        batch_size: Terms at each point, from 2 to N.
        kernel: As for `ksd`, radial; not with the recipe "score_covariance", which needs exact scores.
        repetitions: Independent sets of scores, 2 or more; their spread gives the error.
        weights: As for `ksd`.
        seed: Of the batches.

    Raises:
        InputError: As for `ksd` and `stochastic_scores`; or there are fewer than 2 repetitions.
    """
    if isinstance(repetitions, bool) or not isinstance(repetitions, int) or repetitions < 2:
        raise InputError(f"repetitions is {repetitions!r}; a whole number, 2 or more, is needed.")
    x = read_points(points)
    w = read_weights(weights, len(x), signed=True)
    aim = read_posterior(target)
    known = read_sample(x, lambda at: aim.prior(torch.as_tensor(at))[1])
    fitted = read_kernel(kernel, known)
    refuse_tilted(fitted)
    if any(part.preconditioner == "score_covariance" for part in _parts(kernel)):
        raise InputError(
            "kernel: the recipe 'score_covariance' needs exact scores; pass the matrix as preconditioner."
        )
    peak = sum(float(radial.profile(np.zeros(1))[0][0]) for radial in fitted)
    plain, bias = np.empty(repetitions), np.empty(repetitions)
    for r in range(repetitions):
        scores, variances = stochastic_scores(target, x, batch_size, seed=seed + r)
        plain[r] = w @ SteinGram(Sample(points=x, scores=scores), fitted).product(w)
        bias[r] = peak * float(np.square(w) @ variances)
    unbiased = plain - bias
    squared = float(unbiased.mean())
    deviation = float(unbiased.std(ddof=1)) / np.sqrt(repetitions)
    ends = np.sqrt(np.clip([squared - 2 * deviation, squared + 2 * deviation], 0, None))
    return StochasticSteinDiscrepancy(
        value=float(np.sqrt(max(squared, 0.0))),
        error=float(0.5 * (ends[1] - ends[0])),
        squared=squared,
        plain=float(plain.mean()),
        bias=float(bias.mean()),
        evaluations=repetitions * len(x) * batch_size,
    )


def _parts(kernel: Any) -> tuple[Any, ...]:
    """The summands whose preconditioner is a recipe."""
    return () if kernel is None else tuple(p for p in kernel.parts if isinstance(p.preconditioner, str))
