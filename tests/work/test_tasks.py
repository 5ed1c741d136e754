"""Tasks in one process: in order, recorded, resumed, and never mixed with another run."""

import numpy as np
import pytest
import torch

from fathometer import Estimate, InputError
from fathometer.work import Ledger, task_map


def test_without_a_folder_it_is_a_plain_map():
    model = torch.nn.Linear(1, 1)
    assert task_map(lambda i: (i * i, model), iter(range(4))) == [(i * i, model) for i in range(4)]
    assert task_map(lambda i: i, []) == []


def test_a_finished_task_is_not_done_again(tmp_path):
    calls = []

    def task(i):
        calls.append(i)
        if i == 3 and len(calls) < 7:
            raise KeyError("power cut")
        return {"values": np.full(3, i), "estimate": Estimate(value=float(i), kind="exact", error=0.0)}

    with pytest.raises(KeyError, match="power cut"):
        task_map(task, range(5), run_dir=tmp_path / "run")
    assert calls == [0, 1, 2, 3]
    calls.append("again")
    with pytest.raises(KeyError, match="power cut"):
        task_map(task, range(5), run_dir=tmp_path / "run")
    results = task_map(task, range(5), run_dir=tmp_path / "run")
    assert calls == [0, 1, 2, 3, "again", 3, 3, 4]
    assert [result["values"].tolist() for result in results] == [[i] * 3 for i in range(5)]
    assert [result["estimate"].value for result in results] == [0.0, 1.0, 2.0, 3.0, 4.0]
    before = len(calls)
    assert len(task_map(task, range(5), run_dir=tmp_path / "run")) == 5
    assert len(calls) == before


def test_fresh_and_resumed_results_are_alike(tmp_path):
    def task(i):
        return {"t": torch.tensor([i]), "a": np.array([i]), "pair": (i, [i]), 1: None}

    fresh = task_map(task, [5], run_dir=tmp_path)
    resumed = task_map(task, [5], run_dir=tmp_path)
    assert str(fresh) == str(resumed) == str([task(5)])


def test_progress_counts_what_was_done_before(tmp_path):
    seen = []

    def report(done, total, what):
        seen.append((done, total, what))

    def until_two(i):
        if i == 2:
            raise KeyError
        return i

    with pytest.raises(KeyError):
        task_map(until_two, range(4), run_dir=tmp_path, progress=report, name="lp")
    task_map(lambda i: i, range(4), run_dir=tmp_path, progress=report, name="lp")
    assert seen == [(1, 4, "lp"), (2, 4, "lp"), (3, 4, "lp"), (4, 4, "lp")]
    seen.clear()
    task_map(lambda i: i, range(2), progress=report)
    assert seen == [(1, 2, "tasks"), (2, 2, "tasks")]


def test_the_ledgers_of_all_processes_are_joined(tmp_path):
    # as four processes would have left them; now there is one
    for number in range(4):
        with Ledger(tmp_path / f"tasks.{number}.jsonl", key="k|tasks|6") as ledger:
            ledger.record(str(number), number * 10)
    done = []
    assert task_map(lambda i: done.append(i) or i * 10, range(6), run_dir=tmp_path, key="k") == [
        0,
        10,
        20,
        30,
        40,
        50,
    ]
    assert done == [4, 5]


def test_names_share_a_folder(tmp_path):
    assert task_map(lambda i: i, range(2), run_dir=tmp_path, name="a") == [0, 1]
    assert task_map(lambda i: -i, range(3), run_dir=tmp_path, name="b") == [0, -1, -2]


@pytest.mark.parametrize("change", [{"key": "seed 1"}, {"items": range(4)}])
def test_a_folder_of_another_run_is_refused(tmp_path, change):
    call = {"items": range(3), "key": "seed 0", "run_dir": tmp_path}
    task_map(lambda i: i, **call)
    with pytest.raises(InputError, match="holds another run"):
        task_map(lambda i: i, **(call | change))


def test_a_file_is_no_run_folder(tmp_path):
    (tmp_path / "f").write_text("")
    with pytest.raises(InputError, match="is a file; a folder is needed"):
        task_map(lambda i: i, [1], run_dir=tmp_path / "f")


def test_results_that_cannot_be_recorded_are_refused(tmp_path):
    with pytest.raises(InputError, match="has no place in a file"):
        task_map(lambda i: object(), [1], run_dir=tmp_path)
