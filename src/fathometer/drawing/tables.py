"""The numbers behind a picture, for readers who do not see it, and what is not drawn.

Rows come in the order of the marks. Columns that no mark fills are left out.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from fathometer.drawing.picture import (
    Axis,
    Band,
    Bars,
    Graph,
    HeatMap,
    Line,
    Mark,
    Note,
    Panel,
    Picture,
    Points,
    Rule,
)
from fathometer.drawing.raster import shown
from fathometer.drawing.scales import drawable, numbers

_COLUMNS = ("panel", "series", "from", "to", "x", "y", "error", "lower", "upper", "value", "text")


def data_table(picture: Picture) -> tuple[tuple[str, ...], tuple[tuple[Any, ...], ...]]:
    """The table of a picture, as ``(header, rows)``: its own, or one made from its marks.

    Cells are numbers, texts, or None where a column does not apply.
    """
    if picture.table is not None:
        return picture.table
    records = [
        {"panel": panel.title or str(place + 1), "series": _name(mark), **record}
        for place, panel in enumerate(picture.panels)
        for mark in panel.marks
        for record in _records(mark, panel)
    ]
    used = [
        column
        for column in _COLUMNS
        if any(record.get(column) not in (None, "") for record in records)
        and not (column == "panel" and len(picture.panels) == 1)
    ]
    names = {"x": _shared(picture, "x"), "y": _shared(picture, "y")}
    header = tuple(names.get(column, column) for column in used)
    return header, tuple(tuple(record.get(column) for column in used) for record in records)


def left_out(picture: Picture) -> int:
    """How many values are not drawn: not finite, or not positive on a logarithmic scale.

    A point of a line whose x and y are both NaN is a break that was asked for, and not counted.
    """
    return sum(_missing(mark, panel) for panel in picture.panels for mark in panel.marks)


def _missing(mark: Mark, panel: Panel) -> int:
    if isinstance(mark, Line | Points):
        x, y = numbers(mark.x), numbers(mark.y)
        lost = ~(drawable(panel.x, x) & drawable(panel.y, y))
        lost &= ~(np.isnan(x) & np.isnan(y) & isinstance(mark, Line))
        return int(lost.sum())
    if isinstance(mark, Bars):
        heights = numbers(mark.heights)
        empty = (heights == 0) & (panel.y.scale == "log")
        return int((~drawable(panel.y, heights) & ~empty).sum())
    if isinstance(mark, Band):
        ends = drawable(panel.y, mark.lower) & drawable(panel.y, mark.upper)
        return int((~(ends & drawable(panel.x, mark.x))).sum())
    if isinstance(mark, HeatMap):
        blank = (numbers(mark.values) == -1) & (mark.scale == "category")
        return int((~shown(mark) & ~blank).sum())
    return 0


def _name(mark: Mark) -> str:
    if isinstance(mark, Graph | Note):
        return ""
    return mark.label or ("reference" if isinstance(mark, Rule) else "")


def _shared(picture: Picture, side: str) -> str:
    """The label of an axis if all panels have the same, else its letter."""
    labels = {getattr(panel, side).label for panel in picture.panels}
    label = labels.pop() if len(labels) == 1 else ""
    return label or side


def _place(axis: Axis, value: float) -> Any:
    """A position: the name on a category axis, else the number."""
    if axis.categories and float(value).is_integer() and 0 <= value < len(axis.categories):
        return axis.categories[int(value)]
    return float(value)


def _records(mark: Mark, panel: Panel) -> Iterator[dict[str, Any]]:
    if isinstance(mark, Line | Points):
        yield from _point_records(mark, panel)
    elif isinstance(mark, Bars):
        yield from _bar_records(mark, panel)
    elif isinstance(mark, Band):
        for x, low, high in zip(numbers(mark.x), numbers(mark.lower), numbers(mark.upper), strict=True):
            yield {"x": _place(panel.x, x), "lower": float(low), "upper": float(high)}
    elif isinstance(mark, HeatMap):
        yield from _cell_records(mark, panel)
    elif isinstance(mark, Graph):
        yield from _edge_records(mark)
    elif isinstance(mark, Rule):
        yield {"x": mark.x, "y": mark.y}
    else:
        yield {"x": mark.x, "y": mark.y, "text": mark.text}


def _point_records(mark: Line | Points, panel: Panel) -> Iterator[dict[str, Any]]:
    x, y = numbers(mark.x).ravel(), numbers(mark.y).ravel()
    points = isinstance(mark, Points)
    error = np.broadcast_to(numbers(mark.error), x.shape) if points and mark.error is not None else None
    texts = mark.texts if points else ()
    for i in range(len(x)):
        if np.isnan(x[i]) and np.isnan(y[i]):
            continue
        yield {
            "x": _place(panel.x, x[i]),
            "y": _place(panel.y, y[i]),
            "error": None if error is None else float(error[i]),
            "text": texts[i] if i < len(texts) else None,
        }


def _bar_records(mark: Bars, panel: Panel) -> Iterator[dict[str, Any]]:
    edges, heights = numbers(mark.edges), numbers(mark.heights)
    for i, height in enumerate(heights):
        if panel.x.categories:
            yield {"x": _place(panel.x, (edges[i] + edges[i + 1]) / 2), "y": float(height)}
        else:
            yield {"from": float(edges[i]), "to": float(edges[i + 1]), "y": float(height)}


def _edge_records(mark: Graph) -> Iterator[dict[str, Any]]:
    names = [*mark.labels, *(str(i) for i in range(len(mark.labels), len(numbers(mark.positions))))]
    kinds = [] if mark.edge_colors is None else [int(c) for c in numbers(mark.edge_colors)]
    for i, (one, other) in enumerate(numbers(mark.edges).reshape(-1, 2).astype(int)):
        legend = mark.edge_legend[kinds[i]] if kinds and kinds[i] < len(mark.edge_legend) else ""
        yield {"from": names[one], "to": names[other], "text": legend}


def _cell_records(mark: HeatMap, panel: Panel) -> Iterator[dict[str, Any]]:
    values = numbers(mark.values)
    rows, columns = values.shape
    across = np.linspace(*mark.x_range, columns + 1)
    down = np.linspace(*mark.y_range, rows + 1)
    for i in range(rows):
        for j in range(columns):
            yield {
                "x": _place(panel.x, (across[j] + across[j + 1]) / 2),
                "y": _place(panel.y, (down[i] + down[i + 1]) / 2),
                "value": float(values[i, j]),
            }
