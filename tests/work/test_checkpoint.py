"""Checkpoints: the old state or the new one, checked, and never those of another run."""

import os

import pytest
import torch

from fathometer import InputError
from fathometer.work import load_state, save_state

from .killing import kill_often

TENSORS = {
    "basis": torch.arange(12, dtype=torch.float64).reshape(4, 3),
    "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "flags": torch.tensor([True, False]),
    "step": torch.tensor(7),
    "nothing": torch.empty(0, 3),
}


def test_a_state_comes_back_with_its_bits_and_types(tmp_path):
    save_state(tmp_path / "s.ckpt", TENSORS, {"step": 3, "residual": 0.1 + 0.2, "names": ["a"]}, key="run")
    tensors, info = load_state(tmp_path / "s.ckpt", key="run")
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)
    assert info == {"step": 3, "residual": 0.1 + 0.2, "names": ["a"]}
    assert [path.name for path in tmp_path.iterdir()] == ["s.ckpt"]


def test_views_and_shared_tensors_are_saved_as_they_look(tmp_path):
    basis = torch.arange(12.0).reshape(3, 4)
    save_state(tmp_path / "s", {"first": basis[:, :2], "turned": basis.T, "same": basis})
    tensors, info = load_state(tmp_path / "s")
    assert torch.equal(tensors["first"], basis[:, :2])
    assert torch.equal(tensors["turned"], basis.T)
    assert info == {}


def test_no_file_is_no_state(tmp_path):
    assert load_state(tmp_path / "none") is None


def test_the_state_of_another_run_is_refused(tmp_path):
    save_state(tmp_path / "s", TENSORS, key="seed 0")
    with pytest.raises(InputError, match=r"belongs to another run \(key 'seed 0', this run is ''\)"):
        load_state(tmp_path / "s")


def test_every_changed_byte_is_noticed(tmp_path):
    path = tmp_path / "s"
    save_state(path, TENSORS, {"step": 3})
    content = path.read_bytes()
    unnoticed = []
    for position in range(0, len(content), 3):
        damaged = bytearray(content)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        try:
            tensors, info = load_state(path)
        except InputError as refusal:
            assert "remove it to begin again" in str(refusal) or "another run" in str(refusal)
        else:
            if info != {"step": 3} or any(not torch.equal(tensors[k], v) for k, v in TENSORS.items()):
                unnoticed.append(position)
    assert unnoticed == []


@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff" * 100])
def test_garbage_is_refused(tmp_path, content):
    (tmp_path / "s").write_bytes(content)
    with pytest.raises(InputError, match="not a readable checkpoint"):
        load_state(tmp_path / "s")


def test_foreign_safetensors_are_refused(tmp_path):
    import safetensors.torch

    safetensors.torch.save_file({"w": torch.ones(1)}, tmp_path / "s")
    with pytest.raises(InputError, match="damaged, its checksum differs"):
        load_state(tmp_path / "s")


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, torch.ones(1)])
def test_values_that_are_not_json_are_refused(tmp_path, value):
    with pytest.raises(
        InputError, match=r"info has a value that JSON does not have .*; put arrays into tensors"
    ):
        save_state(tmp_path / "s", {}, {"x": value})
    assert not (tmp_path / "s").exists()


def save_for_ever(path, pipe):
    state = load_state(path)
    step = 0 if state is None else state[1]["step"]
    while True:
        step += 1
        save_state(path, {"x": torch.full((5000,), float(step))}, {"step": step})
        os.write(pipe, b".")


@pytest.mark.kill
def test_kill_at_random_moments_leaves_a_whole_state_that_is_not_older(tmp_path):
    path, reached = tmp_path / "s", 0
    for steps in kill_often(15, 1, save_for_ever, path):
        acknowledged = reached + steps
        tensors, info = load_state(path)
        assert acknowledged <= info["step"] <= acknowledged + 1
        assert (tensors["x"] == info["step"]).all()
        reached = info["step"]
