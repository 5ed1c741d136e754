"""Certificates in several dimensions: branch and bound over boxes.

On a box each unit is ``center + slopes . e +- rest`` for e in [-1, 1]^d; a ReLU that may bend inside
is replaced by the line and the slack that hold both branches, and a step by its two values. The
function is enclosed by its mean value form, with the gradient over the box in ball arithmetic. The
worst boxes are halved along the side that contributes most. Sums of floats carry a bound on
their own rounding, so the upper bound is never below the true error.
"""

import heapq
import math
from itertools import count
from typing import Any

import numpy as np

from fathometer.approximation.expression import BallArithmetic, evaluate, flint
from fathometer.approximation.network import SkipNetwork
from fathometer.approximation.target import Target

MOST_BOXES = 20_000
_BATCH = 32
_UNIT = 2.0**-52


class BoxSearch:
    """Bounds on ``|network - f|`` over boxes of the domain, the worst first."""

    def __init__(self, network: SkipNetwork, target: Target) -> None:
        self.network, self.target = network, target
        self.rows = [(np.array(list(w), dtype=int), np.array(list(w.values())), b, kind)
                     for w, b, kind in (*network.definition(), (*network.output, "output"))]  # fmt: skip
        self.arb = flint().arb
        self.values, self.slopes = BallArithmetic(0), BallArithmetic(2)
        self.lower, self.worst_at = 0.0, tuple(a for a, _ in target.domain)
        self.heap: list[tuple[float, int, np.ndarray, np.ndarray, int]] = []
        self.order = count()
        self.boxes = 0

    def run(self, tolerance: float, most: int = MOST_BOXES) -> float:
        """The upper bound, when it is within the tolerance of the lower one or enough boxes were seen."""
        box = np.array(self.target.domain)
        self._add(box[None, :, 0], box[None, :, 1])
        while self.boxes < most:
            upper = -self.heap[0][0]
            if upper <= self.lower * (1 + tolerance) + 1e-300:
                break
            lows, highs = [], []
            for _ in range(min(_BATCH, len(self.heap))):
                if -self.heap[0][0] <= self.lower * (1 + tolerance):
                    break
                _, _, low, high, side = heapq.heappop(self.heap)
                middle = (low[side] + high[side]) / 2
                left, right = high.copy(), low.copy()
                left[side] = right[side] = middle
                lows += [low, right]
                highs += [left, high]
            self._add(np.array(lows), np.array(highs))
        return -self.heap[0][0]

    def _add(self, low: np.ndarray, high: np.ndarray) -> None:
        center = (low + high) / 2
        half = np.maximum(high - center, center - low)
        at, tilt, rest = self._network(center, half)
        for i in range(len(low)):
            bound, side = self._bound(center[i], half[i], at[i], tilt[i], rest[i])
            heapq.heappush(self.heap, (-bound, next(self.order), low[i], high[i], side))
        self.boxes += len(low)

    def _network(self, center: np.ndarray, half: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Center (boxes,), slopes (boxes, d) and rest (boxes,) of the output."""
        boxes, d = center.shape
        n = d + len(self.rows) - 1
        at, tilt, rest = np.empty((n, boxes)), np.zeros((n, boxes, d)), np.zeros((n, boxes))
        at[:d] = center.T
        for k in range(d):
            tilt[k, :, k] = half[:, k]
        for j, row in enumerate(self.rows[:-1]):
            at[d + j], tilt[d + j], rest[d + j] = _activated(row[3], *_affine(row, at, tilt, rest))
        return _affine(self.rows[-1], at, tilt, rest)

    def _bound(
        self, center: np.ndarray, half: np.ndarray, at: float, tilt: np.ndarray, rest: float
    ) -> tuple[float, int]:
        """Upper bound on one box, and the side to halve next."""
        arb, names = self.arb, self.target.variables
        tree: Any = self.target.formula
        points = [arb(float(c)) for c in center]
        value = evaluate(tree, dict(zip(names, points, strict=True)), self.values)
        gap = arb(float(at)) - value
        self._see(center, float(abs(gap).abs_lower()) - float(rest))
        balls = [arb(float(c), float(h)) for c, h in zip(center, half, strict=True)]
        contributions = np.empty(len(center))
        total = gap.abs_upper() + arb(float(rest))
        for k, name in enumerate(names):
            slope = self._slope(tree, names, balls, name)
            part = (arb(float(tilt[k])) - slope * arb(float(half[k]))).abs_upper()
            contributions[k] = float(abs(slope * arb(float(half[k]))).upper()) + abs(float(tilt[k]))
            total = total + part
        bound = float(total.upper())
        if not math.isfinite(bound):  # a kink inside: ranges, side by side
            whole = evaluate(tree, dict(zip(names, balls, strict=True)), self.values)
            reach = arb(float(at), float(np.abs(tilt).sum() * (1 + 1e-14) + rest))
            bound = float((reach - whole).abs_upper().upper())
            contributions = half
        return (bound * (1 + 1e-15) if math.isfinite(bound) else math.inf), int(
            np.nan_to_num(contributions).argmax()
        )

    def _slope(self, tree: Any, names: tuple[str, ...], balls: list[Any], by: str) -> Any:
        """Enclosure of one partial derivative over a box."""
        series, context = self.slopes.flint.arb_series, self.slopes.flint.ctx
        cap, context.cap = context.cap, 2
        try:
            inputs = {
                name: series([ball, 1 if name == by else 0], 2)
                for name, ball in zip(names, balls, strict=True)
            }
            return evaluate(tree, inputs, self.slopes)[1]
        finally:
            context.cap = cap

    def _see(self, center: np.ndarray, seen: float) -> None:
        """The network at the center differs from its relaxation by at most the rest."""
        exact = float(self.network(center[None])[0])
        tree: Any = self.target.formula
        points = dict(zip(self.target.variables, map(self.arb, center.tolist()), strict=True))
        value = evaluate(tree, points, self.values)
        slack = 1e-13 * (1 + abs(exact) + self.network.largest_weight)
        seen = max(seen, float(abs(self.arb(exact) - value).abs_lower()) - slack)
        if seen > self.lower:
            self.lower, self.worst_at = seen, tuple(center.tolist())


def _affine(
    row: tuple[Any, ...], at: np.ndarray, tilt: np.ndarray, rest: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Center, slopes and rest of one row of weights; the rest also holds what rounding may add."""
    index, weights, bias, _ = row
    c = weights @ at[index] + bias
    g = np.tensordot(weights, tilt[index], 1)
    r = np.abs(weights) @ rest[index]
    size = np.abs(weights) @ (np.abs(at[index]) + np.abs(tilt[index]).sum(axis=2) + rest[index])
    return c, g, r + (len(index) + 4) * _UNIT * (size + abs(bias))


def _activated(
    kind: str, c: np.ndarray, g: np.ndarray, r: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The unit of ``c + g.e +- r``: exact where its sign is certain."""
    reach = (np.abs(g).sum(axis=1) + r) * (1 + 1e-14)
    low, high = c - reach, c + reach
    if kind == "step":
        on, off = low >= 0, high < 0
        unsure = ~(on | off)
        return np.where(on, 1.0, np.where(off, 0.0, 0.5)), np.zeros_like(g), np.where(unsure, 0.5, 0.0)
    with np.errstate(all="ignore"):
        slope = np.where(low >= 0, 1.0, np.where(high <= 0, 0.0, high / (high - low)))
    bend = np.where((low < 0) & (high > 0), -slope * low / 2, 0.0)
    rest = slope * r + bend * (1 + 1e-14) + 8 * _UNIT * (np.abs(c) + reach)
    return slope * c + bend, slope[:, None] * g, np.where(high <= 0, 0.0, rest)
