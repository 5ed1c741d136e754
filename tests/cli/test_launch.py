"""Launched processes give the answer of one, print once, and fail with one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = [pytest.mark.ranks, pytest.mark.timeout(300)]
MODEL = """
import os
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))

def dies():
    os.kill(os.getpid(), 9)
"""


def fathometer(folder, *arguments):
    environment = {
        k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "FATHOMETER_LAUNCHED")
    }
    return subprocess.run(
        [sys.executable, "-m", "fathometer", *map(str, arguments)],
        cwd=folder,
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("launch")
    (folder / "net.py").write_text(MODEL)
    rng = np.random.default_rng(0)
    np.savez(folder / "d.npz", x=rng.normal(size=(40, 3)).astype("float32"), y=rng.integers(0, 2, 40))
    return folder


def test_two_processes_print_the_bits_of_one_once(folder, capsys, monkeypatch):
    from fathometer.cli import run

    command = [
        "spectrum",
        f"{folder}/net.py:make",
        "--data",
        folder / "d.npz",
        "--loss",
        "cross_entropy",
        "--json",
    ]
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert run([str(part) for part in command]) == (0, "")
    alone = json.loads(capsys.readouterr().out)
    launched = fathometer(folder, "launch", "-n", 2, "--threads", 1, *command)
    assert launched.returncode == 0, launched.stderr
    assert json.loads(launched.stdout) == alone


def test_two_processes_survey_as_one_and_leave_one_run_folder(folder, monkeypatch):
    import fathometer as fm
    from fathometer.cli.models import load_model

    problem = ["net.py:make", "--data", "d.npz", "--loss", "cross_entropy", "--instrument", "symmetry"]
    launched = fathometer(
        folder, "launch", "-n", 2, "survey", *problem, "--run-dir", "two", "--json", "--out", "two.html"
    )
    assert launched.returncode == 0, launched.stderr
    assert (folder / "two.html").read_text().startswith("<!doctype html>")
    assert "survey.jsonl" in [path.name for path in (folder / "two").iterdir()]
    monkeypatch.setattr(sys, "path", list(sys.path))
    with np.load(folder / "d.npz") as data:
        model = load_model(f"{folder}/net.py:make", None)
        alone = fm.survey(model, "cross_entropy", (data["x"], data["y"]), out=None, instruments=["symmetry"])
    both = json.loads(launched.stdout)["survey"]
    assert [s["verdict"] for s in both["sections"]] == [s.verdict for s in alone.sections]


@pytest.mark.parametrize(
    ("factory", "processes", "code", "message"),
    [
        ("none", 2, 2, "has no function 'none'; it has make, dies"),
        ("dies", 1, 1, "was stopped by signal 9; fathometer resume goes on from its --run-dir"),
    ],
)
def test_a_failure_is_one_line_and_its_exit_code(folder, factory, processes, code, message):
    problem = [f"net.py:{factory}", "--data", "d.npz", "--loss", "cross_entropy"]
    found = fathometer(folder, "launch", "-n", processes, "survey", *problem, "--run-dir", "run")
    assert (found.returncode, found.stdout) == (code, "")
    assert found.stderr.startswith("fathometer: ")
    assert found.stderr.count("\n") == 1
    assert message in found.stderr


def test_a_launched_process_hands_its_line_to_the_launcher(tmp_path, monkeypatch):
    from fathometer.cli import launch

    assert launch.report("alone") is False
    monkeypatch.setenv("FATHOMETER_LAUNCHED", "1")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    assert launch.report("points is empty.") is True
    assert json.loads(Path(tmp_path / "error.json").read_text())["message"] == "points is empty."


def test_launch_does_not_launch_itself(call):
    found = call("launch", "-n", 2, "launch", "survey")
    assert found.code == 2
    assert "launch cannot launch itself; name one of the other commands" in found.message
