"""The embedded data and networks are what their cards say."""

import pytest
import torch
from sklearn.datasets import load_digits

import fathometer as fm
from fathometer.model.embedded import RECIPES, _folder
from fathometer.model.training import train


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


@pytest.mark.parametrize("name", ["digits-mlp", "digits-mlp-squared"])
def test_the_perceptrons_sit_at_a_minimum(name):
    assert fm.model.embedded(name).card["gradient norm"] < 1e-4


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
