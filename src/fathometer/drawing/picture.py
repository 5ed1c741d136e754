"""A picture, described once: what is drawn, not how.

A room returns a `Picture`: panels of marks on labeled axes, a caption that says
how to read it, and the numbers behind it as a table. `drawing.svg` renders it for
reports and notebooks, `drawing.axes` into matplotlib. Nothing here computes.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from fathometer.errors import InputError

Scale = Literal["linear", "log", "signed_log", "category"]


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis of a panel.

    Attributes:
        label: What is measured, with its unit.
        scale: "linear"; "log"; "signed_log" (linear below ``threshold`` in size,
            logarithmic beyond it, on both sides of zero); "category" (positions
            0, 1, ... named by ``categories``).
        threshold: Where "signed_log" turns from linear to logarithmic.
        limits: Lowest and highest value shown; from the data if None.
        categories: Names of the positions of a "category" axis.
        reverse: Whether values grow downward or leftward (matrix rows do).
    """

    label: str = ""
    scale: Scale = "linear"
    threshold: float = 1.0
    limits: tuple[float, float] | None = None
    categories: tuple[str, ...] = ()
    reverse: bool = False


@dataclass(frozen=True, kw_only=True)
class Line:
    """A polyline through ``(x[i], y[i])``; NaN breaks it.

    ``label`` names it in the legend. ``color`` is a position in the theme's palette (None: the next
    free one), and ``dash`` sets lines apart without color. ``step`` holds each value to the next x.
    """

    x: Any
    y: Any
    label: str = ""
    color: int | None = None
    dash: bool = False
    step: bool = False


@dataclass(frozen=True, kw_only=True)
class Points:
    """Markers at ``(x[i], y[i])``, with optional bars of ``error`` up and down and hover ``texts``.

    ``marker`` is one of "dot", "ring", "square", "triangle", "cross"; ``label`` and ``color`` are
    those of a `Line`.
    """

    x: Any
    y: Any
    label: str = ""
    color: int | None = None
    marker: Literal["dot", "ring", "square", "triangle", "cross"] = "dot"
    error: Any = None
    texts: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Bars:
    """Bars of the given ``heights`` between ``edges`` (one more than heights).

    On a category axis the edges are -0.5, 0.5, 1.5, ... ``texts`` are written at the bars; ``label``
    and ``color`` are those of a `Line`.
    """

    edges: Any
    heights: Any
    label: str = ""
    color: int | None = None
    texts: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Band:
    """The region between ``lower`` and ``upper`` along ``x``; ``label`` and ``color`` as of a `Line`."""

    x: Any
    lower: Any
    upper: Any
    label: str = ""
    color: int | None = None


@dataclass(frozen=True, kw_only=True)
class HeatMap:
    """A matrix of colored cells: ``values[i, j]`` at row i (y), column j (x).

    Attributes:
        values: (rows, columns).
        x_range, y_range: Outer edges of the first and last cell.
        scale: "linear", "log", "diverging" (around zero) or "category" (whole
            numbers are colors of their own, -1 is blank).
        label: What the color means.
        contours: Levels at which contour lines are drawn, if any.
    """

    values: Any
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    scale: Literal["linear", "log", "diverging", "category"] = "linear"
    label: str = ""
    contours: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Graph:
    """Nodes at ``positions`` (k, 2), joined by ``edges`` (m, 2) of node numbers.

    ``edge_colors`` (m,) and ``node_colors`` (k,) are palette positions, ``labels`` stand in the
    nodes, ``edge_legend`` names the edge colors in order; ``arrows`` shows direction.
    """

    positions: Any
    edges: Any
    labels: tuple[str, ...] = ()
    edge_colors: Any = None
    node_colors: Any = None
    arrows: bool = False
    edge_legend: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A straight reference line at one x or one y, named ``label``; broken where ``dash`` is set."""

    x: float | None = None
    y: float | None = None
    label: str = ""
    dash: bool = True


@dataclass(frozen=True, kw_only=True)
class Note:
    """A short ``text`` at the point (x, y)."""

    x: float
    y: float
    text: str


Mark = Line | Points | Bars | Band | HeatMap | Graph | Rule | Note


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Marks that share two axes.

    Attributes:
        marks: What is drawn, the first lowest.
        x, y: The axes.
        title: What stands over the panel, if several stand side by side.
        equal: Keeps one unit of x as long as one of y.
        frame: Whether axes, ticks and grid are drawn.
    """

    marks: tuple[Mark, ...]
    x: Axis = field(default_factory=Axis)
    y: Axis = field(default_factory=Axis)
    title: str = ""
    equal: bool = False
    frame: bool = True


@dataclass(frozen=True, kw_only=True)
class Picture:
    """Panels side by side, with a name and a caption that says how to read them.

    Attributes:
        title: The name of the picture.
        caption: How to read it, one or two sentences.
        panels: One or more panels, in reading order.
        columns: Panels in one row.
        table: The numbers behind the picture as ``(header, rows)``; for readers who
            do not see it. None: the renderers make it from the marks.
    """

    title: str
    caption: str
    panels: tuple[Panel, ...]
    columns: int = 2
    table: tuple[tuple[str, ...], tuple[tuple[Any, ...], ...]] | None = None

    def __post_init__(self) -> None:
        if not self.panels:
            raise InputError("panels is empty; a picture has at least one panel.")
        for panel in self.panels:
            for mark in panel.marks:
                _check(mark)


def _check(mark: Mark) -> None:
    """Refuse marks whose columns do not belong together."""
    if isinstance(mark, Line | Points) and np.shape(mark.x) != np.shape(mark.y):
        raise InputError(f"{mark.label or 'a mark'}: x has shape {np.shape(mark.x)}, y {np.shape(mark.y)}.")
    if isinstance(mark, Bars) and len(mark.edges) != len(mark.heights) + 1:
        raise InputError(
            f"{mark.label or 'bars'}: {len(mark.edges)} edges for {len(mark.heights)} heights; "
            "one more is needed."
        )
    if isinstance(mark, HeatMap) and np.ndim(mark.values) != 2:
        raise InputError(
            f"{mark.label or 'a heat map'}: values has {np.ndim(mark.values)} dimensions, not 2."
        )
