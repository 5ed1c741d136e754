"""Sharper and flatter networks with the same function, confirmed by independent measurements."""

import math

import pytest
import torch
from torch import nn

import fathometer as fm
from fathometer import InputError
from fathometer.model import LossSurface
from fathometer.sharpness import flatten, hessian_norm, rescalings, sharpen
from networks import CASES, mlp


def fitted(model, x, outputs=2, steps=150):
    g = torch.Generator().manual_seed(1)
    targets = torch.randint(0, outputs, (len(x),), generator=g)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), targets).backward()
        optimizer.step()
    return LossSurface(model, "cross_entropy", (x, targets))


@pytest.fixture(scope="module")
def surface():
    torch.manual_seed(0)
    return fitted(mlp(), torch.randn(40, 3, generator=torch.Generator().manual_seed(0)))


def dense_norm(model, like):
    moved = LossSurface(model, "cross_entropy", like)
    return float(torch.linalg.eigvalsh(moved.double().hessian().to_dense()).abs().max())


@pytest.mark.parametrize("factor", [1e6, 1e2])
def test_the_norm_grows_as_asked_and_the_outputs_stay(surface, factor):
    data = (
        surface.example_inputs(40)[0],
        torch.randint(0, 2, (40,), generator=torch.Generator().manual_seed(1)),
    )
    found = sharpen(surface, "hessian_norm", factor)
    assert found.value == pytest.approx(factor, rel=0.011)
    assert found.output_error < 1e-5
    assert dense_norm(found.model, data) == pytest.approx(found.after.value, rel=1e-3)
    with torch.no_grad():
        torch.testing.assert_close(found.model(data[0]), surface.write()(data[0]), rtol=1e-4, atol=1e-5)


def test_a_target_is_reached_within_one_percent(surface):
    wanted = 37.0 * hessian_norm(surface).value
    assert sharpen(surface, "hessian_norm", target=wanted).after.value == pytest.approx(wanted, rel=0.011)


@pytest.mark.parametrize(
    ("measure", "options"),
    [("hessian_trace", {}), ("epsilon_sharpness", {"radius": 0.01, "starts": 3}), ("keskar", {"starts": 3})],
)
def test_other_measures_can_be_walked_too(surface, measure, options):
    found = sharpen(surface, measure, 20.0, **options)
    assert found.value == pytest.approx(20.0, rel=0.011)


def test_a_network_with_batch_normalization_is_sharpened_through_its_statistics():
    torch.manual_seed(0)
    factory, _ = CASES["batch norm"]
    surface = fitted(factory().eval(), torch.randn(40, 3, generator=torch.Generator().manual_seed(0)))
    found = sharpen(surface, "hessian_norm", 1e4)
    assert found.value == pytest.approx(1e4, rel=0.011)
    assert found.output_error < 1e-5


def test_flatten_reaches_the_closed_form_of_one_hidden_layer():
    """min of A e^{-2z} + B e^{2z} is 2 sqrt(A B) for each hidden unit (A: into it, B: out of it)."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)).double()
    x, y = (torch.randn(40, n, dtype=torch.float64) for n in (3, 2))
    surface = LossSurface(model, "mse", (x, y))
    h = surface.gauss_newton().to_dense().diag()
    part = {
        name: h[surface.space.positions(name)].reshape(model.get_parameter(name).shape)
        for name in surface.names
    }
    into = part["0.weight"].sum(1) + part["0.bias"]
    out = part["2.weight"].sum(0)
    smallest = float((2 * (into * out).sqrt()).sum() + part["2.bias"].sum())
    found = flatten(surface)
    assert float(found.after.value) == pytest.approx(smallest, rel=1e-6)
    moved = surface.around(rescalings(model, x[:2]).move(seed=5))
    assert float(flatten(moved).after.value) == pytest.approx(smallest, rel=1e-6)


@pytest.mark.untyped
def test_the_result_prints_draws_and_is_saved(surface, tmp_path):
    found = sharpen(surface, "hessian_norm", 100.0)
    assert "times), outputs within" in str(found)
    assert found.picture().panels[0].marks[0].heights == [found.before.value, found.after.value]
    again = fm.load(found.save(tmp_path / "equivalent.safetensors"))
    assert again.model is None
    assert again.value == found.value
    assert found.kind == "exact"
    assert found.error <= 1e-6 * found.value


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: sharpen(s, "flatness"), "measure is 'flatness'; pass one of hessian_norm"),
        (lambda s: sharpen(s, factor=2.0, target=3.0), "pass factor or target, not both"),
        (lambda s: sharpen(s, target=-1.0), "the wanted hessian_norm is -1.0; it must be positive"),
        (lambda s: sharpen(s, factor=math.inf), "the wanted hessian_norm is inf"),
        (lambda s: sharpen(s, factor=1e-6), r"cannot be brought to .* was reached"),
    ],
)
def test_wishes_that_cannot_be_met_are_refused(surface, call, message):
    with pytest.raises(InputError, match=message):
        call(surface)


def test_a_loss_of_model_and_batch_is_sharpened_unless_it_reads_the_weights():
    torch.manual_seed(0)
    model, x, y = mlp().double(), torch.randn(20, 3, dtype=torch.float64), torch.arange(20) % 2

    def plain(model, batch):
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    def decayed(model, batch):
        return plain(model, batch) + 1e-2 * sum(p.square().sum() for p in model.parameters())

    found = sharpen(LossSurface(model, plain, (x, y)), "hessian_norm", 100.0, example_inputs=x[:2])
    assert found.value == pytest.approx(100.0, rel=0.011)
    assert found.output_error < 1e-12
    for call in (sharpen, flatten):
        with pytest.raises(InputError, match="keeps all outputs: it reads the weights"):
            call(LossSurface(model, decayed, (x, y)), example_inputs=x[:2])


def test_a_tanh_network_cannot_be_sharpened():
    torch.manual_seed(0)
    surface = fitted(mlp(nn.Tanh), torch.randn(20, 3), steps=5)
    with pytest.raises(
        InputError, match="no rescaling that changes a parameter of the surface: its activations"
    ):
        sharpen(surface)


def test_a_flat_network_has_nothing_to_scale():
    torch.manual_seed(0)
    model = mlp()
    data = (torch.randn(5, 3), torch.zeros(5))
    flat = LossSurface(model, lambda out, y: out.mean(1) * 0.0 + 1.0, data)
    with pytest.raises(InputError, match="hessian_norm is 0 here; only a positive value"):
        sharpen(flat)


def test_a_network_that_curves_down_everywhere_has_nothing_to_sharpen():
    torch.manual_seed(0)
    x = torch.randn(20, 3)
    surface = LossSurface(mlp(), lambda out, y: -(out**2).mean(1), (x, torch.zeros(20)))
    with pytest.raises(InputError, match="no tensor with positive curvature can shrink as a whole"):
        sharpen(surface)


def test_weights_at_both_ends_of_their_type_leave_no_step():
    model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2))
    info = torch.finfo(torch.float32)
    with torch.no_grad():  # the inputs are zero, so these weights never overflow an activation
        model[0].weight[:, 0], model[0].weight[:, 1] = info.max, info.tiny
        model[0].bias.fill_(1.0)
        model[2].weight.fill_(1e-3)
    surface = LossSurface(model, "mse", (torch.zeros(20, 2), torch.ones(20, 2)))
    with pytest.raises(InputError, match="no step along the orbit keeps the weights within the range"):
        sharpen(surface)
