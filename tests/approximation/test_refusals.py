"""Refusals of the constructions that need an unusual function, or a missing package, to be met."""

import sys
from fractions import Fraction

import numpy as np
import pytest

from fathometer.approximation import SkipNetwork, approximate, expression, liang_srikant, shallow, tube
from fathometer.approximation.target import as_target
from fathometer.errors import BudgetError, CapabilityError, InputError


def test_without_onnx_the_way_to_it_is_named(monkeypatch, tmp_path):
    network = SkipNetwork(inputs=1, units=[], output=({0: 1.0}, 0.0))
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(CapabilityError, match=r'writing ONNX needs onnx; pip install "fathometer\[onnx\]"'):
        network.to_onnx(tmp_path / "line.onnx")


def test_a_symbol_without_a_variable_is_named():
    tree = expression.symbol("z")
    with pytest.raises(InputError, match=r"the formula has the symbol 'z'; the variables are x, y"):
        expression.bind(tree, ("x", "y"))
    assert expression.bind(expression.number(Fraction(3)), ())(np.zeros((2, 0))).tolist() == [3.0, 3.0]


def test_a_refusal_of_the_function_itself_comes_through():
    def picky(x):
        raise InputError("only even numbers")

    with pytest.raises(InputError, match="only even numbers"):
        as_target(picky, (0, 1)).values(np.linspace(0, 1, 5)[:, None])


def test_a_jump_is_no_continuous_piece():
    target = as_target(lambda x: (-1.0) ** np.arange(np.size(x)), (0, 1))  # up and down at every sample
    samples = next(n for n in range(400, 500) if len(tube.sampled_tube(target, n)[0]) % 2)
    with pytest.raises(InputError, match=r"changes by more than 2 error = 0\.2 between neighboring samples"):
        tube.shortest_path(target, 0.1, samples)


def test_more_pieces_than_samples_can_show_are_refused(monkeypatch):
    monkeypatch.setattr(tube, "MOST_SAMPLES", tube.SAMPLES)
    with pytest.raises(BudgetError, match=r"needs more than \d+ pieces, beyond 4001 samples of f"):
        tube.least_pieces(as_target(lambda x: np.sin(2000 * x), (0, 1)), 0.01)


def test_more_bits_than_a_float_has_are_refused():
    with pytest.raises(InputError, match=rf"error needs 99 bits; float64 holds {liang_srikant.MOST_BITS}"):
        liang_srikant._interpolated(as_target("exp(x)", (0, 1)), 99, 0.1, "Theorem 2")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the knots run into each other
def test_knots_that_do_not_settle_are_refused(monkeypatch):
    def never_even(target, sign, x):
        gap = np.ones(len(x) - 1)
        gap[::2] = 2.0
        return gap, np.linspace(-2, -1, len(x) - 1), np.linspace(1, 3, len(x) - 1)

    module = sys.modules["fathometer.approximation.shallow"]
    monkeypatch.setattr(module, "_chord_gaps", never_even)
    with pytest.raises(CapabilityError, match=r"knots did not converge for 5 pieces \(gaps differ by"):
        shallow("exp(x)", (0, 1), pieces=5)


@pytest.mark.parametrize(
    ("f", "message"),
    [
        ("__import__('os').getcwd()", r"does not parse at position 11"),
        ("log(x-0.5)", r"f is nan at 0; it must be finite on the whole domain"),
        ("1e300*x", r"float64 networks of this size of f \(1e\+300\) round by about"),
    ],
)
def test_hostile_and_endless_formulas_are_refused(f, message):
    with pytest.raises(InputError, match=message):
        approximate(f, (0, 1), error=1e-3)


def test_a_domain_of_one_unit_in_the_last_place_takes_no_unit():
    net = approximate("exp(x)", (1.0, np.nextafter(1.0, 2.0)), error=1e-3)
    assert net.units == 0
    assert net.certificate.level == "exact"
