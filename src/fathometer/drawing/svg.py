"""A picture as SVG, written by hand: small, themable, accessible, the same bytes every time.

Colors are CSS custom properties of the page, or of the picture itself when it stands
alone. There are classes and presentation attributes but no style attributes, so that a
content security policy may forbid inline styles. Every text is escaped. Each image
has a role, a title and a description for readers who do not see it.
"""

import hashlib

from fathometer.drawing import layout
from fathometer.drawing.layout import COLOR_BAR, Entry, Layout
from fathometer.drawing.marks import DRAW, marker, names
from fathometer.drawing.picture import Axis, HeatMap, Picture
from fathometer.drawing.raster import palette
from fathometer.drawing.scales import Scaling
from fathometer.drawing.tables import left_out
from fathometer.drawing.texts import escape, pixel, tag
from fathometer.drawing.theme import DASHES, style_alone

SINGLE = (640.0, 300.0)
GAP = 22.0
WIDE = 860.0
_LINE = layout.LINE


def to_svg(picture: Picture, *, name: str | None = None, alone: bool = True) -> str:
    """The whole picture as one SVG element.

    Args:
        picture: What to draw.
        name: Prefix of the ids in it, unique on the page; from the content if None.
        alone: Whether the picture brings its own style sheet and paper (notebooks, files). A
            page that shows many pictures includes `theme.style` once and says False.
    """
    places = _places(picture)
    columns = max(1, min(picture.columns, len(places)))
    body, y, across = [], 0.0, 0.0
    drawn = _named(picture, name)
    for start in range(0, len(places), columns):
        row = places[start : start + columns]
        x = 0.0
        for i, place in enumerate(row, start):
            body.append(
                tag("g", _panel(place, f"{drawn}-{i}"), transform=f"translate({pixel(x)} {pixel(y)})")
            )
            x += place.width + GAP
        across = max(across, x - GAP)
        y += max(place.height for place in row) + 14.0
    return _whole(picture, drawn, "".join(body), across, y - 14.0, alone=alone)


def to_svgs(picture: Picture, *, name: str | None = None) -> tuple[str, ...]:
    """One SVG element for each panel of ``picture``, so that a narrow page can put them below each other.

    They bring no style sheet of their own (see `theme.style`). ``name`` keeps their ids apart from
    those of other pictures on the page; by default it follows from the content.
    """
    drawn = _named(picture, name)
    places = _places(picture)
    if len(places) == 1:
        return (
            _whole(
                picture,
                drawn,
                _panel(places[0], f"{drawn}-0"),
                places[0].width,
                places[0].height,
                alone=False,
            ),
        )
    return tuple(
        _whole(
            picture,
            f"{drawn}-{i}",
            _panel(place, f"{drawn}-{i}"),
            place.width,
            place.height,
            alone=False,
            part=i,
        )
        for i, place in enumerate(places)
    )


def _named(picture: Picture, name: str | None) -> str:
    if name is not None:
        return escape(name)
    content = "".join(_panel(place, "") for place in _places(picture))
    return "fm-" + hashlib.sha256((picture.title + content).encode("utf-8", "replace")).hexdigest()[:8]


def _whole(
    picture: Picture,
    name: str,
    body: str,
    across: float,
    down: float,
    *,
    alone: bool,
    part: int | None = None,
) -> str:
    title = picture.title
    if part is not None:
        title += f": {picture.panels[part].title or f'panel {part + 1}'}"
    lost = left_out(picture)
    text = picture.caption + (f" {omission(lost)}" if lost else "")
    head = tag("title", escape(title), id=f"{name}-t") + tag("desc", escape(text), id=f"{name}-d")
    if lost and part in (None, 0):
        down += 17.0
        body += tag("text", escape(omission(lost)), class_="fm-small fm-muted", x=4.0, y=down - 5)
    if alone:
        head += tag("style", style_alone()) + tag("rect", class_="fm-paper", width=across, height=down)
    size = f"{pixel(across)} {pixel(down)}"
    return tag(
        "svg",
        head + body,
        xmlns="http://www.w3.org/2000/svg",
        class_="fm-picture fm-alone" if alone else "fm-picture",
        viewBox=f"0 0 {size}",
        width=across,
        height=down,
        role="img",
        aria_labelledby=f"{name}-t {name}-d",
    )


def omission(count: int) -> str:
    """The sentence that says how many values are missing from a picture."""
    what = "value is" if count == 1 else "values are"
    return f"{count} {what} not drawn: not finite, or outside of a logarithmic scale."


def _places(picture: Picture) -> list[Layout]:
    """Lay out all panels; those in one row share their margins, so that the plots line up."""
    columns = max(1, min(picture.columns, len(picture.panels)))
    if len(picture.panels) == 1 or columns == 1:
        across, down = SINGLE
    else:
        across = (WIDE - GAP * (columns - 1)) / columns
        down = 0.55 * across if columns < 3 else 0.7 * across
    places = []
    for start in range(0, len(picture.panels), columns):
        row = picture.panels[start : start + columns]
        found = [layout.looks(panel, DASHES) for panel in row]
        legends = [layout.legend(panel, look, across) for panel, look in zip(row, found, strict=True)]
        deep = [1.25 * down if panel.equal else down for panel in row]
        rooms = [layout.measure(p, across, d, rows) for p, d, rows in zip(row, deep, legends, strict=True)]
        top, bottom = max(r.top for r in rooms), max(r.bottom for r in rooms)
        for panel, look, room, rows, high in zip(row, found, rooms, legends, deep, strict=True):
            shared = layout.Margins(top, room.right, bottom, room.left)
            places.append(layout.arrange(panel, look, across, high, shared, rows))
    return places


def _panel(place: Layout, name: str) -> str:
    panel = place.panel
    left, top, right, bottom = place.box
    parts = [_heading(place)]
    if panel.frame:
        parts.append(_axes(place))
    drawn = "".join(
        DRAW[type(mark)](mark, look, place)
        for mark, look in zip(panel.marks, layout.looks(panel, DASHES), strict=True)
    )
    # markers may reach over the edge of the plot, unless the limits were asked for
    over = 1.0 if panel.x.limits is not None or panel.y.limits is not None else 5.0
    window = tag(
        "rect", x=left - over, y=top - over, width=right - left + 2 * over, height=bottom - top + 2 * over
    )
    readout = {"data_x": _readout(place.x), "data_y": _readout(place.y)} if panel.frame else {}
    parts += [
        tag("clipPath", window, id=f"{name}-c"),
        tag("rect", class_="fm-plot", x=left, y=top, width=right - left, height=bottom - top, **readout),
        tag("g", drawn, clip_path=f"url(#{name}-c)"),
        names(place),
    ]
    if layout.color_bar(panel) is not None:
        parts.append(_color_bar(place, f"{name}-g"))
    return "".join(parts)


def _readout(scale: Scaling) -> str:
    """What a script needs to turn a pointer position back into data."""
    low, high = (scale.low, scale.high) if not scale.axis.reverse else (scale.high, scale.low)
    return f"{scale.axis.scale} {low:.6g} {high:.6g} {scale.axis.threshold:g}"


def _heading(place: Layout) -> str:
    parts, y = [], 13.0
    for line in place.title:
        parts.append(tag("text", escape(line), class_="fm-name", x=4.0, y=y))
        y += _LINE
    y = place.margins.top - 17.0 * len(place.legend) + 1
    for row in place.legend:
        x = 4.0
        for entry in row:
            parts.append(
                _swatch(entry, x, y - 3)
                + tag("text", escape(entry.label), class_="fm-small", x=x + 28, y=y + 1)
            )
            x += layout.entry_width(entry)
        y += 17.0
    return "".join(parts)


def _swatch(entry: Entry, x: float, y: float) -> str:
    color = entry.color
    if entry.shape == "line":
        return tag(
            "path",
            class_=f"fm-line fm-s{color}",
            d=f"M{pixel(x)},{pixel(y)}h22",
            stroke_dasharray=entry.dash or None,
        )
    if entry.shape == "bar":
        return tag(
            "rect", class_=f"fm-bar fm-f{color} fm-s{color}", x=x + 4, y=y - 5, width=14.0, height=10.0
        )
    if entry.shape == "band":
        return tag("rect", class_=f"fm-band fm-f{color}", x=x + 1, y=y - 5, width=20.0, height=10.0)
    if entry.shape == "outline":
        dash = layout.edge_dash(1)
        return tag(
            "path",
            class_=f"fm-line fm-s{color}",
            d=f"M{pixel(x + 3)},{pixel(y + 5)}v-10h16v10",
            stroke_dasharray=dash,
        )
    return marker(entry.shape, x + 11, y, color)


def _axes(place: Layout) -> str:
    left, top, right, bottom = place.box
    grid, marks, texts = [], [], []
    filled = any(isinstance(mark, HeatMap) for mark in place.panel.marks)
    for label in place.x_labels:
        x = place.x.one(label.tick.value)
        major = bool(label.tick.label)
        if major and not filled and place.panel.x.scale != "category":
            grid.append(f"M{pixel(x)},{pixel(top)}V{pixel(bottom)}")
        marks.append(f"M{pixel(x)},{pixel(bottom)}v{5 if major else 3}")
        texts.append(_below(label, x, bottom))
    for label in place.y_labels:
        y = place.y.one(label.tick.value)
        major = bool(label.tick.label)
        if major and not filled and place.panel.y.scale != "category":
            grid.append(f"M{pixel(left)},{pixel(y)}H{pixel(right)}")
        marks.append(f"M{pixel(left)},{pixel(y)}h{-5 if major else -3}")
        start = y + 4 - 6.5 * (len(label.lines) - 1)
        for k, line in enumerate(label.lines):
            texts.append(tag("text", escape(line), x=left - 8, y=start + 13 * k, text_anchor="end"))
    frame = f"M{pixel(left)},{pixel(top)}V{pixel(bottom)}H{pixel(right)}"
    if filled:
        frame += f"V{pixel(top)}Z"
    return (
        (tag("path", class_="fm-grid", d="".join(grid)) if grid else "")
        + tag("path", class_="fm-axis", d=frame + "".join(marks))
        + tag("g", "".join(texts), class_="fm-small")
        + _axis_titles(place)
    )


def _below(label: layout.Label, x: float, bottom: float) -> str:
    if label.turned:
        y = bottom + 14
        return "".join(
            tag(
                "text",
                escape(line),
                x=x + 3,
                y=y,
                text_anchor="end",
                transform=f"rotate(-38 {pixel(x + 3)} {pixel(y)})",
            )
            for line in label.lines
        )
    return "".join(
        tag("text", escape(line), x=x, y=bottom + 17 + 13 * k, text_anchor="middle")
        for k, line in enumerate(label.lines)
    )


def _axis_titles(place: Layout) -> str:
    left, top, right, bottom = place.box
    parts = []
    y = bottom + layout.below(place.x_labels) + _LINE - 1
    for line in place.x_title:
        parts.append(tag("text", escape(line), x=(left + right) / 2, y=y, text_anchor="middle"))
        y += _LINE
    widest = max(
        (layout.width(t, layout.SMALL) for label in place.y_labels for t in label.lines), default=0.0
    )
    x = left - widest - 20 - _LINE * (len(place.y_title) - 1)
    middle = (top + bottom) / 2
    for line in place.y_title:
        turn = f"rotate(-90 {pixel(x)} {pixel(middle)})"
        parts.append(tag("text", escape(line), x=x, y=middle, text_anchor="middle", transform=turn))
        x += _LINE
    return "".join(parts)


def _color_bar(place: Layout, name: str) -> str:
    found = layout.color_bar(place.panel)
    if found is None:
        return ""
    field, marks, low, high = found
    _, top, right, bottom = place.box
    x = right + 14
    anchors = palette(field)
    stops = "".join(
        tag("stop", offset=f"{i / (len(anchors) - 1):.3f}", stop_color=color)
        for i, color in enumerate(anchors)
    )
    parts = [
        tag("linearGradient", stops, id=name, x1="0", y1="1", x2="0", y2="0"),
        tag("rect", x=x, y=top, width=COLOR_BAR, height=bottom - top, fill=f"url(#{name})"),
    ]
    scale = Scaling(Axis(scale="log" if field.scale == "log" else "linear"), low, high, bottom, top)
    d = "".join(f"M{pixel(x + COLOR_BAR)},{pixel(scale.one(t.value))}h4" for t in marks if t.label)
    d += "".join(
        f"M{pixel(x)},{pixel(scale.one(v))}h{COLOR_BAR:g}" for v in field.contours if low <= v <= high
    )
    parts.append(tag("path", class_="fm-axis", d=d))
    widest = 0.0
    for tick in marks:
        y = scale.one(tick.value) + 4
        parts.append(tag("text", escape(tick.label), class_="fm-small", x=x + COLOR_BAR + 6, y=y))
        widest = max(widest, layout.width(tick.label, layout.SMALL))
    x += COLOR_BAR + 6 + widest + 14
    middle = (top + bottom) / 2
    for line in layout.wrap(field.label, max(bottom - top, 120.0), layout.SMALL, lines=2):
        turn = f"rotate(-90 {pixel(x)} {pixel(middle)})"
        parts.append(
            tag("text", escape(line), class_="fm-small", x=x, y=middle, text_anchor="middle", transform=turn)
        )
        x += 13
    return "".join(parts)
