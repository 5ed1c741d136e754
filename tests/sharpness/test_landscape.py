"""The loss on a plane: the right points, the right plane, and errors that hold."""

import math
import sys
from fractions import Fraction
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import fathometer as fm
from fathometer import InputError
from fathometer.model import LossSurface
from fathometer.sharpness import landscape, rescalings
from fathometer.sharpness.landscape import certified_share, filter_direction
from fathometer.sharpness.plane import Plane
from networks import mlp


@pytest.fixture(scope="module")
def surface():
    torch.manual_seed(0)
    g = torch.Generator().manual_seed(0)
    x = torch.randn(30, 3, generator=g, dtype=torch.float64)
    return LossSurface(mlp().double(), "cross_entropy", (x, torch.randint(0, 2, (30,), generator=g)))


@pytest.fixture(scope="module")
def planar():
    """The loss is a linear function of the weights: second differences on a grid must vanish."""
    model = nn.Linear(3, 2, bias=False).double()
    x = torch.randn(10, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return LossSurface(model, lambda out, y: out @ torch.tensor([1.0, -2.0]).to(out), (x, torch.zeros(10)))


@pytest.mark.parametrize("tolerance", [None, 0.01])
def test_a_linear_loss_gives_a_plane(planar, tolerance):
    u, v = torch.randn(2, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = landscape(planar, (u, v), 13, span=2.0, tolerance=tolerance)
    g = planar.gradient()
    a, b = found.axes
    expected = float(planar.energy()) + a[:, None] * float(g @ u) + b[None, :] * float(g @ v)
    np.testing.assert_allclose(found.values, expected, atol=1e-12)


@pytest.mark.parametrize("directions", ["filter", "hessian"])
def test_every_point_lies_where_axes_and_directions_say(surface, directions):
    found = landscape(surface, directions, 4, span=0.5, tolerance=None)
    u, v = found.directions
    for i, a in enumerate(found.axes[0]):
        for j, b in enumerate(found.axes[1]):
            exact = float(surface.energy(surface.theta + a * u + b * v))
            assert found.values[i, j] == pytest.approx(exact, rel=1e-12)
    assert (found.kind, found.error, found.evaluations) == ("exact", 0.0, 17)
    assert found.axes[0][0] == -0.5


def test_filters_have_the_norm_of_the_networks_own_and_biases_stay(surface):
    for direction in landscape(surface, "filter", 2, tolerance=None).directions:
        parts = surface.space.split(direction)
        for name, weight in surface.space.split(surface.theta).items():
            if weight.ndim == 1:
                assert not parts[name].any()
            else:
                torch.testing.assert_close(parts[name].norm(dim=1), weight.norm(dim=1))


def test_the_hessian_plane_holds_the_two_sharpest_directions(surface):
    u, v = landscape(surface, "hessian", 2, tolerance=None).directions
    H = surface.hessian().to_dense()
    values, vectors = torch.linalg.eigh(H)
    for direction, i in ((u, -1), (v, -2)):
        assert abs(float(direction @ vectors[:, i])) == pytest.approx(1.0, abs=1e-6)
        assert float(direction @ H @ direction) == pytest.approx(float(values[i]), rel=1e-6)


@pytest.mark.parametrize("seed", [0, 1])
def test_interpolated_values_are_within_the_tolerance_everywhere(surface, seed):
    exact = landscape(surface, "filter", 31, seed=seed, tolerance=None)
    fast = landscape(surface, "filter", 31, seed=seed, tolerance=0.02)
    assert fast.kind == "estimate"
    assert fast.evaluations < 0.6 * exact.evaluations
    gap, size = np.abs(fast.values - exact.values).max(), np.ptp(exact.values)
    assert fast.error <= 0.02 * size
    assert gap <= 0.02 * size  # at every point, not only at those held out


def certified_networks():
    """Rectifiers, a deep chain of them, tanh, and convolutions with BatchNorm; trained and not."""
    for seed, steps in ((0, 30), (1, 0)):
        torch.manual_seed(seed)
        deep = [layer for _ in range(4) for layer in (nn.Linear(6, 6), nn.ReLU())]
        yield mlp(), (3,), steps
        yield nn.Sequential(nn.Linear(3, 6), *deep, nn.Linear(6, 2)), (3,), steps
        yield nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2)), (3,), steps
        convolutions = (nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(27, 2))
        yield nn.Sequential(*convolutions), (1, 5, 5), steps


def trained_surface(model, shape, steps):
    x, y = torch.randn(16, *shape, dtype=torch.float64), torch.arange(16) % 2
    model = model.double()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return LossSurface(model.eval(), "cross_entropy", (x, y))


def test_the_certificate_holds_on_twenty_four_planes():
    interpolated = 0
    for network in certified_networks():
        surface = trained_surface(*network)
        for seed, directions in enumerate(("filter", "filter", "hessian")):
            fast = landscape(surface, directions, 15, tolerance=0.05, confidence=0.999, seed=seed)
            exact = landscape(surface, directions, 15, tolerance=None, seed=seed)
            off = np.abs(fast.values - exact.values)
            assert fast.error <= 0.05 * np.ptp(exact.values)
            assert (off <= fast.error + 1e-12).mean() >= fast.coverage
            assert fast.level == ("exact" if fast.coverage == 1 else "probabilistic")
            interpolated += fast.coverage < 1
    assert interpolated >= 20


@pytest.mark.parametrize(("confidence", "vain"), [(0.5, False), (0.95, True)])
def test_the_certificate_fails_no_more_often_than_it_says(confidence, vain, monkeypatch):
    """Two hundred draws on one plane with kinks, against the loss at all of its points."""
    _, network, *_ = certified_networks()
    surface = trained_surface(*network)
    u, v = (filter_direction(surface, 0, i) for i in (0, 1))
    exact = landscape(surface, (u, v), 21, tolerance=None)
    energy = cache(Plane(surface, (u, v)).energy)
    monkeypatch.setattr(sys.modules[landscape.__module__], "Plane", lambda *_: SimpleNamespace(energy=energy))
    failed = 0
    for seed in range(200):
        fast = landscape(surface, (u, v), 21, tolerance=0.05, confidence=confidence, seed=seed)
        assert 0.5 < fast.coverage < 1
        failed += (np.abs(fast.values - exact.values) <= fast.error + 1e-12).mean() < fast.coverage
    assert failed <= 200 * (1 - confidence)
    assert vain or failed > 0  # the test can fail: at half confidence some draws do


@pytest.mark.parametrize(("total", "drawn"), [(60, 12), (441, 32), (2601, 153), (40, 39), (9, 1)])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.999])
def test_the_share_is_the_largest_that_the_odds_of_a_draw_allow(total, drawn, confidence):
    """Counted: of all draws, C(total - k, drawn) miss the k worst numbers."""
    k = round(total * (1 - certified_share(total, drawn, confidence)))

    def missed(worst):
        return Fraction(math.comb(total - worst, drawn), math.comb(total, drawn))

    assert missed(k + 1) <= 1 - Fraction(confidence)  # k + 1 numbers above the largest drawn: too unlikely
    assert k == 0 or missed(k) > 1 - Fraction(confidence)  # k of them would not have been
    assert certified_share(total, drawn, confidence, 4) <= certified_share(total, drawn, confidence)


def test_no_bound_on_the_largest_error_follows_from_points_that_were_looked_at():
    """A spike at one point of the picture is not seen; the share of the points that it is holds."""
    axis = np.linspace(-1.0, 1.0, 51)
    peak = torch.tensor([axis[7], axis[31]])

    def spike(out, _):
        return out.sum(1) + torch.exp(-((out - peak).square().sum(1) / 1e-5))

    model = nn.Linear(1, 2, bias=False).double()
    with torch.no_grad():
        model.weight.zero_()
    surface = LossSurface(model, spike, (torch.ones(1, 1, dtype=torch.float64), torch.zeros(1)))
    found = landscape(surface, tuple(torch.eye(2, dtype=torch.float64)), 51)
    off = np.abs(found.values - (axis[:, None] + axis[None, :]))
    off[7, 31] = abs(found.values[7, 31] - (axis[7] + axis[31] + 1.0))
    assert found.error < 1e-12 < 0.99 < off.max()
    assert found.coverage <= (off <= 1e-12).mean() < 1
    assert "% of the points or more, with confidence 0.99" in found.certificate()


def test_a_rough_loss_is_evaluated_point_by_point():
    model = nn.Linear(2, 1, bias=False).double()
    x = torch.eye(2, dtype=torch.float64)
    rough = LossSurface(model, lambda out, y: torch.sin(300 * out).flatten(), (x, torch.zeros(2)))
    found = landscape(rough, tuple(torch.eye(2)), 30, span=1.0)
    assert found.kind == "exact"
    i, j = 3, 17
    theta = rough.theta + torch.tensor([found.axes[0][i], found.axes[1][j]])
    assert found.values[i, j] == pytest.approx(float(rough.energy(theta)), abs=1e-12)


def test_the_surface_and_the_seed_stay_as_they_were(surface):
    before = torch.random.get_rng_state()
    theta = surface.theta
    first, again = (landscape(surface, "filter", 3, seed=4, tolerance=None) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(surface.theta, theta)
    assert np.array_equal(first.values, again.values)


def test_the_moved_directions_of_a_moved_network_give_the_same_landscape(surface):
    group = rescalings(surface.write(), surface.example_inputs())
    moved = surface.around(group.move(seed=1))
    here = landscape(surface, "filter", 5, tolerance=None)
    factor = moved.theta / surface.theta
    there = landscape(moved, tuple(factor * d for d in here.directions), 5, tolerance=None)
    # T(theta + a u) = T theta + a T u for a linear map T, and T keeps the loss
    np.testing.assert_allclose(there.values, here.values, rtol=1e-10)


def test_the_landscape_is_drawn_and_saved(surface, tmp_path):
    found = landscape(surface, "filter", 5, tolerance=None)
    heat, point = found.picture().panels[0].marks
    assert np.array_equal(heat.values, found.values)
    assert (heat.x_range, point.x) == ((-1.25, 1.25), [0.0])
    again = fm.load(found.save(tmp_path / "landscape.safetensors"))
    assert np.array_equal(again.values, found.values)
    assert str(again) == str(found)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: landscape(s, points=1), "points is 1; at least 2 along each axis"),
        (lambda s: landscape(s, span=0.0), "span is 0.0; a positive number"),
        (lambda s: landscape(s, confidence=1.0), "confidence is 1.0; a probability between 0 and 1"),
        (lambda s: landscape(s, tolerance=0.0), "tolerance is 0.0; pass a share of the range"),
        (
            lambda s: landscape(s, "pca"),
            "directions is 'pca'; pass 'filter', 'canonical', 'hessian' or two vectors",
        ),
        (lambda s: landscape(s, 3), "directions is a int; pass 'filter'"),
        (
            lambda s: landscape(s, (torch.ones(2), torch.ones(2))),
            r"directions\[0\] has shape \(2,\); a finite vector \(54,\)",
        ),
        (lambda s: landscape(s, (s.theta, 2 * s.theta)), "directions are parallel"),
        (lambda s: landscape(s, (s.theta, 0 * s.theta)), r"directions\[1\] is zero"),
    ],
)
def test_planes_that_are_none_are_refused(surface, call, message):
    with pytest.raises(InputError, match=message):
        call(surface)


def test_a_surface_of_one_parameter_or_without_filters_needs_directions():
    model = nn.Linear(1, 1, bias=False).double()
    line = LossSurface(model, "mse", (torch.ones(3, 1), torch.ones(3, 1)))
    with pytest.raises(InputError, match="one parameter; a plane needs two directions"):
        landscape(line, "hessian")
    torch.manual_seed(0)
    network = mlp().double()
    biases = LossSurface(network, "mse", (torch.ones(3, 3), torch.ones(3, 2)), parameters="*.bias")
    with pytest.raises(InputError, match="no filter with a norm"):
        landscape(biases)
