"""The product of two variables, within two units of what any network needs.

``x y = [(x + y)^2 - (x - y)^2] / 4`` for ranges scaled to [0, 1]; each square is a tent cascade of m
units, exact up to 4^-m / 8 on length one, centered. The two errors add to at most
``lx ly (4^-m1 + 4^-m2) / 8``, which is proved, whatever the number of pieces: a structural certificate.
"""

import math

import numpy as np

from fathometer.approximation.certificates import Certificate
from fathometer.approximation.chains import squared
from fathometer.approximation.network import Builder, SkipNetwork
from fathometer.approximation.target import Target


def is_product(target: Target) -> bool:
    """Whether the formula is one variable times another."""
    tree = target.formula
    return (
        tree is not None
        and target.dimension == 2
        and tree.op == "mul"
        and all(arg.op == "symbol" for arg in tree.args)
        and tree.args[0].value != tree.args[1].value
    )


def multiplied(target: Target, error: float) -> tuple[SkipNetwork, Certificate]:
    """The product on a box, with the fewest levels whose proved bound is at most the error."""
    (a, b), (c, d) = target.domain
    area = (b - a) * (d - c)
    first = second = 1
    while _bound(area, first, second) > error * (1 - 1e-12):
        first, second = (first + 1, second) if first <= second else (first, second + 1)
    build = Builder(2)
    x, y = build.variable(0), build.variable(1)
    u, v = (x - a) * (1 / (b - a)), (y - c) * (1 / (d - c))
    half_sum, half_gap = (u + v) * 0.5, (u - v) * 0.5 + 0.5
    # u v = ((u + v)/2)^2 - ((u - v)/2)^2, and q^2 = (q + 1/2)^2 - q - 1/4
    one = squared(build, half_sum, first) - 2.0 ** (-2 * first - 3)
    two = squared(build, half_gap, second) - 2.0 ** (-2 * second - 3)
    product = one - (two - (u - v) * 0.5 - 0.25)
    network = build.network(area * product + c * x + a * y - a * c)
    rounding = (
        64 * 2.0**-53 * (network.units + 4) * (abs(area) + max(map(abs, (a, b))) * max(map(abs, (c, d))))
    )
    grid = np.random.Generator(np.random.PCG64(0)).random((4096, 2)) * [b - a, d - c] + [a, c]
    gaps = np.abs(network(grid) - grid[:, 0] * grid[:, 1])
    worst = int(gaps.argmax())
    certificate = Certificate(
        lower=max(0.0, float(gaps[worst]) - rounding),
        upper=_bound(area, first, second) + rounding,
        level="structural",
        pieces=0,
        worst_at=tuple(grid[worst].tolist()),
        domain=target.domain,
        method=f"two squares of {first} and {second} levels, errors added",
    )
    return network, certificate


def _bound(area: float, first: int, second: int) -> float:
    return area * (math.ldexp(1.0, -2 * first) + math.ldexp(1.0, -2 * second)) / 8
