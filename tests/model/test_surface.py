"""The surface against dense derivatives by other means: Jacobian loops, explicit J' S J, brute force."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

import fathometer as fm

D = torch.float64


def rows(n, *shape, seed=0):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=D)


def classes(n, k, seed=1):
    return torch.randint(0, k, (n,), generator=torch.Generator().manual_seed(seed))


def net(*layers):
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return nn.Sequential(*[make() for make in layers]).double()


def small_net(outputs=3):
    return net(lambda: nn.Linear(4, 5), nn.Tanh, lambda: nn.Linear(5, outputs))


def run(model, surface, theta, x):
    return functional_call(model, surface.space.split(theta), (x,))


def dense_hessian(energy, theta):
    """One gradient with a graph, differentiated entry by entry."""
    theta = theta.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(energy(theta), theta, create_graph=True)
    return torch.stack([torch.autograd.grad(g, theta, retain_graph=True)[0] for g in gradient])


LOSSES = {
    "cross_entropy": (F.cross_entropy, classes(11, 3)),
    "mse": (F.mse_loss, rows(11, 3, seed=2)),
    "half_mse": (lambda o, t: F.mse_loss(o, t) / 2, rows(11, 3, seed=2)),
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("chunk", [1, 4, 11, "auto"])
def test_energy_gradient_and_hessian_are_those_of_the_mean_loss(loss, chunk):
    model, x, (definition, y) = small_net(), rows(11, 4), LOSSES[loss]
    surface = fm.LossSurface(model, loss, (x, y), chunk=chunk)

    def energy(theta):
        return definition(run(model, surface, theta, x), y)

    theta = surface.theta
    torch.testing.assert_close(surface.energy(), energy(theta))
    torch.testing.assert_close(surface.gradient(), torch.autograd.functional.jacobian(energy, theta))
    torch.testing.assert_close(surface.hessian().to_dense(), dense_hessian(energy, theta))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("chunk", [4, 11])
def test_gauss_newton_is_the_jacobian_around_the_hessian_of_the_loss(loss, chunk):
    model, x, (definition, y) = small_net(), rows(11, 4), LOSSES[loss]
    surface = fm.LossSurface(model, loss, (x, y), chunk=chunk)
    theta = surface.theta
    J = torch.autograd.functional.jacobian(lambda t: run(model, surface, t, x).flatten(), theta)
    o = run(model, surface, theta, x).detach().flatten()
    S = dense_hessian(lambda z: definition(z.view(11, 3), y), o)
    G = J.T @ S @ J
    torch.testing.assert_close(surface.gauss_newton().to_dense(), G)
    torch.testing.assert_close(surface.fisher().to_dense(), G)
    torch.testing.assert_close(surface.residual().to_dense(), surface.hessian().to_dense() - G)


@pytest.mark.parametrize("loss", ["cross_entropy", "half_mse"])
def test_empirical_fisher_is_the_mean_of_outer_products_of_example_gradients(loss):
    model, x, (definition, y) = small_net(), rows(11, 4), LOSSES[loss]
    surface = fm.LossSurface(model, loss, (x, y), chunk=3)
    total = torch.zeros(surface.size, surface.size, dtype=D)
    pieces = 1 if loss == "cross_entropy" else 3
    for i in range(11):
        s = torch.autograd.functional.jacobian(
            lambda t, i=i: definition(run(model, surface, t, x[i : i + 1]), y[i : i + 1]) * pieces,
            surface.theta,
        )
        total += torch.outer(s, s)
    torch.testing.assert_close(surface.fisher(kind="empirical").to_dense(), total / (11 * pieces))


def test_products_take_a_vector_or_a_block_and_numpy():
    surface = fm.LossSurface(small_net(), "mse", (rows(6, 4), rows(6, 3)))
    H, V = surface.hessian(), rows(surface.size, 3)
    torch.testing.assert_close(H @ V[:, 0], (H @ V)[:, 0])
    np.testing.assert_allclose(H @ V.numpy(), (H @ V).numpy())
    assert isinstance(surface.gradient(surface.theta.numpy()), np.ndarray)
