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
    assert found["rescaling"] == 5 and found["shift of the softmax"] == 6
    assert found["explained"] == found["measured"] == true_zeros(surface) == 11


def test_a_dead_unit_takes_its_weights_with_it():
    surface = rectifier("mse", 200, dead=True)
    found = counts(zero_modes(surface))
    # four weights and a bias in, three weights out; its scale is no new direction
    assert found["weights without effect"] == 8 and found["rescaling"] == 4
    assert found["explained"] == found["measured"] == true_zeros(surface) == 12


@pytest.mark.parametrize(("loss", "rank"), [("mse", 9), ("cross_entropy", 6)])
def test_few_examples_bound_the_rank(loss, rank):
    surface = rectifier(loss, 3)
    found = counts(zero_modes(surface))
    assert found["explained"] == surface.size - rank <= found["measured"] == true_zeros(surface)


class Stage(nn.Module):
    """A convolutional residual network with batch normalization, of two channels."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2)
        self.inner, self.outer = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 2, 1)
        self.head = nn.Linear(2, 3)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(x + self.outer(torch.relu(self.inner(x))))
        return self.head(x.mean((2, 3)))


class Attention(nn.Module):
    """One head: scores of queries and keys without biases, then a linear head."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(3, 2, bias=False) for _ in range(3))
        self.head = nn.Linear(2, 2, bias=False)

    def forward(self, x):
        scores = (self.query(x) @ self.key(x).mT).softmax(-1)
        return self.head((scores @ self.value(x)).mean(1))


def measured(model, loss, x, y):
    return fm.LossSurface(model.double().eval(), loss, (x.double(), y))


def test_a_residual_network_has_one_rescaling_for_each_channel_of_the_stage_and_of_its_inside():
    torch.manual_seed(3)
    model = Stage()
    model.norm.running_mean.normal_()
    # two channels of the stage, three inside; before the normalization, for each of its two channels, the
    # scale of the kernel against that of the normalization, and the one bias against the other
    x = torch.randn(60, 1, 4, 4)
    found = counts(zero_modes(measured(model, "cross_entropy", x, torch.arange(60) % 3)))
    assert found["rescaling"] >= 2 + 3 + 2 + 2 and found["shift of the softmax"] == 3
    surface = measured(model, "cross_entropy", x, torch.arange(60) % 3)
    assert found["measured"] == true_zeros(surface)
    assert found["unexplained"] == found["measured"] - found["explained"]


def test_queries_and_keys_are_rescaled_and_mixtures_of_them_stay_unexplained():
    torch.manual_seed(0)
    x = torch.randn(40, 4, 3)
    surface = measured(Attention(), "half_mse", x, torch.randn(40, 2).double())
    found = counts(zero_modes(surface))
    # GL(2) between query and key and GL(2) between value and head: 2 + 2 diagonal, 2 + 2 not
    assert found["rescaling"] == 4 and found["unexplained"] == 4
    assert found["measured"] == true_zeros(surface) == 8


def test_a_coincidence_of_few_examples_is_no_rescaling():
    found = {row.cause: row.directions for row in zero_modes(rectifier("mse", 1))}
    assert found["rescaling"] == 5 and found["few examples"] == 40


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
