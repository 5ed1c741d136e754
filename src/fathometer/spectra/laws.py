"""The spectral laws of the paper: what random matrix theory says of a Hessian.

The Hessian of a loss is H = H0 + H1: a positive part made of Jacobians (Gauss-Newton)
and a part made of residuals times second derivatives. Pennington & Bahri (2017) take H0
as a Wishart matrix and H1 as a Wigner matrix (their general law), or as the exact
residual part of a network with one hidden ReLU layer (their second law), and add them
as free matrices.

Units. ``energy`` is half the mean squared residual over all scalar targets;
``aspect_ratio`` (phi) is parameters per scalar target; H is normalized so that H0 has
mean eigenvalue ``scale``. See `law` for how densities and indices are computed.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from fathometer.calculus.stieltjes import Law
from fathometer.errors import InputError
from fathometer.work import numpy_generator


def check_positive(name: str, value: Any, *, zero: bool = False) -> float:
    """A finite number above zero (or zero, if allowed), as a float.

    Raises:
        InputError: If it is anything else.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InputError(f"{name} is {value!r}; a number is needed.") from None
    if not (math.isfinite(number) and (number > 0 or (zero and number == 0))):
        raise InputError(f"{name} is {number:g}; it must be {'zero or ' if zero else ''}positive and finite.")
    return number


@dataclass(frozen=True)
class MarchenkoPastur(Law):
    """Spectrum of ``scale * X X' / N`` for a Gaussian X (P, N) with ``aspect_ratio = P/N``.

    For an aspect ratio above 1 a share ``1 - 1/aspect_ratio`` of the eigenvalues is zero.
    R-transform ``scale / (1 - scale * aspect_ratio * G)`` (Marchenko & Pastur 1967).

    Attributes:
        aspect_ratio: Rows per column, positive.
        scale: Mean eigenvalue, positive.

    Raises:
        InputError: If a parameter is not positive and finite.

    >>> MarchenkoPastur(0.25).support()
    [(0.25, 2.25)]
    >>> MarchenkoPastur(4.0).atoms()
    [(0.0, 0.75)]
    """

    aspect_ratio: float
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_positive("aspect_ratio", self.aspect_ratio)
        check_positive("scale", self.scale)

    def jumps(self) -> tuple[float, list[tuple[float, float]]]:
        """One stream of jumps of size aspect_ratio * scale."""
        size = self.aspect_ratio * self.scale
        return self.scale, [(size, size * self.scale)]

    def support(self) -> list[tuple[float, float]]:
        """The one band, scale * (1 -+ sqrt(aspect_ratio))^2."""
        root = math.sqrt(self.aspect_ratio)
        return [(self.scale * (1.0 - root) ** 2, self.scale * (1.0 + root) ** 2)]

    def atoms(self) -> list[tuple[float, float]]:
        """The zeros of a matrix with more rows than columns."""
        return [(0.0, 1.0 - 1.0 / self.aspect_ratio)] if self.aspect_ratio > 1 else []

    def index(self) -> float:
        """Zero: the matrix is positive semidefinite."""
        return 0.0

    def sample(self, P: int, seed: int = 0) -> np.ndarray:
        """Eigenvalues (P,), ascending, of one Wishart matrix of ``seed``; P / aspect_ratio columns, rounded.

        Raises:
            InputError: If P is not a positive whole number.
        """
        size = check_size(P, self.aspect_ratio)
        X = _wishart_factor(size, self.aspect_ratio, self.scale, numpy_generator(seed, "wishart"))
        values = np.zeros(size)
        values[size - X.shape[1] :] = np.sort(np.linalg.svd(X, compute_uv=False)) ** 2
        return values


@dataclass(frozen=True)
class Semicircle(Law):
    """Spectrum of a symmetric matrix with independent entries (Wigner 1958).

    Attributes:
        variance: Variance of the eigenvalues, positive; the edges are at twice its root.

    Raises:
        InputError: If the variance is not positive and finite.

    >>> Semicircle(4.0).support()
    [(-4.0, 4.0)]
    """

    variance: float = 1.0

    def __post_init__(self) -> None:
        check_positive("variance", self.variance)

    def jumps(self) -> tuple[float, list[tuple[float, float]]]:
        """One jump at zero."""
        return 0.0, [(0.0, self.variance)]

    def support(self) -> list[tuple[float, float]]:
        """The one band, -+ 2 sqrt(variance)."""
        edge = 2.0 * math.sqrt(self.variance)
        return [(-edge, edge)]

    def index(self) -> float:
        """One half, by symmetry."""
        return 0.5

    def sample(self, P: int, seed: int = 0) -> np.ndarray:
        """Eigenvalues (P,), ascending, of one Gaussian orthogonal matrix of ``seed``.

        Raises:
            InputError: If P is not a positive whole number.
        """
        return np.linalg.eigvalsh(_wigner(check_size(P), self.variance, numpy_generator(seed, "wigner")))


class _Sum(Law):
    """Shared by the two laws of H = H0 + H1: parameters, the law without energy, sampling."""

    energy: float
    aspect_ratio: float
    scale: float

    def __post_init__(self) -> None:
        check_positive("energy", self.energy, zero=True)
        check_positive("aspect_ratio", self.aspect_ratio)
        check_positive("scale", self.scale)

    @property
    def gauss_newton(self) -> MarchenkoPastur:
        """The law of H0 alone; the whole law at energy 0."""
        return MarchenkoPastur(self.aspect_ratio, self.scale)

    def _residual_jumps(self) -> list[tuple[float, float]]:
        raise NotImplementedError  # pragma: no cover

    def _residual_matrix(self, P: int, generator: np.random.Generator) -> np.ndarray:
        raise NotImplementedError  # pragma: no cover

    def jumps(self) -> tuple[float, list[tuple[float, float]]]:
        """Those of the Wishart part and those of the residual part."""
        mean, wishart = self.gauss_newton.jumps()
        return mean, [*wishart, *self._residual_jumps()]

    def support(self) -> list[tuple[float, float]]:
        """All bands of the continuous part, ascending, as (lower, upper) edges."""
        return super().support() if self.energy else self.gauss_newton.support()

    def atoms(self) -> list[tuple[float, float]]:
        """Eigenvalues of positive share, as (position, mass)."""
        return super().atoms() if self.energy else self.gauss_newton.atoms()

    def index(self) -> float:
        """Share of the eigenvalues strictly below zero, in closed form (zero at energy 0)."""
        return super().index() if self.energy else 0.0

    def sample(self, P: int, seed: int = 0) -> np.ndarray:
        """Eigenvalues (P,), ascending, of one random H0 + H1 with independent parts.

        Raises:
            InputError: If P is not a positive whole number.
        """
        size = check_size(P, self.aspect_ratio)
        if not self.energy:
            return self.gauss_newton.sample(P, seed)
        X = _wishart_factor(size, self.aspect_ratio, self.scale, numpy_generator(seed, "wishart"))
        return np.linalg.eigvalsh(X @ X.T + self._residual_matrix(size, numpy_generator(seed, "residual")))


@dataclass(frozen=True)
class WishartPlusWigner(_Sum):
    """The paper's general law: H0 Wishart, H1 Wigner of variance ``2 * energy`` (section 4.1, a cubic).

    The index is positive exactly above `critical_energy`; for an aspect ratio of 1 or more, at
    every positive energy.

    Attributes:
        energy: Half the mean squared residual, zero or positive.
        aspect_ratio: Parameters per scalar target, positive.
        scale: Mean eigenvalue of H0.

    Raises:
        InputError: If a parameter is out of range.

    >>> law = WishartPlusWigner(0.02, 0.5)
    >>> law.index() > 0, WishartPlusWigner(0.01, 0.5).index()
    (True, 0.0)
    """

    energy: float
    aspect_ratio: float
    scale: float = 1.0

    def _residual_jumps(self) -> list[tuple[float, float]]:
        return [(0.0, 2.0 * self.energy)]

    def _residual_matrix(self, P: int, generator: np.random.Generator) -> np.ndarray:
        return _wigner(P, 2.0 * self.energy, generator)


@dataclass(frozen=True)
class WishartPlusReluResidual(_Sum):
    """The paper's law for one hidden ReLU layer (section 4.2, a quartic).

    The second derivatives of such a network join the two layers only, so H1 has the blocks 0, F,
    F', 0 with F a product of two Gaussian matrices: rank-two terms with eigenvalues
    ``-+ aspect_ratio * sqrt(energy/2)``, one per sample that is active. For an aspect ratio of 2 or
    more the index is ``1/(2 aspect_ratio)`` at every positive energy.

    Attributes:
        energy: Half the mean squared residual, zero or positive.
        aspect_ratio: Parameters per scalar target, positive.
        scale: Mean eigenvalue of H0.

    Raises:
        InputError: If a parameter is out of range.

    >>> law = WishartPlusReluResidual(0.1, 4.0)
    >>> law.atoms(), law.index(), len(law.support())
    ([(0.0, 0.5)], 0.125, 3)
    """

    energy: float
    aspect_ratio: float
    scale: float = 1.0

    def _residual_jumps(self) -> list[tuple[float, float]]:
        size = self.aspect_ratio * math.sqrt(0.5 * self.energy)
        weight = 0.25 * self.energy * self.aspect_ratio
        return [(-size, weight), (size, weight)]

    def _residual_matrix(self, P: int, generator: np.random.Generator) -> np.ndarray:
        rows, columns = P - P // 2, P // 2
        inner = max(round(0.5 * P / self.aspect_ratio), 1)
        # P * variance = 2 * rows * columns * inner * factor^2
        factor = math.sqrt(0.25 * self.energy * self.aspect_ratio * P / max(rows * columns * inner, 1))
        # A (rows, inner) B (inner, columns): only the triangle of B counts, A is turned with it
        right = _triangle(columns, inner, generator)
        F = factor * generator.standard_normal((rows, right.shape[1])) @ right.T
        H1 = np.zeros((P, P))
        H1[:rows, rows:], H1[rows:, :rows] = F, F.T
        return H1


def check_size(P: Any, aspect_ratio: float = 1.0) -> int:
    """A whole number of eigenvalues that leaves at least one column.

    Raises:
        InputError: If it is not positive, or too small for the aspect ratio.
    """
    if not isinstance(P, int | np.integer) or isinstance(P, bool) or P < 1:
        raise InputError(f"P is {P!r}; the number of eigenvalues is a positive whole number.")
    if round(P / aspect_ratio) < 1:
        raise InputError(
            f"P is {P}, less than half the aspect ratio {aspect_ratio:g}: the matrix has no column."
        )
    return int(P)


def _wishart_factor(P: int, aspect_ratio: float, scale: float, generator: np.random.Generator) -> np.ndarray:
    columns = round(P / aspect_ratio)
    return _triangle(P, columns, generator) * math.sqrt(scale / columns)


def _triangle(rows: int, columns: int, generator: np.random.Generator) -> np.ndarray:
    """A factor L (rows, min(rows, columns)) with L L' distributed as X X', X Gaussian (rows, columns).

    For a wide X the triangular factor is drawn itself (Bartlett 1933): memory does not grow with columns.
    """
    if columns <= rows:
        return generator.standard_normal((rows, columns))
    L = np.tril(generator.standard_normal((rows, rows)), -1)
    L[np.diag_indices(rows)] = np.sqrt(generator.chisquare(columns - np.arange(rows)))
    return L


def _wigner(P: int, variance: float, generator: np.random.Generator) -> np.ndarray:
    A = generator.standard_normal((P, P))
    return (A + A.T) * math.sqrt(0.5 * variance / P)
