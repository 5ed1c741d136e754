"""The races: answers must agree, what does not run is listed, what we lose stays."""

import json

import pytest

from benchmarks.race import Race, Scaling, run_race, run_scaling
from benchmarks.report import write


def missing():
    import a_peer_that_is_not_installed  # noqa: F401


def failing():
    raise ValueError("too | large")


def agree(ours, peers):
    assert all(abs(ours - answer) < 1e-9 for answer in peers.values())
    return f"{len(peers)} peers agree"


def race(**peers):
    return Race("a sum", "to be right", lambda: sum(range(2000)), peers, agree, repeats=3)


def test_a_peer_that_is_missing_or_fails_is_listed():
    record = run_race(race(same=lambda: 1999 * 1000, missing=missing, failing=failing))
    assert record["agreed"] and record["agreement"] == "1 peers agree"
    ours, same, absent, broken = record["rows"]
    assert ours["ratio"] == 1.0 and same["rounds"] == 3 and same["ratio"] > 0
    assert absent["status"].startswith("not installed (No module named") and absent["ratio"] is None
    assert broken["status"] == "failed (ValueError: too | large)"


def test_an_answer_that_differs_is_a_disagreement():
    record = run_race(race(other=lambda: 7))
    assert not record["agreed"] and record["agreement"].startswith("DISAGREES: AssertionError")


def test_a_race_that_we_cannot_run_does_not_count_as_agreed():
    assert not run_race(Race("none", "run", failing, {}, agree))["agreed"]


def test_a_contender_that_fails_at_a_size_stops_there():
    def small_only(size):
        if size > 10:
            raise MemoryError("too large")
        return lambda: size

    record = run_scaling(
        Scaling("s", "n", (1, 10, 100), {"fathometer": lambda n: lambda: n, "peer": small_only})
    )
    assert record["curves"]["fathometer"]["sizes"] == [1, 10, 100]
    assert record["curves"]["peer"]["sizes"] == [1, 10]
    assert record["curves"]["peer"]["status"] == "failed (MemoryError: too large) at 100"


def test_the_table_keeps_the_rows_that_we_lose(tmp_path):
    row = {
        "name": "fathometer",
        "seconds": 2.0,
        "ratio": 1.0,
        "spread": [1, 1],
        "megabytes": 5.0,
        "status": "",
    }
    faster = {**row, "name": "peer", "seconds": 1.0, "ratio": 0.5, "spread": [0.4, 0.6]}
    gone = {**row, "name": "gone", "seconds": None, "ratio": None, "status": "not installed (no | such)"}
    machine = {"date": "d", "processor": "p", "cores": 2, "threads": 1, "load at the start": 1, "system": "s"}
    one = {"title": "work", "goal": "speed", "agreement": "same", "agreed": True, "rows": [row, faster, gone]}
    scaling = {
        "title": "growth",
        "axis": "n",
        "curves": {"fathometer": {"sizes": [1, 10], "seconds": [1, 2], "megabytes": [None, 3], "status": ""}},
    }
    record = {
        "area": "area",
        "machine": {**machine, "versions": {"torch": "2"}},
        "races": [one],
        "scalings": [scaling],
    }
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "area.json").write_text(json.dumps(record))
    text = write(tmp_path).read_text()
    assert "1 races, 1 comparisons with a peer that ran; we lose 1 of them." in text
    assert "| peer | 1 | **0.5** (0.4 to 0.6) | 5 | we lose |" in text
    assert r"| gone | | | | not installed (no \| such) |" in text
    assert (tmp_path / "results" / "area-0.svg").read_text().startswith("<svg")


@pytest.mark.parametrize("area", ["spectra", "sharpness", "stein", "symmetry", "approximation", "scaling"])
def test_peers_are_named_with_their_area(area):
    from importlib import import_module

    module = import_module(f"benchmarks.{area}")
    assert module.PEERS and all(isinstance(requirement, str) for requirement in module.PEERS)
    assert hasattr(module, "races") or hasattr(module, "scalings")
