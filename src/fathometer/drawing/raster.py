"""Fields of numbers as colors: palettes, PNG images, contour lines.

Large fields are sent as a PNG in a data URI: a hundred times smaller than one SVG
element for each cell. The PNG is written by hand (RFC 2083: three chunks and zlib).
"""

import base64
import struct
import zlib

import numpy as np

from fathometer.drawing.picture import HeatMap
from fathometer.drawing.scales import numbers
from fathometer.drawing.theme import CATEGORIES, DIVERGING, SEQUENTIAL, rgb

LARGEST_SIDE = 512


def color_range(field: HeatMap) -> tuple[float, float]:
    """Values at the two ends of the color bar (log10 of them is even on a "log" scale)."""
    values = numbers(field.values)
    values = values[shown(field)]
    if not len(values):
        return (0.1, 1.0) if field.scale == "log" else (0.0, 1.0)
    low, high = float(values.min()), float(values.max())
    if field.scale == "diverging":
        largest = max(abs(low), abs(high)) or 1.0
        return -largest, largest
    if low == high:
        return (low / 2, high * 2) if field.scale == "log" else (low - 0.5, high + 0.5)
    return low, high


def shown(field: HeatMap) -> np.ndarray:
    """Which cells have a color: finite, positive on "log", not -1 on "category"."""
    values = numbers(field.values)
    good = np.isfinite(values)
    if field.scale == "log":
        good &= values > 0
    if field.scale == "category":
        good &= values >= 0
    return good


def palette(field: HeatMap) -> tuple[str, ...]:
    """Colors of the scale, from its low to its high end."""
    return {"diverging": DIVERGING, "category": CATEGORIES}.get(field.scale, SEQUENTIAL)


def colors(field: HeatMap, values: np.ndarray | None = None) -> np.ndarray:
    """Red, green, blue and opacity of every cell, (rows, columns, 4) bytes."""
    values = numbers(field.values) if values is None else values
    good = np.isfinite(values) & ((values > 0) if field.scale == "log" else True)
    anchors = np.array([rgb(c) for c in palette(field)], dtype=np.float64)
    out = np.zeros((*values.shape, 4), dtype=np.uint8)
    if field.scale == "category":
        good &= values >= 0
        whole = np.where(good, values, 0).astype(np.int64)
        out[..., :3] = anchors[whole % len(anchors)]
    else:
        low, high = color_range(field)
        if field.scale == "log":
            low, high = np.log10(low), np.log10(high)
            values = np.log10(np.where(good, values, 1.0))
        place = np.clip((np.where(good, values, low) - low) / (high - low), 0, 1) * (len(anchors) - 1)
        for channel in range(3):
            out[..., channel] = np.rint(np.interp(place, np.arange(len(anchors)), anchors[:, channel]))
    out[..., 3] = np.where(good, 255, 0)
    return out


def shrink(field: HeatMap) -> np.ndarray:
    """The values on at most `LARGEST_SIDE` cells a side: means of blocks, or every k-th category."""
    values = numbers(field.values)
    for axis in (0, 1):
        cells = values.shape[axis]
        if cells <= LARGEST_SIDE:
            continue
        starts = np.linspace(0, cells, LARGEST_SIDE, endpoint=False).astype(np.int64)
        if field.scale == "category":
            values = np.take(values, starts, axis=axis)
        else:
            counts = np.diff(np.append(starts, cells)).reshape((-1, 1) if axis == 0 else (1, -1))
            values = np.add.reduceat(values, starts, axis=axis) / counts
    return values


def png(pixels: np.ndarray) -> str:
    """A data URI of an image (rows, columns, 4), first row on top."""
    rows, columns, _ = pixels.shape
    lines = np.concatenate([np.zeros((rows, 1), np.uint8), pixels.reshape(rows, -1)], axis=1)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", columns, rows, 8, 6, 0, 0, 0)
    data = zlib.compress(lines.tobytes(), 9)
    whole = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(whole).decode("ascii")


def contour(values: np.ndarray, level: float) -> list[np.ndarray]:
    """Polylines (k, 2) of (column, row) where the bilinear field crosses ``level`` (marching squares).

    Cell values sit at whole numbers. Squares with a value that is not finite are left out; in a
    saddle square the mean of the corners decides which pairs are joined.
    """
    above = values > level
    corners = above[:-1, :-1] * 1 + above[:-1, 1:] * 2 + above[1:, 1:] * 4 + above[1:, :-1] * 8
    finite = np.isfinite(values)
    whole = finite[:-1, :-1] & finite[:-1, 1:] & finite[1:, 1:] & finite[1:, :-1]
    segments: list[tuple[_Edge, _Edge]] = []
    for i, j in np.argwhere((corners > 0) & (corners < 15) & whole).tolist():
        case = int(corners[i, j])
        if case in (5, 10):
            pairs = _SADDLES[case, bool(values[i : i + 2, j : j + 2].mean() > level)]
        else:
            pairs = (_SIDES[case],)
        segments += [(_edge(one, i, j), _edge(other, i, j)) for one, other in pairs]
    points = {edge: _crossing(values, level, edge) for pair in segments for edge in pair}
    return [np.array([points[edge] for edge in chain]) for chain in _chains(segments)]


_Edge = tuple[str, int, int]
# corner bits: top left 1, top right 2, bottom right 4, bottom left 8; sides: t, r, b, l
_SIDES = {
    **dict.fromkeys((1, 14), "tl"),
    **dict.fromkeys((2, 13), "tr"),
    **dict.fromkeys((4, 11), "rb"),
    **dict.fromkeys((7, 8), "lb"),
    **dict.fromkeys((3, 12), "lr"),
    **dict.fromkeys((6, 9), "tb"),
}
_SADDLES = {
    (5, True): ("tr", "lb"),
    (5, False): ("tl", "rb"),
    (10, True): ("tl", "rb"),
    (10, False): ("tr", "lb"),
}


def _edge(side: str, i: int, j: int) -> _Edge:
    """One name for a side of a square, the same from both neighbors."""
    return {"t": ("h", i, j), "b": ("h", i + 1, j), "l": ("v", i, j), "r": ("v", i, j + 1)}[side]


def _crossing(values: np.ndarray, level: float, edge: _Edge) -> tuple[float, float]:
    kind, i, j = edge
    k, m = (i, j + 1) if kind == "h" else (i + 1, j)
    share = (level - values[i, j]) / (values[k, m] - values[i, j])
    return (j + share, float(i)) if kind == "h" else (float(j), i + share)


def _chains(segments: list[tuple[_Edge, _Edge]]) -> list[list[_Edge]]:
    """Join segments that share an end."""
    at: dict[_Edge, list[int]] = {}
    for number, pair in enumerate(segments):
        for edge in pair:
            at.setdefault(edge, []).append(number)
    free = [True] * len(segments)
    chains = []
    # open lines first, from one of their ends; what is left are closed lines
    order = sorted(range(len(segments)), key=lambda n: min(len(at[e]) for e in segments[n]))
    for start in order:
        if not free[start]:
            continue
        free[start] = False
        a, b = segments[start]
        chain = [b, a] if len(at[b]) == 1 else [a, b]
        while (following := next((n for n in at[chain[-1]] if free[n]), None)) is not None:
            free[following] = False
            one, other = segments[following]
            chain.append(other if one == chain[-1] else one)
        chains.append(chain)
    return chains
