"""The embedded data and networks are what their cards say."""

import pytest
import torch
from sklearn.datasets import load_digits

import fathometer as fm
from fathometer.model.embedded import RECIPES, Recipe, _folder
from fathometer.model.training import gauss_newton_matrix, train


def test_the_digits_are_those_of_their_source():
    x, y, x_test, y_test = fm.model.digits()
    source = load_digits()
    images, labels = torch.tensor(source.images).float() / 16, torch.tensor(source.target)
    test = torch.arange(1797) % 5 == 4
    assert torch.equal(x[:, 0], images[~test])
    assert torch.equal(x_test[:, 0], images[test])
    assert torch.equal(y, labels[~test])
    assert torch.equal(y_test, labels[test])


@pytest.mark.parametrize("name", RECIPES)
def test_an_embedded_network_is_what_its_card_says(name):
    bundle = fm.model.embedded(name)
    x, y = bundle.test
    accuracy = (bundle.model(x).argmax(1) == y).double().mean().item()
    assert accuracy > 0.95
    assert accuracy == bundle.card["test accuracy"]
    surface = bundle.surface().double()
    assert surface.size == bundle.card["parameters"]
    assert float(surface.energy()) == pytest.approx(bundle.card["energy"], rel=1e-9)
    assert float(surface.gradient().norm()) == pytest.approx(bundle.card["gradient norm"], rel=1e-3)


@pytest.mark.parametrize(
    ("name", "most"), [("digits-mlp", 1e-4), ("digits-mlp-squared", 1e-4), ("digits-cnn", 1e-3)]
)
def test_the_networks_sit_where_the_gradient_is_small(name, most):
    assert fm.model.embedded(name).card["gradient norm"] < most


def test_the_checkpoints_stay_small():
    assert sum(f.stat().st_size for f in _folder().iterdir() if f.name.endswith(".safetensors")) < 500_000


def test_every_bundle_has_a_network_of_its_own():
    first, second = fm.model.embedded(), fm.model.embedded()
    with torch.no_grad():
        first.model.fc1.weight.zero_()
    assert second.model.fc1.weight.abs().sum() > 0


def test_an_unknown_network_is_refused():
    with pytest.raises(fm.InputError, match="'mnist'; the embedded networks are digits-mlp, "):
        fm.model.embedded("mnist")


def test_the_trainer_repeats_itself_and_lowers_the_loss():
    state = torch.get_rng_state()
    (_, a), (_, b) = (train(RECIPES["digits-mlp-squared"], epochs=1, polish=3) for _ in range(2))
    assert a == b
    assert a["energy"] < 0.05  # 0.05 is the loss of the zero function on one-hot targets
    assert torch.equal(state, torch.get_rng_state())


def test_the_trainers_gauss_newton_matrix_is_that_of_the_surface():
    model, x = fm.model.residual_cnn(2).eval().double(), fm.model.digits()[0][:4].double()
    surface = fm.LossSurface(model, "cross_entropy", (x, torch.arange(4)), parameters=["stem*", "head*"])
    at = fm.LossSurface(model, "cross_entropy", (x, torch.arange(4))).space.positions(["stem*", "head*"])
    matrix = gauss_newton_matrix(model, x, chunk=3)[at][:, at]
    torch.testing.assert_close(matrix, surface.gauss_newton().to_dense())


def test_a_round_in_gauss_newton_coordinates_makes_the_gradient_smaller():
    small = Recipe(title="small", build=lambda: fm.model.mlp((64, 6, 10)))
    (_, before), (_, after) = (train(small, epochs=1, polish=3, dampings=d) for d in ((), (1e-2,)))
    assert after["gradient norm"] < before["gradient norm"] / 3
    assert after["energy"] < before["energy"] - 0.1
    assert after["training"] == "Adam, 1 epochs; L-BFGS, 103 iterations"
