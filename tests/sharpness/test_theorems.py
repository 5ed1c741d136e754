"""Theorems 2 to 6 of the paper: the witness does what the proof says, measured by other means."""

import itertools
import math

import pytest
import torch
from torch import nn

from fathometer import InputError, TheoryWarning
from fathometer.model import LossSurface
from fathometer.sharpness.theorems import (
    constant_in_the_ball,
    disjoint_boxes,
    many_large_eigenvalues,
    sharp_norm,
    steep_gradient,
)


def minimum(bias=False):
    """A network at a global minimum: its own outputs are the targets. H is then Gauss-Newton, positive."""
    g = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    layers = [(4, 3), (3, 3), (3, 2)]
    parts = [part for a, b in layers for part in (nn.Linear(a, b, bias=bias), nn.ReLU())][:-1]
    model = nn.Sequential(*parts).double()
    with torch.no_grad():  # positive weights keep every unit alive
        for p in model.parameters():
            p.copy_(torch.rand(p.shape, generator=g, dtype=torch.float64) + 0.1)
    x = torch.rand(60, 4, generator=g, dtype=torch.float64) - 0.2
    return LossSurface(model, "half_mse", (x, model(x).detach()))


@pytest.mark.parametrize(("n1", "n2"), [(3, 3), (5, 2), (2, 5)])
def test_boxes_do_not_meet_and_have_at_least_the_first_volume(n1, n2):
    g = torch.Generator().manual_seed(1)
    first, second = torch.randn(n1, generator=g).double(), torch.randn(n2, generator=g).double()
    found = disjoint_boxes(first, second, 0.05, 6)
    low, high = found.centers - found.half_widths, found.centers + found.half_widths
    for i, j in itertools.combinations(range(6), 2):
        assert ((high[i] < low[j]) | (high[j] < low[i])).any()
    assert found.disjoint()
    assert (found.log_volumes >= (n1 + n2) * math.log(0.1) - 1e-9).all()
    assert found.value >= math.log(6) + (n1 + n2) * math.log(0.1) - 1e-9


def test_the_loss_is_low_on_every_box():
    """L(w1, w2) = (w1 w2 - 1)^2, which depends on the product alone as a rectified network does."""
    first, second, radius = torch.tensor([1.0]).double(), torch.tensor([1.0]).double(), 0.1
    found = disjoint_boxes(first, second, radius, 4)
    corners = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=2))).double()
    levels = []
    for center, width in zip(found.centers, found.half_widths, strict=True):
        points = center + corners * width
        levels.append(float(((points[:, 0] * points[:, 1] - 1) ** 2).max()))
    assert max(levels) == pytest.approx(levels[0], rel=1e-9)


@pytest.mark.parametrize("wanted", [1e3, 1e8])
@pytest.mark.parametrize("bias", [False, True])
def test_any_spectral_norm_is_reached(wanted, bias):
    surface = minimum(bias)
    found = sharp_norm(surface, wanted)
    dense = surface.around(found.model).hessian().to_dense()
    assert float(torch.linalg.eigvalsh(dense)[-1]) >= wanted * (1 - 1e-9)
    assert found.measured >= found.guaranteed * (1 - 1e-9) >= wanted * (1 - 2e-9)
    torch.testing.assert_close(surface.around(found.model).outputs(), surface.outputs())
    assert "spectral norm of the Hessian" in str(found)
    assert (found.kind, found.value) == ("bound", found.measured)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("threshold", [10.0, 1e5])
def test_as_many_eigenvalues_are_large_as_promised(bias, threshold):
    surface = minimum(bias)
    found = many_large_eigenvalues(surface, threshold)
    dense = surface.around(found.model).hessian().to_dense()
    count = int((torch.linalg.eigvalsh(dense) > threshold).sum())
    eigenvalues = torch.linalg.eigvalsh(surface.hessian().to_dense())
    rank = int((eigenvalues > 1e-9 * eigenvalues[-1]).sum())
    assert count == found.measured >= found.guaranteed > 0
    if not bias:
        assert found.guaranteed == rank - 6  # the smallest layer has 3 x 2 weights


def test_the_gradient_has_any_norm_on_the_orbit():
    surface = minimum()
    surface = surface.at(surface.theta * 1.1)
    found = steep_gradient(surface, 1e6)
    moved = surface.around(found.model)
    assert float(moved.gradient().norm()) >= 1e6 * (1 - 1e-9)
    assert float(moved.energy()) == pytest.approx(float(surface.energy()), rel=1e-9)


def test_a_small_ball_holds_a_constant_function():
    surface = minimum()
    found = constant_in_the_ball(surface, 1e-3)
    moved = surface.around(found.model)
    theta = moved.theta
    at = surface.space.positions("0.weight")
    assert float(theta[at].norm()) == pytest.approx(1e-3)
    theta[at] = 0.0
    outputs = moved.outputs(theta)
    assert float((outputs - outputs[0]).abs().max()) == 0.0
    mean_square = float(surface.outputs().square().mean() / 2)
    assert found.measured == pytest.approx(mean_square, rel=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: sharp_norm(s, 0.0), "norm is 0.0; a positive number"),
        (lambda s: steep_gradient(s, math.nan), "norm is nan; a positive number"),
        (lambda s: steep_gradient(s, 1.0), "the gradient is zero in 0.weight, 2.weight"),
        (lambda s: many_large_eigenvalues(s, -1.0), "threshold is -1.0"),
        (lambda s: constant_in_the_ball(s, 0.0), "radius is 0.0; a positive number"),
        (lambda s: sharp_norm(s, 1.0, layers=["0"]), r"layers is \['0'\]; two or more of 0.weight"),
        (lambda s: sharp_norm(s, 1.0, layers=["0", "9"]), "two or more of"),
    ],
)
def test_wishes_without_a_witness_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call(minimum())


def test_boxes_around_the_origin_are_refused():
    with pytest.raises(InputError, match=r"radius is 1\.0; it must lie between 0 and 0.5"):
        disjoint_boxes(torch.tensor([0.5]), torch.tensor([2.0]), 1.0, 2)
    with pytest.raises(InputError, match="count is 0; at least one box"):
        disjoint_boxes(torch.tensor([0.5]), torch.tensor([2.0]), 0.1, 0)


def test_networks_without_curvature_have_no_witness():
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    flat = LossSurface(model, lambda out, y: 0.0 * out.sum(1) + 1.0, (torch.ones(3, 2), torch.ones(3)))
    with pytest.raises(InputError, match=r"no diagonal entry of the Hessian in 0\.weight, 2\.weight"):
        sharp_norm(flat, 1.0)
    with pytest.raises(InputError, match="the Hessian has no positive eigenvalue"):
        many_large_eigenvalues(flat, 1.0)


def test_a_slope_is_no_minimum():
    surface = minimum()
    with pytest.warns(TheoryWarning, match="this is no minimum"):
        sharp_norm(surface.at(surface.theta * 1.5), 10.0)
