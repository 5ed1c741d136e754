"""The ledger: what was recorded stays, torn and damaged lines are passed over, other runs are refused."""

import json
import os

import numpy as np
import pytest
import torch

from fathometer import Estimate, InputError
from fathometer.work import Ledger

from .killing import kill_often


def test_every_kind_of_value_comes_back(tmp_path):
    values = {
        "number": 0.1 + 0.2,
        "infinite": float("-inf"),
        "text": 'é "quoted"\nsecond line \u2028',
        "nested": {"a": [1, (2, None)], 3: True},
        "array": np.arange(6.0).reshape(2, 3),
        "tensor": {"w": torch.tensor([[1, 2]], dtype=torch.int16)},
        "result": Estimate(value=torch.tensor(2.5), kind="estimate", error=0.5, method="m"),
    }
    with Ledger(tmp_path / "a" / "l.jsonl") as ledger:
        for name, value in values.items():
            ledger.record(name, value)
    again = Ledger(tmp_path / "a" / "l.jsonl")
    assert list(again) == list(values)
    assert len(again) == 7
    assert again["number"] == 0.1 + 0.2
    assert again["infinite"] == float("-inf")
    assert again["text"] == values["text"]
    assert again["nested"] == {"a": [1, (2, None)], 3: True}
    assert isinstance(again["array"], np.ndarray)
    assert (again["array"] == values["array"]).all()
    assert torch.equal(again["tensor"]["w"], values["tensor"]["w"])
    assert again["result"].value == 2.5
    assert again["result"].kind == "estimate"


def test_reading_leaves_the_disk_alone(tmp_path):
    ledger = Ledger(tmp_path / "no" / "l.jsonl", key="k")
    assert "x" not in ledger
    assert not (tmp_path / "no").exists()
    with pytest.raises(InputError, match="has no record 'x'"):
        ledger["x"]


def written(path, count=5, key=""):
    with Ledger(path, key=key) as ledger:
        for i in range(count):
            ledger.record(str(i), {"square": i * i})
    return path.read_bytes()


def test_a_file_cut_at_any_byte_keeps_every_whole_line_and_can_go_on(tmp_path):
    content = written(tmp_path / "whole.jsonl", key="k")
    ends = [i + 1 for i, byte in enumerate(content) if byte == ord("\n")]
    path = tmp_path / "cut.jsonl"
    for cut in [*range(0, len(content), 23), *ends, *(end - 1 for end in ends)]:
        path.write_bytes(content[:cut])
        whole = max(0, sum(end - 1 <= cut for end in ends) - 1)  # the first line is the head
        ledger = Ledger(path, key="k")
        assert list(ledger) == [str(i) for i in range(whole)], cut
        with ledger:
            ledger.record("new", cut)
        again = Ledger(path, key="k")
        assert list(again) == [*(str(i) for i in range(whole)), "new"], cut
        assert again["new"] == cut


@pytest.mark.parametrize("line", range(1, 6))
def test_a_damaged_line_is_passed_over_and_the_others_stay(tmp_path, line):
    path = tmp_path / "l.jsonl"
    lines = written(path).split(b"\n")
    lines[line] = lines[line].replace(b'"square"', b'"sqvare"')
    path.write_bytes(b"\n".join(lines))
    assert list(Ledger(path)) == [str(i) for i in range(5) if i != line - 1]


@pytest.mark.parametrize(
    "junk", [b"\x00" * 40, b"[1, 2]", b"null", b'{"entry": 3}', b'{"entry": {}, "sha256": "0"}']
)
def test_junk_lines_are_passed_over(tmp_path, junk):
    path = tmp_path / "l.jsonl"
    path.write_bytes(junk + b"\n" + written(path) + junk)
    assert len(Ledger(path)) == 5


def test_every_single_bit_counts(tmp_path):
    path = tmp_path / "l.jsonl"
    content = written(path, count=1)
    start = content.index(b"\n") + 1
    for position in range(start, len(content) - 1, 3):
        damaged = bytearray(content)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        ledger = Ledger(path)
        if len(ledger):  # only a change that JSON does not see, such as the case of \\u escapes
            assert ledger["0"] == {"square": 0}


def test_the_last_record_of_a_name_counts(tmp_path):
    with Ledger(tmp_path / "l.jsonl") as ledger:
        ledger.record("a", 1)
        ledger.record("a", 2)
        assert ledger["a"] == 2
    assert Ledger(tmp_path / "l.jsonl")["a"] == 2


def test_another_run_is_refused(tmp_path):
    written(tmp_path / "l.jsonl", key="seed 0")
    with pytest.raises(InputError, match=r"holds another run \(key 'seed 0', this run is 'seed 1'\)"):
        Ledger(tmp_path / "l.jsonl", key="seed 1")


def test_a_lost_head_is_refused(tmp_path):
    content = written(tmp_path / "l.jsonl")
    (tmp_path / "l.jsonl").write_bytes(content[content.index(b"\n") + 1 :])
    with pytest.raises(InputError, match="its first line is damaged"):
        Ledger(tmp_path / "l.jsonl")


def test_a_newer_format_is_refused(tmp_path):
    import hashlib

    entry = {"ledger": 99, "key": ""}
    digest = hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()
    (tmp_path / "l.jsonl").write_text(json.dumps({"entry": entry, "sha256": digest}) + "\n")
    with pytest.raises(InputError, match=r"written by a newer version .format 99, this one reads 1"):
        Ledger(tmp_path / "l.jsonl")


def test_a_folder_is_no_ledger(tmp_path):
    with pytest.raises(InputError, match="not a readable ledger"):
        Ledger(tmp_path)


def test_a_value_without_a_place_in_a_file_is_refused_and_leaves_no_trace(tmp_path):
    with Ledger(tmp_path / "l.jsonl") as ledger, pytest.raises(InputError, match="has no place in a file"):
        ledger.record("a", {"model": torch.nn.Linear(1, 1)})
    assert not (tmp_path / "l.jsonl").exists()


def test_two_writers_are_refused(tmp_path):
    pytest.importorskip("fcntl")
    with Ledger(tmp_path / "l.jsonl") as first:
        first.record("a", 1)
        second = Ledger(tmp_path / "l.jsonl")
        with pytest.raises(InputError, match="another process is writing to it"):
            second.record("b", 2)
    second.record("b", 2)
    second.close()
    assert list(Ledger(tmp_path / "l.jsonl")) == ["a", "b"]


def record_for_ever(path, pipe):
    with Ledger(path, key="k") as ledger:
        start = len(ledger)
        for i in range(start, start + 10**6):
            ledger.record(str(i), {"x": np.full(50, i)})
            os.write(pipe, b".")


@pytest.mark.kill
def test_kill_at_random_moments_loses_nothing_that_was_recorded(tmp_path):
    path, before = tmp_path / "l.jsonl", 0
    for steps in kill_often(25, 0, record_for_ever, path):
        acknowledged = before + steps
        ledger = Ledger(path, key="k")
        assert acknowledged <= len(ledger) <= acknowledged + 25
        assert list(ledger) == [str(i) for i in range(len(ledger))]
        assert (ledger[str(len(ledger) - 1)]["x"] == len(ledger) - 1).all()
        before = len(ledger)


def test_a_record_is_on_the_disk_before_the_call_returns(tmp_path, monkeypatch):
    # what a power cut leaves cannot be tried; that the system was told to write can
    synced, sync = [], os.fsync

    def told(file):
        sync(file)
        synced.append(os.fstat(file).st_size)

    monkeypatch.setattr(os, "fsync", told)
    with Ledger(tmp_path / "l.jsonl") as ledger:
        for i in range(3):
            ledger.record(str(i), i)
            assert synced[-1] == (tmp_path / "l.jsonl").stat().st_size
