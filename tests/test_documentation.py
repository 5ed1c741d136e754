"""The pages keep to the code: names resolve, links lead somewhere, blocks are found."""

import importlib.util
import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WRITTEN = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [p for p in WRITTEN if not {"gallery", "reference", "benchmarks"} & set(p.relative_to(ROOT).parts)]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


@pytest.fixture(scope="module")
def execute():
    spec = importlib.util.spec_from_file_location("execute", ROOT / "docs" / "execute.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def unresolved(name):
    """Whether ``fm.room.thing`` leads nowhere."""
    found = import_module("fathometer")
    for part in name.split(".")[1:]:
        if not hasattr(found, part):
            return True
        found = getattr(found, part)
    return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_name_of_the_package_on_a_page_resolves(page):
    names = set(re.findall(r"\bfm(?:\.[A-Za-z_]\w*)+", page.read_text("utf-8")))
    assert [name for name in sorted(names) if unresolved(name)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_to_one(page):
    made = {"benchmarks.md", "reference"}  # written when the site is built
    links = [
        link for link in LINK.findall(page.read_text("utf-8")) if not link.startswith(("http", "mailto"))
    ]
    lost = [link for link in links if not (page.parent / link).exists() and not made & set(Path(link).parts)]
    assert lost == []


def test_blocks_keep_their_lines_and_may_be_left_out(execute, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A\n\n```python\nx = 1\n```\n\n<!-- not run: why -->\n```python\n1 / 0\n```\n\n"
        "```python\nprint(x)\n```\n"
    )
    lines = execute.program(page).split("\n")
    assert (lines[3], lines[12]) == ("x = 1", "print(x)")
    assert "1 / 0" not in lines


def test_output_that_a_page_shows_must_have_been_printed(execute, tmp_path):
    page = tmp_path / "page.md"
    code = "```python\nprint('energy', 0.123456, 'of', 3)\nprint('one line (exact), and more')\n```\n"
    page.write_text(code + "```text\nenergy 1.2e-07 of 12\none line (exact), ...\n```\n")
    assert execute.run(page)[0] == ""
    page.write_text(code + "```text\nenergy 0.12 for 3\none line\n```\n")
    assert execute.run(page)[0] == "it does not print: energy 0.12 for 3\nit does not print: one line"


def test_a_block_that_fails_is_shown(execute, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\nprint(undefined)\n```\n")
    report, _ = execute.run(page)
    assert "NameError" in report and "line 2" in report


@pytest.mark.parametrize("room", sorted(path.parent.name for path in (ROOT / "tests").glob("*/TRAPS.md")))
def test_every_trap_names_tests_that_are_there(room):
    rows = (ROOT / "tests" / room / "TRAPS.md").read_text("utf-8").splitlines()
    rows = [row for row in rows if row.startswith("|") and not set(row) <= set("|-: ")][1:]
    assert rows
    lost = []
    for row in rows:
        named = re.findall(r"([\w/]+\.py)::(test_\w+)", row)
        lost += [] if named or "not used: " in row else [f"neither a test nor 'not used: why': {row[:60]}"]
        for file, test in named:
            places = [p for p in (ROOT / "tests").rglob(Path(file).name) if str(p).endswith(file)]
            if not any(re.search(rf"^def {test}\(", p.read_text("utf-8"), re.MULTILINE) for p in places):
                lost.append(f"{file}::{test}")
    assert lost == []
