"""Hostile inputs: every refusal says what was found and what would be right."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fathometer as fm


def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


X = torch.linspace(-1, 1, 21).view(7, 3)
Y = torch.tensor([0, 1, 0, 1, 1, 0, 1])


def complex_parameter():
    model = net()
    model.extra = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    return model


def nan_parameter():
    model = net()
    with torch.no_grad():
        model[2].weight[1, 2] = torch.nan
    return model


def history():
    model = net()
    model.cache = model[0].weight * 2
    return model


def renormalizing():
    return nn.Sequential(nn.Embedding(3, 2, max_norm=1.0), nn.Flatten())


def on_meta():
    model = net()
    model.extra = nn.Linear(2, 2, device="meta")
    return model


def frozen_on_meta():
    model = on_meta()
    model.extra.requires_grad_(False)
    return model


def sparse():
    model = net()
    model.extra = nn.Parameter(torch.eye(2).to_sparse())
    return model


class Scripted(nn.Module):
    def forward(self, x):
        return x


MODELS = [
    (lambda: "resnet", r"model is a str; a torch\.nn\.Module"),
    (lambda: net().requires_grad_(False), "all have requires_grad=False"),
    (nn.ReLU, "it has no parameters.*dequantize"),
    (complex_parameter, r"extra is torch\.complex64; split it"),
    (lambda: nn.LazyLinear(2), "weight is not initialized; call the model once"),
    (nan_parameter, r"parameter 2\.weight\[1, 2\] is nan"),
    (history, r"model cannot be copied .*Detach or drop it"),
    (renormalizing, r"0 has max_norm=1\.0: it rewrites its weights"),
    (on_meta, r"the parameters are on several devices .*meta"),
    (frozen_on_meta, r"model is on several devices .*meta"),
    (lambda: nn.Linear(2, 2, device="meta"), "meta device and has no values"),
    (sparse, r"extra has layout torch\.sparse_coo; call \.to_dense"),
]


@pytest.mark.parametrize(("model", "message"), MODELS)
def test_models_that_cannot_be_measured_are_refused(model, message):
    with pytest.raises(fm.InputError, match=message):
        fm.LossSurface(model(), "cross_entropy", (X, Y))


class Compiled(nn.Module):
    """What ``torch.compile`` returns, as far as it matters here, without its import of many seconds."""

    def __init__(self, model):
        super().__init__()
        self._orig_mod = model

    def forward(self, x):
        raise RuntimeError("compiled code has no second derivatives")


def test_torchscript_is_refused_and_a_compiled_model_unwrapped():
    with pytest.warns(DeprecationWarning):
        scripted = torch.jit.script(Scripted())
    with pytest.raises(fm.InputError, match=r"TorchScript module.*pass the original"):
        fm.LossSurface(scripted, "mse", (X, X))
    surface = fm.LossSurface(Compiled(net()), "cross_entropy", (X, Y))
    assert surface.names == ("0.weight", "0.bias", "2.weight", "2.bias")
    assert "torch.compile" in surface.notes[0]
    assert surface.hessian().to_dense().isfinite().all()


PARAMETERS = [
    ("1.*", r"parameters: '1\.\*' matches none of 0\.weight, 0\.bias"),
    (["0.*", "head"], "'head' matches none of"),
    ([], "parameters is empty"),
]


@pytest.mark.parametrize(("parameters", "message"), PARAMETERS)
def test_patterns_that_match_nothing_are_named(parameters, message):
    with pytest.raises(fm.InputError, match=message):
        fm.LossSurface(net(), "cross_entropy", (X, Y), parameters=parameters)


def test_a_pattern_that_matches_only_frozen_parameters_is_named():
    model = net()
    model[0].requires_grad_(False)
    with pytest.raises(fm.InputError, match=r"'0\.\*' matches only frozen ones \(0\.weight\)"):
        fm.LossSurface(model, "cross_entropy", (X, Y), parameters="0.*")


DATA = [
    ((X, Y[:5]), "data has 7 inputs and 5 targets"),
    ((X[:0], Y[:0]), "data has no examples"),
    ([], "data has no batches"),
    (iter([(X, Y)]), "can be read only once"),
    (((X, Y) for _ in range(2)), "generator, which can be read only once"),
    (X, "data is a Tensor; pass"),
    (5, "data is a int; pass"),
    ([(X, Y, Y)], "a batch is a tuple of 3.*needs \\(inputs, targets\\)"),
    ([X], "a batch is a Tensor; the loss cross_entropy needs"),
    ([(X, Y[:3])], "a batch has 7 inputs and 3 targets"),
    (DataLoader(TensorDataset(X, Y), 2, shuffle=True), "data changes between two passes"),
    ((X, Y + 1), r"targets\[1\] is 2; the model has 2 classes, 0\.\.1"),
    (
        (X, Y[:, None]),
        r"targets have shape \(7, 1\)|targets have shape \(\d, 1\).*cross-entropy needs targets",
    ),
    ((X, torch.zeros(7, 3)), "pass integer classes, or class probabilities of the same shape"),
    ((X, torch.full((7,), -100)), "every target is ignored"),
    ((X / 0, Y), "the loss is nan on examples 0..6"),
]


@pytest.mark.parametrize(("data", "message"), DATA)
def test_data_that_fits_no_surface_is_refused(data, message):
    with pytest.raises(fm.InputError, match=message):
        fm.LossSurface(net(), "cross_entropy", data).energy()


LOSSES = [
    ("nll", (X, Y), "loss is 'nll'; pass one of cross_entropy, mse, half_mse"),
    (3.0, (X, Y), "loss is a float"),
    ("mse", (X, Y), r"targets have shape \(\d,\) and outputs \(\d, 2\); a squared error needs equal shapes"),
    (nn.CrossEntropyLoss(reduction="sum"), (X, Y), "reduction='sum'; use reduction='mean'"),
    (nn.NLLLoss(), (X, Y), "NLLLoss with reduction='mean'"),
    (lambda o, t: (o[:, 0] - t).square().sum(), (X, Y), "returns a sum over examples"),
    (lambda o, t: o.var(), (X, Y), "no mean over examples"),
    (lambda o, t: o, (X, Y), r"returned shape \(\d, 2\); return one loss an example"),
    (lambda o, t: 1.0, (X, Y), "returned a float; a tensor"),
    (
        lambda model, batch: model(torch.tensor(batch["x"])).square().mean(),
        [{"x": X.tolist()}],
        "without a tensor to count",
    ),
    (lambda model, batch: (model(batch).mean(), 0), [X], "returned count 0.0; it must be positive"),
    (lambda o, t: (o[:, 0] - torch.rand(())).square(), (X, Y), "the loss is random"),
]


@pytest.mark.parametrize(("loss", "data", "message"), LOSSES)
def test_losses_that_are_no_mean_over_examples_are_refused(loss, data, message):
    with pytest.raises(fm.InputError, match=message):
        fm.LossSurface(net(), loss, data).energy()


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        return self.layer(x), x


def test_outputs_that_are_no_tensor_are_refused_where_one_is_needed():
    with pytest.raises(fm.InputError, match="model returned a tuple; cross_entropy needs a tensor"):
        fm.LossSurface(Pair(), "cross_entropy", (X, Y))
    surface = fm.LossSurface(Pair(), lambda o, t: (o[0][:, 0] - t).square(), (X, Y))
    with pytest.raises(fm.InputError, match="returned a tuple; the Gauss-Newton matrix needs one tensor"):
        surface.gauss_newton()
    with pytest.raises(fm.InputError, match=r"returned a tuple; outputs\(\) needs one tensor"):
        surface.outputs()


def test_questions_that_the_loss_cannot_answer_are_refused():
    mean = fm.LossSurface(net(), lambda model, batch: model(batch).square().mean(), [X[:4], X[4:]])
    with pytest.raises(fm.InputError, match=r"takes \(model, batch\): it has no outputs"):
        mean.gauss_newton()
    with pytest.raises(fm.InputError, match="returns only a mean"):
        mean.fisher(kind="empirical")
    with pytest.raises(fm.InputError, match="returns only a mean"):
        mean.losses()
    with pytest.raises(fm.InputError, match="the outputs are its own affair"):
        mean.outputs()
    with pytest.raises(fm.InputError, match="takes whole batches, which cannot be cut"):
        mean.select([0])
    custom = fm.LossSurface(net(), lambda o, t: (o[:, 0] - t).square(), (X, Y))
    with pytest.raises(fm.InputError, match=r"not known to be the negative log.*exact Fisher"):
        custom.fisher()
    with pytest.raises(fm.InputError, match="kind is 'true'"):
        custom.fisher(kind="true")
    with pytest.raises(fm.InputError, match="seed is -1"):
        custom.fisher(kind="empirical", seed=-1)


def test_points_that_are_not_of_the_surface_are_refused():
    surface = fm.LossSurface(net(), "cross_entropy", (X, Y))
    with pytest.raises(fm.InputError, match=r"theta has shape \(3,\); the surface has P = 26"):
        surface.energy(torch.zeros(3))
    with pytest.raises(fm.InputError, match=r"theta\[13\], 0.bias\[1\], is inf"):
        surface.at(torch.zeros(26).index_fill(0, torch.tensor([13]), torch.inf))
    with pytest.raises(fm.InputError, match="theta is a str"):
        surface.gradient("here")
    with pytest.raises(fm.InputError, match="rows do not select from 7 examples"):
        surface.select([9])
    with pytest.raises(fm.InputError, match="rows select none of the 7 examples"):
        surface.select(slice(3, 3))


@pytest.mark.parametrize("chunk", [0, -3, 2.5, True, "large"])
def test_a_chunk_that_is_no_number_of_examples_is_refused(chunk):
    with pytest.raises(fm.InputError, match=r"chunk is .*one or more, or 'auto'"):
        fm.LossSurface(net(), "cross_entropy", (X, Y), chunk=chunk)


def test_batches_of_a_loader_are_never_cut():
    with pytest.raises(fm.InputError, match="chunk is 2 and data yields batches"):
        fm.LossSurface(net(), "cross_entropy", [(X, Y)], chunk=2)


def test_a_gradient_that_is_not_finite_is_named():
    surface = fm.LossSurface(net(), lambda o, t: (0 * o).norm(dim=1).sqrt(), (X, Y))
    with pytest.raises(fm.InputError, match=r"the gradient of 0\.weight is not finite on examples 0\.\.6"):
        surface.gradient()


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return g * 2


class Then(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.function = function

    def forward(self, x):
        return self.function(self.layer(x))


def test_an_operation_without_second_derivative_is_said_to_be_one():
    model = Then(lambda z: torch.cdist(z, torch.ones(2, 2), p=3.0))
    surface = fm.LossSurface(model, "cross_entropy", (X, Y))
    assert surface.gradient().isfinite().all()
    with pytest.raises(fm.CapabilityError, match="no derivative of the order that is needed"):
        surface.hessian()


def test_an_operation_whose_second_derivative_torch_leaves_out_in_silence_is_caught():
    surface = fm.LossSurface(Then(lambda z: Once.apply(z).square()), "cross_entropy", (X, Y))
    with pytest.raises(fm.CapabilityError, match="Hessian fails against central differences of the gradient"):
        surface.hessian()


def test_not_even_one_example_fits_a_tiny_budget():
    with fm.budget(500), pytest.raises(fm.BudgetError, match="a Hessian product needs"):
        fm.LossSurface(net(), "cross_entropy", (X, Y))


def everything(model):
    states = (torch.get_rng_state().numpy().tobytes(), np.random.get_state()[1].tobytes(), random.getstate())  # noqa: NPY002
    flags = (
        torch.backends.mkldnn.enabled,
        torch.backends.cudnn.enabled,
        torch.backends.mha.get_fastpath_enabled(),
        torch.backends.cuda.flash_sdp_enabled(),
        torch.is_grad_enabled(),
    )
    weights = {k: v.numpy().tobytes() for k, v in model.state_dict().items()}
    grads = [None if p.grad is None else p.grad.numpy().tobytes() for p in model.parameters()]
    modes = [m.training for m in model.modules()]
    return states, flags, weights, grads, modes, [p.requires_grad for p in model.parameters()]


class Fragile(nn.Module):
    """Draws random numbers, has every layer that is switched off inside, and fails on demand."""

    def __init__(self):
        super().__init__()
        self.recurrent = nn.LSTM(3, 4, batch_first=True)
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 2)
        self.broken = False

    def forward(self, x):
        torch.rand(1), np.random.rand(), random.random()  # noqa: NPY002
        if self.broken:
            raise KeyError("broken")
        h = self.recurrent(x[:, None])[0][:, -1]
        return self.head(self.drop(self.norm(h)))


@pytest.mark.untyped
@pytest.mark.parametrize("broken", [False, True])
def test_nothing_of_the_caller_changes(broken):
    model = Fragile().train()
    model(X).sum().backward()
    loader = DataLoader(TensorDataset(X, Y), 3)
    before = everything(model)
    surface = fm.LossSurface(model, "cross_entropy", loader)
    surface._problem.replica.module.broken = broken
    for ask in (
        surface.energy,
        surface.gradient,
        surface.losses,
        lambda: surface.hessian() @ surface.theta,
        lambda: surface.gauss_newton() @ surface.theta,
        lambda: surface.fisher(kind="sampled", check=False) @ surface.theta,
        lambda: surface.write(surface.theta + 1),
    ):
        if broken and ask is not None:
            try:
                ask()
            except KeyError as error:
                assert "broken" in str(error)
        else:
            ask()
        assert everything(model) == before
