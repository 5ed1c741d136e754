"""Flatness measures of a linear model with squared loss: a quadratic, so every answer is known."""

import itertools
import math

import pytest
import torch
from torch import nn

from fathometer import InputError, TheoryWarning
from fathometer.model import LossSurface
from fathometer.sharpness import (
    adaptive,
    curvature,
    epsilon_sharpness,
    hessian_frobenius,
    hessian_norm,
    hessian_trace,
    keskar,
)
from fathometer.sharpness.curvature import slope, warn_if_sloped

D = 6


@pytest.fixture(scope="module")
def quadratic():
    """Surface at its minimum, its Hessian (D, D) and its weights."""
    g = torch.Generator().manual_seed(0)
    X, w = (
        torch.randn(50, D, generator=g, dtype=torch.float64),
        torch.randn(D, generator=g, dtype=torch.float64),
    )
    model = nn.Linear(D, 1, bias=False).double()
    model.weight.data = w[None, :].clone()
    return LossSurface(model, "half_mse", (X, X @ w[:, None])), X.T @ X / 50, w


def corners(half_width):
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=len(half_width))), dtype=torch.float64)
    return signs * half_width


def test_a_trace_that_must_be_sampled_costs_what_the_operations_pay_for(monkeypatch):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(4, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 2)
    ).double()
    surface = LossSurface(model, "cross_entropy", (torch.randn(9, 4).double(), torch.arange(9) % 2))
    exact = float(surface.hessian().to_dense().trace())
    monkeypatch.setattr(curvature, "OPERATIONS", 1.0)
    monkeypatch.setattr(curvature, "MOST_SKETCHED", 100)
    found = hessian_trace(surface)
    assert (found.method, found.kind) == ("hutchinson", "estimate")
    assert found.cost <= curvature.FEWEST_PRODUCTS
    assert 0 < abs(found.value - exact) < 4 * found.error
    monkeypatch.setattr(curvature, "OPERATIONS", 3e12)
    assert hessian_trace(surface, tolerance=0.1).cost > curvature.FEWEST_PRODUCTS


def test_hessian_measures_of_a_quadratic(quadratic):
    surface, H, _ = quadratic
    eigenvalues = torch.linalg.eigvalsh(H)
    assert hessian_norm(surface).value == pytest.approx(float(eigenvalues.abs().max()), rel=1e-9)
    assert hessian_trace(surface).value == pytest.approx(float(H.trace()), rel=1e-9)
    assert hessian_frobenius(surface).value == pytest.approx(float(H.norm()), rel=1e-9)
    assert hessian_norm(surface).kind == "exact"


def test_the_norm_of_an_indefinite_hessian_is_the_larger_end(quadratic):
    surface, H, _ = quadratic
    flipped = LossSurface(surface.write(), lambda out, y: -((out - y) ** 2).mean(1) / 2, _data(surface))
    assert hessian_norm(flipped).value == pytest.approx(float(torch.linalg.eigvalsh(H)[-1]), rel=1e-6)


def _data(surface):
    x = surface.example_inputs(surface.examples)[0]
    return x, surface.outputs().detach()


@pytest.mark.parametrize("radius", [1e-3, 0.1, 3.0])
def test_ball_sharpness_of_a_quadratic_is_half_the_norm_times_the_square(quadratic, radius):
    surface, H, _ = quadratic
    found = epsilon_sharpness(surface, radius)
    exact = float(torch.linalg.eigvalsh(H)[-1]) * radius**2 / 2
    assert found.kind == "bound"
    assert found.value <= exact * (1 + 1e-9)
    assert found.value >= exact * 0.999


def test_box_sharpness_reaches_the_best_corner(quadratic):
    surface, H, w = quadratic
    moves = corners(1e-2 * (w.abs() + 1))
    exact = 100 * float((0.5 * ((moves @ H) * moves).sum(1)).max())
    assert exact * 0.999 <= keskar(surface, 1e-2).value <= exact * (1 + 1e-9)


def test_box_sharpness_in_a_subspace_stays_below_its_own_best_corner(quadratic):
    surface, H, w = quadratic
    found = keskar(surface, 1e-2, subspace=3, seed=4)
    from fathometer.work import generator

    A = torch.randn(D, 3, generator=generator(4, "keskar", "frame"), dtype=torch.float64)
    moves = corners(1e-2 * ((torch.linalg.pinv(A) @ w).abs() + 1)) @ A.T
    exact = 100 * float((0.5 * ((moves @ H) * moves).sum(1)).max())
    assert exact * 0.999 <= found.value <= exact * (1 + 1e-9)


def test_adaptive_worst_cases_reach_their_optimum(quadratic):
    surface, H, w = quadratic
    scaled = w[:, None] * H * w
    ball = float(torch.linalg.eigvalsh(scaled)[-1]) * 0.01 / 2
    assert ball * 0.999 <= adaptive(surface, 0.1).value <= ball * (1 + 1e-9)
    moves = corners(0.1 * w.abs())
    box = float((0.5 * ((moves @ H) * moves).sum(1)).max())
    assert box * 0.999 <= adaptive(surface, 0.1, norm=math.inf).value <= box * (1 + 1e-9)


@pytest.mark.parametrize(("norm", "variance"), [(2, 1.0), (math.inf, 1 / 3)])
def test_adaptive_averages_agree_with_the_trace(quadratic, norm, variance):
    surface, H, w = quadratic
    found = adaptive(surface, 0.1, norm=norm, average=True, samples=1500)
    exact = 0.01 * variance * float((H.diag() * w**2).sum()) / 2
    assert abs(found.value - exact) < 5 * found.error
    assert found.error < 0.1 * exact


def test_zero_weights_stay_zero_in_adaptive_neighborhoods(quadratic):
    surface, H, w = quadratic
    w = w.clone()
    w[2] = 0.0
    at = surface.at(w)
    keep = [i for i in range(D) if i != 2]
    scaled = (w[:, None] * H * w)[keep][:, keep]
    gradient = H @ (w - surface.theta)
    slope_part = (w * gradient)[keep]

    def rise(move):
        return float(slope_part @ move + 0.5 * move @ scaled @ move)

    directions = torch.randn(20000, D - 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    sampled = max(rise(0.1 * v / v.norm()) for v in directions)
    found = adaptive(at, 0.1).value
    assert found >= sampled * 0.999
    assert found <= float(slope_part.norm()) * 0.1 + 0.005 * float(torch.linalg.eigvalsh(scaled)[-1]) + 1e-12


def test_sharpness_is_not_zero_at_a_minimum_with_zero_gradient(quadratic):
    surface, *_ = quadratic
    assert float(surface.gradient().norm()) == 0.0
    assert keskar(surface, 5e-4).value > 0
    assert epsilon_sharpness(surface, 1e-4).value > 0


def test_slope_of_a_quadratic_is_the_share_of_the_loss_one_exact_step_gains(quadratic):
    surface, H, _ = quadratic
    at = surface.at(surface.theta + torch.linspace(0.1, 1.0, D, dtype=torch.float64))
    g = H @ (at.theta - surface.theta)
    norm, share = slope(at)
    best_step = float(g @ g / (g @ H @ g))
    gained = float(at.energy() - surface.energy(at.theta - best_step * g))
    assert norm == pytest.approx(float(g.norm()))
    assert share == pytest.approx(gained / float(at.energy()), rel=1e-9)


def test_a_point_on_a_slope_is_called_one(quadratic):
    surface, *_ = quadratic
    with pytest.warns(TheoryWarning, match="so this is no minimum and flatness measures describe a slope"):
        warn_if_sloped(surface.at(surface.theta + 1.0))
    warn_if_sloped(surface)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: epsilon_sharpness(s, 0.0), "radius is 0.0; a positive number"),
        (lambda s: epsilon_sharpness(s, float("nan")), "radius is nan"),
        (lambda s: keskar(s, -1.0), "radius is -1.0"),
        (lambda s: keskar(s, 1e-3, subspace=0), r"subspace is 0; pass a number of columns, 1 to 6"),
        (lambda s: keskar(s, 1e-3, subspace=7), "subspace is 7"),
        (lambda s: adaptive(s, 0.1, norm=1), "norm is 1; pass 2 or math.inf"),
        (lambda s: adaptive(s, 0.1, average=True, samples=1), "samples is 1; a standard error needs"),
        (lambda s: epsilon_sharpness(s, 0.1, starts=0), "starts is 0 and steps is 30"),
    ],
)
def test_arguments_out_of_range_are_refused(quadratic, call, message):
    with pytest.raises(InputError, match=message):
        call(quadratic[0])


def test_a_negative_loss_has_no_relative_rise(quadratic):
    surface, *_ = quadratic
    shifted = LossSurface(surface.write(), lambda out, y: (out - y).square().mean(1) - 2.0, _data(surface))
    with pytest.raises(InputError, match=r"the loss is -2; this measure divides by 1 \+ loss"):
        epsilon_sharpness(shifted, 0.1)
