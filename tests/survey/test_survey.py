"""The survey on small networks: complete, honest about what it could not do, resumable, and harmless."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import fathometer as fm
from fathometer.errors import CapabilityError, InputError, TheoryWarning
from fathometer.survey import run
from fathometer.survey.subject import subject_of
from fathometer.survey.vocabulary import Section


def regression(activation=nn.ReLU):
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), activation(), nn.Linear(5, 2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)
    x = torch.randn(24, 4, generator=generator)
    y = torch.randn(24, 2, generator=generator)
    return model, "mse", (x, y)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One survey with all instruments."""
    out = tmp_path_factory.mktemp("survey") / "report.html"
    return fm.survey(*regression(), out=out), out


def test_all_instruments_speak_or_say_why_not(whole):
    result, out = whole
    names = [section.name for section in result.sections]
    assert names == ["network", "loss-surface", "sharpness", "sampling", "symmetry", "expressiveness"]
    assert all(section.verdict.endswith(".") and section.seconds > 0 for section in result.sections)
    page = out.read_text("utf-8")
    assert page == result.report() and len(page) < 300_000
    assert all(f'id="{name}"' in page for name in (*names, "skipped", "manifest"))


def test_the_numbers_of_the_card_are_those_of_torch(whole):
    model, _, (x, y) = regression()
    loss = nn.functional.mse_loss(model(x), y)
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
    facts = {fact.label: fact.value for fact in whole[0]["network"].facts}
    assert facts["parameters P"] == 37 and facts["examples N"] == 24
    assert facts["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert facts["gradient norm"] == pytest.approx(gradient.norm().item(), rel=1e-4)


def test_the_gain_of_a_step_is_what_torch_measures(whole):
    model, _, (x, y) = regression()
    model, x, y = model.double(), x.double(), y.double()
    theta = nn.utils.parameters_to_vector(model.parameters()).detach()

    def loss(vector):
        parts = torch.split(vector, [p.numel() for p in model.parameters()])
        named = {n: v.view_as(p) for (n, p), v in zip(model.named_parameters(), parts, strict=True)}
        return nn.functional.mse_loss(torch.func.functional_call(model, named, (x,)), y)

    g, H = torch.func.grad(loss)(theta), torch.func.hessian(loss)(theta)
    step = (g @ g) / (g @ H @ g)
    expected = (loss(theta) - loss(theta - step * g)).item()
    facts = {fact.label: fact.value for fact in whole[0]["network"].facts}
    assert facts["gain of one best gradient step"] == pytest.approx(expected, rel=1e-4)
    assert "slope, not a critical point" in whole[0]["network"].verdict


def test_the_spectrum_in_the_report_is_that_of_the_dense_hessian(whole):
    model, _, (x, y) = regression()
    surface = fm.LossSurface(model.double(), "mse", (x.double(), y.double()))
    values = torch.linalg.eigvalsh(surface.hessian().to_dense())
    facts = {fact.label: fact.value for fact in whole[0]["loss-surface"].facts}
    assert facts["largest eigenvalue"] == pytest.approx(values.max().item(), rel=1e-5)
    assert facts["lowest eigenvalue"] == pytest.approx(values.min().item(), rel=1e-4)
    negative = (values < -1e-10).double().mean().item()
    assert facts["index, share of negative eigenvalues"] == pytest.approx(negative)


def test_a_large_network_is_measured_by_probes_and_says_so(monkeypatch):
    from fathometer.survey import terrain

    monkeypatch.setattr(terrain, "DENSE", 10)
    model, loss, data = regression()
    section = terrain.measure(subject_of(model, loss, data, seed=0, thorough=False))
    values = torch.linalg.eigvalsh(fm.LossSurface(model, loss, data).hessian().to_dense().double())
    facts = {fact.label: fact for fact in section.facts}
    top, share = facts["largest eigenvalue"], facts["index, share of negative eigenvalues"]
    assert top.kind == "estimate" and abs(top.value - values.max().item()) <= top.error + 1e-5
    assert share.kind == "estimate"
    assert (
        abs(share.value - (values < -1e-3 * values.abs().max()).double().mean().item()) <= share.error + 1e-9
    )
    assert "estimated by Lanczos quadrature" in section.notes[0] and "clearly go down" in section.verdict


def test_the_rescalings_and_permutations_are_counted(whole):
    facts = {fact.label: fact.value for fact in whole[0]["symmetry"].facts}
    assert facts["rescalings that keep the function"] == 5  # one for each hidden rectifier
    assert 10 ** facts["permutations of hidden units"] == pytest.approx(120)  # 5!


def test_a_layer_with_a_symmetry_is_found_by_the_meter():
    model, loss, _ = regression()
    model = nn.Sequential(nn.Linear(9, 9), nn.ReLU(), nn.Linear(9, 1))
    generator = torch.Generator().manual_seed(1)
    row = torch.randn(9, generator=generator)
    with torch.no_grad():  # a circulant matrix commutes with cyclic shifts
        model[0].weight.copy_(torch.stack([row.roll(i) for i in range(9)]))
    data = torch.randn(12, 9, generator=generator), torch.randn(12, 1, generator=generator)
    result = fm.survey(model, loss, data, out=None, instruments=["symmetry"])
    rows = {(r.layer, r.symmetry): r for r in result["symmetry"].tables[0].rows}
    found = rows["0", "cyclic shifts of the units"]
    assert found.distance < 1e-6 < 0.5 < found.shuffled
    assert "“cyclic shifts of the units” in 0" in result["symmetry"].verdict


def test_a_network_that_some_instruments_cannot_treat_is_surveyed_by_the_others():
    result = fm.survey(*regression(nn.Tanh), out=None, instruments=["sharpness", "approximation"])
    skipped = {item.what: item.reason for item in result.skipped}
    assert "tanh" in skipped["expressiveness"] and "no rescaling" in skipped["an equivalent sharper network"]
    page = result.report()
    assert all(what in page for what in skipped)


def test_what_theory_does_not_cover_becomes_a_note_and_no_warning():
    model, _, (x, _) = regression()
    classes = torch.arange(24) % 2
    result = fm.survey(model, "cross_entropy", (x, classes), out=None, instruments="spectra")
    assert any("squared errors" in note for note in result["loss-surface"].notes)


def test_other_warnings_and_defects_are_not_swallowed():
    import warnings

    subject = subject_of(*regression(), seed=0, thorough=False)

    def warn(category):
        warnings.warn("said", category, stacklevel=1)
        return 1

    with pytest.warns(RuntimeWarning, match="said"):
        assert subject.attempt("a", lambda: warn(RuntimeWarning)) == 1
    assert subject.attempt("b", lambda: warn(TheoryWarning)) == 1 and subject.notes == ["Said."]
    with pytest.raises(ZeroDivisionError):
        subject.attempt("c", lambda: 1 // 0)

    def refuse():
        raise CapabilityError("not here.")

    assert subject.attempt("d", refuse) is None
    assert str(subject.skipped[0]) == "d: not here."


def test_the_model_and_the_random_state_are_left_alone():
    model, loss, data = regression()
    model.train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.random.get_rng_state()
    fm.survey(model, loss, data, out=None, instruments=["stein", "symmetry"])
    assert model.training and all(p.grad is None for p in model.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_same_seed_gives_the_same_sections():
    one, other = (fm.survey(*regression(), out=None, instruments=["stein", "spectra"]) for _ in range(2))
    for a, b in zip(one.sections, other.sections, strict=True):
        assert (a.verdict, [f.value for f in a.facts]) == (b.verdict, [f.value for f in b.facts])


def test_progress_tells_what_is_measured():
    heard = []
    fm.survey(
        *regression(), out=None, instruments=["symmetry"], progress=lambda d, t, what: heard.append((d, what))
    )
    assert heard[0] == (0, "reading model and data") and heard[-1] == (1000, "done")
    assert [d for d, _ in heard] == sorted(d for d, _ in heard)
    assert any("symmetry: symmetries of layers" in what for _, what in heard)


def test_a_result_comes_back_from_disk_and_builds_the_same_report(whole, tmp_path):
    again = fm.load(whole[0].save(tmp_path / "survey.safetensors"))
    assert again.report() == whole[0].report() and str(again) == str(whole[0])
    assert again["sampling"].verdict == whole[0]["sampling"].verdict
    with pytest.raises(KeyError, match="'weather' was not surveyed; there are network"):
        again["weather"]


def test_a_second_call_takes_finished_sections_from_the_run(tmp_path, monkeypatch):
    first = fm.survey(*regression(), out=None, run_dir=tmp_path, instruments=["symmetry"])
    monkeypatch.setattr(run, "_section", lambda *_: pytest.fail("measured again"))
    second = fm.survey(*regression(), out=None, run_dir=tmp_path, instruments=["symmetry"])
    assert [s.verdict for s in second.sections] == [s.verdict for s in first.sections]


@pytest.mark.parametrize("change", ["weights", "data", "loss", "seed"])
def test_a_run_of_something_else_is_refused(tmp_path, change):
    model, loss, (x, y) = regression()
    fm.survey(model, loss, (x, y), out=None, run_dir=tmp_path, instruments=[])
    if change == "weights":
        with torch.no_grad():
            model[0].bias[0] += 1e-3
    elif change == "data":
        x = x + 1e-3
    loss = "half_mse" if change == "loss" else loss
    with pytest.raises(InputError, match="holds another run"):
        fm.survey(model, loss, (x, y), out=None, run_dir=tmp_path, instruments=[], seed=int(change == "seed"))


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import fathometer as fm
from fathometer.survey import run
from survey.test_survey import regression
measure = run._section
def section(subject, what, how):
    if what == "symmetry":
        os.kill(os.getpid(), signal.SIGKILL)
    return measure(subject, what, how)
run._section = section
fm.survey(*regression(), out=None, run_dir=sys.argv[1], instruments=["stein", "symmetry"])
"""


@pytest.mark.kill
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_a_killed_survey_goes_on_where_it_stopped(tmp_path, monkeypatch):
    code = KILLED.format(tests=str(Path(__file__).parents[1]))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    dead = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, check=False)
    assert dead.returncode == -signal.SIGKILL
    measured = []
    real = run._section
    monkeypatch.setattr(run, "_section", lambda s, what, how: measured.append(what) or real(s, what, how))
    result = fm.survey(*regression(), out=None, run_dir=tmp_path, instruments=["stein", "symmetry"])
    assert measured == ["symmetry"]
    assert [s.name for s in result.sections] == ["network", "sampling", "symmetry"]


@pytest.mark.parametrize(
    "code",
    [
        "import fathometer as fm; f = fm.survey; import fathometer.survey",
        "import fathometer.survey; import fathometer as fm; f = fm.survey",
    ],
)
def test_survey_is_package_and_function_whatever_is_imported_first(code):
    check = "; assert callable(f) and callable(f.report.build_report) and f is fm.survey is fathometer.survey"
    subprocess.run([sys.executable, "-c", f"import fathometer; {code}{check}"], check=True)


def test_bad_arguments_are_refused_before_any_work():
    model, loss, data = regression()
    with pytest.raises(InputError, match="loss and data are given without a model"):
        fm.survey(None, loss, data, out=None)
    with pytest.raises(InputError, match="loss missing; a survey needs"):
        fm.survey(model, None, data, out=None)
    with pytest.raises(InputError, match="loss and data missing"):
        fm.survey(model, out=None)
    with pytest.raises(InputError, match=r"model is a str; pass a torch.nn.Module"):
        fm.survey("model.pt", loss, data, out=None)
    with pytest.raises(InputError, match="instruments names 'weather'; there are spectra, sharpness"):
        fm.survey(model, loss, data, out=None, instruments=["weather"])
    surface = fm.LossSurface(model, loss, data)
    with pytest.raises(InputError, match="a LossSurface, which has its loss and data"):
        fm.survey(surface, loss, out=None)


def test_a_surface_is_surveyed_like_its_parts():
    model, loss, data = regression()
    one = fm.survey(fm.LossSurface(model, loss, data), out=None, instruments=[])
    other = fm.survey(model, loss, data, out=None, instruments=[])
    assert one["network"].verdict == other["network"].verdict


def test_inputs_without_segments_are_named():
    from fathometer.survey import expressiveness

    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(3, 2)

        def forward(self, words):
            return self.table(words).sum(1)

    data = torch.arange(6).reshape(3, 2) % 3, torch.zeros(3, 2)
    subject = subject_of(Words(), "mse", data, seed=0, thorough=False)
    with pytest.raises(CapabilityError, match=r"inputs are torch.int64"):
        expressiveness.measure(subject)
    model, loss, (x, y) = regression()
    few = subject_of(model, loss, (x[:2], y[:2]), seed=0, thorough=False)
    with pytest.raises(CapabilityError, match="there are 2 examples; three are needed"):
        expressiveness.measure(few)


def test_a_section_is_a_section(whole):
    assert all(isinstance(section, Section) for section in whole[0].sections)
    assert whole[0].value == 6 and whole[0].kind == "exact" and whole[0].error == 0.0
    assert "Survey of Sequential" in whole[0]._repr_html_()
