"""Measured densities and indices against matrices whose eigenvalues are known."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import fathometer as fm
from fathometer.errors import InputError
from fathometer.spectra import density, index


def matrix_with(values, seed=0):
    """A dense symmetric matrix with these eigenvalues, turned by a random rotation."""
    g = torch.Generator().manual_seed(seed)
    Q, _ = torch.linalg.qr(torch.randn(len(values), len(values), generator=g, dtype=torch.float64))
    A = Q @ torch.diag(torch.as_tensor(values, dtype=torch.float64)) @ Q.T
    return 0.5 * (A + A.T)


def hard_spectrum(P=700):
    """Outliers, a crowd near zero on both sides, and a tail."""
    rng = np.random.default_rng(5)
    return np.sort(
        np.concatenate([[90.0, 40.0, 17.0], rng.normal(0.02, 0.05, P - 103), rng.gamma(0.5, 1.0, 100)])
    )


def small_surface(loss="half_mse", seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    x = torch.randn(40, 3, dtype=torch.float64)
    y = torch.randint(0, 2, (40,)) if loss == "cross_entropy" else torch.randn(40, 2, dtype=torch.float64)
    return model, x, y, fm.LossSurface(model, loss, (x, y))


def test_small_matrices_give_all_eigenvalues():
    values = np.array([-2.0, 0.0, 0.0, 1.0, 5.0])
    found = density(matrix_with(values))
    np.testing.assert_allclose(found.nodes, values, atol=1e-13)
    np.testing.assert_allclose(found.weights, 0.2)
    assert found.kind == "exact" and found.error == 0
    assert found.bracket(0.5) == (0.6, 0.6) and found.cdf(10.0) == 1 and found.cdf(-3.0) == 0


@pytest.mark.parametrize("deflate", [0, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_truth_is_inside_the_bracket_at_every_threshold(deflate, seed):
    values = hard_spectrum()
    found = density(matrix_with(values), probes=3, steps=30, seed=seed, deflate=deflate, method="lanczos")
    assert found.kind == "estimate" and found.probes == 3
    x = np.unique(
        np.concatenate([np.linspace(-0.3, 100, 400), values, found.nodes, np.linspace(-0.2, 0.3, 200)])
    )
    lower, upper = found.bracket(x)
    truth = np.searchsorted(values, x + 1e-9, side="right") / len(values)
    before = np.searchsorted(values, x - 1e-9, side="left") / len(values)
    assert (lower <= truth + 1e-12).all() and (before <= upper + 1e-12).all()
    assert (upper - lower).min() < 0.06  # and it says something
    assert found.weights.sum() == pytest.approx(1.0, abs=1e-14)


def test_a_chebyshev_markov_stieltjes_bracket_is_proved_for_the_probe_itself():
    # one probe whose measure is known: a diagonal matrix seen from an explicit direction
    values = hard_spectrum(300)
    found = density(np.diag(values), probes=1, steps=12, method="lanczos", seed=4)
    from fathometer.linalg.counted import normal
    from fathometer.linalg.operator import as_operator
    from fathometer.work import generator

    start = normal(as_operator(np.diag(values)), 1, generator(4, "slq", 0))[:, 0].numpy() ** 2
    start /= start.sum()
    x = np.linspace(-1, 95, 2001)
    truth = np.array([start[values <= at].sum() for at in x])
    z = 1e-9  # no allowance for the probe: the inequalities alone
    lower, upper = found._bound(x, z, upper=False), found._bound(x, z, upper=True)
    assert (lower <= truth + 1e-7).all() and (truth <= upper + 1e-7).all()


def test_the_share_a_probe_sees_has_the_stated_variance():
    # the variance 2 F (1 - F) / (P + 2) behind the score interval, by simulation
    rng = np.random.default_rng(0)
    P, k = 40, 12
    q = rng.standard_normal((200_000, P)) ** 2
    share = q[:, :k].sum(1) / q.sum(1)
    assert share.var() == pytest.approx(2 * 0.3 * 0.7 / (P + 2), rel=0.02)


def test_deflation_puts_outliers_in_with_their_exact_weight():
    values = hard_spectrum()
    found = density(matrix_with(values), probes=2, steps=25, deflate=3, method="lanczos")
    np.testing.assert_allclose(np.sort(found.known), values[-3:], rtol=1e-6)
    at = np.isin(np.asarray(found.nodes), found.known)
    np.testing.assert_allclose(np.asarray(found.weights)[at], 1 / len(values))


def test_smoothed_density_integrates_to_one_and_keeps_the_mean():
    found = density(matrix_with(hard_spectrum()), probes=4, steps=40, method="lanczos")
    x = np.linspace(-10, 100, 20001)
    y = found.pdf(x, 0.5)
    assert np.trapezoid(y, x) == pytest.approx(1.0, abs=1e-6)
    assert np.trapezoid(x * y, x) == pytest.approx(found.mean, abs=1e-4)
    assert found.pdf(torch.tensor([0.0])).shape == (1,)


def test_a_surface_means_its_hessian():
    model, x, y, surface = small_surface()
    names = [n for n, _ in model.named_parameters()]
    parameters = tuple(p.detach() for p in model.parameters())

    def loss(*p):
        out = torch.func.functional_call(model, dict(zip(names, p, strict=True)), (x,))
        return 0.5 * (out - y).square().mean()

    blocks = torch.autograd.functional.hessian(loss, parameters)
    dense = torch.cat(
        [
            torch.cat([b.reshape(p.numel(), -1) for b in row], 1)
            for p, row in zip(parameters, blocks, strict=True)
        ]
    )
    wanted = torch.linalg.eigvalsh(dense)
    found = density(surface)
    torch.testing.assert_close(found.nodes, wanted)
    counted = index(surface)
    assert counted.kind == "exact"
    assert (counted.negative, counted.positive) == (int((wanted < -1e-9).sum()), int((wanted > 1e-9).sum()))
    single = density(fm.LossSurface(model.float(), "half_mse", (x.float(), y.float())))
    torch.testing.assert_close(single.nodes, wanted, rtol=1e-4, atol=1e-5)


def test_numpy_and_torch_come_back_as_they_are():
    A = np.diag([1.0, 2.0, 3.0])
    assert isinstance(density(A).nodes, np.ndarray)
    assert isinstance(density(torch.from_numpy(A)).nodes, torch.Tensor)
    assert isinstance(density(fm.as_operator(A)).cdf(np.array([1.5])), np.ndarray)


@given(
    negative=st.integers(0, 6), zero=st.integers(0, 6), positive=st.integers(1, 6), seed=st.integers(0, 2**20)
)
@settings(max_examples=30, deadline=None, derandomize=True)
def test_inertia_does_not_depend_on_the_basis(negative, zero, positive, seed):
    values = np.concatenate(
        [-np.geomspace(1e-6, 1, negative + 1)[1:], np.zeros(zero), np.geomspace(1e-6, 3, positive)]
    )
    found = index(matrix_with(values, seed))
    assert (found.negative, found.zero, found.positive) == (negative, zero, positive)
    assert found.fraction == negative / len(values) == found.value and found.error == 0


def test_the_threshold_is_relative_and_stated():
    values = [-1e-3, -1e-7, 1e-7, 10.0]
    for factor in (1.0, 1e-8):
        A = factor * matrix_with(values)
        assert index(A).negative == 2
        coarse = index(A, threshold=1e-5)
        assert (coarse.negative, coarse.zero, coarse.positive, coarse.threshold) == (1, 2, 1, 1e-5)


def test_a_large_operator_gets_a_bracket_with_the_truth_inside():
    values = hard_spectrum()
    for threshold in (1e-12, 1e-3):
        found = index(matrix_with(values), threshold, probes=4, steps=60, deflate=4, method="lanczos")
        truth = float(np.mean(values < -threshold * 90))
        assert found.kind == "estimate" and found.lower <= truth <= found.upper
        assert found.negative + found.zero + found.positive == found.size == len(values)
        assert abs(found.value - truth) <= found.error
    assert "estimate, the share of negative ones is in" in str(found)


def test_every_answer_draws_itself_and_survives_the_disk(tmp_path):
    for method in ("exact", "lanczos"):
        found = density(matrix_with(hard_spectrum()), probes=2, steps=20, method=method)
        again = fm.load(found.save(tmp_path / "density.safetensors"))
        np.testing.assert_array_equal(again.nodes, found.nodes)
        picture = again.picture()
        bars = picture.panels[0].marks[0]
        assert float(np.sum(bars.heights)) == pytest.approx(1.0)
        assert len(picture.panels) == (1 if method == "exact" else 2)
    assert "700 eigenvalues" in str(found) and fm.load(index(np.eye(3)).save(tmp_path / "i")).positive == 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: density(np.eye(5), steps=6), "steps is 6; an operator of size 5 takes 1 to 5 steps"),
        (lambda: density(np.eye(5), steps=0), "steps is 0"),
        (lambda: density(np.eye(5), probes=0), "probes is 0; at least 1"),
        (lambda: density(np.eye(5), deflate=5), "deflate is 5; 0 to 4"),
        (lambda: density(np.eye(5), method="kpm"), "method is 'kpm'"),
        (lambda: density(np.triu(np.ones((3, 3)))), "not symmetric; its spectrum is not real"),
        (lambda: density(np.eye(5)).pdf(0.0, 0.0), "width is 0.0"),
        (lambda: density(np.eye(5)).bracket(0.0, 1.0), "confidence is 1.0"),
        (lambda: index(np.eye(5), threshold=1.5), "threshold is 1.5"),
        (lambda: index(np.array([[np.nan]])), "not finite"),
    ],
)
def test_density_and_index_refuse_what_has_no_meaning(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize("method", ["exact", "lanczos"])
def test_the_index_can_be_read_off_a_spectrum_that_is_known(method):
    values = np.concatenate([-np.ones(30), np.zeros(20), np.linspace(1.0, 2.0, 50)])
    A = np.diag(values)
    known = density(A, 5, 60, method=method)
    found = index(A, 1e-3, known=known)
    assert found.kind == known.kind and found.products == known.products
    assert found.lower <= 0.3 <= found.upper
    if method == "exact":
        assert (found.negative, found.zero, found.positive) == (30, 20, 50)
    with pytest.raises(InputError, match=r"known is .*; a spectrum of the 3 x 3 operator"):
        index(np.eye(3), known=known)


def test_the_spectrum_of_a_multiple_has_its_nodes_multiplied():
    A = np.diag(np.linspace(-1.0, 3.0, 40))
    for method in ("exact", "lanczos"):
        twice = density(2 * A, 3, 12, method=method)
        scaled = density(A, 3, 12, method=method).scaled(2.0)
        np.testing.assert_allclose(scaled.nodes, twice.nodes, atol=1e-12)
        np.testing.assert_allclose(scaled.bracket(0.5), twice.bracket(0.5), atol=1e-12)
    with pytest.raises(InputError, match=r"factor is -1; a positive number"):
        density(A).scaled(-1)


def true_distance(found, values):
    """Wasserstein-1 distance of a density from all the eigenvalues, by quantiles."""
    nodes, weights = found.points
    share = np.cumsum(weights)
    at = (np.arange(200_000) + 0.5) / 200_000
    measured = nodes[np.searchsorted(share, at).clip(max=len(nodes) - 1)]
    return float(np.abs(measured - np.sort(values)[(at * len(values)).astype(int)]).mean())


@pytest.mark.parametrize("deflate", [0, 5])
def test_a_wanted_accuracy_is_reached_and_proved(deflate):
    random = np.random.default_rng(0)
    values = np.concatenate([random.normal(size=3995) * 0.1, [3.0, 4.0, 6.0, 8.0, 10.0]])
    column = torch.from_numpy(values)[:, None]
    A = fm.linalg.LinearOperator(shape=(4000, 4000), product=lambda V: column * V, dtype=torch.float64)
    found = density(A, accuracy=0.02, deflate=deflate, method="lanczos")
    low, high = found.value
    assert true_distance(found, values) <= found.wasserstein <= 0.02 * (high - low)
    fixed = density(A, probes=10, steps=100, method="lanczos")  # what one would guess
    assert not deflate or found.products < fixed.products / 10


def test_a_wanted_accuracy_beyond_what_probes_can_do_takes_all_eigenvalues():
    found = density(np.diag(np.arange(200.0)), accuracy=1e-4)
    assert found.kind == "exact" and found.wasserstein == 0.0


def test_an_accuracy_that_is_no_share_is_refused():
    with pytest.raises(InputError, match="accuracy is 2; it is a share of the range"):
        density(np.eye(3), accuracy=2)
