"""Gradients of the discrepancy with respect to points, descent on it, and Stein importance sampling."""

import numpy as np
import pytest
import torch

import fathometer as fm
from fathometer.stein import (
    Bounded,
    Gaussian,
    InverseMultiquadric,
    Matern32,
    MomentControl,
    Posterior,
    SurfacePosterior,
    ksd,
    ksd_gradient,
    reweight,
    score,
)
from fathometer.stein.samplers import ksd_descent, stein_importance
from fathometer.stein.samplers.importance import importance_density
from fathometer.stein.scores import hessian_product

S3 = np.array([[2.0, 0.3, 0.0], [0.3, 0.5, -0.2], [0.0, -0.2, 1.0]])
KERNELS = [
    InverseMultiquadric(c=0.7, beta=-0.3),
    Gaussian(1.3),
    Matern32(1.1),
    InverseMultiquadric(preconditioner=S3) + Gaussian(0.8),
]
pytestmark = pytest.mark.filterwarnings("ignore:the (Gaussian|Matern) kernel in")


def two_modes(x):
    return torch.logaddexp(-0.5 * ((x - 1) ** 2).sum(), -0.7 * ((x + 1) ** 2).sum())


def looped(x):
    if float(x[0].detach()) > 100:  # a branch on data: vmap cannot do it
        return x.sum()
    return two_modes(x)


def differences(x, log_density, kernel, weights, step=1e-5):
    slope, b = np.empty_like(x), score(log_density)
    for at in np.ndindex(x.shape):
        values = []
        for sign in (1, -1):
            moved = x.copy()
            moved[at] += sign * step
            values.append(ksd(moved, b(moved), kernel, weights=weights).squared)
        slope[at] = (values[0] - values[1]) / (2 * step)
    return slope


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("log_density", [two_modes, looped])
def test_gradient_agrees_with_differences(kernel, log_density):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((5, 3)), rng.dirichlet(np.ones(5))
    x[3] = x[2]  # the Matern kernel has a kink in its third derivative there
    found = ksd_gradient(x, log_density, kernel, weights=w)
    np.testing.assert_allclose(found, differences(x, log_density, kernel, w), atol=2e-9)


def test_gradient_keeps_the_kind_of_its_points():
    x = torch.randn(4, 2, dtype=torch.float32, generator=torch.Generator().manual_seed(0))
    found = ksd_gradient(x, two_modes)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, ksd_gradient(x.double().numpy(), two_modes), rtol=1e-5)


def test_hessian_products_of_posteriors_and_surfaces_are_those_of_their_log_density():
    torch.manual_seed(0)
    data = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    posterior = Posterior(lambda t: -0.5 * (t**4).sum(), lambda t, rows: -torch.cosh(data[rows] - t), 3)
    x, v = (
        torch.tensor([[0.3], [1.1]], dtype=torch.float64),
        torch.tensor([[1.0], [-2.0]], dtype=torch.float64),
    )
    exact = v * (-6 * x**2 - torch.cosh(data - x).sum(1, keepdim=True))
    torch.testing.assert_close(posterior.bend(x, v), exact)
    torch.testing.assert_close(hessian_product(lambda t: 3 * t.sum())(x, v), 0 * v)  # linear: no curvature
    model = torch.nn.Linear(2, 1).double()
    inputs = torch.randn(6, 2, dtype=torch.float64), torch.randn(6, 1, dtype=torch.float64)
    surface = fm.LossSurface(model, "half_mse", inputs)
    aim = SurfacePosterior(surface, temperature=0.5, precision=0.1)
    theta, u = surface.theta[None].double(), torch.randn(1, 3, dtype=torch.float64)
    h = 1e-6
    slope = (aim.both(theta + h * u)[1] - aim.both(theta - h * u)[1]) / (2 * h)
    torch.testing.assert_close(aim.bend(theta, u), slope, rtol=1e-6, atol=1e-6)


def test_descent_lowers_the_discrepancy_to_a_stationary_point():
    start = np.random.default_rng(0).standard_normal((12, 2)) + 2
    log_density = lambda x: -0.5 * (x**2).sum()  # noqa: E731
    chain = ksd_descent(log_density, start, 300)
    assert chain.points.shape == (12, 2)
    before, after = ksd(start, -start).value, ksd(chain.points, chain.scores).value
    assert after < 0.3 * before
    assert (
        np.abs(ksd_gradient(chain.points, log_density)).max()
        < 1e-3 * np.abs(ksd_gradient(start, log_density)).max()
    )
    np.testing.assert_allclose(chain.points.mean(0), 0, atol=0.05)


def test_plain_descent_is_its_formula():
    start = np.random.default_rng(0).standard_normal((5, 2))
    chain = ksd_descent(two_modes, start, 1, 0.1, kernel=Gaussian())
    np.testing.assert_allclose(chain.points, start - 0.5 * ksd_gradient(start, two_modes, Gaussian()))


def test_importance_density_is_p_times_the_root_of_the_stein_kernel():
    kernel = InverseMultiquadric(c=0.8, preconditioner=S3)
    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    b = score(two_modes)
    own = np.array([ksd(p[None], b(p[None]), kernel).squared for p in x.numpy()])
    value, slope = importance_density(two_modes, np.zeros(3), kernel).both(x)
    plain = np.array([float(two_modes(p)) for p in x])
    np.testing.assert_allclose(value.numpy() - plain, 0.5 * np.log(own))

    def whole(p):
        at = np.asarray(p.detach())[None]
        return two_modes(p) + 0.5 * np.log(ksd(at, b(at), kernel).squared)

    fm.stein.check_score(whole, slope.numpy(), x.numpy())


def test_stein_importance_draws_are_wider_and_their_weights_bring_them_back():
    kernel = InverseMultiquadric()
    chain = stein_importance(lambda x: -0.5 * (x**2).sum(), np.zeros(2), 400, 1.0, seed=1, kernel=kernel)
    np.testing.assert_array_equal(chain.scores, -chain.points)  # of p, not of the wider law
    # E|x|^2 under p sqrt(2 + |x|^2) in the plane, by the radial integral
    s = np.linspace(0, 60, 200_001)
    law = np.exp(-s / 2) * np.sqrt(2 + s)
    assert np.square(chain.points).sum(1).mean() == pytest.approx((s * law).sum() / law.sum(), rel=0.2)
    w = reweight(chain.points, chain.scores, kernel)
    np.testing.assert_allclose(w @ chain.points**2, 1.0, atol=0.03)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda x: ksd_gradient(x, two_modes, MomentControl()),
            "MomentControl and Bounded have no direction",
        ),
        (lambda x: ksd_gradient(x, two_modes, Bounded(support=[(-9, 9)] * 2)), "have no direction"),
        (lambda x: ksd_gradient(x, fm.stein.targets.Density(both=None)), "target has no second derivatives"),
        (lambda x: ksd_gradient(x, lambda p: (p.abs() ** 1.5).sum()), "second derivatives hold"),
        (lambda x: ksd_descent(two_modes, x, 5, -1.0), "step_size is -1.0"),
        (lambda x: stein_importance(fm.stein.targets.Density(both=None), x, 5, 0.1), "no second derivatives"),
        (
            lambda x: stein_importance(two_modes, x, 5, 0.1, kernel=Gaussian(preconditioner="median")),
            "a preconditioner recipe needs the sample",
        ),
    ],
)
def test_gradients_refuse(call, message):
    with pytest.raises(fm.InputError, match=message):
        call(np.zeros((2, 2)))
