"""How the squared kernel Stein discrepancy changes when the points move.

    d KSD^2 / d x_i = 2 w_i sum_j w_j (d k0(x_i, x_j) / d x_i  at fixed scores)  +  2 w_i H(x_i) g(x_i)

with the Hessian H of the log density and the unnormalized maximizing function ``g``. The first part has a
closed form in the first three derivatives of the kernel's profile and is a few matrix products a
strip; the second takes one Hessian-vector product a point. The Stein kernel itself is never
differentiated automatically: that would cost its square in memory and fails at coinciding points.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from fathometer.errors import InputError
from fathometer.stein.kernels import Radial, read_kernel
from fathometer.stein.sample import Sample, as_array, read_sample, read_weights, refuse_non_finite
from fathometer.stein.targets import read_target
from fathometer.stein.tiles import SteinGram
from fathometer.stein.witness import refuse_tilted, square_distances, stein_field

_STRIP = 1 << 18


def ksd_gradient(points: Any, target: Any, kernel: Any = None, *, weights: Any = None) -> Any:
    """Gradient of the squared discrepancy (V-statistic) with respect to the points: (n, d).

    Args:
        points: (n, d), numpy or torch.
        target: A log density (twice differentiable by torch), a `Posterior`, or a ``LossSurface``.
        kernel: As for `ksd`, radial; a preconditioner recipe is worked out at the points and held fixed.
        weights: (n,) summing to one, negative ones allowed; uniform by default.

    Returns:
        The gradient, numpy or torch as the points are.

    Raises:
        InputError: As for `ksd`; or the kernel is not radial.
    """
    aim = read_target(target)
    if aim.bend is None:
        raise InputError("target has no second derivatives; pass a log density, Posterior or LossSurface.")
    sample = read_sample(points, lambda x: aim.both(torch.as_tensor(x, dtype=torch.float64))[1])
    w = read_weights(weights, sample.size, signed=True)
    return sample.out(squared_and_gradient(sample, aim, read_kernel(kernel, sample), w)[1])


def squared_and_gradient(
    sample: Sample, aim: Any, kernel: tuple[Radial, ...], w: Float[np.ndarray, " n"]
) -> tuple[float, Float[np.ndarray, "n d"]]:
    """The squared discrepancy and its gradient.

    Raises:
        InputError: If a summand of the kernel is not radial, or a second derivative is not finite.
    """
    refuse_tilted(kernel)
    explicit = sum((_explicit(sample, radial, w) for radial in kernel), np.zeros_like(sample.points))
    field = stein_field(sample, kernel, w, sample.points)
    curved = aim.bend(torch.from_numpy(sample.points), torch.from_numpy(field))
    curved = as_array(curved, name="second derivatives")
    refuse_non_finite(curved, "second derivatives")
    squared = float(w @ SteinGram(sample, kernel).product(w))
    return squared, 2 * w[:, None] * (explicit + curved)


def _explicit(sample: Sample, radial: Radial, w: np.ndarray) -> np.ndarray:
    """``sum_j w_j`` times the derivative of ``k0(x_i, x_j)`` by ``x_i`` at fixed scores: (n, d).

    With ``u = S^-1 (x - y)``, ``q = |u|^2`` and ``f`` the profile,

        (2 f' <b, b'> - 4 f'' (<b - b', u> + tr S^-1) - 8 f''' q) u  -  2 f' S^-1 (b - b')  -  8 f'' S^-1 u.
    """
    n, b = sample.size, sample.scores
    X = sample.points - sample.points.mean(0)
    Z = X if radial.factor is None else X @ radial.factor
    Y = X if radial.inverse is None else X @ radial.inverse

    def inverse(v: np.ndarray) -> np.ndarray:
        return v if radial.inverse is None else v @ radial.inverse

    def spread(matrix: np.ndarray, v: np.ndarray, rows: slice) -> np.ndarray:
        """``sum_j matrix_ij (v_i - v_j)``."""
        return matrix.sum(1, keepdims=True) * v[rows] - matrix @ v

    own, total = (b * Y).sum(1), np.empty_like(X)
    for start in range(0, n, strip := max(1, _STRIP // n)):
        rows = slice(start, min(start + strip, n))
        _, first, second, third = radial.derivatives(square_distances(Z[rows], Z), 3)
        first, second, third = first * w, second * w, third * w
        cross = own[rows, None] + own - b[rows] @ Y.T - Y[rows] @ b.T + radial.trace
        along = 2 * first * (b[rows] @ b.T) - 4 * second * cross
        along -= 8 * third * square_distances(Y[rows], Y)
        total[rows] = spread(along, Y, rows)
        total[rows] -= 2 * inverse(spread(first, b, rows)) + 8 * inverse(spread(second, Y, rows))
    return total
