"""Exit codes, one line for every refusal, and an output that is JSON or text but never both."""

import json
import math
import runpy
import sys
import warnings

import numpy as np
import pytest
import torch
import typer

import fathometer
from fathometer import BudgetError, CapabilityError, Estimate, InputError, TheoryWarning, cli
from fathometer.cli import main, output

COMMANDS = ["survey", "spectrum", "sharpness", "stein", "symmetry", "launch", "resume"]


def shell(capsys, *arguments):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    out, err = capsys.readouterr()
    return left.value.code, out, err


def test_without_arguments_the_help_names_every_command(capsys):
    code, out, err = shell(capsys)
    assert (code, err) == (0, "")
    assert all(f"\n  {name} " in out for name in COMMANDS)
    assert "exit codes" in out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples(capsys, name):
    code, out, err = shell(capsys, name, "--help")
    assert (code, err) == (0, "")
    assert name == "resume" or f"    fathometer {name} " in out


def test_the_version_is_that_of_the_package(capsys):
    assert shell(capsys, "--version") == (0, f"{fathometer.__version__}\n", "")


def test_python_dash_m_is_the_same_program(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["fathometer", "--version"])
    with pytest.raises(SystemExit) as left:
        runpy.run_module("fathometer", run_name="__main__")
    assert left.value.code == 0
    assert capsys.readouterr().out == f"{fathometer.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["sound"], "sound"),
        (["--deep"], "--deep"),
        (["stein"], "DRAWS"),
        (["stein", "a.npz", "--kernel"], "--kernel"),
        (["spectrum", "--top", "many"], "--top"),
        (["spectrum", "--top", "0"], "--top"),
        (["stein", "missing.npz"], "missing.npz"),
        (["symmetry", "--group", "cyclic(8"], "cyclic(8"),
        (["resume", "nowhere"], "nowhere"),
        (["launch", "launch"], "launch"),
    ],
)
def test_bad_arguments_are_one_line_and_exit_code_2(capsys, arguments, word):
    code, out, err = shell(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("fathometer: ")
    assert err.count("\n") == 1
    assert word in err


@pytest.fixture
def failing(monkeypatch):
    """A command that does what the test wants."""

    def install(action):
        app = typer.Typer()
        app.command("go")(action)
        app.callback()(lambda: None)
        monkeypatch.setattr(cli, "app", app)

    return install


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("points is empty."), 2),
        (CapabilityError("no browser."), 3),
        (BudgetError("too large."), 3),
    ],
)
def test_errors_become_exit_codes(capsys, failing, error, code):
    def go():
        raise error

    failing(go)
    found, out, err = shell(capsys, "go")
    assert (found, out) == (code, "")
    assert err == f"fathometer: {error}\n"


def test_an_interrupt_has_its_own_code(capsys, failing):
    def go():
        raise KeyboardInterrupt

    failing(go)
    assert shell(capsys, "go")[0] == 130


def test_a_bug_is_not_hidden(failing):
    failing(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["go"])


def test_warnings_are_lines_on_stderr_and_the_caller_keeps_its_own(capsys, failing):
    def go():
        warnings.warn("P is small.\nVery.", TheoryWarning, stacklevel=1)
        warnings.warn("something else", UserWarning, stacklevel=1)

    failing(go)
    before = warnings.showwarning
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        code, out, err = shell(capsys, "go")
    assert (code, out) == (0, "")
    assert err == "fathometer: theory: P is small. Very.\nfathometer: note: something else\n"
    assert warnings.showwarning is before


def test_json_has_no_numbers_that_json_lacks(capsys):
    answers = {
        "estimate": Estimate(
            value=torch.tensor([1.0, math.nan]), kind="estimate", error=math.inf, method="m"
        ),
        "plain": {"low": -math.inf, "count": np.int64(3), "z": 1 + 2j, "flag": True, "none": None, 5: (1, 2)},
    }
    output.emit("test", answers, True)
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert found["command"] == "test"
    assert found["version"] == fathometer.__version__
    assert found["estimate"]["value"] == [1.0, "NaN"]
    assert found["estimate"]["error"] == "Infinity"
    assert found["estimate"]["kind"] == "estimate"
    assert found["estimate"]["type"] == "Estimate"
    expected = {"low": "-Infinity", "count": 3, "z": [1, 2], "flag": True, "none": None, "5": [1, 2]}
    assert found["plain"] == expected


def test_progress_goes_to_stderr_one_line_a_stage(capsys):
    with output.progress_display() as progress:
        for i in range(3):
            progress(i, 3, "spectra: probe")
        progress(1, 1, "stein")
        progress(1, 1, "")
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split("s  ")[1] for line in err.splitlines()] == ["spectra", "stein"]


def test_progress_draws_a_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    with output.progress_display() as progress:
        progress(1, 2, "layer [fc1] [/bold]")
    out, err = capsys.readouterr()
    assert out == ""
    assert "layer [fc1] [/bold]" in err
