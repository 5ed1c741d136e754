"""Invertible matrices between the halves of attention heads: found in the graph, sound, and counted."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, jacrev
from torch.nn.attention import SDPBackend, sdpa_kernel

from fathometer import InputError
from fathometer.sharpness.attention import heads
from networks import (
    Attention,
    Bert,
    GroupedQuery,
    KeyBias,
    PackedBlock,
    Rotary,
    VisionTransformer,
    mlp,
)

X = torch.randn(2, 5, 4, dtype=torch.float64)


def change(model, moved, x):
    with torch.no_grad():
        return float((moved(x) - model(x)).abs().max() / model(x).abs().max())


@pytest.mark.parametrize(
    ("factory", "dimension"),
    [
        (Attention, 2 * 2 * 4),  # two heads, two pairs each, 2 x 2 matrices
        (lambda: Attention(fused=False), 2 * 2 * 4),
        (KeyBias, 2 * 2 * 4),
        (GroupedQuery, 2 * 2 * 4),  # four query heads share two keys and values
        (lambda: PackedBlock(4, 2), 2 * 2 * 4),
        (Rotary, 16),  # rotated queries and keys are left alone; one head of values
    ],
)
def test_every_head_has_its_pairs_and_a_move_keeps_the_function(factory, dimension):
    torch.manual_seed(0)
    model = factory().double()
    found = heads(model, X)
    assert found.dimension == dimension
    moved = found.move(seed=1, condition=100.0)
    assert change(model, moved, X) < 1e-12
    distance = sum(
        float((a - b).detach().norm()) for a, b in zip(model.parameters(), moved.parameters(), strict=True)
    )
    assert distance > 1.0


def test_rotated_queries_are_named_as_untreated():
    found = heads(Rotary().double(), X)
    assert [pair.kind for pair in found.pairs] == ["value-output"]
    assert "arrive through more than moves" in next(iter(found.untreated.values()))


def test_the_tangents_of_the_moves_are_null_directions_of_the_jacobian_and_all_of_them():
    """Plain attention without biases: the null space of the Jacobian has h (d^2 + d^2) dimensions."""

    class Plain(Attention):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v, self.o = (nn.Linear(4, 4, bias=False) for _ in range(4))

    torch.manual_seed(0)
    model = Plain().double()
    x = torch.randn(30, 5, 4, dtype=torch.float64)
    with sdpa_kernel(SDPBackend.MATH):
        J = jacrev(lambda p: functional_call(model, p, (x,)))(dict(model.named_parameters()))
    J = torch.cat([v.reshape(x.numel(), -1) for v in J.values()], 1)
    singular = torch.linalg.svdvals(J)
    null = len(singular) - int((singular > 1e-9 * singular[0]).sum())
    assert heads(model, x).dimension == null


@pytest.mark.parametrize("factory", [Bert])
def test_words_in_classes_out(factory):
    torch.manual_seed(0)
    model = factory().double()
    tokens = torch.arange(12).reshape(2, 6) % 6
    found = heads(model, tokens)
    assert found.dimension == 2 * 2 * 16
    assert change(model, found.move(seed=0), tokens) < 1e-12


def test_a_vision_transformer_has_a_pair_of_each_kind_in_every_head():
    found = heads(VisionTransformer().eval(), torch.randn(1, 3, 32, 32))
    assert found.dimension == 12 * 3 * 2 * 64**2
    assert not found.untreated


class ReadTwice(Attention):
    """The values are also added to the output."""

    def forward(self, x):
        return super().forward(x) + self.v(x) * 0.5


class Overheard(nn.Module):
    """Keys that something else reads too."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(4, 4, bias=False) for _ in range(4))

    def forward(self, x):
        k = self.k(x)
        split = [t.unflatten(-1, (2, 2)).transpose(1, 2) for t in (self.q(x), k, self.v(x))]
        return self.o(F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)) + k


@pytest.mark.parametrize(("factory", "kinds"), [(ReadTwice, {"query-key"}), (Overheard, {"value-output"})])
def test_what_something_else_reads_is_left_alone(factory, kinds):
    torch.manual_seed(0)
    model = factory().double()
    found = heads(model, X)
    assert {pair.kind for pair in found.pairs} == kinds
    assert "read by something else too, or its weight is shared" in " ".join(found.untreated.values())
    assert change(model, found.move(seed=0), X) < 1e-12


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda h: h.move(), "pass either matrices, one for each pair, or seed"),
        (lambda h: h.move(seed=0, condition=0.5), "condition is 0.5; a number of at least 1"),
        (lambda h: h.move([torch.zeros(2, 2)] * 4), r"matrices\[0\] has shape \(2, 2\); an invertible"),
        (lambda h: heads(mlp(), torch.randn(2, 3)).move(seed=0), "no pair of projections that meet"),
    ],
)
def test_bad_moves_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call(heads(Attention().double(), X))
