"""The commands of the instruments against closed forms."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fathometer import InputError
from fathometer.cli.symmetry import parse_group

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def own_path(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))


# stein: one point at the mode of N(0, I) in d dimensions has squared discrepancy d (c = 1, beta = -1/2)


def test_stein_of_a_point_at_the_mode(call, tmp_path):
    np.savez(tmp_path / "d.npz", points=np.zeros((1, 3)), scores=np.zeros((1, 3)))
    answer = call("stein", tmp_path / "d.npz", "--json").json
    assert answer["command"] == "stein"
    assert answer["kernel"]["squared"] == pytest.approx(3.0, rel=1e-12)
    assert answer["kernel"]["kind"] == "exact"


def test_stein_reads_csv_separate_scores_and_every_kth_draw(call, tmp_path):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(12, 2))
    np.savez(tmp_path / "whole.npz", points=points, scores=-points)
    np.save(tmp_path / "points.npy", points)
    np.savez(tmp_path / "scores.npz", scores=-points)
    rows = "\n".join(",".join(map(repr, row)) for row in np.hstack([-points, points]).tolist())
    (tmp_path / "d.csv").write_text(f"scores.1,scores.2,points.1,points.2\n{rows}\n")
    np.savez(tmp_path / "third.npz", points=points[::3], scores=-points[::3])
    ways = [
        ["whole.npz", "--thin", "3"],
        ["points.npy", "--scores", tmp_path / "scores.npz", "--thin", "3"],
        ["d.csv", "--thin", "3"],
        ["third.npz"],
    ]
    values = {call("stein", tmp_path / way[0], *way[1:], "--json").json["kernel"]["value"] for way in ways}
    assert len(values) == 1


def test_stein_takes_scores_from_a_log_density(call, tmp_path):
    (tmp_path / "target.py").write_text("def log_density(x):\n    return -(x**2).sum() / 2\n")
    points = np.random.default_rng(1).normal(size=(9, 2))
    np.savez(tmp_path / "d.npz", points=points, scores=-points)
    by_file = call("stein", tmp_path / "d.npz", "--measure", "both", "--json").json
    by_target = call(
        "stein",
        tmp_path / "d.npz",
        "--target",
        f"{tmp_path}/target.py:log_density",
        "--measure",
        "both",
        "--json",
    ).json
    for name in ("kernel", "graph"):
        assert by_target[name]["value"] == pytest.approx(by_file[name]["value"], rel=1e-12)


def test_stein_reads_arviz_files(call, tmp_path):
    xarray = pytest.importorskip("xarray")
    draws = np.random.default_rng(2).normal(size=(2, 6, 3))
    data = xarray.Dataset(
        {"mu": (("chain", "draw"), draws[..., 0]), "z": (("chain", "draw", "k"), draws[..., 1:])}
    )
    coordinates = {"chain": [0, 1], "draw": range(6), "k": [0, 1]}
    data.assign_coords(coordinates).to_netcdf(tmp_path / "d.nc", group="posterior", engine="h5netcdf")
    points = draws[:, ::2].reshape(-1, 3)
    np.savez(tmp_path / "d.npz", points=points, scores=-points)
    np.savez(tmp_path / "scores.npz", scores=-draws)
    found = call("stein", tmp_path / "d.nc", "--scores", tmp_path / "scores.npz", "--thin", 2, "--json").json
    direct = call("stein", tmp_path / "d.npz", "--json").json
    assert found["kernel"]["value"] == pytest.approx(direct["kernel"]["value"], rel=1e-12)
    refused = call("stein", tmp_path / "d.nc")
    assert refused.code == 2
    assert "holds draws only; give --scores FILE or --log-density" in refused.message


def test_stein_reads_cmdstan_files(call, tmp_path):
    (tmp_path / "target.py").write_text("def log_density(x):\n    return -(x**2).sum() / 2\n")
    points = np.random.default_rng(3).normal(size=(8, 2)).round(6)
    rows = "\n".join(f"-1.0,{a},{b}" for a, b in points)
    (tmp_path / "chain.csv").write_text(
        f"# stan_version_major = 2\nlp__,theta.1,theta.2\n# a comment\n{rows}\n"
    )
    np.savez(tmp_path / "d.npz", points=points[::2], scores=-points[::2])
    density = ["--log-density", f"{tmp_path}/target.py:log_density"]
    found = call("stein", tmp_path / "chain.csv", *density, "--thin", 2, "--json").json["kernel"]["value"]
    assert found == pytest.approx(
        call("stein", tmp_path / "d.npz", "--json").json["kernel"]["value"], rel=1e-12
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kernel", "linear"], "--kernel is 'linear'; one of imq, gaussian, matern"),
        (["--measure", "all"], "--measure is 'all'; one of kernel, graph, both"),
        (["--statistic", "W"], "statistic is 'W'"),
        (
            ["--target", "{folder}/target.py:constant"],
            "--log-density must return one number that depends on the point",
        ),
        (["--scores", "{folder}/d.csv"], "there is no such file"),
    ],
)
def test_stein_refuses_what_it_does_not_know(call, tmp_path, arguments, message):
    (tmp_path / "target.py").write_text("def constant(x):\n    return 3.0\n")
    np.savez(tmp_path / "d.npz", points=np.zeros((2, 1)), scores=np.zeros((2, 1)))
    found = call("stein", tmp_path / "d.npz", *(part.format(folder=tmp_path) for part in arguments))
    assert found.code == 2
    assert message in found.message


def test_the_example_target_tells_good_draws_from_biased_ones(call, tmp_path):
    sys.path.insert(0, str(EXAMPLES))
    import my_target

    values = []
    for bias in (0.0, 0.5):
        np.savez(tmp_path / "d.npz", points=my_target.draws(200, bias))
        target = f"{EXAMPLES}/my_target.py:log_density"
        values.append(call("stein", tmp_path / "d.npz", "--target", target, "--json").json["kernel"]["value"])
    assert values[1] > 1.5 * values[0]


# symmetry: the number of weights is Burnside's: the mean number of index pairs that an element fixes


@pytest.mark.parametrize(
    ("group", "size", "orbits"),
    [
        ("cyclic(8)", 8, 8),
        ("dihedral(5)", 5, 3),
        ("symmetric(6)", 6, 2),
        ("alternating(4)", 4, 2),
        ("trivial(3)", 3, 9),
        ("product(cyclic(2), symmetric(3))", 6, 4),
        ("subsets(5, 2)", 10, 3),
    ],
)
def test_symmetry_counts_the_weights(call, group, size, orbits):
    answer = call("symmetry", "--group", group, "--labels", "--json").json
    assert (answer["inputs"], answer["outputs"], answer["orbits"]) == (size, size, orbits)
    assert {label for row in answer["labels"] for label in row} == set(range(orbits))


def test_symmetry_prints_the_sharing_matrix(call):
    found = call("symmetry", "--group", "cyclic(3)", "--labels")
    assert found.code == 0
    assert found.out.endswith("0 1 2\n2 0 1\n1 2 0\n")


def test_symmetry_takes_another_action_on_the_outputs(call):
    answer = call("symmetry", "--group", "subsets(4, 2)", "--outputs", "symmetric(4)", "--json").json
    assert (answer["inputs"], answer["outputs"], answer["orbits"]) == (
        6,
        4,
        2,
    )  # a point is in the pair, or not


def test_symmetry_measures_a_layer(call, tmp_path):
    circulant = torch.tensor([[1.0, 2, 3], [3, 1, 2], [2, 3, 1]])
    save_file({"fc.weight": circulant, "fc.bias": torch.ones(3)}, tmp_path / "w.safetensors")
    arguments = ["symmetry", "--weights", tmp_path / "w.safetensors", "--json", "--group"]
    assert call(*arguments, "cyclic(3)").json["defect"]["value"] < 1e-12
    # onto S_3: the diagonal stays, the six others (2 and 3, three times each) become 2.5
    expected = math.sqrt(6 * 0.25 / (3 * (1 + 4 + 9)))
    assert call(*arguments, "symmetric(3)").json["defect"]["value"] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--group", "cyclic(8"], "is not a call such as"),
        (["--group", "8"], "is not a call such as"),
        (["--group", "monster(1)"], "there is no group 'monster'; there are alternating, cosets"),
        (["--group", "__import__('os').system('true')"], "there is no group"),
        (["--group", "cyclic(open('x'))"], "there is no group 'open'"),
        (["--group", "cyclic(2.5)"], "'2.5' is not a whole number, a list, True, False or a group"),
        (["--group", "cyclic(x)"], "'x' is not a whole number"),
        (["--group", "cyclic()"], "cyclic()"),
        (["--group", "cyclic(3, 4, 5)"], "cyclic(3, 4, 5)"),
        (["--group", "cyclic(0)"], "0"),
        (["--group", "cyclic(3)", "--design", "odd"], "--design is 'odd'; dense, sparse or minimal"),
        (["--group", "cyclic(3)", "--weights", "none.safetensors"], "there is no such file"),
    ],
)
def test_symmetry_refuses_what_it_does_not_know(call, arguments, message):
    found = call("symmetry", *arguments)
    assert found.code == 2
    assert message in found.message


def test_symmetry_asks_which_layer(call, tmp_path):
    save_file({"a": torch.ones(3, 3), "b": torch.ones(3, 3)}, tmp_path / "w.safetensors")
    found = call("symmetry", "--group", "cyclic(3)", "--weights", tmp_path / "w.safetensors")
    assert found.code == 2
    assert "--layer is None;" in found.message
    assert "has the matrices a, b" in found.message


def test_nested_groups_are_built_inside_out():
    assert parse_group("wreath(cyclic(2), symmetric(3))").order == 2**3 * 6
    assert parse_group(" weight_space([2, 3, 2]) ").order == 6
    with pytest.raises(InputError, match="is not a call"):
        parse_group("(" * 500)


# spectrum: for mean squared error of w -> X w the Hessian is 2 X'X / N


@pytest.fixture
def linear(tmp_path):
    (tmp_path / "line.py").write_text(
        "from torch import nn\n\ndef make():\n    return nn.Linear(4, 1, bias=False)\n"
    )
    x = np.random.default_rng(3).normal(size=(20, 4))
    np.savez(tmp_path / "d.npz", x=x, y=np.zeros((20, 1)))
    save_file({"weight": torch.ones(1, 4)}, tmp_path / "w.safetensors")
    arguments = [
        f"{tmp_path}/line.py:make",
        "--weights",
        tmp_path / "w.safetensors",
        "--data",
        tmp_path / "d.npz",
    ]
    return [*arguments, "--loss", "mse"], np.linalg.eigvalsh(2 * x.T @ x / 20)


def test_spectrum_is_that_of_the_normal_equations(call, linear):
    arguments, expected = linear
    found = call("spectrum", *arguments, "--top", 9, "--json")
    answer = found.json
    assert np.allclose(sorted(answer["density"]["nodes"]), expected, rtol=1e-4)
    assert np.allclose(sorted(answer["eigenpairs"]["values"]), expected, rtol=1e-4)
    assert (answer["index"]["negative"], answer["index"]["positive"]) == (0, 4)
    assert "vectors" not in answer["eigenpairs"]
    assert [line.split()[-1] for line in found.err.splitlines()] == ["density", "index", "eigenvalues"]


def test_spectrum_in_words_says_what_each_number_is(call, linear):
    arguments, _ = linear
    out = call("spectrum", *arguments).out
    assert "exact" in out
    assert "4 positive" in out


# sharpness: the same Hessian; and a rectifier network whose sharper twin computes the same


def test_sharpness_is_that_of_the_normal_equations(call, linear):
    arguments, expected = linear
    names = ["--measure", "hessian_norm", "--measure", "hessian_trace"]
    rows = call("sharpness", *arguments, *names, "--json").json["measures"]["rows"]
    values = {row["measure"]: row["value"] for row in rows}
    assert values["hessian_norm"] == pytest.approx(expected[-1], rel=1e-3)
    assert values["hessian_trace"] == pytest.approx(expected.sum(), rel=1e-3)


def test_the_sharper_twin_computes_the_same(call, tmp_path):
    network = "nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)).double()"
    (tmp_path / "relu.py").write_text(f"from torch import nn\n\ndef make():\n    return {network}\n")
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(30, 3)), rng.normal(size=(30, 1))
    np.savez(tmp_path / "d.npz", x=x, y=y)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1)).double()
    for parameter in model.parameters():
        parameter.data = torch.from_numpy(rng.normal(size=parameter.shape))
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    arguments = [
        f"{tmp_path}/relu.py:make",
        "--weights",
        tmp_path / "w.safetensors",
        "--data",
        tmp_path / "d.npz",
    ]
    twin = tmp_path / "twin.safetensors"
    more = ["--loss", "mse", "--measure", "hessian_norm", "--sharpen", "100", "--save", twin, "--json"]
    answer = call("sharpness", *arguments, *more).json["equivalent"]
    inputs, targets = torch.from_numpy(x), torch.from_numpy(y)

    def norm(state):
        from torch.func import functional_call, hessian

        names, shapes = list(state), [t.shape for t in state.values()]

        def risk(theta):
            parts = theta.split([shape.numel() for shape in shapes])
            params = {n: p.view(s) for n, p, s in zip(names, parts, shapes, strict=True)}
            return (functional_call(model, params, (inputs,)) - targets).square().mean()

        H = hessian(risk)(torch.cat([t.flatten() for t in state.values()]))
        return torch.linalg.matrix_norm(H, 2).item()

    before, after = dict(model.state_dict()), load_file(twin)
    assert norm(after) / norm(before) == pytest.approx(100, rel=0.05)
    assert answer["after"]
    direct = model(inputs)
    model.load_state_dict(after)
    torch.testing.assert_close(model(inputs), direct)


def test_saving_without_sharpening_is_refused(call, tmp_path):
    found = call("sharpness", "--save", tmp_path / "w.safetensors")
    assert found.code == 2
    assert "--save needs --sharpen FACTOR" in found.message


# survey: what it is called with, and the run folder


@pytest.fixture
def recorded(monkeypatch):
    import fathometer as fm

    calls = []

    def survey(*problem, **options):
        options["progress"](1, 2, "spectra: probe")
        calls.append((problem, options))
        return fm.Estimate(value=1.0, kind="exact", error=0.0)

    monkeypatch.setitem(vars(fm), "survey", survey)
    return calls


def test_survey_without_arguments_takes_the_embedded_network(call, recorded):
    found = call("survey", "--json")
    ((problem, options),) = recorded
    assert problem == (None, None, None)
    del options["progress"]
    defaults = {
        "out": Path("report.html"),
        "instruments": None,
        "run_dir": None,
        "seed": 0,
        "thorough": False,
    }
    assert options == defaults
    assert found.json["report"] == "report.html"
    assert found.err.endswith("spectra\n")


def test_survey_passes_on_what_it_was_given(call, recorded, linear, tmp_path):
    arguments, _ = linear
    out = tmp_path / "r.html"
    more = ["--out", out, "--seed", 5, "--instrument", "spectra", "--instrument", "stein", "--thorough"]
    assert call("survey", *arguments, *more).code == 0
    (((model, loss, (x, y)), options),) = recorded
    assert model.weight.tolist() == [[1, 1, 1, 1]]
    assert loss == "mse"
    assert (tuple(x.shape), tuple(y.shape)) == ((20, 4), (20, 1))
    assert (options["out"], options["seed"], options["thorough"]) == (out, 5, True)
    assert options["instruments"] == ["spectra", "stein"]


def test_resume_repeats_the_command_of_a_run_folder(call, recorded, linear, tmp_path, monkeypatch):
    arguments, _ = linear
    monkeypatch.chdir(tmp_path)
    assert call("survey", *arguments, "--run-dir", "run", "--seed", 3, "--instrument", "stein").code == 0
    assert call("survey", *arguments, "--run-dir", "run", "--seed", 3, "--instrument", "stein").code == 0
    monkeypatch.chdir(Path(__file__).parent)
    assert call("resume", tmp_path / "run").code == 0
    first, second, third = ({k: v for k, v in options.items() if k != "progress"} for _, options in recorded)
    assert first == second == third
    assert Path.cwd() == tmp_path
    other = call("survey", "--run-dir", "run")
    assert other.code == 2
    assert "belongs to another command" in other.message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no run to resume in it"),
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ('{"arguments": [], "folder": "."}', "is damaged (no command in it)"),
        ('{"arguments": ["resume", "run"], "folder": "."}', "is damaged (no command in it)"),
        (json.dumps({"arguments": ["survey"], "folder": "/gone"}), "was begun in /gone, which is gone"),
    ],
)
def test_what_cannot_be_resumed_is_refused(call, tmp_path, content, message):
    if content is not None:
        (tmp_path / "command.json").write_text(content)
    found = call("resume", tmp_path)
    assert found.code == 2
    assert message in found.message


def test_a_run_folder_that_is_a_file_is_refused(call, recorded, tmp_path):
    (tmp_path / "run").write_text("")
    found = call("survey", "--run-dir", tmp_path / "run")
    assert found.code == 2
    assert "is a file; a folder is needed" in found.message


@pytest.mark.timeout(300)
def test_survey_of_the_example_model_writes_a_report_of_that_model(call, tmp_path):
    sys.path.insert(0, str(EXAMPLES))
    import my_model

    model, (inputs, labels) = my_model.make(), my_model.spirals(60)
    my_model.train(model, inputs, labels, steps=20)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    np.savez(tmp_path / "d.npz", inputs=inputs, targets=labels)
    files = ["--weights", tmp_path / "w.safetensors", "--data", tmp_path / "d.npz", "--loss", "cross_entropy"]
    out = tmp_path / "report.html"
    place = f"{EXAMPLES}/my_model.py:make"
    answer = call("survey", place, *files, "--instrument", "symmetry", "--out", out, "--json").json
    assert answer["report"] == str(out)
    sections = {section["name"]: section for section in answer["survey"]["sections"]}
    facts = {fact["label"]: fact["value"] for fact in sections["network"]["facts"]}
    loss = torch.nn.functional.cross_entropy(model(torch.from_numpy(inputs)), torch.from_numpy(labels))
    assert facts["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert facts["parameters P"] == sum(parameter.numel() for parameter in model.parameters())
    page = out.read_text()
    assert page.lower().startswith("<!doctype html>")
    assert sections["network"]["verdict"][:40] in page
