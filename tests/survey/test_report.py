"""The report as a text: one file, its policy, its size, its vocabulary on disk."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from fathometer import load
from fathometer.drawing.page import shown
from fathometer.errors import InputError
from fathometer.survey.report import build_report
from fathometer.survey.vocabulary import Fact, Section, Skipped, records

from .reports import PAYLOADS, pictures, realistic


class Reader(HTMLParser):
    """Elements with their attributes, and the raw text of scripts and styles."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.raw, self.inside = [], [], False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.inside = tag in ("script", "style")
        if self.inside:
            self.raw.append([tag, dict(attrs), ""])

    def handle_data(self, data):
        if self.inside:
            self.raw[-1][2] += data

    def handle_endtag(self, tag):
        self.inside = False


def test_the_policy_admits_exactly_the_one_style_and_the_one_script():
    reader = Reader(realistic())
    policy = next(
        a["content"] for t, a in reader.elements if a.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none';")
    hashes = re.findall(r"'sha256-([^']+)'", policy)
    active = [text for tag, attrs, text in reader.raw if attrs.get("type") != "application/json"]
    assert [base64.b64encode(hashlib.sha256(t.encode()).digest()).decode() for t in active] == hashes
    assert len(hashes) == 2 and "unsafe" not in policy


def test_nothing_is_fetched_and_nothing_is_styled_or_scripted_inline():
    for text in ("measured", *PAYLOADS[::5]):
        for tag, attrs in Reader(realistic(name=text, texts=(text,))).elements:
            assert not [
                k for k in attrs if k.startswith("on") or k in ("style", "srcset", "action", "srcdoc")
            ], tag
            for key in ("src", "href"):
                assert attrs.get(key, "#").startswith(("#", "data:")), (tag, attrs)
            assert tag not in ("iframe", "object", "embed", "form", "base", "input", "img", "video")


def test_a_full_report_is_small():
    page = realistic(texts=("measured",) * 7)
    assert len(page.encode()) < 300_000
    script = next(t for tag, a, t in Reader(page).raw if tag == "script" and "type" not in a)
    assert len(script.encode()) < 6_000


def test_the_same_data_give_the_same_bytes():
    assert realistic() == realistic()


def test_headings_are_in_order_and_ids_are_unique():
    page = realistic()
    levels = [int(v) for v in re.findall(r"<h(\d)", page)]
    assert levels[0] == 1 and set(levels[1:]) == {2}
    ids = [a["id"] for _, a in Reader(page).elements if "id" in a]
    assert len(ids) == len(set(ids))


def test_the_manifest_comes_back_whole_from_the_page():
    manifest = {"seed": 0, "name": "</script><script>alert(1)</script>\u2028&", "deep": {"a": [1, 2]}}
    page = build_report([], title="t", manifest=manifest)
    text = next(t for tag, a, t in Reader(page).raw if a.get("type") == "application/json")
    assert json.loads(text) == manifest and "<" not in text and "\u2028" not in text


def test_numbers_carry_their_kind_and_their_error():
    page = realistic(texts=("measured",))
    assert 'badge estimate">estimate' in page and "± 0.25" in page and 'badge bound">bound' in page


def test_a_report_says_that_nothing_was_skipped_or_what_was():
    assert "Nothing was skipped" in build_report([], title="t")
    page = build_report([], title="t", skipped=(Skipped(what="sampling", reason="no data"),))
    assert "sampling" in page and "no data" in page and "Nothing was skipped" not in page


def test_a_report_is_the_same_when_built_from_saved_sections(tmp_path):
    fact = Fact(label="energy", value=0.5, kind="estimate", error=0.1)
    section = Section(
        name="a",
        title="A",
        question="Q?",
        verdict="V.",
        facts=(fact,),
        pictures=records(pictures()),
        seconds=1.5,
    )
    again = load(section.save(tmp_path / "a.safetensors"))
    assert build_report([again], title="t") == build_report([section], title="t")
    assert (
        again.kind == "estimate"
        and str(again) == "A: V."
        and str(again.facts[0]) == "energy: 0.5 +- 0.1 (estimate)"
    )


def test_a_section_has_the_weakest_kind_of_its_facts_and_a_plain_id():
    def section(*kinds, name="a"):
        facts = tuple(Fact(label="f", value=1.0, kind=k) for k in kinds)
        return Section(name=name, title="", question="", verdict="", facts=facts)

    assert [section(*k).kind for k in ((), ("exact",), ("exact", "bound"), ("bound", "estimate"))] == [
        "exact", "exact", "bound", "estimate",
    ]  # fmt: skip
    with pytest.raises(InputError, match="name is 'A b'; a section's id has lower-case"):
        section(name="A b")
    with pytest.raises(InputError, match="kind is 'guess'"):
        section("guess")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        ("", "–"),
        (True, "yes"),
        (12345, "12\u202f345"),
        (-2, "−2"),
        (0.25, "0.25"),
        ((1, "a"), "1, a"),
    ],
)
def test_cells_are_written_for_readers(value, text):
    assert shown(value) == text


def test_arrays_and_scalars_of_arrays_are_written_short():
    import numpy as np
    import torch

    assert shown(np.float64(0.5)) == "0.5" and shown(torch.tensor(3)) == "3"
    assert shown(np.zeros((2, 3))) == "array of 2 × 3"
