"""The races: answers must agree, what does not run is listed, what we lose stays."""

import ast
import json
from pathlib import Path

import pytest

from benchmarks.goal import answer, faster, megabytes, seconds, within
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


def test_goals_are_met_missed_or_not_measured():
    goal = (
        faster("same", 1e-6),
        faster("same", 1e6),
        within("same", 1e6),
        within("same", 1e-6),
        seconds(60),
        seconds(0.0),
        megabytes(-1e9),
        answer("the sum", lambda ours, peers: ours, least=1, most=2e6),
        answer("twice the peer", lambda ours, peers: ours / peers["same"], least=2),
        answer("as the missing", lambda ours, peers: 1.0, least=1, needs="missing"),
        answer("a number", lambda ours, peers: float("nan"), least=0),
        faster("missing", 1),
        within("missing", 1),
    )
    peers = {"same": lambda: 1999 * 1000, "missing": missing}
    record = run_race(Race("a sum", goal, lambda: sum(range(2000)), peers, agree, 1, yardsticks=("same",)))
    verdicts = [entry["met"] for entry in record["goals"]]
    assert verdicts == [True, False, True, False, True, False, False, True, False, None, False, None, None]
    assert record["goals"][7] == {"words": "the sum", "found": "2e+06", "met": True}
    assert record["goal"].startswith("at least 1e-06 times as fast as same; at least 1e+06 times")
    assert [row["yardstick"] for row in record["rows"]] == [False, True, False]


def test_a_goal_that_names_nobody_is_refused():
    with pytest.raises(
        ValueError, match="'at least 2 times as fast as nobody' names 'nobody'; there is fath"
    ):
        run_race(Race("a sum", faster("nobody", 2), lambda: 1, {}, agree, 1))


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
    quick = {**row, "name": "peer", "seconds": 1.0, "ratio": 0.5, "spread": [0.4, 0.6]}
    slow = {**quick, "name": "one gradient", "yardstick": True}
    gone = {**row, "name": "gone", "seconds": None, "ratio": None, "status": "not installed (no | such)"}
    machine = {"date": "d", "processor": "p", "cores": 2, "threads": 1, "load at the start": 1, "system": "s"}
    goals = [
        {"words": "be quick", "found": "3 s", "met": True},
        {"words": "be | first", "found": "0.5", "met": False},
        {"words": "be read", "found": "not measured", "met": None},
    ]
    one = {"title": "work", "goal": "speed", "goals": goals, "note": "it is written in C"}
    one |= {"agreement": "same", "agreed": True, "rows": [row, quick, slow, gone]}
    old = {"title": "past", "goal": "words", "agreement": "same", "agreed": True, "rows": [row]}
    scaling = {
        "title": "growth",
        "axis": "n",
        "curves": {"fathometer": {"sizes": [1, 10], "seconds": [1, 2], "megabytes": [None, 3], "status": ""}},
    }
    record = {
        "area": "area",
        "machine": {**machine, "versions": {"torch": "2"}},
        "races": [one, old],
        "scalings": [scaling],
    }
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "area.json").write_text(json.dumps(record))
    text = write(tmp_path).read_text()
    assert "2 races with 3 goals: 1 met, 1 missed, 1 not measured. 1 comparisons with a peer" in text
    assert text.index(r"| be \| first | 0.5 | **missed** |") < text.index("| be quick | 3 s | met |")
    assert "| [work](#area-0) | peer | 2 | it is written in C |" in text and '<a id="area-0">' in text
    assert "- Goal met: be quick; found 3 s" in text and "- Goal: words" in text
    assert "| one gradient | 1 | **0.5** (0.4 to 0.6) | 5 | yardstick |" in text
    assert "| peer | 1 | **0.5** (0.4 to 0.6) | 5 | we lose |" in text
    assert r"| gone | | | | not installed (no \| such) |" in text
    assert (tmp_path / "results" / "area-0.svg").read_text().startswith("<svg")


@pytest.mark.parametrize("area", ["spectra", "sharpness", "stein", "symmetry", "approximation", "scaling"])
def test_peers_are_named_with_their_area(area):
    from importlib import import_module

    module = import_module(f"benchmarks.{area}")
    assert module.PEERS and all(isinstance(requirement, str) for requirement in module.PEERS)
    assert hasattr(module, "races") or hasattr(module, "scalings")


@pytest.mark.parametrize("area", ["spectra", "sharpness", "stein", "symmetry", "approximation"])
def test_every_goal_can_be_missed(area):
    tree = ast.parse((Path(__file__).parents[1] / "benchmarks" / f"{area}.py").read_text("utf-8"))
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "Race"]
    assert calls
    for call in calls:
        goal = next((k.value for k in call.keywords if k.arg == "goal"), None) or call.args[1]
        assert not isinstance(goal, ast.JoinedStr | ast.Constant), f"line {goal.lineno}: words check nothing"
