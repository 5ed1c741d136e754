"""The same numbers in matplotlib's artists."""

import builtins

import numpy as np
import pytest

from fathometer.drawing import (
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
    draw,
)
from fathometer.errors import CapabilityError, InputError


def picture(*marks, **panel):
    return Picture(title="T", caption="C", panels=(Panel(marks=marks, **panel),))


def test_lines_points_bars_and_rules_hold_the_data():
    ax = draw(
        picture(
            Line(x=[0, 1, 2], y=[3, 1, 2], label="price in $"),
            Points(x=[0.5], y=[2.5], error=[0.25], label="p"),
            Bars(edges=[0, 1, 2], heights=[1, 2]),
            Band(x=[0, 2], lower=[0, 1], upper=[1, 2]),
            Rule(x=1.5, label="r"),
            Rule(y=0.5),
            Note(x=1, y=1, text="n"),
            title="P",
            x=Axis(label="x"),
            y=Axis(label="y"),
        )
    )
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[0, 3], [1, 1], [2, 2]])
    (errors,) = [c for c in ax.collections if c.get_paths() and len(c.get_paths()[0].vertices) == 2]
    np.testing.assert_allclose(errors.get_paths()[0].vertices, [[0.5, 2.25], [0.5, 2.75]])
    stairs = ax.patches[0].get_data()
    np.testing.assert_array_equal(stairs.values, [1, 2])
    assert ax.get_legend().get_texts()[0].get_text() == r"price in \$"
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("x", "y", "P")
    ax.figure.canvas.draw()


@pytest.mark.parametrize(
    ("scale", "expected"), [("log", "log"), ("signed_log", "symlog"), ("linear", "linear")]
)
def test_scales_are_matplotlibs(scale, expected):
    ax = draw(picture(Line(x=[1, 10], y=[1, 10]), y=Axis(scale=scale)))
    assert ax.get_yscale() == expected


def test_heat_maps_have_the_values_the_right_way_up():
    values = np.array([[1.0, 2.0], [3.0, np.nan]])
    ax = draw(
        picture(HeatMap(values=values, x_range=(0, 2), y_range=(0, 2), contours=(2.5,)), y=Axis(reverse=True))
    )
    mesh = ax.collections[0]
    np.testing.assert_array_equal(np.ma.filled(mesh.get_array(), np.nan), values)
    assert ax.get_ylim() == (2.0, 0.0)


@pytest.mark.parametrize("scale", ["log", "diverging", "category"])
def test_every_color_scale_is_drawn(scale):
    field = HeatMap(values=[[1, 2], [3, -1]], x_range=(0, 2), y_range=(0, 2), scale=scale)
    ax = draw(picture(field, equal=True))
    ax.figure.canvas.draw()
    assert len(ax.collections) == 1 and ax.get_aspect() == 1.0


def test_graphs_and_categories_are_named():
    graph = Graph(
        positions=[[0, 0], [1, 1]], edges=[[0, 1]], labels=("a", "b"), arrows=True, edge_legend=("e",)
    )
    ax = draw(picture(graph, frame=False))
    assert [t.get_text() for t in ax.texts] == ["", "a", "b"] and not ax.axison
    names = Axis(scale="category", categories=("u", "v"))
    ax = draw(picture(Bars(edges=[-0.5, 0.5, 1.5], heights=[1, 2]), x=names))
    assert [t.get_text() for t in ax.get_xticklabels()] == ["u", "v"]


def test_panels_get_a_figure_of_their_own_and_pyplot_stays_untouched():
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    panels = (Panel(marks=(Line(x=[0, 1], y=[0, 1]),)),) * 3
    several = Picture(title="T", caption="C", panels=panels)
    ax = draw(several)
    assert len(ax.figure.axes) == 3 and plt.get_fignums() == before
    with pytest.raises(InputError, match="the picture has 3 panels; leave ax out"):
        draw(several, ax)
    assert draw(picture(Line(x=[0], y=[0])), ax) is ax


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    real = builtins.__import__

    def refuse(name, *rest):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(CapabilityError, match=r'pip install "fathometer\[viz\]"'):
        draw(picture(Line(x=[0], y=[0])))
