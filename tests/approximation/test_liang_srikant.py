import math

import numpy as np
import pytest

from fathometer.approximation import liang_srikant
from fathometer.errors import InputError

GRID = np.linspace(0.0, 1.0, 4097)  # holds every multiple of 2^-12, where the steps switch


@pytest.mark.parametrize("n", [0, 1, 5, 12])
def test_bits_are_the_binary_digits(n):
    network = liang_srikant.bits(n)
    assert (network.steps, network.relus, network.depth) == (n + 1, 0, n + 1)
    expected = np.floor(GRID * 2**n) / 2**n
    assert np.array_equal(network(GRID), expected)


@pytest.mark.parametrize("error", [0.3, 1e-2, 1e-3, 2.0**-9])
def test_theorem_1_has_its_counts_and_its_exact_error(error):
    network = liang_srikant.square(error)
    n = math.ceil(math.log2(1 / error)) + 1
    assert (network.steps, network.relus, network.depth) == (n + 1, n + 1, n + 2)
    worst = 2.0 ** (1 - n) - 4.0**-n  # one-sided limit at 1, not attained
    below_one = np.append(GRID[:-1], np.nextafter(1.0, 0.0))
    gap = np.abs(network(below_one) - below_one**2)
    assert gap.max() <= worst <= error
    assert gap[-1] == pytest.approx(worst, rel=1e-12)
    assert network(1.0) == 1.0


@pytest.mark.parametrize("coefficients", [[0.5, 1.0], [1.0, 0.5, -0.25, 0.25], [0.0, 0, 0, 0, 0, 1.0]])
@pytest.mark.parametrize("error", [1e-1, 1e-3])
def test_theorem_2_has_its_counts_and_keeps_its_promise(coefficients, error):
    network = liang_srikant.polynomial(coefficients, error)
    p = len(coefficients) - 1
    n = math.ceil(math.log2(p / error)) + 1
    assert (network.steps, network.relus) == (n + 1, (p - 1) * (n + 1))
    assert network.depth == n + 1 + p - 1
    exact = np.polynomial.polynomial.polyval(GRID, coefficients)
    assert np.abs(network(GRID) - exact).max() <= network.promised <= error


def test_theorem_2_takes_constants():
    network = liang_srikant.polynomial([3.0, 0.0], 0.1)
    assert network.units == 0 and network(0.3) == 3.0


@pytest.mark.parametrize("error", [1e-1, 1e-2, 1e-4])
@pytest.mark.parametrize("f", ["exp(x-1)", "1/(1+x)", "sin(x)"])
def test_theorem_4_has_its_counts_and_keeps_its_promise(f, error):
    network = liang_srikant.smooth(f, error)
    N = math.ceil(math.log2(2 / error))
    assert (network.steps, network.relus, network.depth) == (N + 1, (N - 1) * (N + 1), 2 * N)
    exact = {"exp(x-1)": np.exp(GRID - 1), "1/(1+x)": 1 / (1 + GRID), "sin(x)": np.sin(GRID)}[f]
    assert np.abs(network(GRID) - exact).max() <= network.promised <= error


@pytest.mark.parametrize(("error", "units"), [(1e-2, 110), (1e-4, 272), (1e-6, 552)])
def test_exp_is_scaled_by_e_because_its_slope_exceeds_one(error, units):
    # f' = e > 1! at x = 1, so f/e is built for error/e: N(N+1) units
    N = math.ceil(math.log2(2 * math.e / error))
    for f in ("exp(x)", np.exp) if error > 1e-6 else ("exp(x)",):
        network = liang_srikant.smooth(f, error)
        assert network.units == N * (N + 1) == units
        points = GRID[::16]
        assert np.abs(network(points) - np.exp(points)).max() <= error


def test_corollaries_5_6_and_7_keep_their_promises():
    cases = [
        (liang_srikant.combination(["exp(x-1)", "sin(x)"], [0.5, -0.5], 1e-3),
         np.exp(GRID - 1) / 2 - np.sin(GRID) / 2),
        (liang_srikant.product_of_functions(["exp(x-1)", "sin(x)"], 1e-3), np.exp(GRID - 1) * np.sin(GRID)),
        (liang_srikant.composition(["sin(x)", "x^2/2", "1-x/2"], 1e-3), np.sin((1 - GRID / 2) ** 2 / 2)),
    ]  # fmt: skip
    for network, exact in cases:
        assert np.abs(network(GRID) - exact).max() <= network.promised <= 1e-3


def test_theorem_8_multiplies_forms_of_mixed_signs():
    forms = np.array([[0.5, -0.5, 0.0], [0.25, 0.25, -0.5], [1.0, 0.0, 0.0], [-0.5, 0.0, 0.5]])
    network = liang_srikant.product(forms, 1e-2)
    p, d = forms.shape
    n = math.ceil(math.log2(p * d / 1e-2))
    assert (network.steps, network.relus, network.depth) == (d * (n + 1), (p - 1) * d * (n + 1), n + p)
    points = np.random.default_rng(0).random((2000, 3))
    exact = np.prod(points @ forms.T, axis=1)
    assert np.abs(network(points) - exact).max() <= network.promised <= 1e-2
    assert exact.min() < -0.01  # negative products do occur


def test_theorem_8_needs_no_shift_for_positive_forms():
    network = liang_srikant.product([[0.5, 0.5], [0.25, 0.75]], 1e-2)
    points = np.random.default_rng(0).random((2000, 2))
    exact = (points @ [0.5, 0.5]) * (points @ [0.25, 0.75])
    assert np.abs(network(points) - exact).max() <= network.promised


def test_theorem_9_shares_prefixes():
    terms = {(1, 1, 0): 0.5, (1, 1, 1): -0.25, (0, 0, 2): 0.25, (0, 0, 0): 2.0}
    network = liang_srikant.multinomial(terms, 1e-2)
    n = network.bits
    assert network.steps == 3 * (n + 1) and network.relus == 3 * (n + 1)  # xy, xyz, z^2: one product each
    x, y, z = np.random.default_rng(0).random((3, 2000))
    exact = 0.5 * x * y - 0.25 * x * y * z + 0.25 * z * z + 2.0
    assert np.abs(network(np.column_stack([x, y, z])) - exact).max() <= network.promised <= 1e-2


def test_corollaries_10_13_and_14_keep_their_promises():
    points = np.random.default_rng(0).random((1000, 3))
    x, y, z = points.T
    cases = [
        (liang_srikant.composition_with_polynomial(["sin(x)"], {(1, 1, 0): 0.5, (0, 2, 1): 0.5}, 1e-2),
         np.sin(x * y / 2 + y * y * z / 2)),
        (liang_srikant.gaussian(3, 1e-2), np.exp(-(points**2).sum(axis=1) / 2)),
        (liang_srikant.ridge("exp(x-1)", [0.25, 0.25, 0.5], 1e-2), np.exp(points @ [0.25, 0.25, 0.5] - 1)),
    ]  # fmt: skip
    for network, exact in cases:
        assert np.abs(network(points) - exact).max() <= network.promised <= 1e-2
    ridge, plain = cases[2][0], liang_srikant.smooth("exp(x-1)", 1e-2)
    assert (ridge.steps, ridge.relus, ridge.depth) == (plain.steps, plain.relus, plain.depth)


def test_pieces_may_jump():
    network = liang_srikant.piecewise_smooth(["exp(x-1)", "x^2/3", "1-x/2"], [0.3, 0.7], 1e-2)
    x = np.append(GRID, [0.3, 0.7])
    exact = np.where(x < 0.3, np.exp(x - 1), np.where(x < 0.7, x**2 / 3, 1 - x / 2))
    assert np.abs(network(x) - exact).max() <= network.promised <= 1e-2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: liang_srikant.bits(-1), "n is -1; a whole number from 0"),
        (lambda: liang_srikant.bits(60), "float64 holds at most 52"),
        (lambda: liang_srikant.square(0), r"error is 0; a number in \(0, 1\]"),
        (lambda: liang_srikant.square(math.nan), "error is nan"),
        (lambda: liang_srikant.square(1e-17), "needs 58 bits of x; float64 holds 52"),
        (lambda: liang_srikant.polynomial([0, 1, 1], 0.1), r"\|a_1\| \+ ... \+ \|a_p\| is 2; Theorem 2"),
        (lambda: liang_srikant.polynomial([], 0.1), "coefficients has shape"),
        (lambda: liang_srikant.smooth("1/(1+25*(2*x-1)^2)", 1e-2), "derivatives outgrow n!"),
        (lambda: liang_srikant.smooth("sqrt(x)", 1e-2), "f is not smooth at 0"),
        (lambda: liang_srikant.smooth(lambda x: abs(x - 0.3), 1e-2), "Chebyshev coefficients do not reach"),
        (lambda: liang_srikant.combination(["x"], [2.0], 0.1), "weights sum to 2"),
        (lambda: liang_srikant.combination(["x"], [], 0.1), "1 with 0 weights"),
        (lambda: liang_srikant.product_of_functions([], 0.1), "functions is empty"),
        (lambda: liang_srikant.composition([], 0.1), "functions is empty"),
        (lambda: liang_srikant.composition(["2*x-1"], 0.1), r"functions\[0\] has values from -1 to 1"),
        (lambda: liang_srikant.composition(["x", "sin(3*x)"], 0.1), r"functions\[1\] has slope 3"),
        (lambda: liang_srikant.product([1.0], 0.1), r"linear_forms has shape \(1,\)"),
        (lambda: liang_srikant.product([[1.0, 1.0]], 0.1), r"linear_forms\[0\] has L1 norm 2"),
        (lambda: liang_srikant.multinomial({}, 0.1), "coefficients must be a non-empty mapping"),
        (lambda: liang_srikant.multinomial({(1, -1): 1.0}, 0.1), "whole numbers from 0 on"),
        (lambda: liang_srikant.multinomial({(1,): 2.0}, 0.1), "coefficients sum to 2"),
        (lambda: liang_srikant.gaussian(0, 0.1), "dimension is 0"),
        (lambda: liang_srikant.ridge("x", [-1.0], 0.1), "entries >= 0"),
        (lambda: liang_srikant.piecewise_smooth(["x", "x"], [], 0.1), "give one fewer"),
    ],
)
def test_what_the_theorems_do_not_cover_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
