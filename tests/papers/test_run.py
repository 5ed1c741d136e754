"""Running items: what fails is recorded, what is done is kept, the page shows texts as texts."""

import dataclasses
import re
import warnings
from html.parser import HTMLParser

import numpy as np
import pytest

import fathometer as fm
from fathometer.drawing import Line, Panel, Picture
from fathometer.papers import Item, Outcome, check
from fathometer.papers import run as running
from fathometer.papers.catalog import Entry
from fathometer.papers.gallery import gallery, write_markdown
from fathometer.papers.item import ITEMS
from fathometer.results import Row, Table

HOSTILE = (
    "</script><script>alert(1)</script><img src=x onerror=alert(1)>\u202e\x00 | `*_[x](javascript:alert(1))"
)


def picture(title="a line"):
    line = Line(x=np.arange(3.0), y=np.arange(3.0), label=title)
    return Picture(title=title, caption=title, panels=(Panel(marks=(line,)),))


@pytest.fixture
def enter(monkeypatch):
    """Put a function into the register as an item of the paper "toy"."""

    def enter(name, run, title="a toy"):
        item = Item(paper="toy", name=name, title=title, seconds=1, run=run)
        monkeypatch.setitem(ITEMS, item.key, item)
        return Entry(paper="toy", name=name, title=title, seconds=1.0, module="fathometer.papers.item")

    return enter


def good(*, full=False, seed=0):
    """Section 1. It holds.

    A second paragraph.
    """
    rows = (Row(n=1, value=0.5), Row(n=2, value=np.float64(0.25)))
    return Outcome(
        checks=(check("one is one", 1.0, 1.0, True, note=f"seed {seed}"),),
        table=Table(title="numbers", rows=rows),
        pictures=(picture(),),
    )


def wrong(*, full=False, seed=0):
    """Section 2. It does not hold."""
    return Outcome(checks=(check("one is two", 2.0, 1.0, False), check("fine", "a", "a", True)))


def broken(*, full=False, seed=0):
    """Section 3. It raises."""
    raise ZeroDivisionError("of\nthis kind")


def test_the_verdict_of_an_item(enter):
    assert (one := running.run_item(enter("good", good), seed=3)).passed
    assert (one.value, one.checks[0].note) == ("1 of 1 claims hold", "seed 3")
    assert str(one).startswith("pass  toy:good  1 of 1 claims hold")
    two = running.run_item(enter("wrong", wrong))
    assert (two.passed, two.value) == (False, "1 of 2 claims hold; not: one is two")
    three = running.run_item(enter("broken", broken))
    assert (three.passed, three.value) == (False, "broken: ZeroDivisionError: of this kind")


def test_an_item_without_a_claim_or_with_numbers_that_cannot_be_kept_is_broken(enter):
    empty = running.run_item(enter("empty", lambda *, full, seed: Outcome(checks=())))
    assert empty.value == "broken: it states no claim"
    rows = (Row(x=object()),)

    def odd(*, full, seed):
        return Outcome(checks=(check("a", 1, 1, True),), table=Table(title="t", rows=rows))

    assert "broken: InputError" in running.run_item(enter("odd", odd)).value


def test_what_an_item_was_warned_of_is_recorded_once(enter, recwarn):
    def warned(*, full=False, seed=0):
        for _ in range(2):
            warnings.warn("no theorem\n here", fm.TheoryWarning, stacklevel=1)
        return good(full=full, seed=seed)

    one = running.run_item(enter("warned", warned))
    assert one.warned == ("no theorem here",) and one.passed and not recwarn
    assert "Warned: no theorem here" in gallery([one])


def test_an_outcome_is_the_same_on_disk(enter, tmp_path):
    one = running.run_item(enter("good", good))
    path = running.save(one, tmp_path)
    assert path == tmp_path / "toy" / "good.safetensors"
    (back,) = running.saved(tmp_path)
    assert (back.key, back.value, back.table.rows[1].value) == (one.key, one.value, 0.25)
    np.testing.assert_array_equal(back.drawn()[0].panels[0].marks[0].x, [0, 1, 2])


def test_a_folder_with_another_result_is_refused(tmp_path):
    (tmp_path / "toy").mkdir()
    fm.Estimate(value=1.0, kind="exact", error=0.0).save(tmp_path / "toy" / "x.safetensors")
    with pytest.raises(fm.InputError, match="holds a Estimate, not the outcome of an item"):
        running.saved(tmp_path)


def test_a_stopped_run_goes_on_and_a_finished_item_is_not_run_again(enter, tmp_path):
    calls = []

    def counted(*, full=False, seed=0):
        calls.append("counted")
        return good(full=full, seed=seed)

    def stopped(*, full=False, seed=0):
        calls.append("stopped")
        if calls.count("stopped") == 1:
            raise KeyboardInterrupt
        return good(full=full, seed=seed)

    items = [enter("counted", counted), enter("stopped", stopped)]
    told = []
    with pytest.raises(KeyboardInterrupt):
        running.reproduce(items, run_dir=tmp_path, each=lambda one: told.append(one.key))
    assert told == ["toy:counted"]
    seen = []
    outcomes = running.reproduce(
        items,
        run_dir=tmp_path,
        each=lambda one: seen.append(one.key),
        progress=lambda done, total, what: seen.append((done, total, what)),
    )
    assert calls == ["counted", "stopped", "stopped"]
    assert [one.passed for one in outcomes] == [True, True]
    assert seen == [(0, 2, "toy:stopped"), "toy:stopped", "toy:counted"]
    with pytest.raises(fm.InputError, match="holds another run"):
        running.reproduce(items, run_dir=tmp_path, seed=1)


class Reader(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.elements = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))


def outcomes(enter):
    def hostile(*, full=False, seed=0):
        table = Table(title=HOSTILE, rows=(Row(a=HOSTILE),))
        checks = (check(HOSTILE, HOSTILE, HOSTILE, False, note=HOSTILE),)
        return Outcome(checks=checks, table=table, pictures=(picture(HOSTILE),))

    hostile.__doc__ = HOSTILE

    def failing(*, full=False, seed=0):
        raise ValueError(HOSTILE)

    items = [enter("good", good), enter("hostile", hostile, HOSTILE), enter("failing", failing, HOSTILE)]
    return [running.run_item(item) for item in items]


def test_the_page_shows_everything_and_runs_nothing_foreign(enter):
    page = gallery(outcomes(enter))
    assert "1 of 3 items pass; 1 of 2 claims hold." in page
    assert "Section 1. It holds." in page and "A second paragraph." in page
    elements = Reader(page).elements
    assert [tag for tag, _ in elements].count("script") == 2
    assert not any(tag in ("img", "iframe", "object") for tag, _ in elements)
    for _, attrs in elements:
        assert not [name for name in attrs if name.startswith("on") or name in ("style", "src")]
        assert attrs.get("href", "#").startswith(("#", "data:"))
    ids = [attrs["id"] for _, attrs in elements if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_the_markdown_pages_show_texts_as_texts(enter, tmp_path):
    index, page = write_markdown(outcomes(enter), tmp_path)
    assert "| [toy](toy.md) | 1 of 3 | 1 of 2 | the same |" in index.read_text()
    text = page.read_text()
    assert "<script" not in text and "<img" not in text
    assert not re.search(r"(?<!\\)\[x\]", text)
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)
    assert pictures == ["toy/good-0.svg", "toy/hostile-0.svg"]
    for name in pictures:
        assert (tmp_path / name).read_text().startswith("<svg")
    rows = [line for line in text.splitlines() if line.startswith("| ") and "claim" not in line]
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 6 for row in rows)


def test_runs_at_the_published_size_stand_beside_the_others_and_are_remembered(enter, tmp_path, monkeypatch):
    def sized(*, full=False, seed=0):
        return Outcome(checks=(check("small", 1.0, 1.0, True), check("still | true", 1.0, 2.0, not full)))

    entry = dataclasses.replace(enter("sized", sized), larger=True)
    other = dataclasses.replace(enter("other", sized), larger=True)
    monkeypatch.setattr("fathometer.papers.gallery.entries", lambda: {e.key: e for e in (entry, other)})
    for one, full in ((entry, False), (entry, True), (other, False)):
        running.save(running.run_item(one, full=full), tmp_path)
    found = running.saved(tmp_path)
    assert [(one.name, one.full) for one in found] == [("other", False), ("sized", False), ("sized", True)]
    assert "toy-sized-full" in gallery(found) and "a toy (published size)" in gallery(found)
    index, page = write_markdown(found, tmp_path / "md")
    assert "| [toy](toy.md) | 2 of 2 | 4 of 4 | 0 of 1 pass, 1 not run |" in index.read_text()
    said = r"At the published size: **not passed**, 1 of 2 claims hold, 0 s. Not: still \| true."
    assert said in page.read_text() and "At the published size: not run." in page.read_text()
    stood = index.read_text("utf-8")
    assert write_markdown([one for one in found if one.full], tmp_path / "md") == []
    assert index.read_text("utf-8") == stood  # was emptied to "0 of 0 items pass"
    write_markdown([one for one in found if not one.full], tmp_path / "md")
    assert said in page.read_text(), "a later run at the default size keeps the line"


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_silent_and_accessible_in_a_browser(browser, enter, tmp_path, scheme):
    from pathlib import Path

    import axe_playwright_python

    file = tmp_path / "index.html"
    file.write_text(gallery(outcomes(enter)), "utf-8")
    page = browser.new_context(color_scheme=scheme, bypass_csp=True).new_page()
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true })")
    axe = Path(axe_playwright_python.__file__).parent / "axe.min.js"
    page.evaluate(axe.read_text("utf-8"))
    found = page.evaluate("axe.run({resultTypes: ['violations']})")
    assert [(v["id"], v["nodes"][0]["html"]) for v in found["violations"]] == []
    assert said == [] and [url for url in asked if not url.startswith("data:")] == [file.as_uri()]
    page.context.close()
