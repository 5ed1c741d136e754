"""The spectrum of A + B from the spectra of A and B, if their eigenvectors know nothing of each other.

Free matrices add like independent numbers do, with Cauchy transforms in place of Fourier's.
Above the real axis there is one pair of points (w_A, w_B), the subordination functions, with

    G_A(w_A) = G_B(w_B) = 1 / (w_A + w_B - z) = G(z)

(Biane 1998). Nothing is assumed of the two spectra: they are the measured eigenvalues or
quadrature nodes. The distribution function needs no integration, because the logarithmic
potential is ``U(z) = U_A(w_A) + U_B(w_B) + log G(z)``: its derivative is G, and the
subordination equations make everything else cancel.

The pair is followed from far above the axis, where w_A and w_B are almost z, down to it:
Newton steps at every height, with the fixed-point iteration (which always converges
there, slowly) where Newton would leave the half plane. Cost: some 100 evaluations of
both transforms, (points x nodes) operations each.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fathometer.calculus.stieltjes import like_input
from fathometer.drawing.picture import Picture
from fathometer.errors import CapabilityError, InputError
from fathometer.results import Result
from fathometer.spectra.density import SpectralDensity
from fathometer.types import Kind

Complex = NDArray[np.complex128]
MOST_NODES, KEPT_ENDS = 400, 50
HEIGHT = 1e-7
_NEWTON, _FIXED, _ROUNDS = 30, 40, 50


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class FreeSum(Result):
    """The free sum of two measured spectra.

    Attributes:
        first: (2, m) nodes and weights of the one spectrum.
        second: (2, n) nodes and weights of the other.
        kind: "estimate": free independence is a model, and exact for it only up to ``error``.
        error: Height above the real axis at which it is evaluated, in units of the eigenvalues.
    """

    first: np.ndarray
    second: np.ndarray
    error: float
    kind: Kind = "estimate"

    @property
    def value(self) -> float:
        """Share of negative eigenvalues."""
        return self.index()

    @property
    def mean(self) -> float:
        """Mean eigenvalue, the sum of both means."""
        return float(self.first[0] @ self.first[1] + self.second[0] @ self.second[1])

    @property
    def variance(self) -> float:
        """Variance of the eigenvalues, the sum of both variances."""
        return float(sum(w @ (t - t @ w) ** 2 for t, w in (self.first, self.second)))

    def pdf(self, x: Any) -> Any:
        """Density at ``x`` (any shape) in 1/units of the eigenvalues; the same kind comes back."""
        return like_input(x, lambda points: np.maximum(-self._solve(points)[2].imag / math.pi, 0.0))

    def cdf(self, x: Any) -> Any:
        """Share of the eigenvalues at or below ``x`` (any shape); the same kind comes back."""

        def share(points: np.ndarray) -> np.ndarray:
            wa, wb, G = self._solve(points)
            angle = _angles(wa, self.first) + _angles(wb, self.second) + np.angle(G)
            return np.clip(1.0 - angle / math.pi, 0.0, 1.0)

        return like_input(x, share)

    def index(self) -> float:
        """Share of negative eigenvalues; half of an atom at zero, if there is one, is taken out."""
        at_zero = sum(mass for x, mass in self.atoms() if x == 0)
        return float(np.clip(self.cdf(0.0) - 0.5 * at_zero, 0.0, 1.0))

    def atoms(self) -> list[tuple[float, float]]:
        """Eigenvalues of positive share: pairs of atoms whose masses sum to more than one."""
        largest = [_largest_atom(part) for part in (self.first, self.second)]
        mass = largest[0][1] + largest[1][1] - 1.0
        return [(largest[0][0] + largest[1][0], mass)] if mass > 1e-12 else []

    def quantiles(self, count: int = 200) -> np.ndarray:
        """The (i + 1/2)/count quantiles of the sum, i = 0..count-1."""
        x = self.grid(401)
        share = np.maximum.accumulate(self.cdf(x))
        return np.interp((np.arange(count) + 0.5) / count, share, x)

    def grid(self, points: int = 401) -> np.ndarray:
        """Places (m,), ``points`` or more, over the support, dense where both spectra's eigenvalues are."""
        ends = [part[0].min() for part in (self.first, self.second)]
        tops = [part[0].max() for part in (self.first, self.second)]
        spread = math.sqrt(self.variance)
        even = np.linspace(sum(ends), sum(tops), points)
        bulk = self.mean + 3 * spread * np.sinh(np.linspace(-3, 3, points)) / math.sinh(3)
        return np.unique(np.clip(np.concatenate([even, bulk]), sum(ends), sum(tops)))

    def distance(self, measured: SpectralDensity) -> float:
        """Freeness score: largest gap between this distribution function and a measured one.

        Small: the eigenvectors of the two parts are as good as independent.
        """
        nodes, _ = measured.points
        x = np.unique(nodes[:: max(1, len(nodes) // 100)])
        pad = 10 * self.error + 1e-9 * max(abs(nodes[0]), abs(nodes[-1]))
        above = np.abs(self.cdf(x + pad) - measured.cdf(x + pad))
        below = np.abs(self.cdf(x - pad) - measured.cdf(x - pad))
        return float(max(above.max(), below.max()))

    def picture(self) -> Picture:
        """The density of the sum."""
        from fathometer.spectra.pictures import free_sum_picture

        return free_sum_picture(self)

    def _solve(self, x: np.ndarray) -> tuple[Complex, Complex, Complex]:
        """Subordination points and the transform at x + i error."""
        a, b = self.first, self.second
        size = float(np.ptp(a[0]) + np.ptp(b[0]) + np.abs(a[0]).max() + np.abs(b[0]).max())
        height = 4.0 * size
        w: Complex = x + 1j * height - float(b[0] @ b[1])
        while height > self.error:
            height = max(0.2 * height, self.error)
            w = _followed(w, x + 1j * height, a, b, 1e-11 * size)
        F, _ = _reciprocal(w, a)
        return w, x + 1j * height + F - w, 1.0 / F


def free_sum(a: Any, b: Any) -> FreeSum:
    """The free sum of two measured spectra.

    Args:
        a: A `SpectralDensity`, or the eigenvalues (m,) themselves.
        b: The other one.

    Returns:
        Density, distribution function, index and, against the spectrum of the true sum, a
        freeness score.

    Raises:
        InputError: If a spectrum is empty, not finite, or no list of numbers.

    >>> coins = free_sum([-1.0, 1.0], [-1.0, 1.0])  # the arcsine law on [-2, 2]
    >>> bool(abs(coins.cdf(1.0) - 2 / 3) < 1e-6)
    True
    """
    first, second = _spectrum(a, "a"), _spectrum(b, "b")
    spread = float(np.ptp(first[0]) + np.ptp(second[0]))
    size = max(float(np.abs(part[0]).max()) for part in (first, second))
    return FreeSum(first=first, second=second, error=HEIGHT * (spread or size or 1.0))


def _spectrum(subject: Any, name: str) -> np.ndarray:
    """Nodes and weights (2, m), sorted; some more than `MOST_NODES` inner ones are joined with neighbors."""
    if isinstance(subject, SpectralDensity):
        nodes, weights = subject.points
    else:
        try:
            nodes = np.sort(np.asarray(subject, dtype=float).ravel())
        except (TypeError, ValueError):
            raise InputError(
                f"{name} is a {type(subject).__name__}; pass a SpectralDensity or eigenvalues."
            ) from None
        weights = np.full(len(nodes), 1.0 / max(len(nodes), 1))
    if not len(nodes) or not np.isfinite(nodes).all():
        raise InputError(
            f"{name} has {len(nodes)} eigenvalues; at least one, and only finite ones, are needed."
        )
    if len(nodes) > MOST_NODES:
        # the ends stay as they are, or outliers would melt into the bulk
        cell = KEPT_ENDS + (np.cumsum(weights) * MOST_NODES).astype(int)
        cell[:KEPT_ENDS] = np.arange(KEPT_ENDS)
        cell[-KEPT_ENDS:] = cell[-1] + 1 + np.arange(KEPT_ENDS)
        mass = np.bincount(cell, weights)
        nodes = np.bincount(cell, weights * nodes)[mass > 0] / mass[mass > 0]
        weights = mass[mass > 0]
    return np.stack([nodes, weights / weights.sum()])


def _reciprocal(w: Complex, part: np.ndarray) -> tuple[Complex, Complex]:
    """1/G and its slope at points w, for nodes and weights (2, m); almost linear far away."""
    inverse = 1.0 / (w[:, None] - part[0])
    G = inverse @ part[1]
    return 1.0 / G, ((inverse**2) @ part[1]) / G**2


def _angles(w: Complex, part: np.ndarray) -> np.ndarray:
    """Imaginary part of the logarithmic potential."""
    return np.angle(w[:, None] - part[0]) @ part[1]


def _fixed_point(w: Complex, z: Complex, a: np.ndarray, b: np.ndarray) -> Complex:
    for _ in range(_FIXED):
        wb = z + _reciprocal(w, a)[0] - w
        w = z + _reciprocal(wb, b)[0] - wb
    return w


def _followed(w: Complex, z: Complex, a: np.ndarray, b: np.ndarray, tolerance: float) -> Complex:
    """The w_A at z from the one a little higher: 1/G_B(w_B) = 1/G_A(w_A)."""
    off = np.ones(len(w), dtype=bool)
    for _ in range(_NEWTON):
        at, here = z[off], w[off]
        Fa, da = _reciprocal(here, a)
        wb = at + Fa - here
        Fb, db = _reciprocal(wb, b)
        step = (Fb - Fa) / (db * (da - 1.0) - da)
        # never below z, where both functions lie above it
        drop = np.maximum(step.imag, 0.0)
        room = 0.9 * (here.imag - at.imag)
        shrink = np.where(drop > room, room / np.where(drop > 0, drop, 1.0), 1.0)
        moved = here - shrink * step
        w[off] = np.where(np.isfinite(moved), moved, here)
        still = ~((np.abs(Fb - Fa) < tolerance) & (np.abs(step) < tolerance) & (wb.imag > 0))
        off[np.flatnonzero(off)[~still]] = False
        if not off.any():
            return w
    for _ in range(_ROUNDS):
        w[off] = _fixed_point(w[off], z[off], a, b)
        Fa, _ = _reciprocal(w[off], a)
        Fb, _ = _reciprocal(z[off] + Fa - w[off], b)
        off[np.flatnonzero(off)[np.abs(Fb - Fa) < 1e2 * tolerance]] = False
        if not off.any():
            return w
    raise CapabilityError(
        f"the free sum did not converge at {int(off.sum())} of {len(z)} points, the first "
        f"{z[off][0].real:.6g}; smooth one of the spectra."
    )


def _largest_atom(part: np.ndarray) -> tuple[float, float]:
    tolerance = 1e-12 * (np.abs(part[0]).max() or 1.0)
    group = np.concatenate([[0], np.cumsum(np.diff(part[0]) > tolerance)])
    mass = np.bincount(group, part[1])
    top = int(np.argmax(mass))
    return float(part[0][group == top].mean()), float(mass[top])
