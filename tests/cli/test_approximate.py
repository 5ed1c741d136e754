"""A formula in, a certified network out, from the shell."""

import json

import numpy as np
import pytest

import fathometer as fm
from fathometer.cli import run


def answer(capsys, *arguments):
    assert run(["approximate", *map(str, arguments), "--json"]) == (0, "")
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("error", [1e-2, 1e-3, 1e-5])
def test_the_square_takes_the_proved_fewest_units(capsys, error):
    found = answer(capsys, "x^2", "--error", error)
    assert found["network"]["value"] <= error
    levels = int(np.ceil(0.5 * np.log2(1 / (8 * error))))  # no network of fewer units reaches the error
    assert found["certificate"]["upper"] == pytest.approx(2.0 ** (-2 * levels - 3), rel=1e-9)


def test_weights_and_drawing_are_written(capsys, tmp_path):
    weights, drawing = tmp_path / "net.json", tmp_path / "net.svg"
    answer(capsys, "x^2", "--error", 1e-3, "--layers", 9, "--weights", weights, "--drawing", drawing)
    net = fm.approximation.SkipNetwork.from_json(weights.read_text())
    x = np.linspace(0, 1, 1001)
    assert np.abs(net(x) - x**2).max() <= 1e-3 and net.units == 4
    assert "<svg" in drawing.read_text()


def test_the_exported_network_keeps_the_certificate(capsys, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    path = tmp_path / "square.onnx"
    found = answer(capsys, "x^2", "--domain", 0, 1, "--error", 1e-4, "--onnx", path)
    assert found["onnx"] == str(path)
    session = onnxruntime.InferenceSession(str(path))
    x = np.linspace(0, 1, 4097)[:, None]
    (y,) = session.run(None, {session.get_inputs()[0].name: x})
    gap = np.abs(y.reshape(-1) - x[:, 0] ** 2).max()
    assert gap <= found["certificate"]["upper"] * (1 + 1e-9)
    assert gap > 0.9 * found["certificate"]["upper"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x^2"], "give one of --error EPS and --units N"),
        (["x^2", "--error", "1e-3", "--units", "4"], "give one of --error EPS and --units N"),
        (["3", "--error", "1e-3"], "'3' has no variable; a constant needs no network"),
        (["__import__('os')", "--error", "1e-3"], "does not parse at position"),
        (["x^2", "--domain", "1", "0", "--error", "1e-3"], "domain"),
    ],
)
def test_a_wrong_request_is_one_line_and_exit_code_two(arguments, message):
    code, line = run(["approximate", *arguments])
    assert code == 2
    assert message in line
    assert "\n" not in line
