"""How fast the derivatives of a function grow, and its Chebyshev interpolant.

Theorem 4 of Liang & Srikant (2017) needs ``|f^(n)| <= n!`` on [0, 1]. The hypothesis
depends on the scale of f (exp fails it at n = 1), so the least M with
``|f^(n)| <= M n!`` is computed: a proved bound for formulas, by bisecting the worst
interval, and an estimate from the Chebyshev series for callables.
"""

import heapq
import math
from fractions import Fraction
from typing import Any

import numpy as np

from fathometer.approximation.expression import Node, bind, flint, symbol
from fathometer.approximation.target import Target
from fathometer.errors import InputError

MOST_COEFFICIENTS = 1025


def scale_to_factorials(target: Target, orders: int, tolerance: float = 1e-9) -> float:
    """Least M with ``|f^(n)| <= M n!`` on [0, 1] for n = 1..orders, up to the tolerance.

    Raises:
        InputError: If f is not smooth on [0, 1].
    """
    target = target if target.formula is not None else series_of(target)
    arb = flint().arb
    best = 0.0
    heap: list[tuple[float, float, float]] = []

    def size(ball: Any) -> Any:
        coefficients = target.series(ball, orders + 1)
        return max(_upper(abs(coefficients[n])) for n in range(1, orders + 1))

    def push(a: float, b: float) -> None:
        nonlocal best
        middle = arb((a + b) / 2)
        coefficients = target.series(middle, orders + 1)
        best = max(best, *(float(abs(coefficients[n]).abs_lower()) for n in range(1, orders + 1)))
        heapq.heappush(heap, (-size(arb((a + b) / 2, (b - a) / 2)), a, b))

    for i in range(16):
        push(i / 16, (i + 1) / 16)
    for _ in range(4000):
        top, a, b = heap[0]
        if -top <= best * (1 + tolerance) + 1e-300:
            break
        heapq.heappop(heap)
        if b - a < 1e-14:
            if math.isinf(top):
                raise InputError(
                    f"f is not smooth at {a:.6g}: a derivative up to order {orders} is not bounded. "
                    "Split the interval there."
                )
            heapq.heappush(heap, (top, a, b))
            break
        middle = (a + b) / 2
        push(a, middle)
        push(middle, b)
    scale = -heap[0][0]
    return 1.0 if abs(scale - 1) <= 10 * tolerance else scale


def _upper(ball: Any) -> float:
    value = float(ball.abs_upper())
    return math.inf if math.isnan(value) else value


def series_of(target: Target) -> Target:
    """The Chebyshev series of a callable to rounding level, as a formula of its own.

    Raises:
        InputError: If the coefficients do not decay: f is not smooth at this scale.
    """
    coefficients = chebyshev_coefficients(target)
    a, b = target.interval
    scale = 2 / (Fraction(b) - Fraction(a))
    inner = Node(
        "add",
        (
            Node("mul", (Node("number", value=scale), symbol("x"))),
            Node("number", value=-1 - scale * Fraction(a)),
        ),
    )
    tree = Node("chebyshev", (inner,), tuple(Fraction(float(c)) for c in coefficients))
    return Target(domain=target.domain, function=bind(tree, ["x"]), formula=tree, text="its series")


def chebyshev_coefficients(target: Target, tolerance: float = 2e-15) -> np.ndarray:
    """Chebyshev coefficients on the interval, cut where they reach rounding level.

    Raises:
        InputError: If 1,025 coefficients are not enough.
    """
    a, b = target.interval
    count = 17
    while count <= MOST_COEFFICIENTS:
        angles = np.pi * (np.arange(count) + 0.5) / count
        values = target.values(a + (b - a) * (1 + np.cos(angles)) / 2)
        c = _cosine_coefficients(values)
        size = np.abs(c).max()
        if size == 0:
            return np.zeros(1)
        if np.abs(c[-4:]).max() <= 4 * tolerance * size * math.sqrt(count):
            large = np.flatnonzero(np.abs(c) > tolerance * size)
            return c[: large[-1] + 1]
        count = 2 * count - 1
    raise InputError(
        f"f is not smooth enough on {target.interval}: {MOST_COEFFICIENTS} Chebyshev coefficients do not "
        "reach rounding level. Give its kinks as breakpoints, or use another method."
    )


def _cosine_coefficients(values: np.ndarray) -> np.ndarray:
    from scipy.fft import dct

    c = np.asarray(dct(values, type=2)) / len(values)
    c[0] /= 2
    return c


def interpolant(target: Target, degree: int) -> list[float]:
    """Monomial coefficients, ascending, of the Chebyshev interpolant on [0, 1] (Lemma 3).

    The values are taken with enough digits for the ill-conditioned change of basis; a
    callable is replaced by its Chebyshev series first.
    """
    if target.formula is None:
        target = series_of(target)
    module = flint()
    with module.ctx.workprec(80 + 8 * degree):
        n, arb = degree + 1, module.arb
        points = [arb.cos_pi_fmpq(module.fmpq(2 * k + 1, 2 * n)) for k in range(n)]
        values = [target.series((1 + z) / 2, 0) for z in points]
        c = [
            sum((v * z.chebyshev_t(j) for v, z in zip(values, points, strict=True)), arb(0))
            * (2 if j else 1)
            / n
            for j in range(n)
        ]
        return [float(v.mid()) for v in _to_monomials(c)]


def _to_monomials(c: list[Any]) -> list[Any]:
    """Coefficients in powers of x of ``sum c_j T_j(2x - 1)``, by the recurrence in whole numbers."""
    total: list[Any] = [0 * c[0]] * len(c)
    before, now = [1], [-1, 2]
    for j, weight in enumerate(c):
        shifted = before if j == 0 else now
        for i, value in enumerate(shifted):
            total[i] = total[i] + weight * value
        if j >= 1:
            doubled = [0] * (len(now) + 1)
            for i, value in enumerate(now):
                doubled[i] -= 2 * value
                doubled[i + 1] += 4 * value
            for i, value in enumerate(before):
                doubled[i] -= value
            before, now = now, doubled
    return total
