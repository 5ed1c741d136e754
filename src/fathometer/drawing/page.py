"""Pages that ask for nothing and run nothing foreign: what reports and galleries share.

Every string of a model, a label or a file is text: Jinja escapes it, control and direction
marks are replaced, and a content security policy admits exactly one style sheet and one
script, by their hashes. Pictures are SVG drawn here; the numbers behind each stand in a
table that opens below it.
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

from fathometer.drawing.picture import Picture
from fathometer.drawing.svg import omission, to_svgs
from fathometer.drawing.tables import data_table, left_out
from fathometer.drawing.texts import clean, number
from fathometer.drawing.theme import DARK, LIGHT, style, variables

_HERE = Path(__file__).parent
_ROWS = 48


def render(template: Path, manifest: Mapping[str, Any], **content: Any) -> str:
    """The page of a template; the same arguments give the same bytes.

    Args:
        template: A Jinja file that fills the blocks of ``frame.html`` with the macros of ``page.html``.
        manifest: How the numbers were made; embedded as JSON and offered for download.
        content: What the template shows.
    """
    sheet, script = _sheet(), _script()
    policy = (
        f"default-src 'none'; style-src {_hash(sheet)}; script-src {_hash(script)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    return (
        _environment(template.parent)
        .get_template(template.name)
        .render(
            policy=policy,
            sheet=sheet,
            script=script,
            manifest=list(_flat(manifest)),
            manifest_json=_embedded(manifest),
            **content,
        )
    )


def figure(picture: Picture, name: str) -> dict[str, Any]:
    """A picture and the numbers behind it, for the macro ``drawn``; ``name`` is unique on the page."""
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


def table(title: str, rows: Sequence[Mapping[str, Any]], notes: Sequence[str] = ()) -> dict[str, Any]:
    """Records with the same columns, for the macro ``grid``."""
    columns = tuple(rows[0]) if rows else ()
    return {"title": title, "columns": columns, "rows": [tuple(row.values()) for row in rows], "notes": notes}


@cache
def _environment(folder: Path) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, _HERE]),
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
    return theme + style() + _HERE.joinpath("page.css").read_text("utf-8")


@cache
def _script() -> str:
    return _HERE.joinpath("page.js").read_text("utf-8")


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
