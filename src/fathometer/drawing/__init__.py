"""Pictures: described once, rendered as SVG or into matplotlib axes."""

from fathometer.drawing.axes import draw
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
from fathometer.drawing.record import from_record, to_record
from fathometer.drawing.svg import to_svg, to_svgs
from fathometer.drawing.tables import data_table

__all__ = [
    "Axis",
    "Band",
    "Bars",
    "Graph",
    "HeatMap",
    "Line",
    "Note",
    "Panel",
    "Picture",
    "Points",
    "Rule",
    "data_table",
    "draw",
    "from_record",
    "to_record",
    "to_svg",
    "to_svgs",
]
