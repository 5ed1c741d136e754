"""Samplers against stationary laws known in closed form, and scores against differences."""

import numpy as np
import pytest
import torch

import fathometer as fm
from fathometer.stein import Posterior, SurfacePosterior, check_score, samplers, score
from fathometer.stein.samplers.stochastic import Sweeps
from fathometer.stein.samplers.walk import start_walk
from fathometer.stein.targets import read_target

RNG = np.random.default_rng(0)


def normal(x):
    return -0.5 * (x**2).sum()


def mixture(x):
    return torch.logsumexp(torch.stack([-0.5 * ((x - 1.5) ** 2).sum(), -0.5 * ((x + 1.5) ** 2).sum()]), 0)


def regression(examples=20, dimension=2, seed=0):
    """A linear model with known Gaussian posterior."""
    rng = np.random.default_rng(seed)
    A = torch.tensor(rng.normal(size=(examples, dimension)))
    y = torch.tensor(rng.normal(size=examples))
    posterior = Posterior(normal, lambda t, rows: -0.5 * (A[rows] @ t - y[rows]) ** 2, examples)
    precision = (A.T @ A + torch.eye(dimension)).numpy()
    return posterior, np.linalg.solve(precision, (A.T @ y).numpy()), precision


def tiny_surface():
    torch.manual_seed(0)
    x, y = torch.randn(12, 3, dtype=torch.float64), torch.randn(12, 1, dtype=torch.float64)
    return fm.LossSurface(torch.nn.Linear(3, 1).double(), "half_mse", (x, y)), x, y


def test_score_of_a_mixture_has_its_closed_form():
    x = RNG.normal(size=(7, 1)) * 2
    np.testing.assert_allclose(score(mixture)(x), -x + 1.5 * np.tanh(1.5 * x), rtol=1e-12)
    tensor = torch.tensor(x, dtype=torch.float32)
    assert score(mixture)(tensor).dtype == torch.float32
    assert score(mixture)(x[0]).shape == (1,)


def test_score_falls_back_to_one_point_at_a_time():
    def branching(x):
        return normal(x) if x[0].item() > 0 else 2 * normal(x)

    np.testing.assert_allclose(score(branching)(np.array([[1.0], [-1.0]])), [[-1.0], [2.0]])


def test_check_score_accepts_the_gradient_and_names_the_first_wrong_number():
    x = RNG.normal(size=(5, 2))
    assert check_score(normal, score(normal), x) < 1e-9
    assert check_score(lambda t: normal(t).item(), -x, x) < 1e-9
    assert check_score(normal, lambda p: -p, torch.tensor(x)) < 1e-9
    wrong = -x.copy()
    wrong[3, 1] += 0.5
    with pytest.raises(fm.InputError, match=r"at point 3, coordinate 1"):
        check_score(normal, wrong, x)
    with pytest.raises(fm.InputError, match=r"gives shape \(4, 2\) for points of shape \(5, 2\)"):
        check_score(normal, -x[:4], x)


def test_log_densities_that_give_no_number_or_no_gradient_are_refused():
    with pytest.raises(fm.InputError, match=r"gives shape \(2,\) for one point"):
        score(lambda x: x)(np.ones((1, 2)))
    with pytest.raises(fm.InputError, match="does not depend on its point through torch"):
        score(lambda x: float((x.detach() ** 2).sum()))(np.ones((1, 2)))


def test_ula_has_the_stationary_variance_of_its_recursion():
    # x' = (1 - e/2) x + sqrt(e) z has variance 1 / (1 - e/4)
    chain = samplers.langevin(
        normal, np.zeros((200, 1)), 200, 1.0, metropolis=False, warmup=20, thin=5, seed=3
    )
    assert chain.points.shape == (200, 200, 1)
    assert chain.acceptance == 1
    assert chain.points.var() == pytest.approx(4 / 3, rel=0.03)
    assert chain.evaluations == 200 * 1020


def test_mala_accepts_with_both_density_ratios():
    start = torch.tensor([[0.3, -1.0]], dtype=torch.float64)
    for seed in range(30):
        chain = samplers.langevin(mixture, start, 1, 1.7, seed=seed)
        walk = start_walk(read_target(mixture), start, 1, seed=seed, name="langevin")
        b = score(mixture)(start)
        y = start + 0.85 * b + 1.7**0.5 * walk.noise(1, 2)

        def log_q(to, at):
            mean = at + 0.85 * score(mixture)(at)
            return torch.distributions.Normal(mean, 1.7**0.5).log_prob(to).sum()

        ratio = mixture(y[0]) - mixture(start[0]) + log_q(start, y) - log_q(y, start)
        accepted = bool(walk.uniform(1).log() < ratio)
        torch.testing.assert_close(chain.points[0], y if accepted else start)
        assert chain.acceptance == accepted


@pytest.mark.parametrize("preconditioner", [None, np.array([[1.5, 0.4], [0.4, 0.7]])])
def test_mala_is_exact_at_a_large_step(preconditioner):
    covariance = np.array([[2.0, 0.6], [0.6, 0.5]])
    precision = torch.tensor(np.linalg.inv(covariance))
    chain = samplers.langevin(
        lambda x: -0.5 * x @ precision @ x,
        np.zeros((300, 2)),
        100,
        0.9,
        warmup=60,
        thin=6,
        preconditioner=preconditioner,
    )
    assert 0.2 < chain.acceptance < 0.99
    sample = chain.points.reshape(-1, 2)
    np.testing.assert_allclose(np.cov(sample.T), covariance, atol=0.08)
    np.testing.assert_allclose(
        chain.scores.reshape(-1, 2), -sample @ precision.numpy(), rtol=1e-9, atol=1e-12
    )


def test_sgld_with_all_examples_is_the_langevin_recursion_of_the_posterior():
    posterior, mean, precision = regression()
    step = 0.02
    chain = samplers.stochastic_gradient_langevin(
        posterior, np.tile(mean, (300, 1)), 100, step, warmup=100, thin=10
    )
    # covariance C of x' = (I - e/2 A) x + noise: C = sum of M^k e M^k
    M = np.eye(2) - step / 2 * precision
    expected = step * np.linalg.inv(np.eye(2) - M @ M)
    np.testing.assert_allclose(np.cov(chain.points.reshape(-1, 2).T), expected, rtol=0.1, atol=2e-3)
    np.testing.assert_allclose(chain.points.mean((0, 1)), mean, atol=0.01)
    assert chain.evaluations == 300 * 1100 * 20


def test_batches_of_a_sweep_cover_every_example_once():
    posterior, _, _ = regression(examples=10)
    walk = start_walk(posterior, np.zeros((3, 2)), 1, seed=0, name="sweep")
    sweeps = Sweeps(walk, 10, 4)
    rows = torch.cat([sweeps.next() for _ in range(5)], dim=1)
    for chain in rows:
        for sweep in chain.split(10):
            assert sorted(sweep.tolist()) == list(range(10))
    # so batch gradients of a sweep add up to the whole gradient
    x = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    total = posterior.prior(x)[1] + sum(
        posterior.batch_gradient(x, part) for part in rows[:, :10].split(2, 1)
    )
    torch.testing.assert_close(total, posterior.both(x)[1])


def test_sgld_takes_a_falling_step_size():
    chain = samplers.stochastic_gradient_langevin(normal, [0.0], 40, lambda t: 0.5 / (1 + t), batch_size=1)
    assert chain.points.shape == (40, 1)
    assert "schedule" in str(chain)


def test_terms_and_their_gradients_add_up():
    posterior, mean, _ = regression()
    x = torch.tensor(mean + 0.3)
    rows = torch.arange(20)
    each = posterior.each_gradient(x, rows)
    torch.testing.assert_close(each.sum(0), posterior.batch_gradient(x[None], rows[None])[0])
    value = posterior.both(x[None])[0] - posterior.prior(x[None])[0]
    torch.testing.assert_close(posterior.terms(x, rows).sum(), value[0])


def test_posterior_of_a_loss_surface_is_the_formula():
    surface, inputs, y = tiny_surface()
    posterior = SurfacePosterior(surface, temperature=0.5, precision=2.0)
    theta = torch.tensor([[0.1, -0.2, 0.3, 0.4], [0.0, 1.0, 0.0, 0.0]], dtype=torch.float64)

    def formula(t):
        residual = inputs @ t[:3] + t[3] - y[:, 0]
        return -12 / 0.5 * (0.5 * residual.square().mean()) - t.square().sum()

    value, slope = posterior.both(theta)
    torch.testing.assert_close(value, torch.stack([formula(t) for t in theta]))
    torch.testing.assert_close(slope, score(formula)(theta))
    rows = torch.tensor([[0, 5], [3, 1]])
    torch.testing.assert_close(
        posterior.batch_gradient(theta, rows)[0], posterior.each_gradient(theta[0], rows[0]).sum(0)
    )
    whole = posterior.prior(theta)[0][0] + posterior.terms(theta[0], torch.arange(12)).sum()
    torch.testing.assert_close(whole, value[0])


def test_samplers_run_on_a_loss_surface_and_leave_it_alone():
    surface, _, _ = tiny_surface()
    before, state = surface.theta.clone(), torch.random.get_rng_state()
    chain = samplers.stochastic_gradient_langevin(surface, surface.theta, 6, 1e-3, batch_size=4)
    assert chain.points.shape == (6, 4)
    assert chain.evaluations == 24
    assert isinstance(chain.points, torch.Tensor)
    torch.testing.assert_close(chain.scores, SurfacePosterior(surface).both(chain.points)[1])
    assert torch.equal(surface.theta, before)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_same_seed_same_chain_and_other_seed_another():
    def run(seed):
        return samplers.langevin(normal, [0.0, 0.0], 5, 0.3, seed=seed).points

    np.testing.assert_array_equal(run(1), run(1))
    assert not np.array_equal(run(1), run(2))


def test_chain_is_saved_and_drawn(tmp_path):
    chain = samplers.langevin(normal, np.zeros((2, 2)), 5, 0.3)
    again = fm.load(chain.save(tmp_path / "c.safetensors"))
    np.testing.assert_array_equal(again.points, chain.points)
    assert len(chain.picture().panels) == 2
    assert "MALA step 0.3" in str(chain)
    assert (chain.value, chain.kind, chain.error) == (chain.acceptance, "exact", 0.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.langevin(normal, [0.0], 5, -1.0), "step_size is -1.0; it must be a positive"),
        (lambda s: s.langevin(normal, [0.0], 5, "a"), "step_size is 'a'"),
        (lambda s: s.langevin(normal, [0.0], 0, 0.1), "steps is 0; a whole number, 1 or more"),
        (lambda s: s.langevin(normal, [0.0], 5, 0.1, warmup=-1), "warmup is -1"),
        (lambda s: s.langevin(normal, [0.0], 5, 0.1, thin=0), "thin is 0"),
        (lambda s: s.langevin(normal, [np.nan], 5, 0.1), "start hold nan"),
        (lambda s: s.langevin(normal, np.zeros((0, 2)), 5, 0.1), r"start has shape \(0, 2\)"),
        (lambda s: s.langevin(3, [0.0], 5, 0.1), "target is a int; pass a log density"),
        (lambda s: s.langevin(lambda x: 10 * (x**2).sum(), [1.0], 2000, 1.0, metropolis=False), "too large"),
        (lambda s: s.stochastic_gradient_langevin(normal, [0.0], 5, lambda t: 0.0), r"step_size\(0\) is 0.0"),
        (lambda s: s.stochastic_gradient_langevin(normal, [0.0], 5, 0.1, batch_size=2), "batch_size is 2"),
        (lambda s: s.langevin(normal, [0.0], 5, 0.1, seed=-1), "seed is -1"),
        (lambda s: Posterior(normal, normal, 0), "examples is 0"),
        (lambda s: SurfacePosterior(tiny_surface()[0], temperature=0), "temperature is 0"),
        (lambda s: SurfacePosterior(tiny_surface()[0], precision=-1), "precision is -1"),
        (lambda s: SurfacePosterior(tiny_surface()[0], center=[0.0]), r"center has shape \(1,\)"),
        (lambda s: s.langevin(tiny_surface()[0], [0.0], 5, 0.1), "start has 1 coordinates; the target has 4"),
    ],
)
def test_samplers_refuse(call, message):
    with pytest.raises(fm.InputError, match=message):
        call(samplers)
