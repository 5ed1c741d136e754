"""Finite-set, linear-time, aggregated, relative and family tests: definitions, level, power."""

import numpy as np
import pytest
import torch

import fathometer as fm
from fathometer.stein import (
    Gaussian,
    InverseMultiquadric,
    Matern32,
    MomentControl,
    aggregated_test,
    baringhaus_henze,
    family_test,
    finite_set_test,
    goodness_of_fit,
    ksd,
    linear_time_test,
    relative_test,
)

pytestmark = pytest.mark.filterwarnings("ignore:the (Gaussian|Matern) kernel in")


def draw(n, d, seed=0):
    x = np.random.default_rng(seed).standard_normal((n, d))
    return x, -x


def share_below(test, level, trials=150, n=60, **change):
    """Share of independent trials whose p-value is at most the level."""
    hits = 0
    for seed in range(trials):
        x = np.random.default_rng([7, seed]).standard_normal((n, 2))
        x = x * change.get("scale", 1.0) + change.get("shift", 0.0)
        hits += test(x, seed).p_value <= level
    return hits / trials


TESTS = {
    "wild bootstrap V": lambda x, s: goodness_of_fit(x, -x, replicates=150, seed=s),
    "wild bootstrap U": lambda x, s: goodness_of_fit(x, -x, replicates=150, seed=s, statistic="U"),
    "finite set": lambda x, s: finite_set_test(x, -x, replicates=150, seed=s),
    "linear time": lambda x, s: linear_time_test(x, -x),
    "aggregated": lambda x, s: aggregated_test(x, -x, replicates=150, seed=s),
    "Baringhaus-Henze": lambda x, s: baringhaus_henze(x, replicates=60, seed=s),
}


@pytest.mark.parametrize("name", TESTS)
def test_level_is_kept_under_the_null(name):
    # at most four standard errors of 150 trials beside 0.1
    assert abs(share_below(TESTS[name], 0.1) - 0.1) < 4 * np.sqrt(0.09 / 150)


@pytest.mark.parametrize("name", TESTS)
def test_a_wrong_sample_is_refused(name):
    least = 0.3 if name == "linear time" else 0.9
    assert share_below(TESTS[name], 0.1, trials=20, n=150, shift=0.8) >= least


@pytest.mark.parametrize(
    "kernel", [InverseMultiquadric(c=0.7), Matern32(), Gaussian() + InverseMultiquadric()]
)
def test_finite_set_statistic_is_its_definition(kernel):
    x, b = draw(8, 2)
    b = b + 0.3
    places = np.array([[0.1, 0.4], [-1.0, 0.2], [2.0, 2.0]])

    def phi(part, r2):
        if isinstance(part, Gaussian):
            return torch.exp(-r2 / 2)
        if isinstance(part, Matern32):
            return (1 + (3 * r2).sqrt()) * torch.exp(-((3 * r2).sqrt()))
        return (part.c**2 + r2) ** part.beta

    xi = np.zeros((8, 3, 2))
    for i in range(8):
        for j, v in enumerate(torch.from_numpy(places)):
            for part in kernel.parts:
                k = lambda p, v=v, part=part: phi(part, (p - v).square().sum())  # noqa: E731
                point = torch.from_numpy(x[i])
                xi[i, j] += float(k(point)) * b[i] + torch.func.grad(k)(point).numpy()
    total = sum(float((xi[i] * xi[k]).sum()) for i in range(8) for k in range(8) if i != k) / 6
    result = finite_set_test(x, b, kernel, locations=places, replicates=10)
    assert result.statistic == pytest.approx(total / 7, rel=1e-9)  # n U-statistic = sum / (n - 1)


def test_linear_statistic_is_the_studentized_mean_over_pairs():
    x, b = draw(9, 3)
    values = []
    for i in range(0, 8, 2):
        pair, own = ksd(x[i : i + 2], b[i : i + 2]).squared, [ksd(x[[j]], b[[j]]).squared for j in (i, i + 1)]
        values.append((4 * pair - sum(own)) / 2)
    values = np.array(values)
    result = linear_time_test(x, b)
    assert result.statistic == pytest.approx(values.mean() / values.std(ddof=1) * 2, rel=1e-9)
    assert 0 < result.error <= 1
    with pytest.raises(fm.InputError, match="no imitated null law"):
        result.picture()


def test_aggregated_test_is_the_least_p_value_and_finds_what_one_bandwidth_misses():
    x, _ = draw(200, 1)
    fine = np.round(x / 0.4) * 0.4 + 0.02 * x  # wrong on a small scale only
    wide, narrow = InverseMultiquadric(c=20.0), InverseMultiquadric(c=0.1)
    alone = goodness_of_fit(fine, -fine, wide, replicates=300)
    both = aggregated_test(fine, -fine, [wide, narrow], replicates=300)
    assert alone.p_value > 0.1 > both.p_value
    single = [goodness_of_fit(x, -x, k, replicates=300).p_value for k in (wide, narrow)]
    assert aggregated_test(x, -x, [wide, narrow], replicates=300).statistic == pytest.approx(
        -np.log(min(single)), rel=1e-9
    )


def test_relative_test_says_which_sampler_is_farther():
    good, far = draw(400, 2)[0] + 0.2, draw(400, 2, 1)[0] + 0.6
    assert relative_test(far, -far, good, -good).p_value < 0.001
    assert relative_test(good, -good, far, -far).p_value > 0.999
    below = [
        relative_test(a, -a, b, -b).p_value <= 0.1
        for a, b in ((draw(120, 1, s)[0] + 0.5, draw(120, 1, 900 + s)[0] + 0.5) for s in range(150))
    ]
    assert abs(np.mean(below) - 0.1) < 4 * np.sqrt(0.09 / 150)


def test_family_test_keeps_its_level_where_the_plain_test_never_rejects():
    def fit(x):
        return x.mean(0)

    def run(x, seed):
        return family_test(
            x,
            fit,
            lambda m, n, s: np.random.default_rng([s, 1]).standard_normal((n, 1)) + m,
            lambda m, at: -(at - m),
            replicates=40,
            seed=1000 * seed,
        )

    right, plain = [], []
    for seed in range(60):
        x = np.random.default_rng([5, seed]).standard_normal((30, 1)) + 3
        right.append(run(x, seed).p_value <= 0.2)
        plain.append(goodness_of_fit(x, -(x - x.mean(0)), replicates=100).p_value <= 0.2)
    assert abs(np.mean(right) - 0.2) < 4 * np.sqrt(0.16 / 60)
    assert np.mean(plain) < 0.1
    assert run(np.random.default_rng(0).standard_normal((60, 1)) * 2, 0).p_value < 0.05


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, b: finite_set_test(x, b, locations=0), "locations is 0; one or more"),
        (lambda x, b: finite_set_test(x, b, locations=[[1.0]]), r"locations have shape \(1, 1\)"),
        (lambda x, b: finite_set_test(x, b, locations=[[1.0, np.inf]]), "locations hold inf"),
        (lambda x, b: finite_set_test(x[:1], b[:1]), "at least 2 points; there are 1"),
        (lambda x, b: finite_set_test(x, b, MomentControl()), "have no direction"),
        (lambda x, b: linear_time_test(x[:3], b[:3]), "at least 4 points; there are 3"),
        (lambda x, b: aggregated_test(x, b, [Gaussian()]), "kernels hold 1; two or more"),
        (lambda x, b: aggregated_test(x, b, replicates=0), "replicates is 0"),
        (
            lambda x, b: relative_test(x, b, x, b, Gaussian(preconditioner="median")),
            "a preconditioner recipe",
        ),
        (lambda x, b: family_test(x, None, None, None, replicates=0), "replicates is 0"),
    ],
)
def test_more_tests_refuse(call, message):
    with pytest.raises(fm.InputError, match=message):
        call(*draw(5, 2))
