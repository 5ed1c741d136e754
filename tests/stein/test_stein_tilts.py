"""Kernels that control moments, and kernels for bounded supports."""

import numpy as np
import pytest
import torch

import fathometer as fm
from fathometer.stein import (
    Bounded,
    Gaussian,
    InverseMultiquadric,
    MomentControl,
    goodness_of_fit,
    ksd,
    witness,
)

S2 = np.array([[1.5, 0.4], [0.4, 0.7]])


def by_autograd(k, x, b):
    """Sum over pairs of the Langevin operator applied twice to ``k(x, y)``."""
    x, b, total = torch.from_numpy(x), torch.from_numpy(b), 0.0
    for i in range(len(x)):
        for j in range(len(x)):
            dx, dy = torch.func.grad(k, 0)(x[i], x[j]), torch.func.grad(k, 1)(x[i], x[j])
            mixed = torch.func.jacfwd(torch.func.grad(k, 0), 1)(x[i], x[j])
            total += k(x[i], x[j]) * b[i] @ b[j] + b[i] @ dy + b[j] @ dx + mixed.trace()
    return float(total) / len(x) ** 2


def draw(n, d, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)), rng.standard_normal((n, d))


@pytest.mark.parametrize("order", [1.0, 2.0, 3.5])
@pytest.mark.parametrize("power", [0.5, 1.0])
@pytest.mark.parametrize("preconditioner", [None, S2])
def test_moment_control_is_its_definition(order, power, preconditioner):
    x, b = draw(5, 2)
    origin = torch.tensor([0.3, -0.2], dtype=torch.float64)
    precision = torch.from_numpy(np.linalg.inv(np.eye(2) if preconditioner is None else preconditioner))

    def k(u, v):
        p, q = u - origin, v - origin
        a, c = 1 + p @ precision @ p, 1 + q @ precision @ q
        base = (0.49 + (u - v) @ precision @ (u - v)) ** -0.4
        return (a * c) ** ((order - 1) / 2) * (base + (1 + p @ precision @ q) / (a * c) ** power)

    kernel = MomentControl(
        order=order,
        power=power,
        origin=origin.numpy(),
        kernel=InverseMultiquadric(c=0.7, beta=-0.4, preconditioner=preconditioner),
    )
    assert ksd(x, b, kernel).squared == pytest.approx(by_autograd(k, x, b), rel=1e-9)


@pytest.mark.parametrize("dimension", [2, 14])
def test_row_sums_and_diagonal_of_tilted_kernels_agree(dimension):
    x, b = draw(300, dimension)
    result = ksd(x, b, MomentControl(order=2.0))
    np.testing.assert_allclose(result.witness.mean(), result.value, rtol=1e-9)
    own = [
        ksd(x[i : i + 1], b[i : i + 1], MomentControl(order=2.0, origin=x.mean(0))).squared for i in (0, 7)
    ]
    unbiased = ksd(x, b, MomentControl(order=2.0), statistic="U")
    np.testing.assert_allclose(
        unbiased.contributions.sum() * 300 * 299,
        result.squared * 300**2 - (300**2 * result.expected**2),
        rtol=1e-8,
    )
    at = witness(x, b, x[[0]], b[[0]], MomentControl(order=2.0))
    np.testing.assert_allclose(at, result.witness[0], rtol=1e-9)
    assert min(own) > 0


def test_only_moment_control_sees_a_second_moment_that_runs_off():
    """One point in n moves out like sqrt(n): weak convergence holds, the second moment stays 9 too large."""
    plain, moment = [], []
    for n in (100, 4000):
        middle = (np.arange(n - 1) + 0.5) / (n - 1)
        x = np.append(torch.special.ndtri(torch.from_numpy(middle)).numpy(), 3 * np.sqrt(n))[:, None]
        plain.append(ksd(x, -x).value)
        moment.append(ksd(x, -x, MomentControl(order=2.0, origin=[0.0])).value)
    assert plain[1] < 0.3 * plain[0]
    assert moment[1] > 0.9 * moment[0]


@pytest.mark.parametrize("support", [[(0, 1), (-1, 3)], [(0, np.inf), (-np.inf, 3)]])
def test_bounded_kernel_is_its_definition(support):
    rng = np.random.default_rng(0)
    x, b = rng.uniform(0.1, 0.9, (5, 2)), rng.standard_normal((5, 2))

    def factor(u):
        if np.isinf(support).any():
            s, t = u[0], 3 - u[1]
            return s / (1 + s**2).sqrt() * t / (1 + t**2).sqrt()
        return u[0] * (1 - u[0]) * (u[1] + 1) * (3 - u[1])

    def k(u, v):
        return factor(u) * factor(v) * torch.exp(-((u - v) ** 2).sum() / 2)

    found = ksd(x, b, Bounded(support=support, kernel=Gaussian())).squared
    assert found == pytest.approx(by_autograd(k, x, b), rel=1e-9)


def test_a_uniform_sample_is_refused_without_the_factor_and_passes_with_it():
    u = np.random.default_rng(0).random((300, 2))
    plain = goodness_of_fit(u, 0 * u, replicates=199)
    bounded = goodness_of_fit(u, 0 * u, Bounded(support=[(0, 1), (0, 1)]), replicates=199)
    assert plain.p_value < 0.01 < bounded.p_value
    skewed = goodness_of_fit(u**1.5, 0 * u, Bounded(support=[(0, 1), (0, 1)]), replicates=199)
    assert skewed.p_value < 0.01


@pytest.mark.filterwarnings("default")
def test_theory_of_a_tilted_kernel_is_that_of_the_kernel_inside():
    x, b = draw(4, 3)
    with pytest.warns(fm.TheoryWarning, match="Gaussian kernel in 3 dimensions"):
        ksd(x, b, MomentControl(kernel=Gaussian()))
    with pytest.warns(fm.TheoryWarning, match="Gaussian kernel in 3 dimensions"):
        ksd(x, b, Bounded(support=[(-9, 9)] * 3, kernel=Gaussian()))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, b: MomentControl(order=0.5), "order is 0.5; the order of the moments"),
        (lambda x, b: MomentControl(power=-1.0), "power is -1.0"),
        (lambda x, b: MomentControl(kernel=Gaussian() + Gaussian()), "kernel is KernelSum"),
        (lambda x, b: Bounded(support=[(0, 1)], kernel=MomentControl()), "kernel is MomentControl"),
        (lambda x, b: ksd(x, b, MomentControl(origin=[0.0])), r"origin has shape \(1,\)"),
        (lambda x, b: ksd(x, b, MomentControl(origin=[0.0, np.nan])), "origin hold nan"),
        (lambda x, b: ksd(x, b, Bounded(support=[(-9, 9), (0, 9)])), "lies outside the support"),
        (
            lambda x, b: ksd(np.abs(x) * [0, 1], b, Bounded(support=[(0, 9), (0, 9)])),
            "row 0 is not inside the support, coordinate 0 is 0",
        ),
    ],
)
def test_tilted_kernels_refuse(call, message):
    with pytest.raises(fm.InputError, match=message):
        call(*draw(5, 2))
