"""The function that tells a sample from its target best, and its image under the operator.

The supremum in the kernel Stein discrepancy is reached by ``g(y) = E_Q[b(X) k(X, y) + grad k(X, y)] /
KSD`` (Gorham & Mackey 2017, after Prop. 2); its image ``h = T g`` is the witness. Without the division
``g`` is also the direction of Stein variational gradient descent.
"""

from typing import Any

import numpy as np
from jaxtyping import Float

from fathometer.errors import InputError
from fathometer.stein.kernels import Radial, read_kernel
from fathometer.stein.sample import Sample, read_sample, read_weights
from fathometer.stein.tiles import SteinGram

_STRIP = 1 << 18


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
    values = stein_field(sample, gram.kernel, w, places.points)
    norm = np.sqrt(max(float(w @ gram.product(w)), 0.0))
    return sample.out(values / norm if norm > 0 else values)


def stein_field(
    sample: Sample, kernel: tuple[Radial, ...], w: np.ndarray, at: Float[np.ndarray, "m d"]
) -> Float[np.ndarray, "m d"]:
    """``sum_i w_i (b(x_i) k(x_i, y) + grad_x k(x_i, y))`` at every y of ``at``, a strip at a time.

    Raises:
        InputError: If a summand of the kernel is not radial.
    """
    refuse_tilted(kernel)
    values = np.zeros(at.shape)
    center = sample.points.mean(0)
    strip = max(1, _STRIP // sample.size)
    for radial in kernel:
        X, Y = sample.points - center, at - center
        Z, V = (v if radial.factor is None else v @ radial.factor for v in (X, Y))
        U, T = (v if radial.inverse is None else v @ radial.inverse for v in (X, Y))
        for start in range(0, len(at), strip):
            rows = slice(start, min(start + strip, len(at)))
            value, slope = radial.profile(square_distances(V[rows], Z))
            slope *= w
            # grad_x k(x, y) = 2 phi' S^-1 (x - y)
            values[rows] += value @ (w[:, None] * sample.scores)
            values[rows] += 2 * (slope @ U - slope.sum(1, keepdims=True) * T[rows])
    return values


def refuse_tilted(kernel: tuple[Radial, ...]) -> None:
    """Raise if a summand is not a function of the distance alone.

    Raises:
        InputError: If one is.
    """
    if any(radial.tilt is not None for radial in kernel):
        raise InputError(
            "kernel: MomentControl and Bounded have no direction and no gradient here; pass "
            "InverseMultiquadric, Gaussian, Matern32 or a sum of them."
        )


def square_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared distances (m, n), by sums of squares where they are few, so that nothing cancels."""
    from scipy.spatial.distance import cdist

    return cdist(a, b, "sqeuclidean")


def _both(
    points: Any, scores: Any, at: Any, at_scores: Any, kernel: Any, weights: Any
) -> tuple[Sample, Sample, SteinGram, Any]:
    """The sample, the places, the Gram engine of the sample and its weights."""
    sample = read_sample(points, scores)
    places = read_sample(at, at_scores if at_scores is not None else np.zeros_like)
    if places.dimension != sample.dimension:
        raise InputError(f"at has {places.dimension} coordinates and the points {sample.dimension}.")
    w = read_weights(weights, sample.size, signed=True)
    return sample, places, SteinGram(sample, read_kernel(kernel, sample)), w
