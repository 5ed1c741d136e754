"""Section 5 and appendix A: other coordinates, other sharpness, same function."""

import numpy as np
import pytest
import torch
from torch import nn

from fathometer import InputError
from fathometer.model import LossSurface
from fathometer.sharpness import (
    PowerBijection,
    RadialBijection,
    Reparametrization,
    epsilon_sharpness,
    hessian_norm,
)

D = 4


@pytest.fixture(scope="module")
def minimum():
    """A quadratic at its minimum, and its Hessian."""
    g = torch.Generator().manual_seed(0)
    X = torch.randn(40, D, generator=g, dtype=torch.float64)
    model = nn.Linear(D, 1, bias=False).double()
    w = torch.randn(D, generator=g, dtype=torch.float64)
    model.weight.data = w[None, :].clone()
    return LossSurface(model, "half_mse", (X, X @ w[:, None])), X.T @ X / 40


def radial():
    return RadialBijection(torch.tensor([1.0, -1.0, 0.5, 0.0]), 2.0, 0.5, 1.5)


def power(exponent=0.7, offset=0.3):
    return PowerBijection(exponent, offset, center=torch.tensor([1.0, -1.0, 0.5, 0.0]))


MAPS = {
    "radial": radial,
    "power": power,
    "shrinking power": lambda: power(-0.45, 0.05),
    "own": lambda: Reparametrization(torch.sinh, torch.asinh),
}


def points():
    g = torch.Generator().manual_seed(3)
    return torch.randn(30, D, generator=g, dtype=torch.float64) * torch.logspace(-3, 1, 30)[:, None].double()


@pytest.mark.parametrize("name", MAPS)
def test_there_and_back_is_the_identity(name):
    bijection = MAPS[name]()
    theta = points() if name == "own" else points() + bijection.center
    theta = theta.clamp(-8, 8)
    torch.testing.assert_close(bijection.to_theta(bijection.to_eta(theta)), theta, rtol=1e-9, atol=1e-12)
    eta = bijection.to_eta(theta.numpy())
    assert isinstance(eta, np.ndarray)
    np.testing.assert_allclose(eta, bijection.to_eta(theta).numpy())


@pytest.mark.parametrize("name", MAPS)
def test_jacobians_agree_with_differences(name):
    bijection, h = MAPS[name](), 1e-6
    theta = torch.tensor([1.3, -0.6, 0.9, 0.2], dtype=torch.float64)
    columns = [
        (bijection.to_eta(theta + h * e) - bijection.to_eta(theta - h * e)) / (2 * h)
        for e in torch.eye(D, dtype=torch.float64)
    ]
    torch.testing.assert_close(bijection.jacobian(theta), torch.stack(columns, 1), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("r", [0.1, 0.49, 0.51, 1.0, 1.99, 2.01])
def test_the_radial_map_follows_psi_and_has_the_printed_determinant(r):
    bijection = radial()
    u = torch.tensor([0.5, 0.5, -0.5, 0.5], dtype=torch.float64)
    psi = 3.0 * r if r <= 0.5 else (1.5 - 2.0) * (r - 2.0) / (0.5 - 2.0) + 2.0 if r <= 2.0 else r
    slope = 3.0 if r <= 0.5 else 1.0 / 3.0 if r <= 2.0 else 1.0
    theta = bijection.center + r * u
    torch.testing.assert_close(bijection.to_eta(theta) - bijection.center, psi * u)
    determinant = float(torch.linalg.det(bijection.jacobian(theta)))
    assert determinant == pytest.approx(slope * (psi / r) ** (D - 1))


def test_nothing_moves_outside_the_outer_ball():
    bijection = radial()
    far = bijection.center + 5 * torch.eye(D, dtype=torch.float64)
    assert torch.equal(bijection.to_eta(far), far)


def test_the_power_map_on_a_line_is_the_printed_formula():
    x = np.linspace(-2, 2, 9)[:, None]
    found = PowerBijection(0.5, 0.1, center=[0.4]).to_eta(x)
    np.testing.assert_allclose(found, 0.4 + ((x - 0.4) ** 2 + 0.1) ** 0.5 * (x - 0.4), rtol=1e-14)
    assert float(PowerBijection(1.0, 1.0).to_eta(2.0)) == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("make", "factor"),
    [
        (lambda c: RadialBijection(c, 1.0, 0.2, 0.8), (0.2 / 0.8) ** 2),
        (lambda c: RadialBijection(c, 1.0, 0.8, 0.01), 80.0**2),
        (lambda c: PowerBijection(-0.4, 1e-4, center=c), 1e-4**0.8),
        (lambda c: PowerBijection(2.0, 0.1, center=c), 1e4),
    ],
)
def test_a_minimum_becomes_flat_or_sharp_by_the_known_factor(minimum, make, factor):
    surface, H = minimum
    curved = make(surface.theta).apply(surface)
    torch.testing.assert_close(curved.hessian().to_dense(), factor * H, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(curved.gauss_newton().to_dense(), factor * H, rtol=1e-9, atol=1e-12)
    top = float(torch.linalg.eigvalsh(H)[-1])
    assert float(hessian_norm(curved).value) == pytest.approx(factor * top, rel=1e-6)


@pytest.mark.parametrize("name", MAPS)
def test_derivatives_off_the_minimum_agree_with_differences(minimum, name):
    curved = MAPS[name]().apply(minimum[0])
    eta, h = curved.eta + torch.tensor([0.3, -0.1, 0.2, 0.1]).double(), 1e-5
    steps = h * torch.eye(D, dtype=torch.float64)
    slope = torch.stack([(curved.energy(eta + e) - curved.energy(eta - e)) / (2 * h) for e in steps])
    torch.testing.assert_close(curved.gradient(eta), slope, rtol=1e-6, atol=1e-8)
    bend = torch.stack([(curved.gradient(eta + e) - curved.gradient(eta - e)) / (2 * h) for e in steps], 1)
    torch.testing.assert_close(curved.hessian(eta).to_dense(), bend, rtol=1e-6, atol=1e-7)
    assert float(curved.at(eta).energy()) == float(curved.energy(eta))


def test_ball_sharpness_falls_in_other_coordinates(minimum):
    surface, H = minimum
    flat = RadialBijection(surface.theta, 1.0, 0.1, 0.9).apply(surface)
    exact = float(torch.linalg.eigvalsh(H)[-1]) * (0.1 / 0.9) ** 2 * 0.5**2 / 2
    assert epsilon_sharpness(flat, 0.5, starts=3).value == pytest.approx(exact, rel=1e-6)


def test_weight_normalization_has_more_coordinates_than_parameters(minimum):
    """w = s v / |v|: stretching v changes nothing but divides its curvature by the square."""
    surface, _ = minimum

    def split(theta):
        return torch.cat([theta.norm()[None], theta])

    def joined(eta):
        return eta[0] * eta[1:] / eta[1:].norm()

    curved = Reparametrization(split, joined).apply(surface)
    assert curved.size == D + 1
    eta = curved.eta
    longer = torch.cat([eta[:1], 10 * eta[1:]])
    assert float(curved.energy(longer)) == pytest.approx(float(curved.energy(eta)), abs=1e-15)
    blocks = [curved.hessian(point).to_dense()[1:, 1:] for point in (eta, longer)]
    torch.testing.assert_close(blocks[1] * 100, blocks[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RadialBijection(torch.zeros(2), 1.0, 1.0, 0.5), "inner is 1.0; it must lie between 0 and"),
        (lambda: RadialBijection(torch.zeros(2), 1.0, 0.5, 0.0), "image is 0.0; it must lie between"),
        (lambda: RadialBijection(torch.zeros(2), -1.0, 0.5, 0.5), "outer is -1.0; a positive radius"),
        (lambda: RadialBijection("here", 1.0, 0.5, 0.5), "center is a str; a vector of numbers"),
        (lambda: PowerBijection(-0.5, 1.0), "exponent is -0.5; it must be larger than -1/2"),
        (lambda: PowerBijection(1.0, 0.0), "offset is 0.0; it must be positive"),
        (lambda: PowerBijection(1.0, -1.0), "offset is -1.0"),
        (lambda: Reparametrization(3, torch.asinh), "forward is a int; a function of a vector"),
    ],
)
def test_maps_that_are_no_bijections_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_functions_that_do_not_undo_each_other_are_refused(minimum):
    with pytest.raises(InputError, match=r"inverse\(forward\(theta\)\) is not theta"):
        Reparametrization(torch.sinh, torch.sinh).apply(minimum[0])
    with pytest.raises(InputError, match=r"eta has shape \(2,\); a finite vector \(4,\)"):
        radial().apply(minimum[0]).energy(torch.zeros(2))
