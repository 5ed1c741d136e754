"""The drawn numbers, read back from the SVG with an XML parser and a ruler."""

import base64
import re
import struct
import xml.etree.ElementTree as ET
import zlib

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
    to_svg,
    to_svgs,
)

NS = "{http://www.w3.org/2000/svg}"


def picture(*marks, **panel):
    return Picture(title="T", caption="C", panels=(Panel(marks=marks, **panel),))


def parse(one, **options):
    return ET.fromstring(to_svg(one, name="p", **options))


def elements(root, tag, cls=""):
    return [e for e in root.iter(NS + tag) if cls in e.get("class", "").split() or not cls]


def plot_box(root):
    plot = elements(root, "rect", "fm-plot")[0]
    x, y, w, h = (float(plot.get(k)) for k in ("x", "y", "width", "height"))
    return x, y, x + w, y + h


def vertices(d):
    return np.array([[float(v) for v in pair.split(",")] for pair in re.findall(r"-?[\d.]+,-?[\d.]+", d)])


def data_of(root, pixels):
    """Pixels back to data, by the scale written on the plot (linear and log)."""
    plot = elements(root, "rect", "fm-plot")[0]
    left, top, right, bottom = plot_box(root)
    out = []
    for place, (start, end, key) in enumerate(((left, right, "data-x"), (bottom, top, "data-y"))):
        scale, low, high, _ = plot.get(key).split()
        low, high = float(low), float(high)
        share = (np.asarray(pixels)[:, place] - start) / (end - start)
        out.append(low * (high / low) ** share if scale == "log" else low + share * (high - low))
    return np.column_stack(out)


def test_a_line_goes_through_its_points():
    x, y = np.array([0.0, 1.0, 4.0, 9.0]), np.array([3.0, -1.0, 2.0, 5.0])
    root = parse(picture(Line(x=x, y=y)))
    drawn = data_of(root, vertices(elements(root, "path", "fm-line")[0].get("d")))
    # one decimal of a pixel is what the file keeps
    np.testing.assert_allclose(drawn, np.column_stack([x, y]), atol=0.05)


def test_points_sit_at_their_place_on_log_axes():
    x, y = np.array([1e-6, 1e-3, 1.0]), np.array([1e-2, 10.0, 1e4])
    root = parse(picture(Points(x=x, y=y), x=Axis(scale="log"), y=Axis(scale="log")))
    spots = [[float(c.get("cx")), float(c.get("cy"))] for c in elements(root, "circle")]
    np.testing.assert_allclose(np.log10(data_of(root, spots)), np.log10(np.column_stack([x, y])), atol=0.01)


def test_signed_log_is_odd_linear_inside_and_even_in_decades_outside():
    y = np.array([-1000.0, -10.0, -1.0, -0.5, 0.0, 0.5, 1.0, 10.0, 1000.0])
    root = parse(picture(Points(x=np.arange(9), y=y), y=Axis(scale="signed_log", threshold=1.0)))
    cy = np.array([float(c.get("cy")) for c in elements(root, "circle")])
    up = cy[4] - cy
    np.testing.assert_allclose(up, -up[::-1], atol=0.11)
    unit = up[6]  # from 0 to the threshold
    np.testing.assert_allclose(up[5:] / unit, [0.5, 1, 2, 4], atol=0.01)


def test_bars_have_the_area_of_the_histogram():
    heights, edges = np.array([1.0, 4.0, 2.5]), np.array([0.0, 1.0, 2.0, 4.0])
    root = parse(picture(Bars(edges=edges, heights=heights)))
    boxes = elements(root, "rect", "fm-bar")
    tall = np.array([float(b.get("height")) for b in boxes])
    np.testing.assert_allclose(tall / tall[1], heights / 4.0, atol=0.01)
    bottoms = [float(b.get("y")) + float(b.get("height")) for b in boxes]
    np.testing.assert_allclose(bottoms, plot_box(root)[3], atol=0.11)


def test_a_curve_of_tiny_values_does_not_press_log_bars_flat():
    tail = Line(x=[0, 1], y=[1e-200, 1.0])
    root = parse(picture(Bars(edges=[0, 1, 2], heights=[0.5, 1.0]), tail, y=Axis(scale="log")))
    low = float(elements(root, "rect", "fm-plot")[0].get("data-y").split()[1])
    assert 0.1 < low < 0.5


def test_error_bars_span_their_error():
    root = parse(picture(Points(x=[0.0, 1.0], y=[2.0, 5.0], error=[0.5, 1.0])))
    d = elements(root, "path", "fm-error")[0].get("d")
    ends = data_of(root, vertices(d))
    assert sorted({round(v, 1) for v in ends[:, 1]}) == [1.5, 2.5, 4.0, 6.0]


def test_a_band_lies_between_its_ends():
    root = parse(picture(Band(x=[0, 1, 2], lower=[0, 1, 0], upper=[2, 3, 2])))
    drawn = data_of(root, vertices(elements(root, "path", "fm-band")[0].get("d")))
    np.testing.assert_allclose(drawn, [[0, 2], [1, 3], [2, 2], [2, 0], [1, 1], [0, 0]], atol=0.03)


def test_hover_texts_are_titles_of_their_points():
    root = parse(picture(Points(x=[0, 1], y=[0, 1], texts=("first", "a < b & c"))))
    assert [c.find(NS + "title").text for c in elements(root, "circle")] == ["first", "a < b & c"]


@pytest.mark.parametrize("marker", ["dot", "ring", "square", "triangle", "cross"])
def test_every_marker_is_drawn_once_for_a_point(marker):
    root = parse(picture(Points(x=[0.0, 1.0], y=[0.0, 1.0], marker=marker)))
    group = next(g for g in root.iter(NS + "g") if g.get("clip-path"))
    assert len(list(group)) == 2


def test_many_points_become_one_path_with_a_dot_for_each_distinct_place():
    x = np.arange(1000.0)
    root = parse(picture(Points(x=x, y=np.zeros(1000))))
    dots = elements(root, "path", "fm-dots")
    assert len(dots) == 1 and elements(root, "circle") == []
    assert dots[0].get("d").count("h0") == 1000


def test_a_long_line_keeps_its_extremes():
    x = np.linspace(0, 1, 50_000)
    y = np.zeros_like(x)
    y[31_234], y[12_345] = 7.0, -3.0
    root = parse(picture(Line(x=x, y=y)))
    d = elements(root, "path", "fm-line")[0].get("d")
    drawn = data_of(root, vertices(d))[:, 1]
    assert len(d) < 20_000  # and not half a megabyte
    np.testing.assert_allclose([drawn.max(), drawn.min()], [7, -3], atol=0.05)


def test_small_fields_are_cells_of_the_right_size_and_number():
    values = np.array([[0.0, 1.0, 2.0], [3.0, np.nan, 5.0]])
    root = parse(picture(HeatMap(values=values, x_range=(0, 3), y_range=(0, 2))))
    cells = next(g for g in root.iter(NS + "g") if g.get("class") == "fm-cells")
    corners = np.concatenate([vertices(p.get("d")) for p in cells])
    assert len(corners) == 5  # the NaN has no cell
    assert len(list(cells)) == 5  # and every value a color of its own


def png_pixels(uri):
    data = base64.b64decode(uri.partition("base64,")[2])
    chunks, at = {}, 8
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + size]
        assert struct.unpack(">I", data[at + 8 + size : at + 12 + size])[0] == zlib.crc32(kind + body)
        chunks[kind], at = body, at + 12 + size
    columns, rows = struct.unpack(">II", chunks[b"IHDR"][:8])
    raw = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(rows, 1 + 4 * columns)
    return raw[:, 1:].reshape(rows, columns, 4)


def test_large_fields_are_a_png_with_the_first_row_at_the_bottom_of_an_upward_axis():
    values = np.zeros((60, 50))
    values[0, 0], values[59, 49] = 1.0, np.nan
    one = picture(HeatMap(values=values, x_range=(0, 50), y_range=(0, 60)))
    pixels = png_pixels(elements(parse(one), "image")[0].get("href"))
    assert pixels.shape == (60, 50, 4)
    assert tuple(pixels[-1, 0, :3]) == (0xFD, 0xE7, 0x25) and tuple(pixels[5, 5, :3]) == (0x44, 0x01, 0x54)
    assert pixels[0, 49, 3] == 0 and (pixels[..., 3] == 0).sum() == 1
    down = picture(HeatMap(values=values, x_range=(0, 50), y_range=(0, 60)), y=Axis(reverse=True))
    assert tuple(png_pixels(elements(parse(down), "image")[0].get("href"))[0, 0, :3]) == (0xFD, 0xE7, 0x25)


def test_a_huge_field_is_sent_small_as_block_means():
    from fathometer.drawing.raster import shrink

    values = np.tile(np.arange(2048.0), (3, 1))
    small = shrink(HeatMap(values=values, x_range=(0, 1), y_range=(0, 1)))
    assert small.shape == (3, 512)
    np.testing.assert_allclose(small[0], np.arange(512) * 4 + 1.5)


def test_contours_of_a_cone_are_circles():
    from fathometer.drawing.raster import contour

    grid = np.linspace(-1, 1, 201)
    field = np.hypot(*np.meshgrid(grid, grid))
    (chain,) = contour(field, 0.5)
    radius = np.hypot(*(chain.T / 100 - 1))
    np.testing.assert_allclose(radius, 0.5, atol=2e-4)
    np.testing.assert_array_equal(chain[0], chain[-1])


def test_contours_of_a_saddle_follow_the_mean_of_the_corners():
    from fathometer.drawing.raster import contour

    def sides(low):
        chains = contour(np.array([[1.0, low], [low, 1.0]]), 0.1)
        return {tuple(np.sign(c.mean(axis=0) - 0.5).astype(int).tolist()) for c in chains}

    assert sides(0.0) == {(1, -1), (-1, 1)}  # mean above the level: the low corners are cut off
    assert sides(-9.0) == {(-1, -1), (1, 1)}  # below it: the high ones


def test_category_cells_carry_their_number_and_minus_one_is_blank():
    labels = np.array([[0, 1], [-1, 2]])
    root = parse(picture(HeatMap(values=labels, x_range=(0, 2), y_range=(0, 2), scale="category")))
    assert sorted(t.text for t in elements(root, "text", "fm-in")) == ["0", "1", "2"]


def test_a_graph_has_its_nodes_edges_and_arrows():
    g = Graph(
        positions=[[0, 0], [1, 0], [0, 1]],
        edges=[[0, 1], [1, 2], [2, 2]],
        labels=("a", "b", "c"),
        arrows=True,
    )
    root = parse(picture(g, frame=False))
    assert len(elements(root, "circle", "fm-ring")) == 3
    assert len(elements(root, "path", "fm-line")) == 2 and len(elements(root, "circle", "fm-line")) == 1
    assert sum(e.get("class").startswith("fm-f") for e in elements(root, "path")) == 2
    assert not elements(root, "path", "fm-axis")


def test_rules_cross_the_plot_and_are_named():
    root = parse(picture(Line(x=[0, 2], y=[0, 2]), Rule(x=1.0, label="here"), Rule(y=1.5)))
    one, other = (elements(root, "path", "fm-rule")[i].get("d") for i in (0, 1))
    left, _, right, bottom = plot_box(root)
    x = float(one[1:].split(",")[0])
    assert (x - left) / (right - left) == pytest.approx(0.5, abs=1e-3)
    assert float(one.split("V")[1]) == pytest.approx(bottom) and float(other.split("H")[1]) == pytest.approx(
        right
    )
    assert "here" in [t.text for t in elements(root, "text")]


def test_equal_axes_have_equal_units():
    root = parse(picture(Line(x=[0, 10], y=[0, 2]), equal=True))
    plot = elements(root, "rect", "fm-plot")[0]
    x, y = ([float(v) for v in plot.get(k).split()[1:3]] for k in ("data-x", "data-y"))
    units = float(plot.get("width")) / (x[1] - x[0]), float(plot.get("height")) / (y[1] - y[0])
    assert units[0] == pytest.approx(units[1], rel=0.01)


def test_what_is_not_finite_is_left_out_counted_and_said():
    marks = Line(x=[0, 1, 2, np.nan], y=[0, np.nan, 2, np.nan]), Points(x=[1.0, 2.0], y=[np.inf, 1.0])
    root = parse(picture(*marks))
    assert "2 values are not drawn" in root.find(NS + "desc").text
    assert any("2 values are not drawn" in (t.text or "") for t in elements(root, "text"))
    assert "nan" not in to_svg(picture(*marks)).lower().replace("finance", "")


def test_values_at_or_below_zero_are_counted_on_a_log_axis():
    root = parse(picture(Points(x=[1, 2, 3], y=[1.0, 0.0, -1.0]), y=Axis(scale="log")))
    assert "2 values" in root.find(NS + "desc").text and len(elements(root, "circle")) == 1


def test_lines_differ_in_dash_and_not_only_in_color():
    lines = [Line(x=[0, 1], y=[i, i], label=str(i)) for i in range(6)]
    root = parse(picture(*lines))
    clip = next(g for g in root.iter(NS + "g") if g.get("clip-path"))
    assert len({e.get("stroke-dasharray") for e in clip}) == 6


def test_the_legend_stands_above_the_plot():
    many = [Line(x=[0, 1], y=[i, i], label=f"a series with a long name {i}") for i in range(7)]
    root = parse(picture(*many))
    top = plot_box(root)[1]
    named = [t for t in elements(root, "text") if (t.text or "").startswith("a series")]
    assert len(named) == 7 and max(float(t.get("y")) for t in named) < top
    assert max(float(t.get("x")) + 150 for t in named) < float(root.get("width")) + 20


def test_many_names_below_an_axis_are_turned_and_thinned():
    names = tuple(f"a measure named {i}" for i in range(80))
    axis = Axis(scale="category", categories=names)
    root = parse(picture(Bars(edges=np.arange(81) - 0.5, heights=np.ones(80)), x=axis))
    shown = [t for t in elements(root, "text") if (t.text or "").startswith("a measure")]
    assert 10 < len(shown) <= 45 and all("rotate" in t.get("transform") for t in shown)
    spots = np.array([float(t.get("x")) for t in shown])
    assert np.diff(spots).min() >= 13


HOSTILE = '"><script>alert(1)</script>\x00\x08]]>&amp;\ud800'


def test_hostile_texts_stay_texts_everywhere():
    one = Picture(
        title=HOSTILE,
        caption=HOSTILE,
        panels=(
            Panel(
                title=HOSTILE,
                marks=(
                    Points(x=[0], y=[0], label=HOSTILE, texts=(HOSTILE,)),
                    Note(x=0, y=0, text=HOSTILE),
                    Rule(x=0, label=HOSTILE),
                    Bars(edges=[0, 1], heights=[1], texts=(HOSTILE,)),
                    Graph(
                        positions=[[0, 0]], edges=np.empty((0, 2)), labels=(HOSTILE,), edge_legend=(HOSTILE,)
                    ),
                    HeatMap(values=[[1.0]], x_range=(0, 1), y_range=(0, 1), label=HOSTILE),
                ),
                x=Axis(label=HOSTILE, scale="category", categories=(HOSTILE,)),
                y=Axis(label=HOSTILE),
            ),
        ),
    )
    for svg in (to_svg(one), *to_svgs(one, name=HOSTILE)):
        root = ET.fromstring(svg)
        assert not [e for e in root.iter() if e.tag == NS + "script"]
        assert not [k for e in root.iter() for k in e.attrib if k.startswith("on") or k == "style"]


def test_an_image_is_named_described_and_the_same_every_time():
    one = picture(Line(x=[0, 1], y=[0, 1]))
    svg = to_svg(one)
    root = ET.fromstring(svg)
    assert svg == to_svg(one)
    title, desc = root.get("aria-labelledby").split()
    assert root.get("role") == "img"
    assert root.find(NS + "title").attrib == {"id": title} and root.find(NS + "title").text == "T"
    assert root.find(NS + "desc").attrib == {"id": desc} and root.find(NS + "desc").text == "C"
    other = to_svg(picture(Line(x=[0, 1], y=[0, 2.5])))
    assert not set(re.findall(r'id="([^"]+)"', svg)) & set(re.findall(r'id="([^"]+)"', other))


def test_panels_of_one_row_share_their_heights_and_can_come_apart():
    marks = (Line(x=[0, 1], y=[0, 1], label="a"),)
    one = Picture(
        title="T", caption="C", panels=(Panel(marks=marks, title="A"), Panel(marks=marks), Panel(marks=()))
    )
    root = ET.fromstring(to_svg(one))
    tops = [float(r.get("y")) for r in elements(root, "rect", "fm-plot")]
    assert tops[0] == tops[1]
    alone = [ET.fromstring(svg) for svg in to_svgs(one, name="q")]
    assert [r.find(NS + "title").text for r in alone] == ["T: A", "T: panel 2", "T: panel 3"]
    assert len({r.get("aria-labelledby") for r in alone}) == 3


def test_a_page_can_forbid_inline_styles():
    one = picture(Line(x=[0, 1], y=[0, 1], label="a"), Points(x=[0], y=[1]))
    embedded = to_svg(one, alone=False)
    assert "<style" not in embedded and "style=" not in embedded
    assert "<style>" in to_svg(one)


def test_no_data_and_one_point_make_a_picture_too():
    for marks in (
        (),
        (Points(x=[3.0], y=[1e-9]),),
        (Points(x=[np.nan], y=[0.0]),),
        (Bars(edges=[0, 1], heights=[0]),),
    ):
        for scale in ("linear", "log", "signed_log"):
            assert (
                ET.fromstring(to_svg(picture(*marks, x=Axis(scale=scale), y=Axis(scale=scale)))) is not None
            )


def test_torch_tensors_are_drawn_like_arrays():
    import torch

    x = torch.arange(4.0, requires_grad=True)
    a = to_svg(picture(Line(x=x, y=x**2)), name="p")
    assert a == to_svg(picture(Line(x=np.arange(4.0), y=np.arange(4.0) ** 2)), name="p")
