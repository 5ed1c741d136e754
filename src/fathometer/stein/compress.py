"""Which points of a sample to keep: Stein thinning.

Points are picked one after the other, each the one that makes the kernel Stein discrepancy of
the picked ones smallest (Riabiz et al. 2022):

    next = argmin over x of  k0(x, x) / 2 + sum over the picked y of k0(x, y).

The regularized form of Benard et al. 2023 adds half the sum of the positive second derivatives
of ``log p`` and takes off ``penalty t / 2 * log p(x)`` at pick t, against two known faults of the
plain one: it is drawn to saddle points and minima of the density, where the score vanishes, and it
is blind to the weights of modes.

``O(n size)`` entries of the Stein kernel, a column a pick; ties go to the first point.
"""

from typing import Any

import numpy as np

from fathometer.errors import InputError
from fathometer.stein.kernels import read_kernel
from fathometer.stein.sample import Sample, as_array, read_sample, refuse_non_finite
from fathometer.stein.tiles import SteinGram
from fathometer.work import chunk_size


def standardized(sample: Sample) -> Sample:
    """Every coordinate divided by its mean absolute deviation from the mean; scores multiplied.

    Raises:
        InputError: If a coordinate is constant.
    """
    scale = np.abs(sample.points - sample.points.mean(0)).mean(0)
    if (scale == 0).any():
        raise InputError(
            f"points: coordinate {int(np.argmin(scale))} is constant, so it has no scale; remove it, or pass "
            "standardize=False."
        )
    return Sample(points=sample.points / scale, scores=sample.scores * scale, like=sample.like)


def thin(
    points: Any,
    scores: Any,
    size: int,
    kernel: Any = None,
    standardize: bool = True,
    regularize: bool = False,
    *,
    log_density: Any = None,
    curvature: Any = None,
    penalty: float | None = None,
) -> Any:
    """Positions of the points to keep, in the order in which they were picked; points may repeat.

    Args:
        points: (n, d), numpy or torch, or an ArviZ object.
        scores: (n, d), or a function of the points.
        size: How many to pick, 1 or more.
        kernel: As for `ksd`.
        standardize: Whether each coordinate is divided by its mean absolute deviation first.
        regularize: Whether to pick by the regularized criterion.
        log_density: (n,) log target density at the points, up to a constant, for ``regularize``; if None,
            the scores are integrated along the shortest tree through the points (trapezoids).
        curvature: (n, d) second derivatives of the log density along each coordinate, for
            ``regularize``; if None, that term is left out.
        penalty: Weight of the log density; ``1 / size`` by default.

    Returns:
        (size,) positions, numpy or torch as the points are.

    Raises:
        InputError: As for `ksd`; if size is not a whole number, one or more; a coordinate is
            constant and is to be standardized; or what ``regularize`` needs has another shape.
    """
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
        raise InputError(f"size is {size!r}; a whole number, one or more, is needed.")
    given = read_sample(points, scores)
    sample = standardized(given) if standardize else given
    gram = SteinGram(sample, read_kernel(kernel, sample))
    criterion, reward = 0.5 * gram.diagonal, np.zeros(sample.size)
    if regularize:
        bend = _positive_curvature(curvature, given, sample)
        criterion = criterion + 0.5 * bend
        reward = 0.5 * (1.0 / size if penalty is None else float(penalty)) * _log_density(log_density, sample)
    picked = np.empty(int(size), dtype=np.int64)
    for t in range(int(size)):
        picked[t] = np.argmin(criterion - (t + 1) * reward)
        criterion = criterion + gram.column(int(picked[t]))
    return given.out(picked)


def _positive_curvature(curvature: Any, given: Sample, sample: Sample) -> np.ndarray:
    """Sum of the positive second derivatives of log p in the units of ``sample``."""
    if curvature is None:
        return np.zeros(given.size)
    second = as_array(curvature, name="curvature")
    if second.shape != given.points.shape:
        raise InputError(f"curvature has shape {second.shape}; pass (n, d) = {given.points.shape}.")
    refuse_non_finite(second, "curvature")
    spread = np.ptp(sample.points, axis=0)
    scale = np.divide(np.ptp(given.points, axis=0), spread, out=np.ones_like(spread), where=spread > 0)
    return np.clip(second * scale**2, 0, None).sum(1)


def _log_density(values: Any, sample: Sample) -> np.ndarray:
    """Log densities at the points: given, or integrated from the scores."""
    if values is not None:
        array = as_array(values, name="log_density")
        if array.shape != (sample.size,):
            raise InputError(
                f"log_density has shape {array.shape}; pass one number for each of {sample.size} points."
            )
        refuse_non_finite(array, "log_density")
        return array
    return integrated_scores(sample)


def integrated_scores(sample: Sample) -> np.ndarray:
    """Log densities up to a constant, by trapezoids along the shortest tree that joins the points: (n,).

    Raises:
        BudgetError: If the n by n table of distances does not fit the memory.
    """
    from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree
    from scipy.spatial.distance import pdist, squareform

    n = sample.size
    if n == 1:
        return np.zeros(1)
    chunk_size(1, 40 * n * n, what=f"the shortest tree through {n} points")
    distance = squareform(pdist(sample.points))
    distance[distance == 0] = np.finfo(float).tiny  # zero would mean: no edge
    np.fill_diagonal(distance, 0.0)
    tree = minimum_spanning_tree(distance)
    order, parent = breadth_first_order(tree, 0, directed=False)
    total = np.zeros(n)
    for i in order[1:]:
        j = parent[i]
        mean = 0.5 * (sample.scores[i] + sample.scores[j])
        total[i] = total[j] + mean @ (sample.points[i] - sample.points[j])
    return total
