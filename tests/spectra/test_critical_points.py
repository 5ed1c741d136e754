"""Searches on surfaces whose critical points are known, and the traps of such searches."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import fathometer as fm
from fathometer.errors import BudgetError, InputError
from fathometer.model.dense import DenseDerivatives
from fathometer.spectra import critical_points


class Point(nn.Module):
    """A model that is its parameter vector; the loss is a function of it."""

    def __init__(self, theta):
        super().__init__()
        self.theta = nn.Parameter(torch.as_tensor(theta, dtype=torch.float64))


def surface_of(function, theta):
    return fm.LossSurface(Point(theta), lambda model, batch: (function(model.theta), 1), [torch.zeros(1, 1)])


def wells(theta):
    """Critical points at all of {-1, 0, 1}^P; a zero is a negative direction and costs 1/4."""
    return ((theta**2 - 1) ** 2).sum() / 4


def tiny_network(seed):
    g = torch.Generator().manual_seed(seed)
    net = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Tanh(), nn.Linear(3, 3, bias=False)).double()
    for p in net.parameters():
        p.data = torch.randn(p.shape, generator=g, dtype=torch.float64) / 3**0.5
    x, y = (torch.randn(12, 3, generator=g, dtype=torch.float64) for _ in range(2))
    return fm.LossSurface(net, "half_mse", (x, y))


@pytest.mark.parametrize("index", [0, 1, 3])
@pytest.mark.parametrize("seed", [0, 5])
def test_saddles_of_a_wanted_index_are_found_and_counted(index, seed):
    start = torch.randn(6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = critical_points(surface_of(wells, start), 2 if index else 1, index=index, seed=seed)
    assert found.rows
    for row in found:
        nearest = row.theta.round()
        torch.testing.assert_close(row.theta, nearest, atol=1e-7, rtol=0)
        assert row.negative == index == int((nearest == 0).sum()) and row.index == index / 6
        assert row.energy == pytest.approx(0.25 * index, abs=1e-12) and row.gradient_norm <= 1e-8
    places = {tuple(row.theta.round().tolist()) for row in found}
    assert len(places) == len(found.rows)  # never the same point twice


@pytest.mark.parametrize("place", [[1.0, 0.0, -1.0, 0.0], [0.0, 0.0, 0.0, 0.0], [1.0, 1.0, -1.0, 1.0]])
def test_a_known_critical_point_is_found_again_from_beside_it(place):
    beside = torch.tensor(place, dtype=torch.float64) + 1e-6 * torch.tensor([1.0, -1.0, 0.5, 2.0])
    (row,) = critical_points(surface_of(wells, beside), 1, attempts=1)
    np.testing.assert_allclose(row.theta, place, atol=1e-12)


def test_a_point_of_a_network_is_critical_and_its_index_is_that_of_the_hessian():
    found = critical_points(tiny_network, 2, seed=3, attempts=40)
    assert len(found.rows) == 2
    for row in found:
        surface = tiny_network(3 + row.attempt).at(row.theta)
        assert float(torch.linalg.vector_norm(surface.gradient())) <= 1e-8
        values = torch.linalg.eigvalsh(surface.hessian().to_dense())
        assert int((values < -1e-10 * values.abs().max()).sum()) == row.negative
        assert row.energy == pytest.approx(float(surface.energy()), rel=1e-12)
        assert row.step_left < 1e-6


def memorizing(seed):
    """The paper's experiment: a tanh network of width 8 and Gaussian data, half a parameter a target."""
    g = torch.Generator().manual_seed(seed)
    net = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Tanh(), nn.Linear(8, 8, bias=False)).double()
    for p in net.parameters():
        p.data = torch.randn(p.shape, generator=g, dtype=torch.float64) / 8**0.5
    x, y = (torch.randn(32, 8, generator=g, dtype=torch.float64) for _ in range(2))
    return fm.LossSurface(net, "half_mse", (x, y))


def test_networks_of_the_papers_kind_yield_critical_points_that_grow_with_energy():
    found = critical_points(memorizing, 2, 1e-10, attempts=64)
    assert len(found.rows) == 2
    for row in found:
        surface = memorizing(row.attempt).at(row.theta)
        assert float(torch.linalg.vector_norm(surface.gradient())) <= 1e-10
        values = torch.linalg.eigvalsh(surface.hessian().to_dense())
        assert int((values < 0).sum()) == row.negative and row.smallest > 1e-9


def test_a_factory_gives_saddles_of_a_wanted_index_too():
    found = critical_points(tiny_network, 2, seed=3, index=3, attempts=64)
    assert [row.negative for row in found] == [3, 3]


def test_the_gradient_norm_method_finds_wells_too():
    found = critical_points(surface_of(wells, [0.3, -0.8, 0.9, 0.05]), 3, method="gradient_norm", attempts=40)
    assert len(found.rows) == 3
    for row in found:
        torch.testing.assert_close(row.theta, row.theta.round(), atol=1e-7, rtol=0)


def test_a_gradient_flat_tail_is_refused():
    # the gradient falls below any tolerance far out, and there is no critical point anywhere
    surface = surface_of(lambda theta: torch.nn.functional.softplus(-theta).sum(), [25.0, 30.0])
    assert float(torch.linalg.vector_norm(surface.gradient())) < 1e-8
    found = critical_points(surface, 1, attempts=3, tolerance=1e-8)
    assert not found.rows and found.refused >= 1
    assert any("no critical point; refused" in note for note in found.notes)


def test_a_minimum_of_the_squared_gradient_is_no_critical_point():
    # g = (1 + x^2) > 0 everywhere, smallest at x = 0 where its slope vanishes: gradient-flat
    surface = surface_of(lambda theta: (theta + theta**3 / 3).sum(), [0.4])
    found = critical_points(surface, 1, attempts=2, method="gradient_norm")
    assert not found.rows and "0 of 1 points found in 2 searches" in found.notes[0]


def test_dense_derivatives_are_those_of_the_surface():
    surface = tiny_network(0)
    energy, gradient, H = DenseDerivatives(surface)(surface.theta)
    assert energy == pytest.approx(float(surface.energy()))
    torch.testing.assert_close(gradient, surface.gradient())
    torch.testing.assert_close(H, surface.hessian().to_dense())
    flat = surface_of(lambda theta: theta.sum(), [1.0, 2.0])
    assert DenseDerivatives(flat)(flat.theta)[2].abs().max() == 0
    assert not critical_points(flat, 1, attempts=1).rows


def test_answers_repeat_draw_and_survive_the_disk(tmp_path):
    surface = surface_of(wells, [0.5, -0.4, 0.2])
    first, again = (critical_points(surface, 3, seed=1) for _ in range(2))
    assert [r.energy for r in first] == [r.energy for r in again]
    loaded = fm.load(first.save(tmp_path / "points"))
    dots = loaded.picture().panels[0].marks[0]
    np.testing.assert_array_equal(dots.x, [r.energy for r in first])
    torch.testing.assert_close(surface.theta, torch.tensor([0.5, -0.4, 0.2], dtype=torch.float64))
    assert math.isfinite(first[0].norm)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: critical_points(s, 0), "count is 0; at least 1"),
        (lambda s: critical_points(s, 1, attempts=0), "attempts is 0"),
        (lambda s: critical_points(s, 1, tolerance=0.0), "tolerance is 0"),
        (lambda s: critical_points(s, 1, index=9), "index is 9; a surface of 2 parameters has 0 to 2"),
        (lambda s: critical_points(s, 1, method="sgd"), "method is 'sgd'"),
        (lambda s: critical_points(tiny_network, 1, index=19), "index is 19; a surface of 18 parameters"),
        (
            lambda s: critical_points(lambda i: tiny_network(0) if i else s, 1, attempts=2),
            "surfaces of 2 and 18 parameters; one size is needed",
        ),
        (lambda s: critical_points(np.eye(2), 1), "surface_or_factory is a ndarray"),
        (lambda s: critical_points(lambda seed: seed, 1), "factory returned a int for seed 0"),
    ],
)
def test_critical_points_refuse_what_has_no_meaning(call, message):
    with pytest.raises(InputError, match=message):
        call(surface_of(wells, [0.5, 0.1]))


def test_a_dense_hessian_beyond_the_budget_is_refused():
    surface = surface_of(wells, torch.zeros(300))
    with fm.budget(2_000_000), pytest.raises(BudgetError, match="dense derivatives of 300 parameters"):
        DenseDerivatives(surface)
