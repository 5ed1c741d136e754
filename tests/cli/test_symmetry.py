"""``fathometer symmetry`` with generator files, the meter, uniqueness and pictures."""

import json

import pytest
import torch
from safetensors.torch import save_file


def test_generator_files_are_one_permutation_a_line_or_json(call, tmp_path):
    lines, listed = tmp_path / "left.txt", tmp_path / "right.json"
    lines.write_text("# a shift\n1 2 3 4 0\n")
    listed.write_text(json.dumps([[4, 0, 1, 2, 3]]))
    found = call("symmetry", "--inputs", lines, "--outputs", listed, "--labels", "--json").json
    # reverse convolution: w[m, n] depends on n + m alone
    assert found["labels"] == [[(n + m) % 5 for n in range(5)] for m in range(5)]
    alike = call("symmetry", "--inputs", lines, "--labels", "--json").json
    assert alike["labels"] == [[(n - m) % 5 for n in range(5)] for m in range(5)]
    named = call("symmetry", "--inputs", lines, "--outputs", "cyclic(5)", "--json").json
    assert named["orbits"] == 5
    mixed = call("symmetry", "--group", "cyclic(5)", "--outputs", lines, "--json").json
    assert mixed["orbits"] == 5


def test_weights_without_a_group_are_measured_against_the_library(call, tmp_path):
    first = torch.randn(8, generator=torch.Generator().manual_seed(0))
    circulant = torch.stack([first.roll(i) for i in range(8)])
    save_file({"fc.weight": circulant}, tmp_path / "w.safetensors")
    found = call("symmetry", "--weights", tmp_path / "w.safetensors", "--json").json["meter"]
    best = found["rows"][0]
    assert best["action"] == "cyclic(8)"
    assert best["defect"] < 1e-6
    assert {row["action"] for row in found["rows"]} >= {"dihedral(8)", "symmetric(8)", "mirror(8)"}


@pytest.mark.filterwarnings("default")
def test_uniqueness_and_a_drawing_on_demand(call, tmp_path):
    drawn = tmp_path / "tied.svg"
    answer = call("symmetry", "--group", "alternating(5)", "--unique", "--draw", drawn, "--json")
    assert "2-transitive" in answer.err
    found = answer.json
    assert found["automorphisms"]["order"] == 120
    assert found["automorphisms"]["unique"] is False
    assert drawn.read_text().lstrip().startswith("<svg")


@pytest.mark.parametrize(
    ("arguments", "content", "message"),
    [
        ([], None, "nothing to do: give --group, --inputs or --weights"),
        (["--group", "cyclic(3)", "--inputs", "f"], "1 0", "both say how the inputs move"),
        (["--inputs", "f"], None, "No such file"),
        (["--inputs", "f"], "one two", 'write one a line, "1 2 0"'),
        (["--inputs", "f"], "", "lists no permutation"),
        (["--inputs", "f"], "[1, 2, 0]", "lists no permutation"),
        (["--inputs", "f"], "[[1, 0", "holds something else than permutations"),
        (["--inputs", "f"], b"\xff\xfe\x00", "is not text"),
        (["--inputs", "f"], "0 0 1", "inputs, generator 0: not a permutation, 0 and 1 both go to 0"),
        (["--inputs", "f"], "[[1.5, 0]]", "inputs, generator 0: its entries are float64"),
        (["--inputs", "f", "--outputs", "symmetric(3)"], "1 0", "inputs lists 1 generators and outputs 2"),
    ],
)
def test_bad_generator_files_are_named(call, tmp_path, arguments, content, message):
    place = tmp_path / "f"
    if content is not None:
        place.write_bytes(content if isinstance(content, bytes) else content.encode())
    found = call("symmetry", *(place if part == "f" else part for part in arguments))
    assert found.code == 2
    assert message in found.message
