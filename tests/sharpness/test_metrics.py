"""Measures with a metric, over batches and by sampling, against dense algebra and closed forms."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn

from fathometer import InputError
from fathometer.model import LossSurface
from fathometer.sharpness import (
    information_geometric,
    learning_coefficient,
    m_sharpness,
    metric_norm,
    normalized_sharpness,
    quotient_norm,
    rescalings,
)
from fathometer.sharpness.protocol import checkpoints
from networks import mlp


@pytest.fixture(scope="module")
def surface():
    torch.manual_seed(0)
    model, g = mlp().double(), torch.Generator().manual_seed(0)
    x = torch.randn(60, 3, generator=g, dtype=torch.float64)
    return LossSurface(model, "cross_entropy", (x, torch.randint(0, 2, (60,), generator=g)))


def moved(surface, seed=3):
    return surface.around(rescalings(surface.write(), surface.example_inputs()).move(seed=seed))


def test_the_quotient_norm_is_that_of_the_hessian_between_spheres_of_the_layers(surface):
    norms = torch.cat([p.norm().expand(p.numel()) for p in surface.write().parameters()]).detach()
    H = surface.hessian().to_dense()
    exact = float(torch.linalg.eigvalsh(norms[:, None] * H * norms).abs().max())
    assert float(quotient_norm(surface).value) == pytest.approx(exact, rel=1e-6)


def test_the_metric_norm_solves_the_generalized_eigenvalue_problem(surface):
    H, F = surface.hessian().to_dense().numpy(), surface.fisher().to_dense().numpy()
    metric = F + 0.01 * np.diag(1 / surface.theta.numpy() ** 2)
    exact = scipy.linalg.eigvalsh(H, metric)[-1]
    assert metric_norm(surface, 0.01).value == pytest.approx(exact, rel=1e-8)
    assert metric_norm(moved(surface), 0.01).value == pytest.approx(exact, rel=1e-8)


def test_the_metric_norm_of_a_larger_network_agrees_with_the_dense_one():
    model = nn.Sequential(nn.Linear(20, 24), nn.ReLU(), nn.Linear(24, 3)).double()
    x, y = torch.randn(40, 20, dtype=torch.float64), torch.randint(0, 3, (40,))
    surface = LossSurface(model, "cross_entropy", (x, y))
    assert surface.size > 512
    H, F = surface.hessian().to_dense().numpy(), surface.fisher().to_dense().numpy()
    exact = scipy.linalg.eigvalsh(H, F + 0.1 * np.diag(1 / surface.theta.numpy() ** 2))[-1]
    found = metric_norm(surface, 0.1)
    assert found.kind == "estimate"
    assert float(found.value) == pytest.approx(exact, rel=1e-3)


def test_information_geometric_sharpness_is_the_slope_in_the_fisher_ball(surface):
    g, F = surface.gradient().numpy(), surface.fisher().to_dense().numpy()
    values, vectors = np.linalg.eigh(F)
    kept = values > 1e-12 * values[-1]
    exact = 0.1 * math.sqrt(((vectors[:, kept].T @ g) ** 2 / values[kept]).sum())
    found = information_geometric(surface, tolerance=1e-8)
    assert found.value == pytest.approx(exact, rel=1e-3)
    assert information_geometric(moved(surface), tolerance=1e-8).value == pytest.approx(exact, rel=1e-3)


def test_information_geometric_sharpness_is_zero_at_an_exact_minimum():
    x = torch.randn(10, 3, dtype=torch.float64)
    model = nn.Linear(3, 1).double()
    surface = LossSurface(model, "half_mse", (x, model(x).detach()))
    assert information_geometric(surface).value == 0.0


def test_normalized_sharpness_of_a_single_row_is_that_of_cauchy_and_schwarz():
    """One output, squared error: h_j = mean x_j^2, the best product noise gives ``sum sqrt(h_j) |w_j|``."""
    x = torch.randn(50, 4, dtype=torch.float64)
    model = nn.Linear(4, 1, bias=False).double()
    surface = LossSurface(model, "half_mse", (x, torch.randn(50, 1, dtype=torch.float64)))
    exact = float((x.square().mean(0).sqrt() * model.weight.detach().abs()).sum())
    assert normalized_sharpness(surface).value == pytest.approx(exact, rel=1e-6)


def test_normalized_sharpness_does_not_see_a_rescaling_and_is_no_larger_than_isotropic_noise(surface):
    here = normalized_sharpness(surface).value
    assert normalized_sharpness(moved(surface)).value == pytest.approx(here, rel=1e-6)
    h = surface.space.split(surface.gauss_newton().to_dense().diag())
    plain = sum(
        float((h[name].sum() * w.square().sum()).sqrt())
        for name, w in surface.space.split(surface.theta).items()
        if w.ndim > 1
    )
    assert here <= plain


@pytest.mark.parametrize("flat", [0, 3])
def test_the_learning_coefficient_of_a_quadratic_is_half_its_rank(flat):
    rank, n = 4, 400
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, rank, generator=g, dtype=torch.float64)
    x = torch.cat([x, torch.zeros(n, flat, dtype=torch.float64)], 1)
    model = nn.Linear(rank + flat, 1, bias=False).double()
    surface = LossSurface(model, "half_mse", (x, model(x).detach()))
    found = learning_coefficient(surface, stiffness=0.1, chains=4, steps=300)
    # the spring takes its share: each direction gives 1/2 of n beta h / (n beta h + stiffness)
    assert abs(found.value - rank / 2) < 4 * found.error + 0.01
    assert found.error < 0.5


def test_the_learning_coefficient_of_a_product_is_that_of_one_parameter():
    """L = (w1 w2)^2 / 2 has the coefficient 1/2 (with a logarithm): less than 1, that of two regular ones."""
    one = torch.ones(200, 1, dtype=torch.float64)
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)).double()
    surface = LossSurface(model, "half_mse", (one, 0 * one)).at([0.0, 0.0])
    found = learning_coefficient(surface, stiffness=1.0, chains=4, steps=400)
    heat = 200 / math.log(200)
    # exact by quadrature over the same tempered posterior
    w = np.linspace(-6, 6, 2401)
    loss = 0.5 * (w[:, None] * w[None]) ** 2
    weight = np.exp(-heat * loss - 0.5 * (w[:, None] ** 2 + w[None] ** 2))
    exact = heat * (loss * weight).sum() / weight.sum()
    assert exact < 0.5
    assert abs(found.value - exact) < 4 * found.error + 0.02


def linear_surface(scale=1.0):
    """Loss that is linear in the weights: the worst rise in a neighborhood is known."""
    x = scale * torch.randn(64, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    model = nn.Linear(5, 1, bias=False).double()
    loss = lambda out, y: (out * y)[:, 0]  # noqa: E731
    return LossSurface(model, loss, (x, torch.ones(64, 1, dtype=torch.float64))), x


@pytest.mark.parametrize("norm", [2, math.inf])
@pytest.mark.parametrize("adaptive", [True, False])
def test_m_sharpness_of_a_linear_loss_is_the_mean_of_dual_norms(norm, adaptive):
    surface, x = linear_surface()
    unit = surface.theta.abs() if adaptive else torch.ones(5, dtype=torch.float64)
    slope = unit * x.mean(0)
    exact = 0.1 * float(slope.norm() if norm == 2 else slope.abs().sum())
    found = m_sharpness(surface, 0.1, norm=norm, batch=64, adaptive=adaptive)  # one batch
    assert found.kind == "bound"
    assert found.value == pytest.approx(exact, rel=1e-9)


def test_smaller_batches_rise_higher(surface):
    small, large = (m_sharpness(surface, 0.01, batch=m).value for m in (6, 60))
    assert small > large > 0


@pytest.mark.parametrize("norm", [2, math.inf])
def test_m_sharpness_does_not_see_a_rescaling(surface, norm):
    here, there = (m_sharpness(s, 0.01, norm=norm).value for s in (surface, moved(surface)))
    assert there == pytest.approx(here, rel=1e-6)


def test_normalized_logits_do_not_see_the_scale_of_the_outputs(surface):
    model = surface.write()
    with torch.no_grad():
        model[4].weight *= 7.0
        model[4].bias *= 7.0
    other = surface.around(model)
    here, there = (m_sharpness(s, 0.01, norm=math.inf, normalize=True).value for s in (surface, other))
    assert there == pytest.approx(here, rel=1e-9)
    plain = [m_sharpness(s, 0.01, norm=math.inf).value for s in (surface, other)]
    assert plain[1] != pytest.approx(plain[0], rel=0.1)


def test_the_average_case_of_a_linear_loss_has_mean_zero():
    surface, _ = linear_surface()
    found = m_sharpness(surface, 0.1, average=True, batch=4)
    assert found.kind == "estimate"
    assert abs(found.value) < 4 * found.error


def test_a_step_along_a_flat_loss_stays():
    surface, _ = linear_surface(scale=0.0)
    assert m_sharpness(surface, 0.1).value == 0.0


def test_checkpoints_are_those_of_the_source():
    """Croce & Hein 2020: p_0 = 0, p_1 = 0.22, then steps shrink by 0.03 down to 0.06."""
    assert sorted(checkpoints(100)) == [0, 22, 41, 57, 70, 80, 87, 93, 99]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: metric_norm(s, 0.0), "damping is 0.0; a positive number is needed, in units of the loss"),
        (lambda s: information_geometric(s, -1.0), "radius is -1.0; a positive number"),
        (lambda s: learning_coefficient(s, stiffness=0.0), "stiffness is 0.0; a positive number"),
        (lambda s: learning_coefficient(s, chains=1), "chains is 1 and steps 200; at least 2 and 4"),
        (lambda s: m_sharpness(s, 0.0), "radius is 0.0; a positive number"),
        (lambda s: m_sharpness(s, 0.1, norm=1), "norm is 1; pass 2 or math.inf"),
        (lambda s: m_sharpness(s, 0.1, batch=0), "batch is 0; at least one example"),
    ],
)
def test_arguments_out_of_range_are_refused(surface, call, message):
    with pytest.raises(InputError, match=message):
        call(surface)


def test_what_a_metric_needs_is_said():
    model = nn.Linear(3, 2, bias=False)
    opaque = LossSurface(model, lambda model, batch: model(batch).square().mean(1), [torch.ones(4, 3)])
    with pytest.raises(InputError, match="the loss has no Gauss-Newton matrix"):
        normalized_sharpness(opaque)
    x = torch.randn(4, 3)
    vector = LossSurface(nn.LayerNorm(3), "mse", (x, x))
    with pytest.raises(InputError, match="no weight of the surface has two axes"):
        normalized_sharpness(vector)
