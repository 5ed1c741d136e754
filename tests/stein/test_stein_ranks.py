"""Two processes share the tiles and the coordinates and give the bits of one."""

import json
import multiprocessing
import os
import runpy
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ranks, pytest.mark.timeout(300)]
PROGRAM = str(Path(__file__).with_name("stein_rank_program.py"))


@pytest.fixture
def loopback(monkeypatch):
    monkeypatch.setitem(os.environ, "GLOO_SOCKET_IFNAME", "lo")


def run(count, folder):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "fathometer.stein"])
    group = [
        context.Process(
            target=runpy.run_path,
            args=(PROGRAM,),
            kwargs={"init_globals": {"ARGUMENTS": (i, count, str(folder))}, "run_name": "__main__"},
        )
        for i in range(count)
    ]
    for process in group:
        process.start()
    for process in group:
        process.join(120)
        process.kill()
    return [json.loads((folder / f"answer-{i}.json").read_text()) for i in range(count)]


def test_two_processes_give_the_bits_of_one(loopback, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    alone = run(1, one)[0]
    for answer in run(2, two):
        assert answer["values"] == alone["values"]
        assert answer["world"] == 2
    shares = [json.loads((two / f"answer-{i}.json").read_text())["strips"] for i in range(2)]
    assert sum(shares) == alone["strips"] and max(shares) < alone["strips"]
