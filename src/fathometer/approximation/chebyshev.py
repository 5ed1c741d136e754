"""The fallback that always works for analytic functions: Chebyshev polynomials by squarers.

``T_2k = 2 T_k^2 - 1`` costs one squarer and ``T_2k+1 = 2 T_k T_k+1 - x`` two, for
``ab = ((a + b)^2 - (a - b)^2) / 4`` (the emulation of Herrmann, Opschoor & Schwab 2022). Levels grow
until the certificate holds. It costs more units than a fitted chain, but nothing is searched.
"""

import numpy as np

from fathometer.approximation.chains import squared
from fathometer.approximation.network import Affine, Builder, SkipNetwork
from fathometer.approximation.smoothness import chebyshev_coefficients
from fathometer.approximation.target import Target


def emulated(target: Target, error: float, levels: int) -> SkipNetwork:
    """The Chebyshev series of f, cut where the rest is below error / 2, with squarers of these levels."""
    a, b = target.interval
    c = chebyshev_coefficients(target)
    rest = np.append(np.cumsum(np.abs(c[::-1]))[::-1], 0.0)
    degree = max(1, int(np.argmax(rest <= error / 2)) - 1)
    build = Builder(1)
    s = (build.variable() - (a + b) / 2) * (2 / (b - a))
    known: dict[int, Affine] = {0: Affine({}, 1.0), 1: s}
    margin = 1.0 + 2.0 ** (1 - levels)

    def square(q: Affine) -> Affine:
        """q^2 for q in [-margin, margin], centered, so that the error goes both ways."""
        u = (q + margin) * (0.5 / margin)
        size = 2 * margin
        centered = squared(build, u, levels) - 2.0 ** (-2 * levels - 3)
        return margin * margin - 2 * margin * size * u + size * size * centered

    def polynomial(n: int) -> Affine:
        if n not in known:
            low, high = polynomial(n // 2), polynomial(n - n // 2)
            if n % 2 == 0:
                known[n] = 2.0 * square(low) - 1.0
            else:
                known[n] = 2.0 * (square((low + high) * 0.5) - square((low - high) * 0.5)) - s
        return known[n]

    total = Affine({}, float(c[0]))
    for n in range(1, min(degree, len(c) - 1) + 1):
        if c[n] != 0.0:
            total = total + float(c[n]) * polynomial(n)
    return build.network(total)
