"""Where everything of a panel goes: margins first, then the plot, then the scales.

Titles and legends stand above the plot and color bars beside it, so nothing ever
covers the data. The space for tick labels is measured before the plot gets its size.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np

from fathometer.drawing.picture import Axis, Band, Bars, Graph, HeatMap, Line, Mark, Panel, Points
from fathometer.drawing.scales import Scaling, Tick, limits, ticks, warp
from fathometer.drawing.texts import width, wrap
from fathometer.drawing.theme import COLORS

LINE = 15.0
SMALL = 11.0
COLOR_BAR = 12.0


@dataclass(frozen=True)
class Entry:
    """One entry of a legend: what it looks like and what it means."""

    shape: str
    color: int
    dash: str
    label: str


@dataclass(frozen=True)
class Look:
    """How a mark is drawn: palette color, dash, and its place among the marks of its kind."""

    color: int
    dash: str
    rank: int


@dataclass(frozen=True)
class Label:
    """A tick with its label broken into lines; ``turned`` ones are read along a slope."""

    tick: Tick
    lines: tuple[str, ...]
    turned: bool = False


@dataclass(frozen=True)
class Margins:
    """Space around the plot, in pixels."""

    top: float
    right: float
    bottom: float
    left: float


@dataclass(frozen=True)
class Layout:
    """A panel with every place decided.

    Attributes:
        panel: What is drawn.
        margins: Around the plot.
        x, y: The axes in pixels of the panel; y grows downward.
        x_labels, y_labels: Ticks.
        title, x_title, y_title: Texts in lines.
        legend: Rows of entries.
        width, height: Of the whole panel.
    """

    panel: Panel
    margins: Margins
    x: Scaling
    y: Scaling
    x_labels: tuple[Label, ...]
    y_labels: tuple[Label, ...]
    title: tuple[str, ...]
    x_title: tuple[str, ...]
    y_title: tuple[str, ...]
    legend: tuple[tuple[Entry, ...], ...]
    width: float
    height: float

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the plot."""
        across, down = sorted((self.x.start, self.x.end)), sorted((self.y.start, self.y.end))
        return across[0], down[0], across[1], down[1]


def looks(panel: Panel, dashes: tuple[str, ...]) -> list[Look]:
    """Color, dash and rank of every mark: asked-for colors stay, the others take the next free one."""
    asked = {
        mark.color
        for mark in panel.marks
        if isinstance(mark, Line | Points | Bars | Band) and mark.color is not None
    }
    free = [c for c in range(COLORS) if c not in asked] or list(range(COLORS))
    found: list[Look] = []
    taken = 0
    patterns: set[int] = set()
    ranks: dict[type, int] = {}
    for mark in panel.marks:
        color, dash = 0, ""
        if isinstance(mark, Line | Points | Bars | Band):
            if mark.color is None:
                color, taken = free[taken % len(free)], taken + 1
            else:
                color = mark.color % COLORS
        if isinstance(mark, Line) and (mark.label or mark.dash):
            pattern = next(i for i in count(int(mark.dash)) if i not in patterns)
            patterns.add(pattern)
            dash = dashes[pattern % len(dashes)]
        rank = ranks.get(type(mark), 0)
        ranks[type(mark)] = rank + 1
        found.append(Look(color, dash, rank))
    return found


def legend(panel: Panel, found: list[Look], room: float) -> tuple[tuple[Entry, ...], ...]:
    """Entries of all labeled marks, in rows no wider than ``room``."""
    entries: list[Entry] = []
    for mark, look in zip(panel.marks, found, strict=True):
        entries += _entries(mark, look)
    rows: list[list[Entry]] = []
    used = math.inf
    for entry in entries:
        need = entry_width(entry)
        if used + need > room:
            rows.append([])
            used = 0.0
        rows[-1].append(entry)
        used += need
    return tuple(tuple(row) for row in rows)


def entry_width(entry: Entry) -> float:
    """Width of one legend entry with the gap behind it."""
    return 28.0 + width(entry.label, SMALL) + 14.0


def _entries(mark: Mark, look: Look) -> list[Entry]:
    if isinstance(mark, Graph):
        return [Entry("line", i % COLORS, edge_dash(i), text) for i, text in enumerate(mark.edge_legend)]
    if not isinstance(mark, Line | Points | Bars | Band) or not mark.label:
        return []
    if isinstance(mark, Points):
        shape = mark.marker
    elif isinstance(mark, Bars):
        shape = "bar" if look.rank == 0 else "outline"
    else:
        shape = "line" if isinstance(mark, Line) else "band"
    return [Entry(shape, look.color, look.dash, mark.label)]


def edge_dash(kind: int) -> str:
    """Dash of the edges of one color."""
    return ("", "5 3", "2 2.5", "8 3 2 3")[kind % 4]


def _x_labels(axis: Axis, low: float, high: float, room: float) -> list[Label]:
    """Tick labels that do not touch: fewer numbers, wrapped or turned names."""
    if axis.scale == "category" and axis.categories:
        return _names_below(axis, low, high, room)
    wanted = max(2, int(room / 62))
    found = ticks(axis, low, high, wanted)
    while wanted > 2 and not _apart(found, Scaling(axis, low, high, 0, room)):
        wanted -= 1
        found = ticks(axis, low, high, wanted)
    return [Label(tick, (tick.label,) if tick.label else ()) for tick in found]


def _apart(found: list[Tick], scale: Scaling) -> bool:
    named = [t for t in found if t.label]
    middle = scale(np.array([t.value for t in named])) if named else np.empty(0)
    half = np.array([width(t.label, SMALL) / 2 for t in named])
    order = np.argsort(middle)
    middle, half = middle[order], half[order]
    return bool((np.diff(middle) > half[1:] + half[:-1] + 6).all())


def _names_below(axis: Axis, low: float, high: float, room: float) -> list[Label]:
    found = ticks(axis, low, high, 1)
    slot = room / max(abs(high - low), 1e-9)
    if all(all(width(word, SMALL) <= slot - 6 for word in t.label.split()) for t in found):
        lines = [tuple(wrap(t.label, slot - 6, SMALL)) for t in found]
        return [Label(t, text) for t, text in zip(found, lines, strict=True)]
    every = max(1, math.ceil(14 / slot))
    return [
        Label(t, tuple(wrap(t.label, 120, SMALL, lines=1)) if i % every == 0 else (), turned=True)
        for i, t in enumerate(found)
    ]


def _y_labels(axis: Axis, low: float, high: float, room: float, widest: float) -> list[Label]:
    if axis.scale == "category" and axis.categories:
        found = ticks(axis, low, high, 1)
        slot = room / max(abs(high - low), 1e-9)
        every = max(1, math.ceil(13 / slot))
        fit = max(1, min(2, int(slot / 14)))
        return [
            Label(t, tuple(wrap(t.label, widest, SMALL, lines=fit)) if i % every == 0 else ())
            for i, t in enumerate(found)
        ]
    wanted = max(2, int(room / 38))
    found = ticks(axis, low, high, wanted)
    while wanted > 2 and not _spread(found, Scaling(axis, low, high, 0, room)):
        wanted -= 1
        found = ticks(axis, low, high, wanted)
    return [Label(t, (t.label,) if t.label else ()) for t in found]


def _spread(found: list[Tick], scale: Scaling) -> bool:
    spots = np.sort(scale(np.array([t.value for t in found if t.label])))
    return bool((np.diff(spots) > 15).all())


def below(labels: Sequence[Label]) -> float:
    """Height of the tick labels under the plot."""
    turned = [width(text, SMALL) for label in labels if label.turned for text in label.lines]
    if turned:
        return 10 + 0.62 * max(turned) + 8
    return 8 + 13.0 * max((len(label.lines) for label in labels), default=0)


def _has_bar(panel: Panel) -> HeatMap | None:
    return next((m for m in panel.marks if isinstance(m, HeatMap) and m.scale != "category"), None)


def color_bar(panel: Panel) -> tuple[HeatMap, list[Tick], float, float] | None:
    """The heat map whose colors need a bar, with ticks and the ends of the bar."""
    from fathometer.drawing.raster import color_range

    field = _has_bar(panel)
    if field is None:
        return None
    low, high = color_range(field)
    axis = Axis(scale="log" if field.scale == "log" else "linear")
    return field, ticks(axis, low, high, 5), low, high


def measure(panel: Panel, across: float, down: float, rows: tuple[tuple[Entry, ...], ...]) -> Margins:
    """Space that titles, legend, tick labels and color bar of a panel need."""
    (x0, x1), (y0, y1) = limits(panel)
    top = LINE * len(wrap(panel.title, across - 8, 13.0, lines=2)) + 17.0 * len(rows) + (14 if rows else 10)
    if not panel.frame:
        return Margins(top, 6, 8, 6)
    y_texts = _y_labels(panel.y, y0, y1, down, 0.32 * across)
    left = max((width(line, SMALL) for label in y_texts for line in label.lines), default=0.0) + 12
    left += LINE * len(wrap(panel.y.label, down, lines=2)) + (8 if panel.y.label else 0)
    right = 14.0
    bar = color_bar(panel)
    if bar is not None:
        right = 16 + COLOR_BAR + 6 + max((width(t.label, SMALL) for t in bar[1]), default=0.0) + 4
        right += LINE * len(wrap(bar[0].label, down, SMALL, lines=2)) + 3
    texts = _x_labels(panel.x, x0, x1, across - left - right)
    bottom = below(texts) + LINE * len(wrap(panel.x.label, across - left, lines=2)) + 8
    if any(label.turned for label in texts):
        first = next(label for label in texts if label.lines)
        left = max(left, 0.78 * width(first.lines[0], SMALL) - 10)
    elif texts and texts[-1].lines:
        right = max(right, width(texts[-1].lines[0], SMALL) / 2 + 4)
    return Margins(top, right, bottom, left)


def plot_size(panel: Panel, across: float, down: float) -> tuple[float, float]:
    """Size of the plot inside the room; with equal units the largest that fits."""
    if not panel.equal:
        return across, down
    (x0, x1), (y0, y1) = limits(panel)
    flat_x, flat_y = warp(panel.x, np.array([x0, x1])), warp(panel.y, np.array([y0, y1]))
    dx, dy = float(abs(flat_x[1] - flat_x[0])), float(abs(flat_y[1] - flat_y[0]))
    unit = min(across / dx, down / dy)
    return max(unit * dx, 24.0), max(unit * dy, 24.0)


def arrange(
    panel: Panel,
    found: list[Look],
    across: float,
    down: float,
    room: Margins,
    rows: tuple[tuple[Entry, ...], ...],
) -> Layout:
    """Place a panel of width ``across`` whose plot is at most ``down`` high, inside the margins ``room``."""
    wide, high = plot_size(panel, across - room.left - room.right, down)
    (x0, x1), (y0, y1) = limits(panel)
    left = room.left + (across - room.left - room.right - wide) / 2 if panel.equal else room.left
    x_ends, y_ends = (left, left + wide), (room.top + high, room.top)
    x = Scaling(panel.x, x0, x1, *(x_ends[::-1] if panel.x.reverse else x_ends))
    y = Scaling(panel.y, y0, y1, *(y_ends[::-1] if panel.y.reverse else y_ends))
    framed = panel.frame
    return Layout(
        panel=panel,
        margins=room,
        x=x,
        y=y,
        x_labels=tuple(_x_labels(panel.x, x0, x1, wide)) if framed else (),
        y_labels=tuple(_y_labels(panel.y, y0, y1, high, 0.32 * across)) if framed else (),
        title=tuple(wrap(panel.title, across - 8, 13.0, lines=2)),
        x_title=tuple(wrap(panel.x.label, across - room.left, lines=2)) if framed else (),
        y_title=tuple(wrap(panel.y.label, max(high, 120.0), lines=2)) if framed else (),
        legend=rows,
        width=across,
        height=room.top + down + room.bottom if not panel.equal else room.top + high + room.bottom,
    )
