"""Closed forms for networks with one hidden layer against automatic differentiation."""

import pytest
import torch
from torch import nn

import fathometer as fm
from fathometer.model.dense import StackedDerivatives
from fathometer.model.shallow import ELEMENTWISE, shallow_networks


def surfaces(activation, *, lower=True, upper=True, loss="mse", rows=(5, 5, 5)):
    found = []
    for seed, m in enumerate(rows):
        g = torch.Generator().manual_seed(seed)
        net = nn.Sequential(nn.Linear(3, 4, bias=lower), activation, nn.Linear(4, 2, bias=upper)).double()
        for p in net.parameters():
            p.data = torch.randn(p.shape, generator=g, dtype=torch.float64)
        x, y = (torch.randn(m, d, generator=g, dtype=torch.float64) for d in (3, 2))
        found.append(fm.LossSurface(net, loss, (x, y)))
    return found


def assert_same_as_autograd(found, at):
    rows = torch.tensor([len(found) - 1, 0])
    theta = torch.stack([found[i].theta for i in rows]).flip(1)
    energies, gradients, hessians = at(rows, theta)
    again = at.gradient(rows, theta)
    for k, i in enumerate(rows.tolist()):
        surface = found[i].at(theta[k])
        torch.testing.assert_close(energies[k], surface.energy())
        torch.testing.assert_close(gradients[k], surface.gradient())
        torch.testing.assert_close(hessians[k], surface.hessian().to_dense())
        torch.testing.assert_close((again[0][k], again[1][k]), (energies[k], gradients[k]))


@pytest.mark.parametrize("activation", ELEMENTWISE)
@pytest.mark.parametrize(("lower", "upper", "loss"), [(True, False, "mse"), (False, True, "half_mse")])
def test_the_closed_form_is_the_derivative(activation, lower, upper, loss):
    found = surfaces(activation(), lower=lower, upper=upper, loss=loss)
    at = StackedDerivatives(found)
    assert at.closed is not None
    assert_same_as_autograd(found, at)


def test_networks_without_a_closed_form_are_differentiated_one_by_one():
    deep = [
        fm.LossSurface(nn.Sequential(s.write(), nn.Tanh(), nn.Linear(2, 2)).double(), "mse", (x, x[:, :2]))
        for s, x in zip(surfaces(nn.Tanh()), torch.randn(3, 5, 3, dtype=torch.float64), strict=True)
    ]
    at = StackedDerivatives(deep)
    assert at.closed is None
    assert_same_as_autograd(deep, at)


def hooked():
    (surface,) = surfaces(nn.Tanh(), rows=(5,))
    surface._problem.replica.module[1].register_forward_hook(lambda _m, _i, out: 2 * out)
    return [surface]


@pytest.mark.parametrize(
    "found",
    [
        lambda: surfaces(nn.PReLU()),
        lambda: surfaces(nn.Softmax(1)),
        lambda: surfaces(nn.Tanh(), rows=(5, 6)),
        lambda: [*surfaces(nn.LeakyReLU(0.1)), *surfaces(nn.LeakyReLU(0.2))],
        hooked,
        lambda: [fm.LossSurface(nn.Linear(2, 2), "mse", (torch.zeros(3, 2), torch.zeros(3, 2)))],
        lambda: [
            fm.LossSurface(
                nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2)),
                "mse",
                (torch.zeros(3, 2), torch.zeros(3, 2)),
                parameters="0.*",
            )
        ],
        lambda: [
            fm.LossSurface(
                nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2)),
                "cross_entropy",
                (torch.zeros(3, 2), torch.zeros(3, dtype=torch.long)),
            )
        ],
    ],
)
def test_what_is_no_plain_shallow_network_has_no_closed_form(found):
    assert shallow_networks(found()) is None
