"""The outcomes of the papers' items as one HTML page, and as Markdown for the documentation."""

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from fathometer.drawing import to_svg
from fathometer.drawing.page import figure, render, shown, table
from fathometer.drawing.texts import clean
from fathometer.papers.catalog import entries
from fathometer.papers.run import Reproduction

_TEMPLATE = Path(__file__).parent / "gallery.html"
_NAMES = {
    "pennington_bahri_2017": "Pennington & Bahri 2017: Geometry of Neural Network Loss Surfaces via "
    "Random Matrix Theory",
    "dinh_2017": "Dinh, Pascanu, Bengio & Bengio 2017: Sharp Minima Can Generalize For Deep Nets",
    "gorham_mackey_2015": "Gorham & Mackey 2015: Measuring Sample Quality with Stein's Method",
    "gorham_mackey_2017": "Gorham & Mackey 2017: Measuring Sample Quality with Kernels",
    "ravanbakhsh_2017": "Ravanbakhsh, Schneider & Poczos 2017: Equivariance Through Parameter-Sharing",
    "liang_srikant_2017": "Liang & Srikant 2017: Why Deep Neural Networks for Function Approximation?",
    "generalization": "Beyond the papers: which measure of sharpness orders the generalization gap?",
}
_ROWS = 200


def gallery(outcomes: Sequence[Reproduction]) -> str:
    """One self-contained HTML page: every item with its claims, pictures and numbers."""
    papers = [
        {
            "name": name,
            "title": title_of(name),
            "verdict": verdict(group),
            "entries": [_item(one) for one in group],
        }
        for name, group in by_paper(outcomes)
    ]
    return render(_TEMPLATE, manifest(outcomes), summary=verdict(outcomes), papers=papers)


def title_of(paper: str) -> str:
    """Authors, year and title of a paper, from the name of its module."""
    return _NAMES.get(paper, paper.replace("_", " "))


def verdict(outcomes: Sequence[Reproduction]) -> str:
    """How many items passed, and how many claims hold, in one sentence."""
    claims = [check for one in outcomes for check in one.checks]
    held, passed = sum(check.passed for check in claims), sum(one.passed for one in outcomes)
    return f"{passed} of {len(outcomes)} items pass; {held} of {len(claims)} claims hold."


def by_paper(outcomes: Sequence[Reproduction]) -> list[tuple[str, list[Reproduction]]]:
    """Outcomes of each paper, papers in the order of the instruments."""
    place = {name: i for i, name in enumerate(_NAMES)}
    ordered = sorted(outcomes, key=lambda one: (place.get(one.paper, len(place)), one.paper))
    return [(name, list(group)) for name, group in groupby(ordered, key=lambda one: one.paper)]


def manifest(outcomes: Sequence[Reproduction]) -> dict[str, Any]:
    """How the numbers were made: of the last outcome, and the time of all."""
    total = round(sum(one.seconds for one in outcomes) / 60, 1)
    sizes = {"published" if one.full else "default" for one in outcomes}
    head = {
        "sizes": ", ".join(sorted(sizes)),
        "seeds": sorted({one.seed for one in outcomes}),
        "minutes": total,
    }
    return head | (dict(outcomes[-1].machine) if outcomes else {})


def _item(one: Reproduction) -> dict[str, Any]:
    name = f"{one.paper}-{one.name}{'-full' if one.full else ''}".replace(".", "-")
    return {
        "id": name,
        "key": one.key,
        "name": one.name,
        "title": f"{one.title} (published size)" if one.full else one.title,
        "badge": "exact" if one.passed else "estimate",
        "verdict": _verdict(one),
        "cost": f"{one.seconds:.1f} s, {'published' if one.full else 'default'} size, seed {one.seed}",
        "explanation": paragraphs(one.explanation),
        "failure": one.failure,
        "warned": one.warned,
        "claims": table("Claims", [_claim(check) for check in one.checks]),
        "figures": [figure(picture, f"{name}-{i}") for i, picture in enumerate(one.drawn())],
        "table": one.table and table(one.table.title, one.table.rows[:_ROWS], _notes(one)),
    }


def _verdict(one: Reproduction) -> str:
    return "passed" if one.passed else "broken" if one.failure else "not passed"


def _claim(check: Any) -> Mapping[str, Any]:
    return {
        "claim": check.claim,
        "published": check.published,
        "found here": check.found,
        "holds": check.passed,
        "note": check.note,
    }


def _notes(one: Reproduction) -> tuple[str, ...]:
    if one.table is None:
        return ()
    cut = f"The first {_ROWS} of {len(one.table)} rows." if len(one.table) > _ROWS else ""
    return tuple(note for note in (*one.table.notes, cut) if note)


def paragraphs(docstring: str) -> list[str]:
    """The paragraphs of a docstring in running text, without its list of arguments."""
    text = inspect.cleandoc(docstring).split("\nArgs:")[0].replace("`", "")
    return [" ".join(part.split()) for part in text.split("\n\n") if part.strip()]


def write_markdown(outcomes: Sequence[Reproduction], folder: Path) -> list[Path]:
    """One Markdown page a paper with its pictures as SVG files beside it, and an index.

    Outcomes at the published size stand as a line with their item, and are remembered in
    ``published.json`` beside the pages: a later run at the default size keeps the line. Pages
    show default sizes: where no outcome is of one, those that stand are left as they are.

    Returns:
        The pages, the index first; none if no outcome is of the default size.
    """
    folder.mkdir(parents=True, exist_ok=True)
    known = folder / "published.json"
    large = json.loads(known.read_text("utf-8")) if known.exists() else {}
    large |= {one.key: _summary(one) for one in outcomes if one.full}
    known.write_text(json.dumps(large, indent=1, sort_keys=True) + "\n", "utf-8")
    default = [one for one in outcomes if not one.full]
    if not default:
        return []
    lines = ["# Gallery: the papers, rebuilt", "", _INTRODUCTION.format(verdict=verdict(default)), ""]
    lines += ["| paper | items that pass | claims that hold | at the published size |", "|---|---|---|---|"]
    pages = [folder / "index.md"]
    for name, group in by_paper(default):
        checks = [check.passed for one in group for check in one.checks]
        passed = f"{sum(one.passed for one in group)} of {len(group)}"
        ran = _ran(name, large)
        lines.append(f"| [{title_of(name)}]({name}.md) | {passed} | {sum(checks)} of {len(checks)} | {ran} |")
        pages.append(folder / f"{name}.md")
        pages[-1].write_text(_paper_page(name, group, folder, large), "utf-8")
    pages[0].write_text("\n".join(lines) + "\n", "utf-8")
    return pages


def _summary(one: Reproduction) -> dict[str, Any]:
    """What is remembered of a run at the published size."""
    held = sum(check.passed for check in one.checks)
    missed = "; ".join(
        [check.claim for check in one.checks if not check.passed] + [one.failure] * bool(one.failure)
    )
    return {
        "verdict": _verdict(one),
        "held": held,
        "claims": len(one.checks),
        "seconds": round(one.seconds, 1),
        "missed": missed,
    }


def _ran(paper: str, large: Mapping[str, Any]) -> str:
    """How many of a paper's items that have a larger published size passed at it."""
    keys = [key for key, entry in entries().items() if entry.paper == paper and entry.larger]
    ran = [large[key] for key in keys if key in large]
    if not ran:
        return "not run" if keys else "the same"
    passed = sum(one["verdict"] == "passed" for one in ran)
    return f"{passed} of {len(ran)} pass" + (
        f", {len(keys) - len(ran)} not run" if len(ran) < len(keys) else ""
    )


def _at_published_size(key: str, large: Mapping[str, Any]) -> str:
    if key in large:
        one = large[key]
        missed = f" Not: {_text(one['missed'])}." if one["missed"] else ""
        return (
            f"At the published size: **{one['verdict']}**, {one['held']} of {one['claims']} claims hold, "
            f"{one['seconds']:.0f} s.{missed}"
        )
    entry = entries().get(key)
    return "At the published size: not run." if entry and entry.larger else ""


_INTRODUCTION = """\
Written by `fathometer reproduce all`; do not edit. Every item is a function in `fathometer.papers` that
rebuilds one figure, table, theorem or experiment from public names, states what was published and what was
found, and passes or not. {verdict} Where a claim does not hold, its note says why. Default sizes take
seconds; the last column tells how the items came out that have a larger published size (`--full`)."""


def _paper_page(name: str, group: Sequence[Reproduction], folder: Path, large: Mapping[str, Any]) -> str:
    lines = [f"# {title_of(name)}", "", verdict(group), "", f"    fathometer reproduce {name}", ""]
    for one in group:
        lines += [
            f"## {_text(one.title)}",
            "",
            f"`{one.key}` · **{_verdict(one)}** · {one.seconds:.1f} s",
            "",
        ]
        lines += [f"{_text(paragraph)}\n" for paragraph in paragraphs(one.explanation)]
        lines += [f"{said}\n"] if (said := _at_published_size(one.key, large)) else []
        if one.failure:
            lines += [f"It did not run to its end. {_text(one.failure)}", ""]
        lines += ["| claim | published | found here | holds | note |", "|---|---|---|---|---|"]
        lines += [
            f"| {' | '.join(_text(shown(value)) for value in _claim(check).values())} |"
            for check in one.checks
        ]
        lines += ["", *(f"Warned: {_text(text)}\n" for text in one.warned)]
        for number, picture in enumerate(one.drawn()):
            path = folder / name / f"{one.name}-{number}.svg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(to_svg(picture), "utf-8")
            alternative = _text(picture.title).replace("[", "").replace("]", "")
            lines += [f"![{alternative}]({name}/{path.name})", "", f"*{_text(picture.caption)}*", ""]
    return "\n".join(lines).rstrip() + "\n"


def _text(text: str) -> str:
    """Text that Markdown and HTML show as it is, in one line."""
    line = " ".join(clean(text).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]|#$])", r"\\\1", line)
