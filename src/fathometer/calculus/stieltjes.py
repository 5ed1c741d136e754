"""Stieltjes inversion for laws whose transform has a rational inverse.

The densities, distribution functions, bands and atoms of the laws of random matrix theory
come from one rational function for each law. Such a law is freely infinitely divisible with
finitely many jumps. In the variable ``w = 1/G``, where ``G(z)`` is the mean of
``1/(z - t)`` over the spectrum, it is a rational function with positive weights,

    z(w) = w + mean + sum_j a_j / (w - p_j),        a_j > 0.

A jump ``p_j = 0`` is a semicircle of variance ``a_j``; a jump ``p_j != 0`` is a stream of
rank-one terms of size ``p_j`` (a Wishart matrix is one such stream). Adding free matrices
adds the means and joins the jumps.

Facts used below; each follows from z(w) being real only where w is. For every z in the upper
half plane exactly one of the n roots w lies in the upper half plane, and that root is 1/G(z).
So the complex pair of roots over a real x, if there is one, is the boundary value, and x is
inside the support. Each gap between neighboring jumps holds a real root for every real x:
bisection finds n - 2 roots without fail, and a quadratic is left for the pair. Between
jumps z'(w) - 1 is a negative concave function: every band edge is one bracketed root of z'.
The law has an atom where w = 0 lies outside the bands, of mass z'(0).

The distribution function is closed: ``U(z) = mean of log(z - t)`` equals ``z G - 1 - log G``
minus the integral of the R-transform from 0 to G, with principal logarithms (G stays
in the lower half plane, so none of them is ever crossed), and ``F(x) = 1 - Im U(x + i0)/pi``.

Cost: a few vectorized passes over the points; 10,000 densities take some 10 ms.
"""

import math
from collections.abc import Callable
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq

from fathometer.errors import InputError

Complex = NDArray[np.complex128]

_BISECTIONS = 58
_POLISHES = 3
_SERIES_RADIUS = 0.3
_SERIES_TERMS = 32


class Law:
    """A limiting spectrum, known through its mean and its jumps; see the module for the theory."""

    def jumps(self) -> tuple[float, list[tuple[float, float]]]:
        """The mean and the (position, weight) of every jump; each law says its own."""
        raise NotImplementedError  # pragma: no cover

    def free_cumulant(self, order: int) -> float:
        """The free cumulant of an ``order`` from 1 on: the mean, the variance, ...; they add in free sums."""
        mean, jumps = self.jumps()
        return mean if order == 1 else float(sum(weight * at ** (order - 2) for at, weight in jumps))

    def pdf(self, x: Any) -> Any:
        """Density of the continuous part at ``x`` (any shape), in 1/units of the eigenvalues.

        Zero outside the support, infinite at a hard edge. Atoms are not in it; see `atoms`.

        Args:
            x: Points, numpy, torch or a number; the same kind comes back, in float64.

        Raises:
            InputError: If a point is NaN.
        """
        return like_input(x, self._pdf)

    def cdf(self, x: Any) -> Any:
        """Share of the eigenvalues at or below ``x`` (any shape), atoms included, in closed form.

        Raises:
            InputError: If a point is NaN.
        """
        return like_input(x, self._cdf)

    def stieltjes(self, z: Any) -> Any:
        """The transform ``G(z)``: mean of ``1/(z - t)`` over the spectrum, for complex ``z`` (any shape).

        On the real axis: the limit from above, so that the density is ``-Im G / pi``.

        Raises:
            InputError: If a point is not finite.
        """
        return like_input(z, self._stieltjes, complex_values=True)

    def support(self) -> list[tuple[float, float]]:
        """All bands of the continuous part, ascending, as (lower, upper) edges."""
        return [(float(self._z(lower)), float(self._z(upper))) for lower, upper in self._bands]

    def atoms(self) -> list[tuple[float, float]]:
        """Eigenvalues of positive share, as (position, mass)."""
        origin, mass = self._origin
        return [(origin, mass)] if mass > 0 else []

    def index(self) -> float:
        """Share of the eigenvalues strictly below zero, in closed form.

        The transform counts half of an atom at zero on either side; that half is not in the index.
        """
        below = self._cdf(np.zeros(1))[0] - sum(mass for x, mass in self.atoms() if x == 0)
        return float(max(below, 0.0))

    # What follows works on float64 arrays of one dimension.

    @cached_property
    def _parts(self) -> tuple[float, np.ndarray, np.ndarray]:
        """Mean, jump positions (ascending, different) and their weights (positive)."""
        mean, jumps = self.jumps()
        merged: dict[float, float] = {}
        for at, weight in jumps:
            if weight > 0:
                merged[at] = merged.get(at, 0.0) + weight
        order = sorted(merged)
        return mean, np.array(order, dtype=float), np.array([merged[at] for at in order], dtype=float)

    @cached_property
    def _origin(self) -> tuple[float, float]:
        """Where G is infinite: z(0), and the slope there, which is the mass of the atom if positive.

        A slope of minus infinity means that a jump at zero has smeared the atom out.
        """
        mean, at, weight = self._parts
        if (at == 0).any():
            return math.nan, -math.inf
        position, slope = mean - float((weight / at).sum()), 1.0 - float((weight / at**2).sum())
        rounding = 1e-14 * (abs(mean) + float(np.abs(weight / at).sum()))
        return position if abs(position) > rounding else 0.0, slope if abs(slope) > 1e-14 else 0.0

    def _z(self, w: Any) -> Any:
        """The rational function, arranged so that it is exact near w = 0 where it can be."""
        mean, at, weight = self._parts
        away = np.asarray(w)[..., None] - at
        if math.isnan(self._origin[0]):
            return w + mean + (weight / away).sum(-1)
        return self._origin[0] + w * (1.0 + (weight / at / away).sum(-1))

    def _slope(self, w: Any) -> Any:
        _, at, weight = self._parts
        return 1.0 - (weight / (np.asarray(w)[..., None] - at) ** 2).sum(-1)

    @cached_property
    def _bands(self) -> list[tuple[float, float]]:
        """The bands as intervals of w, between neighboring zeros of the slope."""
        _, at, weight = self._parts
        total = math.sqrt(weight.sum())
        ends = [_root(self._slope, at[0] - total, at[0] - math.sqrt(weight[0]))]
        for left, right in pairwise(at):
            ends.extend(self._gap(left, right))
        ends.append(_root(self._slope, at[-1] + math.sqrt(weight[-1]), at[-1] + total))
        if self._origin[1] == 0:  # a hard edge: one band ends exactly at w = 0
            ends[int(np.argmin(np.abs(ends)))] = 0.0
        return list(zip(ends[::2], ends[1::2], strict=True))

    def _gap(self, left: float, right: float) -> list[float]:
        """The zeros of the slope between two jumps: two, or none where bands have merged."""
        _, at, weight = self._parts

        def curvature(w: float) -> float:
            return float((weight / (w - at) ** 3).sum())

        margin = 1e-9 * (right - left)
        if curvature(left + margin) < 0 or curvature(right - margin) > 0:
            return []  # the jumps coincide up to rounding
        top = _root(curvature, left + margin, right - margin)
        if self._slope(top) <= 0:
            return []
        near = 0.5 * np.sqrt(weight)
        first = _root(self._slope, left + min(float(near[at == left][0]), 0.5 * (top - left)), top)
        last = _root(self._slope, top, right - min(float(near[at == right][0]), 0.5 * (right - top)))
        return [first, last]

    @cached_property
    def _levels(self) -> np.ndarray:
        """Continuous mass below each gap (bands + 1,), from the angles of the logarithms."""
        _, at, weight = self._parts
        inner = [_inside(upper, lower) for (_, upper), (lower, _) in pairwise(self._bands)]
        ratio = np.divide(weight, at**2, out=np.zeros_like(at), where=at != 0)
        levels = []
        for w in inner:
            above = float(w < 0) + float((ratio * np.sign(at) * ((w - at) / w < 0)).sum())
            position = float(self._z(w))
            levels.append(1.0 - above - sum(mass for x, mass in self.atoms() if x < position))
        return np.array([0.0, *levels, 1.0 - sum(mass for _, mass in self.atoms())])

    def _locate(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which points lie strictly inside a band, and the number of bands that begin below each."""
        edges = np.array(self.support())
        begun = np.searchsorted(edges[:, 0], x, side="left")
        last = np.maximum(begun - 1, 0)
        return (begun > 0) & (x < edges[last, 1]), begun

    def _pair(self, x: np.ndarray) -> Complex:
        """The root w with positive imaginary part at points ``x`` inside the bands."""
        mean, at, weight = self._parts
        d = x - mean
        roots = [self._real_root(x, j) for j in range(len(at) - 1)]
        known = sum(roots, np.zeros_like(d))
        half = 0.5 * (d + at.sum() - known)
        pairs_known = sum(
            (roots[i] * roots[j] for j in range(len(roots)) for i in range(j)), np.zeros_like(d)
        )
        pairs_at = 0.5 * (at.sum() ** 2 - (at**2).sum())
        product = d * at.sum() + pairs_at + weight.sum() - 2 * half * known - pairs_known
        if len(at) == 1:  # the quadratic, from its edges: exact up to rounding near them too
            (low, high), *_ = self.support()
            height = 0.25 * (x - low) * (high - x)
        else:
            height = product - half**2
        w = half + 1j * np.sqrt(np.maximum(height, 0.0))
        return w if len(at) == 1 else self._polish(w, x)

    def _real_root(self, x: np.ndarray, j: int) -> np.ndarray:
        """A real root between jumps j and j + 1, where z falls from plus to minus infinity."""
        mean, at, weight = self._parts
        span = at[j + 1] - at[j]
        low, high = np.zeros_like(x), np.ones_like(x)
        others = [k for k in range(len(at)) if k not in (j, j + 1)]
        for _ in range(_BISECTIONS):
            t = 0.5 * (low + high)
            w = at[j] + t * span
            # distances to the two ends from t itself: they stay exact next to a jump
            value = w + mean - x + (weight[j] / t + weight[j + 1] / (t - 1.0)) / span
            for k in others:
                value = value + weight[k] / (w - at[k])
            above = value > 0
            low, high = np.where(above, t, low), np.where(above, high, t)
        return at[j] + 0.5 * (low + high) * span

    def _polish(self, w: Complex, x: np.ndarray) -> Complex:
        """Newton steps on z(w) = x that never leave the upper half plane."""
        mean, at, weight = self._parts
        for _ in range(_POLISHES):
            error, slope = w + mean - x, np.ones_like(w)
            for a, p in zip(weight, at, strict=True):
                inverse = 1.0 / (w - p)
                error, slope = error + a * inverse, slope - a * inverse**2
            step = np.divide(error, slope, out=np.zeros_like(w), where=slope != 0)
            w = np.where(np.abs(step) < 0.5 * w.imag, w - step, w)
        return w

    def _pdf(self, x: np.ndarray) -> np.ndarray:
        inside, _ = self._locate(x)
        density = np.zeros_like(x)
        w = self._pair(x[inside])
        density[inside] = w.imag / (math.pi * np.abs(w) ** 2)
        if self._origin[1] == 0:
            density[x == self._origin[0]] = math.inf
        return density

    def _cdf(self, x: np.ndarray) -> np.ndarray:
        inside, begun = self._locate(x)
        share = self._levels[begun]
        G = 1.0 / self._pair(x[inside])
        share[inside] = 1.0 - self._angle(x[inside], G) / math.pi
        for position, mass in self.atoms():
            # in a band the angle has counted the atom already: an atom lies in a gap
            share[~inside & (x >= position)] += mass
        return np.clip(share, 0.0, 1.0)

    def _angle(self, x: np.ndarray, G: Complex) -> np.ndarray:
        """Im U at x + i0."""
        mean, at, weight = self._parts
        angle = (x - mean) * G.imag - np.angle(G)
        for a, p in zip(weight, at, strict=True):
            angle = angle - a * (G**2 * _log_remainder(p * G)).imag
        return angle

    def _stieltjes(self, z: Complex) -> Complex:
        if not np.isfinite(z).all():
            raise InputError(f"z[{int(np.argmin(np.isfinite(z)))}] is not finite; the transform there is 0.")
        upper: Complex = np.where(z.imag < 0, z.conj(), z)
        w = np.empty_like(upper)
        on_axis = upper.imag == 0
        inside = on_axis.copy()
        inside[on_axis] = self._locate(upper.real[on_axis])[0]
        w[inside] = self._pair(upper.real[inside])
        w[~inside] = self._select(upper[~inside])
        with np.errstate(divide="ignore", invalid="ignore"):
            G = 1.0 / w
        G[w == 0] = complex(math.inf, 0.0)
        return np.where(z.imag < 0, G.conj(), G)

    def _select(self, z: Complex) -> Complex:
        """The root in the upper half plane; on the axis outside the bands, the root where z rises."""
        if not len(z):
            return z
        mean, at, weight = self._parts
        n = len(at) + 1
        # det(w - M(z)) is the polynomial: an arrow of one center and the jumps
        M = np.zeros((len(z), n, n), dtype=complex)
        M[:, 0, 0] = z - mean
        M[:, range(1, n), range(1, n)] = at
        M[:, 0, 1:] = np.sqrt(weight)
        M[:, 1:, 0] = -np.sqrt(weight)
        roots: Complex = np.linalg.eigvals(M).astype(complex)
        for _ in range(_POLISHES):
            away = roots[..., None] - at
            error = roots + mean + (weight / away).sum(-1) - z[:, None]
            step = error / (1.0 - (weight / away**2).sum(-1))
            small = np.abs(step) < 1e-3 * np.abs(away).min(-1)
            roots = np.where(small, roots - step, roots).astype(complex)
        rank = np.argmax(roots.imag, axis=1)
        size = np.abs(roots).max(axis=1)
        flat = roots.imag.max(axis=1) <= 1e-7 * size
        rising = np.argmax(self._slope(roots).real, axis=1)
        return roots[np.arange(len(z)), np.where(flat, rising, rank)]


def _log_remainder(u: Complex) -> Complex:
    """``(-u - log(1 - u)) / u**2`` = 1/2 + u/3 + u^2/4 + ..., without cancellation near 0."""
    near = np.abs(u) < _SERIES_RADIUS
    series = np.zeros_like(u)
    for k in range(_SERIES_TERMS + 2, 1, -1):
        series = np.where(near, series * u, 0.0) + 1.0 / k
    far = np.where(near, 0.5, u)
    return np.where(near, series, (-far - np.log(1.0 - far)) / far**2)


def _root(function: Callable[[float], Any], low: float, high: float) -> float:
    """The zero between two points of different sign; an end, if rounding has put it there."""
    at_low, at_high = float(function(low)), float(function(high))
    if at_low * at_high >= 0:
        return float(low if abs(at_low) < abs(at_high) else high)
    zero = brentq(function, low, high, xtol=1e-300, rtol=4 * np.finfo(float).eps, maxiter=500)
    return float(zero)  # type: ignore[arg-type]


def _inside(low: float, high: float) -> float:
    """A point of the open interval that is not zero."""
    middle = 0.5 * (low + high)
    return middle if middle != 0 else 0.75 * low + 0.25 * high


def like_input(x: Any, function: Callable[[Any], np.ndarray], *, complex_values: bool = False) -> Any:
    """Apply a function of a flat array to ``x`` and give back the kind and shape of ``x``.

    Args:
        x: Numbers of any shape, numpy, torch or Python.
        function: Maps a float64 (or complex128) array (n,) to values (n,).
        complex_values: Whether complex numbers are taken.

    Raises:
        InputError: If x holds no numbers, or NaN.
    """
    dtype = np.complex128 if complex_values else np.float64
    array = np.asarray(x.detach().cpu().numpy() if isinstance(x, torch.Tensor) else x)
    if array.dtype.kind not in "fiubc" or (array.dtype.kind == "c" and not complex_values):
        raise InputError(
            f"x holds {array.dtype}; {'numbers' if complex_values else 'real numbers'} are needed."
        )
    flat = np.array(array, dtype=dtype).ravel()
    if np.isnan(flat).any():
        raise InputError(f"x[{int(np.argmax(np.isnan(flat)))}] is NaN; every point must be a number.")
    image = function(flat).reshape(array.shape)
    if isinstance(x, torch.Tensor):
        return torch.from_numpy(image).to(x.device)
    return image if image.ndim else image[()]
