"""Chains of draws, and what is commonly said of them: effective sample size and R-hat.

Both common numbers (Gelman et al. 2013, Bayesian Data Analysis, sec. 11.4 and 11.5) look at how the
chains mix and not at whether they mix over the right distribution; that is why they stand *beside*
a discrepancy in this room.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from fathometer.errors import InputError
from fathometer.results import Result
from fathometer.stein.doors import draws_of, is_inference_data
from fathometer.stein.sample import as_array, refuse_non_finite
from fathometer.types import Kind

if TYPE_CHECKING:
    from fathometer.drawing.picture import Picture


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Chain(Result):
    """What a sampler drew.

    Attributes:
        points: (steps, d), or (chains, steps, d) if it was started from several points; the
            start is not among them. Numpy or torch as the start was.
        scores: The scores of the whole target at the points, the same shape.
        acceptance: Share of the proposals accepted; 1 for samplers that accept all.
        evaluations: Evaluations spent: of single terms for a posterior of N examples (N for a
            full one), of the log density otherwise. The recorded scores are not counted.
        sampler: Name of the sampler and its settings.
    """

    points: Any
    scores: Any
    acceptance: float
    evaluations: int
    sampler: str = ""

    @property
    def value(self) -> float:
        """The acceptance rate."""
        return self.acceptance

    @property
    def kind(self) -> Kind:
        """The counts are exact."""
        return "exact"

    @property
    def error(self) -> float:
        """Zero."""
        return 0.0

    def picture(self) -> "Picture":
        """Traces and the cloud of the first two coordinates."""
        from fathometer.stein.pictures import chain_picture

        return chain_picture(self)

    def __str__(self) -> str:
        return (
            f"{self.sampler or 'chain'}: points {tuple(self.points.shape)}, acceptance "
            f"{self.acceptance:.3g}, {self.evaluations} evaluations"
        )


def ess(draws: Any) -> Float[np.ndarray, " d"]:
    """Effective sample size of the mean of every coordinate: (d,).

    Chains are cut in two halves; autocorrelations come from one Fourier transform and are
    summed by Geyer's initial monotone sequence (Gelman et al., BDA3, sec. 11.5).

    Args:
        draws: (draw, d), (chain, draw, d) or an ArviZ object; at least 4 draws a chain.

    Raises:
        InputError: If there are fewer than 4 draws, or something is not finite.
    """
    x = _split(draws)
    m, n, _ = x.shape
    between, within = _variances(x)
    covariance = _autocovariance(x)
    total = within * (n - 1) / n + between / n
    sizes = np.full(x.shape[2], float(m * n))
    for j in np.flatnonzero(total > 0):
        rho = 1 - (within[j] - covariance[:, :, j].mean(0)) / total[j]
        rho[0] = 1.0
        sizes[j] = m * n / _correlation_time(rho, m * n)
    return sizes


def rhat(draws: Any) -> Float[np.ndarray, " d"]:
    """Split R-hat of every coordinate: (d,). Close to 1 where the halves of the chains agree.

    Args:
        draws: (draw, d), (chain, draw, d) or an ArviZ object; at least 4 draws a chain.

    Raises:
        InputError: If there are fewer than 4 draws, or something is not finite.
    """
    x = _split(draws)
    n = x.shape[1]
    between, within = _variances(x)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.sqrt((within * (n - 1) / n + between / n) / within)
    return np.where(within > 0, ratio, np.where(between > 0, np.inf, 1.0))


def _split(draws: Any) -> np.ndarray:
    """Chains (2 chains, draw / 2, d): each half a chain of its own."""
    x = draws_of(draws) if is_inference_data(draws) else as_array(draws, name="draws")
    x = x[:, None] if x.ndim == 1 else x
    x = x[None] if x.ndim == 2 else x
    if x.ndim != 3 or x.shape[1] < 4:
        raise InputError(
            f"draws have shape {x.shape}; pass (draw, d) or (chain, draw, d) with at least 4 draws."
        )
    refuse_non_finite(x.reshape(-1, x.shape[2]), "draws")
    half = x.shape[1] // 2
    return np.concatenate([x[:, :half], x[:, -half:]])


def _variances(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Between-chain and mean within-chain variance of each coordinate."""
    n = x.shape[1]
    return n * x.mean(1).var(0, ddof=1), x.var(1, ddof=1).mean(0)


def _autocovariance(x: np.ndarray) -> np.ndarray:
    """Biased autocovariance (chain, lag, d)."""
    n = x.shape[1]
    width = 1 << (2 * n - 1).bit_length()
    spectrum = np.fft.rfft(x - x.mean(1, keepdims=True), n=width, axis=1)
    return np.fft.irfft(np.abs(spectrum) ** 2, n=width, axis=1)[:, :n] / n


def _correlation_time(rho: np.ndarray, draws: int) -> float:
    """Sum of the autocorrelations, ``1 + 2 sum rho_t``, by Geyer's initial monotone sequence.

    Sums of neighboring pairs of autocorrelations are positive and fall; noise ends that.
    """
    pairs = rho[: 2 * (len(rho) // 2)].reshape(-1, 2).sum(1)
    stop = int(np.argmax(pairs <= 0)) if (pairs <= 0).any() else len(pairs)
    time = -1 + 2 * np.minimum.accumulate(pairs[:stop]).sum() if stop else 1.0
    return float(
        max(time, 1 / np.log10(draws))
    )  # antithetic chains may beat independent draws, but not by much
