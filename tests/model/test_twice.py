"""Hessian products on the cheap forms of convolutions and losses, against torch's own double backward."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fathometer.model import LossSurface
from fathometer.model.twice import CheapTwice

X = {d: torch.randn(5, 2, *(6,) * d, dtype=torch.float64) for d in (1, 2, 3)}
CONVOLUTIONS = {
    "plain": nn.Conv2d(2, 3, 3),
    "strided, padded, dilated": nn.Conv2d(2, 3, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2)),
    "grouped": nn.Conv2d(2, 4, 3, groups=2, padding=1),
    "depthwise without bias": nn.Conv2d(2, 2, 3, groups=2, bias=False),
    "padded by name": nn.Conv2d(2, 3, 3, padding="same"),
    "circular": nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"),
    "one dimension": nn.Conv1d(2, 3, 3, stride=2),
    "three dimensions": nn.Conv3d(2, 3, 2, padding=1),
    "transposed": nn.ConvTranspose2d(2, 3, 3, stride=2),
}


class Network(nn.Module):
    """A convolution whose input depends on a weight, an activation, and logits."""

    def __init__(self, layer, x):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(2, *(1,) * (x.ndim - 2)) * 1.3)
        self.layer = layer
        self.head = nn.Linear(layer.out_channels, 3)

    def forward(self, x):
        hidden = torch.tanh(self.layer(self.gain * x))
        return self.head(hidden.flatten(2).mean(2))


def by_torch(model, loss, x, y):
    """The dense Hessian by double backward, row by row."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    grads = torch.autograd.grad(loss(model(x), y), parameters, create_graph=True)
    flat = torch.cat([g.reshape(-1) for g in grads])
    rows = [
        torch.cat([r.reshape(-1) for r in torch.autograd.grad(g, parameters, retain_graph=True)])
        for g in flat
    ]
    return torch.stack(rows)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_hessians_through_convolutions_are_those_of_torch(name):
    torch.manual_seed(0)
    layer = CONVOLUTIONS[name]
    x = X[{nn.Conv1d: 1, nn.Conv3d: 3}.get(type(layer), 2)]
    model, y = Network(layer, x).double(), torch.randint(0, 3, (5,))
    surface = LossSurface(model, "cross_entropy", (x, y), chunk=3)
    torch.testing.assert_close(surface.hessian().to_dense(), by_torch(model, F.cross_entropy, x, y))


def test_a_constant_kernel_and_a_constant_input_cost_nothing_and_change_nothing():
    torch.manual_seed(0)
    model, y = Network(nn.Conv2d(2, 3, 3), X[2]).double(), torch.randint(0, 3, (5,))
    model.layer.weight.requires_grad_(False)
    surface = LossSurface(model, "cross_entropy", (X[2], y))
    torch.testing.assert_close(surface.hessian().to_dense(), by_torch(model, F.cross_entropy, X[2], y))
    plain = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.AvgPool2d(4), nn.Flatten()).double()
    surface = LossSurface(plain, "cross_entropy", (X[2], y))
    torch.testing.assert_close(surface.hessian().to_dense(), by_torch(plain, F.cross_entropy, X[2], y))


@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(),
        nn.CrossEntropyLoss(label_smoothing=0.2),
        nn.CrossEntropyLoss(weight=torch.tensor([0.2, 1.0, 3.0]).double(), ignore_index=1),
        nn.CrossEntropyLoss(weight=torch.tensor([0.2, 1.0, 3.0]).double(), label_smoothing=0.2),
        nn.MSELoss(),
    ],
    ids=["plain", "smoothed", "weighted, one ignored", "weighted and smoothed", "squared"],
)
def test_hessians_of_losses_with_a_known_curvature_are_those_of_torch(loss):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    x = torch.randn(7, 4, dtype=torch.float64)
    y = torch.randn(7, 3, dtype=torch.float64) if isinstance(loss, nn.MSELoss) else torch.arange(7) % 3
    surface = LossSurface(model, loss, (x, y))
    torch.testing.assert_close(surface.hessian().to_dense(), by_torch(model, loss, x, y))


@pytest.mark.parametrize("relu", [nn.ReLU(), torch.relu, F.relu, nn.ReLU(inplace=True)])
def test_hessians_through_rectifiers_are_those_of_torch(relu):
    torch.manual_seed(1)

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.head = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x):
            hidden = relu(self.first(x))
            return self.head(hidden * relu(self.second(hidden)) + hidden)  # curved in what the ReLU gives

    model = Twice().double()
    x, y = torch.randn(7, 3, dtype=torch.float64), torch.randint(0, 3, (7,))
    x[0] = 0.0
    with torch.no_grad():
        model.first.bias[0] = 0.0  # exactly at a kink
    surface = LossSurface(model, "cross_entropy", (x, y), chunk=4)
    torch.testing.assert_close(
        surface.hessian(check=False).to_dense(), by_torch(model, F.cross_entropy, x, y)
    )


@pytest.mark.parametrize("examples", [3, 7, 1000])
def test_one_chunk_is_divided_in_float32_to_the_bits_of_float64(examples, monkeypatch):
    torch.manual_seed(examples)
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 5))
    x, y = torch.randn(examples, 20), torch.randint(0, 5, (examples,))
    hessian = LossSurface(model, "cross_entropy", (x, y), chunk=examples).hessian()
    v = torch.randn(hessian.shape[0], 2)
    here = hessian @ v
    monkeypatch.setattr("fathometer.model.curvature._float32_divides", lambda *_: False)
    assert torch.equal(here, hessian @ v)
    values = torch.randn(100_000) * 10.0 ** torch.randint(-30, 30, (100_000,))
    assert torch.equal(values / examples, (values.double() / examples).float())


@pytest.mark.parametrize("relu", [nn.ReLU(), torch.relu, F.relu, torch.Tensor.relu])
def test_a_rectifier_passes_no_zeros_back_in_second_order(relu):
    x = torch.randn(4, requires_grad=True)
    with CheapTwice():
        y = relu(x)
    (slope,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    nodes, seen = [slope.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is not None and node not in seen:
            seen.add(node)
            nodes.extend(parent for parent, _ in node.next_functions)
    names = {type(node).__name__ for node in seen}
    assert "_GateBackward" in names and "ThresholdBackwardBackward0" not in names
