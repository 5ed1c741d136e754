"""Cached planes, slices, barriers after alignment, curves: against plain evaluation and equivalences."""

import numpy as np
import pytest
import torch
from torch import nn

import fathometer as fm
from fathometer import CapabilityError, InputError
from fathometer.model import LossSurface, residual_cnn
from fathometer.sharpness import (
    barrier,
    canonical,
    connect,
    landscape,
    plane,
    rescalings,
    slice_through,
    trajectory_plane,
    units,
)
from fathometer.sharpness.paths import reestimated
from fathometer.sharpness.plane import Plane
from networks import Residual, mlp


def trained(model, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(40, 3, generator=g, dtype=torch.float64)
    y = (x[:, 0] * x[:, 1] > 0).long()
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return LossSurface(model, "cross_entropy", (x, y))


@pytest.fixture(scope="module")
def surface():
    torch.manual_seed(0)
    return trained(mlp().double())


@pytest.mark.parametrize(
    ("factory", "shape", "cached"),
    [
        (mlp, (3,), "0"),
        (Residual, (3,), "inp"),
        (lambda: residual_cnn(3, 2).eval(), (1, 8, 8), "stem"),
        (lambda: nn.Sequential(nn.Tanh(), nn.Linear(3, 2)), (3,), ""),
    ],
)
@pytest.mark.parametrize("cache", [plane.CACHE, 300])  # 300 bytes cut the chunks once more
def test_a_plane_has_the_energies_of_the_surface(factory, shape, cached, cache, monkeypatch):
    monkeypatch.setattr(plane, "WORTH", 0)
    monkeypatch.setattr(plane, "CACHE", cache)
    torch.manual_seed(0)
    model = factory().double()
    x = torch.randn(10, *shape, dtype=torch.float64)
    surface = LossSurface(model, "cross_entropy", (x, torch.arange(10) % 2), chunk=4)
    u, v = torch.randn(2, surface.size, dtype=torch.float64)
    moved = Plane(surface, (u, v))
    assert moved.cached == cached
    for a, b in ((0.0, 0.0), (0.3, -0.7), (-1.0, 0.2), (0.0, 0.0)):
        exact = float(surface.energy(surface.theta + a * u + b * v))
        assert moved.energy(a, b) == pytest.approx(exact, rel=1e-12)
    assert float(surface.energy()) == pytest.approx(moved.energy(0.0, 0.0), rel=1e-12)


def test_a_layer_with_few_weights_for_each_output_is_computed_anew():
    x, y = torch.randn(6, plane.WORTH), torch.arange(6) % 2
    for inputs, cached in ((plane.WORTH, "0"), (plane.WORTH - 1, "")):
        model = nn.Sequential(nn.Linear(inputs, 4), nn.ReLU(), nn.Linear(4, 2))
        surface = LossSurface(model, "cross_entropy", (x[:, :inputs], y))
        assert Plane(surface, (torch.ones(surface.size),)).cached == cached


def test_a_plane_of_a_loss_of_model_and_batch():
    model = mlp().double()
    data = [torch.randn(5, 3, dtype=torch.float64)]
    surface = LossSurface(model, lambda model, batch: model(batch).square().mean(1), data)
    u = torch.randn(surface.size, dtype=torch.float64)
    assert Plane(surface, (u,)).energy(0.5) == pytest.approx(float(surface.energy(surface.theta + 0.5 * u)))


def test_canonical_pictures_of_equivalent_networks_are_one(surface):
    moved = surface.around(rescalings(surface.write(), surface.example_inputs()).move(seed=4))
    first, second = (landscape(s, "canonical", 7, tolerance=None, seed=1) for s in (surface, moved))
    np.testing.assert_allclose(second.values, first.values, rtol=1e-5)
    plain = [landscape(s, "filter", 7, tolerance=None, seed=1).values for s in (surface, moved)]
    assert abs(plain[1] / plain[0] - 1).max() > 0.1
    assert "balanced point" in first.picture().caption


def test_the_balanced_point_has_the_smallest_norm_of_the_orbit(surface):
    """At the minimum the squared norms into and out of every hidden unit agree."""
    parts = canonical(surface).space.split(canonical(surface).theta)
    into = parts["0.weight"].square().sum(1) + parts["0.bias"].square()
    torch.testing.assert_close(into, parts["2.weight"].square().sum(0), rtol=1e-4, atol=1e-6)


def test_a_slice_goes_through_the_network(surface):
    d = torch.randn(surface.size, dtype=torch.float64)
    found = slice_through(surface, d, 5, span=0.4)
    exact = [float(surface.energy(surface.theta + t * d)) for t in (-0.4, -0.2, 0.0, 0.2, 0.4)]
    np.testing.assert_allclose(found.losses, exact)
    assert found.picture().title == "Loss along a path"


def test_the_plane_of_a_trajectory_is_that_of_its_largest_singular_values():
    g = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(20, 2, generator=g, dtype=torch.float64))[0]
    walk = torch.randn(8, 2, generator=g, dtype=torch.float64) @ basis.T + 5.0
    (u, v), places, shares = trajectory_plane(list(walk))
    assert shares.sum() == pytest.approx(1.0)
    rebuilt = walk[-1] + torch.from_numpy(places) @ torch.stack([u, v])
    torch.testing.assert_close(rebuilt, walk)
    assert np.abs(places[-1]).max() < 1e-12


def test_equivalent_networks_have_a_barrier_on_the_straight_line_and_none_after_alignment(surface):
    group = rescalings(surface.write(), surface.example_inputs())
    other = units(group.move(seed=1), surface.example_inputs()).permute(seed=2)
    straight = barrier(surface, other, aligned=False)
    assert straight.value > 0.05
    found = barrier(surface, other)
    assert found.value < 1e-8
    assert found.aligned == ("balancing the scales", "matching the units")
    assert "after balancing the scales and matching the units" in str(found)
    assert straight.losses[-1] == pytest.approx(float(surface.energy()), rel=1e-9)


@pytest.mark.parametrize("shape", ["bezier", "polygon"])
def test_a_trained_bend_lowers_the_barrier(surface, shape):
    torch.manual_seed(5)
    other = trained(mlp().double()).write()
    straight = barrier(surface, other, 21)
    curved = connect(surface, other, shape, steps=150, points=21)
    assert curved.value < 0.7 * straight.value
    assert curved.losses[0] == pytest.approx(straight.losses[0])
    assert curved.losses[-1] == pytest.approx(straight.losses[-1])
    assert len(curved.points) == 3


def test_a_tanh_network_is_aligned_by_its_units_alone():
    torch.manual_seed(0)
    surface = trained(mlp(nn.Tanh).double())
    other = units(surface.write(), surface.example_inputs()).permute(seed=2)
    found = barrier(surface, other)
    assert found.aligned == ("matching the units",)
    assert found.value < 1e-12


def test_batch_statistics_are_taken_anew():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).double().eval()
    x = torch.randn(30, 3, dtype=torch.float64)
    surface = LossSurface(model, "cross_entropy", (x, torch.arange(30) % 2))
    again = reestimated(surface).write()
    h = model[0](x).detach()
    torch.testing.assert_close(again[1].running_mean, h.mean(0))
    torch.testing.assert_close(again[1].running_var, h.var(0))
    other = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).double().eval()
    assert np.isfinite(barrier(surface, other, 5).losses).all()
    opaque = LossSurface(mlp(), lambda model, batch: model(batch).square().mean(1), [torch.ones(5, 3)])
    with pytest.raises(CapabilityError, match="its inputs are its own affair"):
        reestimated(opaque)


def test_paths_are_saved(surface, tmp_path):
    found = slice_through(surface, points=5)
    again = fm.load(found.save(tmp_path / "slice.safetensors"))
    np.testing.assert_array_equal(again.losses, found.losses)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: slice_through(s, points=2), "points is 2; at least 3 are needed"),
        (lambda s: slice_through(s, span=0.0), r"span is 0\.0; a positive number"),
        (lambda s: slice_through(s, "steepest"), "direction is 'steepest'; pass 'filter' or a vector"),
        (lambda s: connect(s, s.write(), "spline"), "shape is 'spline'; pass 'bezier' or 'polygon'"),
        (lambda s: connect(s, s.write(), steps=0), r"steps is 0 and step_size 0\.02; both must be positive"),
        (lambda s: trajectory_plane([[0.0, 1.0]]), "points holds 1 vectors; three or more of one length"),
        (lambda s: trajectory_plane([[0.0, 1.0], [0.0, 2.0], [0.0, 4.0]]), "the points lie on a line"),
    ],
)
def test_paths_that_are_none_are_refused(surface, call, message):
    with pytest.raises(InputError, match=message):
        call(surface)
