"""Permutations of hidden units: which there are, that they are sound, and that alignment finds them."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fathometer import InputError
from fathometer.sharpness.units import match, units
from networks import CASES, mlp, resnet18

SIZES = {
    "mlp": [5, 4],
    "tanh": [5, 4],
    "relu6": [5, 4],
    "prelu": [4],
    "residual": [5, 4],
    "concat": [4, 2],
    "shared": [4],
    "gated": [5],
    "LoRA": [2],
    "layer norm": [4],
    "batch norm": [4],
    "convolution": [3],
    "depthwise": [3],
    "transposed": [3, 2],
    "convolutional residual": [3],
    "words": [3, 3],
    "tied words": [3],
    "group norm": [],
    "attention": [],
}


def build(name):
    factory, x = CASES[name]
    torch.manual_seed(0)
    model = factory()
    model(x)  # lazy layers
    x = x.double() if x.is_floating_point() else x
    model = model.double().eval()
    for buffer_name, buffer in model.named_buffers():
        if "running" in buffer_name:
            buffer.uniform_(0.5, 2.0)
    return model, x


@pytest.mark.parametrize("name", CASES)
def test_a_permutation_keeps_the_function(name):
    model, x = build(name)
    found = units(model, x)
    moved = found.permute(seed=0)
    with torch.no_grad():
        torch.testing.assert_close(moved(x), model(x))
    if name in SIZES:
        assert [c.size for c in found.classes] == SIZES[name]
        assert found.log_order == pytest.approx(math.log(math.prod(map(math.factorial, SIZES[name]))))


def test_known_architectures_have_one_class_for_each_stream():
    """ResNet-18: 4 residual streams, and the inner width of each of 8 blocks."""
    found = units(resnet18().eval(), torch.randn(1, 3, 64, 64))
    assert sorted(c.size for c in found.classes) == sorted(3 * [64, 128, 256, 512])


class Halves(nn.Module):
    """Two halves of one layer that meet different functions: they may not change places with each other."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 6), nn.Linear(6, 2)

    def forward(self, x):
        left, right = self.a(x).chunk(2, dim=1)
        return self.b(torch.cat([F.relu(left), torch.tanh(right)], dim=1))


class Masked(nn.Module):
    """Constants that differ from channel to channel."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)
        self.register_buffer("mask", torch.tensor([True, False, True, True]))

    def forward(self, x):
        return self.b(F.relu(self.a(x)) * self.mask)


class OneMeetsMany(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        h = F.relu(self.a(x))
        return self.b(h * h[:, :1])


@pytest.mark.parametrize(("factory", "sizes"), [(Halves, [3, 3]), (Masked, []), (OneMeetsMany, [3])])
def test_channels_that_are_treated_differently_stay_apart(factory, sizes):
    torch.manual_seed(0)
    model, x = factory().double(), torch.randn(7, 3, dtype=torch.float64)
    found = units(model, x)
    assert [c.size for c in found.classes] == sizes
    with torch.no_grad():
        torch.testing.assert_close(found.permute(seed=1)(x), model(x))


def test_alignment_undoes_a_permutation():
    torch.manual_seed(0)
    model, x = mlp(nn.Tanh).double(), torch.randn(5, 3, dtype=torch.float64)
    found = units(model, x)
    shuffled = found.permute(seed=3)
    back = units(shuffled, x).permute(match(model, shuffled, found))
    for a, b in zip(model.parameters(), back.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda u: u.permute(), "pass either permutations, one for each class, or seed"),
        (
            lambda u: u.permute([[0, 0, 1, 2, 3], [0, 1, 2, 3]]),
            r"permutations\[0\] does not name each of 0..4 once",
        ),
    ],
)
def test_bad_permutations_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call(units(mlp(), torch.randn(2, 3)))
