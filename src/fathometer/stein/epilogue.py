# ruff: noqa: ANN001, ANN201, ANN202 - the compiler infers the types
# pyright: reportMissingParameterType=false
"""Compiled inner loops of the Stein Gram engine (numba).

Everything a Stein kernel needs of a pair is four numbers: the squared distances
``r^2 = |z - z'|^2`` and ``q^2 = |y - y'|^2`` (``z`` whitened, ``y = S^-1 x``), the
product of the scores, and ``<b - b', y - y'>``. In few dimensions they are summed
coordinate by coordinate, without any cancellation; in many they come out of matrix
products, and pairs so close that the products would cancel are summed again.
The last step, four numbers to one, is the same for both.
"""

import numpy as np
from numba import njit

# numbers are finite here, so sums and products may be reordered and fused
FAST = {"reassoc", "contract", "arcp", "nsz"}
CLOSE, CLOSE_SINGLE = 1e-4, 1e-2


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _finish(code, first, second, trace, r2, q2, cross, product, out):
    """Add the Stein kernel of a row of pairs to ``out``."""
    n = out.shape[0]
    one = first / first  # in the precision of the arrays, where a literal would widen every product
    if code == 0 and second == -0.5:
        square, three = first * first, one + one + one
        for j in range(n):
            base = square + r2[j]
            inverse = one / base
            out[j] += np.sqrt(inverse) * (product[j] + inverse * (cross[j] + trace - three * inverse * q2[j]))
    elif code == 0:
        square = first * first
        a, c = -(second + second), second + second - one - one
        for j in range(n):
            base = square + r2[j]
            inverse = one / base
            out[j] += base**second * (product[j] + a * inverse * (cross[j] + trace + c * inverse * q2[j]))
    elif code == 1:
        inverse = one / (first * first)
        half = inverse / (one + one)
        for j in range(n):
            out[j] += np.exp(-half * r2[j]) * (product[j] + inverse * (cross[j] + trace - inverse * q2[j]))
    else:
        rate = np.sqrt(one + one + one) / first
        least = one * 1e-30
        for j in range(n):
            r = np.sqrt(r2[j])
            out[j] += np.exp(-rate * r) * (
                (one + rate * r) * product[j]
                + rate * rate * (cross[j] + trace - rate * q2[j] / max(r, least))
            )


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def fill_direct(code, first, second, trace, Z, Y, B, Z2, Y2, B2, white, out):
    """Add the Stein kernel of every pair to ``out``, summing over the coordinates.

    The kernel is (code, first, second, trace). Z, Y, B (d, m) are the whitened points,
    ``S^-1`` times the points and the scores of the rows of ``out`` (m, k); Z2, Y2, B2 (d, k)
    those of its columns; ``white`` says that Z and Y are the same.
    """
    d, m = Z.shape
    k = Z2.shape[1]
    # four arrays, not the rows of one: the compiler must see that they do not overlap
    r2, q2 = np.empty(k, out.dtype), np.empty(k, out.dtype)
    cross, product = np.empty(k, out.dtype), np.empty(k, out.dtype)
    quads = d - d % 4 if white else 0  # four coordinates at a time: the sums are read and written less often
    for i in range(m):
        r2[:] = 0.0
        q2[:] = 0.0
        cross[:] = 0.0
        product[:] = 0.0
        for c in range(0, quads, 4):
            za, zb, zc, zd = Z[c, i], Z[c + 1, i], Z[c + 2, i], Z[c + 3, i]
            ba, bb, bc, bd = B[c, i], B[c + 1, i], B[c + 2, i], B[c + 3, i]
            Za, Zb, Zc, Zd = Z2[c], Z2[c + 1], Z2[c + 2], Z2[c + 3]
            Ba, Bb, Bc, Bd = B2[c], B2[c + 1], B2[c + 2], B2[c + 3]
            for j in range(k):
                da, db, dc, dd = za - Za[j], zb - Zb[j], zc - Zc[j], zd - Zd[j]
                r2[j] += (da * da + db * db) + (dc * dc + dd * dd)
                cross[j] += (da * (ba - Ba[j]) + db * (bb - Bb[j])) + (dc * (bc - Bc[j]) + dd * (bd - Bd[j]))
                product[j] += (ba * Ba[j] + bb * Bb[j]) + (bc * Bc[j] + bd * Bd[j])
        for c in range(quads, d):
            z, y, b = Z[c, i], Y[c, i], B[c, i]
            zs, ys, bs = Z2[c], Y2[c], B2[c]
            if white:
                for j in range(k):
                    dz = z - zs[j]
                    r2[j] += dz * dz
                    cross[j] += dz * (b - bs[j])
                    product[j] += b * bs[j]
            else:
                for j in range(k):
                    dz = z - zs[j]
                    dy = y - ys[j]
                    r2[j] += dz * dz
                    q2[j] += dy * dy
                    cross[j] += dy * (b - bs[j])
                    product[j] += b * bs[j]
        _finish(code, first, second, trace, r2, r2 if white else q2, cross, product, out[i])


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def fill_products(  # noqa: C901 - one compiled nest of loops
    code,
    first,
    second,
    trace,
    Z,
    Y,
    B,
    norms,
    Z2,
    Y2,
    B2,
    norms2,
    white,
    ratio,
    ZZ,
    YY,
    BB,
    SS,
    out,
):
    """Add the Stein kernel of every pair to ``out``, from matrix products.

    Z and Y (m, d) are the whitened points and ``S^-1`` times the points of the rows, both
    centered, B (m, d) the centered scores. ``norms`` (4, m) are ``|z|^2``, ``|y|^2``, ``<b, y>``, and
    ``<mean, b> + |mean|^2 / 2``, which restores the product of the raw scores. Z2, Y2, B2 and
    norms2 belong to the columns. ``ratio`` is the factor f in ``s = f y + b / f``; ZZ, YY, BB and
    SS (m, k) are the products of z, y, b and s.
    """
    m, k = out.shape
    d = Z.shape[1]
    # four arrays, not the rows of one: the compiler must see that they do not overlap
    r2, q2 = np.empty(k, out.dtype), np.empty(k, out.dtype)
    cross, product = np.empty(k, out.dtype), np.empty(k, out.dtype)
    one = ratio / ratio
    two, up, down = one + one, ratio * ratio, one / (ratio * ratio)
    close = one * CLOSE if out.itemsize == 8 else one * CLOSE_SINGLE
    for i in range(m):
        z0, y0, c0, t0 = norms[0, i], norms[1, i], norms[2, i], norms[3, i]
        near = 0
        for j in range(k):
            total = z0 + norms2[0, j]
            r2[j] = total - two * ZZ[i, j]
            near += r2[j] < close * total
            gram = BB[i, j]
            product[j] = gram + t0 + norms2[3, j]
            cross[j] = c0 + norms2[2, j] - (SS[i, j] - up * YY[i, j] - down * gram)
        if not white:
            for j in range(k):
                q2[j] = y0 + norms2[1, j] - two * YY[i, j]
        if near > 0:
            for j in range(k):
                if r2[j] < close * (z0 + norms2[0, j]):
                    a, b, e = one - one, one - one, one - one
                    for c in range(d):
                        a += (Z[i, c] - Z2[j, c]) ** 2
                        step = Y[i, c] - Y2[j, c]
                        b += step * step
                        e += step * (B[i, c] - B2[j, c])
                    r2[j] = a
                    q2[j] = b
                    cross[j] = e
        _finish(code, first, second, trace, r2, r2 if white else q2, cross, product, out[i])
