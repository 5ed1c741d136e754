"""Functions as Chebyshev series, in one variable or on a box.

A smooth function is determined by few values at the points cos(j pi / n): the interpolant
there is within a factor 2 + (2/pi) log(n + 1) of the best polynomial of its degree
(Trefethen 2013, thm. 15.2), and its coefficients, one cosine transform away, decay as fast
as the function is smooth. The points of n intervals are among those of 2 n, so that
refining never throws a value away. On a box the same is done along every axis.

Cost: n function values; O(n log n) for the coefficients, O(n) for each value read off (on a
grid: two small matrix products).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import ArrayLike, NDArray
from scipy.fft import dct

from fathometer.errors import InputError

Interval = tuple[float, float]


def chebyshev_points(count: int, interval: Interval = (-1.0, 1.0)) -> NDArray[np.float64]:
    """The ``count`` extreme points of a Chebyshev polynomial, ascending, both ends included.

    Raises:
        InputError: If there are fewer than two, or the interval is empty or not finite.

    >>> chebyshev_points(3, (0, 8)).tolist()
    [0.0, 4.0, 8.0]
    """
    low, high = _checked(interval)
    if count < 2:
        raise InputError(f"count is {count}; both ends are points, so at least 2 are needed.")
    j = np.arange(count)
    t = np.sin(np.pi * (2 * j - (count - 1)) / (2 * (count - 1)))  # exactly odd, unlike the cosine
    points = 0.5 * (low + high) + 0.5 * (high - low) * t
    points[0], points[-1] = low, high
    return points


@dataclass(frozen=True, kw_only=True, eq=False)
class ChebyshevSeries:
    """A polynomial on a box, by its Chebyshev coefficients.

    Attributes:
        coefficients: (n_1, ..., n_d); entry (i, j, ...) belongs to T_i(s) T_j(t) ...
        intervals: One (low, high) for each axis.
    """

    coefficients: NDArray[np.float64]
    intervals: tuple[Interval, ...]

    @classmethod
    def through(cls, values: ArrayLike, intervals: Sequence[Interval]) -> "ChebyshevSeries":
        """The interpolant of ``values`` (n_1, ..., n_d) at the `chebyshev_points` of the axes' ``intervals``.

        Raises:
            InputError: If there is not one interval for each axis, an axis has fewer than two values, or
                a value is not finite.
        """
        c = np.array(values, dtype=np.float64)
        box = tuple(_checked(interval) for interval in intervals)
        if c.ndim != len(box) or c.ndim == 0 or min(c.shape) < 2:
            raise InputError(
                f"values has shape {c.shape} for {len(box)} intervals; "
                "one axis of two or more points is needed for each."
            )
        if not np.isfinite(c).all():
            bad = tuple(int(i) for i in np.argwhere(~np.isfinite(c))[0])
            raise InputError(f"values{list(bad)} is not finite; a polynomial has finite values.")
        for axis, n in enumerate(c.shape):
            c = np.asarray(dct(np.flip(c, axis), type=1, axis=axis)) / (n - 1)
            ends = np.moveaxis(c, axis, 0)
            ends[0] /= 2
            ends[-1] /= 2
        return cls(coefficients=c, intervals=box)

    def __call__(self, *coordinates: ArrayLike) -> NDArray[np.float64]:
        """Values at points given by one array for each axis, all of one shape.

        Raises:
            InputError: If the number of coordinates is wrong or a point lies outside the box.
        """
        bases = self._bases(coordinates)
        shape = np.broadcast_shapes(*(np.shape(x) for x in coordinates))
        flat = [np.broadcast_to(b, (*shape, b.shape[-1])).reshape(-1, b.shape[-1]) for b in bases]
        # one axis after the other: the first is contracted for all points, the rest point by point
        values = np.tensordot(flat[0], self.coefficients, axes=(1, 0))
        for basis in flat[1:]:
            values = np.einsum("pi...,pi->p...", values, basis)
        return values.reshape(shape)

    def on_grid(self, *axes: ArrayLike) -> NDArray[np.float64]:
        """Values (m_1, ..., m_d) on the grid of one array of points for each axis.

        Raises:
            InputError: If the number of axes is wrong or a point lies outside the box.
        """

        def contract(values: NDArray[np.float64], basis: NDArray[np.float64]) -> NDArray[np.float64]:
            # takes the first axis off and puts the new one last: after d turns the order is the old one
            return np.tensordot(values, basis, axes=(0, 1))

        return reduce(contract, self._bases([np.ravel(x) for x in axes]), self.coefficients)

    def derivative(self, axis: int = 0) -> "ChebyshevSeries":
        """The derivative along one axis, in 1/units of that axis.

        Raises:
            InputError: If there is no such axis.
        """
        if not 0 <= axis < len(self.intervals):
            raise InputError(f"axis is {axis}; this series has axes 0 to {len(self.intervals) - 1}.")
        low, high = self.intervals[axis]
        c = chebyshev.chebder(self.coefficients, scl=2 / (high - low), axis=axis)
        return ChebyshevSeries(coefficients=np.asarray(c, dtype=np.float64), intervals=self.intervals)

    def integral(self) -> float:
        """The integral over the box, in units of the values times the box."""
        total = self.coefficients
        for low, high in self.intervals:
            n = np.arange(0, len(total), 2)
            total = np.tensordot((high - low) / (1.0 - n.astype(float) ** 2), total[::2], axes=1)
        return float(total)

    def tail(self) -> float:
        """What the highest coefficients add up to: an estimate of the error where they decay.

        The last tenth along each axis, two at least: one alone may vanish by symmetry.
        """
        size = np.abs(self.coefficients)
        inner = size[tuple(slice(0, n - min(n, max(2, n // 10))) for n in size.shape)]
        return float(size.sum() - inner.sum())

    def _bases(self, coordinates: Sequence[ArrayLike]) -> list[NDArray[np.float64]]:
        if len(coordinates) != len(self.intervals):
            raise InputError(
                f"{len(coordinates)} coordinates were given; this series has {len(self.intervals)} axes."
            )
        bases = []
        for x, (low, high), n in zip(coordinates, self.intervals, self.coefficients.shape, strict=True):
            x = np.asarray(x, dtype=np.float64)
            slack = 1e-12 * (high - low)
            outside = ~((x >= low - slack) & (x <= high + slack))
            if outside.any():
                raise InputError(
                    f"the point {float(x[outside].flat[0])} lies outside ({low}, {high}), "
                    "where the series says nothing."
                )
            bases.append(chebyshev.chebvander((2 * x - low - high) / (high - low), n - 1))
        return bases


def chebyshev_series(
    f: Callable[[NDArray[np.float64]], ArrayLike],
    interval: Interval = (-1.0, 1.0),
    tolerance: float = 1e-14,
    most: int = 1025,
) -> ChebyshevSeries:
    """The series of a function of one variable, as long as it has to be.

    Values are doubled, reusing those there are, until the tail of the coefficients is below the tolerance;
    then the negligible coefficients are cut.

    Args:
        f: Maps points (n,) to values (n,).
        interval: Where f is wanted, (low, high).
        tolerance: Of the tail, relative to the largest coefficient.
        most: Points beyond which f is called not smooth.

    Raises:
        InputError: If f has a value that is not finite or another shape, or the coefficients do not decay.

    >>> len(chebyshev_series(lambda x: 3 * x**2 + x).coefficients)
    3
    """
    values = _values(f, chebyshev_points(9, interval))
    while True:
        series = ChebyshevSeries.through(values, [interval])
        size = np.abs(series.coefficients)
        level = tolerance * float(size.max())
        if series.tail() <= level * np.sqrt(len(values)):
            kept = np.flatnonzero(size > level)
            last = int(kept[-1]) + 1 if len(kept) else 1
            return ChebyshevSeries(coefficients=series.coefficients[:last], intervals=series.intervals)
        if 2 * len(values) - 1 > most:
            raise InputError(
                f"f is not smooth enough on {series.intervals[0]}: with {len(values)} points the highest "
                f"coefficients still add up to {series.tail():.2g}. Cut the interval at kinks and jumps."
            )
        finer = np.empty(2 * len(values) - 1)
        finer[::2] = values
        finer[1::2] = _values(f, chebyshev_points(len(finer), interval)[1::2])
        values = finer


def _values(
    f: Callable[[NDArray[np.float64]], ArrayLike], points: NDArray[np.float64]
) -> NDArray[np.float64]:
    values = np.asarray(f(points), dtype=np.float64)
    if values.shape != points.shape:
        raise InputError(f"f gave shape {values.shape} for points of shape {points.shape}; they must agree.")
    if not np.isfinite(values).all():
        raise InputError(f"f({float(points[~np.isfinite(values)][0])}) is not finite.")
    return values


def _checked(interval: Interval) -> Interval:
    low, high = (float(end) for end in interval)
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise InputError(f"interval is ({low}, {high}); two finite ends in ascending order are needed.")
    return low, high
