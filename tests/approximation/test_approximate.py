import math

import numpy as np
import pytest
import torch

import fathometer as fm
from fathometer.approximation import approximate, certify, lower_bound, tradeoff
from fathometer.approximation.layering import layered
from fathometer.errors import InputError


@pytest.mark.parametrize("error", [1e-2, 2.0**-9, 1e-4, 1e-6])
def test_the_square_is_built_with_the_proved_optimum(error):
    net = approximate("x^2", (0, 1), error)
    assert net.units == math.ceil(0.5 * math.log2(1 / (8 * error)) - 1e-9)
    assert net.units == lower_bound("x^2", (0, 1), error).units
    assert net.certificate.level == "exact" and net.value <= error * (1 + 1e-6)
    assert net.value == pytest.approx(2.0 ** (-2 * net.units - 3), rel=1e-6)


def test_any_quadratic_on_any_interval_is_optimal():
    net = approximate("3*x^2 - x + 1", (-1, 3), 1e-3)
    assert net.units == math.ceil(0.5 * math.log2(3 * 16 / (8 * 1e-3)))
    assert net.value <= 1e-3


@pytest.mark.parametrize(("error", "ceiling"), [(1e-2, 3), (1e-3, 5), (1e-4, 11)])
def test_exp_stays_within_the_published_ceilings_with_a_proof(error, ceiling):
    net = approximate("exp(x)", (0, 1), error)
    assert net.units <= ceiling
    assert net.certificate.level == "exact" and net.certificate.upper <= error
    grid = np.linspace(0, 1, 20_001)
    assert np.abs(net(grid) - np.exp(grid)).max() <= net.certificate.upper
    assert net.units >= lower_bound("exp(x)", (0, 1), error)


@pytest.mark.parametrize(
    ("error", "units"), [(1e-2, 5), (1e-3, 8), (1e-4, 12), (1e-5, 15), (1e-6, 18), (1e-8, 25), (1e-10, 32)]
)
def test_the_product_takes_the_published_units_near_its_proved_bound(error, units):
    net = approximate("x*y", [(0, 1), (0, 1)], error)
    assert net.units == units <= fm.approximation.product_bound(error) + 3
    assert net.certificate.level == "structural" and net.value <= error * (1 + 1e-5)
    x = np.random.default_rng(0).random((20_000, 2))
    gap = np.abs(net(x) - x[:, 0] * x[:, 1]).max()
    assert 0.3 * net.value <= gap <= net.value


def test_the_product_works_on_any_box():
    net = approximate("x*y", [(-1, 3), (2, 5)], 1e-3)
    x = np.random.default_rng(0).random((20_000, 2)) * [4, 3] + [-1, 2]
    assert np.abs(net(x) - x[:, 0] * x[:, 1]).max() <= net.certificate.upper <= 1e-3


SEVERAL = [
    ("exp(-(x^2+y^2)/2)", 2, 1e-2, 8),
    ("*".join(f"x{i}" for i in range(10)), 10, 1e-2, 72),
    ("*".join(f"x{i}" for i in range(10)), 10, 1e-4, 134),
    ("*".join(f"x{i}" for i in range(10)), 10, 1e-6, 194),
    ("*".join(f"x{i}" for i in range(10)), 10, 1e-8, 252),
    ("*".join(f"x{i}" for i in range(10)), 10, 1e-10, 312),
]


@pytest.mark.parametrize(("f", "d", "error", "ceiling"), SEVERAL)
def test_functions_of_many_variables_stay_within_the_published_ceilings(f, d, error, ceiling):
    net = approximate(f, [(0, 1)] * d, error)
    assert net.units <= ceiling and net.certificate.level == "structural" and net.value <= error
    x = np.random.default_rng(1).random((3000, d))
    exact = np.prod(x, axis=1) if "*" in f[:3] else np.exp(-(x**2).sum(axis=1) / 2)
    assert np.abs(net(x) - exact).max() <= net.certificate.upper


@pytest.mark.parametrize(
    ("f", "exact", "domain"),
    [
        ("exp(0.3*x+0.7*y)", lambda x, y: np.exp(0.3 * x + 0.7 * y), [(0, 1), (-1, 1)]),
        ("max(x,y)*x^2/(1+y)", lambda x, y: np.maximum(x, y) * x**2 / (1 + y), [(0, 1), (0, 1)]),
        ("tanh(sin(x)*y)", lambda x, y: np.tanh(np.sin(x) * y), [(0, 1), (-1, 1)]),
        ("abs(x-2*y)+min(x,0.5)", lambda x, y: np.abs(x - 2 * y) + np.minimum(x, 0.5), [(-1, 1), (-1, 1)]),
        ("x^2*y-0.25*x*y^2+3", lambda x, y: x**2 * y - 0.25 * x * y**2 + 3, [(-1, 2), (0, 1)]),
        ("sqrt(1+x^2+y^2)", lambda x, y: np.sqrt(1 + x**2 + y**2), [(-1, 1), (-1, 1)]),
        ("-(x+y)^2/(3-x)", lambda x, y: -((x + y) ** 2) / (3 - x), [(-1, 1), (0, 1)]),
    ],
)
def test_every_structure_of_two_variables_keeps_its_certificate(f, exact, domain):
    net = approximate(f, domain, 0.03)
    low, high = np.array(domain).T
    x = np.random.default_rng(2).random((20_000, 2)) * (high - low) + low
    seen = np.abs(net(x) - exact(*x.T)).max()
    assert net.certificate.level == "structural"
    assert seen <= net.certificate.upper <= 0.03
    assert net.certificate.lower <= net.certificate.upper


def test_kinks_of_several_variables_are_exact():
    net = approximate("abs(x-2*y)+max(x,y)", [(-1, 1)] * 2, 1e-6)
    assert net.units == 2 and net.certificate.upper < 1e-12


def test_lines_and_constants_need_no_unit():
    assert approximate("3-2*x", (0, 1), 1e-6).units == 0
    assert approximate("2", (0, 1), 1e-6).units == 0


@pytest.mark.parametrize(
    ("f", "units"), [("abs(x-0.3)", 1), ("max(x, 1-x, 0.6)", 2), (([0, 0.5, 1], [1.0, 0.0, 2.0]), 1)]
)
def test_kinks_are_exact(f, units):
    net = approximate(f, (0, 1), 1e-6)
    assert net.units == units and net.certificate.upper < 1e-14


def test_jumps_take_one_step_each_and_are_exact_at_any_fraction():
    net = approximate("step(x-0.3)+x", (0, 1), 1e-6)
    assert net.network.steps == 1 and net.certificate.upper < 1e-14
    with pytest.raises(InputError, match=r"f has a jump of 1 at 0\.3; .* half of it, 0\.5"):
        approximate("step(x-0.3)+x", (0, 1), 0.1, activations=("relu",))


def test_smooth_pieces_are_joined_at_their_kink():
    net = approximate("max(exp(x), 2)", (0, 1), 1e-2)
    assert net.certificate.level == "exact" and net.value <= 1e-2


def test_a_callable_is_sampled_unless_its_curvature_is_known():
    sampled = approximate(np.exp, (0, 1), 1e-2)
    assert sampled.certificate.level == "sampled" and sampled.kind == "estimate"
    proved = approximate(np.exp, (0, 1), 1e-2, second_derivative=math.e)
    assert proved.certificate.level == "exact" and proved.certificate.upper <= 1e-2


def test_layered_wiring_computes_the_same_function_within_the_same_error():
    net = approximate("x^2", (0, 1), 1e-4, wiring="layered")
    assert net.wiring == "layered" and net.value <= 1e-4
    skip = approximate("x^2", (0, 1), 1e-4)
    assert net.depth == skip.depth and net.units <= 3 * skip.units
    grid = np.linspace(0, 1, 1001)
    np.testing.assert_allclose(net(grid), skip(grid), atol=1e-9)


def test_a_budget_of_layers_gives_the_best_single_layer():
    net = approximate("exp(x)", (0, 1), 1e-3, layers=1)
    assert (net.depth, net.units) == (1, 10)


def test_a_budget_of_units_gives_the_least_error():
    errors = [approximate("x^2", (0, 1), units=n).value for n in (1, 2, 5)]
    assert errors == pytest.approx([2.0 ** (-2 * n - 3) for n in (1, 2, 5)], rel=1e-6)


def test_a_budget_of_units_is_spent_on_a_chain():
    net = approximate("exp(x)", (0, 1), units=6)
    assert net.units <= 6 and net.method == "chain" and net.value <= 1e-3


@pytest.mark.parametrize(("units", "levels"), [(5, (2, 3)), (8, (4, 4))])
def test_a_budget_of_units_for_a_product_is_its_closed_form(units, levels):
    net = approximate("x*y", [(0, 1), (0, 1)], units=units)
    assert net.units <= units
    assert net.value == pytest.approx(sum(0.25**m for m in levels) / 8, rel=1e-6)


def test_chains_of_even_functions_are_folded():
    half, whole = (approximate("1/(1+x^2)", (a, 1), 1e-3) for a in (0, -1))
    assert whole.method == "chain"  # single layers are not folded: at 1e-2 that costs a unit
    assert whole.units <= half.units + 1
    assert whole.certificate.upper <= 1e-3


def test_a_budget_of_units_is_shared_by_the_pieces_between_kinks():
    net = approximate("max(x^2, 0.25)", (0, 1), units=8)
    assert net.units <= 8
    assert net.certificate.level == "exact"
    # one ReLU clips, the others square on a length of 1/2; the joints take their share of the error
    assert net.value <= 4 * 0.5**2 * 0.25**5 / 8
    assert approximate("abs(x-0.3)", (0, 1), units=3).value < 1e-15


@pytest.mark.parametrize(("f", "w"), [("sin(100*x)", 100), ("sin(1000*x)", 1000)])
def test_high_frequencies_are_folded_at_one_unit_an_octave(f, w):
    net = approximate(f, (0, 1), 1e-2)
    assert net.method == "fold" and net.units <= 7 + math.ceil(math.log2(w / math.pi))
    grid = np.linspace(0, 1, 300_001)
    assert net.certificate.level == "exact"
    assert np.abs(net(grid) - np.sin(w * grid)).max() <= net.certificate.upper <= 1e-2


def test_a_wave_on_a_smooth_function_is_folded_too():
    net = approximate("2*cos(20*pi*x)+x^2", (0, 1), 0.05)
    grid = np.linspace(0, 1, 100_001)
    assert net.method == "fold"
    assert np.abs(net(grid) - 2 * np.cos(20 * np.pi * grid) - grid**2).max() <= net.value <= 0.05


def test_weights_of_a_dtype_are_certified_as_stored(tmp_path):
    net = approximate("x^2/3", (0, 1), 1e-4, dtype=torch.float32)
    assert net.dtype == "float32" and net.certificate.level == "exact" and net.value <= 1e-4
    stored = net.table["weights"]
    np.testing.assert_array_equal(stored, stored.astype(np.float32))
    x = torch.linspace(0, 1, 1001)
    with torch.no_grad():
        y = net.module(x)
    assert y.dtype == torch.float32 and (y - x * x / 3).abs().max() <= 1.1e-4
    assert net.to_onnx(tmp_path / "net.onnx").exists()


def test_a_singular_end_takes_one_wide_layer():
    net = approximate("sqrt(x)", (0, 1), 1e-4)
    n = math.ceil((math.sqrt(1 + 1e4) - 1) / 2)  # least n with 1 / (4 n (n + 1)) <= 1e-4
    assert (net.method, net.units) == ("wide", n - 1)


def test_chebyshev_emulation_needs_no_search():
    net = approximate("exp(x)", (0, 1), 1e-3, method="chebyshev")
    assert net.method == "chebyshev" and net.certificate.upper <= 1e-3


@pytest.mark.untyped
def test_an_answer_is_saved_with_its_weights_and_runs_in_torch(tmp_path):
    net = approximate("x^2", (0, 1), 1e-3)
    loaded = fm.load(net.save(tmp_path / "net.safetensors"))
    grid = np.linspace(0, 1, 101)
    assert np.array_equal(loaded(grid), net(grid)) and loaded.units == net.units
    with torch.no_grad():
        np.testing.assert_allclose(net.module(torch.tensor(grid)), net(grid), atol=1e-15)
    assert certify(net, "x^2", (0, 1)).upper == pytest.approx(net.value, rel=1e-3)
    assert net.to_onnx(tmp_path / "net.onnx").exists()
    assert len(net.picture().panels) == 1 and "4 units" in str(net)


def test_the_tradeoff_has_all_four_counts():
    table = tradeoff("exp(x)", (0, 1), [1e-2, 1e-3])
    first, second = table.rows
    assert (first.shallow, first.paper) == (3, 110)
    assert second.shallow == 10
    for row in table:
        assert row.lower_bound <= row.deep <= row.shallow < row.paper
        assert row.certified <= row.error
    assert len(table.picture().panels[0].marks) == 4
    with pytest.raises(InputError, match="errors is empty"):
        tradeoff("exp(x)", (0, 1), [])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: approximate("x^2", (0, 1)), "pass either error or units="),
        (lambda: approximate("x^2", (0, 1), 0.0), "error is 0.0"),
        (lambda: approximate("x^2", (0, 1), math.nan), "error is nan"),
        (lambda: approximate("x^2", (0, 1), units=-1), "units is -1"),
        (lambda: approximate("x^2", (0, 1), 0.1, wiring="deep"), "wiring is 'deep'"),
        (lambda: approximate("x^2", (0, 1), 0.1, method="magic"), "method is 'magic'"),
        (lambda: approximate("x^2", (0, 1), 0.1, activations=("step",)), "activations is"),
        (lambda: approximate("x^2", (0, 1), 0.1, layers=0), "layers is 0"),
        (lambda: approximate("x^2", (0, 1), 1e-17), "float64 networks"),
        (lambda: approximate("x*y", [(0, 1e9), (0, 1e9)], 1e-1), "float64 networks"),
        (lambda: approximate("x^2", (0, 1), 1e-8, dtype=torch.float32), "float32 networks"),
        (lambda: approximate("x^2", (0, 1), 0.1, dtype="int8"), "dtype is int8"),
        (lambda: approximate("x*y", [(0, 1)] * 2, 0.1, dtype=torch.float32), "certified in float64"),
        (lambda: approximate("x*y+x", [(0, 1)] * 2, 0.1, wiring="layered"), "this one has 2: pass wiring"),
        (
            lambda: approximate("abs(x-y)+abs(x+y-1)", [(0, 1)] * 2, units=1),
            "units=1 are too few; .* takes 2",
        ),
        (
            lambda: approximate(lambda p: p[:, 0] * p[:, 1], [(0, 1)] * 2, 0.1),
            "callable of several variables",
        ),
        (lambda: approximate("sqrt(x*y)", [(0, 1)] * 2, 0.1), "has no bound near 0"),
        (lambda: approximate("sign(x*y)", [(0, 1)] * 2, 0.1), "f has 'sign' of several variables"),
        (lambda: approximate("(x*y+10^9)*(y+10^-9)-10^9*y", [(0, 1)] * 2, 1e-5), "float64 rounds by"),
        (lambda: approximate("x^2", (0, 1), 1e-4, layers=2), "cannot be met within units=None, layers=2"),
        (lambda: approximate("1/(x-0.5)", (0, 1), 0.1), "f is -?inf at 0.5"),
    ],
)
def test_requests_that_cannot_be_met_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize("error", [0.3, 1e-2])
def test_steps_and_several_inputs_are_layered_too(error):
    x = np.random.default_rng(0).random((2000, 3))
    square = fm.approximation.liang_srikant.square(error)
    strict = layered(square, (0, 1))
    assert (strict.wiring, strict.steps, strict.depth) == ("layered", square.steps, square.depth)
    assert certify(strict, "x^2", (0, 1), 1e-4).upper <= error
    product = fm.approximation.liang_srikant.product([[0.5, -0.5, 0], [0.2, 0.3, 0.5]], error)
    strict = layered(product, [(0, 1)] * 3)
    assert strict.wiring == "layered"
    np.testing.assert_allclose(strict(x), product(x), atol=1e-11)
