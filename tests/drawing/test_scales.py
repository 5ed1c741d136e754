"""Ticks, texts, theme, tables and records."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    data_table,
    from_record,
    to_record,
    to_svg,
)
from fathometer.drawing.scales import ticks
from fathometer.drawing.texts import number, width, wrap
from fathometer.drawing.theme import COLORS, DARK, LIGHT, luminance
from fathometer.errors import InputError


@given(
    low=st.floats(-1e9, 1e9),
    relative=st.floats(1e-5, 1e3),
    count=st.integers(2, 12),
)
@settings(max_examples=80, deadline=None, derandomize=True)
def test_linear_ticks_are_round_even_and_inside(low, relative, count):
    span = relative * max(1.0, abs(low))
    high = low + span
    found = [t.value for t in ticks(Axis(), low, high, count)]
    assert all(low - 1e-6 * span <= v <= high + 1e-6 * span for v in found)
    assert len(found) <= count + 1
    if len(found) > 1:
        steps = np.diff(found)
        np.testing.assert_allclose(steps, steps[0], rtol=1e-4)
        mantissa = steps[0] / 10.0 ** math.floor(math.log10(steps[0]) + 1e-6)
        assert min(abs(mantissa - m) for m in (1, 2, 5)) < 1e-3


@given(low=st.floats(-12, 6), decades=st.floats(0.05, 15), count=st.integers(2, 9))
@settings(max_examples=80, deadline=None, derandomize=True)
def test_log_ticks_have_labels_and_stay_inside(low, decades, count):
    a, b = 10.0**low, 10.0 ** (low + decades)
    found = ticks(Axis(scale="log"), a, b, count)
    named = [t for t in found if t.label]
    assert named and all(a * (1 - 1e-6) <= t.value <= b * (1 + 1e-6) for t in found)
    assert len({t.label for t in named}) == len(named)


def test_signed_log_ticks_are_symmetric_and_have_zero():
    found = ticks(Axis(scale="signed_log", threshold=1e-3), -100.0, 100.0, 9)
    values = [t.value for t in found if t.label]
    assert 0.0 in values and sorted(values) == pytest.approx(sorted(-v for v in values))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (1.0, "1"), (-3.0, "−3"), (0.0125, "0.0125"), (2.5e-7, "2.5×10⁻⁷"), (1e9, "10⁹"),
        (-1e-8, "−10⁻⁸"), (123456.0, "123456"), (math.inf, "∞"), (math.nan, "not a number"),
        (0.99999999, "1"),
    ],
)  # fmt: skip
def test_numbers_are_written_short_and_with_a_true_minus(value, text):
    assert number(value) == text


@given(st.text(max_size=80), st.floats(20, 300))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_wrapped_text_fits_its_room(text, room):
    lines = wrap(text, room)
    assert len(lines) <= 3 and all(width(line) <= room or line == "…" for line in lines)


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_series_colors_have_contrast_three_and_texts_four_and_a_half(theme):
    def contrast(a, b):
        one, other = sorted((luminance(a), luminance(b)))
        return (other + 0.05) / (one + 0.05)

    assert min(contrast(theme[str(i)], theme["paper"]) for i in range(COLORS)) >= 3
    assert min(contrast(theme[name], theme["paper"]) for name in ("ink", "muted")) >= 4.5


def test_luminance_is_that_of_the_standard():
    assert luminance("#000000") == 0 and luminance("#ffffff") == pytest.approx(1)
    assert luminance("#ff0000") == pytest.approx(0.2126)


def test_the_table_of_a_picture_has_every_drawn_number():
    panel = Panel(
        title="P",
        marks=(
            Line(x=[0.0, 1.0], y=[2.0, 3.0], label="l"),
            Points(x=[4.0], y=[5.0], label="p", error=[0.5], texts=("hover",)),
            Band(x=[0.0], lower=[1.0], upper=[2.0], label="b"),
            Rule(x=7.0, label="r"),
            Note(x=1.0, y=2.0, text="n"),
        ),
        x=Axis(label="time"),
    )
    header, rows = data_table(Picture(title="T", caption="C", panels=(panel,)))
    assert header == ("series", "time", "y", "error", "lower", "upper", "text")
    assert rows == (
        ("l", 0.0, 2.0, None, None, None, None),
        ("l", 1.0, 3.0, None, None, None, None),
        ("p", 4.0, 5.0, 0.5, None, None, "hover"),
        ("b", 0.0, None, None, 1.0, 2.0, None),
        ("r", 7.0, None, None, None, None, None),
        ("", 1.0, 2.0, None, None, None, "n"),
    )


def test_the_table_names_categories_bins_cells_and_edges():
    names = Axis(scale="category", categories=("a", "b"))
    bars = Panel(marks=(Bars(edges=[-0.5, 0.5, 1.5], heights=[1, 2], label="h"),), x=names)
    assert data_table(Picture(title="T", caption="", panels=(bars,)))[1] == (("h", "a", 1.0), ("h", "b", 2.0))
    free = Panel(marks=(Bars(edges=[0, 1, 3], heights=[1, 2]),))
    header, rows = data_table(Picture(title="T", caption="", panels=(free,)))
    assert header == ("from", "to", "y") and rows[1] == (1.0, 3.0, 2.0)
    cells = Panel(marks=(HeatMap(values=[[1, 2], [3, 4]], x_range=(0, 2), y_range=(0, 2)),))
    assert data_table(Picture(title="T", caption="", panels=(cells,)))[1][2] == (0.5, 1.5, 3.0)
    graph = Graph(
        positions=[[0, 0], [1, 1]], edges=[[1, 0]], labels=("u",), edge_colors=[0], edge_legend=("kind",)
    )
    header, rows = data_table(Picture(title="T", caption="", panels=(Panel(marks=(graph,)), free)))
    assert rows[0] == ("1", "1", "u", None, "kind")


def test_a_table_given_with_the_picture_wins():
    table = (("a",), ((1,),))
    one = Picture(title="T", caption="", panels=(Panel(marks=(Line(x=[0], y=[0]),)),), table=table)
    assert data_table(one) == table


def test_a_picture_survives_its_record():
    one = Picture(
        title="T",
        caption="C",
        columns=1,
        panels=(
            Panel(
                marks=(Line(x=np.arange(3), y=[1, 2, 3], label="a"), Rule(y=1.0)), x=Axis(limits=(0.0, 2.0))
            ),
            Panel(marks=(HeatMap(values=np.eye(3), x_range=(0, 3), y_range=(0, 3), contours=(0.5,)),)),
        ),
    )
    again = from_record(to_record(one))
    assert to_svg(again) == to_svg(one) and again.panels[0].x == one.panels[0].x


def test_a_record_of_something_else_is_refused():
    with pytest.raises(InputError, match=r"names a 'os\.system'; a picture is made of Axis"):
        from_record({"is": "os.system"})
    with pytest.raises(InputError, match="one of a Note, not of a Picture"):
        from_record({"is": "Note", "x": 0.0, "y": 0.0, "text": "t"})


def test_marks_whose_columns_do_not_belong_together_are_refused():
    def one(mark):
        return Picture(title="T", caption="", panels=(Panel(marks=(mark,)),))

    with pytest.raises(InputError, match=r"a: x has shape \(2,\), y \(3,\)"):
        one(Line(x=[0, 1], y=[0, 1, 2], label="a"))
    with pytest.raises(InputError, match="bars: 2 edges for 2 heights; one more is needed"):
        one(Bars(edges=[0, 1], heights=[0, 1]))
    with pytest.raises(InputError, match="values has 1 dimensions, not 2"):
        one(HeatMap(values=[0, 1], x_range=(0, 1), y_range=(0, 1)))
    with pytest.raises(InputError, match="panels is empty"):
        Picture(title="T", caption="", panels=())
