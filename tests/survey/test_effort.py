"""How closely a survey looks follows from the operations of one pass, and the report says so."""

import pytest
import torch
from torch import nn

import fathometer as fm
from fathometer.model.flops import forward_flops
from fathometer.survey import effort
from fathometer.survey.effort import BRIEF, FULL, THOROUGH, planned


def mlp(examples=40):
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    x = torch.randn(examples, 6, generator=generator)
    return model, "cross_entropy", (x, torch.arange(examples) % 3)


def test_operations_are_counted_as_on_paper():
    assert forward_flops(fm.LossSurface(*mlp())) == 40 * 2 * (6 * 8 + 8 * 3 + 11)  # biases: the floor is 2 P
    conv = nn.Sequential(nn.Conv2d(2, 5, 3), nn.Flatten(), nn.Linear(5 * 16, 3))
    data = torch.randn(7, 2, 6, 6), torch.zeros(7, dtype=torch.int64)
    products = 5 * 2 * 9 * 16 + 80 * 3
    assert forward_flops(fm.LossSurface(conv, "cross_entropy", data)) == 7 * 2 * products
    whole = fm.LossSurface(conv, lambda model, batch: model(batch).square().mean(), [data[0]])
    assert forward_flops(whole) == pytest.approx(7 * 2 * products)


def at(monkeypatch, surface, passes):
    """Allow that many passes over the surface, and twenty times as many to the thorough."""
    once = forward_flops(surface)
    monkeypatch.setattr(effort, "ALLOWED", {False: passes * once, True: 20 * passes * once})


def test_the_closest_look_that_is_allowed_is_taken(monkeypatch):
    surface = fm.LossSurface(*mlp())
    for passes, thorough, expected in (
        (FULL.passes, False, FULL),
        (FULL.passes - 1, False, BRIEF),
        (THOROUGH.passes / 20, True, THOROUGH),
        (FULL.passes / 20, True, FULL),
        (BRIEF.passes / 20, True, BRIEF),
    ):
        at(monkeypatch, surface, passes)
        same, found, remarks = planned(surface, thorough=thorough, seed=0)
        assert same is surface and found is expected
        assert bool(remarks) == (expected is BRIEF)
        assert ("--thorough" in " ".join(remarks)) == (expected is BRIEF and not thorough)


def test_examples_are_drawn_where_even_a_brief_look_is_too_much(monkeypatch):
    model, loss, (x, y) = mlp()
    surface = fm.LossSurface(model, loss, (x, y))
    at(monkeypatch, surface, BRIEF.passes / 2)
    part, found, remarks = planned(surface, thorough=False, seed=3)
    assert found is BRIEF and part.examples == 20
    assert "All numbers are of 20 of the 40 examples, drawn with seed 3." in remarks
    rows = [i for i in range(40) if any(torch.equal(x[i], kept) for kept in part.example_inputs(20)[0])]
    assert len(rows) == 20
    torch.testing.assert_close(part.energy(), fm.LossSurface(model, loss, (x[rows], y[rows])).energy())
    assert planned(surface, thorough=False, seed=4)[0].energy() != part.energy()
    at(monkeypatch, surface, BRIEF.passes / 1000)
    assert planned(surface, thorough=False, seed=3)[0].examples == effort.FEWEST


def test_batches_that_cannot_be_cut_are_all_used(monkeypatch):
    surface = fm.LossSurface(nn.Linear(2, 1), lambda model, batch: model(batch).square().mean(),
                             [torch.ones(20, 2), torch.ones(20, 2)])  # fmt: skip
    at(monkeypatch, surface, 1)
    same, found, remarks = planned(surface, thorough=False, seed=0)
    assert same is surface and found is BRIEF and "cannot be cut" in remarks[-1]


def test_a_brief_survey_is_whole_and_says_what_it_left_out(monkeypatch):
    model, loss, data = mlp()
    at(monkeypatch, fm.LossSurface(model, loss, data), BRIEF.passes / 2)
    result = fm.survey(model, loss, data, out=None)
    assert [s.name for s in result.sections] == [
        "network", "loss-surface", "sharpness", "sampling", "symmetry", "expressiveness"
    ]  # fmt: skip
    assert any("20 of the 40 examples" in note for note in result["network"].notes)
    assert any("does not search the orbit" in skipped.reason for skipped in result.skipped)
    facts = {fact.label: fact for fact in result["network"].facts}
    assert facts["examples N"].value == 20


def test_a_small_network_is_surveyed_by_one_thread_and_a_large_one_by_all(monkeypatch):
    surface = fm.model.embedded("digits-mlp").surface()
    assert effort.worth(surface) == 1
    monkeypatch.setattr(effort, "SMALL", 1e3)
    monkeypatch.setattr("torch.get_num_threads", lambda: 7)
    assert effort.worth(surface) == 7
