"""Bits of numbers in [0, 1] by steps, and products with them by ReLUs (Liang & Srikant 2017, sec. 3)."""

from collections.abc import Mapping, Sequence

from fathometer.approximation.network import Affine, Builder


def read_bits(build: Builder, x: Affine, n: int) -> tuple[list[Affine], Affine]:
    """Bits x_0..x_n of an affine function with values in [0, 1], and their sum x~."""
    digits: list[Affine] = []
    rest = x
    for i in range(n + 1):
        digit = build.step(rest - 2.0**-i)
        digits.append(digit)
        rest = rest - 2.0**-i * digit
    return digits, sum((2.0**-i * digit for i, digit in enumerate(digits)), Affine({}))


def times_bits(build: Builder, digits: list[Affine], y: Affine, signed: bool = False) -> Affine:
    """x~ times y for |y| <= 1: one ReLU a bit; ``signed`` where y may be negative."""
    total = Affine({})
    for i, digit in enumerate(digits):
        size = 2.0**-i
        if signed:  # relu(y/2^i + B - 2B (1 - bit)) - B bit with B = 2^-i
            part = build.relu(size * y + 2 * size * digit - size) - size * digit
        else:
            part = build.relu(2.0 * digit - 2.0 + size * y)
        total = total + part
    return total


def polynomial_of(build: Builder, x: Affine, coefficients: Sequence[float], n: int) -> Affine:
    """A polynomial of an affine function in [0, 1], by the chain of powers of Figure 2."""
    digits, power = read_bits(build, x, n)
    total = Affine({}, coefficients[0])
    for i, c in enumerate(coefficients[1:], 1):
        power = power if i == 1 else times_bits(build, digits, power)
        total = total + c * power
    return total


def monomials(
    build: Builder, read: list[tuple[list[Affine], Affine]], terms: Mapping[tuple[int, ...], float]
) -> Affine:
    """``sum C_a x^a`` from the bits of each coordinate; common prefixes are built once."""
    known: dict[tuple[int, ...], Affine] = {}

    def power(a: tuple[int, ...]) -> Affine:
        if a not in known:
            k = max(i for i, e in enumerate(a) if e)
            lower = tuple(e - (i == k) for i, e in enumerate(a))
            known[a] = times_bits(build, read[k][0], power(lower)) if sum(lower) else read[k][1]
        return known[a]

    total = Affine({})
    for a, c in terms.items():
        total = total + (c * power(a) if sum(a) else Affine({}, c))
    return total
