"""Closed forms of the curvature of a loss in the outputs, and what they keep in memory."""

import pytest
import torch
from torch import nn

from fathometer.model.losses import objective

G = torch.Generator().manual_seed(0)
OUTPUTS = torch.randn(6, 4, generator=G, dtype=torch.float64)
SEQUENCE = torch.randn(3, 4, 5, generator=G, dtype=torch.float64)
CLASSES = torch.tensor([0, 3, -100, 2, 1, 1])
SOFT = torch.rand(6, 4, generator=G, dtype=torch.float64)
WEIGHT = torch.tensor([0.5, 2.0, 1.0, 0.1], dtype=torch.float64)
CASES = [
    ("cross_entropy", OUTPUTS, CLASSES),
    ("cross_entropy", SEQUENCE, torch.randint(0, 4, (3, 5), generator=G)),
    ("cross_entropy", OUTPUTS, SOFT),
    (nn.CrossEntropyLoss(weight=WEIGHT), OUTPUTS, CLASSES),
    (nn.CrossEntropyLoss(label_smoothing=0.2), OUTPUTS, CLASSES),
    ("mse", OUTPUTS, SOFT),
    ("half_mse", OUTPUTS, SOFT),
]


@pytest.mark.parametrize("case", range(len(CASES)))
def test_closed_curvature_is_the_second_derivative(case):
    name, outputs, targets = CASES[case]
    loss = objective(name)
    product = loss.curvature(outputs, targets)
    assert product is not None
    dense = torch.autograd.functional.hessian(lambda z: loss.total(z, targets), outputs)
    u = torch.randn(outputs.shape, generator=G, dtype=torch.float64)
    found = torch.tensordot(dense, u, dims=outputs.ndim)
    torch.testing.assert_close(product(u), found)


@pytest.mark.parametrize(
    ("loss", "targets"),
    [
        (nn.CrossEntropyLoss(weight=WEIGHT), SOFT),
        (nn.CrossEntropyLoss(weight=WEIGHT, label_smoothing=0.1), CLASSES),
        (lambda outputs, targets: (outputs - targets).square().sum(1), SOFT),
    ],
)
def test_other_losses_are_differentiated(loss, targets):
    assert objective(loss).curvature(OUTPUTS, targets) is None
