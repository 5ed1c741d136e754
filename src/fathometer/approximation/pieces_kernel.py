"""The compiled walk through the linear pieces of a ReLU network, in pairs of floats.

A pair ``(hi, lo)`` stands for ``hi + lo`` with 106 bits. The sums and products are the
error-free transformations of Dekker, Knuth and Veltkamp in the accurate variants, whose
relative errors are proved in Joldes, Muller & Popescu (ACM TOMS 44, 2017): at most
3 u^2 for a sum, 5 u^2 for a product and 15 u^2 for a quotient, u = 2^-53. The bounds below use
larger constants, so that their own float rounding is covered.
"""

import numpy as np
from numba import njit

U2 = 2.0**-106
Pair = tuple[float, float]


@njit(cache=True, inline="always")
def _two_sum(a: float, b: float) -> tuple[float, float]:
    s = a + b
    v = s - a
    return s, (a - (s - v)) + (b - v)


@njit(cache=True, inline="always")
def _two_product(a: float, b: float) -> tuple[float, float]:
    p = a * b
    t = 134217729.0 * a
    ah = t - (t - a)
    al = a - ah
    t = 134217729.0 * b
    bh = t - (t - b)
    bl = b - bh
    return p, ((ah * bh - p) + ah * bl + al * bh) + al * bl


@njit(cache=True, inline="always")
def _add(ah: float, al: float, bh: float, bl: float) -> tuple[float, float]:
    s, e = _two_sum(ah, bh)
    t, f = _two_sum(al, bl)
    e += t
    v = s + e
    e = e - (v - s)
    e += f
    w = v + e
    return w, e - (w - v)


@njit(cache=True, inline="always")
def _times(ah: float, al: float, b: float) -> tuple[float, float]:
    p, e = _two_product(ah, b)
    e += al * b
    s = p + e
    return s, e - (s - p)


@njit(cache=True, inline="always")
def _product(ah: float, al: float, bh: float, bl: float) -> tuple[float, float]:
    p, e = _two_product(ah, bh)
    e += ah * bl + al * bh
    s = p + e
    return s, e - (s - p)


@njit(cache=True, inline="always")
def _quotient(ah: float, al: float, bh: float, bl: float) -> tuple[float, float]:
    q = ah / bh
    ph, pl = _times(bh, bl, q)
    rh, rl = _add(ah, al, -ph, -pl)
    r = (rh + rl) / bh
    s = q + r
    return s, r - (s - q)


@njit(cache=True)
def _affine(
    indices: np.ndarray, weights: np.ndarray, bias: float, values: np.ndarray
) -> tuple[float, float, float]:
    """Bias plus weighted sum of pairs, and a bound on its rounding error."""
    h, low = bias, 0.0
    size = abs(bias)
    for k in range(len(indices)):
        i = indices[k]
        if values[i, 0] != 0.0:
            ph, pl = _times(values[i, 0], values[i, 1], weights[k])
            h, low = _add(h, low, ph, pl)
            size += abs(ph)
    return h, low, 8.0 * (len(indices) + 1) * U2 * size


@njit(cache=True)
def _split(
    j: int,
    t: tuple[float, float],
    at_a: np.ndarray,
    at_b: np.ndarray,
    at_c: np.ndarray,
    deviation: np.ndarray,
) -> None:
    """Values between two points for units before j; the deviations grow by the rounding."""
    th, tl = t
    for i in range(j):
        ah, al, bh, bl = at_a[i, 0], at_a[i, 1], at_b[i, 0], at_b[i, 1]
        if ah == 0.0 and bh == 0.0:
            at_c[i, 0], at_c[i, 1] = 0.0, 0.0
            continue
        dh, dl = _add(bh, bl, -ah, -al)
        ph, pl = _product(dh, dl, th, tl)
        at_c[i, 0], at_c[i, 1] = _add(ah, al, ph, pl)
        deviation[i] += 64.0 * U2 * (abs(ah) + abs(bh))


@njit(cache=True, inline="always")
def _carried(row: np.ndarray, w: np.ndarray, error: float, deviation: np.ndarray) -> float:
    """The error of a unit: its own rounding and what its inputs bring along."""
    for k in range(len(row)):
        error += abs(w[k]) * deviation[row[k]]
    return error


@njit(cache=True)
def _break(a: Pair, b: Pair, za: Pair, zb: Pair) -> tuple[bool, float, float, Pair]:
    """Where the line through za at a and zb at b is zero: whether inside, the place, its share of the way."""
    sh, sl = _add(za[0], za[1], -zb[0], -zb[1])
    th, tl = _quotient(za[0], za[1], sh, sl)
    wh, wl = _add(b[0], b[1], -a[0], -a[1])
    dh, dl = _product(wh, wl, th, tl)
    ch, cl = _add(a[0], a[1], dh, dl)
    inside = (ch > a[0] or (ch == a[0] and cl > a[1])) and (ch < b[0] or (ch == b[0] and cl < b[1]))
    # the share once more from the rounded break, so that the line is read at that very point
    dh, dl = _add(ch, cl, -a[0], -a[1])
    return inside, ch, cl, _quotient(dh, dl, wh, wl)


@njit(cache=True, inline="always")
def _activate(
    j: int, za: Pair, zb: Pair, error: float, at_a: np.ndarray, at_b: np.ndarray, deviation: np.ndarray
) -> None:
    """Unit j where it has no break: on or off by its larger end; what the other lacks is deviation."""
    if abs(za[0]) >= abs(zb[0]):
        active = za[0] > 0.0
        wrong = -zb[0] if active else zb[0]
    else:
        active = zb[0] > 0.0
        wrong = -za[0] if active else za[0]
    wrong = max(0.0, wrong) * (1.0 + 1e-15)
    if active:
        at_a[j + 1, 0], at_a[j + 1, 1] = za
        at_b[j + 1, 0], at_b[j + 1, 1] = zb
        deviation[j + 1] = error + wrong
    else:
        at_a[j + 1, 0], at_a[j + 1, 1] = 0.0, 0.0
        at_b[j + 1, 0], at_b[j + 1, 1] = 0.0, 0.0
        deviation[j + 1] = (
            max(0.0, error + max(za[0], zb[0]) * (1.0 - 1e-15)) if wrong == 0.0 else error + wrong
        )


@njit(cache=True)
def _read_off(
    row: np.ndarray,
    w: np.ndarray,
    bias: float,
    at_a: np.ndarray,
    at_b: np.ndarray,
    deviation: np.ndarray,
    out: np.ndarray,
) -> None:
    """The output at both ends of a piece, and how far it may be from there."""
    out[4], out[5], ea = _affine(row, w, bias, at_a)
    out[6], out[7], eb = _affine(row, w, bias, at_b)
    # products that underflow lose their tails
    out[8] = _carried(row, w, max(ea, eb), deviation) * (1.0 + 1e-13) + 1e-290


@njit(cache=True)
def walk(
    starts: np.ndarray,
    indices: np.ndarray,
    weights: np.ndarray,
    biases: np.ndarray,
    start: float,
    stop: float,
    capacity: int,
) -> np.ndarray:
    """Rows (left, right, value at left, value at right: pairs; deviation); one row too many if full."""
    units = len(biases) - 1
    size = units + 1
    out = np.empty((capacity + 1, 9))
    depth = units + 2
    ends = np.empty((depth, 4))
    begin = np.empty(depth, dtype=np.int64)
    lefts = np.zeros((depth, size, 2))
    rights = np.zeros((depth, size, 2))
    deviations = np.zeros((depth, size))
    at_a, at_b = np.zeros((size, 2)), np.zeros((size, 2))
    at_c, deviation = np.zeros((size, 2)), np.zeros(size)
    ends[0, 0], ends[0, 1], ends[0, 2], ends[0, 3] = start, 0.0, stop, 0.0
    lefts[0, 0, 0], rights[0, 0, 0] = start, stop
    begin[0], top, found = 0, 1, 0
    while top > 0:
        top -= 1
        j = begin[top]
        ah, al, bh, bl = ends[top, 0], ends[top, 1], ends[top, 2], ends[top, 3]
        at_a[: j + 1] = lefts[top, : j + 1]
        at_b[: j + 1] = rights[top, : j + 1]
        deviation[: j + 1] = deviations[top, : j + 1]
        while j < units:
            row = indices[starts[j] : starts[j + 1]]
            w = weights[starts[j] : starts[j + 1]]
            zah, zal, ea = _affine(row, w, float(biases[j]), at_a)
            zbh, zbl, eb = _affine(row, w, float(biases[j]), at_b)
            error = _carried(row, w, max(ea, eb), deviation) * (1.0 + 1e-13)
            # a sign that rounding could have made is no break: it goes into the deviation instead
            if ((zah < 0.0 < zbh) or (zbh < 0.0 < zah)) and min(abs(zah), abs(zbh)) > error:
                inside, ch, cl, t = _break((ah, al), (bh, bl), (zah, zal), (zbh, zbl))
                if inside:
                    _split(j + 1, t, at_a, at_b, at_c, deviation)
                    at_c[0, 0], at_c[0, 1] = ch, cl
                    ends[top, 0], ends[top, 1], ends[top, 2], ends[top, 3] = ch, cl, bh, bl
                    lefts[top, : j + 1] = at_c[: j + 1]
                    rights[top, : j + 1] = at_b[: j + 1]
                    deviations[top, : j + 1] = deviation[: j + 1]
                    begin[top] = j
                    top += 1
                    bh, bl = ch, cl
                    at_b[: j + 1] = at_c[: j + 1]
                    continue
            _activate(j, (zah, zal), (zbh, zbl), error, at_a, at_b, deviation)
            j += 1
        row = indices[starts[units] : starts[units + 1]]
        w = weights[starts[units] : starts[units + 1]]
        out[found, 0], out[found, 1], out[found, 2], out[found, 3] = ah, al, bh, bl
        _read_off(row, w, float(biases[units]), at_a, at_b, deviation, out[found])
        found += 1
        if found > capacity:
            break
    return out[:found].copy()
