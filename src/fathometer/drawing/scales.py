"""Axes as functions: from data to a straight coordinate, and the ticks in between.

Each scale has a ``warp`` to a coordinate that is drawn linearly: log10 for "log", and
for "signed_log" the odd function that is linear up to the threshold and grows by one
for each decade beyond it. Limits are found in the warped coordinate.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from fathometer.drawing.picture import Axis, Band, Bars, Graph, HeatMap, Line, Mark, Panel, Points
from fathometer.drawing.texts import number, power_of_ten

_PAD = 0.04


@dataclass(frozen=True)
class Tick:
    """A place on an axis; ``label`` is empty for a minor tick."""

    value: float
    label: str


@dataclass(frozen=True)
class Scaling:
    """An axis laid out between two pixels.

    Attributes:
        axis: Whose scale it is.
        low, high: Data values at the two ends.
        start, end: Pixels of ``low`` and ``high``.
    """

    axis: Axis
    low: float
    high: float
    start: float
    end: float

    def __call__(self, values: Any) -> np.ndarray:
        """Pixels of ``values``; NaN where the scale has no place for them."""
        low, high = warp(self.axis, np.array([self.low, self.high]))
        share = (warp(self.axis, numbers(values)) - low) / (high - low)
        return self.start + share * (self.end - self.start)

    def one(self, value: float) -> float:
        """The pixel of one value."""
        return float(self(np.array([value]))[0])


def numbers(values: Any) -> np.ndarray:
    """``values`` as float64 numpy, also from a torch tensor on any device."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    return np.asarray(values, dtype=np.float64)


def warp(axis: Axis, values: np.ndarray) -> np.ndarray:
    """The coordinate that is drawn linearly; NaN outside of the scale's domain."""
    if axis.scale == "log":
        positive = np.where(values > 0, values, np.nan)
        return np.log10(positive)
    if axis.scale == "signed_log":
        size = np.abs(values) / axis.threshold
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.sign(values) * np.where(size > 1, 1 + np.log10(size), size)
    return values


def unwarp(axis: Axis, value: float) -> float:
    """The data value at a warped coordinate."""
    if axis.scale == "log":
        return 10.0**value
    if axis.scale == "signed_log":
        size = axis.threshold * (10.0 ** (abs(value) - 1) if abs(value) > 1 else abs(value))
        return math.copysign(size, value)
    return value


def drawable(axis: Axis, values: Any) -> np.ndarray:
    """Which of ``values`` have a place on the axis: finite, and positive on "log"."""
    return np.isfinite(warp(axis, numbers(values)))


def extent(mark: Mark, panel: Panel) -> tuple[np.ndarray, np.ndarray, tuple[float, ...], tuple[float, ...]]:
    """What a mark needs of the axes: x values, y values, and x and y ends that take no margin."""
    if isinstance(mark, Line | Points):
        return *_extent_of_points(mark, panel), (), ()
    if isinstance(mark, Bars):
        edges, heights = numbers(mark.edges), numbers(mark.heights)
        if panel.y.scale == "log":
            positive = heights[drawable(panel.y, heights)]
            floor = positive.min(initial=np.inf) / 2
            return edges, np.append(positive, floor), (edges.min(), edges.max()), (floor,)
        return edges, np.append(heights, 0.0), (edges.min(), edges.max()), (0.0,)
    if isinstance(mark, Band):
        return numbers(mark.x), np.concatenate([numbers(mark.lower), numbers(mark.upper)]), (), ()
    if isinstance(mark, HeatMap):
        x, y = np.array(mark.x_range), np.array(mark.y_range)
        return x, y, tuple(mark.x_range), tuple(mark.y_range)
    if isinstance(mark, Graph):
        positions = numbers(mark.positions).reshape(-1, 2)
        margin = 0.08 * (np.ptp(positions, axis=0) + 1e-12) if len(positions) else np.zeros(2)
        wide = np.concatenate([positions - margin, positions + margin])
        return wide[:, 0], wide[:, 1], (), ()
    x, y = (np.empty(0) if place is None else np.array([place]) for place in (mark.x, mark.y))
    return x, y, (), ()  # a rule has one of the two, a note both


def _extent_of_points(mark: Line | Points, panel: Panel) -> tuple[np.ndarray, np.ndarray]:
    x, y = numbers(mark.x).ravel(), numbers(mark.y).ravel()
    both = drawable(panel.x, x) & drawable(panel.y, y)
    x, y = x[both], y[both]
    if isinstance(mark, Points) and mark.error is not None:
        error = np.broadcast_to(numbers(mark.error), both.shape)[both]
        error = np.where(np.isfinite(error), error, 0.0)
        y = np.concatenate([y, y - error, y + error])
    return x, y


def limits(panel: Panel) -> tuple[tuple[float, float], tuple[float, float]]:
    """Lowest and highest value of both axes."""
    parts = [extent(mark, panel) for mark in panel.marks]
    ends = []
    for axis, values, hard in ((panel.x, 0, 2), (panel.y, 1, 3)):
        together = np.concatenate([np.empty(0), *(part[values] for part in parts)])
        fixed = tuple(v for part in parts for v in part[hard])
        if axis is panel.y and axis.scale == "log" and fixed and np.isfinite(min(fixed)):
            # the tail of a curve must not press the bars of a histogram flat
            together = together[together >= min(fixed)]
        ends.append(_ends(axis, together, fixed))
    return ends[0], ends[1]


def _ends(axis: Axis, values: np.ndarray, hard: tuple[float, ...]) -> tuple[float, float]:
    if axis.limits is not None:
        return axis.limits
    if axis.scale == "category" and axis.categories:
        return -0.5, len(axis.categories) - 0.5
    flat = warp(axis, values)
    flat = flat[np.isfinite(flat)]
    if not len(flat):
        return (0.1, 1.0) if axis.scale == "log" else (0.0, 1.0)
    low, high = float(flat.min()), float(flat.max())
    fixed = warp(axis, np.array(hard)) if hard else np.empty(0)
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        pad = 0.5 if axis.scale == "log" else (abs(high) / 10 or 1.0)
        return unwarp(axis, low - pad), unwarp(axis, high + pad)
    pad = _PAD * (high - low)
    low = low if np.isclose(fixed, low, rtol=0, atol=1e-9 * pad).any() else low - pad
    high = high if np.isclose(fixed, high, rtol=0, atol=1e-9 * pad).any() else high + pad
    return unwarp(axis, low), unwarp(axis, high)


def ticks(axis: Axis, low: float, high: float, count: int) -> list[Tick]:
    """About ``count`` labeled ticks between ``low`` and ``high``, and minor ones on a log axis."""
    low, high = min(low, high), max(low, high)
    if axis.scale == "category":
        return [
            Tick(i, name) for i, name in enumerate(axis.categories) if low - 1e-9 <= i <= high + 1e-9
        ] or _linear(low, high, count)
    if axis.scale == "log":
        return _log(low, high, count)
    if axis.scale == "signed_log":
        return _signed(axis, low, high, count)
    return _linear(low, high, count)


def _linear(low: float, high: float, count: int) -> list[Tick]:
    """Multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(m for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    values = [i * step for i in range(first, last + 1)]
    largest = max((abs(v) for v in values), default=0.0)
    if largest >= 1e5 or (largest and largest < 1e-3):
        digits = 1 + max(0, math.floor(math.log10(largest)) - math.floor(math.log10(step)))
        return [Tick(v, number(v, digits)) for v in values]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [Tick(v, f"{v + 0.0:.{decimals}f}".replace("-", "−")) for v in values]


def _log(low: float, high: float, count: int) -> list[Tick]:
    """Powers of ten, thinned to about ``count``; below two decades also 2 and 5, or even steps."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    if last - first >= 1:
        stride = max(1, math.ceil((last - first + 1) / max(count, 2)))
        plain = first >= -3 and last <= 4
        major = [
            Tick(10.0**e, number(10.0**e) if plain else power_of_ten(e))
            for e in range(first, last + 1)
            if (e - first) % stride == 0
        ]
        if stride > 1:
            return [*major, *(Tick(10.0**e, "") for e in range(first, last + 1) if (e - first) % stride)]
        if last - first > 7:
            return major
        between = [m * 10.0**e for e in range(first - 1, last + 1) for m in range(2, 10)]
        return [*major, *(Tick(v, "") for v in between if low <= v <= high)]
    few = [m * 10.0**e for e in range(first - 1, last + 1) for m in (1, 2, 5)]
    few = [v for v in few if low * (1 - 1e-9) <= v <= high * (1 + 1e-9)]
    return [Tick(v, number(v)) for v in few] if len(few) > 1 else _linear(low, high, count)


def _signed(axis: Axis, low: float, high: float, count: int) -> list[Tick]:
    """Zero, and plus and minus the threshold times powers of ten."""
    largest = max(abs(low), abs(high))
    decades = max(0, math.floor(math.log10(largest / axis.threshold) + 1e-9))
    if largest <= axis.threshold:
        return _linear(low, high, count)
    stride = max(1, math.ceil(2 * (decades + 1) / max(count - 1, 1)))
    sizes = [axis.threshold * 10.0**k for k in range(decades + 1)]
    values = [-v for v in reversed(sizes)] + [0.0] + sizes
    shown = {0.0} | {s * v for i, v in enumerate(sizes) if (decades - i) % stride == 0 for s in (-1.0, 1.0)}
    return [
        Tick(v, _signed_label(v) if v in shown else "")
        for v in values
        if low - 1e-9 * largest <= v <= high + 1e-9 * largest
    ]


def _signed_label(value: float) -> str:
    exponent = math.log10(abs(value)) if value else 0.5
    if abs(exponent - round(exponent)) < 1e-9 and not -2 <= exponent <= 3:
        return ("−" if value < 0 else "") + power_of_ten(round(exponent))
    return number(value, 2)
