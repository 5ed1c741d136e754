"""The networks of Liang & Srikant (ICLR 2017, arXiv 1610.04161), as they are drawn.

All rest on one idea: n+1 binary steps read off the bits of x in [0, 1] (Figure 1),
and a bit times a number is *one* ReLU, so multiplying by x costs n+1 ReLUs. Powers of x
are a chain of such products (Figure 2), polynomials are sums of powers, and smooth functions
are Chebyshev interpolants. Wiring is "skip", as in the figures. Where the text counts n
units and the drawing holds n+1, the drawing is built.

Each function returns a `PaperNetwork`: a `SkipNetwork` that also names its statement and
the error that the statement promises on [0, 1]^d.
"""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np

from fathometer.approximation.bits import monomials, polynomial_of, read_bits, times_bits
from fathometer.approximation.composing import chained, inlined
from fathometer.approximation.network import Affine, Builder, SkipNetwork
from fathometer.approximation.smoothness import interpolant, scale_to_factorials
from fathometer.approximation.target import as_target
from fathometer.errors import InputError

MOST_BITS = 52


class PaperNetwork(SkipNetwork):
    """A construction of the paper.

    Attributes:
        statement: Which theorem or corollary.
        promised: Its bound on the sup error over the unit cube.
        bits: Bits n read off each coordinate after the leading one.
    """

    def __init__(self, network: SkipNetwork, statement: str, promised: float, bits: int) -> None:
        super().__init__(network.inputs, list(network.definition()), network.output)
        self.statement = statement
        self.promised = promised
        self.bits = bits

    def __repr__(self) -> str:
        counts = f"{self.steps} steps, {self.relus} ReLUs, depth {self.depth}"
        return f"<{self.statement}: {counts}, error at most {self.promised:.3g}>"


def bits(n: int) -> PaperNetwork:
    """The bits of x in [0, 1] (Figure 1): the output is x cut after n binary places.

    Unit i is ``step(x - sum_{j<i} x_j / 2^j - 2^-i)``, i = 0..n: n+1 steps in n+1 layers.

    >>> bits(3)(np.array([0.0, 0.3, 1.0])).tolist()
    [0.0, 0.25, 1.0]

    Raises:
        InputError: If n is not a whole number from 0 to 52 (float64 holds no more).
    """
    n = _whole(n, "n", 0)
    if n > MOST_BITS:
        raise InputError(f"n is {n}; float64 holds at most {MOST_BITS} binary places.")
    build = Builder(1)
    _, truncated = read_bits(build, build.variable(), n)
    return PaperNetwork(build.network(truncated), "Figure 1", 2.0**-n, n)


def square(error: float) -> PaperNetwork:
    """Theorem 1: x^2 on [0, 1] with n+1 steps and n+1 ReLUs in n+2 layers.

    ``sum_i max(0, 2 (x_i - 1) + x~ / 2^i)`` with n = ceil(log2(1/error)) + 1. The true sup
    error is 2^(1-n) - 4^-n, approached at x -> 1 and not attained.

    Raises:
        InputError: If the error is not in (0, 1], or needs more bits than float64 has.
    """
    n = _bit_count(1.0, error) + 1
    build = Builder(1)
    digits, x = read_bits(build, build.variable(), n)
    return PaperNetwork(build.network(times_bits(build, digits, x)), "Theorem 1", 2.0 ** (1 - n), n)


def polynomial(coefficients: Sequence[float], error: float) -> PaperNetwork:
    """Theorem 2: a polynomial on [0, 1] whose coefficients above the constant sum to at most 1.

    Steps n+1, ReLUs (p-1)(n+1), depth n+p, with n = ceil(log2(p/error)) + 1 for degree p.

    Args:
        coefficients: Ascending, the constant first.
        error: Sup error that is promised, in (0, 1].

    Raises:
        InputError: If the absolute coefficients from x on sum to more than 1.
    """
    values = _coefficients(coefficients)
    total = float(sum(abs(Fraction(c)) for c in values[1:]))
    if total > 1:
        raise InputError(
            f"coefficients: |a_1| + ... + |a_p| is {total:.6g}; Theorem 2 needs at most 1. "
            f"Divide the polynomial and the error by {total:.6g}."
        )
    degree = len(values) - 1
    build = Builder(1)
    if degree == 0:
        return PaperNetwork(build.network(Affine({}, values[0])), "Theorem 2", 0.0, 0)
    n = _bit_count(degree, error) + 1
    output = polynomial_of(build, build.variable(), values, n)
    return PaperNetwork(build.network(output), "Theorem 2", degree * 2.0 ** (1 - n), n)


def smooth(f: Any, error: float) -> PaperNetwork:
    """Theorem 4: a function on [0, 1] with ``|f^(n)| <= n!`` for n up to N+1.

    The Chebyshev interpolant of degree N = ceil(log2(2/error)) on the bits x_0..x_N: N+1 steps,
    (N-1)(N+1) ReLUs, depth 2N. If some derivatives are larger, ``f / M`` is built for
    ``error / M`` and the output is multiplied by M, the least that works.

    Args:
        f: A formula (text, sympy, numpy series), or a callable: then nothing is known of
            its derivatives and the promise rests on the hypothesis.
        error: Sup error, in (0, 1].

    Raises:
        InputError: If the derivatives outgrow n!, so that no M works.
    """
    return _smooth(as_target(f, (0.0, 1.0)), error, "Theorem 4")


def combination(functions: Sequence[Any], weights: Sequence[float], error: float) -> PaperNetwork:
    """Corollary 5: ``sum_i weights_i f_i`` with ``sum |weights_i| <= 1``; the counts of Theorem 4.

    Raises:
        InputError: If the weights sum to more than 1 in size, or there is not one for each function.
    """
    if len(functions) != len(weights) or not functions:
        raise InputError(f"functions: {len(functions)} with {len(weights)} weights; give one weight each.")
    total = math.fsum(abs(w) for w in weights)
    if total > 1 + 1e-12:
        raise InputError(f"weights sum to {total:.6g} in size; Corollary 5 needs at most 1.")
    parts = [as_target(f, (0.0, 1.0)) for f in functions]
    whole = parts[0].combined(parts[1:], [float(w) for w in weights])
    return _smooth(whole, error, "Corollary 5")


def product_of_functions(functions: Sequence[Any], error: float) -> PaperNetwork:
    """Corollary 6: a product of k functions that satisfy the hypothesis of Theorem 4.

    The product has ``|f^(n)| <= n! C(n+k-1, k-1)`` (Leibniz), so degree and bits N with
    ``(k + C(N+k, k-1)) / 2^N <= error`` are enough; the printed N is about twice that.

    Raises:
        InputError: If there are no functions.
    """
    if not functions:
        raise InputError("functions is empty; pass at least one.")
    parts = [as_target(f, (0.0, 1.0)) for f in functions]
    whole, k = parts[0].multiplied(parts[1:]), len(parts)
    scales = [scale_to_factorials(part, 20) for part in parts]
    scale = math.prod(max(1.0, s) for s in scales)
    _check_error(error)
    N = 1
    while scale * (k + math.comb(N + k, k - 1)) / 2.0**N > error:
        N += 1
    return _interpolated(whole, N, scale * (k + math.comb(N + k, k - 1)) / 2.0**N, "Corollary 6")


def composition(functions: Sequence[Any], error: float) -> PaperNetwork:
    """Corollary 7: ``f_1 o ... o f_k``, each mapping [0, 1] to itself with the derivatives of Theorem 4.

    As ``|f_i'| <= 1``, k blocks of accuracy error/k, each clipped to [0, 1] by two
    ReLUs, add up to the error: k O(log(k/error)) layers and k O(log^2(k/error)) ReLUs.

    Raises:
        InputError: If a function leaves [0, 1] or has ``|f'| > 1``.
    """
    if not functions:
        raise InputError("functions is empty; pass at least one.")
    _check_error(error)
    share = error / len(functions)
    build, n, promised = Builder(1), _bit_count(2.0, share), 0.0
    value = build.variable()
    for i, f in enumerate(reversed(functions)):
        target = as_target(f, (0.0, 1.0))
        _check_self_map(target, len(functions) - 1 - i)
        scale = max(1.0, scale_to_factorials(target, n + 1))
        n = _bit_count(2.0 * scale, share)
        if i > 0:
            value = build.relu(value) - build.relu(value - 1.0)
        value = polynomial_of(build, value, interpolant(target, n), n)
        promised += scale * 2.0 ** (1 - n)
    return PaperNetwork(build.network(value), "Corollary 7", promised, n)


def product(linear_forms: Sequence[Sequence[float]] | np.ndarray, error: float) -> PaperNetwork:
    """Theorem 8: ``prod_i (w_i . x)`` on [0, 1]^d with ``sum_k |w_ik| <= 1``.

    Steps d(n+1), ReLUs (p-1) d (n+1), depth n+p, n = ceil(log2(pd/error)); the printed step count
    lacks the factor d. Where a form has negative weights the ReLU is shifted, for
    the printed one would cut negative partial products.

    Args:
        linear_forms: (p, d) the weights w_i.
        error: Sup error, in (0, 1].

    Raises:
        InputError: If the forms are not a (p, d) array, or one exceeds 1 in L1 norm.
    """
    forms = np.asarray(linear_forms, dtype=float)
    if forms.ndim != 2 or forms.size == 0 or not np.isfinite(forms).all():
        raise InputError(f"linear_forms has shape {forms.shape}; finite weights (p, d) are needed.")
    norms = np.array([float(sum(abs(Fraction(w)) for w in row)) for row in forms])
    if norms.max() > 1 + 1e-12:
        worst = int(norms.argmax())
        raise InputError(
            f"linear_forms[{worst}] has L1 norm {norms[worst]:.6g}; Theorem 8 needs at most 1. "
            "Divide the form, and the error, by it."
        )
    p, d = forms.shape
    n = _bit_count(p * d, error)
    build = Builder(d)
    read = [read_bits(build, build.variable(k), n) for k in range(d)]
    value = sum((float(forms[0, k]) * read[k][1] for k in range(d)), Affine({}))
    signed = bool((forms < 0).any())
    for row in forms[1:]:
        parts = [float(row[k]) * times_bits(build, read[k][0], value, signed) for k in range(d)]
        value = sum(parts, Affine({}))
    return PaperNetwork(build.network(value), "Theorem 8", p * 2.0**-n, n)


def multinomial(coefficients: Mapping[Sequence[int], float], error: float) -> PaperNetwork:
    """Theorem 9: ``sum_a C_a x^a`` on [0, 1]^d with ``sum |C_a| <= 1`` beyond the constant.

    Each monomial is an earlier one times a coordinate, n+1 ReLUs for each that is
    needed: fewer than the printed p^2 C(p+d-1, d-1) log(pd/error).

    Args:
        coefficients: ``{exponents: coefficient}``, exponents a tuple of d whole numbers.
        error: Sup error, in (0, 1].

    >>> multinomial({(1, 1): 1.0}, 0.01).relus
    10

    Raises:
        InputError: If exponents differ in length or are negative, or the sum exceeds 1.
    """
    terms = _terms(coefficients)
    d = len(next(iter(terms)))
    total = math.fsum(abs(c) for a, c in terms.items() if sum(a))
    if total > 1 + 1e-12:
        raise InputError(f"coefficients sum to {total:.6g} in size; Theorem 9 needs at most 1.")
    build, degree = Builder(d), max(sum(a) for a in terms)
    n = _bit_count(d * max(degree, 1), error)
    read = [read_bits(build, build.variable(k), n) for k in range(d)] if degree else []
    output = monomials(build, read, terms)
    return PaperNetwork(build.network(output), "Theorem 9", degree * 2.0**-n, n)


def composition_with_polynomial(
    functions: Sequence[Any], coefficients: Mapping[Sequence[int], float], error: float
) -> PaperNetwork:
    """Corollary 10: ``f_1 o ... o f_k o l`` with a polynomial l of d variables into [0, 1].

    Raises:
        InputError: As `multinomial` and `composition`.
    """
    _check_error(error)
    inner = multinomial(coefficients, error / 2)
    outer = composition(functions, error / 2)
    return PaperNetwork(chained(inner, outer), "Corollary 10", inner.promised + outer.promised, outer.bits)


def gaussian(dimension: int, error: float) -> PaperNetwork:
    """Corollary 13: ``exp(-|x|^2 / 2)`` on [0, 1]^d: d squares, then one function of their mean.

    Raises:
        InputError: If the dimension is not a whole number from 1 on.
    """
    d = _whole(dimension, "dimension", 1)
    _check_error(error)
    outer = ridge(f"exp(-{d}*x/2)", [1.0], error / 2)
    n = _bit_count(d, error / 2)  # the slope of exp(-d t / 2) is d/2, the mean square errs by 2^(1-n)
    build = Builder(d)
    squares = []
    for k in range(d):
        digits, x = read_bits(build, build.variable(k), n)
        squares.append(times_bits(build, digits, x))
    mean = sum((square * (1.0 / d) for square in squares), Affine({}))
    promised = outer.promised + d * 2.0**-n
    return PaperNetwork(chained(build.network(mean), outer), "Corollary 13", promised, n)


def ridge(f: Any, direction: Sequence[float], error: float) -> PaperNetwork:
    """Corollary 14: ``f(a . x)`` on [0, 1]^d, ``a >= 0`` with sum at most 1; the counts of Theorem 4.

    Raises:
        InputError: If the direction has a negative entry or sums to more than 1.
    """
    a = np.asarray(direction, dtype=float)
    if a.ndim != 1 or a.size == 0 or not np.isfinite(a).all() or (a < 0).any() or a.sum() > 1 + 1e-12:
        raise InputError(f"direction is {a.tolist()}; Corollary 14 needs entries >= 0 with sum at most 1.")
    inner = SkipNetwork(len(a), [], ({k: float(w) for k, w in enumerate(a)}, 0.0))
    outer = smooth(f, error)
    return PaperNetwork(chained(inner, outer), "Corollary 14", outer.promised, outer.bits)


def piecewise_smooth(functions: Sequence[Any], breakpoints: Sequence[float], error: float) -> PaperNetwork:
    """A function that is smooth on each piece of [0, 1], with any jumps (remark after Theorem 4).

    ``f = f_1(min(x, c_1)) + sum_i [f_i(clip x) - f_i(c_i)] + sum_i J_i step(x - c_i)``: one ReLU an
    end, one step a jump, one network of Theorem 4 a piece. At a break the right piece counts.

    Args:
        functions: One a piece, each a function of x on its piece.
        breakpoints: Increasing, inside (0, 1), one fewer than functions.
        error: Sup error, in (0, 1].

    Raises:
        InputError: If there is not one break fewer than functions, or they do not increase.
    """
    cuts = [0.0, *(float(c) for c in breakpoints), 1.0]
    if len(functions) != len(cuts) - 1 or any(not a < b for a, b in pairwise(cuts)):
        raise InputError(
            f"breakpoints {cuts[1:-1]} for {len(functions)} functions; "
            "give one fewer, increasing and inside (0, 1)."
        )
    _check_error(error)
    build, x = Builder(1), Builder(1).variable()
    total, promised, n, last = Affine({}), 0.0, 0, 0.0
    for i, f in enumerate(functions):
        a, b = cuts[i], cuts[i + 1]
        target = as_target(f, (a, b)).stretched()
        clipped = x
        if len(functions) > 1:
            low = build.relu(x - a) if i else x
            high = build.relu(x - b) if i < len(functions) - 1 else Affine({})
            clipped = (low - high if i else x - high) * (1.0 / (b - a))
        share = error / len(functions) / (2 if i else 1)
        block = _smooth(target, share, "piece")
        start, end = (float(target.values(np.array([t]))[0]) for t in (0.0, 1.0))
        piece = inlined(build, block, clipped)
        if i:  # what the block gives at rest, taken off, and the jump
            piece = piece - float(block(np.array([0.0]))[0]) + (start - last) * build.step(x - a)
        total = total + piece
        promised, n, last = promised + block.promised * (2 if i else 1), max(n, block.bits), end
    return PaperNetwork(build.network(total), "piecewise smooth", promised, n)


def _smooth(target: Any, error: float, statement: str) -> PaperNetwork:
    _check_error(error)
    N = _bit_count(2.0, error)
    while N <= MOST_BITS:
        scale = max(1.0, scale_to_factorials(target, N + 1))
        wanted = math.ceil(math.log2(2.0 * scale / error) - 1e-12)
        if wanted <= N:
            return _interpolated(target, N, scale * 2.0 ** (1 - N), statement)
        N = wanted
    raise InputError(
        f"f needs degree and bits N = {N} for error {error:.3g}, because its derivatives outgrow n! on "
        f"[0, 1]; float64 holds {MOST_BITS} bits, so {statement} does not apply. Split the interval, or use "
        "fathometer.approximation.approximate."
    )


def _interpolated(target: Any, N: int, promised: float, statement: str) -> PaperNetwork:
    """The Chebyshev interpolant of degree N on N+1 bits."""
    build = Builder(1)
    if N > MOST_BITS:
        raise InputError(f"error needs {N} bits; float64 holds {MOST_BITS}.")
    output = polynomial_of(build, build.variable(), interpolant(target, N), N)
    return PaperNetwork(build.network(output), statement, promised, N)


def _check_self_map(target: Any, position: int) -> None:
    values = target.values(np.linspace(0.0, 1.0, 257))
    low, high = float(values.min()), float(values.max())
    if low < -1e-12 or high > 1 + 1e-12:
        raise InputError(
            f"functions[{position}] has values from {low:.4g} to {high:.4g}; in a composition each maps "
            "[0, 1] to itself."
        )
    slope = float(np.abs(np.diff(values)).max() * 256)
    if slope > 1 + 1e-9:
        raise InputError(f"functions[{position}] has slope {slope:.4g}; Corollary 7 needs |f'| <= 1.")


def _terms(coefficients: Mapping[Sequence[int], float]) -> dict[tuple[int, ...], float]:
    if not isinstance(coefficients, Mapping) or not coefficients:
        raise InputError("coefficients must be a non-empty mapping {exponents: coefficient}.")
    terms = {tuple(a): float(c) for a, c in coefficients.items()}
    d = len(next(iter(terms)))
    for a, c in terms.items():
        whole = all(isinstance(e, int | np.integer) and e >= 0 for e in a)
        if len(a) != d or d == 0 or not whole or not math.isfinite(c):
            raise InputError(
                f"coefficients[{a}] = {c}: exponents are tuples of {max(d, 1)} whole numbers from 0 on, "
                "coefficients are finite."
            )
    return terms


def _coefficients(coefficients: Sequence[float]) -> list[float]:
    values = np.asarray(coefficients, dtype=float)
    if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
        raise InputError(f"coefficients has shape {values.shape}; finite numbers a_0, a_1, ... are needed.")
    last = int(np.flatnonzero(values).max(initial=0))
    return values[: last + 1].tolist()


def _bit_count(scale: float, error: float) -> int:
    """ceil(log2(scale / error)), refused beyond float64."""
    _check_error(error)
    n = max(0, math.ceil(math.log2(scale / error) - 1e-12))
    if n > MOST_BITS - 1:
        raise InputError(
            f"error is {error:.3g}, which needs {n + 1} bits of x; float64 holds {MOST_BITS}. "
            "Ask for a larger error."
        )
    return n


def _check_error(error: float) -> None:
    if not isinstance(error, int | float | np.floating) or not 0 < error <= 1:
        raise InputError(f"error is {error!r}; a number in (0, 1] is needed.")


def _whole(value: int, name: str, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InputError(f"{name} is {value!r}; a whole number from {least} on is needed.")
    return int(value)
