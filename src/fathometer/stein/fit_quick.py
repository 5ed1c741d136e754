"""Tests of fit in time proportional to the number of points: finite sets of locations, and single pairs.

*   Finite set (Jitkrittum et al. 2017): the Stein function of the sample is looked at in J places only,
    ``FSSD^2 = mean over places v and coordinates of (E xi(X, v))^2``,
    ``xi(x, v) = b(x) k(x, v) + grad_x k(x, v)``, as a U-statistic. Under the null hypothesis n times it
    tends to ``sum_k lambda_k (Z_k^2 - 1)`` with the eigenvalues of the covariance of xi, which is simulated.
*   Linear time (Liu, Lee & Jordan 2016): the mean of ``k0`` over n / 2 disjoint pairs is asymptotically
    normal. Cheap, and much weaker than the quadratic test.

Both are for independent draws.
"""

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import special

from fathometer.errors import InputError
from fathometer.stein.fit import TestResult, finished, read_replicates
from fathometer.stein.kernels import Radial, read_kernel
from fathometer.stein.large import pair_values
from fathometer.stein.sample import Sample, as_array, read_sample, refuse_non_finite
from fathometer.stein.witness import refuse_tilted, square_distances
from fathometer.work import numpy_generator


def finite_set_test(
    points: Any,
    scores: Any,
    kernel: Any = None,
    *,
    locations: Any = 5,
    replicates: int = 1000,
    seed: int = 0,
) -> TestResult:
    """Test of fit by the Stein function at a finite set of places.

    Args:
        points: (n, d), independent draws.
        scores: (n, d), or a function of the points.
        kernel: As for `ksd`, radial.
        locations: (J, d) places, chosen without these points (for the largest power, on held-out ones);
            or how many to draw from a normal law with the mean and covariance of the points.
        replicates: Draws from the limit law.
        seed: Of the places and of those draws.

    Raises:
        InputError: As for `ksd`; there are fewer than 2 points, or locations or replicates do not fit.
    """
    draws = read_replicates(replicates)
    sample = _independent(points, scores, fewest=2)
    n = sample.size
    fitted = read_kernel(kernel, sample)
    refuse_tilted(fitted)
    rng = numpy_generator(seed, "finite set")
    places = _places(locations, sample, rng)
    features = sum((_features(sample, radial, places) for radial in fitted), np.zeros((n, places.size)))
    features = features / np.sqrt(places.size)
    total, own = features.sum(0), float(np.square(features).sum())
    statistic = (float(total @ total) - own) / (n - 1)
    weights = np.linalg.svd((features - features.mean(0)) / np.sqrt(n), compute_uv=False) ** 2
    law = np.square(rng.standard_normal((draws, len(weights)))) @ weights - weights.sum()
    return finished(statistic, law, f"finite-set Stein statistic, {len(places)} places, limit law")


def linear_time_test(points: Any, scores: Any, kernel: Any = None) -> TestResult:
    """Test of fit by the mean of the Stein kernel over disjoint pairs of neighbors in the sample.

    Args:
        points: (n, d), independent draws, 4 or more.
        scores: (n, d), or a function of the points.
        kernel: As for `ksd`, radial.

    Returns:
        The statistic is the mean over its standard error; the p-value is the normal tail above it, so
        there are no replicates and ``error`` is the Berry-Esseen bound of the approximation.

    Raises:
        InputError: As for `ksd`, or there are fewer than 4 points.
    """
    sample = _independent(points, scores, fewest=4)
    half = sample.size // 2
    fitted = read_kernel(kernel, sample)
    refuse_tilted(fitted)
    first, second = slice(0, 2 * half, 2), slice(1, 2 * half, 2)
    x, b = sample.points, sample.scores
    pairs = [pair_values(x[first] - x[second], b[first], b[second], radial) for radial in fitted]
    values = np.sum(pairs, axis=0)
    deviation = float(values.std(ddof=1))
    statistic = float(values.mean()) / deviation * np.sqrt(half) if deviation > 0 else 0.0
    skew = float(np.mean(np.abs(values - values.mean()) ** 3)) / deviation**3 if deviation > 0 else 0.0
    return TestResult(
        statistic=float(statistic),
        p_value=float(special.ndtr(-statistic)),
        error=float(min(1.0, 0.4748 * skew / np.sqrt(half))),
        replicates=np.empty(0),
        method="linear-time Stein statistic, normal limit",
    )


def _independent(points: Any, scores: Any, *, fewest: int) -> Sample:
    sample = read_sample(points, scores)
    if sample.size < fewest:
        raise InputError(f"points: this test needs at least {fewest} points; there are {sample.size}.")
    return sample


def _places(locations: Any, sample: Sample, rng: np.random.Generator) -> Float[np.ndarray, "J d"]:
    d = sample.dimension
    if isinstance(locations, int) and not isinstance(locations, bool):
        if locations < 1:
            raise InputError(f"locations is {locations}; one or more places are needed.")
        covariance = np.atleast_2d(np.cov(sample.points, rowvar=False))
        values, vectors = np.linalg.eigh(covariance)
        root = vectors * np.sqrt(np.clip(values, 0, None))
        return sample.points.mean(0) + rng.standard_normal((locations, d)) @ root.T
    places = np.atleast_2d(as_array(locations, name="locations"))
    if places.shape[1:] != (d,) or len(places) == 0:
        raise InputError(f"locations have shape {places.shape}; pass (J, {d}), or how many to draw.")
    refuse_non_finite(places, "locations")
    return places


def _features(sample: Sample, radial: Radial, places: np.ndarray) -> Float[np.ndarray, "n Jd"]:
    """``xi(x, v)`` for every point, the places side by side."""
    center = sample.points.mean(0)
    X, V = sample.points - center, places - center
    Z, T = (v if radial.factor is None else v @ radial.factor for v in (X, V))
    value, slope = radial.profile(square_distances(Z, T))
    Y, U = (v if radial.inverse is None else v @ radial.inverse for v in (X, V))
    xi = value[:, :, None] * sample.scores[:, None] + 2 * slope[:, :, None] * (Y[:, None] - U)
    return xi.reshape(sample.size, -1)
