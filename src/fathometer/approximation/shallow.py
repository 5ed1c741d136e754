"""The best one hidden layer can do: free-knot continuous piecewise-linear approximation.

For convex or concave f all optimal pieces have the same error E and join at
``f(knot) -+ E``: the chord over each piece has gap 2E (Liu & Liang 2019 give the conditions). So the knots
and E solve one bidiagonal system, by Newton's method: O(pieces) a step and a few
steps. ``n^2 E`` tends to ``(integral of sqrt|f''|)^2 / 16``. For other f the least number of links in
the tube f +- E is found by `tube`, and E by bisection.

A layer of n - 1 ReLUs that may read the input draws n pieces; without that wire it needs
n - 1 or n units (`ShallowFit.network`).
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fathometer.approximation.jets import derivatives
from fathometer.approximation.network import SkipNetwork
from fathometer.approximation.target import Target, as_target
from fathometer.approximation.tube import least_pieces, shortest_path
from fathometer.errors import CapabilityError, InputError
from fathometer.results import Result
from fathometer.types import Kind

if TYPE_CHECKING:
    from fathometer.drawing.picture import Picture

MOST_KNOTS = 2_000_000


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ShallowFit(Result):
    """A continuous piecewise-linear function, the best with its number of pieces.

    Attributes:
        knots: (pieces + 1,) places, both ends included.
        values: (pieces + 1,) values at the knots.
        error: Its sup distance from f.
        optimal: Whether no continuous fit with as many pieces is better (proved for convex and
            concave f; otherwise that even jumping pieces cannot be fewer at this error).
        gap: Doubt about ``error``, relative.
    """

    knots: np.ndarray
    values: np.ndarray
    error: float
    optimal: bool
    gap: float

    @property
    def value(self) -> float:
        """The sup error."""
        return self.error

    @property
    def kind(self) -> Kind:
        """Exact up to ``gap`` where optimality is proved."""
        return "exact" if self.optimal else "estimate"

    @property
    def pieces(self) -> int:
        """Number of linear pieces."""
        return len(self.knots) - 1

    def network(self, wiring: str = "skip") -> SkipNetwork:
        """One hidden layer that draws this function on its interval.

        With "skip" the output reads x and every inner knot is a unit. With "layered" the units face
        left or right such that the part on the left is free, or one more unit carries x.

        Raises:
            InputError: If the wiring is neither.
        """
        if wiring not in ("skip", "layered"):
            raise InputError(f"wiring is {wiring!r}; there are 'skip' and 'layered'.")
        slopes = np.diff(self.values) / np.diff(self.knots)
        bends = np.diff(slopes)
        units: list[Any] = [({0: 1.0}, -float(c), "relu") for c in self.knots[1:-1]]
        output = {1 + i: float(c) for i, c in enumerate(bends)}
        base = float(self.values[0] - slopes[0] * self.knots[0])
        if wiring == "skip":
            return SkipNetwork(1, units, ({0: float(slopes[0]), **output}, base))
        flat = np.flatnonzero(slopes == 0)
        if len(flat):  # a flat piece: units left of it face left
            first = int(flat[0])
            units = [
                ({0: -1.0}, float(c), "relu") if i < first else ({0: 1.0}, -float(c), "relu")
                for i, c in enumerate(self.knots[1:-1])
            ]
            return SkipNetwork(1, units, (output, float(self.values[first])))
        units.append(({0: 1.0}, -float(self.knots[0]), "relu"))
        return SkipNetwork(1, units, ({**output, len(units): float(slopes[0])}, float(self.values[0])))

    def __call__(self, x: Any) -> np.ndarray:
        """The fit at points (n,)."""
        return np.interp(np.asarray(x, dtype=float), self.knots, self.values)

    def __str__(self) -> str:
        best = "the best" if self.optimal else "found"
        return f"{self.pieces} linear pieces, sup error {self.error:.6g} ({best}; {self.kind})"

    def picture(self) -> "Picture":
        """The fit with its knots."""
        from fathometer.approximation.pictures import shallow_picture

        return shallow_picture(self)


def shallow(
    f: Any,
    domain: Any,
    *,
    pieces: int | None = None,
    error: float | None = None,
    breakpoints: tuple[float, ...] = (),
) -> ShallowFit:
    """Best continuous piecewise-linear fit with free knots, for a number of pieces or an error.

    Args:
        f: A function of one variable, as in `approximate`.
        domain: ``(a, b)``.
        pieces: Number of linear pieces n; or
        error: sup error, for the least number of pieces.
        breakpoints: Known kinks of a callable.

    >>> round(shallow("x^2", (0, 1), pieces=4).error * 8 * 4**2, 9)  # the optimum is 1 / (8 n^2)
    1.0

    Raises:
        InputError: If not exactly one of pieces and error is given, or f jumps.
        CapabilityError: If the knots do not converge.
    """
    target = as_target(f, domain, breakpoints=breakpoints)
    if target.dimension != 1:
        raise InputError(
            f"domain has {target.dimension} intervals; piecewise-linear fits are for one variable."
        )
    if (pieces is None) == (error is None):
        raise InputError("pass either pieces= or error=, one of them.")
    if pieces is not None and (
        isinstance(pieces, bool) or not isinstance(pieces, int) or not 1 <= pieces <= MOST_KNOTS
    ):
        raise InputError(f"pieces is {pieces!r}; a whole number from 1 to {MOST_KNOTS} is needed.")
    if error is not None and not 0 < error < math.inf:
        raise InputError(f"error is {error!r}; a positive number is needed.")
    sign = curvature_sign(target)
    if sign:
        return _convex(target, sign, pieces, error)
    return _general(target, pieces, error)


def curvature_sign(target: Target) -> int:
    """1 for convex, -1 for concave on the whole interval, 0 otherwise (or affine pieces, or kinks)."""
    if target.breakpoints or (target.formula is not None and target.formula.with_kinks()):
        return 0
    a, b = target.interval
    x = a + (b - a) * np.linspace(0.0, 1.0, 2003)[1:-1]
    _, second = derivatives(target, x)
    if np.all(second > 0):
        return 1
    return -1 if np.all(second < 0) else 0


def _convex(target: Target, sign: int, pieces: int | None, error: float | None) -> ShallowFit:
    density = _density(target)
    total = float(density[1][-1])
    if pieces is None:
        goal = float(error or 0.0)
        pieces = max(1, round(total / (4 * math.sqrt(goal))))
        if pieces > MOST_KNOTS:
            raise InputError(
                f"error is {error!r}, which needs about {pieces} pieces; at most {MOST_KNOTS} are built."
            )
        fit = _equalized(target, sign, pieces, density)
        while fit.error > goal * (1 + 1e-13):
            pieces += 1
            fit = _equalized(target, sign, pieces, density)
        while pieces > 1:
            fewer = _equalized(target, sign, pieces - 1, density)
            if fewer.error > goal * (1 + 1e-13):
                break
            pieces, fit = pieces - 1, fewer
        return fit
    return _equalized(target, sign, pieces, density)


def _density(target: Target) -> tuple[np.ndarray, np.ndarray]:
    """Places and the running integral of sqrt|f''|, on a mesh that is graded to both ends."""
    a, b = target.interval
    s = np.linspace(-1.0, 1.0, 8001)
    place = (1 + np.tanh(3.5 * np.sinh(1.2 * s)) / math.tanh(3.5 * math.sinh(1.2))) / 2
    x = a + (b - a) * place
    middle = (x[1:] + x[:-1]) / 2
    _, second = derivatives(target, middle)
    root = np.sqrt(np.abs(np.where(np.isfinite(second), second, 0.0)))
    return x, np.concatenate([[0.0], np.cumsum(root * np.diff(x))])


def _equalized(target: Target, sign: int, n: int, density: tuple[np.ndarray, np.ndarray]) -> ShallowFit:
    """Newton's method on: every chord has the same gap."""
    from scipy.linalg import solve_banded

    a, b = target.interval
    places, running = density
    x = np.interp(np.linspace(0, running[-1], n + 1), running, places)
    x[0], x[-1] = a, b
    best: tuple[float, np.ndarray] = (math.inf, x)
    size = float(np.abs(target.values(x[:: max(1, n // 64)])).max())
    level = 0.0
    for _ in range(60):
        gap, at_left, at_right = _chord_gaps(target, sign, x)
        root = np.sqrt(np.maximum(gap, 0.0))
        spread = float(root.max() - root.min()) / float(root.max() or 1.0)
        if spread < best[0]:
            best = (spread, x.copy())
        # gaps of tiny pieces are differences of large values
        rounding = 4e-16 * size / float(gap.max() or 1.0)
        if n == 1 or spread < max(1e-13, rounding):
            break
        with np.errstate(all="ignore"):
            A, B = at_left / (2 * root), at_right / (2 * root)
        A[0] = B[-1] = 0.0
        if not (np.isfinite(A).all() and np.isfinite(B).all()):
            break
        # equation i < n-1: A_i d_i + B_i d_{i+1} - dE = E - root_i, lower bidiagonal in d_1..d_{n-1}
        level = float(root.mean())
        bands = np.zeros((2, n - 1))
        bands[0] = B[:-1]
        bands[1, :-1] = A[1:-1]
        right = np.column_stack([level - root[:-1], np.ones(n - 1)])
        base, tilt = np.asarray(solve_banded((1, 0), bands, right)).T
        raise_ = (level - root[-1] - A[-1] * base[-1]) / (A[-1] * tilt[-1] - 1.0)
        move = np.concatenate([[0.0], base + raise_ * tilt, [0.0]])
        widths = np.diff(x)
        ratio = float((-np.diff(move) / widths).max())
        x = x + move * min(1.0, 0.7 / ratio if ratio > 0 else 1.0)
        if spread < 1e-9 and best[0] < spread:
            break
    spread, x = best
    if spread > 1e-3:
        raise CapabilityError(
            f"the knots did not converge for {n} pieces (gaps differ by {spread:.2g}); use fewer."
        )
    gap, _, _ = _chord_gaps(target, sign, x)
    error = float(gap.max()) / 2
    values = target.values(x) - sign * error
    return ShallowFit(
        knots=x, values=values, error=error, optimal=True, gap=2 * spread + 4e-16 / max(error, 1e-16)
    )


def _chord_gaps(target: Target, sign: int, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Largest distance of each chord from f, and its derivatives by the two ends."""
    y = sign * target.values(x)
    u, v, slope = x[:-1], x[1:], np.diff(y) / np.diff(x)
    low, high, touch = u.copy(), v.copy(), (u + v) / 2
    for _ in range(60):
        first, second = derivatives(target, touch)
        over = sign * first - slope
        low, high = np.where(over < 0, touch, low), np.where(over > 0, touch, high)
        with np.errstate(all="ignore"):
            step = touch - over / (sign * second)
        # the gap is flat at the touching point: 1e-7 of the piece costs 1e-14 of the gap
        done = np.abs(step - touch) <= 1e-7 * (v - u)
        inside = ((step > low) & (step < high)) | done
        touch = np.where(inside, step, (low + high) / 2)
        if done.all():
            break
    gap = y[:-1] + slope * (touch - u) - sign * target.values(touch)
    at_knots = sign * derivatives(target, x)[0]
    return (
        gap,
        (at_knots[:-1] - slope) * (v - touch) / (v - u),
        (at_knots[1:] - slope) * (touch - u) / (v - u),
    )


def _general(target: Target, pieces: int | None, error: float | None) -> ShallowFit:
    wanted = int(pieces or 1) if error is None else least_pieces(target, error)
    samples = min(400_001, max(8001, 400 * wanted + 1))
    error = _least_tube(target, wanted, samples) if error is None else error
    tube = error
    knots, values = shortest_path(target, tube, samples)
    found = _sup(target, knots, values)
    for _ in range(4):  # a line leaves the tube between two samples: tighten it by what was found
        if pieces is not None or found <= error:
            break
        tube *= error / found * (1 - 1e-6)
        knots, values = shortest_path(target, tube, samples)
        found = _sup(target, knots, values)
    if pieces is None and found > error * 1.001:
        raise InputError(
            f"f cannot be followed within {error:.3g} by continuous pieces (left: {found:.3g}): it jumps, or "
            "bends between samples. Give kinks as breakpoints."
        )
    if pieces is not None and len(knots) - 1 < pieces:
        knots, values = _padded(knots, values, pieces)
    optimal = len(knots) - 1 <= least_pieces(target, found * (1 - 1e-4)) or found < 1e-14
    return ShallowFit(knots=knots, values=values, error=found, optimal=optimal, gap=1e-4)


def _least_tube(target: Target, pieces: int, samples: int) -> float:
    """Half the width of the thinnest tube that so many pieces pass, by bisection."""
    y = target.values(np.linspace(*target.interval, 513))
    low, high = 0.0, float(np.ptp(y)) / 2 + 1e-300
    while len(shortest_path(target, high, samples)[0]) - 1 > pieces:
        high *= 2
    for _ in range(44):
        middle = math.sqrt(low * high) if low else high / 8
        try:
            fits = len(shortest_path(target, middle, samples)[0]) - 1 <= pieces
        except InputError:
            fits = False
        low, high = (low, middle) if fits else (middle, high)
        if high - low < 1e-9 * high or high < 1e-14 * (1 + np.abs(y).max()):
            break
    return high


def _padded(knots: np.ndarray, values: np.ndarray, pieces: int) -> tuple[np.ndarray, np.ndarray]:
    """As many pieces as were asked for, by halving the longest (fewer were enough)."""
    while len(knots) - 1 < pieces:
        i = int(np.diff(knots).argmax())
        middle = (knots[i] + knots[i + 1]) / 2
        values = np.insert(values, i + 1, np.interp(middle, knots, values))
        knots = np.insert(knots, i + 1, middle)
    return knots, values


def _sup(target: Target, knots: np.ndarray, values: np.ndarray) -> float:
    """Largest distance on a grid that is fine on every piece, sharpened around its maxima."""
    shares = np.linspace(0.0, 1.0, 129)
    x = (knots[:-1, None] + np.diff(knots)[:, None] * shares).ravel()
    x = np.concatenate([x, target.breakpoints])
    return float(np.abs(target.values(x) - np.interp(x, knots, values)).max())
