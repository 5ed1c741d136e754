"""On two processes a surface gives the bits that it gives on one."""

import json
import multiprocessing
import runpy
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ranks, pytest.mark.timeout(300)]
PROGRAM = str(Path(__file__).with_name("surface_rank_program.py"))
SMALL_BUDGET = 5_000


@pytest.fixture(scope="module")
def one():
    return runpy.run_path(PROGRAM)["answers"](SMALL_BUDGET)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "fathometer.work"])
    group = []
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("GLOO_SOCKET_IFNAME", "lo")
        environment.setenv("OMP_NUM_THREADS", "1")
        for number in range(2):
            given = {"ARGUMENTS": (number, 2, str(folder), SMALL_BUDGET)}
            process = context.Process(
                target=runpy.run_path, args=(PROGRAM,), kwargs={"init_globals": given, "run_name": "__main__"}
            )
            process.start()
            group.append(process)
        for process in group:
            process.join(200)
            ended = process.exitcode
            process.kill()
            assert ended == 0
    return [json.loads((folder / f"answer-{i}.json").read_text()) for i in range(2)]


@pytest.mark.parametrize(
    "case", ["float32", "float64", "other chunks", "convolutions", "loader", "one chunk", "capped"]
)
def test_two_processes_give_the_bits_of_one(one, two, case):
    # "capped": only the second process has little memory; both must cut the data as it does
    assert one[case].keys() >= {"energy", "gradient", "hessian", "gauss_newton", "sampled fisher"}
    assert two[0][case] == one[case]
    assert two[1][case] == one[case]


def test_the_numbers_are_such_that_another_grid_shows(one):
    # otherwise the test above could not fail
    for answer in ("gradient", "hessian", "gauss_newton"):
        assert one["float32"][answer] != one["other chunks"][answer]
    assert 1 <= one["capped"]["chunk"] < 29
