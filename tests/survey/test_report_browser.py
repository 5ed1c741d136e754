"""The report in a real browser: silent, alone, usable by keyboard, readable by everyone."""

from pathlib import Path

import axe_playwright_python
import pytest

import fathometer as fm

from .reports import PAYLOADS, realistic
from .test_survey import regression

pytestmark = pytest.mark.browser
AXE = Path(axe_playwright_python.__file__).parent / "axe.min.js"
# marks that the page replaces: controls, direction marks, lone surrogates
REPLACED = dict.fromkeys([0, *range(0xD800, 0xE000), *range(0x202A, 0x202F)], "\ufffd")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Files of the reports, each built once."""
    files = {}

    def get(name, build):
        if name not in files:
            files[name] = tmp_path_factory.mktemp("report") / "report.html"
            files[name].write_text(build(), encoding="utf-8")
        return files[name]

    return get


def surveyed():
    """The report of a real, small survey with a hostile name."""
    model, loss, data = regression()
    return fm.survey(model, loss, data, out=None, name=PAYLOADS[1]).report()


REPORTS = {"made-up": realistic, "surveyed": surveyed}


def open_page(browser, file, **options):
    """The page with a record of everything it said, asked for and tried."""
    page = browser.new_context(**options).new_page()
    page.said, page.asked, page.tried = [], [], []
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("dialog", lambda dialog: (page.tried.append(dialog.message), dialog.dismiss()))
    page.goto(file.as_uri())
    return page


@pytest.mark.parametrize("name", REPORTS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_report_is_silent_and_asks_for_itself_only(browser, made, name, scheme):
    page = open_page(browser, made(name, REPORTS[name]), color_scheme=scheme)
    page.mouse.wheel(0, 20_000)
    assert page.said == [] and page.tried == []
    assert [url for url in page.asked if not url.startswith("data:")] == [made(name, REPORTS[name]).as_uri()]
    page.context.close()


@pytest.mark.parametrize("name", REPORTS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(browser, made, name, scheme):
    page = open_page(browser, made(name, REPORTS[name]), color_scheme=scheme, bypass_csp=True)
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true })")
    page.evaluate(AXE.read_text("utf-8"))
    found = page.evaluate("axe.run({resultTypes: ['violations']})")
    assert len(found["passes"]) > 15  # that many rules had something to judge
    assert [
        (v["id"], v["nodes"][0]["html"], v["nodes"][0]["failureSummary"]) for v in found["violations"]
    ] == []
    page.context.close()


@pytest.mark.parametrize("name", REPORTS)
@pytest.mark.parametrize("width", [400, 1000])
def test_nothing_runs_over_the_side(browser, made, name, width):
    page = open_page(browser, made(name, REPORTS[name]), viewport={"width": width, "height": 800})
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.context.close()


@pytest.mark.parametrize("first", range(0, len(PAYLOADS), 9))
def test_hostile_strings_are_texts(browser, tmp_path, first):
    payloads = PAYLOADS[first : first + 9]
    file = tmp_path / "report.html"
    file.write_text(realistic(name=payloads[0], texts=payloads), encoding="utf-8")
    page = open_page(browser, file)
    page.mouse.move(300, 400)
    shown = page.evaluate("[...document.querySelectorAll('h2')].map((h) => h.lastChild.textContent.trim())")
    expected = [f"Part {i} {text.translate(REPLACED)}".strip() for i, text in enumerate(payloads)]
    assert shown[: len(payloads)] == expected
    assert page.tried == [] and page.said == []
    assert page.evaluate("document.scripts.length") == 2
    assert page.evaluate("document.querySelectorAll('iframe,object,embed,form,img,base').length") == 0
    page.context.close()


def test_the_theme_follows_the_system_and_the_button(browser, made):
    page = open_page(browser, made("made-up", realistic), color_scheme="dark")
    paper = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(paper)
    page.focus("#theme")
    page.keyboard.press("Enter")
    light = page.evaluate(paper)
    assert (dark, light) == ("rgb(20, 25, 31)", "rgb(255, 255, 255)")
    assert page.text_content("#theme") == "Dark page"
    page.keyboard.press("Space")
    assert page.evaluate(paper) == dark
    page.context.close()


def test_tables_are_sorted_by_keyboard(browser, made):
    page = open_page(browser, made("made-up", realistic))
    rows = "[...document.querySelector('table.sorts').tBodies[0].rows]"
    column = f"{rows}.map((row) => Number(row.cells[1].dataset.v))"
    page.focus("table.sorts th:nth-child(2) button")
    page.keyboard.press("Enter")
    assert page.evaluate(column)[:3] == [1e-9, 3.5, 200.0]
    assert page.get_attribute("table.sorts th:nth-child(2)", "aria-sort") == "ascending"
    page.keyboard.press("Enter")
    assert page.evaluate(column)[:3] == [200.0, 3.5, 1e-9]  # what is not a number stays last
    page.context.close()


def test_everything_is_reached_with_the_tab_key_and_seen_when_reached(browser, made):
    page = open_page(browser, made("made-up", realistic))
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    seen = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        name, outline = page.evaluate(
            "[document.activeElement.tagName, getComputedStyle(document.activeElement).outlineStyle]"
        )
        if name == "BODY":  # the end of the page
            break
        seen.add(name)
        assert outline == "solid", name
    assert {"DIV", "SUMMARY", "BUTTON"} <= seen
    page.keyboard.press("Shift+Tab")
    page.focus("summary >> nth=0")
    page.keyboard.press("Enter")
    assert page.evaluate("document.querySelector('details').open")
    page.context.close()


def test_the_pointer_reads_the_data(browser, made):
    page = open_page(browser, made("made-up", realistic))
    plot = page.locator("svg .fm-plot").first
    plot.scroll_into_view_if_needed()
    box, scale = plot.bounding_box(), plot.get_attribute("data-x").split()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    text = page.locator(".readout").first.text_content()
    x = float(text.split("x = ")[1].split(",")[0])
    assert x == pytest.approx((float(scale[1]) + float(scale[2])) / 2, abs=0.1)
    page.context.close()


def test_the_manifest_can_be_saved(browser, made):
    page = open_page(browser, made("made-up", realistic))
    with page.expect_download() as download:
        page.click("#save")
    assert '"seed": 0' in Path(download.value.path()).read_text("utf-8")
    assert page.said == []
    page.context.close()


def test_a_printed_page_shows_every_number(browser, made):
    page = open_page(browser, made("made-up", realistic))
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("[...document.querySelectorAll('details')].every((d) => d.open)")
    page.context.close()
