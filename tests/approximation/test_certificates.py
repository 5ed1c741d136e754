import math
from fractions import Fraction
from itertools import pairwise

import flint
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fathometer as fm
from fathometer.approximation import SkipNetwork, certify, liang_srikant
from fathometer.approximation.boxes import BoxSearch
from fathometer.approximation.extraction import exact_pieces, exact_value, fast_pieces
from fathometer.errors import BudgetError, CapabilityError, InputError


def tents(levels):
    """x - sum t_s / 4^s - 2^(-2m-3): x^2 with error exactly 2^(-2m-3), one ReLU a level."""
    units, tent, output, constant = [], {0: 1.0}, {0: 1.0}, -(2.0 ** (-2 * levels - 3))
    for s in range(1, levels + 1):
        units.append((dict(tent), -0.5, "relu"))
        tent = {**{i: 2 * w for i, w in tent.items()}, s: -4.0}
        for i, w in tent.items():
            output[i] = output.get(i, 0.0) - w / 4.0**s
    return SkipNetwork(1, units, (output, constant))


def random_relu(seed, units=8, integers=False):
    rng = np.random.default_rng(seed)
    draw = (lambda n: rng.integers(-4, 5, n) / 2) if integers else (lambda n: rng.normal(size=n))
    rows = [
        ({i: float(w) for i, w in enumerate(draw(1 + j))}, float(draw(1)[0]), "relu") for j in range(units)
    ]
    return SkipNetwork(1, rows, ({i: float(w) for i, w in enumerate(draw(units + 1))}, float(draw(1)[0])))


def breaks_by_brute_force(network):
    """All places in (-1, 1) where a unit changes side, from Fractions and a scan of the units."""
    points = [Fraction(-1), Fraction(1)]
    rows = [*network.definition()]
    for j in range(len(rows)):
        fresh = []
        for a, b in pairwise(points):
            za, zb = (preactivation(rows, j, t) for t in (a, b))
            if za * zb < 0:
                fresh.append(a + (b - a) * za / (za - zb))
        points = sorted({*points, *fresh})
    return points


def preactivation(rows, j, t):
    values = [t]
    for weights, bias, _ in rows[: j + 1]:
        z = Fraction(bias) + sum(Fraction(w) * values[i] for i, w in weights.items())
        values.append(max(z, Fraction(0)))
    return z


@given(seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_exact_pieces_are_those_of_brute_force(seed):
    network = random_relu(seed, units=5, integers=True)
    wanted = breaks_by_brute_force(network)
    found = list(exact_pieces(network, (-1.0, 1.0)))
    assert [Fraction(int(p[0].p), int(p[0].q)) for p in found] == wanted[:-1]
    for a, b, at_a, at_b in found:
        assert exact_value(network, a) == at_a and exact_value(network, b) == at_b


@given(seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_fast_pieces_stay_within_their_deviation_of_the_exact_network(seed):
    network = random_relu(seed, units=9)
    lines = fast_pieces(network, (-1.0, 1.0))
    assert lines.left[0, 0] == -1.0 and lines.right[-1, 0] == 1.0
    assert np.array_equal(lines.left[1:], lines.right[:-1])
    assert len(lines) == len(list(exact_pieces(network, (-1.0, 1.0))))
    pair = lambda v: sum(flint.fmpq(*float(x).as_integer_ratio()) for x in v)  # noqa: E731
    for i in range(len(lines)):
        a, b = pair(lines.left[i]), pair(lines.right[i])
        at_a, at_b = pair(lines.at_left[i]), pair(lines.at_right[i])
        for share in (flint.fmpq(0), flint.fmpq(1, 3), flint.fmpq(1)):
            gap = exact_value(network, a + (b - a) * share) - (at_a + (at_b - at_a) * share)
            assert abs(float(gap)) <= lines.deviation[i] < 1e-20


@pytest.mark.parametrize("levels", [1, 2, 5, 9])
def test_the_error_of_squaring_by_tents_is_known_exactly(levels):
    certificate = certify(tents(levels), "x^2", (0, 1))
    exact = 2.0 ** (-2 * levels - 3)
    assert certificate.lower <= exact <= certificate.upper <= exact * (1 + 1e-7)
    assert (certificate.level, certificate.pieces, certificate.kind) == ("exact", 2**levels, "bound")


def test_steps_are_certified_with_one_sided_limits():
    network = liang_srikant.square(0.1)
    exact = 2.0 ** (1 - network.bits) - 4.0**-network.bits  # approached at 1 and not attained
    certificate = certify(network, "x^2", (0, 1))
    assert certificate.lower <= exact <= certificate.upper <= exact * (1 + 1e-7)
    assert certificate.worst_at[0] == 1.0


def test_a_value_at_a_single_point_counts():
    # step(x - 1/2) + step(1/2 - x) is 2 at 1/2 and 1 elsewhere
    network = SkipNetwork(1, [({0: 1.0}, -0.5, "step"), ({0: -1.0}, 0.5, "step")], ({1: 1.0, 2: 1.0}, 0.0))
    certificate = certify(network, "1+0*x", (0, 1))
    assert certificate.lower == pytest.approx(1.0) and certificate.upper == pytest.approx(1.0)


def test_a_jump_of_f_at_the_same_rational_place_costs_nothing():
    # 0.3 is no binary fraction: the unit step(10 x - 3) switches there exactly, step(x - 0.3) does not
    right = SkipNetwork(1, [({0: 10.0}, -3.0, "step")], ({1: 1.0}, 0.0))
    wrong = SkipNetwork(1, [({0: 1.0}, -0.3, "step")], ({1: 1.0}, 0.0))
    assert certify(right, "step(x-0.3)", (0, 1)).upper < 1e-30
    assert certify(wrong, "step(x-0.3)", (0, 1)).lower > 0.99


@pytest.mark.parametrize("where", [0.1234567, 0.7654321])
def test_a_spike_too_thin_for_samples_is_seen(where):
    width = 2.0**-21
    corners = (where - width / 2, where, where + width / 2)
    units = [({0: 1.0}, -c, "relu") for c in corners]
    network = SkipNetwork(1, units, ({1: 2 / width, 2: -4 / width, 3: 2 / width}, 0.0))
    certificate = certify(network, "0*x", (0, 1))
    assert certificate.lower == pytest.approx(1.0, rel=1e-6)
    assert certificate.upper >= certificate.lower
    assert np.abs(network(np.linspace(0, 1, 1001))).max() == 0.0  # samples miss it


@pytest.mark.parametrize("f", ["sin(3*x)", "exp(x)", "1/(1+25*x^2)", "tanh(4*x)", "abs(x-0.3)", "sqrt(x+1)"])
@given(seed=st.integers(0, 10_000))
@settings(max_examples=8, deadline=None, derandomize=True)
def test_bounds_hold_against_dense_samples_and_are_tight(f, seed):
    network = random_relu(seed, units=6)
    certificate = certify(network, f, (-1, 1))
    grid = np.linspace(-1, 1, 20_001)
    exact = fm.approximation.target.as_target(f, (-1, 1)).values(grid)
    seen = np.abs(network(grid) - exact).max()
    assert certificate.upper >= seen * (1 - 1e-12)
    assert certificate.lower <= seen * (1 + 1e-3) + 1e-6
    assert certificate.upper <= certificate.lower * (1 + 1e-6)


def test_many_pieces_are_screened_without_losing_rigor():
    levels = 12
    bowed = certify(tents(levels), "x^2 + sin(3*x)/2^20", (0, 1))
    grid = np.linspace(0, 1, 400_001)
    seen = np.abs(tents(levels)(grid) - grid**2 - np.sin(3 * grid) / 2**20).max()
    assert bowed.pieces == 2**levels
    assert seen * (1 - 1e-9) <= bowed.upper <= bowed.lower * (1 + 1e-6)
    assert bowed.lower <= seen * (1 + 1e-4)


def test_a_callable_needs_a_bound_on_its_second_derivative():
    network = tents(4)
    proved = certify(network, np.exp, (0, 1), second_derivative=math.e)
    reference = certify(network, "exp(x)", (0, 1))
    assert proved.level == "exact" and "f''" in proved.assumptions[0]
    assert proved.lower <= reference.upper and reference.lower <= proved.upper
    assert proved.upper == pytest.approx(reference.upper, rel=1e-6)
    sampled = certify(network, np.exp, (0, 1))
    assert (sampled.level, sampled.upper, sampled.kind) == ("sampled", math.inf, "estimate")
    assert sampled.lower <= reference.upper


def test_torch_modules_are_read_exactly_in_any_precision():
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Linear(1, 6), torch.nn.ReLU(), torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU()),
        torch.nn.Dropout(), torch.nn.Linear(5, 1),
    )  # fmt: skip
    certificate = certify(module, "x", (-1, 1))
    grid = torch.linspace(-1, 1, 10_001, dtype=torch.float64)
    seen = (module.double().eval()(grid[:, None])[:, 0] - grid).abs().max().item()
    assert seen * (1 - 1e-9) <= certificate.upper <= seen * (1 + 1e-3)
    exported = liang_srikant.square(0.3)
    assert certify(exported.module, "x^2", (0, 1)).upper == certify(exported, "x^2", (0, 1)).upper
    layered = SkipNetwork(1, [({0: 1.0}, 0.0, "relu"), ({1: -1.0}, 0.5, "relu")], ({2: 1.0}, 0.0))
    assert certify(layered.module, "x", (0, 1)).upper == certify(layered, "x", (0, 1)).upper


def test_a_certificate_survives_the_disk_and_has_a_picture(tmp_path):
    certificate = certify(tents(3), "x^2", (0, 1))
    loaded = fm.load(certificate.save(tmp_path / "c.safetensors"))
    assert (loaded.upper, loaded.lower, loaded.level) == (certificate.upper, certificate.lower, "exact")
    x, gap = certificate.picture().panels[0].marks[0].x, certificate.picture().panels[0].marks[0].y
    np.testing.assert_allclose(gap, tents(3)(x) - x**2, atol=1e-15)
    assert "exact" in str(certificate)


@pytest.mark.parametrize("f", ["sin(3*x)*y", "exp(x*y)", "abs(x-y)", "x^2-y/(2+x)"])
@pytest.mark.parametrize("seed", [0, 1])
def test_boxes_enclose_the_error_of_random_networks_of_two_inputs(f, seed):
    rng = np.random.default_rng(seed)
    units = [
        ({i: float(w) for i, w in enumerate(rng.normal(size=2 + j))}, float(rng.normal()), "relu")
        for j in range(4)
    ]
    network = SkipNetwork(2, units, ({i: float(w) for i, w in enumerate(rng.normal(size=6))}, 0.5))
    domain = [(-1, 1), (0, 1)]
    certificate = certify(network, f, domain, 0.02)
    x = rng.random((200_000, 2)) * [2, 1] + [-1, 0]
    seen = np.abs(network(x) - fm.approximation.target.as_target(f, domain).values(x)).max()
    assert certificate.level == "exact"
    assert seen <= certificate.upper and certificate.lower <= seen * (1 + 1e-2)
    assert certificate.upper <= 1.05 * certificate.lower


def test_boxes_reach_the_known_error_of_a_product():
    net = fm.approximation.approximate("x*y", [(0, 1), (0, 1)], 1e-2)
    certificate = certify(net, "x*y", [(0, 1), (0, 1)], 0.03)
    exact = (4.0**-2 + 4.0**-3) / 8  # of two squarers with two and three levels
    assert net.units == 5 and certificate.lower <= exact <= certificate.upper <= 1.03 * exact
    assert certificate.lower >= 0.999 * exact


def test_boxes_are_sound_but_loose_where_steps_jump():
    domain, f = [(0, 1), (0, 1)], "(x+y)/2*(x/4+3*y/4)"
    network = liang_srikant.product([[0.5, 0.5], [0.25, 0.75]], 0.5)
    search = BoxSearch(network, fm.approximation.target.as_target(f, domain))
    upper = search.run(0.05, most=500)
    x = np.concatenate([np.random.default_rng(0).random((50_000, 2)), [[1.0, 1.0]]])
    seen = np.abs(network(x) - (x @ [0.5, 0.5]) * (x @ [0.25, 0.75])).max()
    assert search.lower <= seen <= upper


def test_a_callable_of_several_inputs_is_sampled_and_says_so():
    network = SkipNetwork(2, [({0: 1.0, 1: 1.0}, -1.0, "relu")], ({2: 1.0}, 0.0))
    certificate = certify(network, lambda p: np.maximum(p.sum(axis=1) - 1, 0), [(0, 1), (0, 1)])
    assert certificate.level == "sampled" and certificate.lower < 1e-12 and certificate.upper == math.inf
    with pytest.raises(InputError, match="the certificate has no error curve"):
        certificate.picture()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: certify(tents(1), "x", (0, 1), 0.0), "tolerance is 0.0"),
        (lambda: certify(tents(1), "x*y", [(0, 1), (0, 1)]), "domain has 2 intervals, but the network has 1"),
        (lambda: certify("net", "x", (0, 1)), "network is a str"),
        (lambda: certify(tents(1), "1/x", (-1, 1)), "f is -?inf at 0"),
        (lambda: certify(torch.nn.Sequential(torch.nn.Linear(1, 2), torch.nn.Tanh()), "x", (0, 1)), "Tanh"),
        (lambda: certify(torch.nn.Linear(1, 2), "x", (0, 1)), "must end in a linear layer with one output"),
        (lambda: certify(torch.nn.ReLU(), "x", (0, 1)), "does not follow a linear layer"),
        (
            lambda: certify(torch.nn.Sequential(torch.nn.Linear(1, 2), torch.nn.Linear(2, 1)), "x", (0, 1)),
            "follows another linear layer",
        ),
        (
            lambda: certify(
                torch.nn.Sequential(torch.nn.Linear(1, 2), torch.nn.ReLU(), torch.nn.Linear(3, 1)),
                "x",
                (0, 1),
            ),
            "does not fit the 2 units",
        ),
        (lambda: fast_pieces(liang_srikant.bits(1), (0, 1)), "the network has steps"),
        (lambda: list(exact_pieces(SkipNetwork(2, [], ({0: 1.0}, 0.0)), (0, 1))), "the network has 2 inputs"),
        (
            lambda: fm.approximation.Certificate(
                lower=2.0,
                upper=1.0,
                level="exact",
                pieces=1,
                worst_at=(0.0,),
                domain=((0.0, 1.0),),
                method="",
            ),
            "lower is 2.0 and upper 1.0",
        ),
    ],
)
def test_what_cannot_be_certified_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_budgets_and_missing_parts_are_named(monkeypatch):
    with pytest.raises(BudgetError, match="more than 4 linear pieces"):
        list(exact_pieces(tents(3), (0, 1), limit=4))
    with pytest.raises(BudgetError, match="more than 4 linear pieces"):
        fast_pieces(tents(13), (0, 1), limit=4)
    with pytest.raises(CapabilityError, match="against a network with steps"):
        certify(liang_srikant.bits(1), np.exp, (0, 1), second_derivative=3.0)
    monkeypatch.setitem(__import__("sys").modules, "flint", None)
    with pytest.raises(CapabilityError, match=r'pip install "fathometer\[certify\]"'):
        certify(tents(1), "x^2", (0, 1))
