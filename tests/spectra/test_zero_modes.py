"""Zero eigenvalues explained: counted against the dense spectrum."""

import numpy as np
import pytest
import torch
from torch import nn

import fathometer as fm
from fathometer.errors import BudgetError, CapabilityError, InputError
from fathometer.spectra import zero_modes


def rectifier(loss, examples, *, dead=False, bias=True, activation=nn.ReLU):
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(4, 5, bias=bias), activation(), nn.Dropout(0.1), nn.Linear(5, 3, bias=bias))
    x = torch.randn(examples, 4)
    if dead:
        with torch.no_grad():
            net[0].bias[2] = -100.0
    y = torch.arange(examples) % 3 if loss == "cross_entropy" else torch.randn(examples, 3)
    return fm.LossSurface(net.eval(), loss, (x, y))


def counts(table):
    return {row.cause: row.new for row in table}


def true_zeros(surface):
    values = np.linalg.eigvalsh(surface.double().gauss_newton().to_dense().numpy())
    return int((np.abs(values) < 1e-12 * values[-1]).sum())


def test_every_zero_of_a_rectifier_network_has_its_cause():
    surface = rectifier("cross_entropy", 200)
    found = counts(zero_modes(surface))
    assert found["scale of a rectifier"] == 5 and found["shift of the softmax"] == 6
    assert found["explained"] == found["measured"] == true_zeros(surface) == 11


def test_a_dead_unit_takes_its_weights_with_it():
    surface = rectifier("mse", 200, dead=True)
    found = counts(zero_modes(surface))
    # four weights and a bias in, three weights out; its scale is no new direction
    assert found["weights without effect"] == 8 and found["scale of a rectifier"] == 4
    assert found["explained"] == found["measured"] == true_zeros(surface) == 12


@pytest.mark.parametrize(("loss", "rank"), [("mse", 9), ("cross_entropy", 6)])
def test_few_examples_bound_the_rank(loss, rank):
    surface = rectifier(loss, 3)
    found = counts(zero_modes(surface))
    assert found["explained"] == surface.size - rank <= found["measured"] == true_zeros(surface)


def test_smooth_networks_have_no_scale_and_other_models_are_said_to_have_none_known():
    found = counts(zero_modes(rectifier("half_mse", 200, bias=False, activation=nn.Tanh)))
    assert found["explained"] == found["measured"] == 0


def test_zero_modes_refuse_what_has_none():
    with pytest.raises(InputError, match="surface is a ndarray"):
        zero_modes(np.eye(2))
    flat = fm.LossSurface(
        nn.Sequential(nn.Linear(2, 1), nn.Flatten(0)), "mse", (torch.ones(3, 2), torch.ones(3))
    )
    with pytest.raises(CapabilityError, match=r"outputs are \(3,\); the bound needs"):
        zero_modes(flat)
    surface = rectifier("mse", 5)
    with fm.budget(40_000), pytest.raises(BudgetError, match="whole matrix of 43 parameters does not fit"):
        zero_modes(surface)
