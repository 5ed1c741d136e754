"""``fathometer reproduce``: lists, runs, judges, resumes."""

import pytest

from fathometer.papers import Item, Outcome, check
from fathometer.papers.catalog import Entry
from fathometer.papers.item import ITEMS


@pytest.fixture
def toys(monkeypatch):
    """A paper of two items: one whose claim holds, one whose claim does not."""
    entries = {}
    for name, holds in (("good", True), ("wrong", False)):

        def run(*, full=False, seed=0, holds=holds):
            return Outcome(checks=(check("it holds", 1.0, 1.0 if holds else 2.0, holds),))

        key = f"toy:{name}"
        monkeypatch.setitem(ITEMS, key, Item(paper="toy", name=name, title="a toy", seconds=60, run=run))
        entries[key] = Entry(
            paper="toy", name=name, title="a toy", seconds=60, module="fathometer.papers.item"
        )
    monkeypatch.setattr("fathometer.papers.catalog.entries", lambda: entries)


def test_the_list_names_items_and_minutes(call, toys):
    listed = call("reproduce", "list")
    assert (
        listed.code == 0
        and listed.out.splitlines()[-1] == "2 items, about 2 minutes in all; +: larger with --full"
    )
    assert listed.out == call("reproduce").out
    assert [row["item"] for row in call("reproduce", "list", "--json").json["items"]] == [
        "toy:good",
        "toy:wrong",
    ]


def test_a_claim_that_does_not_hold_is_exit_code_1(call, toys, tmp_path):
    out = tmp_path / "gallery"
    one = call("reproduce", "toy:good", "--out", out)
    assert one.code == 0 and one.out.startswith("pass  toy:good  1 of 1 claims hold")
    both = call("reproduce", "all", "--out", out, "--markdown", tmp_path / "md")
    assert both.code == 1 and "FAIL  toy:wrong  0 of 1 claims hold; not: it holds" in both.out
    assert "1 of 2 items pass" in both.out
    assert (out / "index.html").read_text().count("<article") == 2
    assert (tmp_path / "md" / "toy.md").exists()


def test_a_run_folder_is_resumed(call, toys, tmp_path):
    call("reproduce", "toy", "--out", tmp_path / "out", "--run-dir", tmp_path / "run")
    again = call("resume", tmp_path / "run")
    assert "FAIL  toy:wrong" in again.out and again.code == 1


def test_machines_get_verdicts_and_numbers(call, toys, tmp_path):
    answer = call("reproduce", "toy:good", "--out", tmp_path, "--json").json
    assert (answer["passed"], answer["failed"]) == (1, 0)
    assert answer["items"][0]["checks"][0]["passed"] is True


def test_an_unknown_item_is_a_wrong_request(call, toys):
    refused = call("reproduce", "toy:god")
    assert refused.code == 2 and "near it: toy:good" in refused.message
