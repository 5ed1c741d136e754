"""Random networks: no move that the equations allow may change a function."""

import random

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fathometer.sharpness import rescalings
from fathometer.sharpness.units import units

WIDTH = 4
ACTIVATIONS = (F.relu, F.leaky_relu, torch.tanh, F.gelu, F.relu6, torch.abs, torch.square, torch.sort)


class RandomNetwork(nn.Module):
    """A chain of random steps; each may look back at any earlier activation and share any layer."""

    def __init__(self, seed):
        super().__init__()
        choice = random.Random(seed)
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH, bias=choice.random() < 0.6) for _ in range(4))
        self.norms = nn.ModuleList([nn.BatchNorm1d(WIDTH), nn.LayerNorm(WIDTH)])
        self.gain = nn.Parameter(torch.randn(WIDTH))
        kinds = ("layer", "layer", "layer", "activation", "activation", "add", "multiply", "norm", "gain")
        self.steps = [
            (choice.choice(kinds), choice.randrange(4), choice.randrange(8), choice.randrange(i + 1))
            for i in range(choice.randint(2, 7))
        ]
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, x):
        seen = [x]
        for kind, which, function, back in self.steps:
            h = seen[-1]
            if kind == "layer":
                h = self.layers[which](h)
            elif kind == "activation":
                h = ACTIVATIONS[function](h)
                h = h[0] if isinstance(h, tuple) else h
            elif kind == "add":
                h = h + seen[back]
            elif kind == "multiply":
                h = h * seen[back]
            elif kind == "norm":
                h = self.norms[which % 2](h)
            else:
                h = h * self.gain
            seen.append(h)
        return self.head(seen[-1])


def largest_change(seed):
    """Change of the outputs after a random move, relative, on inputs large enough to reach clips."""
    torch.manual_seed(seed)
    model = RandomNetwork(seed).double().eval()
    model.norms[0].running_mean.normal_()
    x = 3 * torch.randn(16, WIDTH, dtype=torch.float64)
    found = rescalings(model, x[:2])
    moved = found.move(seed=seed, spread=0.5)
    with torch.no_grad():
        before, after = model(x), moved(x)
    return float((after - before).abs().max() / before.abs().max()), found.dimension


@pytest.mark.parametrize("block", range(4))
def test_no_move_of_a_random_network_changes_its_function(block):
    found = [largest_change(seed) for seed in range(8 * block, 8 * block + 8)]
    assert max(change for change, _ in found) < 1e-10
    assert any(dimension for _, dimension in found)


@pytest.mark.parametrize("block", range(2))
def test_no_permutation_of_a_random_network_changes_its_function(block):
    many = 0
    for seed in range(16 * block, 16 * block + 16):
        torch.manual_seed(seed)
        model = RandomNetwork(seed).double().eval()
        model.norms[0].running_mean.normal_()
        model.norms[0].running_var.uniform_(0.5, 2.0)
        x = 3 * torch.randn(16, WIDTH, dtype=torch.float64)
        found = units(model, x[:2])
        with torch.no_grad():
            torch.testing.assert_close(found.permute(seed=seed)(x), model(x))
        many += bool(found.classes)
    assert many >= 4
