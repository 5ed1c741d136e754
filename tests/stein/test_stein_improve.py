"""Thinning, reweighting, the classical program and tests of fit, against brute force."""

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.optimize import linprog, minimize

import fathometer as fm
from fathometer.stein import (
    InverseMultiquadric,
    baringhaus_henze,
    classical_discrepancy,
    goodness_of_fit,
    graph_discrepancy,
    ksd,
    reweight,
    thin,
)
from fathometer.stein.compress import integrated_scores
from fathometer.stein.kernels import read_kernel
from fathometer.stein.sample import read_sample
from fathometer.stein.tiles import SteinGram


def draw(n, d, seed=0):
    x = np.random.default_rng(seed).normal(size=(n, d))
    return x, -x


def matrix(x, b, kernel=None):
    sample = read_sample(x, b)
    return SteinGram(sample, read_kernel(kernel, sample)).dense()


# thinning


def greedy(K, size, extra=0.0, reward=0.0):
    """The definition: the next point lowers the discrepancy of the picked ones most."""
    picked = []
    for t in range(size):
        picked.append(int(np.argmin(np.diag(K) / 2 + extra - (t + 1) * reward + K[:, picked].sum(1))))
    return picked


@pytest.mark.parametrize("dimension", [1, 3, 14])
def test_thinning_is_the_greedy_choice(dimension):
    x, b = draw(60, dimension)
    scale = np.abs(x - x.mean(0)).mean(0)
    assert thin(x, b, 25).tolist() == greedy(matrix(x / scale, b * scale), 25)
    assert thin(x, b, 25, standardize=False).tolist() == greedy(matrix(x, b), 25)
    picked = thin(torch.tensor(x), torch.tensor(b), 5)
    assert picked.dtype == torch.int64
    assert picked.tolist() == thin(x, b, 5).tolist()


def test_thinned_sample_beats_the_first_points_of_the_chain():
    x, b = draw(400, 2)
    kept = thin(x, b, 40, standardize=False)
    assert ksd(x[kept], b[kept]).value < 0.5 * ksd(x[:40], b[:40]).value


def test_regularized_thinning_is_its_formula():
    x, b = draw(50, 2)
    value, second = -0.5 * (x**2).sum(1), np.random.default_rng(1).normal(size=x.shape)
    extra, reward = 0.5 * np.clip(second, 0, None).sum(1), 0.5 / 20 * value
    expected = greedy(matrix(x, b), 20, extra, reward)
    options = {"log_density": value, "curvature": second}
    assert thin(x, b, 20, None, False, True, **options).tolist() == expected
    scale = np.abs(x - x.mean(0)).mean(0)
    extra = 0.5 * np.clip(second * scale**2, 0, None).sum(1)
    expected = greedy(matrix(x / scale, b * scale), 20, extra, reward)
    assert thin(x, b, 20, regularize=True, **options).tolist() == expected


def test_log_densities_are_integrated_from_scores():
    x, b = draw(300, 2)
    found = integrated_scores(read_sample(x, b))
    expected = -0.5 * (x**2).sum(1)  # trapezoids are exact for a quadratic
    np.testing.assert_allclose(found - found[0], expected - expected[0], atol=1e-10)
    assert integrated_scores(read_sample(x[:1], b[:1])).tolist() == [0.0]
    assert len(thin(x, b, 10, regularize=True)) == 10


def test_regularized_thinning_leaves_the_valley_between_modes_alone():
    # the score vanishes in the middle of a wide mixture, where there is hardly any mass
    x = np.concatenate([np.random.default_rng(0).normal(size=200) + m for m in (-4, 4)] + [[0.0]])[:, None]
    b = -x + 4 * np.tanh(4 * x)
    value = np.logaddexp(-0.5 * (x - 4) ** 2, -0.5 * (x + 4) ** 2)[:, 0]
    second = -1 + 16 / np.cosh(4 * x) ** 2
    assert 400 in thin(x, b, 20, standardize=False)
    kept = thin(x, b, 20, standardize=False, regularize=True, log_density=value, curvature=second)
    assert 400 not in kept


# reweighting


@pytest.mark.parametrize(
    ("n", "dimension", "kernel"), [(12, 2, None), (25, 1, InverseMultiquadric()), (15, 14, None)]
)
def test_simplex_weights_minimize_the_discrepancy(n, dimension, kernel):
    x, b = draw(n, dimension)
    if kernel is None:
        from scipy.spatial.distance import pdist

        kernel = InverseMultiquadric(c=np.median(pdist(x)) / np.sqrt(2))
        np.testing.assert_allclose(reweight(x, b), reweight(x, b, kernel), rtol=1e-6, atol=1e-9)
    w, K = reweight(x, b, kernel), matrix(x, b, kernel)
    assert w.min() >= 0
    assert w.sum() == pytest.approx(1.0)
    peer = minimize(
        lambda v: v @ K @ v,
        np.full(n, 1 / n),
        jac=lambda v: 2 * K @ v,
        bounds=[(0, None)] * n,
        constraints={"type": "eq", "fun": lambda v: v.sum() - 1, "jac": lambda v: np.ones(n)},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    assert w @ K @ w <= peer.fun * (1 + 1e-7) + 1e-12
    gradient, value = K @ w, w @ K @ w
    assert (gradient >= value - 1e-8 * np.abs(gradient).max()).all()


def test_signed_weights_are_the_linear_solution():
    x, b = draw(20, 3)
    K = matrix(x, b, InverseMultiquadric())
    v = np.linalg.solve(K, np.ones(20))
    np.testing.assert_allclose(reweight(x, b, InverseMultiquadric(), False), v / v.sum(), rtol=1e-6)


@pytest.mark.parametrize("simplex", [True, False])
def test_equal_points_share_their_weight(simplex):
    x, b = draw(10, 2)
    repeat = [0, 0, 0, 1, 2, 3, 4, 4, 5, 6, 7, 8, 9]
    kernel = InverseMultiquadric()
    whole, single = reweight(x[repeat], b[repeat], kernel, simplex), reweight(x, b, kernel, simplex)
    np.testing.assert_allclose(np.bincount(repeat, weights=whole), single, rtol=1e-6, atol=1e-9)
    assert whole[0] == whole[1] == whole[2]
    assert isinstance(reweight(torch.tensor(x), torch.tensor(b)), torch.Tensor)


def test_weights_of_near_duplicates_and_of_one_point_exist():
    x, b = draw(30, 1)
    x, b = np.concatenate([x, x + 1e-9]), np.concatenate([b, b])
    w = reweight(x, b, InverseMultiquadric())
    assert w.min() >= 0
    assert ksd(x, b, weights=w).value <= ksd(x, b).value
    np.testing.assert_array_equal(reweight([[3.0, 1.0]], [[0.5, 0.5]]), [1.0])
    np.testing.assert_array_equal(reweight([[3.0]], [[0.0]], InverseMultiquadric()), [1.0])


def test_reweighting_brings_the_mean_closer():
    errors = []
    for seed in range(10):
        x, b = draw(100, 2, seed)
        errors.append([np.square(x.mean(0)).mean(), np.square(reweight(x, b) @ x).mean()])
    plain, weighted = np.mean(errors, axis=0)
    assert weighted < 0.1 * plain


# the classical program


def classical_by_grid(x, b, q, c, low=None, high=None, nodes=3000):
    """Functions whose derivative is linear between the nodes of a fine grid that holds the points."""
    c1, c2, c3 = c
    margin = 2 * c1 / c2 + 2 * c2 / c3
    ends = (x.min() - margin if low is None else low, x.max() + margin if high is None else high)
    grid = np.unique(np.concatenate([np.linspace(*ends, nodes), x]))
    m, h = len(grid), np.diff(grid)
    cost = np.zeros(2 * m)
    at = np.searchsorted(grid, x)
    cost[at] -= q * b
    cost[m + at] -= q
    left, step = sparse.eye(m - 1, m, format="csr"), sparse.eye(m - 1, m, 1, format="csr")
    H = sparse.diags(h / 2)
    dynamics = sparse.hstack([step - left, -H @ (left + step)])
    slope = sparse.hstack([sparse.csr_matrix((m - 1, m)), step - left])
    bounds = [(-c1, c1)] * m + [(-c2, c2)] * m
    for pin, face in ((0, low), (m - 1, high)):
        if face is not None:
            bounds[pin] = (0, 0)
    answer = linprog(
        cost,
        sparse.vstack([slope, -slope]),
        np.tile(c3 * h, 2),
        dynamics,
        np.zeros(m - 1),
        bounds,
        method="highs-ipm",
    )
    return -answer.fun


@pytest.mark.parametrize("constants", [(1.0, 4.0, 2.0), (1.0, 1.0, 1.0), (0.4, 0.6, 3.0)])
def test_classical_program_agrees_with_functions_on_a_fine_grid(constants):
    rng = np.random.default_rng(0)
    x, q = rng.normal(size=8), rng.dirichlet(np.ones(8))
    b = -x
    expected = classical_by_grid(x, b, q, constants)
    result = classical_discrepancy(x, b, constants=constants, weights=q)
    assert result.value == pytest.approx(expected, rel=2e-3)
    assert result.error < 1e-7
    assert q @ result.witness == pytest.approx(result.value, rel=1e-7)


def test_classical_program_agrees_on_an_interval():
    x = np.random.default_rng(0).random(7)
    q = np.full(7, 1 / 7)
    expected = classical_by_grid(x, 0 * x, q, (0.5, 0.5, 1.0), 0.0, 1.0)
    result = classical_discrepancy(x, 0 * x, constants=(0.5, 0.5, 1.0), support=(0, 1))
    assert result.value == pytest.approx(expected, rel=1e-3)


def test_wasserstein_is_below_classical_is_below_graph():
    from scipy.stats import norm

    grid = (np.arange(100_000) + 0.5) / 100_000
    for seed in range(4):
        x = np.sort(np.random.default_rng(seed).normal(size=12))
        wasserstein = np.abs(x[np.minimum((grid * 12).astype(int), 11)] - norm.ppf(grid)).mean()
        classical = classical_discrepancy(x, -x, constants=(1, 4, 2)).value
        graph = graph_discrepancy(x, -x, constants=(1, 4, 2)).value
        assert wasserstein <= classical * (1 + 1e-6)
        assert classical <= graph * (1 + 1e-6)


def test_classical_program_takes_repeated_points_and_one_point():
    x = np.array([0.3, -1.0, 0.3, 2.0, 0.3])
    merged = classical_discrepancy([0.3, -1.0, 2.0], [-0.3, 1.0, -2.0], weights=[0.6, 0.2, 0.2])
    assert classical_discrepancy(x, -x).value == pytest.approx(merged.value, rel=1e-6)
    # one point: max c1 - p^2 / (2 c3) times |b|, plus p
    one = classical_discrepancy([2.0], [-2.0])
    p = np.linspace(-1, 1, 100_001)
    assert one.value == pytest.approx((2 * (1 - p**2 / 2) + p).max(), rel=1e-7)
    assert len(one.picture().panels) == 2


# tests of fit


def test_bootstrap_is_its_definition():
    x, b = draw(30, 2)
    K = matrix(x, b)
    for statistic, flip, correlated in (("V", None, False), ("U", None, False), ("V", 0.05, True)):
        result = goodness_of_fit(
            x, b, statistic=statistic, flip=flip, correlated=correlated, replicates=50, seed=4
        )
        from fathometer.stein.fit import _signs

        signs = _signs(30, 50, 0.05 if correlated else 0.5, 4)
        assert set(np.unique(signs)) == {-1.0, 1.0}
        kernel, count = (K - np.diag(np.diag(K)), 29) if statistic == "U" else (K, 30)
        expected = np.array([s @ kernel @ s / count for s in signs.T])
        np.testing.assert_allclose(result.replicates, expected, rtol=1e-9, atol=1e-12)
        assert result.statistic == pytest.approx(30 * ksd(x, b, statistic=statistic).squared, rel=1e-9)
        assert result.p_value == (1 + (expected >= result.statistic).sum()) / 51


def test_level_is_kept_by_independent_samples():
    rng = np.random.default_rng(0)
    rejections = 0
    for trial in range(300):
        x = rng.normal(size=(60, 2))
        rejections += goodness_of_fit(x, -x, replicates=199, seed=trial).p_value <= 0.1
    # binomial(300, 0.1): three standard deviations are 15.6
    assert abs(rejections - 30) <= 16


def test_level_needs_markov_signs_for_chains():
    rng = np.random.default_rng(0)
    plain, markov = 0, 0
    for trial in range(100):
        x = np.empty(200)
        x[0] = rng.normal()
        for t in range(1, 200):
            x[t] = 0.7 * x[t - 1] + np.sqrt(0.51) * rng.normal()
        plain += goodness_of_fit(x, -x, replicates=99, seed=trial).p_value <= 0.1
        markov += goodness_of_fit(x, -x, correlated=True, replicates=99, seed=trial).p_value <= 0.1
    assert plain > 35
    assert markov < 25


def test_power_against_a_shift():
    x = np.random.default_rng(0).normal(size=(200, 2)) + 0.5
    assert goodness_of_fit(x, -x).p_value <= 0.01
    assert baringhaus_henze(x).p_value <= 0.01
    null = [np.random.default_rng(seed).normal(size=(100, 2)) for seed in range(5)]
    assert max(goodness_of_fit(z, -z).p_value for z in null) > 0.1
    assert max(baringhaus_henze(z, replicates=99).p_value for z in null) > 0.1


def test_baringhaus_henze_is_the_integral_of_the_characteristic_function():
    from scipy.integrate import quad

    x = np.random.default_rng(0).normal(size=9) + 0.4

    def integrand(t):
        gap = np.exp(1j * t * x).mean() - np.exp(-(t**2) / 2)
        return 9 * abs(gap) ** 2 * np.exp(-(t**2) / 2) / np.sqrt(2 * np.pi)

    expected = quad(integrand, -np.inf, np.inf, epsabs=1e-12)[0]
    assert baringhaus_henze(x, replicates=1).statistic == pytest.approx(expected, rel=1e-8)


def test_outcome_of_a_test_is_saved_and_drawn(tmp_path):
    x, b = draw(20, 1)
    result = goodness_of_fit(x, b, replicates=99)
    again = fm.load(result.save(tmp_path / "t.safetensors"))
    assert again.p_value == result.p_value == result.value
    assert result.kind == "estimate"
    assert len(result.picture().panels) == 1
    assert "p = " in str(result)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, b: thin(x, b, 0), "size is 0; a whole number, one or more"),
        (lambda x, b: thin(x * [1.0, 0.0], b, 2), "coordinate 1 is constant"),
        (lambda x, b: thin(x, b, 2, regularize=True, log_density=[1.0]), r"log_density has shape \(1,\)"),
        (lambda x, b: thin(x, b, 2, regularize=True, curvature=[1.0]), r"curvature has shape \(1,\)"),
        (lambda x, b: classical_discrepancy(x, b), "points have 2 coordinates; the classical program"),
        (lambda x, b: goodness_of_fit(x, b, replicates=0), "replicates is 0"),
        (lambda x, b: goodness_of_fit(x, b, flip=0.7), "flip is 0.7"),
        (lambda x, b: goodness_of_fit(x, b, statistic="T"), 'statistic is .T.; it is "V"'),
        (lambda x, b: goodness_of_fit(x[:1], b[:1]), "at least 2 points"),
        (lambda x, b: baringhaus_henze(x, replicates=0), "replicates is 0"),
    ],
)
def test_methods_refuse(call, message):
    with pytest.raises(fm.InputError, match=message):
        call(*draw(5, 2))


def test_dense_matrices_beyond_the_budget_are_refused():
    x, b = draw(1500, 2)
    with fm.budget(40_000_000):
        with pytest.raises(fm.BudgetError, match="Stein kernel matrix of 1500 points"):
            reweight(x, b)
        with pytest.raises(fm.BudgetError, match="shortest tree through 1500 points"):
            thin(x, b, 3, regularize=True)
