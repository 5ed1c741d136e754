"""Geodesic sharpness on attention: constant along all symmetries, and its paths are geodesics."""

import pytest
import torch
from torch import nn

import fathometer as fm
from fathometer import InputError
from fathometer.model import LossSurface
from fathometer.sharpness import geodesic, rescalings
from fathometer.sharpness.attention import heads
from fathometer.sharpness.geodesic import _frame, halves_of, with_heads


@pytest.fixture(scope="module")
def surface():
    model = fm.model.transformer(4, 2, 1, 2, seed=0).double()
    x = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.arange(16) % 2
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(25):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return LossSurface(model, "cross_entropy", (x, y))


def test_geodesic_sharpness_is_constant_over_matrices_at_the_heads(surface):
    group = heads(surface.write(), surface.example_inputs())
    assert group.dimension == 2 * 2 * 4
    # two starts: the sharpest direction, which moves with the network
    here = float(geodesic(surface, 0.05, starts=2, steps=8, attention=True).value)
    for condition, tolerance in ((100.0, 1e-6), (1e4, 1e-4)):  # the climb itself stops at about 1e-5
        moved = surface.around(group.move(seed=2, condition=condition))
        there = float(geodesic(moved, 0.05, starts=2, steps=8, attention=True).value)
        assert there == pytest.approx(here, rel=tolerance)
    plain = [float(geodesic(s, 0.05, starts=2, steps=8).value) for s in (surface, moved)]
    assert plain[1] != pytest.approx(plain[0], rel=0.1)


def test_geodesic_sharpness_of_a_transformer_is_constant_over_rescalings(surface):
    moved = surface.around(rescalings(surface.write(), surface.example_inputs()).move(seed=1))
    here, there = (float(geodesic(s, 0.05, starts=2, steps=8).value) for s in (surface, moved))
    assert there == pytest.approx(here, rel=1e-6)


def test_the_ball_is_that_of_the_metric(surface):
    """The derivative of the map pulls the metric back to the identity."""
    halves = halves_of(surface)
    curved = with_heads(surface, halves)
    J = torch.func.jacrev(curved.bijection.to_theta)(curved.theta)
    theta = surface.theta
    metric = torch.diag(1 / theta**2)
    for at in halves:
        G = theta[at]
        inverse = torch.linalg.inv(G.T @ G).contiguous()
        flat = at.reshape(-1)
        metric[flat] = 0.0
        metric[:, flat] = 0.0
        metric[flat[:, None], flat[None]] = torch.kron(torch.eye(len(G), dtype=G.dtype), inverse)
    torch.testing.assert_close(J.T @ metric @ J, torch.eye(len(theta), dtype=theta.dtype), atol=1e-7, rtol=0)


def test_paths_solve_the_geodesic_equation_at_the_start():
    """For one column the metric is (x / |G|)^2; by differences of its Christoffel symbols the bend agrees."""
    G = torch.randn(4, 2, dtype=torch.float64)

    def metric(flat):
        M = flat.reshape(4, 2)
        inverse = torch.linalg.inv(M.T @ M)
        return torch.einsum("rs,de->rdse", torch.eye(4, dtype=torch.float64), inverse).reshape(8, 8)

    x = torch.randn(4, 2, dtype=torch.float64)
    D = torch.func.jacrev(metric)(G.reshape(-1))  # D[i, j, k] = d g_ij / d w_k
    lowered = 0.5 * (D + D.transpose(1, 2) - D.permute(2, 1, 0))  # Christoffel symbols, first index lowered
    v = x.reshape(-1)
    exact = torch.linalg.solve(metric(G.reshape(-1)), torch.einsum("ijk,j,k->i", lowered, v, v)).reshape(4, 2)
    _, inverse = _frame(G)
    both = x.T @ G
    bend = G @ inverse @ (x.T @ x) - x @ inverse @ (both + both.T)
    torch.testing.assert_close(bend, exact, rtol=1e-6, atol=1e-9)


def test_a_network_without_heads_has_no_geometry_of_heads():
    model = fm.model.mlp((3, 4, 2)).double()
    x = torch.randn(5, 3, dtype=torch.float64)
    with pytest.raises(InputError, match="no attention head is found whose weights are parameters"):
        geodesic(LossSurface(model, "mse", (x, model(x).detach())), 0.1, attention=True)
