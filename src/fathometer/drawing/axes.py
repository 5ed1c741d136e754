"""A picture drawn into matplotlib axes, for papers (the extra ``viz``).

matplotlib is imported when the first picture is drawn. No pyplot state is touched: a
new figure belongs to the caller alone.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from fathometer.drawing import layout
from fathometer.drawing.layout import Look, looks
from fathometer.drawing.picture import (
    Axis,
    Band,
    Bars,
    Graph,
    HeatMap,
    Line,
    Note,
    Panel,
    Picture,
    Points,
    Rule,
)
from fathometer.drawing.raster import color_range, palette, shown
from fathometer.drawing.scales import limits, numbers
from fathometer.drawing.theme import DASHES, LIGHT
from fathometer.errors import CapabilityError, InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = {"dot": "o", "ring": "o", "square": "s", "triangle": "^", "cross": "x"}


def draw(picture: Picture, ax: "Axes | None" = None) -> "Axes":
    """Draw ``picture`` and return the axes of its first panel (``.figure`` has the others).

    Args:
        picture: What to draw.
        ax: Axes of the caller, for a picture of one panel; a new figure if None.

    Raises:
        CapabilityError: If matplotlib is not installed.
        InputError: If several panels are to go into one ``ax``.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise CapabilityError(
            'plots need matplotlib, which is not installed; pip install "fathometer[viz]".'
        ) from None
    panels = picture.panels
    if ax is not None:
        if len(panels) > 1:
            raise InputError(f"ax is one axes, but the picture has {len(panels)} panels; leave ax out.")
        for panel in panels:
            _panel(panel, ax)
        return ax
    columns = max(1, min(picture.columns, len(panels)))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(6.4 if columns == 1 else 4.4 * columns, 3.8 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for place, panel in enumerate(panels, 1):
        _panel(panel, figure.add_subplot(rows, columns, place))
    figure.suptitle(_plain(picture.title))
    return figure.axes[0]


def _plain(text: str) -> str:
    """A text in which the dollar sign is a dollar sign, not the start of a formula."""
    return text.replace("$", r"\$")


def _panel(panel: Panel, ax: "Axes") -> None:
    _scale(panel.x, ax, "x")
    _scale(panel.y, ax, "y")
    for mark, look in zip(panel.marks, looks(panel, DASHES), strict=True):
        _DRAW[type(mark)](mark, look, panel, ax)
    x, y = limits(panel)
    ax.set_xlim(*(x[::-1] if panel.x.reverse else x))
    ax.set_ylim(*(y[::-1] if panel.y.reverse else y))
    ax.set(title=_plain(panel.title), xlabel=_plain(panel.x.label), ylabel=_plain(panel.y.label))
    if panel.equal:
        ax.set_aspect("equal")
    if not panel.frame:
        ax.set_axis_off()
    if ax.get_legend_handles_labels()[1]:
        ax.legend(frameon=False, fontsize="small")


def _scale(axis: Axis, ax: "Axes", side: str) -> None:
    put = ax.set_xscale if side == "x" else ax.set_yscale
    if axis.scale == "log":
        put("log")
    elif axis.scale == "signed_log":
        # one unit for the linear part and one for each decade, as in the SVG
        put("symlog", linthresh=axis.threshold, linscale=0.9)
    elif axis.scale == "category" and axis.categories:
        ticks = ax.set_xticks if side == "x" else ax.set_yticks
        turned = {"rotation": 35, "ha": "right"} if side == "x" and len(axis.categories) > 6 else {}
        ticks(range(len(axis.categories)), [_plain(c) for c in axis.categories], **cast(Any, turned))


def _color(number: int) -> str:
    return LIGHT[str(number % layout.COLORS)]


def _dashes(dash: str) -> Any:
    return (0, tuple(float(v) for v in dash.split())) if dash else "-"


def _line(mark: Line, look: Look, panel: Panel, ax: "Axes") -> None:
    style = "steps-post" if mark.step else "default"
    ax.plot(
        numbers(mark.x),
        numbers(mark.y),
        color=_color(look.color),
        linestyle=_dashes(look.dash),
        drawstyle=cast(Any, style),
        label=_plain(mark.label) or None,
    )


def _points(mark: Points, look: Look, panel: Panel, ax: "Axes") -> None:
    x, y = numbers(mark.x), numbers(mark.y)
    error = None if mark.error is None else np.nan_to_num(np.broadcast_to(numbers(mark.error), y.shape))
    ax.errorbar(
        x,
        y,
        yerr=error,
        fmt=_MARKERS[mark.marker],
        color=_color(look.color),
        markerfacecolor="white" if mark.marker == "ring" else _color(look.color),
        markersize=4,
        capsize=2,
        label=_plain(mark.label) or None,
    )


def _bars(mark: Bars, look: Look, panel: Panel, ax: "Axes") -> None:
    ax.stairs(
        numbers(mark.heights),
        numbers(mark.edges),
        fill=look.rank == 0,
        alpha=0.8 if look.rank == 0 else 1.0,
        color=_color(look.color),
        label=_plain(mark.label) or None,
    )


def _band(mark: Band, look: Look, panel: Panel, ax: "Axes") -> None:
    x, low, high = numbers(mark.x), numbers(mark.lower), numbers(mark.upper)
    ax.fill_between(
        x, low, high, color=_color(look.color), alpha=0.2, linewidth=0, label=_plain(mark.label) or None
    )


def _heat_map(mark: HeatMap, look: Look, panel: Panel, ax: "Axes") -> None:
    from matplotlib.colors import LinearSegmentedColormap, ListedColormap, LogNorm, Normalize

    values = np.where(shown(mark), numbers(mark.values), np.nan)
    rows, columns = values.shape
    across, down = np.linspace(*mark.x_range, columns + 1), np.linspace(*mark.y_range, rows + 1)
    low, high = color_range(mark)
    if mark.scale == "category":
        anchors = palette(mark)
        ax.pcolormesh(
            across,
            down,
            values % len(anchors),
            cmap=ListedColormap(anchors),
            vmin=-0.5,
            vmax=len(anchors) - 0.5,
        )
        return
    norm = LogNorm(low, high) if mark.scale == "log" else Normalize(low, high)
    drawn = ax.pcolormesh(
        across, down, values, cmap=LinearSegmentedColormap.from_list("fm", palette(mark)), norm=norm
    )
    bar = cast(Any, ax.figure).colorbar(drawn, ax=ax, label=_plain(mark.label))
    if mark.contours:
        centers = (across[1:] + across[:-1]) / 2, (down[1:] + down[:-1]) / 2
        lines = ax.contour(*centers, values, levels=sorted(mark.contours), colors="white", linewidths=0.8)
        bar.add_lines(lines)


def _graph(mark: Graph, look: Look, panel: Panel, ax: "Axes") -> None:
    spots = numbers(mark.positions).reshape(-1, 2)
    edges = numbers(mark.edges).reshape(-1, 2).astype(int)
    kinds = np.zeros(len(edges), int) if mark.edge_colors is None else numbers(mark.edge_colors).astype(int)
    named: set[int] = set()
    for (one, other), kind in zip(edges.tolist(), kinds.tolist(), strict=True):
        text = mark.edge_legend[kind] if kind < len(mark.edge_legend) and kind not in named else None
        named.add(kind)
        color, dashes = _color(kind), _dashes(layout.edge_dash(kind))
        label = _plain(text) if text else None
        ax.plot(*spots[[one, other]].T, zorder=1, label=label, color=color, linestyle=dashes)
        if mark.arrows:
            middle = spots[one] + 0.6 * (spots[other] - spots[one])
            arrow = {"arrowstyle": "->", "color": color}
            ax.annotate("", xy=tuple(middle), xytext=tuple(spots[one]), arrowprops=arrow)
    colored = np.zeros(len(spots), int) if mark.node_colors is None else numbers(mark.node_colors).astype(int)
    ax.scatter(*spots.T, c="white", edgecolors=[_color(int(c)) for c in colored], zorder=2)
    for (x, y), label in zip(spots.tolist(), mark.labels, strict=False):
        ax.annotate(_plain(label), (x, y), xytext=(5, 3), textcoords="offset points", fontsize="small")


def _rule(mark: Rule, look: Look, panel: Panel, ax: "Axes") -> None:
    style: Any = {"color": LIGHT["muted"], "linestyle": "--" if mark.dash else "-", "linewidth": 1.0}
    if mark.x is not None:
        ax.axvline(mark.x, label=_plain(mark.label) or None, **style)
    if mark.y is not None:
        ax.axhline(mark.y, label=_plain(mark.label) or None, **style)


def _note(mark: Note, look: Look, panel: Panel, ax: "Axes") -> None:
    ax.annotate(_plain(mark.text), (mark.x, mark.y), fontsize="small")


_DRAW: dict[type, Callable[[Any, Look, Panel, "Axes"], None]] = {
    Line: _line,
    Points: _points,
    Bars: _bars,
    Band: _band,
    HeatMap: _heat_map,
    Graph: _graph,
    Rule: _rule,
    Note: _note,
}
