"""Pictures: described once, rendered as SVG or into matplotlib axes."""

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

__all__ = ["Axis", "Band", "Bars", "Graph", "HeatMap", "Line", "Note", "Panel", "Picture", "Points", "Rule"]
