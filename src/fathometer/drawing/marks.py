"""Every mark as SVG, inside a panel whose places are decided.

Elements carry classes, never style attributes: a page may forbid inline styles. Points
that are too many for elements of their own become one path of round dots, and lines
that are finer than the pixels are thinned to their extremes in each half pixel.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from fathometer.drawing.layout import Layout, Look, edge_dash
from fathometer.drawing.picture import Band, Bars, Graph, HeatMap, Line, Note, Points, Rule
from fathometer.drawing.raster import color_range, colors, contour, palette, png, shown, shrink
from fathometer.drawing.scales import numbers
from fathometer.drawing.texts import escape, pixel, tag, width
from fathometer.drawing.theme import COLORS, on_color

MANY_POINTS = 600
MANY_CELLS = 2000
_FAR = 1e5  # pixels; farther out is clipped anyway and would only cost digits


def path(points: np.ndarray) -> str:
    """Path data of points (k, 2) in pixels; rows that are not finite break it, repeats are dropped."""
    finite = np.asarray(np.isfinite(points).all(axis=1))
    parts: list[str] = []
    for run in np.split(np.arange(len(points)), np.flatnonzero(np.diff(finite)) + 1):
        if not len(run) or not finite[run[0]]:
            continue
        spots = [f"{pixel(x)},{pixel(y)}" for x, y in np.clip(points[run], -_FAR, _FAR).tolist()]
        kept = [spots[0], *(b for a, b in pairwise(spots) if a != b)]
        # a point alone is a dot: a line of no length with round ends
        parts.append(f"M{kept[0]}" + (f"L{' '.join(kept[1:])}" if len(kept) > 1 else "h0"))
    return "".join(parts)


def thin(points: np.ndarray) -> np.ndarray:
    """First, lowest, highest and last point of every half pixel column, in order."""
    if len(points) < 1500 or not np.isfinite(points).all() or (np.diff(points[:, 0]) < 0).any():
        return points
    column = np.floor(points[:, 0] * 2).astype(np.int64)
    starts = np.flatnonzero(np.diff(column, prepend=column[0] - 1))
    keep: set[int] = set()
    for start, stop in zip(starts, np.append(starts[1:], len(points)), strict=True):
        y = points[start:stop, 1]
        keep |= {int(start), int(start + y.argmin()), int(start + y.argmax()), int(stop - 1)}
    return points[sorted(keep)]


def line(mark: Line, look: Look, at: Layout) -> str:
    """A polyline."""
    x, y = at.x(numbers(mark.x).ravel()), at.y(numbers(mark.y).ravel())
    if mark.step and len(x):
        x, y = np.repeat(x, 2)[1:], np.repeat(y, 2)[:-1]
    points = thin(np.column_stack([x, y]))
    return tag("path", class_=f"fm-line fm-s{look.color}", d=path(points), stroke_dasharray=look.dash or None)


def marker(shape: str, x: float, y: float, color: int, size: float = 3.6, title: str = "") -> str:
    """One point in one of the five shapes; ``title`` is shown on hover."""
    content = tag("title", escape(title)) if title else None
    if shape == "dot":
        return tag("circle", content, class_=f"fm-f{color}", cx=x, cy=y, r=size)
    if shape == "ring":
        return tag("circle", content, class_=f"fm-ring fm-s{color}", cx=x, cy=y, r=size)
    if shape == "square":
        side = 1.8 * size
        return tag(
            "rect", content, class_=f"fm-f{color}", x=x - side / 2, y=y - side / 2, width=side, height=side
        )
    if shape == "triangle":
        corners = [(x, y - 1.3 * size), (x + 1.2 * size, y + 0.9 * size), (x - 1.2 * size, y + 0.9 * size)]
        return tag("path", content, class_=f"fm-f{color}", d=path(np.array(corners)) + "Z")
    arm = size
    d = f"M{pixel(x - arm)},{pixel(y - arm)}L{pixel(x + arm)},{pixel(y + arm)}"
    d += f"M{pixel(x - arm)},{pixel(y + arm)}L{pixel(x + arm)},{pixel(y - arm)}"
    return tag("path", content, class_=f"fm-cross fm-s{color}", d=d)


def points(mark: Points, look: Look, at: Layout) -> str:
    """Markers with error bars; one path of dots where they are very many."""
    data_x, data_y = numbers(mark.x).ravel(), numbers(mark.y).ravel()
    x, y = at.x(data_x), at.y(data_y)
    good = np.isfinite(x) & np.isfinite(y)
    parts: list[str] = []
    if mark.error is not None:
        error = np.broadcast_to(numbers(mark.error), data_y.shape)
        parts.append(_error_bars(x, data_y, error, good & (error > 0), look, at))
    if good.sum() > MANY_POINTS:
        spots = np.unique(np.round(np.column_stack([x, y])[good] * 2) / 2, axis=0)
        d = "".join(f"M{pixel(a)},{pixel(b)}h0" for a, b in spots.tolist())
        return "".join(parts) + tag("path", class_=f"fm-dots fm-s{look.color}", d=d)
    size = 3.6 if good.sum() <= 120 else 2.6
    for i in np.flatnonzero(good).tolist():
        title = mark.texts[i] if i < len(mark.texts) else ""
        parts.append(marker(mark.marker, x[i], y[i], look.color, size, title))
    return "".join(parts)


def _error_bars(
    x: np.ndarray, y: np.ndarray, error: np.ndarray, good: np.ndarray, look: Look, at: Layout
) -> str:
    _, top, _, bottom = at.box
    d = []
    for i in np.flatnonzero(good & np.isfinite(error)).tolist():
        ends = at.y(np.array([y[i] - error[i], y[i] + error[i]]))
        # below zero on a logarithmic axis: the bar runs to the edge of the plot
        low, high = (bottom if math.isnan(ends[0]) else ends[0]), (top if math.isnan(ends[1]) else ends[1])
        d.append(f"M{pixel(x[i])},{pixel(low)}L{pixel(x[i])},{pixel(high)}")
        d += [f"M{pixel(x[i] - 3)},{pixel(end)}h6" for end in (low, high)]
    return tag("path", class_=f"fm-error fm-s{look.color}", d="".join(d)) if d else ""


def bars(mark: Bars, look: Look, at: Layout) -> str:
    """Bars from zero (the lower edge on a logarithmic axis); later series are outlines."""
    edges, heights = at.x(numbers(mark.edges)), numbers(mark.heights)
    base = at.y.start if at.panel.y.scale == "log" else at.y.one(0.0)
    tops = at.y(heights)
    if look.rank:
        return _outline(edges, np.where(np.isfinite(tops), tops, base), base, look)
    gap = 0.0 if len(heights) > 40 else min(2.0, 0.12 * abs(edges[-1] - edges[0]) / max(len(heights), 1))
    if at.panel.x.scale == "category":
        gap = 0.24 * abs(edges[1] - edges[0])
    shape = f"fm-bar fm-f{look.color} fm-s{look.color}"
    boxes = []
    for i in np.flatnonzero(np.isfinite(tops)).tolist():
        left, right = sorted((edges[i], edges[i + 1]))
        box = (left + gap / 2, min(tops[i], base), max(right - left - gap, 0.5), abs(tops[i] - base))
        boxes.append((i, box))
    if len(boxes) > 200 and not mark.texts:
        d = "".join(f"M{pixel(a)},{pixel(b)}h{pixel(w)}v{pixel(h)}h{pixel(-w)}Z" for _, (a, b, w, h) in boxes)
        return tag("path", class_=shape, d=d)
    parts = []
    for i, (a, b, w, h) in boxes:
        content = tag("title", escape(mark.texts[i])) if i < len(mark.texts) and mark.texts[i] else None
        parts.append(tag("rect", content, class_=shape, x=a, y=b, width=w, height=h))
    return "".join(parts)


def _outline(edges: np.ndarray, tops: np.ndarray, base: float, look: Look) -> str:
    x = np.repeat(edges, 2)
    y = np.concatenate([[base], np.repeat(tops, 2), [base]])
    dash = edge_dash(look.rank)
    return tag(
        "path",
        class_=f"fm-line fm-s{look.color}",
        d=path(np.column_stack([x, y])),
        stroke_dasharray=dash or None,
    )


def band(mark: Band, look: Look, at: Layout) -> str:
    """A filled region; where an end is missing the region is interrupted."""
    x, low, high = at.x(numbers(mark.x)), at.y(numbers(mark.lower)), at.y(numbers(mark.upper))
    good = np.isfinite(x) & np.isfinite(low) & np.isfinite(high)
    d = ""
    for run in np.split(np.arange(len(x)), np.flatnonzero(np.diff(good)) + 1):
        if len(run) and good[run[0]]:
            there = np.column_stack([x[run], high[run]])
            back = np.column_stack([x[run], low[run]])[::-1]
            d += path(np.concatenate([there, back])) + "Z"
    return tag("path", class_=f"fm-band fm-f{look.color}", d=d)


def heat_map(mark: HeatMap, look: Look, at: Layout) -> str:
    """Cells as rectangles when few, as a PNG when many; contour lines on top."""
    del look
    x, y = at.x(np.array(mark.x_range)), at.y(np.array(mark.y_range))
    values = numbers(mark.values)
    rows, columns = values.shape
    field = _image(mark, x, y) if rows * columns > MANY_CELLS else _cells(mark, x, y)
    return field + "".join(_contours(mark, x, y))


def _image(mark: HeatMap, x: np.ndarray, y: np.ndarray) -> str:
    pixels = colors(mark, shrink(mark))
    if y[0] > y[1]:
        pixels = pixels[::-1]
    if x[0] > x[1]:
        pixels = pixels[:, ::-1]
    return tag(
        "image",
        class_="fm-field",
        x=float(x.min()),
        y=float(y.min()),
        width=float(np.ptp(x)),
        height=float(np.ptp(y)),
        preserveAspectRatio="none",
        href=png(pixels),
    )


def _cells(mark: HeatMap, x: np.ndarray, y: np.ndarray) -> str:
    values, painted, good = numbers(mark.values), colors(mark), shown(mark)
    rows, columns = values.shape
    across, down = np.linspace(x[0], x[1], columns + 1), np.linspace(y[0], y[1], rows + 1)
    wide, high = abs(across[1] - across[0]), abs(down[1] - down[0])
    # the same color is one path: fewer bytes, and no seams between neighbors
    boxes: dict[str, list[str]] = {}
    names: list[str] = []
    for i, j in np.argwhere(good).tolist():
        color = "#{:02x}{:02x}{:02x}".format(*painted[i, j, :3])
        left, top = min(across[j], across[j + 1]), min(down[i], down[i + 1])
        boxes.setdefault(color, []).append(
            f"M{pixel(left)},{pixel(top)}h{pixel(wide)}v{pixel(high)}h{pixel(-wide)}Z"
        )
        if mark.scale == "category":
            text = str(int(values[i, j]))
            if width(text, 10) + 2 < wide and high > 11:
                spot = {"x": float(left + wide / 2), "y": float(top + high / 2 + 3.5)}
                names.append(
                    tag("text", text, fill=on_color(color), text_anchor="middle", class_="fm-in", **spot)
                )
    body = "".join(tag("path", fill=color, d="".join(d)) for color, d in boxes.items())
    return tag("g", body, class_="fm-cells") + (tag("g", "".join(names), font_size="10") if names else "")


def _contours(mark: HeatMap, x: np.ndarray, y: np.ndarray) -> list[str]:
    values = numbers(mark.values)
    rows, columns = values.shape
    low, high = color_range(mark)
    parts = []
    for level in mark.contours:
        share = np.clip((level - low) / (high - low), 0, 1)
        ground = palette(mark)[round(float(share) * (len(palette(mark)) - 1))]
        d = ""
        for chain in contour(values, level):
            across = x[0] + (chain[:, 0] + 0.5) / columns * (x[1] - x[0])
            down = y[0] + (chain[:, 1] + 0.5) / rows * (y[1] - y[0])
            d += path(np.column_stack([across, down]))
        if d:
            parts.append(tag("path", fill="none", stroke=on_color(ground), stroke_opacity="0.75", d=d))
    return parts


def graph(mark: Graph, look: Look, at: Layout) -> str:
    """Edges, then nodes, then their names; a loop is a small circle above its node."""
    del look
    positions = numbers(mark.positions).reshape(-1, 2)
    spots = np.column_stack([at.x(positions[:, 0]), at.y(positions[:, 1])])
    inside = all(width(label, 10) <= 15 for label in mark.labels) and len(spots) <= 60
    radius = (10.0 if inside and any(mark.labels) else 5.0) if len(spots) <= 60 else 3.0
    edges = numbers(mark.edges).reshape(-1, 2).astype(int)
    kinds = np.zeros(len(edges), int) if mark.edge_colors is None else numbers(mark.edge_colors).astype(int)
    parts = [
        _edge(spots, pair, int(kind), radius, mark.arrows) for pair, kind in zip(edges, kinds, strict=True)
    ]
    colored = np.zeros(len(spots), int) if mark.node_colors is None else numbers(mark.node_colors).astype(int)
    for i, (x, y) in enumerate(spots.tolist()):
        parts.append(tag("circle", class_=f"fm-ring fm-s{colored[i] % COLORS}", cx=x, cy=y, r=radius))
    for (x, y), label in zip(spots.tolist(), mark.labels, strict=False):
        if inside:
            parts.append(tag("text", escape(label), x=x, y=y + 3.6, text_anchor="middle", font_size="10"))
        elif label:
            parts.append(tag("text", escape(label), class_="fm-small fm-halo", x=x + radius + 3, y=y + 4))
    return "".join(parts)


def _edge(spots: np.ndarray, pair: Any, kind: int, radius: float, arrow: bool) -> str:
    shape = {"class_": f"fm-line fm-s{kind % COLORS}", "stroke_dasharray": edge_dash(kind) or None}
    one, other = spots[pair[0]], spots[pair[1]]
    length = float(np.hypot(*(other - one)))
    if length < 1e-9:
        return tag("circle", cx=float(one[0]), cy=float(one[1] - radius - 6), r=6.0, **shape)
    along = (other - one) / length
    start, end = one + along * radius, other - along * (radius + (6.0 if arrow else 0.0))
    drawn = tag("path", d=path(np.array([start, end])), **shape)
    if arrow:
        aside = np.array([-along[1], along[0]]) * 3.6
        head = np.array([other - along * radius, end + aside, end - aside])
        drawn += tag("path", class_=f"fm-f{kind % COLORS}", d=path(head) + "Z")
    return drawn


def rule(mark: Rule, look: Look, at: Layout) -> str:
    """A reference line across the plot; its name is placed by `names`."""
    del look
    left, top, right, bottom = at.box
    d = ""
    if mark.x is not None and math.isfinite(x := at.x.one(mark.x)):
        d += f"M{pixel(x)},{pixel(top)}V{pixel(bottom)}"
    if mark.y is not None and math.isfinite(y := at.y.one(mark.y)):
        d += f"M{pixel(left)},{pixel(y)}H{pixel(right)}"
    return tag("path", class_="fm-rule", d=d, stroke_dasharray="4 3" if mark.dash else None) if d else ""


def names(at: Layout) -> str:
    """The texts of rules and notes, inside the plot, apart from each other and off the data if possible."""
    _, top, right, bottom = at.box
    busy = _data_spots(at)
    taken: list[tuple[float, float, float]] = []
    parts = []
    for mark in at.panel.marks:
        text = mark.text if isinstance(mark, Note) else mark.label if isinstance(mark, Rule) else ""
        wide = width(text, 11)
        places = _places(mark, wide, at) if text else []
        if not places:
            continue
        x, y = min(places, key=lambda place: _crowd(place, wide, busy, taken))
        x = max(at.box[0] + 2, min(x, right - wide - 2))
        y = min(max(y, top + 11), bottom - 4)
        taken.append((x, y, wide))
        parts.append(tag("text", escape(text), class_="fm-small fm-halo", x=float(x), y=float(y)))
    return "".join(parts)


def _places(mark: Any, wide: float, at: Layout) -> list[tuple[float, float]]:
    """Where the text of a rule or note may stand (left end and baseline), the first choice first."""
    left, top, right, bottom = at.box
    if isinstance(mark, Note):
        x, y = at.x.one(mark.x), at.y.one(mark.y)
        found = [(x + a, y + b) for b in (-7, 17, 4, -20, 30) for a in (6, -wide - 6)]
    elif mark.x is not None:
        x = at.x.one(mark.x)
        found = [(x + a, y) for y in (*range(int(top) + 12, int(bottom), 14),) for a in (5, -wide - 5)]
    else:
        y = at.y.one(mark.y)
        found = [
            (x, y + b) for b in (-5, 14) for x in (right - wide - 4, left + 5, (left + right - wide) / 2)
        ]
    found = [(x, y) for x, y in found if math.isfinite(x) and math.isfinite(y)]
    inside = [(x, y) for x, y in found if x >= left and x + wide <= right and top + 9 <= y <= bottom - 2]
    return inside or found


def _crowd(
    place: tuple[float, float], wide: float, busy: np.ndarray, taken: list[tuple[float, float, float]]
) -> int:
    """How much a text at ``place`` would cover: data points, and other texts a hundredfold."""
    x, y = place
    under = (busy[:, 0] > x - 4) & (busy[:, 0] < x + wide + 4) & (busy[:, 1] > y - 13) & (busy[:, 1] < y + 5)
    texts = sum(abs(y - b) < 13 and x < a + w + 4 and a < x + wide + 4 for a, b, w in taken)
    return int(under.sum()) + 100 * texts


def _data_spots(at: Layout) -> np.ndarray:
    """Pixels (k, 2) of the points of a panel, and of its lines between them."""
    spots = [np.empty((0, 2))]
    for mark in at.panel.marks:
        if isinstance(mark, Line | Points):
            found = np.column_stack([at.x(numbers(mark.x).ravel()), at.y(numbers(mark.y).ravel())])
            found = found[np.isfinite(found).all(axis=1)]
            spots.append(found)
            if isinstance(mark, Line) and len(found) > 1:
                share = np.linspace(0, 1, 8, endpoint=False)[:, None, None]
                spots.append((found[:-1] + share * np.diff(found, axis=0)).reshape(-1, 2))
    return np.concatenate(spots)


DRAW: dict[type, Callable[[Any, Look, Layout], str]] = {
    Line: line,
    Points: points,
    Bars: bars,
    Band: band,
    HeatMap: heat_map,
    Graph: graph,
    Rule: rule,
    Note: lambda mark, look, at: "",
}
