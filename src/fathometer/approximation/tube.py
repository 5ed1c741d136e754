"""Fewest straight pieces between f - error and f + error.

The tube is sampled finely. Arbitrary pieces may jump: each goes as far as some line stays
inside, which is the least number of linear pieces any approximation has (sampling can
only lower it, so it is a valid lower bound). Continuous pieces follow Imai & Iri (1986): the
next line starts on the last one, so its constraints begin where that line last touched
the tube on one side, and where it left it on the other. One linear feasibility
problem in two variables a step, solved by cutting planes in the slope.
"""

import numpy as np
from numba import njit

from fathometer.approximation.target import Target
from fathometer.errors import BudgetError, InputError

SAMPLES = 4001
MOST_SAMPLES = 2_000_001


@njit(cache=True)
def _gap(
    x: np.ndarray, upper: np.ndarray, lower: np.ndarray, start: tuple[int, int], stop: int, slope: float
) -> tuple[float, int, int]:
    """How far lines of this slope miss: at most 0 if one fits; and the touching samples above and below."""
    iu, il = start
    u, floor = iu, np.inf
    for i in range(iu, stop):
        v = upper[i] - slope * x[i]
        if v < floor:
            floor, u = v, i
    over, ceiling = il, -np.inf
    for i in range(il, stop):
        v = lower[i] - slope * x[i]
        if v > ceiling:
            ceiling, over = v, i
    return ceiling - floor, u, over


@njit(cache=True)
def _fits(
    x: np.ndarray, upper: np.ndarray, lower: np.ndarray, start: tuple[int, int], stop: int
) -> tuple[float, float]:
    """Least gap over the slopes (stops at the first that fits), and its slope."""
    iu, il = start
    low, high, slope = -np.inf, np.inf, 0.0
    span = x[stop - 1] - x[min(iu, il)]
    if span > 0:
        slope = (upper[stop - 1] + lower[stop - 1] - upper[iu] - lower[il]) / (2 * span)
    best, best_slope = np.inf, slope
    for _ in range(100):
        gap, u, over = _gap(x, upper, lower, start, stop, slope)
        if gap < best:
            best, best_slope = gap, slope
        if gap <= 0.0 or x[u] == x[over]:
            break
        if x[u] > x[over]:  # the gap is convex in the slope, with derivative x[u] - x[over]
            high = slope
        else:
            low = slope
        step = slope - gap / (x[u] - x[over])
        if step <= low or step >= high:
            step = 0.5 * (low + high)
        if not (low < step < high):
            break
        slope = step
    return best, best_slope


@njit(cache=True)
def _steepest(
    x: np.ndarray, upper: np.ndarray, lower: np.ndarray, start: tuple[int, int], stop: int, sign: float
) -> tuple[float, float, int, int]:
    """Largest (sign 1) or smallest (sign -1) slope that fits: slope, height, touching samples.

    Newton's method on the convex gap, from outside: it never passes the root.
    """
    _, slope = _fits(x, upper, lower, start, stop)
    reach = 1.0
    for _ in range(200):
        gap, u, over = _gap(x, upper, lower, start, stop, slope + sign * reach)
        if gap > 0.0 and (x[u] - x[over]) * sign > 0.0:
            break
        reach *= 4.0
    slope += sign * reach
    gap, u, over = _gap(x, upper, lower, start, stop, slope)
    for _ in range(200):
        if (x[u] - x[over]) * sign <= 0.0:
            break
        step = slope - gap / (x[u] - x[over])
        if step == slope:
            break
        next_gap, next_u, next_over = _gap(x, upper, lower, start, stop, step)
        slope = step
        if next_gap <= 0.0 or (next_u == u and next_over == over):
            break
        gap, u, over = next_gap, next_u, next_over
    return slope, upper[u] - slope * x[u], u, over


@njit(cache=True)
def _farthest(x: np.ndarray, upper: np.ndarray, lower: np.ndarray, iu: int, il: int, known: int) -> int:
    """Largest stop such that one line fits all samples before it."""
    n = len(x)
    good, width = known, 1
    slack = 1e-9 * (upper[0] - lower[0])  # rounding must not end a piece
    while True:
        stop = min(n, good + width)
        if _fits(x, upper, lower, (iu, il), stop)[0] > slack:
            bad = stop
            break
        good = stop
        if stop == n:
            return n
        width *= 2
    while bad - good > 1:
        middle = (good + bad) // 2
        if _fits(x, upper, lower, (iu, il), middle)[0] > slack:
            bad = middle
        else:
            good = middle
    return good


@njit(cache=True)
def _count(x: np.ndarray, upper: np.ndarray, lower: np.ndarray, most: int) -> int:
    """Pieces that may jump; ``most + 1`` if there are more."""
    start, pieces = 0, 0
    while start < len(x) - 1 and pieces <= most:
        stop = _farthest(x, upper, lower, start, start, start + 1)
        pieces += 1
        # the next piece begins right of the last sample that fits, so at worst at the one after it
        start = stop
    return max(pieces, 1)


@njit(cache=True)
def _links(x: np.ndarray, upper: np.ndarray, lower: np.ndarray, most: int) -> np.ndarray:
    """Rows (slope, height) of the lines of a shortest continuous path; one too many if ``most`` is passed."""
    out = np.empty((most + 1, 2))
    iu, il, known, count = 0, 0, 1, 0
    while count <= most:
        stop = _farthest(x, upper, lower, iu, il, known)
        if stop >= len(x):
            _, slope = _fits(x, upper, lower, (iu, il), stop)
            _, u, over = _gap(x, upper, lower, (iu, il), stop, slope)
            out[count, 0] = slope
            out[count, 1] = 0.5 * (upper[u] - slope * x[u] + lower[over] - slope * x[over])
            count += 1
            break
        slope, height, u, over = _steepest(x, upper, lower, (iu, il), stop, 1.0)
        if slope * x[stop] + height < lower[stop]:  # leaves below, however steep: above it again from here on
            iu, il = u, stop
        else:
            slope, height, u, over = _steepest(x, upper, lower, (iu, il), stop, -1.0)
            iu, il = stop, over
        out[count, 0], out[count, 1] = slope, height
        count += 1
        known = stop + 1
    return out[:count]


def sampled_tube(target: Target, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Places and values of f, denser near the ends, breaks included on both sides."""
    a, b = target.interval
    t = np.linspace(0.0, 1.0, samples)
    even = a + (b - a) * t
    edges = a + (b - a) * np.sin(np.pi * t[::8] / 2) ** 4
    x = np.unique(np.concatenate([even, edges, a + b - edges, [a, b], target.breakpoints]))
    x = x[(x >= a) & (x <= b)]
    return x, target.values(x)


def least_pieces(target: Target, error: float) -> int:
    """Least number of linear pieces, jumps allowed, within ``error`` of f: a valid lower bound.

    Raises:
        BudgetError: If more than two million samples would be needed.
    """
    samples = SAMPLES
    while True:
        x, y = sampled_tube(target, samples)
        slack = 1e-12 * (np.abs(y) + error)  # rounding may only widen the tube
        count = int(_count(x, y + error + slack, y - error - slack, samples))
        if samples >= 40 * count:
            return count
        if samples >= MOST_SAMPLES:
            raise BudgetError(
                f"error {error:.3g} needs more than {count} pieces, beyond {MOST_SAMPLES} samples of f."
            )
        samples = min(MOST_SAMPLES, max(4 * samples, 41 * count) | 1)


def shortest_path(target: Target, error: float, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Knots and values of a continuous piecewise-linear function with the fewest pieces in the tube.

    Raises:
        InputError: If f jumps by more than twice the error.
    """
    x, y = sampled_tube(target, samples)
    lines = np.asarray(_links(x, y + error, y - error, len(x)))
    if len(lines) > len(x) // 2:
        raise InputError(
            f"f changes by more than 2 error = {2 * error:.3g} between neighboring samples: it jumps. "
            "Continuous pieces cannot follow; give the jump as a breakpoint, or allow steps."
        )
    slopes, heights = lines[:, 0], lines[:, 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        meets = (heights[1:] - heights[:-1]) / (slopes[:-1] - slopes[1:])
    knots = np.concatenate([[x[0]], meets, [x[-1]]])
    values = np.concatenate([slopes * knots[:-1] + heights, [slopes[-1] * knots[-1] + heights[-1]]])
    return knots, values
