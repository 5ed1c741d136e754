"""The report of a survey as one HTML file.

Plain data in, a page out (see `drawing.page` for what keeps it safe).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fathometer.drawing.page import figure, render, table
from fathometer.survey.vocabulary import Section, Skipped

_TEMPLATE = Path(__file__).parent / "template.html"


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
    return render(
        _TEMPLATE,
        manifest or {},
        title=title,
        subtitle=subtitle,
        sections=[_section(section) for section in sections],
        skipped=skipped,
    )


def _section(section: Section) -> dict[str, Any]:
    return {
        "name": section.name,
        "title": section.title,
        "question": section.question,
        "verdict": section.verdict,
        "facts": section.facts,
        "figures": [figure(p, f"{section.name}-{i}") for i, p in enumerate(section.drawn())],
        "tables": [table(t.title, t.rows, t.notes) for t in section.tables],
        "notes": section.notes,
    }
