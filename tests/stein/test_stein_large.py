"""Estimates for samples beyond all pairs, stochastic scores, single precision."""

import re
import tracemalloc

import numpy as np
import pytest
import torch

import fathometer as fm
from fathometer.stein import (
    Gaussian,
    InverseMultiquadric,
    Matern32,
    MomentControl,
    Posterior,
    estimate_ksd,
    ksd,
    nystrom_ksd,
    stochastic_ksd,
    stochastic_scores,
)
from fathometer.stein.large import METHODS

pytestmark = pytest.mark.filterwarnings("ignore:the (Gaussian|Matern) kernel in")
S2 = np.array([[1.5, 0.4], [0.4, 0.7]])


def draw(n, d, seed=0):
    x = np.random.default_rng(seed).standard_normal((n, d))
    return x, -x


@pytest.mark.parametrize(
    "kernel",
    [
        InverseMultiquadric(),
        InverseMultiquadric(c=2.0, beta=-0.3, preconditioner=S2),
        Gaussian(1.5) + InverseMultiquadric(beta=-0.8),
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_rounds_are_unbiased(method, kernel):
    x, b = draw(60, 2)
    exact = ksd(x + 5.0, b, kernel).squared
    rounds = estimate_ksd(x + 5.0, b, kernel, method=method, tolerance=0.0, rounds=400).rounds
    assert len(rounds) == 400
    # four standard errors
    assert abs(rounds.mean() - exact) < 4 * rounds.std(ddof=1) / 20


@pytest.mark.parametrize("method", METHODS)
def test_interval_covers_at_every_time_of_stopping(method):
    x, b = draw(80, 2)
    x = x + 0.2
    exact, covered = ksd(x, b).value, 0
    for seed in range(20):
        path = estimate_ksd(x, b, method=method, tolerance=0.0, rounds=60, seed=seed).path
        covered += bool(((path[:, 0] <= exact) & (exact <= path[:, 1])).all())
    assert covered >= 17  # of 20 at 95 percent for all times together


def test_features_stop_at_the_tolerance_and_a_large_sample_agrees_with_all_pairs(tmp_path):
    x, b = draw(4000, 5)
    result = estimate_ksd(x, b, tolerance=0.05)
    low, high = result.interval
    assert high - low <= 2 * 0.05 * result.value
    assert low <= ksd(x, b).value <= high
    assert result.expected == ksd(x, b).expected or abs(result.expected / ksd(x, b).expected - 1) < 1e-12
    again = fm.load(result.save(tmp_path / "e.safetensors"))
    np.testing.assert_array_equal(again.rounds, result.rounds)
    assert result.kind == "estimate" and result.error == pytest.approx((high - low) / 2)
    assert len(result.picture().panels) == 1 and "rounds of features" in str(result)


def test_an_estimate_stops_for_time_and_reports_progress():
    heard = []
    x, b = draw(100, 2)
    result = estimate_ksd(
        x, b, tolerance=0.0, seconds=0.0, progress=lambda done, total, what: heard.append((done, total, what))
    )
    assert len(result.rounds) == 8 and heard[-1] == (8, 1000, "features")


def test_nystrom_is_a_lower_bound_and_exact_with_all_points():
    x, b = draw(150, 3)
    exact = ksd(x, b).value
    value, share = nystrom_ksd(x, b, 150)
    assert value == pytest.approx(exact, rel=1e-6) and share == pytest.approx(1.0, abs=1e-6)
    for m in (1, 10, 50):
        value, share = nystrom_ksd(x, b, m)
        assert value <= exact * (1 + 1e-9) and 0 < share <= 1 + 1e-9


def posterior_of(N=40):
    data = torch.from_numpy(np.random.default_rng(3).standard_normal((N, 2)) * 2)
    return Posterior(lambda t: -0.5 * (t**2).sum(), lambda t, rows: -0.5 * ((data[rows] - t) ** 2).sum(1), N)


def test_stochastic_scores_are_unbiased_and_their_variance_is_right():
    aim, x = posterior_of(), np.array([[0.3, -0.1]])
    exact = aim.both(torch.from_numpy(x))[1].numpy()[0]
    runs = [stochastic_scores(aim, x, 5, seed=s) for s in range(400)]
    scores = np.array([b[0] for b, _ in runs])
    spread = scores.var(0, ddof=1).sum()
    assert np.abs(scores.mean(0) - exact).max() < 4 * np.sqrt(spread / 400)
    assert np.mean([v[0] for _, v in runs]) == pytest.approx(spread, rel=0.15)
    everything, none = stochastic_scores(aim, torch.from_numpy(x), 40)
    torch.testing.assert_close(everything, torch.from_numpy(exact[None]))
    assert none[0] == 0


@pytest.mark.parametrize("kernel", [None, Gaussian(0.7), Matern32() + InverseMultiquadric(c=0.5)])
def test_bias_of_stochastic_scores_is_stated_and_taken_off(kernel):
    aim = posterior_of()
    x = np.random.default_rng(1).standard_normal((30, 2)) * 0.15
    exact = ksd(x, aim.both(torch.from_numpy(x))[1].numpy(), kernel).squared
    result = stochastic_ksd(x, aim, 8, kernel, repetitions=30)
    assert result.plain - exact > 0.7 * result.bias > 0  # the plain V-statistic is far too large
    deviation = (result.plain - result.bias - exact) / exact
    assert abs(deviation) < 0.35
    assert result.squared == pytest.approx(result.plain - result.bias)
    assert result.evaluations == 30 * 30 * 8 and result.kind == "estimate" and "taken off" in str(result)


@pytest.mark.parametrize("dimension", [3, 20])
@pytest.mark.parametrize(
    "kernel", [InverseMultiquadric(), InverseMultiquadric(c=2.0, beta=-0.3), Matern32(2.0)]
)
def test_single_precision_is_within_its_stated_error(dimension, kernel):
    for seed in range(3):
        x, b = draw(500, dimension, seed)
        exact, single = ksd(x + 100, b, kernel), ksd(x + 100, b, kernel, precision="single")
        assert single.kind == "estimate" and single.value != exact.value
        assert abs(single.value - exact.value) <= single.error
        assert single.error < 1e-3 * exact.value


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, b: ksd(x, b, precision="half"), 'precision is .half.; it is "double" or "single"'),
        (lambda x, b: estimate_ksd(x, b, method="all"), 'method is .all.; it is "features" or "pairs"'),
        (lambda x, b: estimate_ksd(x, b, Matern32()), "random features of the Matern kernel"),
        (lambda x, b: estimate_ksd(x, b, MomentControl()), "have no direction"),
        (lambda x, b: estimate_ksd(x, b, tolerance=1.0), "tolerance is 1.0"),
        (lambda x, b: estimate_ksd(x, b, rounds=3), "rounds is 3; a whole number, 8 or more"),
        (lambda x, b: estimate_ksd(x, b, confidence=1.0), "confidence is 1.0"),
        (lambda x, b: estimate_ksd(x[:1], b[:1]), "at least 2 points"),
        (lambda x, b: nystrom_ksd(x, b, 6), "landmarks is 6; a whole number from 1 to 5"),
        (lambda x, b: stochastic_scores(posterior_of(), x, 1), "batch_size is 1; the variance"),
        (lambda x, b: stochastic_ksd(x, posterior_of(), 4, repetitions=1), "repetitions is 1"),
        (
            lambda x, b: stochastic_ksd(x, posterior_of(), 4, Gaussian(preconditioner="score_covariance")),
            "'score_covariance' needs exact scores",
        ),
    ],
)
def test_large_samples_refuse(call, message):
    with pytest.raises(fm.InputError, match=message):
        call(*draw(5, 2))


def test_the_budget_is_kept_and_a_byte_less_is_refused():
    x, b = draw(12_000, 30)
    with (
        fm.budget(20_000_000),
        pytest.raises(fm.BudgetError, match="Stein kernel of 12000 points") as refused,
    ):
        ksd(x, b)
    need = int(re.search(r"budget\((\d+)\) would fit", str(refused.value))[1])
    with fm.budget(need - 1), pytest.raises(fm.BudgetError, match="Stein kernel of 12000 points of 30"):
        ksd(x, b)
    tracemalloc.start()
    try:
        with fm.budget(need):
            ksd(x, b)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 0.3 * need < peak < need  # and the forecast is not idle talk


def test_a_small_budget_is_honored_by_small_samples():
    x = np.random.default_rng(0).standard_normal((200, 3))
    with (
        fm.budget(100_000),
        pytest.raises(fm.BudgetError, match="Stein kernel of 200 points of 3") as refused,
    ):
        fm.stein.ksd(x, -x)
    need = int(re.search(r"budget\((\d+)\) would fit", str(refused.value))[1])
    with fm.budget(need):
        value = fm.stein.ksd(x, -x).value
    # The Stein kernel of N(0, I) under (1 + r^2)^(-1/2), of all pairs.
    far = ((x[:, None] - x[None]) ** 2).sum(-1)
    u = 1 + far
    pairs = x @ x.T * u**-0.5 + (3 - far) * u**-1.5 - 3 * far * u**-2.5
    assert value == pytest.approx(pairs.mean() ** 0.5, rel=1e-12)
    few = x[:5]
    with fm.budget(100_000):
        assert fm.stein.ksd(few, -few).value > 0
