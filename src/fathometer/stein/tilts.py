"""Kernels multiplied by a function of each argument: moments to control, and bounded supports.

For ``k(x, y) = M(x) M(y) kappa(x, y)`` the Langevin Stein kernel is that of ``kappa`` with the scores
``b + grad log M`` in place of b, times ``M(x) M(y)`` (the product rule). So the same Gram engine
serves them.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from fathometer.errors import InputError
from fathometer.stein.kernels import InverseMultiquadric, Kernel, Radial, Tilt
from fathometer.stein.sample import Sample, as_array, refuse_non_finite
from fathometer.stein.support import read_support

_DEFAULT = InverseMultiquadric()


@dataclass(frozen=True, kw_only=True)
class MomentControl(Kernel):
    """A kernel whose discrepancy also sees the moments up to ``order`` (Kanagawa et al. 2022).

        M(x) M(y) (kappa(x, y) + (1 + <x - o, y - o>_S) / ((1 + |x - o|^2_S) (1 + |y - o|^2_S))^power),
        M(x) = (1 + |x - o|^2_S)^((order - 1) / 2)

    The discrepancy of a plain inverse multiquadric can vanish while moments run off (one point of mass
    1/n that moves out slowly); with the tilt it cannot, for targets that are dissipative enough.

    Attributes:
        order: Moments to control, 1 or more.
        kernel: ``kappa``, one radial kernel; its preconditioner is S.
        origin: (d,) the point o; the mean of the sample by default. Fix it when samples are compared.
        power: Of the normalization of the linear part: 0.5 as in the definition, ``order / 2`` as in
            the appendix of Wang et al. 2023.

    Raises:
        InputError: If order is below 1, power is negative, or the kernel is not radial.
    """

    order: float = 2.0
    kernel: Kernel = _DEFAULT
    origin: Any = None
    power: float = 0.5

    def __post_init__(self) -> None:
        if not (np.isfinite(self.order) and self.order >= 1):
            raise InputError(f"order is {self.order!r}; the order of the moments is a number, 1 or more.")
        if not (np.isfinite(self.power) and self.power >= 0):
            raise InputError(f"power is {self.power!r}; it must not be negative. The definition has 0.5.")
        _check_radial(self.kernel)

    def theory(self, dimension: int) -> str:
        """As of the kernel inside, in the same dimension."""
        return self.kernel.theory(dimension)

    def fit(self, sample: Sample) -> tuple[Radial, ...]:
        """The tilted kernel and the tilted linear part, for this sample.

        Raises:
            InputError: If the origin is not a point of the sample's space.
        """
        (inner,) = self.kernel.fit(sample)
        origin = sample.points.mean(0) if self.origin is None else as_array(self.origin, name="origin")
        if origin.shape != (sample.dimension,):
            raise InputError(
                f"origin has shape {origin.shape}; the points have {sample.dimension} coordinates."
            )
        refuse_non_finite(origin, "origin")
        outer = (self.order - 1) / 2
        linear = replace(inner, code=3, origin=origin, tilt=_power(inner, origin, outer - self.power))
        return replace(inner, tilt=_power(inner, origin, outer)), linear


@dataclass(frozen=True, kw_only=True)
class Bounded(Kernel):
    """A kernel that vanishes on the faces of a box: for targets whose density does not.

        k(x, y) = M(x) M(y) kappa(x, y),   M(x) = product over j of (x_j - low_j)(high_j - x_j)

    Without such a factor the operator's mean under a target that stops abruptly is not zero, and good
    samples are refused. Where only one side is finite the factor is ``s / sqrt(1 + s^2)`` of the distance s.

    Attributes:
        support: One (low, high) pair a coordinate, infinities allowed.
        kernel: ``kappa``, one radial kernel.

    Raises:
        InputError: If the kernel is not radial; when it meets a sample, if a point is on a face or outside.
    """

    support: Any
    kernel: Kernel = _DEFAULT

    def __post_init__(self) -> None:
        _check_radial(self.kernel)

    def theory(self, dimension: int) -> str:
        """As of the kernel inside, in the same dimension."""
        return self.kernel.theory(dimension)

    def fit(self, sample: Sample) -> tuple[Radial, ...]:
        """The tilted kernel, for this sample.

        Raises:
            InputError: If a point of the sample is not inside the support.
        """
        box = read_support(self.support, sample.points)

        def tilt(x: Float[np.ndarray, "n d"]) -> tuple[np.ndarray, np.ndarray]:
            on_face = (x <= box.low) | (x >= box.high)
            if on_face.any():
                i, j = np.argwhere(on_face)[0]
                raise InputError(
                    f"points: row {i} is not inside the support, coordinate {j} is {x[i, j]:g}; the kernel "
                    "vanishes on the faces."
                )
            value, slope = np.ones(len(x)), np.zeros_like(x)
            for j, (low, high) in enumerate(zip(box.low, box.high, strict=True)):
                for s, sign in ((x[:, j] - low, 1.0), (high - x[:, j], -1.0)):
                    if np.isinf(s).any():
                        continue
                    half = np.isinf(low) or np.isinf(high)
                    value *= s / np.sqrt(1 + s**2) if half else s
                    slope[:, j] += sign / (s * (1 + s**2)) if half else sign / s
            return value, slope

        (inner,) = self.kernel.fit(sample)
        return (replace(inner, tilt=tilt),)


def _power(radial: Radial, origin: Float[np.ndarray, " d"], exponent: float) -> Tilt:
    """``(1 + |x - origin|^2_S)^exponent``."""

    def tilt(x: Float[np.ndarray, "n d"]) -> tuple[np.ndarray, np.ndarray]:
        away = x - origin
        pull = away if radial.inverse is None else away @ radial.inverse
        base = 1 + (away * pull).sum(1)
        return base**exponent, 2 * exponent * pull / base[:, None]

    return tilt


def _check_radial(kernel: Any) -> None:
    if (
        not isinstance(kernel, Kernel)
        or len(kernel.parts) != 1
        or isinstance(kernel, MomentControl | Bounded)
    ):
        raise InputError(
            f"kernel is {kernel!r}; one of InverseMultiquadric(...), Gaussian(...), Matern32(...) is needed."
        )
