import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import fathometer as fm
from fathometer.approximation import SkipNetwork, liang_srikant, pieces
from fathometer.errors import BudgetError, InputError


def bends_by_brute_force(model, start, end, points=50_001):
    """Bends of the output along the segment, from second differences on a dense grid."""
    t = torch.linspace(0, 1, points, dtype=torch.float64)
    x = start + t.reshape(-1, *[1] * start.ndim) * (end - start)
    with torch.no_grad():
        y = model(x).reshape(points, -1).numpy()
    second = np.abs(np.diff(y, n=2, axis=0)).max(axis=1)
    at = np.flatnonzero(second > 1e-9 * np.abs(np.diff(y, axis=0)).max())
    groups = np.split(at, np.flatnonzero(np.diff(at) > 1) + 1) if len(at) else []
    return np.array([(g.mean() + 1) / (points - 1) for g in groups])


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.second, self.pool, self.last = nn.Conv2d(3, 3, 3, padding=1), nn.MaxPool2d(2), nn.Linear(12, 2)

    def forward(self, x):
        h = F.relu(self.norm(self.first(x)))
        h = h + F.leaky_relu(self.second(h), 0.2)
        return self.last(self.pool(h).flatten(1)).clamp(min=-0.2)


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 5), nn.Linear(5, 4)

    def forward(self, x):
        h = torch.maximum(self.a(x), x.sum(dim=1, keepdim=True)).abs()
        return F.max_pool1d(F.hardtanh(self.b(h))[:, None], 2)[:, 0] - F.relu6(h[:, :2])


def chain():
    return nn.Sequential(nn.Linear(2, 8), nn.ReLU(inplace=True), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 1))


CASES = {"chain": (chain, (2,)), "residual": (Residual, (1, 4, 4)), "functional": (Functional, (3,))}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_bends_are_those_of_a_dense_grid(name, seed):
    make, shape = CASES[name]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = make()
        start, end = torch.randn(2, *shape, dtype=torch.float64)
    count = pieces(model, (start, end))
    wanted = bends_by_brute_force(model.double().eval(), start, end)
    assert count == len(wanted) + 1 == count.value
    np.testing.assert_allclose(count.breaks, wanted, atol=5e-5)
    assert count.regions >= count and int(count.ceiling) >= count


@pytest.mark.parametrize("larger", [torch.maximum, torch.max, torch.fmax])
@pytest.mark.parametrize("zero_first", [True, False])
def test_a_maximum_bends_whichever_side_is_constant(larger, zero_first):
    class Rectified(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.outer = nn.Linear(1, 8), nn.Linear(8, 1)

        def forward(self, x):
            h, zero = self.inner(x), torch.zeros(8, dtype=x.dtype)
            return self.outer(larger(zero, h) if zero_first else larger(h, zero))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Rectified()
    start, end = torch.tensor([-3.0]), torch.tensor([3.0])
    wanted = bends_by_brute_force(copy.deepcopy(model).double(), start.double(), end.double())
    assert pieces(model, (start, end)) == len(wanted) + 1 > 3


@pytest.mark.parametrize("at", [-2.99, -1.0, 0.5, 2.99])
def test_a_bend_of_an_unknown_operation_is_noticed_anywhere_on_the_line(at):
    class Hidden(nn.Module):
        def forward(self, x):
            return torch.stack([x, torch.full_like(x, at)]).sort(dim=0).values[0]

    with pytest.raises(InputError, match="not affine between the shares 0 and 1"):
        pieces(Hidden(), (torch.tensor([-3.0]), torch.tensor([3.0])))


def test_a_tent_network_has_two_to_the_depth_pieces():
    units, tent = [], {0: 1.0}
    for s in range(1, 9):
        units.append((dict(tent), -0.5, "relu"))
        tent = {**{i: 2 * w for i, w in tent.items()}, s: -4.0}
    count = pieces(SkipNetwork(1, units, (tent, 0.0)), (0.0, 1.0))
    assert count == 256
    np.testing.assert_allclose(count.breaks, np.arange(1, 256) / 256, atol=1e-14)
    assert (count.units, int(count.ceiling)) == (8, 2**8)


def test_a_unit_that_cancels_is_a_region_but_no_piece():
    network = SkipNetwork(1, [({0: 1.0}, -0.5, "relu")], ({0: 1.0}, 0.0))
    count = pieces(network, ([0.0], [1.0]))
    assert (count.value, count.regions) == (1, 2)


def test_the_model_is_left_as_it_was():
    model = Residual().train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.get_rng_state()
    pieces(model, (torch.zeros(1, 4, 4), torch.ones(1, 4, 4)))
    assert model.training and model.first.weight.grad is None
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_the_count_is_a_number_and_a_result(tmp_path):
    count = pieces(nn.Sequential(nn.Linear(1, 4), nn.ReLU(), nn.Linear(4, 1)), ([-3.0], [3.0]))
    assert isinstance(count, int) and count + 1 == count.value + 1
    loaded = fm.load(count.save(tmp_path / "p.safetensors"))
    assert loaded == count and np.array_equal(loaded.breaks, count.breaks)
    assert "linear piece" in str(count)
    line = count.picture().panels[0].marks[0]
    assert len(line.x) == count + 1


class Smooth(nn.Module):
    def __init__(self, operation):
        super().__init__()
        self.operation = operation

    def forward(self, x):
        return self.operation(x)


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        (torch.tanh, "model uses tanh, which is not piecewise linear"),
        (F.gelu, "model uses gelu, which is not piecewise linear"),
        (torch.sign, "model uses sign, which jumps"),
        (lambda x: x * x, "model is not affine between the shares"),
        (lambda x: F.threshold(x, 0.1, 5.0), "model uses threshold with a jump"),
        (lambda x: x.amax(dim=1), "model uses amax, which is not followed"),
        (lambda x: F.max_pool1d(x[:, None], 2, ceil_mode=True), "max pooling with ceil_mode"),
        (lambda x: x.clamp(torch.zeros(2), torch.ones(2)), "clamp with tensors"),
        (lambda x: (x, x), "model gave a tuple"),
    ],
)
def test_operations_that_are_not_piecewise_linear_are_named(operation, message):
    with pytest.raises(InputError, match=message):
        pieces(Smooth(operation), ([-1.0, 0.0], [1.0, 0.5]))


@pytest.mark.parametrize(
    ("model", "line", "message"),
    [
        (nn.Linear(1, 1), 3.0, "line must be a pair"),
        (nn.Linear(1, 1), ([0.0], [0.0, 1.0]), r"ends of shapes \(1,\) and \(2,\)"),
        (nn.Linear(1, 1), ([0.0], [0.0]), "line starts where it ends"),
        (nn.Linear(1, 1), ([0.0], [np.inf]), "not finite"),
        ("net", ([0.0], [1.0]), "model is a str"),
        (liang_srikant.bits(2), (0.0, 1.0), "model has step units"),
    ],
)
def test_lines_and_models_that_do_not_fit_are_refused(model, line, message):
    with pytest.raises(InputError, match=message):
        pieces(model, line)


def test_too_many_regions_are_a_budget():
    model = nn.Sequential(nn.Linear(1, 64), nn.ReLU(), nn.Linear(64, 1))
    with pytest.raises(BudgetError, match="more than 1 regions"):
        pieces(model, ([-100.0], [100.0]), limit=1)
