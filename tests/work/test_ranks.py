"""Several processes give the bits of one, agree, and fail together.

Real processes with gloo; each group runs once and answers many questions.
"""

import json
import multiprocessing
import os
import runpy
from pathlib import Path

import pytest

from fathometer.work import Ledger, exchange, rank, task_map, world

pytestmark = [pytest.mark.ranks, pytest.mark.timeout(300)]
PROGRAM = str(Path(__file__).with_name("rank_program.py"))


@pytest.fixture(scope="module")
def start():
    """Starts a group of processes; torch is imported once, in the server that forks them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "fathometer.work"])
    started = []

    def start(cases, count, folder):
        group = []
        for number in range(count):
            given = {"ARGUMENTS": (cases, number, count, str(folder))}
            process = context.Process(
                target=runpy.run_path, args=(PROGRAM,), kwargs={"init_globals": given, "run_name": "__main__"}
            )
            process.start()
            group.append(process)
        started.extend(group)
        return group

    interface = os.environ.get("GLOO_SOCKET_IFNAME")
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    yield start
    del os.environ["GLOO_SOCKET_IFNAME"]
    if interface is not None:
        os.environ["GLOO_SOCKET_IFNAME"] = interface
    for process in started:
        process.kill()
        process.join()


@pytest.fixture(scope="module")
def one_two_three(start, tmp_path_factory):
    """The answers of one, two and three processes, by number of processes."""
    cases = {1: ["sums"], 2: ["sums", "failures", "tasks"], 3: ["sums"]}
    answers = {}
    for count, names in cases.items():
        folder = tmp_path_factory.mktemp(f"world{count}")
        for process in start(names, count, folder):
            process.join(120)
            assert process.exitcode == 0
        answers[count] = [json.loads((folder / f"answer-{i}.json").read_text()) for i in range(count)]
    return answers


def test_sums_have_the_bits_of_one_process_on_every_process(one_two_three):
    alone = one_two_three[1][0]["sums"]
    assert len(alone) == 6 * 2 * 3 + 2
    for count in (2, 3):
        for answer in one_two_three[count]:
            found = answer["sums"] | {"progress": alone["progress"]}
            assert found == alone


def test_the_numbers_are_such_that_the_association_shows(one_two_three):
    # otherwise the test above could not fail
    alone = one_two_three[1][0]["sums"]
    assert alone["21 torch.float64 sized"] != alone["21 torch.float64 stream"]
    assert alone["21 torch.float64 sized"] != alone["21 torch.float64 slots"]
    assert alone["1 torch.float64 sized"] == alone["1 torch.float64 stream"]


def test_only_the_first_process_reports_progress(one_two_three):
    first, second = one_two_three[2]
    assert first["sums"]["progress"] == [[6, 6, "w"]]
    assert second["sums"]["progress"] == []


@pytest.mark.parametrize(
    ("name", "where", "own", "passed_on"),
    [
        (
            "input",
            1,
            "InputError: batch 7 holds NaN",
            "InputError: process 1 stopped: InputError: batch 7 holds NaN",
        ),
        (
            "foreign",
            1,
            "IndexError: list index",
            "CapabilityError: process 1 stopped: IndexError: list index",
        ),
        (
            "task",
            1,
            "InputError: batch 7 holds NaN",
            "InputError: process 1 stopped: InputError: batch 7 holds NaN",
        ),
        (
            "budget",
            0,
            "BudgetError: the tiles needs",
            "BudgetError: process 0 stopped: BudgetError: the tiles needs",
        ),
    ],
)
def test_a_failure_in_one_process_stops_all_with_its_message(one_two_three, name, where, own, passed_on):
    messages = [answer["failures"][name] for answer in one_two_three[2]]
    assert messages[where].startswith(own)
    assert messages[1 - where].startswith(passed_on)


def test_what_the_processes_must_share_is_checked(one_two_three):
    for answer in one_two_three[2]:
        found = answer["failures"]
        assert found["count"].startswith(
            "InputError: the processes saw 4, 5 items; every process needs the same"
        )
        assert found["empty"].startswith("InputError: items is empty")
        assert found["agreed"] == 10
        assert "differs between the processes; it must be a folder that all of them see" in found["folder"]
        assert found["still alive"] == [0, 1]


def test_tasks_are_shared_done_once_and_known_to_all(one_two_three):
    expected = [[i, 6.0 * i] for i in range(7)]
    found = [answer["tasks"] for answer in one_two_three[2]]
    for answer in found:
        assert [row[:2] for row in answer["plain"]] == expected
        assert [row[2] for row in answer["plain"]] == [1] * 7, "a task works alone"
        assert answer["recorded"] == answer["again"] == expected
        assert answer["not again"]
        assert answer["lonely"] == [1, 0, ["me"]]
        assert answer["world"] == 2
    assert sorted(i for answer in found for i in answer["done"]) == sorted([*range(7), *range(7)])
    assert all(answer["done"] for answer in found)


@pytest.mark.kill
def test_after_the_kill_of_one_process_the_rest_is_done_by_another_number_of_processes(start, tmp_path):
    first, second = start(["killed"], 2, tmp_path)
    second.join(100)
    assert second.exitcode == -9
    first.join(100)
    assert first.exitcode not in (0, None), "the survivor neither waits for ever nor pretends to be complete"
    recorded = {
        int(name): ledger[name]
        for path in sorted((tmp_path / "run").glob("tasks.*.jsonl"))
        for ledger in [Ledger(path, key="k|tasks|12")]
        for name in ledger
    }
    assert {1, 3} <= recorded.keys()
    assert not {5, 7, 9, 11} & recorded.keys()
    calls = []
    results = task_map(lambda i: calls.append(i) or i * i, range(12), run_dir=tmp_path / "run", key="k")
    assert results == [i * i for i in range(12)]
    assert sorted(calls) == sorted(set(range(12)) - recorded.keys())


def test_without_a_group_this_process_is_the_only_one():
    assert (world(), rank(), exchange("x")) == (1, 0, ["x"])
    with pytest.raises(KeyError):
        exchange("x", KeyError("own"))
