"""Readings during training: they say what the measures say, and training does not notice."""

import copy
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from fathometer import InputError
from fathometer.model import LossSurface
from fathometer.sharpness import SharpnessLog, measure
from networks import mlp

X = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
Y = torch.arange(30) % 2


def train(log=None):
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)
    model = nn.Sequential(
        nn.Linear(3, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, 2)
    ).train()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for step in range(12):
        rows = torch.randperm(30)[:10]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(X[rows]), Y[rows]).backward()
        if log is not None:
            log(model, step)  # between the gradient and the step: neither may change
        optimizer.step()
    return model, (torch.rand(1), np.random.rand(), random.random())  # noqa: NPY002


def test_training_with_readings_is_training_without():
    plain, numbers = train()
    log = SharpnessLog("cross_entropy", (X, Y), ["hessian_norm", "adaptive_average"], every=4)
    watched, again = train(log)
    for a, b in zip(plain.state_dict().values(), watched.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert numbers == again
    assert watched.training
    assert [row.step for row in log.table()] == [0, 4, 8]


def test_a_reading_is_what_measure_says():
    torch.manual_seed(0)
    model = mlp()
    seen = []
    log = SharpnessLog(
        "cross_entropy", (X, Y), ["hessian_norm", "layer_weight_norm"], every=1, on_reading=seen.append
    )
    row = log(model, 3)
    table = measure(LossSurface(model, "cross_entropy", (X, Y)), ["hessian_norm"])
    assert row["hessian_norm"] == table["hessian_norm"].value
    assert row["layer_weight_norm:0.weight"] == pytest.approx(float(model[0].weight.detach().norm()))
    assert seen == [row]


def test_trainers_call_it_by_their_own_names():
    """The calls of Lightning's and Hugging Face's training loops, with the arguments that they pass."""
    torch.manual_seed(0)
    model, logged = mlp(), {}
    log = SharpnessLog("cross_entropy", (X, Y), ["gradient_norm"], every=2)
    log.setup(SimpleNamespace(), model, stage="fit")
    module = copy.deepcopy(model)
    module.log_dict = logged.update
    for step in range(4):
        log.on_train_batch_end(SimpleNamespace(global_step=step), module, None, None, 0)
    assert list(logged) == ["sharpness/gradient_norm"]
    again = SharpnessLog("cross_entropy", (X, Y), ["gradient_norm"], every=2)
    again.load_state_dict(log.state_dict())
    assert [dict(row.items()) for row in again.rows] == [dict(row.items()) for row in log.rows]
    assert again._legacy_state_key is SharpnessLog
    assert again.state_key == log.state_key != SharpnessLog("mse", (X, X), every=2).state_key
    # Lightning asks of every method whether it has code of its own
    assert all(
        hasattr(getattr(log, name), "__code__") for name in ("state_dict", "load_state_dict", "on_exception")
    )
    other = SharpnessLog("cross_entropy", (X, Y), ["gradient_norm"], every=2)
    state, control = SimpleNamespace(global_step=4, log_history=[]), SimpleNamespace()
    other.on_train_begin(None, state, control, model=model)
    assert other.on_step_end(None, state, control, model=model, optimizer=None) is control
    assert state.log_history == [{"sharpness/gradient_norm": log.table()[0].gradient_norm, "step": 4}]
    with pytest.raises(AttributeError, match="has no attribute 'teardowns'"):
        _ = log.teardowns


def test_what_cannot_be_measured_is_noted_and_training_goes_on():
    log = SharpnessLog("mse", (X, X[:, :2]), ["pac_bayes", "gradient_norm"], every=1)
    row = log(mlp(), 0)
    assert np.isnan(row.pac_bayes)
    assert "pac_bayes was not measured at step 0" in log.table().notes[0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SharpnessLog("mse", (X, X), every=0), "every is 0; at least 1 step"),
        (lambda: SharpnessLog("mse", (X, X), ["flatness"]), "names has 'flatness', which is no measure"),
    ],
)
def test_bad_wishes_are_refused_before_training(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_a_block_is_all_parameters_that_a_glob_matches():
    torch.manual_seed(0)
    surface = LossSurface(mlp().double(), "cross_entropy", (X, Y))
    table = measure(surface, ["layer_hessian_trace:2.*", "layer_hessian_norm:2.*", "layer_hessian_trace"])
    at = surface.space.positions("2.*")
    block = surface.hessian().to_dense()[at][:, at]
    assert table["layer_hessian_trace:2.*"].value == pytest.approx(float(block.trace()), rel=1e-9)
    assert table["layer_hessian_norm:2.*"].value == pytest.approx(
        float(torch.linalg.eigvalsh(block).abs().max()), rel=1e-6
    )
    assert len(table) == 5
