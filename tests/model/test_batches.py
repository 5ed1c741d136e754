"""How the data is cut must not matter; what the mean divides by must be torch's."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import fathometer as fm
from fathometer.model import batches as batches_module

D = torch.float64


def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def rows(n, *shape, seed=0):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=D)


X, Y = rows(11, 3), torch.tensor([0, 1, 0, 1, 1, 0, 1, 1, 0, 0, 1])


def same(a, b):
    assert a.examples == b.examples
    assert a.count == b.count
    torch.testing.assert_close(a.energy(), b.energy())
    torch.testing.assert_close(a.gradient(), b.gradient())
    torch.testing.assert_close(a.hessian().to_dense(), b.hessian().to_dense())


@pytest.mark.parametrize("size", [1, 4, 5, 11])
@pytest.mark.parametrize("kept", [True, False])
def test_uneven_batches_of_a_loader_weigh_as_many_examples_as_they_have(size, kept, monkeypatch):
    if not kept:
        monkeypatch.setattr(batches_module, "allowance", lambda: 0)
    loader = DataLoader(TensorDataset(X, Y), size)
    surface = fm.LossSurface(net(), "cross_entropy", loader)
    same(surface, fm.LossSurface(net(), "cross_entropy", (X, Y)))
    assert surface.chunk == 0


class Drifting:
    """A loader whose data changes, or ends early, after some passes."""

    def __init__(self, parts, after):
        self.parts, self.after, self.passes = parts, after, 0

    def __iter__(self):
        self.passes += 1
        return iter(self.parts[0] if self.passes <= self.after else self.parts[1])


def test_a_streamed_loader_that_changes_later_is_refused(monkeypatch):
    monkeypatch.setattr(batches_module, "allowance", lambda: 0)
    first = [(X[:6], Y[:6]), (X[6:], Y[6:])]
    loader = Drifting([first, first[::-1]], 4)
    with pytest.raises(fm.InputError, match="data changes between two passes"):
        surface = fm.LossSurface(net(), "cross_entropy", loader)
        for _ in range(3):
            surface.energy()
    loader = Drifting([first, first[:1]], 4)
    with pytest.raises(fm.InputError, match="data ended after 1 batches; an earlier pass had 2"):
        surface = fm.LossSurface(net(), "cross_entropy", loader)
        for _ in range(3):
            surface.energy()


CALLABLES = {
    "each": lambda o, t: F.cross_entropy(o, t, reduction="none"),
    "mean": F.cross_entropy,
    "module": nn.CrossEntropyLoss(),
    "model and batch": lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]),
    "model and batch, each": lambda net, batch: F.cross_entropy(net(batch[0]), batch[1], reduction="none"),
    "model and batch, counted": lambda model, batch: (
        F.cross_entropy(model(batch[0]), batch[1]),
        len(batch[1]),
    ),
}


@pytest.mark.parametrize("loss", CALLABLES)
@pytest.mark.parametrize("data", [(X, Y), [(X[:7], Y[:7]), (X[7:], Y[7:])]], ids=["arrays", "batches"])
def test_every_way_to_write_a_loss_is_the_same_surface(loss, data):
    surface = fm.LossSurface(net(), CALLABLES[loss], data)
    reference = fm.LossSurface(net(), "cross_entropy", (X, Y))
    same(surface, reference)
    if "model" not in loss:
        torch.testing.assert_close(surface.gauss_newton().to_dense(), reference.gauss_newton().to_dense())
    if loss in ("each", "mean", "model and batch, each"):
        fisher = surface.fisher(kind="empirical").to_dense()
        torch.testing.assert_close(fisher, reference.fisher(kind="empirical").to_dense())


@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(ignore_index=1),
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3.0], dtype=D)),
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3.0], dtype=D), ignore_index=0, label_smoothing=0.2),
        nn.CrossEntropyLoss(label_smoothing=0.3),
    ],
    ids=["ignored", "weighted", "all", "smoothed"],
)
@pytest.mark.parametrize("chunk", [2, 11])
def test_ignored_weighted_and_smoothed_classes_have_the_mean_of_torch(loss, chunk):
    model = net()
    surface = fm.LossSurface(model, loss, (X, Y), chunk=chunk)
    torch.testing.assert_close(surface.energy(), loss(model(X), Y).detach())
    torch.testing.assert_close(surface.losses().sum() / surface.count, surface.energy())


def test_dense_predictions_and_class_probabilities_have_the_mean_of_torch():
    model = nn.Conv1d(3, 2, 1).double()
    x, y = rows(5, 3, 4), torch.tensor([[0, 1, -100, 1]] * 5)
    surface = fm.LossSurface(model, "cross_entropy", (x, y), chunk=2)
    torch.testing.assert_close(surface.energy(), F.cross_entropy(model(x), y).detach())
    assert (surface.examples, surface.count) == (5, 15)
    soft = rows(5, 2, 4, seed=1).softmax(1)
    surface = fm.LossSurface(model, "cross_entropy", (x, soft), chunk=2)
    torch.testing.assert_close(surface.energy(), F.cross_entropy(model(x), soft).detach())


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2).double()

    def forward(self, left, right):
        return self.layer(left - 2 * right)


def test_inputs_may_be_a_tuple_or_a_dictionary_and_numpy():
    model, z = TwoInputs(), rows(11, 3, seed=5)
    expected = F.cross_entropy(model(X, z), Y).detach()
    for inputs in ((X, z), {"right": z, "left": X}, (X.numpy(), z.numpy())):
        surface = fm.LossSurface(model, "cross_entropy", (inputs, Y.numpy()), chunk=4)
        torch.testing.assert_close(surface.energy(), expected)
        torch.testing.assert_close(surface.outputs(), model(X, z).detach())


def test_a_dictionary_batch_is_opaque():
    batches = [{"x": X[:4], "y": Y[:4]}, {"x": X[4:], "y": Y[4:]}]

    def loss(model, batch):
        return F.cross_entropy(model(batch["x"]), batch["y"])

    same(fm.LossSurface(net(), loss, batches), fm.LossSurface(net(), "cross_entropy", (X, Y)))


def test_selected_examples_are_a_surface_of_their_own():
    whole = fm.LossSurface(net(), "cross_entropy", (X, Y), chunk=4)
    same(
        whole.select([1, 5, 5, 8]), fm.LossSurface(net(), "cross_entropy", (X[[1, 5, 5, 8]], Y[[1, 5, 5, 8]]))
    )
    same(whole.select(Y == 1), whole.select(torch.where(Y == 1)[0]))
    same(whole.select(slice(2, 9)), whole.select(range(2, 9)))


def test_examples_of_a_loader_are_selected_across_its_batches():
    batches = [(X[:4], Y[:4]), (X[4:5], Y[4:5]), (X[5:], Y[5:])]
    picked = fm.LossSurface(net(), "cross_entropy", batches).select([8, 1, 5, 5])
    same(picked, fm.LossSurface(net(), "cross_entropy", (X[[1, 5, 5, 8]], Y[[1, 5, 5, 8]])))
    assert picked.examples == 4


@pytest.mark.parametrize("loss", ["cross_entropy", "mse", "half_mse"])
def test_the_sampled_fisher_matrix_has_the_exact_one_as_its_mean(loss):
    targets = Y if loss == "cross_entropy" else rows(11, 2, seed=3)
    surface = fm.LossSurface(net(), loss, (X, targets))
    exact = surface.fisher().to_dense()
    draws = torch.stack([surface.fisher(kind="sampled", seed=s).to_dense() for s in range(40)])
    z = (draws.mean(0) - exact).norm() / (draws.var(0).sum() / 40).sqrt()
    assert z < 2.0  # its root mean square is 1
    assert torch.equal(draws[0], surface.fisher(kind="sampled", seed=0).to_dense())


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_sampled_targets_do_not_depend_on_the_cut(loss):
    x, y = rows(150, 3, seed=1), torch.arange(150) % 2
    y = y if loss == "cross_entropy" else rows(150, 2, seed=3)
    whole = fm.LossSurface(net(), loss, (x, y)).fisher(kind="sampled", seed=7).to_dense()
    for chunk in (1, 37, 64, 150):
        cut = fm.LossSurface(net(), loss, (x, y), chunk=chunk).fisher(kind="sampled", seed=7)
        torch.testing.assert_close(cut.to_dense(), whole)
    batches = [(x[:5], y[:5]), (x[5:6], y[5:6]), (x[6:], y[6:])]
    torch.testing.assert_close(
        fm.LossSurface(net(), loss, batches).fisher(kind="sampled", seed=7).to_dense(), whole
    )
    other = fm.LossSurface(net(), loss, (x, y)).fisher(kind="sampled", seed=8).to_dense()
    assert (other - whole).norm() > 1e-3 * whole.norm()


def test_around_takes_the_buffers_of_another_module_and_refuses_another_architecture():
    def normed(seed):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).double()
            model(rows(9, 3, seed=seed))
        return model.eval()

    first, second = normed(0), normed(1)
    surface = fm.LossSurface(first, "cross_entropy", (X, Y)).around(second)
    torch.testing.assert_close(surface.energy(), F.cross_entropy(second(X), Y).detach())
    with pytest.raises(fm.InputError, match=r"model has the parameters 0\.weight.*this surface has"):
        surface.around(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))


def test_example_inputs_are_positional_arguments():
    surface = fm.LossSurface(TwoInputs(), "cross_entropy", ((X, X), Y))
    assert [tuple(x.shape) for x in surface.example_inputs(3)] == [(3, 3), (3, 3)]
    keywords = fm.LossSurface(TwoInputs(), "cross_entropy", ({"left": X, "right": X}, Y))
    with pytest.raises(fm.InputError, match="takes keyword arguments"):
        keywords.example_inputs()
    opaque = fm.LossSurface(net(), CALLABLES["model and batch"], (X, Y))
    with pytest.raises(fm.InputError, match="pass example_inputs for the model"):
        opaque.example_inputs()


def test_energy_is_a_closed_form_for_a_constant_network():
    model = nn.Linear(3, 4)
    surface = fm.LossSurface(model, "cross_entropy", (X.float(), Y)).at(torch.zeros(16))
    assert surface.energy().item() == pytest.approx(math.log(4), rel=1e-6)
