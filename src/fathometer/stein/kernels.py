"""Kernels, their preconditioners, and where the theory behind them holds.

A kernel here is ``k(x, y) = phi(r^2)`` with ``r^2 = (x - y)' S^-1 (x - y)``. Its
Langevin Stein kernel (Gorham & Mackey 2017, sec. 3; Oates et al. 2017) is

    k0(x, y) = phi <b(x), b(y)> - 2 phi' (<b(x) - b(y), S^-1 (x - y)> + tr S^-1)
               - 4 phi'' |S^-1 (x - y)|^2

with the score ``b`` and the derivatives of ``phi`` with respect to ``r^2``. The
preconditioner ``S`` changes the kernel only, never the Langevin operator.

A vanishing discrepancy implies weak convergence, for targets whose score is Lipschitz
and distantly dissipative, in every dimension for the inverse multiquadric with
``-1 < beta < 0`` (Theorem 8), and for the other two kernels in one dimension
(Theorem 5), or when the samples are known to be tight (Theorem 7). From three
dimensions on, light-tailed kernels miss samples that run off to infinity (Theorem 6).
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar, cast

import numpy as np
from jaxtyping import Float

from fathometer.errors import InputError, TheoryWarning
from fathometer.stein.sample import Sample, as_array, refuse_non_finite

RECIPES = ("median", "scaled_median", "sample_covariance", "score_covariance")
_MEDIAN_POINTS = 1000
_LEAST = 1e-75  # the inverse square of a smaller spread overflows in the sums


Tilt = Callable[[Float[np.ndarray, "n d"]], tuple[Float[np.ndarray, " n"], Float[np.ndarray, "n d"]]]
"""Maps points (n, d) to ``M`` (n,), positive, and the gradients of its logarithm (n, d)."""


@dataclass(frozen=True, kw_only=True)
class Radial:
    """A kernel that has met its sample: numbers only.

    Attributes:
        code: Which profile (see `fathometer.stein.tiles`).
        first, second: The profile's two numbers.
        factor: (d, d) with ``|factor.T @ v|^2 = v' S^-1 v``; None for the identity.
        inverse: (d, d), the matrix ``S^-1``; None for the identity.
        trace: ``tr S^-1``.
        tilt: Multiplies the kernel by ``M(x) M(y)`` (`fathometer.stein.tilts`); None for 1.
        origin: (d,) where the linear profile (code 3) is centered.
    """

    code: int
    first: float
    second: float
    factor: Float[np.ndarray, "d d"] | None
    inverse: Float[np.ndarray, "d d"] | None
    trace: float
    tilt: Tilt | None = None
    origin: Float[np.ndarray, " d"] | None = None

    def derivatives(self, square: np.ndarray, order: int) -> list[np.ndarray]:
        """``phi`` and its derivatives with respect to ``r^2``, up to ``order`` (at most 3), at ``r^2``.

        The second and third derivative of the Matern profile are infinite at zero distance, where every
        sum multiplies them by a zero difference: there they are given as zero.
        """
        if self.code == 0:
            base, factor, values = self.first**2 + square, 1.0, []
            for k in range(order + 1):
                values.append(factor * base ** (self.second - k))
                factor *= self.second - k
            return values
        if self.code == 1:
            value, slope = np.exp(-square / (2 * self.first**2)), -1 / (2 * self.first**2)
            return [value * slope**k for k in range(order + 1)]
        rate, r = math.sqrt(3.0) / self.first, np.sqrt(square)
        decay = np.exp(-rate * r)
        inverse = np.divide(1.0, r, out=np.zeros_like(r), where=r > 0)
        third = -(rate**3) / 8 * (1 + rate * r) * inverse**3
        return [
            f * decay
            for f in (1 + rate * r, -0.5 * rate**2 + 0 * r, rate**3 / 4 * inverse, third)[: order + 1]
        ]

    def profile(self, square: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``phi`` and its derivative at ``r^2``."""
        value, slope = self.derivatives(square, 1)
        return value, slope


class Kernel:
    """Base of the kernels; ``a + b`` is the sum of two."""

    preconditioner: Any

    @property
    def parts(self) -> tuple["Kernel", ...]:
        """The summands."""
        return (self,)

    def __str__(self) -> str:
        cells = ((field.name, getattr(self, field.name)) for field in fields(cast(Any, self)))
        return f"{type(self).__name__}({', '.join(f'{name}={_in_words(value)}' for name, value in cells)})"

    def __add__(self, other: "Kernel") -> "KernelSum":
        return KernelSum(summands=(*self.parts, *other.parts))

    def theory(self, dimension: int) -> str:
        """Why a small discrepancy proves nothing in this ``dimension``; empty where it proves convergence."""
        raise NotImplementedError

    def _numbers(self) -> tuple[int, float, float]:
        raise NotImplementedError

    def fit(self, sample: Sample) -> tuple[Radial, ...]:
        """The kernel with its preconditioner worked out for this sample."""
        code, first, second = self._numbers()
        matrix = preconditioner_matrix(self.preconditioner, sample)
        factor = inverse = None
        if matrix is not None:
            factor = np.linalg.inv(np.linalg.cholesky(matrix)).T
            inverse = factor @ factor.T
        trace = float(sample.dimension if inverse is None else np.trace(inverse))
        return (Radial(code=code, first=first, second=second, factor=factor, inverse=inverse, trace=trace),)


@dataclass(frozen=True)
class InverseMultiquadric(Kernel):
    """``k(x, y) = (c^2 + r^2)^beta``: heavy tails, and the default of this room.

    Attributes:
        c: Length scale, positive, in the units of ``r`` (of the points without preconditioner).
        beta: Exponent, negative; convergence is controlled for -1 < beta < 0.
        preconditioner: Positive definite (d, d) matrix S, one of "median", "scaled_median",
            "sample_covariance", "score_covariance", or None for the identity.

    Raises:
        InputError: If ``c`` is not positive or ``beta`` is not negative.
    """

    c: float = 1.0
    beta: float = -0.5
    preconditioner: Any = None

    def __post_init__(self) -> None:
        _check_length("c", self.c)
        if not (math.isfinite(self.beta) and self.beta < 0):
            raise InputError(
                f"beta is {self.beta:g}; the exponent must be negative, and convergence is controlled for "
                "-1 < beta < 0. Some programs write the exponent with the other sign."
            )

    def theory(self, dimension: int) -> str:
        """Void for ``beta <= -1`` in every dimension: the tails are too light."""
        if self.beta > -1:
            return ""
        return (
            f"beta is {self.beta:g}: control of convergence is proved for -1 < beta < 0 only "
            "(Gorham & Mackey 2017, Theorem 8)."
        )

    def _numbers(self) -> tuple[int, float, float]:
        return 0, float(self.c), float(self.beta)


@dataclass(frozen=True)
class _LightTailed(Kernel):
    """What the Gaussian and the Matern kernel share: one length scale, and where their theory ends."""

    scale: float = 1.0
    preconditioner: Any = None

    _code: ClassVar[int]
    _name: ClassVar[str]

    def __post_init__(self) -> None:
        _check_length("scale", self.scale)

    def theory(self, dimension: int) -> str:
        """Void from three dimensions on."""
        if dimension < 3:
            return ""
        return (
            f"the {self._name} kernel in {dimension} dimensions: its discrepancy can vanish although "
            "the sample runs off to infinity (Gorham & Mackey 2017, Theorem 6). Use InverseMultiquadric, or "
            "add it."
        )

    def _numbers(self) -> tuple[int, float, float]:
        return self._code, float(self.scale), 0.0


@dataclass(frozen=True)
class Gaussian(_LightTailed):
    """``k(x, y) = exp(-r^2 / (2 scale^2))``.

    Attributes:
        scale: Length scale, positive.
        preconditioner: As for `InverseMultiquadric`.

    Raises:
        InputError: If ``scale`` is not positive.
    """

    _code = 1
    _name = "Gaussian"


@dataclass(frozen=True)
class Matern32(_LightTailed):
    """``k(x, y) = (1 + sqrt(3) r / scale) exp(-sqrt(3) r / scale)``.

    Attributes:
        scale: Length scale, positive.
        preconditioner: As for `InverseMultiquadric`.

    Raises:
        InputError: If ``scale`` is not positive.
    """

    _code = 2
    _name = "Matern"


@dataclass(frozen=True, kw_only=True)
class KernelSum(Kernel):
    """The sum of kernels; it controls convergence as soon as one of them does.

    Attributes:
        summands: Two or more kernels.
    """

    summands: tuple[Kernel, ...]

    @property
    def parts(self) -> tuple[Kernel, ...]:
        """The summands."""
        return self.summands

    def __str__(self) -> str:
        return " + ".join(str(part) for part in self.summands)

    def theory(self, dimension: int) -> str:
        """Void in a ``dimension`` only if it is void there for every summand."""
        reasons = [part.theory(dimension) for part in self.summands]
        return reasons[0] if all(reasons) else ""

    def fit(self, sample: Sample) -> tuple[Radial, ...]:
        """Every summand with its preconditioner worked out for this sample."""
        return tuple(radial for part in self.summands for radial in part.fit(sample))


def read_kernel(kernel: Any, sample: Sample) -> tuple[Radial, ...]:
    """The fitted kernel; the default inverse multiquadric if None.

    Raises:
        InputError: If it is not a kernel, or the preconditioner does not fit the sample.

    Warns:
        TheoryWarning: If a small discrepancy would not prove convergence for this kernel.
    """
    chosen = InverseMultiquadric() if kernel is None else kernel
    if not isinstance(chosen, Kernel):
        raise InputError(
            f"kernel is {kernel!r}; pass InverseMultiquadric(...), Gaussian(...), Matern32(...) "
            "or a sum of them."
        )
    reason = chosen.theory(sample.dimension)
    if reason:
        warnings.warn(reason, TheoryWarning, stacklevel=3)
    return chosen.fit(sample)


def preconditioner_matrix(choice: Any, sample: Sample) -> Float[np.ndarray, "d d"] | None:
    """The matrix S of a recipe or of the caller; None for the identity.

    "median" is the squared median distance of the points times the identity, "scaled_median"
    divides it by ``log n`` (median over at most 1000 points, equally spaced along the sample),
    "sample_covariance" is the covariance of the points, and "score_covariance" the inverse of the
    covariance of the scores (an estimate of the target's inverse Fisher information).

    Raises:
        InputError: If the recipe is unknown, the matrix is not symmetric positive definite
            and (d, d), or the recipe gives a singular one.
    """
    if choice is None:
        return None
    d = sample.dimension
    if isinstance(choice, str):
        if choice not in RECIPES:
            raise InputError(f"preconditioner is {choice!r}; the recipes are {', '.join(RECIPES)}.")
        matrix = _recipe(choice, sample)
        name = f"the preconditioner {choice!r}"
        hint = " Remove constant or dependent coordinates, take more points, or pass a matrix."
    else:
        matrix, name, hint = as_array(choice, name="preconditioner"), "preconditioner", ""
        if matrix.shape != (d, d):
            raise InputError(f"preconditioner has shape {matrix.shape}; the points need ({d}, {d}).")
        refuse_non_finite(matrix, "preconditioner")
        if not np.allclose(matrix, matrix.T, rtol=1e-10, atol=0):
            raise InputError("preconditioner is not symmetric; pass a symmetric positive definite matrix.")
    scale = np.sqrt(np.clip(np.diag(matrix), 0, None))
    if (scale < _LEAST).any():
        raise InputError(f"{name} is singular: coordinate {int(np.argmin(scale))} has no spread.{hint}")
    lowest = float(np.linalg.eigvalsh(matrix / np.outer(scale, scale))[0])
    if lowest < 1e-13 * d:
        raise InputError(f"{name} is not positive definite: lowest scaled eigenvalue {lowest:.2g}.{hint}")
    return 0.5 * (matrix + matrix.T)


def median_distance(points: Float[np.ndarray, "n d"]) -> float:
    """Median Euclidean distance between two different points of (at most 1000 of) the sample.

    Raises:
        InputError: If it is zero.
    """
    from scipy.spatial.distance import pdist

    chosen = points[
        np.unique(np.linspace(0, len(points) - 1, min(len(points), _MEDIAN_POINTS)).round().astype(int))
    ]
    distance = float(np.median(pdist(chosen))) if len(chosen) > 1 else 0.0
    if distance == 0:
        raise InputError(
            "the median distance of the points is zero; most points coincide, so it gives no scale."
        )
    return distance


def _recipe(choice: str, sample: Sample) -> Float[np.ndarray, "d d"]:
    n, d = sample.points.shape
    if n < 2:
        raise InputError(f"the preconditioner {choice!r} needs at least 2 points; there is {n}.")
    if choice in ("median", "scaled_median"):
        square = median_distance(sample.points) ** 2
        return np.eye(d) * (square if choice == "median" else square / max(math.log(n), 1.0))
    columns = sample.points if choice == "sample_covariance" else sample.scores
    matrix = np.atleast_2d(np.cov(columns, rowvar=False))
    if choice == "sample_covariance":
        return matrix
    values, vectors = np.linalg.eigh(matrix)
    if values[0] <= 1e-13 * d * max(values[-1], 0.0):
        raise InputError(
            f"the preconditioner 'score_covariance' is singular: the covariance of the scores has eigenvalue "
            f"{values[0]:.2g}. Take more points, or pass a matrix."
        )
    return (vectors / values) @ vectors.T


def _in_words(value: Any) -> str:
    """A field of a kernel; of a matrix only its shape."""
    if isinstance(value, Kernel):
        return str(value)
    shape = np.shape(value)
    return f"<{' x '.join(map(str, shape))} array>" if shape else repr(value)


def _check_length(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{name} is {value:g}; a length scale must be positive and finite.")
