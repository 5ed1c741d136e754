"""Everyday modules on which curvature tools go wrong, against derivatives made by other means."""

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

import fathometer as fm
from fathometer.model import surface as surface_module

D = torch.float64


def seeded(make, seed=3):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make().double()


def rows(n, *shape, seed=0):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=D)


def classes(n, k, seed=1):
    return torch.randint(0, k, (n,), generator=torch.Generator().manual_seed(seed))


def differences(function, theta, step):
    """Central differences of a vector function of theta, column by column."""
    columns = []
    for e in torch.eye(len(theta), dtype=D):
        columns.append((function(theta + step * e) - function(theta - step * e)) / (2 * step))
    return torch.stack(columns, -1)


def agree_with_differences(surface, columns=None):
    """Gradient by differences of the energy; Hessian by differences of that gradient."""
    theta = surface.theta
    numerical = differences(surface.energy, theta, 1e-5)
    torch.testing.assert_close(surface.gradient(), numerical, rtol=1e-6, atol=1e-8)
    H = surface.hessian().to_dense()
    torch.testing.assert_close(H, differences(surface.gradient, theta, 1e-5), rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(H, H.T)


class Words(nn.Module):
    """Mean of word vectors, pads included, as many sentence encoders do by mistake."""

    def __init__(self, **options):
        super().__init__()
        self.embedding = nn.Embedding(5, 3, **options)
        self.head = nn.Linear(3, 2)

    def forward(self, tokens):
        return self.head(torch.tanh(self.embedding(tokens)).mean(1))


def words_with_pad():
    model = seeded(lambda: Words(padding_idx=0))
    with torch.no_grad():
        model.embedding.weight[0] = 0.3
    return model, (torch.tensor([[1, 2, 0], [3, 0, 0], [4, 1, 2]]), torch.tensor([0, 1, 1]))


def test_the_row_of_a_padding_index_has_its_true_gradient_and_curvature():
    model, data = words_with_pad()
    surface = fm.LossSurface(model, "cross_entropy", data)
    agree_with_differences(surface)
    assert surface.gradient()[:3].abs().min() > 1e-4
    assert "padding_idx" in surface.notes[0]
    assert surface.write().embedding.padding_idx == 0
    assert model.embedding.padding_idx == 0


def test_the_check_catches_a_padding_index_that_was_left_on():
    model, data = words_with_pad()
    surface = fm.LossSurface(model, "cross_entropy", data)
    surface._problem.replica.module.embedding.padding_idx = 0
    with pytest.raises(fm.CapabilityError, match="gradient fails against central differences of the energy"):
        surface.hessian()
    with pytest.raises(fm.CapabilityError, match="Jacobian fails against central differences of the outputs"):
        surface.gauss_newton()
    surface.hessian(check=False)


class WrongCurvature(torch.autograd.Function):
    """Right gradient, but its own derivative is treated as a constant."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * 3 * x.detach() ** 2


class Cube(nn.Module):
    def forward(self, x):
        return WrongCurvature.apply(x)


def test_the_check_catches_a_backward_pass_that_is_right_only_once():
    model = seeded(lambda: nn.Sequential(nn.Linear(2, 3), Cube(), nn.Linear(3, 1)))
    surface = fm.LossSurface(model, "mse", (rows(4, 2), rows(4, 1, seed=1)))
    with pytest.raises(
        fm.CapabilityError, match=r"Hessian (fails against central differences|is not symmetric)"
    ):
        surface.hessian()


class TwoKinds(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.3, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.layer(x).mean(1))


@pytest.mark.parametrize(
    "model",
    [
        lambda: TwoKinds(),
        lambda: nn.Sequential(fm.model.transformer(4, 2, 1, 2)),
        lambda: nn.Sequential(nn.LSTM(3, 2, batch_first=True), _Last(), nn.Linear(2, 2)),
        lambda: nn.Sequential(
            nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Dropout(0.5), nn.Linear(4, 2)
        ),
        lambda: nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 2)),
    ],
    ids=["encoder layer", "fused attention", "lstm", "batch norm and dropout", "layer norm"],
)
def test_everyday_modules_have_the_curvature_that_differences_show(model):
    model = seeded(model)
    first = next(p for p in model.parameters())
    shape = {TwoKinds: (3, 4)}.get(type(model), (3,))
    if isinstance(model[0] if isinstance(model, nn.Sequential) else None, nn.LSTM):
        shape = (4, 3)
    if "position" in dict(model.named_parameters()) or "0.position" in dict(model.named_parameters()):
        shape = (1, 8, 8)
    assert first.dtype == D
    surface = fm.LossSurface(model, "cross_entropy", (rows(3, *shape), classes(3, 2)))
    theta = surface.theta
    v = rows(len(theta), seed=4)
    v = v / v.norm()
    along = [surface.energy(theta + t * v) for t in (-2e-3, -1e-3, 0.0, 1e-3, 2e-3)]
    a, b, c, d, e = (float(x) for x in along)
    slope, curvature = (a - 8 * b + 8 * d - e) / 12e-3, (-a + 16 * b - 30 * c + 16 * d - e) / 12e-6
    assert float(surface.gradient() @ v) == pytest.approx(slope, rel=1e-7, abs=1e-9)
    H = surface.hessian()
    assert float(v @ (H @ v)) == pytest.approx(curvature, rel=1e-6, abs=1e-7)
    change = (surface.gradient(theta + 1e-5 * v) - surface.gradient(theta - 1e-5 * v)) / 2e-5
    torch.testing.assert_close(H @ v, change, rtol=1e-5, atol=1e-7)


class _Last(nn.Module):
    def forward(self, sequence):
        return sequence[0][:, -1]


def test_float32_rectifier_networks_raise_no_false_alarm():
    for seed in range(6):
        model = fm.model.residual_cnn(3, seed=seed)  # at its start: zero biases, exact kinks at blank pixels
        x = rows(6, 1, 8, 8, seed=seed).float().clamp(min=0.5) - 0.5
        fm.LossSurface(model, "cross_entropy", (x, classes(6, 10))).hessian()
        model = fm.model.mlp((6, 40, 40, 3), seed=seed)
        fm.LossSurface(model, "mse", (rows(9, 6).float(), rows(9, 3).float())).gauss_newton()


def test_a_model_in_training_mode_is_measured_in_evaluation_mode_and_left_in_its_own():
    model = seeded(
        lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    )
    model.train()
    x, y = rows(5, 3), classes(5, 2)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    surface = fm.LossSurface(model, "cross_entropy", (x, y), chunk=2)
    surface.hessian() @ surface.theta
    assert all(m.training for m in model.modules())
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert "evaluation mode" in surface.notes[0]
    assert surface.write().training
    model.eval()
    torch.testing.assert_close(surface.energy(), F.cross_entropy(model(x), y).detach())


def test_batch_statistics_are_refused():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 2))
    with pytest.raises(fm.InputError, match=r"1 has no running statistics.*track_running_stats=True"):
        fm.LossSurface(model, "mse", (torch.randn(4, 3), torch.randn(4, 2)))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(3, 3, bias=False)
        self.decoder = nn.Linear(3, 3)
        self.decoder.weight = self.encoder.weight
        self.unused = nn.Linear(2, 2)
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)

    def forward(self, x):
        return self.decoder(torch.tanh(self.encoder(x))) * self.frozen


def test_tied_weights_count_once_unused_ones_are_flat_and_frozen_ones_constant():
    model = seeded(Tied)
    surface = fm.LossSurface(model, "mse", (rows(5, 3), rows(5, 3, seed=1)))
    assert surface.names == ("encoder.weight", "decoder.bias", "unused.weight", "unused.bias")
    agree_with_differences(surface)
    unused = surface.space.positions("unused.*")
    assert not surface.gradient()[unused].any()
    assert not surface.hessian().to_dense()[unused].any()
    moved = surface.write(surface.theta + 1)
    assert moved.decoder.weight is moved.encoder.weight
    torch.testing.assert_close(moved.encoder.weight, model.encoder.weight + 1)
    by_alias = fm.LossSurface(model, "mse", (rows(5, 3), rows(5, 3, seed=1)), parameters="decoder.*")
    assert by_alias.names == ("encoder.weight", "decoder.bias")


def test_a_selection_of_parameters_gives_the_block_of_the_hessian():
    model = seeded(lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)))
    data = (rows(5, 3), classes(5, 2))
    whole = fm.LossSurface(model, "cross_entropy", data)
    part = fm.LossSurface(model, "cross_entropy", data, parameters=["2.*"])
    at = whole.space.positions("2.*")
    torch.testing.assert_close(part.hessian().to_dense(), whole.hessian().to_dense()[at][:, at])
    assert all(p.requires_grad for p in part.write().parameters())


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_graphs_that_do_not_fit_are_recorded_again_with_the_same_bits(monkeypatch, share):
    model = seeded(lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)))
    surface = fm.LossSurface(model, "cross_entropy", (rows(7, 3), classes(7, 2)), chunk=2)
    H = surface.hessian()
    monkeypatch.setattr(surface_module.curvature, "KEPT_SHARE", share)
    v = rows(surface.size)
    product = H @ v
    monkeypatch.undo()
    assert torch.equal(product, surface.hessian() @ v)


def test_float64_copy_agrees_with_a_model_that_was_double_from_the_start():
    model = seeded(lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))).float()
    data = (rows(7, 3).float(), classes(7, 2))
    fine = fm.LossSurface(model, "cross_entropy", data).double()
    x, y = data[0].double(), data[1]
    expected = F.cross_entropy(functional_call(model, fine.space.split(fine.theta), (x,)), y)
    assert fine.energy().dtype == D
    torch.testing.assert_close(fine.energy(), expected)
