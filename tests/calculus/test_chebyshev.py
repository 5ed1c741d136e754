"""Chebyshev series against closed forms, numpy and Bessel functions."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import iv

from fathometer.calculus import ChebyshevSeries, chebyshev_points, chebyshev_series
from fathometer.errors import InputError


def test_points_are_the_extremes_and_nested():
    np.testing.assert_allclose(chebyshev_points(9), -np.cos(np.pi * np.arange(9) / 8), atol=1e-15)
    np.testing.assert_array_equal(chebyshev_points(5, (2, 7)), chebyshev_points(9, (2, 7))[::2])
    assert chebyshev_points(2, (0.1, 0.7)).tolist() == [0.1, 0.7]


@given(
    shape=st.lists(st.integers(2, 5), min_size=1, max_size=3),
    seed=st.integers(0, 2**31),
    low=st.floats(-5, 5),
    width=st.floats(0.1, 10),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_polynomials_on_a_box_are_reproduced(shape, seed, low, width):
    rng = np.random.default_rng(seed)
    c = rng.normal(size=shape)
    box = [(low + i, low + i + width * (i + 1)) for i in range(len(shape))]

    def polynomial(*x):  # sum of the monomials, one by one
        powers = itertools.product(*(range(n) for n in shape))
        u = [(x_ - a) / (b - a) for x_, (a, b) in zip(x, box, strict=True)]
        return sum(c[p] * math.prod(u_**k for u_, k in zip(u, p, strict=True)) for p in powers)

    grids = np.meshgrid(
        *(chebyshev_points(n, i) for n, i in zip(shape, box, strict=True)), indexing="ij", sparse=False
    )
    series = ChebyshevSeries.through(polynomial(*grids), box)
    axes = [rng.uniform(a, b, size=4 + k) for k, (a, b) in enumerate(box)]
    dense = np.meshgrid(*axes, indexing="ij")
    np.testing.assert_allclose(series.on_grid(*axes), polynomial(*dense), atol=1e-9)
    np.testing.assert_allclose(series(*dense), polynomial(*dense), atol=1e-9)


def test_coefficients_of_the_exponential_are_bessel_functions():
    series = chebyshev_series(np.exp)
    n = np.arange(len(series.coefficients))
    expected = np.where(n == 0, 1.0, 2.0) * iv(n, 1.0)
    np.testing.assert_allclose(series.coefficients, expected, atol=1e-15)
    assert 13 <= len(n) <= 16


@pytest.mark.parametrize(
    ("f", "interval"),
    [
        (np.sin, (0.0, 20.0)),
        (lambda x: 1 / (1 + 25 * x**2), (-1.0, 1.0)),
        (np.log, (0.5, 3.0)),
        (lambda x: 1e-12 * np.cos(x), (-3.0, 3.0)),
        (lambda x: np.zeros_like(x), (-1.0, 1.0)),
        (lambda x: np.ones_like(x) * 7, (2.0, 3.0)),
        (lambda x: x**8 - x**16, (-1.0, 1.0)),
    ],
)
def test_smooth_functions_come_back_to_rounding(f, interval):
    series = chebyshev_series(f, interval)
    x = np.linspace(*interval, 501)
    size = max(np.abs(f(x)).max(), 1e-300)
    assert np.abs(series(x) - f(x)).max() <= 1e-12 * size


def test_values_are_never_asked_for_twice():
    asked = []

    def f(x):
        asked.extend(x.tolist())
        return 1 / (1 + 9 * x**2)

    chebyshev_series(f)
    assert len(asked) == len(set(asked)) > 100


def test_derivatives_and_integrals_are_those_of_the_function():
    series = chebyshev_series(np.sin, (0.0, 3.0))
    x = np.linspace(0, 3, 50)
    np.testing.assert_allclose(series.derivative()(x), np.cos(x), atol=1e-11)
    assert series.integral() == pytest.approx(1 - math.cos(3.0), abs=1e-13)
    s, t = chebyshev_points(21, (0, 1)), chebyshev_points(17, (-1, 2))
    box = ChebyshevSeries.through(np.exp(s[:, None] - 2 * t), [(0, 1), (-1, 2)])
    exact = (math.e - 1) * (math.exp(2) - math.exp(-4)) / 2
    assert box.integral() == pytest.approx(exact, rel=1e-11)
    along = box.derivative(1).on_grid([0.3], [0.4])[0, 0]
    assert along == pytest.approx(-2 * math.exp(0.3 - 0.8), rel=1e-8)


@pytest.mark.parametrize("count", [9, 17, 33])
def test_the_tail_is_of_the_size_of_the_error(count):
    s = chebyshev_points(count, (-1, 1))

    def f(s, t):
        return 1 / (1 + 4 * s**2 + 2 * t**2)

    series = ChebyshevSeries.through(f(s[:, None], s), [(-1, 1), (-1, 1)])
    x = np.linspace(-1, 1, 101)
    error = np.abs(series.on_grid(x, x) - f(x[:, None], x)).max()
    assert error <= series.tail() <= 100 * error


def test_a_coarse_grid_of_an_odd_function_has_a_tail():
    # every other coefficient vanishes: the last one alone would say that nothing is missing
    s = chebyshev_points(11)
    assert ChebyshevSeries.through(np.sin(9 * s), [(-1, 1)]).tail() > 1e-3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: chebyshev_points(1), "count is 1; both ends"),
        (lambda: chebyshev_points(4, (1, 1)), r"interval is \(1.0, 1.0\); two finite ends"),
        (lambda: chebyshev_points(4, (0, math.inf)), "two finite ends"),
        (lambda: ChebyshevSeries.through(np.ones((3, 3)), [(0, 1)]), r"shape \(3, 3\) for 1 intervals"),
        (lambda: ChebyshevSeries.through(np.ones((3, 1)), [(0, 1)] * 2), "two or more points"),
        (lambda: ChebyshevSeries.through([1.0, math.nan, 2.0], [(0, 1)]), r"values\[1\] is not finite"),
        (lambda: chebyshev_series(np.exp)(2.0), r"the point 2.0 lies outside \(-1.0, 1.0\)"),
        (lambda: chebyshev_series(np.exp)(math.nan), "the point nan lies outside"),
        (
            lambda: chebyshev_series(np.exp).on_grid([0.0], [0.0]),
            "2 coordinates were given; this series has 1",
        ),
        (lambda: chebyshev_series(np.exp).derivative(1), "axis is 1; this series has axes 0 to 0"),
        (lambda: chebyshev_series(np.abs), r"not smooth enough on \(-1.0, 1.0\): with 1025 points"),
        (lambda: chebyshev_series(lambda x: 1 / x), r"f\(0.0\) is not finite"),
        (lambda: chebyshev_series(lambda x: 1.0), r"f gave shape \(\) for points"),
    ],
)
def test_arguments_without_a_meaning_are_refused(call, message):
    with np.errstate(divide="ignore"), pytest.raises(InputError, match=message):
        call()
