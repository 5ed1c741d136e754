"""Weights of other people: read without running code, refused with the reason."""

import json
import os
import pickle
import warnings
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import safetensors.torch
import torch

from fathometer import InputError
from fathometer.files import read_weights

WEIGHTS = {
    "fc.weight": torch.arange(6.0).reshape(2, 3),
    "fc.bias": torch.tensor([1.0, 2.0], dtype=torch.float64),
    "half": torch.tensor([1.5], dtype=torch.bfloat16),
    "steps": torch.tensor(3),
}


def same(found, expected=WEIGHTS):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    return True


def test_safetensors_are_read_and_do_not_stay_bound_to_the_file(tmp_path):
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(WEIGHTS, path)
    found = read_weights(str(path))
    path.write_bytes(b"")
    assert same(found)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model_state_dict", "model_state", "model"])
def test_pytorch_files_are_read_bare_and_wrapped(tmp_path, legacy, wrapper):
    content = OrderedDict(WEIGHTS) if wrapper is None else {wrapper: WEIGHTS, "epoch": 3}
    torch.save(content, tmp_path / "w.pt", _use_new_zipfile_serialization=not legacy)
    assert same(read_weights(tmp_path / "w.pt"))


def test_the_name_of_the_file_does_not_matter(tmp_path):
    torch.save(WEIGHTS, tmp_path / "w.safetensors")
    assert same(read_weights(tmp_path / "w.safetensors"))


def test_views_of_one_storage_get_memory_of_their_own(tmp_path):
    base = torch.arange(10.0)
    torch.save({"a": base[:2], "b": base[5:]}, tmp_path / "w.pt")
    found = read_weights(tmp_path / "w.pt")
    assert found["a"].untyped_storage().nbytes() == 8
    assert found["b"].tolist() == [5, 6, 7, 8, 9]


def test_parameters_come_back_as_plain_tensors(tmp_path):
    torch.save(dict(torch.nn.Linear(2, 2).named_parameters()), tmp_path / "w.pt")
    assert not any(tensor.requires_grad for tensor in read_weights(tmp_path / "w.pt").values())


def test_weights_saved_on_a_gpu_are_read_without_one(tmp_path):
    torch.save({"w": torch.ones(3)}, tmp_path / "cpu.pt")
    with zipfile.ZipFile(tmp_path / "cpu.pt") as old, zipfile.ZipFile(tmp_path / "gpu.pt", "w") as new:
        for member in old.infolist():
            data = old.read(member)
            if member.filename.endswith("data.pkl"):
                changed = data.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
                assert changed != data
                data = changed
            new.writestr(member, data)
    assert read_weights(tmp_path / "gpu.pt")["w"].tolist() == [1, 1, 1]


class Payload:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_code_in_a_file_does_not_run(tmp_path, how):
    trap = tmp_path / "ran"
    if how == "torch":
        torch.save({"w": Payload(f"touch {trap}")}, tmp_path / "w.pt")
    else:
        (tmp_path / "w.pt").write_bytes(pickle.dumps({"w": Payload(f"touch {trap}")}, protocol=2))
    with pytest.raises(InputError, match=r"w.pt: (opens only by running code|not a readable PyTorch file)"):
        read_weights(tmp_path / "w.pt")
    assert not trap.exists()


def test_whole_modules_need_trust(tmp_path):
    model = torch.nn.Linear(2, 1)
    torch.save(model, tmp_path / "m.pt")
    with pytest.raises(
        InputError, match=r"opens only by running code in it.*model.state_dict\(\).*--trust-pickle"
    ):
        read_weights(tmp_path / "m.pt")
    found = read_weights(tmp_path / "m.pt", trust_pickle=True)
    assert torch.equal(found["weight"], model.weight)


def test_a_compiled_program_is_refused(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(torch.nn.Linear(2, 1)).save(tmp_path / "m.pt")
    with pytest.raises(InputError, match="a TorchScript program, not weights"):
        read_weights(tmp_path / "m.pt")


def test_a_bomb_of_zero_strides_is_refused_before_it_is_unpacked(tmp_path):
    torch.save({"w": torch.zeros(1).expand(10**12)}, tmp_path / "bomb.pt")
    assert (tmp_path / "bomb.pt").stat().st_size < 5000
    with pytest.raises(InputError, match=r"w claims 4000000000000 bytes, and 4 are there"):
        read_weights(tmp_path / "bomb.pt")


def test_a_packed_archive_is_refused_before_it_is_unpacked(tmp_path):
    torch.save({"w": torch.zeros(10**6)}, tmp_path / "w.pt")
    with (
        zipfile.ZipFile(tmp_path / "w.pt") as old,
        zipfile.ZipFile(tmp_path / "z.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
    with pytest.raises(InputError, match=r"unpacks to \d+ bytes from \d+; PyTorch does not pack"):
        read_weights(tmp_path / "z.pt")


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_cut_file_is_refused(tmp_path, suffix, share):
    path = tmp_path / f"w.{suffix}"
    if suffix == "pt":
        torch.save(WEIGHTS, path)
    else:
        safetensors.torch.save_file(WEIGHTS, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=r"w\.(pt|safetensors): (not a readable|the file is empty)"):
        read_weights(path)


def test_a_header_that_lies_is_refused(tmp_path):
    header = json.dumps({"w": {"dtype": "F32", "shape": [10**9], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 4)
    with pytest.raises(InputError, match="not a readable safetensors file"):
        read_weights(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(1)], "holds a list; a dictionary of tensors is needed"),
        ({"w": torch.ones(1), "epoch": 3}, "the entry 'epoch' is a int; a dictionary of named tensors"),
        ({3: torch.ones(1)}, "the entry 3 is a Tensor"),
        ({"w": torch.ones(2, 2).to_sparse()}, "w is not a dense tensor"),
    ],
)
def test_other_contents_are_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(InputError, match=message):
        read_weights(tmp_path / "w.pt")


def test_missing_folder_empty_and_unreadable_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="there is no such file"):
        read_weights(tmp_path / "none.pt")
    with pytest.raises(InputError, match="is a folder; a file is needed"):
        read_weights(tmp_path)
    (tmp_path / "e.pt").write_bytes(b"")
    with pytest.raises(InputError, match="the file is empty"):
        read_weights(tmp_path / "e.pt")


def test_a_file_without_permission_is_refused(tmp_path, monkeypatch):
    (tmp_path / "w.pt").write_bytes(b"x")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may read everything
    with pytest.raises(InputError, match="may not be read; check its permissions"):
        read_weights(tmp_path / "w.pt")


def test_a_file_larger_than_the_memory_is_refused(tmp_path, monkeypatch):
    import psutil

    safetensors.torch.save_file(WEIGHTS, tmp_path / "w.safetensors")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("V", (), {"available": 10})())
    with pytest.raises(InputError, match=r"GB of numbers; 1e-08 GB are free"):
        read_weights(tmp_path / "w.safetensors")


@pytest.fixture
def shards(tmp_path):
    safetensors.torch.save_file({"a": torch.ones(1)}, tmp_path / "1.safetensors")
    safetensors.torch.save_file({"b": torch.zeros(2)}, tmp_path / "2.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}))
    return index


def test_shards_are_joined(shards):
    assert same(read_weights(shards), {"a": torch.ones(1), "b": torch.zeros(2)})


def test_a_missing_shard_is_named(shards):
    (shards.parent / "2.safetensors").unlink()
    with pytest.raises(InputError, match=r"the shard '2.safetensors' is missing"):
        read_weights(shards)


@pytest.mark.parametrize(
    ("placed", "message"),
    [
        ({"c": "1.safetensors"}, "no shard holds 'c'"),
        ({"a": "../1.safetensors"}, "shards must lie beside their index"),
        ("text", "not a readable index of shards"),
    ],
)
def test_a_wrong_index_is_refused(shards, placed, message):
    shards.write_text(json.dumps({"weight_map": placed}))
    with pytest.raises(InputError, match=message):
        read_weights(shards)


def test_numpy_scalars_in_a_checkpoint_are_refused_not_run(tmp_path):
    torch.save({"w": torch.ones(1), "lr": np.float64(0.1)}, tmp_path / "w.pt")
    with pytest.raises(InputError, match=r"w.pt: "):
        read_weights(tmp_path / "w.pt")


def test_a_broken_pickle_is_unreadable_also_where_it_is_trusted(tmp_path):
    path = tmp_path / "w.pt"
    path.write_bytes(pickle.dumps({"w": [1.0]})[:-4] + b"!!!!")
    with pytest.raises(InputError, match=r"w\.pt: not a readable PyTorch file"):
        read_weights(path, trust_pickle=True)
