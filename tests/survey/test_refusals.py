"""What a section of the survey cannot treat it says, and why."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from fathometer.errors import CapabilityError
from fathometer.model import LossSurface
from fathometer.survey import equivariance, expressiveness, flatness, sampling
from fathometer.survey.effort import BRIEF, FULL


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, a, b):
        return self.layer(a + b)


def subject(model, x, y, loss="mse"):
    return SimpleNamespace(
        surface=LossSurface(model, loss, (x, y)),
        seed=0,
        effort=FULL,
        progress=lambda *report: None,
        attempt=lambda name, function: function(),
    )


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2)),
        nn.Sequential(nn.Linear(3, 4), nn.Flatten(), nn.Linear(5, 2)),
        TwoInputs(),
    ],
    ids=["convolution", "widths that do not meet", "no chain"],
)
def test_exchanges_are_counted_for_chains_only(model):
    with pytest.raises(CapabilityError, match=r"counted for a plain chain of linear layers"):
        equivariance._exchanges(model)


def test_exchanges_of_a_chain_are_the_factorials_of_its_widths():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    assert equivariance._exchanges(model) == pytest.approx(np.log10(24 * 120))


def test_segments_need_one_tensor_of_three_examples():
    x, y = torch.randn(5, 3), torch.randn(5, 2)
    with pytest.raises(CapabilityError, match="models of one input tensor"):
        expressiveness._inputs(subject(TwoInputs(), (x, x), y))
    with pytest.raises(CapabilityError, match="there are 2 examples; three are needed"):
        expressiveness._inputs(subject(nn.Linear(3, 2), x[:2], y[:2]))
    words = nn.Sequential(nn.Embedding(4, 3), nn.Flatten(), nn.Linear(6, 2))
    with pytest.raises(CapabilityError, match="no segment between whole numbers"):
        expressiveness._inputs(subject(words, torch.zeros(5, 2, dtype=torch.int64), y))


def test_a_constant_slice_needs_no_network():
    flat = SimpleNamespace(breaks=[0.5], outputs=np.ones((3, 2)))
    with pytest.raises(CapabilityError, match="do not change along the slice"):
        expressiveness._smallest(flat)


def test_where_no_chain_stays_finite_the_section_says_so(monkeypatch):
    made = subject(nn.Linear(3, 2), torch.randn(5, 3), torch.randn(5, 2))
    made.attempt = lambda name, function: None  # what the survey gives back for a step that failed
    with pytest.raises(CapabilityError, match="no chain stayed finite"):
        sampling.measure(made)


def test_a_maximum_has_no_posterior_around_it():
    # the loss -|w|^2 curves downward in every direction
    model = nn.Linear(2, 1, bias=False)
    surface = LossSurface(
        model, lambda model, batch: -model.weight.square().sum() + 0 * batch[0].sum(), [(torch.ones(3, 2),)]
    )
    with pytest.raises(CapabilityError, match="no direction curves upward"):
        sampling._target(SimpleNamespace(surface=surface, seed=0, effort=FULL))


def test_a_brief_look_leaves_the_orbit_unsearched():
    made = subject(nn.Linear(3, 2), torch.randn(5, 3), torch.randn(5, 2))
    made.effort = BRIEF
    with pytest.raises(CapabilityError, match="a brief look does not search the orbit; a thorough survey"):
        flatness._flattest(made)
