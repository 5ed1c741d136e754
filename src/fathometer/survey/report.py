"""A report as one HTML file that asks for nothing and runs nothing foreign.

Plain data in, a page out. Every string of a model, a label or a file is text: Jinja
escapes it, control and direction marks are replaced, and a content security policy
admits exactly one style sheet and one script, by their hashes. Pictures are SVG drawn
here; the numbers behind each stand in a table that opens below it.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from fathometer.drawing import Picture, data_table, to_svgs
from fathometer.drawing.svg import omission
from fathometer.drawing.tables import left_out
from fathometer.drawing.texts import clean, number
from fathometer.drawing.theme import DARK, LIGHT, style, variables
from fathometer.results import Table
from fathometer.survey.vocabulary import Section, Skipped

_HERE = Path(__file__).parent
_ROWS = 48


def build_report(
    sections: Sequence[Section],
    *,
    title: str,
    subtitle: str = "",
    skipped: Sequence[Skipped] = (),
    manifest: Mapping[str, Any] | None = None,
) -> str:
    """The whole page.

    Args:
        sections: In reading order.
        title: The heading; usually the name of the network.
        subtitle: One line below it.
        skipped: What could not be measured and why.
        manifest: How the numbers were made; embedded as JSON and offered for download.

    Returns:
        HTML. The same arguments give the same bytes.
    """
    sheet, script = _sheet(), _script()
    policy = (
        f"default-src 'none'; style-src {_hash(sheet)}; script-src {_hash(script)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    return (
        _environment()
        .get_template("template.html")
        .render(
            policy=policy,
            sheet=sheet,
            script=script,
            title=title,
            subtitle=subtitle,
            sections=[_section(section) for section in sections],
            skipped=skipped,
            manifest=list(_flat(manifest or {})),
            manifest_json=_embedded(manifest or {}),
        )
    )


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: clean(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = shown
    environment.filters["sortable"] = _sortable
    return environment


@cache
def _sheet() -> str:
    dark = variables(DARK)
    theme = (
        f":root{{color-scheme:light;{variables(LIGHT)}}}"
        f"@media (prefers-color-scheme:dark){{:root:not([data-theme=light]){{color-scheme:dark;{dark}}}}}"
        f":root[data-theme=dark]{{color-scheme:dark;{dark}}}"
    )
    return theme + style() + _HERE.joinpath("style.css").read_text("utf-8")


@cache
def _script() -> str:
    return _HERE.joinpath("script.js").read_text("utf-8")


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
    return f"'sha256-{digest}'"


def _embedded(data: Any) -> str:
    """JSON that cannot end the element it stands in."""
    text = json.dumps(data, default=str, indent=1, sort_keys=True)
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def _flat(data: Mapping[str, Any], prefix: str = "") -> Any:
    for key, value in data.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key} · ")
        else:
            yield f"{prefix}{key}".replace("_", " "), shown(value)


def _section(section: Section) -> dict[str, Any]:
    return {
        "name": section.name,
        "title": section.title,
        "question": section.question,
        "verdict": section.verdict,
        "facts": section.facts,
        "figures": [_figure(p, f"{section.name}-{i}") for i, p in enumerate(section.drawn())],
        "tables": [_table(table) for table in section.tables],
        "notes": section.notes,
    }


def _figure(picture: Picture, name: str) -> dict[str, Any]:
    header, rows = data_table(picture)
    lost = left_out(picture)
    note = ""
    if len(rows) > _ROWS:
        note = f"{_ROWS} of {len(rows)} rows, evenly spaced."
        rows = [rows[round(i)] for i in np.linspace(0, len(rows) - 1, _ROWS).tolist()]
    return {
        "title": picture.title,
        "caption": picture.caption + (f" {omission(lost)}" if lost else ""),
        "svgs": to_svgs(picture, name=name),
        "wide": len(picture.panels) == 1,
        "table": {"title": picture.title, "columns": header, "rows": rows, "notes": (note,) if note else ()},
    }


def _table(table: Table) -> dict[str, Any]:
    return {
        "title": table.title,
        "columns": table.columns,
        "rows": [tuple(row.values()) for row in table.rows],
        "notes": table.notes,
    }


def shown(value: Any) -> str:
    """A value as a reader wants it: four digits, words for yes and no, a dash for nothing."""
    if hasattr(value, "shape"):
        if value.ndim:
            return f"array of {' × '.join(str(n) for n in value.shape)}"
        value = value.item()
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u202f").replace("-", "−")
    if isinstance(value, float):
        return number(value)
    if isinstance(value, tuple | list):
        return ", ".join(shown(v) for v in value)
    return str(value)


def _sortable(value: Any) -> str | None:
    """The number behind a cell, for sorting; None for texts."""
    if hasattr(value, "ndim") and value.ndim == 0:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return repr(float(value))
