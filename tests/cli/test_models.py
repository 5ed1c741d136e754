"""A user's model, weights, data and loss from files: loaded strictly, or refused with the reason."""

import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fathometer import InputError
from fathometer.cli.models import load_data, load_loss, load_model, load_object, load_problem, load_surface

SOURCE = """
import torch
from torch import nn
import companion

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, companion.CLASSES))

def not_a_model():
    return 3

def fails():
    return {}["missing"]

def absolute(outputs, targets):
    return (outputs - targets).abs().mean(1)

number = 7
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "net.py").write_text(SOURCE)
    (tmp_path / "companion.py").write_text("CLASSES = 2\n")
    yield tmp_path
    for name in ("companion", "fathometer_user_net"):
        sys.modules.pop(name, None)


def test_the_factory_is_called_with_its_folder_importable(folder):
    model = load_model(f"{folder}/net.py:make", None)
    assert isinstance(model, nn.Sequential)
    assert model[2].out_features == 2


def test_weights_and_buffers_fill_the_model(folder):
    untrained = load_model(f"{folder}/net.py:make", None).state_dict()
    untrained = load_model(f"{folder}/net.py:make", None).state_dict()
    weights = {name: torch.full_like(tensor, 3) for name, tensor in untrained.items()}
    save_file(weights, folder / "w.safetensors")
    model = load_model(f"{folder}/net.py:make", folder / "w.safetensors")
    assert all((tensor == 3).all() for tensor in model.state_dict().values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("2.bias"), r"does not fit the model: it lacks 2.bias\."),
        (lambda w: w.update(extra=torch.ones(1)), r"it has extra, which the model does not\."),
        (lambda w: w.update({"0.bias": torch.ones(5)}), r"it 0.bias has shape \(5,\); the model's is \(4,\)"),
        (
            lambda w: [w.update({f"module.{k}": w.pop(k)}) for k in tuple(w)],
            r"lacks 0.bias, 0.weight, 1.bias and 6 more; .* may carry the prefix 'module.' of a wrapper",
        ),
    ],
)
def test_weights_of_another_model_are_refused_by_name(folder, change, message):
    weights = dict(load_model(f"{folder}/net.py:make", None).state_dict())
    change(weights)
    save_file(weights, folder / "w.safetensors")
    with pytest.raises(InputError, match=message):
        load_model(f"{folder}/net.py:make", folder / "w.safetensors")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("net.py:none", r"has no function 'none'; it has make, not_a_model, fails, absolute"),
        ("net.py:number", "has no function 'number'"),
        ("net.py:not_a_model", "returned a int; a torch.nn.Module is needed"),
        ("net.py:fails", r"net.py:fails, line 14: KeyError: 'missing'"),
        ("gone.py:make", "gone.py: there is no such file"),
        ("net.py", "is not a place in a file; write FILE.py:NAME"),
        ("net.py:", "is not a place in a file"),
        ("net.txt:make", "is not a place in a file"),
        ("broken.py:make", r"broken.py, line 2: ZeroDivisionError"),
        ("syntax.py:make", r"syntax.py.*: SyntaxError"),
        ("imports.py:make", r"imports.py, line 1: ModuleNotFoundError: No module named 'not_installed_here'"),
    ],
)
def test_what_is_wrong_with_a_model_file_is_one_line(folder, place, message):
    (folder / "broken.py").write_text("x = 1\ny = x / 0\n")
    (folder / "syntax.py").write_text("def make(:\n")
    (folder / "imports.py").write_text("import not_installed_here\n")
    with pytest.raises(InputError, match=message) as refusal:
        load_model(f"{folder}/{place}", None)
    assert "\n" not in str(refusal.value)


def test_a_link_to_something_else_is_no_python_file(folder):
    (folder / "net.txt").write_text(SOURCE)
    (folder / "link.py").symlink_to(folder / "net.txt")
    with pytest.raises(InputError, match=r"net\.txt: is not a Python file"):
        load_object(f"{folder}/link.py:make")


def test_a_file_named_like_a_package_does_not_stand_in_for_it(folder):
    (folder / "torch.py").write_text("def make():\n    import torch.nn\n    return torch.nn.Linear(1, 1)\n")
    module = sys.modules["torch"]
    load_object(f"{folder}/torch.py:make")
    assert sys.modules["torch"] is module


@pytest.mark.parametrize("names", [("inputs", "targets"), ("x", "y")])
@pytest.mark.parametrize("kind", ["uint8", "bool", "int32"])
def test_data_come_as_tensors_with_classes_as_torch_wants_them(tmp_path, names, kind):
    x, y = np.ones((4, 3), dtype=np.float32), np.array([0, 1, 1, 0], dtype=kind)
    np.savez(tmp_path / "d.npz", **dict(zip(names, (x, y), strict=True)))
    inputs, targets = load_data(tmp_path / "d.npz")
    assert (inputs.dtype, inputs.shape) == (torch.float32, (4, 3))
    assert targets.dtype == torch.int64
    assert targets.tolist() == [0, 1, 1, 0]


def test_inputs_and_targets_of_different_length_are_refused(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.ones((4, 3)), y=np.ones(5))
    with pytest.raises(InputError, match=r"inputs have shape \(4, 3\) and targets \(5,\)"):
        load_data(tmp_path / "d.npz")


def test_a_loss_is_a_name_or_a_function(folder):
    assert load_loss("cross_entropy") == "cross_entropy"
    loss = load_loss(f"{folder}/net.py:absolute")
    assert loss(torch.ones(2, 2), torch.zeros(2, 2)).tolist() == [1, 1]


def test_half_a_problem_is_refused(tmp_path):
    assert load_problem(None, None, None, None) is None
    with pytest.raises(InputError, match="--data needs a network of yours"):
        load_problem(None, None, tmp_path / "d.npz", None)
    with pytest.raises(InputError, match="--loss is missing; a network of yours needs"):
        load_problem("net.py:make", None, tmp_path / "d.npz", None)
    with pytest.raises(InputError, match="--data is missing"):
        load_problem("net.py:make", None, None, "mse")


def test_the_surface_is_that_of_the_files(folder):
    x, y = np.ones((4, 3), dtype=np.float32), np.array([0, 1, 1, 0])
    np.savez(folder / "d.npz", x=x, y=y)
    place = f"{folder}/net.py:make"
    surface = load_surface(place, None, folder / "d.npz", "cross_entropy", False, "digits-mlp")
    model = load_model(place, None).eval()
    direct = nn.functional.cross_entropy(model(torch.from_numpy(x)), torch.from_numpy(y))
    assert surface.size == sum(p.numel() for p in model.parameters())
    torch.testing.assert_close(surface.energy().float(), direct.detach())
