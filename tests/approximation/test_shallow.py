import math

import numpy as np
import pytest

import fathometer as fm
from fathometer.approximation import SkipNetwork, certify, lower_bound, product_bound, shallow
from fathometer.errors import InputError

CLOSED_FORMS = {
    "x^2": ((0, 1), lambda n: 1 / (8 * n**2)),
    "-x^2": ((-1, 3), lambda n: 16 / (8 * n**2)),
    "sqrt(x)": ((0, 1), lambda n: 1 / (4 * n * (n + 1))),
    "1/x": ((1, 3), lambda n: (1 - 3**-0.5) ** 2 / (2 * n**2)),
}


@pytest.mark.parametrize("f", CLOSED_FORMS)
@pytest.mark.parametrize("n", [1, 2, 7, 100])
def test_convex_fits_have_the_closed_form_error(f, n):
    domain, formula = CLOSED_FORMS[f]
    fit = shallow(f, domain, pieces=n)
    assert fit.error == pytest.approx(formula(n), rel=1e-9)
    assert (len(fit.knots), fit.pieces, fit.kind) == (n + 1, n, "exact")
    assert (fit.knots[0], fit.knots[-1]) == domain
    grid = np.linspace(*domain, 5001)
    exact = fm.approximation.target.as_target(f, domain).values(grid)
    assert np.abs(fit(grid) - exact).max() <= fit.error * (1 + 1e-9)


@pytest.mark.parametrize("f", ["exp(x)", np.exp])
def test_the_error_tends_to_the_integral_of_the_root_of_the_curvature(f):
    # published ratios n^2 E 16 / I^2 with I = 2 (sqrt e - 1)
    integral = 2 * (math.sqrt(math.e) - 1)
    for n, ratio in ((1, 1.0069), (2, 1.0018), (4, 1.0004), (8, 1.0001)):
        assert shallow(f, (0, 1), pieces=n).error * n**2 * 16 / integral**2 == pytest.approx(ratio, abs=5e-5)


@pytest.mark.parametrize(("error", "pieces"), [(1e-2, 4), (1e-3, 11), (1e-4, 33), (1e-5, 103), (1e-6, 325)])
def test_exp_needs_the_published_numbers_of_pieces(error, pieces):
    fit = shallow("exp(x)", (0, 1), error=error)
    assert fit.pieces == pieces and fit.error <= error
    assert shallow("exp(x)", (0, 1), pieces=pieces - 1).error > error


@pytest.mark.parametrize(
    ("f", "domain", "error", "pieces"),
    [("sin(20*x)", (0, 1), 1e-3, 121), ("x^3", (-1, 1), 1e-3, 27), ("abs(x-0.3)", (0, 1), 1e-3, 2)],
)
def test_fits_through_inflections_and_kinks_have_the_fewest_links(f, domain, error, pieces):
    fit = shallow(f, domain, error=error)
    assert fit.pieces <= pieces and fit.error <= error * (1 + 1e-9)
    assert (np.diff(fit.knots) > 0).all()
    grid = np.linspace(*domain, 100_001)
    exact = fm.approximation.target.as_target(f, domain).values(grid)
    assert np.abs(fit(grid) - exact).max() <= error * (1 + 1e-6)


@pytest.mark.parametrize("f", ["x^2", "abs(x-0.3)+abs(x-0.6)"])
@pytest.mark.parametrize("wiring", ["skip", "layered"])
def test_one_hidden_layer_draws_the_fit(f, wiring):
    fit = shallow(f, (0, 1), pieces=3)
    network = fit.network(wiring)
    assert network.wiring == wiring and network.depth == 1
    assert network.units == (2 if wiring == "skip" else 3)
    grid = np.linspace(0, 1, 301)
    np.testing.assert_allclose(network(grid), fit(grid), atol=1e-12)
    assert certify(network, f, (0, 1)).upper <= fit.error * (1 + 1e-6) + 1e-12


def test_a_flat_piece_saves_the_carrier():
    fit = shallow(([0.0, 0.25, 0.75, 1.0], [1.0, 0.0, 0.0, 2.0]), (0, 1), error=1e-9)
    network = fm.approximation.ShallowFit(
        knots=np.array([0, 0.25, 0.75, 1.0]),
        values=np.array([1.0, 0, 0, 2.0]),
        error=0.0,
        optimal=True,
        gap=0.0,
    ).network("layered")
    assert fit.pieces == 3 and network.units == 2 and network.wiring == "layered"
    np.testing.assert_allclose(network(np.array([0.0, 0.5, 1.0])), [1.0, 0.0, 2.0])


def test_theorem_11_as_printed_is_refuted_by_two_units():
    # (x - 1/2)^2 has mu = 2; two ReLUs reach 1/72, where the print demands three
    network = SkipNetwork(
        1, [({0: 1.0}, -2 / 3, "relu"), ({0: -1.0}, 1 / 3, "relu")], ({1: 2 / 3, 2: 2 / 3}, 1 / 72)
    )
    certificate = certify(network, "(x-1/2)^2", (0, 1))
    assert certificate.upper == pytest.approx(1 / 72, rel=1e-6)
    assert lower_bound(2.0, error=1 / 72, layers=1, printed=True) == pytest.approx(3.0)
    assert network.units < 3
    corrected = lower_bound(2.0, error=1 / 72, layers=1)
    assert corrected == pytest.approx(2.0) and corrected <= network.units


def test_theorem_11_for_any_depth():
    mu, error = 2.0, 1e-6
    A = mu / (16 * error)
    assert lower_bound(mu, error=error) == pytest.approx(0.5 * math.log2(A))
    assert lower_bound(mu, error=error, printed=True) == pytest.approx(math.log2(A))
    assert lower_bound(mu, error=error, layers=3) == pytest.approx(3 * (A ** (1 / 6) - 1))
    assert lower_bound(mu, error=error, dimension=4) == pytest.approx(0.5 * math.log2(4 * A))
    # the printed form over all depths is (e/2) ln A, below the printed log2 A (erratum 2)
    assert min(lower_bound(mu, error=error, layers=L, printed=True) for L in range(1, 60)) < math.log2(A)


@pytest.mark.parametrize(("error", "units"), [(1e-2, 2), (1e-4, 6), (1e-6, 9)])
def test_counting_gives_the_exact_optimum_for_the_square(error, units):
    bound = lower_bound("x^2", (0, 1), error)
    assert bound.units == units == math.ceil(0.5 * math.log2(1 / (8 * error)))
    assert bound.kind == "bound" and isinstance(bound, float)
    assert bound == pytest.approx(math.log2(math.ceil(math.sqrt(1 / (8 * error)))))


def test_counting_with_layers_asks_for_the_best_split():
    bound = lower_bound("x^2", (0, 1), 1 / (8 * 12**2), layers=2)  # 12 pieces
    assert bound.pieces == 12 and bound == pytest.approx(2 * (math.sqrt(12) - 1))
    assert bound.units == 5  # 3 * 4 = (2 + 1) (3 + 1)
    assert lower_bound("x^2", (0, 1), 1 / (8 * 12**2), layers=1).units == 11


def test_a_cube_is_bounded_along_its_diagonal():
    # along the diagonal x^2 + y^2 bends twice as fast as along an axis
    along = lower_bound("x^2+y^2", [(0, 1), (0, 1)], 1e-4)
    assert along.pieces == math.ceil(math.sqrt(2 / (8 * 1e-4)))


def test_bounds_are_saved_and_printed(tmp_path):
    bound = lower_bound("exp(x)", (0, 1), 1e-3)
    loaded = fm.load(bound.save(tmp_path / "b.safetensors"))
    assert loaded == bound and loaded.pieces == 11
    assert "11 linear pieces" in str(bound)
    fit = shallow("x^2", (0, 1), pieces=2)
    assert fm.load(fit.save(tmp_path / "s.safetensors")).pieces == 2
    assert len(fit.picture().panels[0].marks[0].x) == 3 and "2 linear pieces" in str(fit)


@pytest.mark.parametrize("error", [1e-2, 1e-6])
def test_the_product_needs_half_the_bits_of_its_area(error):
    assert product_bound(error) == pytest.approx(math.log2(1 / (16 * error)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: shallow("x^2", (0, 1)), "pass either pieces= or error="),
        (lambda: shallow("x^2", (0, 1), pieces=0), "pieces is 0"),
        (lambda: shallow("x^2", (0, 1), error=-1.0), "error is -1.0"),
        (lambda: shallow("x*y", [(0, 1), (0, 1)], pieces=2), "for one variable"),
        (lambda: shallow("exp(x)", (0, 1), error=1e-16), "which needs about"),
        (lambda: shallow("step(x-0.5)", (0, 1), error=1e-3), "it jumps"),
        (lambda: shallow("x^2", (0, 1), pieces=2).network("deep"), "wiring is 'deep'"),
        (lambda: lower_bound(2.0), "error is None"),
        (lambda: lower_bound(-2.0, error=0.1), "mu is -2.0"),
        (lambda: lower_bound(2.0, (0, 1), 0.1), "domain goes with a function"),
        (lambda: lower_bound("x", error=0.1), "domain is missing"),
        (lambda: lower_bound("x", (0, 1), 0.1, printed=True), "printed goes with Theorem 11"),
        (lambda: lower_bound(2.0, error=0.1, layers=0), "layers is 0"),
        (lambda: lower_bound(2.0, error=0.1, dimension=0), "dimension is 0"),
        (lambda: product_bound(0.0), "error is 0.0"),
    ],
)
def test_what_has_no_answer_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
