"""Fisher scoring, sequential tests, slice sampling, particles and the choice of settings."""

import numpy as np
import pytest
import torch

import fathometer as fm
from fathometer.stein import InverseMultiquadric, Posterior, ksd, samplers, select
from fathometer.stein.samplers.sequential import SequentialTest
from fathometer.stein.samplers.stochastic import Sweeps
from fathometer.stein.samplers.walk import start_walk
from fathometer.stein.targets import read_target


def normal(x):
    return -0.5 * (x**2).sum()


def regression(examples=20, dimension=2, seed=0):
    rng = np.random.default_rng(seed)
    A = torch.tensor(rng.normal(size=(examples, dimension)))
    y = torch.tensor(rng.normal(size=examples))
    posterior = Posterior(normal, lambda t, rows: -0.5 * (A[rows] @ t - y[rows]) ** 2, examples)
    precision = (A.T @ A + torch.eye(dimension)).numpy()
    return posterior, np.linalg.solve(precision, (A.T @ y).numpy()), precision


@pytest.mark.parametrize("form", ["full", "diagonal"])
def test_first_step_of_fisher_scoring_is_its_formula(form):
    posterior, _, _ = regression()
    start, eps, n, N = torch.tensor([0.3, -0.2], dtype=torch.float64), 0.7, 8, 20
    chain = samplers.fisher_scoring(posterior, start, 1, eps, batch_size=n, form=form, seed=5)
    walk = start_walk(posterior, start, 1, seed=5, name="sgfs")
    rows, z = Sweeps(walk, N, n).next()[0], walk.noise(1, 2)[0]
    each = posterior.each_gradient(start, rows)
    V = torch.cov(each.T)
    V = torch.diag(V.diagonal()) if form == "diagonal" else V
    gamma = (n + N) / n
    B = gamma * N * V
    values, vectors = torch.linalg.eigh(B)
    root = vectors * values.sqrt()
    root = torch.diag(B.diagonal().sqrt()) if form == "diagonal" else root
    gradient = -start + N / n * each.sum(0)
    moved = 2 * torch.linalg.solve(gamma * N * V + 4 * B / eps, gradient + 2 / eps**0.5 * root @ z)
    torch.testing.assert_close(chain.points[0], start + moved)
    assert chain.evaluations == n


def test_fisher_scoring_keeps_the_correlation_of_the_posterior():
    # with all examples and a small step it is preconditioned Langevin, whose law is the posterior
    posterior, mean, precision = regression(seed=3)
    chain = samplers.fisher_scoring(
        posterior, np.tile(mean, (20, 1)), 60, 0.2, batch_size=20, warmup=20, thin=3
    )
    found = np.cov(chain.points.reshape(-1, 2).T)
    expected = np.linalg.inv(precision)
    np.testing.assert_allclose(np.diag(found), np.diag(expected), rtol=0.25)
    few = samplers.fisher_scoring(posterior, [0.0, 0.0], 3, 0.1, batch_size=2)  # singular at first
    assert np.isfinite(few.points).all()


@pytest.mark.parametrize("name", ["approximate_metropolis", "approximate_slice"])
def test_tolerance_zero_is_exact(name):
    posterior, mean, precision = regression(examples=6, dimension=1)
    sampler = getattr(samplers, name)
    chain = sampler(posterior, np.tile(mean, (10, 1)), 200, 1.0, tolerance=0.0, warmup=10)
    draws = chain.points.ravel()
    assert draws.mean() == pytest.approx(mean[0], abs=5 * (precision[0, 0] * 600) ** -0.5)
    assert draws.var() == pytest.approx(1 / precision[0, 0], rel=0.2)
    if name == "approximate_metropolis":
        assert chain.evaluations == 10 * 210 * 2 * 6


def test_log_densities_are_one_term_decided_exactly():
    chain = samplers.approximate_metropolis(normal, np.zeros((20, 1)), 100, 4.0, warmup=10)
    assert chain.points.var() == pytest.approx(1.0, rel=0.15)
    assert chain.evaluations == 20 * 110 * 2
    assert samplers.approximate_slice(normal, [0.0], 10, 1.0).points.shape == (10, 1)
    with pytest.raises(fm.InputError, match="target is a Density"):
        samplers.approximate_slice(read_target(normal), [0.0], 10, 1.0)


def test_metropolis_without_tolerance_takes_the_exact_decisions():
    posterior, _, _ = regression()
    chain = samplers.approximate_metropolis(posterior, [0.2, 0.1], 20, 0.1, tolerance=0.0, seed=7)
    walk = start_walk(posterior, [0.2, 0.1], 20, seed=7, name="approximate metropolis")
    x, log_p = walk.x, lambda v: float(posterior.both(v)[0])
    for point in chain.points:
        proposal, u = x + 0.1**0.5 * walk.noise(1, 2), float(walk.uniform(1).log())
        x = proposal if u < log_p(proposal) - log_p(x) else x
        np.testing.assert_allclose(point, x[0].numpy())


def test_sequential_test_stops_early_where_the_answer_is_clear_and_errs_rarely():
    examples = 200
    posterior = Posterior(normal, lambda t, rows: rows * 0.0 + t.sum(), examples)
    walk = start_walk(posterior, [0.0], 1, seed=0, name="test")
    test = SequentialTest(aim=posterior, walk=walk, size=1.0, batch=10, level=0.02)
    generator = np.random.default_rng(0)
    wrong, clear = 0, []
    for _ in range(200):
        values = torch.tensor(generator.normal(size=examples) + 0.2)
        truth = float(values.sum()) > 0
        before = walk.evaluations
        wrong += test.exceeds(lambda rows, v=values: v[rows], 0.0) != truth
        clear.append(walk.evaluations - before)
    assert wrong <= 20
    assert np.mean(clear) < 0.8 * 2 * examples  # each ratio is two terms
    before = walk.evaluations
    assert test.exceeds(lambda rows: values[rows] + 50, 0.0)
    assert walk.evaluations - before == 20
    same = torch.ones(examples)
    assert not test.exceeds(lambda rows: same[rows], 300.0)


def test_approximate_chains_spend_fewer_evaluations():
    posterior, mean, _ = regression(examples=60)
    for sampler in (samplers.approximate_metropolis, samplers.approximate_slice):
        exact = sampler(posterior, mean, 15, 0.1, tolerance=0.0)
        loose = sampler(posterior, mean, 15, 0.1, tolerance=0.2, batch_size=5)
        assert loose.evaluations / loose.points.size < exact.evaluations / exact.points.size


def test_particle_direction_is_its_definition():
    rng = np.random.default_rng(0)
    x, b = rng.normal(size=(6, 2)), rng.normal(size=(6, 2))
    S = np.array([[2.0, 0.3], [0.3, 0.5]])
    P = torch.tensor(np.linalg.inv(S))

    def k(a, c):
        return (1 + (a - c) @ P @ (a - c)) ** -0.5

    X, B = torch.tensor(x), torch.tensor(b)
    expected = torch.stack(
        [sum(k(X[i], y) * B[i] + torch.func.grad(k)(X[i], y) for i in range(6)) / 6 for y in X]
    )
    found = samplers.svgd_direction(X, B, InverseMultiquadric(preconditioner=S))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_particles_reach_the_target(decay):
    start = np.random.default_rng(0).normal(size=(60, 2)) * 0.3 + 4
    chain = samplers.svgd(normal, start, 150, 0.1 if decay else 1.0, decay=decay)
    assert chain.points.shape == (60, 2)
    assert chain.evaluations == 60 * 150
    np.testing.assert_allclose(chain.points.mean(0), 0, atol=0.1)
    np.testing.assert_allclose(chain.scores, -chain.points)
    # better than independent draws
    assert ksd(chain.points, chain.scores).value < 0.7 * ksd(chain.points, chain.scores).expected


def test_selection_prefers_the_discrepancy_and_ess_the_largest_step():
    # SGLD of a Gaussian posterior: the largest step mixes best and is far too wide
    posterior, mean, _ = regression(examples=20, seed=1)
    steps = (1e-4, 2e-2, 1.2e-1)

    def run(step, seed):
        return samplers.stochastic_gradient_langevin(
            posterior, np.tile(mean, (2, 1)), 250, step, batch_size=2, seed=seed
        )

    table = select(run, steps, seeds=2)
    assert table.best == 2e-2
    assert table.best_by_ess == 1.2e-1
    assert [row.candidate for row in table] == list(steps)
    assert all(row.rhat > 0.9 for row in table)
    assert len(table.picture().panels) == 2
    by_hand = np.median(
        [ksd(c.points.reshape(-1, 2), c.scores.reshape(-1, 2)).value for c in (run(2e-2, 0), run(2e-2, 1))]
    )
    assert table.rows[1].discrepancy == pytest.approx(by_hand, rel=1e-12)


def test_selection_takes_pairs_the_graph_measure_and_diverging_candidates():
    def run(scale, seed):
        if scale == 9:
            return samplers.langevin(lambda x: (x**4).sum(), [1.0], 20, 1.0, metropolis=False)
        x = scale * np.random.default_rng(seed).normal(size=40)
        return x, -x

    table = select(run, [0.3, 1.0, 9], measure="graph", standardize=True)
    assert table.best == 1.0
    assert table.rows[2].discrepancy == np.inf
    assert "candidate 9, seed 0" in table.notes[0]
    assert "settings by graph" in str(table)
    table.picture()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda s, p: s.fisher_scoring(normal, [0.0], 5, 0.1, batch_size=2),
            "terms of at least 2 examples",
        ),
        (
            lambda s, p: s.fisher_scoring(p, [0.0, 0.0], 5, 0.1, batch_size=1),
            "batch_size is 1; a covariance",
        ),
        (
            lambda s, p: s.fisher_scoring(p, [0.0, 0.0], 5, 0.1, batch_size=4, form="d"),
            'form is .d.; it is "full"',
        ),
        (lambda s, p: s.approximate_metropolis(p, [0.0, 0.0], 5, 0.1, tolerance=0.5), "tolerance is 0.5"),
        (lambda s, p: s.approximate_slice(p, [0.0, 0.0], 5, 0.1, tolerance=-1), "tolerance is -1"),
        (lambda s, p: s.svgd(normal, [[0.0]], 5, 0.1, decay=1.0), "decay is 1"),
        (lambda s, p: s.svgd(normal, [[0.0]], 0, 0.1), "steps is 0"),
        (lambda s, p: select(lambda c, k: None, [1, 2]), "run must give a Chain or a pair"),
        (lambda s, p: select(lambda c, k: None, [1]), "candidates hold 1 setting"),
        (lambda s, p: select(lambda c, k: None, [1, 2], seeds=0), "seeds is 0"),
        (lambda s, p: select(lambda c, k: None, [1, 2], measure="w"), 'measure is .w.; it is "ksd"'),
        (lambda s, p: select(lambda c, k: s.langevin(normal, [0.0], 0, 1.0), [1, 2]), "steps is 0"),
    ],
)
def test_samplers_and_selection_refuse(call, message):
    with pytest.raises(fm.InputError, match=message):
        call(samplers, regression()[0])
