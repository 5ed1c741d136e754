# ruff: noqa: ANN001, ANN202, C901 - the compiler infers the types, and its loops stay in one place
# pyright: reportMissingParameterType=false
"""The graph Stein program of one coordinate, in time proportional to the number of points.

Between neighbors at distance h let ``D`` be the slope of the gradient p and ``e`` the second-order
rest of the function g, so that

    p' = p + h D,    g' = g + h p + h^2 e / 2.

Then every constraint of the program is a box, whatever the distances are:

    |g| <= c1,  |p| <= c2,  |D| <= c3,  |e| <= c3,  |e - 2 D| <= c3,  |p + h e / 2| <= c2,

which is an optimal control problem with linear cost. A primal-dual interior point method
(Mehrotra's predictor and corrector) needs one linear-quadratic control problem a step, and a
Riccati recursion solves that in O(n). Nothing is badly scaled even where points lie 1e-12 apart,
where a general solver works with right-hand sides of 1e-24.

A finite end of the support asks g to vanish there: it becomes a node without weight whose g is
zero. On the left that fixes a part of the first state, on the right it is a terminal constraint
with a multiplier of its own. The bound that proves the value is taken from the multipliers; what
they leave unbalanced is charged to the boxes, so it holds at any accuracy.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numba import njit

_TOLERANCE = 1e-12
_STEPS = 200
_KEPT = 0.995


@dataclass(frozen=True, kw_only=True)
class LineSolution:
    """The optimum along the line.

    Attributes:
        lower: Value of the function, which fits all constraints.
        upper: The dual bound.
        g: (n,) the function.
        p: (n,) its gradient.
        binding: Constraints between neighbors that bind.
        rows: Constraints between neighbors.
        steps: Interior point steps.
    """

    lower: float
    upper: float
    g: Float[np.ndarray, " n"]
    p: Float[np.ndarray, " n"]
    binding: int
    rows: int
    steps: int


def solve_line(
    x: Float[np.ndarray, " n"],
    cost_g: Float[np.ndarray, " n"],
    cost_p: Float[np.ndarray, " n"],
    constants: tuple[float, float, float],
    low: float = -np.inf,
    high: float = np.inf,
) -> LineSolution:
    """Maximize ``cost_g g + cost_p p`` over the constraints above.

    Args:
        x: (n,) points, rising, all different and in [low, high].
        cost_g: (n,) coefficients of g.
        cost_p: (n,) coefficients of p.
        constants: The bounds c1, c2, c3.
        low: Lower end of the support.
        high: Upper end of the support.
    """
    first, last = int(np.isfinite(low) and x[0] > low), int(np.isfinite(high) and x[-1] < high)
    pins = np.array([np.isfinite(low), np.isfinite(high)])
    nodes = np.concatenate([[low] * first, x, [high] * last])
    h = np.append(np.diff(nodes), 0.0)
    c1, c2, c3 = constants
    box = np.tile([c1, c2, c3, c3, c3, c2], (len(nodes), 1))
    box[-1, 2:] = np.inf
    cost = np.zeros((len(nodes), 4))
    inside = slice(first, first + len(x))
    cost[inside, 0], cost[inside, 1] = cost_g, cost_p
    cost[0, 0] *= 1 - pins[0]
    cost[-1, 0] *= 1 - pins[1]
    v, upper, steps = _interior_point(h, pins, cost, box, _TOLERANCE, _STEPS, _KEPT)
    image = np.abs(_image(h, v))
    shrink = min(1.0, float(np.min(box / np.maximum(image, 1e-300))))
    v = shrink * v[inside]
    return LineSolution(
        lower=float((cost[inside] * v).sum()),
        upper=float(upper),
        g=v[:, 0].copy(),
        p=v[:, 1].copy(),
        binding=int((shrink * image[:-1, 2:] > (1 - 1e-6) * box[:-1, 2:]).sum()),
        rows=4 * (len(nodes) - 1),
        steps=int(steps),
    )


@njit(cache=True, error_model="numpy")
def _image(h, v):
    """What the boxes bound, (n, 6), of the variables (g, p, e, D)."""
    n = len(v)
    out = np.zeros((n, 6))
    for i in range(n):
        g, p, e, D = v[i, 0], v[i, 1], v[i, 2], v[i, 3]
        out[i, 0], out[i, 1], out[i, 2], out[i, 3] = g, p, D, e
        out[i, 4], out[i, 5] = e - 2.0 * D, p + 0.5 * h[i] * e
    return out


@njit(cache=True, error_model="numpy")
def _adjoint(h, y):
    """The transpose of `_image`: (n, 6) to (n, 4)."""
    n = len(y)
    out = np.empty((n, 4))
    for i in range(n):
        out[i, 0] = y[i, 0]
        out[i, 1] = y[i, 1] + y[i, 5]
        out[i, 2] = y[i, 3] + y[i, 4] + 0.5 * h[i] * y[i, 5]
        out[i, 3] = y[i, 2] - 2.0 * y[i, 4]
    return out


@njit(cache=True, error_model="numpy")
def _last_stage(t, w, end, gg, pp, P, K, inverse):
    """The stage before a pinned right end, where e is whatever brings g to zero."""
    eg, ep = -2.0 / (t * t), -2.0 / t
    DD = w[2] + 4.0 * w[4] + t * t * end
    kg, kp = -2.0 * w[4] * eg / DD, (t * end - 2.0 * w[4] * ep) / DD
    K[0], K[1], K[2], K[3] = -eg, -ep, kg, kp
    inverse[0], inverse[1], inverse[2] = 0.0, 0.0, 1.0 / DD
    a, b = eg + 2.0 * kg, ep + 2.0 * kp
    m0, m1 = -t * kg, 1.0 - t * kp
    P[0] = gg + w[3] * eg**2 + w[4] * a**2 + w[5] / (t * t) + w[2] * kg**2 + end * m0**2
    P[1] = w[3] * eg * ep + w[4] * a * b + w[2] * kg * kp + end * m0 * m1
    P[2] = pp + w[3] * ep**2 + w[4] * b**2 + w[2] * kp**2 + end * m1**2


@njit(cache=True, error_model="numpy")
def _factor(h, pins, w):
    """Riccati recursion for the weights ``w`` (n, 6) of the boxes.

    Gives the cost-to-go matrices P (n, 3: gg, gp, pp), the feedback K (n, 4) and the inverse
    of the controls' block (n, 3). The cost-to-go is updated as a sum of squares, so rounding
    cannot make it indefinite.
    """
    n = len(w)
    P, K, inverse = np.zeros((n, 3)), np.zeros((n, 4)), np.zeros((n, 3))
    for i in range(n - 1, -1, -1):
        t = h[i]
        gg, gp, pp = w[i, 0], 0.0, w[i, 1] + w[i, 5]
        if i == n - 1:
            P[i, 0], P[i, 1], P[i, 2] = 0.0 if pins[1] else gg, gp, pp
            continue
        if i == n - 2 and pins[1]:
            _last_stage(t, w[i], P[i + 1, 2], gg, pp - w[i, 5], P[i], K[i], inverse[i])
            continue
        ee = w[i, 3] + w[i, 4] + 0.25 * t * t * w[i, 5]
        eD, DD, pe = -2.0 * w[i, 4], w[i, 2] + 4.0 * w[i, 4], 0.5 * t * w[i, 5]
        a, b, c = P[i + 1, 0], P[i + 1, 1], P[i + 1, 2]
        be, bD = 0.5 * t * t, t
        uee, ueD, uDD = ee + be * be * a, eD + be * bD * b, DD + bD * bD * c
        det = uee * uDD - ueD * ueD
        ie, im, iD = uDD / det, -ueD / det, uee / det
        inverse[i, 0], inverse[i, 1], inverse[i, 2] = ie, im, iD
        eg, ep = be * a, pe + be * (t * a + b)
        Dg, Dp = bD * b, bD * (t * b + c)
        keg, kep = ie * eg + im * Dg, ie * ep + im * Dp
        kDg, kDp = im * eg + iD * Dg, im * ep + iD * Dp
        K[i, 0], K[i, 1], K[i, 2], K[i, 3] = keg, kep, kDg, kDp
        # closed loop: rows of A - B K
        m00, m01, m10, m11 = 1.0 - be * keg, t - be * kep, -bD * kDg, 1.0 - bD * kDp
        P[i, 0] = (
            gg
            + w[i, 2] * kDg**2
            + w[i, 3] * keg**2
            + w[i, 4] * (keg - 2.0 * kDg) ** 2
            + w[i, 5] * (0.5 * t * keg) ** 2
            + a * m00**2
            + 2.0 * b * m00 * m10
            + c * m10**2
        )
        P[i, 1] = (
            gp
            + w[i, 2] * kDg * kDp
            + w[i, 3] * keg * kep
            + w[i, 4] * (keg - 2.0 * kDg) * (kep - 2.0 * kDp)
            - w[i, 5] * 0.5 * t * keg * (1.0 - 0.5 * t * kep)
            + a * m00 * m01
            + b * (m00 * m11 + m01 * m10)
            + c * m10 * m11
        )
        P[i, 2] = (
            pp
            - w[i, 5]
            + w[i, 2] * kDp**2
            + w[i, 3] * kep**2
            + w[i, 4] * (kep - 2.0 * kDp) ** 2
            + w[i, 5] * (1.0 - 0.5 * t * kep) ** 2
            + a * m01**2
            + 2.0 * b * m01 * m11
            + c * m11**2
        )
    return P, K, inverse


@njit(cache=True, error_model="numpy")
def _direction(h, pins, P, K, inverse, r):
    """The step (n, 4) and the new multipliers (n, 2) for the right-hand side ``r`` (n, 4)."""
    n = len(r)
    q, k, v, multiplier = np.empty((n, 2)), np.zeros((n, 2)), np.zeros((n, 4)), np.zeros((n, 2))
    q[n - 1, 0], q[n - 1, 1] = 0.0 if pins[1] else r[n - 1, 0], r[n - 1, 1]
    for i in range(n - 2, -1, -1):
        t = h[i]
        he, hD = r[i, 2] + 0.5 * t * t * q[i + 1, 0], r[i, 3] + t * q[i + 1, 1]
        k[i, 0] = inverse[i, 0] * he + inverse[i, 1] * hD
        k[i, 1] = inverse[i, 1] * he + inverse[i, 2] * hD
        q[i, 0] = r[i, 0] + q[i + 1, 0] - K[i, 0] * he - K[i, 2] * hD
        q[i, 1] = r[i, 1] + t * q[i + 1, 0] + q[i + 1, 1] - K[i, 1] * he - K[i, 3] * hD
    if pins[0]:
        g, p = 0.0, q[0, 1] / P[0, 2]
    else:
        det = P[0, 0] * P[0, 2] - P[0, 1] ** 2
        g = (P[0, 2] * q[0, 0] - P[0, 1] * q[0, 1]) / det
        p = (P[0, 0] * q[0, 1] - P[0, 1] * q[0, 0]) / det
    for i in range(n):
        t = h[i]
        if i == n - 1 and pins[1]:
            g = 0.0
        e = k[i, 0] - K[i, 0] * g - K[i, 1] * p
        D = k[i, 1] - K[i, 2] * g - K[i, 3] * p
        v[i, 0], v[i, 1], v[i, 2], v[i, 3] = g, p, e, D
        if i > 0:
            multiplier[i, 0] = P[i, 0] * g + P[i, 1] * p - q[i, 0]
            multiplier[i, 1] = P[i, 1] * g + P[i, 2] * p - q[i, 1]
        g, p = g + t * p + 0.5 * t * t * e, p + t * D
    return v, multiplier


@njit(cache=True, error_model="numpy")
def _bound(h, pins, cost, box, up, down, multiplier):
    """The dual bound: the boxes at their multipliers, and the unbalanced rest at the widest boxes."""
    n = len(cost)
    rest = cost - _adjoint(h, up - down)
    total = 0.0
    for i in range(n):
        for k in range(6):
            if box[i, k] < np.inf:
                total += box[i, k] * (up[i, k] + down[i, k])
        rest[i, 0] += multiplier[i, 0]
        rest[i, 1] += multiplier[i, 1]
        if i < n - 1:
            t, a, b = h[i], multiplier[i + 1, 0], multiplier[i + 1, 1]
            if i == n - 2 and pins[1]:  # the pin's multiplier is free: the one that balances e
                a = 2.0 * rest[i, 2] / (t * t)
            rest[i, 0] -= a
            rest[i, 1] -= t * a + b
            total += box[i, 3] * abs(rest[i, 2] - 0.5 * t * t * a) + box[i, 2] * abs(rest[i, 3] - t * b)
        if not ((i == 0 and pins[0]) or (i == n - 1 and pins[1])):
            total += box[i, 0] * abs(rest[i, 0])
        total += box[i, 1] * abs(rest[i, 1])
    return total


@njit(cache=True, error_model="numpy")
def _slacks(limit, value):
    """Distances to both sides of a box, kept off zero where rounding would close them."""
    least = 1e-15 * limit
    return max(limit - value, least), max(limit + value, least)


@njit(cache=True, error_model="numpy")
def _room(value, change, limit, longest):
    """How far ``value + t change`` stays below the limit, entry by entry, and its mirror image above it."""
    for i in range(value.shape[0]):
        for k in range(value.shape[1]):
            if limit[i, k] < np.inf and change[i, k] != 0.0:
                above, below = _slacks(limit[i, k], value[i, k])
                longest = min(longest, (above if change[i, k] > 0 else below) / abs(change[i, k]))
    return longest


@njit(cache=True, error_model="numpy")
def _positive(value, change, longest):
    """How far ``value + t change`` stays positive."""
    for i in range(value.shape[0]):
        for k in range(value.shape[1]):
            if change[i, k] < 0.0:
                longest = min(longest, -value[i, k] / change[i, k])
    return longest


@njit(cache=True, error_model="numpy")
def _value(cost, v):
    """The objective."""
    value = 0.0
    for i in range(len(cost)):
        value += cost[i, 0] * v[i, 0] + cost[i, 1] * v[i, 1]
    return value


@njit(cache=True, error_model="numpy")
def _weigh(box, image, up, down, w):
    """Weights of the normal equations, into ``w``; returns the sum of slacks times multipliers."""
    gap = 0.0
    for i in range(box.shape[0]):
        for k in range(6):
            if box[i, k] < np.inf:
                sp, sm = _slacks(box[i, k], image[i, k])
                gap += sp * up[i, k] + sm * down[i, k]
                w[i, k] = up[i, k] / sp + down[i, k] / sm
    return gap


@njit(cache=True, error_model="numpy")
def _follow(box, image, change, up, down, dup, ddown):
    """Add to the steps of the multipliers what follows from the change of the image."""
    for i in range(box.shape[0]):
        for k in range(6):
            if box[i, k] < np.inf:
                sp, sm = _slacks(box[i, k], image[i, k])
                dup[i, k] += -up[i, k] + up[i, k] / sp * change[i, k]
                ddown[i, k] += -down[i, k] - down[i, k] / sm * change[i, k]


@njit(cache=True, error_model="numpy")
def _correct(box, image, change, center, dup, ddown, rest):
    """Mehrotra's second-order correction around ``center``, in place of the first steps."""
    for i in range(box.shape[0]):
        for k in range(6):
            if box[i, k] < np.inf:
                sp, sm = _slacks(box[i, k], image[i, k])
                a = (center + change[i, k] * dup[i, k]) / sp
                b = (center - change[i, k] * ddown[i, k]) / sm
                rest[i, k] = a - b
                dup[i, k], ddown[i, k] = a, b


@njit(cache=True, error_model="numpy")
def _interior_point(h, pins, cost, box, tolerance, most, kept):
    """Mehrotra's method; gives the variables (n, 4), the best dual bound and the number of steps."""
    n = len(cost)
    v, image, multiplier = np.zeros((n, 4)), np.zeros((n, 6)), np.zeros((n, 2))
    up, down, w, rest = np.zeros((n, 6)), np.zeros((n, 6)), np.zeros((n, 6)), np.zeros((n, 6))
    dup, ddown = np.zeros((n, 6)), np.zeros((n, 6))
    count, trivial = 0, 0.0
    for i in range(n):
        trivial += abs(cost[i, 0]) * box[i, 0] + abs(cost[i, 1]) * box[i, 1]
    for i in range(n):
        for k in range(6):
            count += box[i, k] < np.inf
    start = max(trivial, 1e-300) / count
    for i in range(n):
        for k in range(6):
            if box[i, k] < np.inf:
                up[i, k] = down[i, k] = start / box[i, k]
    best, reached, kept_v, stalled, steps = np.inf, -1.0, v.copy(), 0, 0
    while steps < most:
        steps += 1
        upper = _bound(h, pins, cost, box, up, down, multiplier)
        stalled = 0 if upper < best * (1.0 - 1e-14) else stalled + 1
        best = min(best, upper)
        value = _value(cost, v)
        if value > reached:
            reached = value
            kept_v[:] = v
        if best - reached <= tolerance * best or stalled > 4:
            break
        mu = _weigh(box, image, up, down, w) / (2 * count)
        P, K, inverse = _factor(h, pins, w)
        step, dual = _direction(h, pins, P, K, inverse, cost)
        if not np.isfinite(step).all():
            break
        change = _image(h, step)
        dup[:], ddown[:] = 0.0, 0.0
        _follow(box, image, change, up, down, dup, ddown)
        ahead = _room(image, change, box, 1.0)
        behind = min(_positive(up, dup, 1.0), _positive(down, ddown, 1.0))
        gap = 0.0
        for i in range(n):
            for k in range(6):
                if box[i, k] < np.inf:
                    sp, sm = _slacks(box[i, k], image[i, k])
                    gap += (sp - ahead * change[i, k]) * (up[i, k] + behind * dup[i, k])
                    gap += (sm + ahead * change[i, k]) * (down[i, k] + behind * ddown[i, k])
        sigma = (gap / (2 * count) / mu) ** 3
        _correct(box, image, change, sigma * mu, dup, ddown, rest)
        step, dual = _direction(h, pins, P, K, inverse, cost - _adjoint(h, rest))
        change = _image(h, step)
        _follow(box, image, change, up, down, dup, ddown)
        ahead = min(1.0, kept * _room(image, change, box, 1e30))
        behind = min(1.0, kept * min(_positive(up, dup, 1e30), _positive(down, ddown, 1e30)))
        v += ahead * step
        image = _image(h, v)
        up += behind * dup
        down += behind * ddown
        multiplier += behind * (dual - multiplier)
    _settle(h, pins, kept_v)
    return kept_v, best, steps


@njit(cache=True, error_model="numpy")
def _settle(h, pins, v):
    """The dynamics once more, so that rounding errors of the steps do not add up."""
    n = len(v)
    for i in range(n - 1):
        t = h[i]
        v[i + 1, 0] = v[i, 0] + t * v[i, 1] + 0.5 * t * t * v[i, 2]
        v[i + 1, 1] = v[i, 1] + t * v[i, 3]
    if not pins[1]:
        return
    # what is left at a pinned right end is taken off by a straight line, which no other box notices
    drift, length, x = v[n - 1, 0], h[: n - 1].sum(), 0.0
    for i in range(n):
        v[i, 0] -= drift * (x / length if pins[0] else 1.0)
        v[i, 1] -= drift / length if pins[0] else 0.0
        x += h[i]
    v[n - 1, 0] = 0.0
