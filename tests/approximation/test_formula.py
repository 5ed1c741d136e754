import math

import mpmath
import numpy as np
import pytest
import sympy
from flint import arb

from fathometer.approximation.formula import parse
from fathometer.approximation.target import as_target
from fathometer.errors import InputError

TEXTS = {
    "exp(-x^2/2)": lambda x: mpmath.exp(-(x**2) / 2),
    "2^3^2 - x": lambda x: 512 - x,
    "-x**2": lambda x: -(x**2),
    "x^-2 + x^(1/3)": lambda x: x**-2 + mpmath.cbrt(x),
    "sqrt(x)*ln(x)": lambda x: mpmath.sqrt(x) * mpmath.log(x),
    "tanh(3*x) - sinh(x)/cosh(x)": lambda x: mpmath.tanh(3 * x) - mpmath.tanh(x),
    "1/(1+25*x^2)": lambda x: 1 / (1 + 25 * x**2),
    "max(x, 0.3) - min(x, .25e0) + abs(x - 0.4)": lambda x: (
        max(x, mpmath.mpf("0.3")) - min(x, mpmath.mpf("0.25")) + abs(x - mpmath.mpf("0.4"))
    ),
    "atan(x)+asin(x)+acos(x)+tan(x)": lambda x: mpmath.atan(x) + mpmath.pi / 2 + mpmath.tan(x),
    "asinh(x)+acosh(1+x)+atanh(x)": lambda x: mpmath.asinh(x) + mpmath.acosh(1 + x) + mpmath.atanh(x),
    "erf(x)+expm1(x)+log1p(x)+sinc(x)": lambda x: (
        mpmath.erf(x) + mpmath.expm1(x) + mpmath.log1p(x) + mpmath.sinc(x)
    ),
    "sigmoid(x) + sin(pi*x)*e^x + cos(tau*x)": lambda x: (
        1 / (1 + mpmath.exp(-x)) + mpmath.sin(mpmath.pi * x) * mpmath.exp(x) + mpmath.cos(2 * mpmath.pi * x)
    ),
    "x^x + x^2.5": lambda x: x**x + x ** mpmath.mpf("2.5"),
    "sign(x-0.5) + step(x-0.6) + relu(x-0.2)": lambda x: (
        mpmath.sign(x - mpmath.mpf("0.5"))
        + (1 if x >= mpmath.mpf("0.6") else 0)
        + max(x - mpmath.mpf("0.2"), 0)
    ),
}


@pytest.mark.parametrize("text", TEXTS)
def test_floats_balls_and_derivatives_agree_with_high_precision(text):
    target = as_target(text, (0.1, 0.9))
    with mpmath.workdps(40):
        for x in (0.125, 0.3125, 0.7):
            point = mpmath.mpf(x)
            exact = TEXTS[text](point)
            assert math.isclose(target.values([x])[0], float(exact), rel_tol=1e-13, abs_tol=1e-14)
            ball = target.series(arb(x), 0)
            assert ball.overlaps(arb(str(exact)))
            assert float(ball.rad()) < 1e-12
            series = target.series(arb(x), 3)
            for order in (1, 2):
                wanted = mpmath.diff(TEXTS[text], point, order, h=mpmath.mpf(10) ** -12) / math.factorial(
                    order
                )
                assert abs(float(series[order].mid()) - float(wanted)) < 1e-9 * (1 + abs(float(wanted)))


@pytest.mark.parametrize("text", TEXTS)
def test_a_ball_encloses_the_whole_range(text):
    target = as_target(text, (0.1, 0.9))
    for a, b in ((0.1, 0.9), (0.45, 0.55), (0.2, 0.21)):
        ball = target.series(arb((a + b) / 2, (b - a) / 2), 0)
        values = target.values(np.linspace(a, b, 401))
        if ball.is_finite():
            assert float(ball.lower()) <= values.min() + 1e-12
            assert float(ball.upper()) >= values.max() - 1e-12


def test_sympy_and_series_become_the_same_function():
    x = sympy.Symbol("x")
    grid = np.linspace(0.0, 1.0, 33)
    series = np.polynomial.Chebyshev([1, -2, 0.5], domain=[0, 2])
    tallest = np.maximum(np.maximum(grid, 0.5), 1 - grid)
    cases = [
        (sympy.sqrt(x) + sympy.sin(sympy.pi * x) / 3, np.sqrt(grid) + np.sin(np.pi * grid) / 3),
        (sympy.Piecewise((x**2, x < 0.5), (sympy.exp(x), True)), np.where(grid < 0.5, grid**2, np.exp(grid))),
        (sympy.Max(x, 0.5, 1 - x) + sympy.Abs(x - 1) + sympy.E, tallest + 1 - grid + np.e),
        (sympy.Float(0.1) * x, 0.1 * grid),
        (np.polynomial.Polynomial([1, 2, 3]), 1 + 2 * grid + 3 * grid**2),
        (series, series(grid)),
        (([0.0, 0.25, 1.0], [1.0, 0.0, 3.0]), np.interp(grid, [0.0, 0.25, 1.0], [1.0, 0.0, 3.0])),
    ]  # fmt: skip
    for f, expected in cases:
        np.testing.assert_allclose(as_target(f, (0, 1)).values(grid), expected, rtol=1e-13, atol=1e-14)


def test_long_sums_need_no_deep_stack():
    assert as_target("+".join(["x"] * 4000), (0, 1)).values([0.5])[0] == 2000.0


def test_variables_are_ordered_by_name_or_as_told():
    points = np.array([[2.0, 3.0]])
    assert as_target("y - 2*x", [(0, 4), (0, 4)]).values(points)[0] == -1.0
    assert as_target("y - 2*x", [(0, 4), (0, 4)], variables=["y", "x"]).values(points)[0] == -4.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("__import__('os').system('true')", r"position 11: the character \"'\" has no meaning"),
        ("__class__", "'__class__' is not a name of a variable"),
        ("x.real", r"position 1: the character '\.'"),
        ("exec(x)", "'exec' is not a function known here"),
        ("lambda: 1", "has no meaning in a formula"),
        ("2x", "'x' was not expected here; write a product with '\\*'"),
        ("sin", r"sin is a function; write sin\(\.\.\.\)"),
        ("(x", "a closing parenthesis is missing"),
        ("max(x, 1", "a closing parenthesis is missing"),
        ("max(x)", "max takes 2 arguments, not 1"),
        ("exp(x, x)", "exp takes 1 argument, not 2"),
        ("x +", "it ends too early"),
        ("x + )", r"'\)' was not expected here"),
        ("", "f is an empty string"),
        ("1e999", "1e999 is beyond any float"),
        ("x^(1/0)", "f divides by the number 0"),
        ("(" * 500 + "x" + ")" * 500, "nested more than 60 deep"),
        ("x+" * 4000 + "(", "it ends too early"),
        ("2^" * 500 + "2", "nested more than 60 deep"),
        ("x" * 20_000, "a formula has at most 10000"),
    ],
)
def test_text_that_is_no_formula_is_refused_with_its_place(text, message):
    with pytest.raises(InputError, match=message):
        parse(text)


@pytest.mark.parametrize(
    ("f", "domain", "message"),
    [
        ("x", (0, 0), r"interval \(0.0, 0.0\); the first end must be below"),
        ("x", (1, 0), "the first end must be below the second"),
        ("x", (0, math.inf), "both ends must be finite"),
        ("x", "ab", "domain is 'ab'"),
        ("x*y", (0, 1), "f has the variables x, y, but the domain has 1 interval"),
        ("x", [(0, 1), (0, 1)], "the variables x and the domain has 2 intervals"),
        (5, (0, 1), "f is a int; pass a formula"),
        (([0, 1], [0, 1, 2]), (0, 1), r"a table of shapes \(2,\) and \(3,\)"),
        (([0, 0.5], [0, 1]), (0, 1), "does not cover the domain"),
        (([0, 1], [0, math.nan]), (0, 1), "values that are not finite"),
        (np.polynomial.Polynomial([math.inf]), (0, 1), "not all real and finite"),
        (sympy.Function("g")(sympy.Symbol("x")), (0, 1), "f holds g, which is not known"),
        (sympy.Piecewise((1, sympy.Symbol("x") > 0)), (0, 1), "without a last branch for all other points"),
    ],
)  # fmt: skip
def test_targets_that_cannot_be_are_refused(f, domain, message):
    with pytest.raises(InputError, match=message):
        as_target(f, domain)


def test_conditions_other_than_order_are_refused():
    x = sympy.Symbol("x")
    with pytest.raises(InputError, match="only <, <=, > and >= are known"):
        as_target(sympy.Piecewise((1, sympy.Eq(x, 0)), (x, True)), (0, 1))


def test_values_that_are_not_finite_or_real_are_refused_with_their_place():
    with pytest.raises(InputError, match=r"f is -?inf at 0; it must be finite"):
        as_target("1/x", (0, 1)).values(np.array([0.5, 0.0]))
    with pytest.raises(InputError, match=r"f is complex at \[0\.25\]"):
        as_target(lambda x: np.sqrt(x.astype(complex) - 0.5), (0, 1)).values(np.array([1.0, 0.25]))
    with pytest.raises(InputError, match=r"f gave shape \(2, 2\) for 2 points"):
        as_target(lambda x: np.ones((2, 2)), (0, 1)).values(np.array([0.1, 0.2]))


def test_callables_of_numbers_and_tensors_work_too():
    import torch

    grid = np.linspace(0.0, 1.0, 5)
    np.testing.assert_allclose(as_target(math.exp, (0, 1)).values(grid), np.exp(grid), rtol=1e-15)
    np.testing.assert_allclose(as_target(torch.exp, (0, 1)).values(grid), np.exp(grid), rtol=1e-15)
    np.testing.assert_allclose(as_target(lambda x: 2.0, (0, 1)).values(grid), 2.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"breakpoints": [2.0]}, "breakpoints has 2.0, which is not inside"),
        ({"curvature": -1.0}, "second_derivative is -1.0"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        as_target(np.exp, (0, 1), **options)
    with pytest.raises(InputError, match="breakpoints are places on a line"):
        as_target("x*y", [(0, 1), (0, 1)], breakpoints=[0.5])
    with pytest.raises(InputError, match="variables are a for 1 interval"):
        as_target("x", (0, 1), variables=["a"])
    with pytest.raises(InputError, match="is a callable; only formulas have certified derivatives"):
        as_target(np.exp, (0, 1)).series(arb(0), 0)
