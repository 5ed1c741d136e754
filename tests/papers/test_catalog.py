"""What there is to reproduce: the list from the sources is the register, and names are checked."""

import inspect
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import fathometer as fm
from fathometer.papers import catalog
from fathometer.papers.catalog import choose, entries
from fathometer.papers.item import ITEMS

ROOT = Path(__file__).parents[2]
COVERAGE = sorted((ROOT / "docs" / "coverage").glob("*.md"))
PAPERS = sorted({entry.paper for entry in entries().values()})


@pytest.mark.parametrize("paper", PAPERS)
def test_the_list_from_the_sources_is_what_the_modules_register(paper):
    announced = {key: entry for key, entry in entries().items() if entry.paper == paper}
    for entry in announced.values():
        import_module(entry.module)
    registered = {key: item for key, item in ITEMS.items() if item.paper == paper}
    assert {k: (i.title, i.seconds) for k, i in registered.items()} == {
        k: (e.title, e.seconds) for k, e in announced.items()
    }
    for item in registered.values():
        assert item.run.__doc__, f"{item.key} says nothing about what it rebuilds"
        keywords = inspect.signature(item.run).parameters
        assert {k: p.default for k, p in keywords.items()} == {"full": False, "seed": 0}, item.key


def test_the_list_knows_which_items_read_the_published_size():
    known = entries()
    assert known["pennington_bahri_2017:figure-3"].larger
    for key in (key for key, entry in known.items() if not entry.larger):
        import_module(known[key].module)
        assert "if full" not in inspect.getsource(ITEMS[key].run), key


def test_the_list_imports_no_torch():
    code = (
        "import sys; from fathometer.papers.catalog import entries; entries(); print('torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "False"


def test_all_items_together_take_less_than_25_minutes_by_their_own_word():
    assert sum(entry.seconds for entry in entries().values()) < 25 * 60


def test_an_item_a_paper_and_everything_can_be_chosen():
    first = next(iter(entries().values()))
    assert choose([first.key]) == (first,)
    assert {entry.paper for entry in choose([first.paper])} == {first.paper}
    assert len(choose(["all", first.key])) == len(entries())


def test_an_unknown_item_is_refused_with_the_nearest():
    with pytest.raises(fm.InputError, match=r"no paper or item 'dinh_2017:figur-1'; near it: .*figure-1"):
        choose(["dinh_2017:figur-1"])
    with pytest.raises(fm.InputError, match=r"no paper or item 'zzzz'. Name one"):
        choose(["zzzz"])


def test_two_items_with_one_name_are_refused(tmp_path, monkeypatch):
    marked = '@item("figure-1", "A", seconds=1)\ndef one(): ...\n'
    (tmp_path / "some_2017.py").write_text(marked + marked)
    monkeypatch.setattr(catalog, "_HERE", tmp_path)
    with pytest.raises(fm.InputError, match="'some_2017:figure-1' twice"):
        entries.__wrapped__()


def test_the_register_takes_a_name_once(monkeypatch):
    register = import_module("fathometer.papers.item")  # the package's own "item" is the function
    monkeypatch.setattr(register, "ITEMS", {})

    def run(*, full=False, seed=0):
        """Nothing."""

    run.__module__ = "fathometer.papers.some_2017.section_1"
    enter = register.item("figure-1", "A", seconds=1)
    assert enter(run) is run
    with pytest.raises(
        fm.InputError, match="item is 'some_2017:figure-1' twice; names within a paper differ"
    ):
        enter(run)


def tokens(path):
    """What stands between backticks in a Markdown file."""
    return re.findall(r"`([^`\n]+)`", path.read_text("utf-8"))


@pytest.mark.parametrize("path", COVERAGE, ids=lambda path: path.stem)
def test_every_item_and_test_that_a_coverage_table_names_exists(path):
    names = {entry.name for entry in entries().values() if entry.paper == path.stem}
    tests = "".join(place.read_text("utf-8") for place in (ROOT / "tests").rglob("*.py"))
    files = {place.name for place in (ROOT / "tests").rglob("*.py")}
    wrong = []
    for token in tokens(path):
        paper, _, name = token.partition(":")
        if paper in PAPERS and name and token not in entries():
            wrong.append(token)
        file, _, test = token.rpartition("::")
        lost = (
            ("/" in file and not (ROOT / file).exists()),
            (test.startswith("test_") and test.endswith(".py") and test not in files),
            (re.fullmatch(r"test_\w+", test) and f"def {test}(" not in tests and f"{test}.py" not in files),
        )
        wrong += [token] * any(lost)
    assert wrong == []
    text = path.read_text("utf-8")
    assert [
        name for name in sorted(names) if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text)
    ] == []


def resolves(dotted):
    """Whether a dotted name leads to something, modules first."""
    parts = dotted.split(".")
    parts = parts[1:] if parts[0] in ("fm", "fathometer") else parts
    parts = ["fathometer", *parts]
    for cut in range(len(parts), 0, -1):
        try:
            found = import_module(".".join(parts[:cut]))
        except ImportError:
            continue
        for part in parts[cut:]:
            annotated = getattr(found, "__annotations__", {})
            if part in annotated or part in getattr(found, "__dataclass_fields__", {}):
                return True
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


@pytest.mark.parametrize("path", COVERAGE, ids=lambda path: path.stem)
def test_every_function_that_a_coverage_table_names_resolves(path):
    rooms = "fm|fathometer|spectra|sharpness|stein|symmetry|approximation|linalg|model"
    dotted = {m for t in tokens(path) for m in re.findall(rf"^(?:{rooms})(?:\.[A-Za-z_]\w*)+", t)}
    assert [name for name in sorted(dotted) if not resolves(name)] == []


def test_every_item_stands_in_a_coverage_table():
    own = {path.stem for path in COVERAGE}
    text = "".join(path.read_text("utf-8") for path in COVERAGE)
    beyond = [key for key, entry in entries().items() if entry.paper not in own]
    assert [key for key in beyond if key not in text] == []
