"""The best weights for a sample: the least kernel Stein discrepancy that reweighting can reach.

On the simplex this is the convex program ``min w' K0 w, w >= 0, sum w = 1`` (Liu & Lee 2017; Gorham &
Mackey 2017, sec. 5.5); with signs allowed it is one linear solve, ``w = K0^-1 1 / (1' K0^-1 1)``.
Equal points are merged first and share their weight evenly, so the matrix is singular
only where the kernel makes it so; a ridge at rounding level then picks the solution of least norm.

The simplex is handled by an active set: from the points in use the signed solution is taken as far as
it stays positive, and the point that would lower the discrepancy most is added. Every step lowers the
value, so it ends after finitely many, at a point whose optimality conditions are checked.
Without a kernel the length scale is ``c^2`` = half the median squared distance, as in the
authors' experiment; with c = 1 the published ordering of kernels does not hold.
"""

from typing import Any

import numpy as np

from fathometer.errors import CapabilityError
from fathometer.stein.kernels import InverseMultiquadric, median_distance, read_kernel
from fathometer.stein.sample import Sample, merge_duplicates, read_sample
from fathometer.stein.tiles import SteinGram
from fathometer.work import chunk_size

_RIDGE = 1e-13
_TOLERANCE = 1e-10


def reweight(points: Any, scores: Any, kernel: Any = None, simplex: bool = True) -> Any:
    """Weights (n,), summing to one, that make the kernel Stein discrepancy of the points smallest.

    Args:
        points: (n, d), numpy or torch, or an ArviZ object.
        scores: (n, d), or a function of the points.
        kernel: As for `ksd`; by default the inverse multiquadric with ``c^2`` half the median squared
            distance of the points.
        simplex: Whether weights must not be negative.

    Returns:
        (n,) weights, numpy or torch as the points are.

    Raises:
        InputError: As for `ksd`.
        BudgetError: If the n by n matrix does not fit the memory.
        CapabilityError: If the optimality conditions are not met to 1e-8.
    """
    given = read_sample(points, scores)
    first, group, counts = merge_duplicates(given.points, np.ones(given.size))
    n = len(first)
    chunk_size(1, 8 * 4 * n * n, what=f"the Stein kernel matrix of {n} points")
    sample = Sample(points=given.points[first], scores=given.scores[first])
    chosen = kernel
    if kernel is None and n > 1:
        chosen = InverseMultiquadric(c=median_distance(sample.points) / np.sqrt(2))
    K = SteinGram(sample, read_kernel(chosen, sample)).dense()
    scale = float(np.diag(K).mean())
    K = K / scale + _RIDGE * np.eye(n) if scale > 0 else np.eye(n)
    w = _simplex(K) if simplex else _signed(K)
    return given.out((w / counts)[group])


def _signed(K: np.ndarray) -> np.ndarray:
    from scipy.linalg import cho_factor, cho_solve

    v = cho_solve(cho_factor(_definite(K)), np.ones(len(K)))
    return v / v.sum()


def _definite(K: np.ndarray) -> np.ndarray:
    """The matrix with just enough on its diagonal for a Cholesky factorization."""
    ridge = 0.0
    for _ in range(20):
        try:
            np.linalg.cholesky(K + ridge * np.eye(len(K)))
        except np.linalg.LinAlgError:
            ridge = max(4 * ridge, 1e-13 * len(K))
            continue
        return K + ridge * np.eye(len(K))
    raise CapabilityError(
        "the Stein kernel matrix is not positive semi-definite to rounding; check the scores."
    )


def _simplex(K: np.ndarray) -> np.ndarray:
    """Active set method; starts from the whole sample, which often is the answer already."""
    n = len(K)
    w = np.full(n, 1.0 / n)
    used = np.ones(n, dtype=bool)
    for _ in range(20 * n + 100):
        w, used = _descend(K, w, used)
        gradient = K @ w
        gain = w @ gradient - gradient
        gain[used] = -np.inf
        if gain.max() <= _TOLERANCE * max(w @ gradient, 1e-300):
            return _checked(K, w)
        used[int(np.argmax(gain))] = True
    raise CapabilityError(f"the weights of {n} points did not settle; pass a wider kernel or simplex=False.")


def _descend(K: np.ndarray, w: np.ndarray, used: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best weights on a subset of ``used``, reached without leaving the simplex."""
    while True:
        at = np.flatnonzero(used)
        goal = np.zeros(len(w))
        goal[at] = _signed(K[np.ix_(at, at)])
        if not (goal[at] < 0).any():
            return goal, used
        step = goal - w
        falling = used & (goal < 0)
        reach = w[falling] / -step[falling]
        w = np.clip(w + min(1.0, float(reach.min())) * step, 0, None)
        used = used.copy()
        used[np.flatnonzero(falling)[reach <= reach.min() * (1 + 1e-12)]] = False
        w[~used] = 0.0
        w /= w.sum()


def _checked(K: np.ndarray, w: np.ndarray) -> np.ndarray:
    gradient = K @ w
    value = float(w @ gradient)
    violation = max(float((value - gradient).max()), float(np.abs((gradient - value)[w > 0]).max()))
    if violation > 1e-8 * max(value, float(np.abs(gradient).max())):
        raise CapabilityError(f"the optimality conditions of the weights are missed by {violation:.2g}.")
    return w
