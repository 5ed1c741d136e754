"""Rigorous error bounds for very many linear pieces at once, in floats.

On chunks of the interval the function is replaced by its Taylor polynomial, whose
coefficients and remainder are enclosed by balls. On each piece the error is then a
parabola up to known slack: rounding, remainder and the third derivative are all
added. What stays above the error sought goes on to ball arithmetic.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fathometer.approximation.extraction import Lines
from fathometer.approximation.target import Target

ORDER = 14
_UNIT = 2.3e-16


@dataclass(frozen=True, eq=False, kw_only=True)
class Chunk:
    """Taylor polynomial about ``middle``, valid within ``radius`` up to ``remainder``."""

    middle: float
    radius: float
    coefficients: np.ndarray
    remainder: float
    last: float

    def derivative_bound(self, order: int) -> float:
        """Bound on the size of a derivative of f in the chunk."""
        k = np.arange(len(self.coefficients))
        factor = np.ones(len(k))
        for i in range(order):
            factor = factor * np.maximum(k - i, 0)
        powers = self.radius ** np.maximum(k - order, 0)
        tail = self.last * np.prod([ORDER - i for i in range(order)]) * self.radius ** (ORDER - order)
        return float((factor * np.abs(self.coefficients) * powers).sum() + tail) * (1 + 1e-12)


def screened(target: Target, lines: Lines, wanted: float) -> np.ndarray:
    """(pieces,) upper bounds on ``|f - line|`` on each piece; infinite where no chunk holds it.

    Args:
        target: A formula of one variable.
        lines: The pieces, left to right.
        wanted: An error far below which no precision is needed.
    """
    bounds = np.full(len(lines), np.inf)
    lefts, rights = lines.left[:, 0], lines.right[:, 0]
    for chunk in _chunks(target, float(lefts[0]), float(rights[-1]), 1e-4 * wanted):
        low, high = chunk.middle - chunk.radius, chunk.middle + chunk.radius
        first, last = np.searchsorted(lefts, low), np.searchsorted(rights, high, side="right")
        if first < last:
            part = slice(int(first), int(last))
            bounds[part] = _bounds(chunk, lines, part)
    return bounds


def parabola(e_left: Any, e_right: Any, sag: Any) -> Any:
    """Maximum over s in [0, 1] of ``(1-s) e_left + s e_right + sag s (1-s)``, sag >= 0."""
    tilt = np.abs(e_right - e_left)
    with np.errstate(all="ignore"):
        inner = (e_left + e_right) / 2 + sag / 4 + tilt**2 / (4 * sag)
    return np.where(tilt < sag, inner, np.maximum(e_left, e_right))


def _bounds(chunk: Chunk, lines: Lines, part: slice) -> np.ndarray:
    c, r = chunk.coefficients, chunk.radius
    a, b = lines.left[part, 0] - chunk.middle, lines.right[part, 0] - chunk.middle
    size = float((np.abs(c) * r ** np.arange(len(c))).sum())
    ys = np.abs(lines.at_left[part, 0]) + np.abs(lines.at_right[part, 0])
    slack = chunk.remainder + _UNIT * (
        4 * len(c) * size + 2 * ys + 4 * chunk.derivative_bound(1) * (abs(chunk.middle) + r)
    )
    e_left = np.polynomial.polynomial.polyval(a, c) - lines.at_left[part, 0]
    e_right = np.polynomial.polynomial.polyval(b, c) - lines.at_right[part, 0]
    width = b - a
    second = np.polynomial.polynomial.polyval((a + b) / 2, np.polynomial.polynomial.polyder(c, 2))
    drift = (
        width / 2 * chunk.derivative_bound(3)
        + chunk.last * ORDER * (ORDER - 1) * r ** (ORDER - 2)
        + _UNIT * 4 * len(c) * chunk.derivative_bound(2)
    )
    half = width**2 / 2 * (1 + 1e-12)
    above = parabola(e_left, e_right, np.maximum(0.0, -second + drift) * half)
    below = parabola(-e_left, -e_right, np.maximum(0.0, second + drift) * half)
    bounds = np.maximum(np.maximum(above, below), 0.0) * (1 + 1e-13) + slack + lines.deviation[part]
    return np.where(np.isfinite(bounds), bounds, np.inf)


def _chunks(target: Target, a: float, b: float, wanted: float) -> list[Chunk]:
    """Chunks whose remainder is below ``wanted``; tiny ones around kinks are left out."""
    from fathometer.approximation.expression import flint

    arb = flint().arb
    done: list[Chunk] = []
    stack, least = [(a, b)], (b - a) * 2.0**-14
    while stack:
        low, high = stack.pop()
        middle, radius = (low + high) / 2, (high - low) / 2 * (1 + 1e-12)
        whole = target.series(arb(middle, radius), ORDER + 1)
        last = float(abs(whole[ORDER]).upper())
        remainder = last * radius**ORDER * (1 + 1e-12)
        if remainder <= wanted:
            exact = target.series(arb(middle), ORDER)
            coefficients = np.array([float(exact[k].mid()) for k in range(ORDER)])
            doubt = sum(
                float(abs(exact[k] - arb(c)).upper()) * radius**k for k, c in enumerate(coefficients.tolist())
            )
            if np.isfinite(doubt):
                done.append(
                    Chunk(
                        middle=middle,
                        radius=radius,
                        coefficients=coefficients,
                        remainder=remainder + doubt * (1 + 1e-12),
                        last=last,
                    )
                )
                continue
        if high - low > least:
            stack += [(low, middle), (middle, high)]
    return done
