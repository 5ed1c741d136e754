"""Critical energies: where the first negative eigenvalue appears, and how fast more follow.

Below the critical energy the law has no negative eigenvalue, above it the index grows as
the 3/2 power of the excess (Pennington & Bahri 2017, sections 4.1 and 4.2). The paper
prints the critical energies as differences that lose every digit as the aspect ratio
tends to 1. The forms used here have no cancellation: with ``s = sqrt(1 + 8 phi)`` for
the Wigner law and ``s = sqrt(1 + 16 phi - 8 phi^2)`` for the ReLU law they are

    4 (1 - phi)^3 (1 + s) / (3 + s)^3    and    16 (1 - phi)^3 (1 + s) / (phi (3 + s)^3),

and the same elimination makes the coefficient of the 3/2 law a closed form too.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.optimize import brentq

from fathometer.calculus.stieltjes import like_input
from fathometer.errors import InputError
from fathometer.results import Result
from fathometer.spectra.laws import WishartPlusReluResidual, WishartPlusWigner, check_positive
from fathometer.types import Kind

LawName = Literal["wigner", "relu"]
LAWS = {"wigner": WishartPlusWigner, "relu": WishartPlusReluResidual}


def critical_energy(aspect_ratio: Any, law: LawName = "wigner", scale: float = 1.0) -> Any:
    """Energy at which the lower edge of the spectrum touches zero.

    Args:
        aspect_ratio: Parameters per scalar target, positive; a number or an array.
        law: "wigner" (the general law) or "relu" (one hidden ReLU layer).
        scale: Mean eigenvalue of the Gauss-Newton part.

    Returns:
        The energy, relative error some 1e-15; 0 for an aspect ratio of 1 or more, where every
        positive energy has negative eigenvalues. The same kind and shape as ``aspect_ratio``.

    Raises:
        InputError: If an aspect ratio or the scale is not positive, or the law is unknown.

    >>> bool(critical_energy(0.5) < 1 / 8), float(critical_energy(1.0))
    (True, 0.0)
    """
    check_law(law)
    check_positive("scale", scale)

    def energy(phi: np.ndarray) -> np.ndarray:
        _check_ratios(phi)
        below = np.minimum(phi, 1.0)
        s = _root_term(below, law)
        core = (1.0 - below) ** 3 * (1.0 + s) / (3.0 + s) ** 3
        return scale**2 * (4.0 * core if law == "wigner" else 16.0 * core / below)

    return like_input(aspect_ratio, energy)


def minimizer_energy(aspect_ratio: Any) -> Any:
    """Energy of minimizers when a wide network memorizes noise: ``0.5 (1 - phi)^2``.

    An observation of the paper (section 5), not a theorem: on targets of unit variance, the
    energy that training reaches. Zero for an aspect ratio of 1 or more.

    Args:
        aspect_ratio: Parameters per scalar target, positive; a number or an array.

    Raises:
        InputError: If an aspect ratio is not positive.

    >>> float(minimizer_energy(0.5))
    0.125
    """

    def energy(phi: np.ndarray) -> np.ndarray:
        _check_ratios(phi)
        return 0.5 * np.maximum(1.0 - phi, 0.0) ** 2

    return like_input(aspect_ratio, energy)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class IndexCoefficient(Result):
    """The 3/2 law: index = ``value`` * ((energy - critical) / critical)^(3/2), close to the critical energy.

    Attributes:
        value: The coefficient, exact for the law; it does not depend on the scale.
        critical_energy: Where the index starts.
        trusted_to: Energy at which the 3/2 law is wrong by ``tolerance``; beyond it, use ``law.index()``.
        tolerance: Relative error that counts as wrong.
        law: "wigner" or "relu".
        aspect_ratio: Parameters per scalar target.
        kind, error: Exact: the coefficient is a closed form.
    """

    value: float
    critical_energy: float
    trusted_to: float
    tolerance: float
    law: str
    aspect_ratio: float
    kind: Kind = "exact"
    error: float = 0.0

    def index(self, energy: Any) -> Any:
        """The 3/2 law at ``energy`` (any shape); zero below the critical energy."""

        def power(energies: np.ndarray) -> np.ndarray:
            return self.value * np.maximum(energies / self.critical_energy - 1.0, 0.0) ** 1.5

        return like_input(energy, power)


def index_coefficient(
    aspect_ratio: float, law: LawName = "wigner", scale: float = 1.0, *, tolerance: float = 0.05
) -> IndexCoefficient:
    """Coefficient of the 3/2 law, with the energy up to which it may be used.

    Args:
        aspect_ratio: Parameters per scalar target, between 0 and 1.
        law: "wigner" or "relu".
        scale: Mean eigenvalue of the Gauss-Newton part.
        tolerance: Relative error of the 3/2 law, against the exact index, that is still trusted.

    Raises:
        InputError: If the aspect ratio is not in (0, 1): there is no critical energy and no 3/2 law.
    """
    check_law(law)
    phi = check_positive("aspect_ratio", aspect_ratio)
    check_positive("tolerance", tolerance)
    if phi >= 1:
        raise InputError(
            f"aspect_ratio is {phi:g}; from 1 on the critical energy is zero and there is no 3/2 law."
        )
    value, onset = _coefficient(phi, law), float(critical_energy(phi, law, scale))
    return IndexCoefficient(
        value=value,
        critical_energy=onset,
        trusted_to=onset * (1.0 + _reach(phi, law, tolerance)),
        tolerance=tolerance,
        law=law,
        aspect_ratio=phi,
    )


def _coefficient(phi: float, law: str) -> float:
    s = float(_root_term(np.array(phi), law))
    value = 16.0 * (1.0 - phi) / (3.0 * math.pi * math.sqrt(s) * (1.0 + s) * (3.0 + s))
    if law == "relu":
        even = 97.0 + phi * (164.0 + phi * (-282.0 + phi * (116.0 - 14.0 * phi)))
        odd = 65.0 + phi * (-36.0 + phi * (-6.0 + 4.0 * phi))
        value *= math.sqrt((even + odd * s) / 162.0)
    return value


def _reach(phi: float, law: LawName, tolerance: float) -> float:
    """Relative excess of the energy at which the 3/2 law is off the exact index by ``tolerance``."""
    # it tends to a limit as phi tends to 1, where the index itself sinks below rounding
    phi = min(phi, 0.999)
    value, onset = _coefficient(phi, law), float(critical_energy(phi, law))

    def excess(t: float) -> float:
        return abs(value * t**1.5 / LAWS[law](onset * (1.0 + t), phi).index() - 1.0) - tolerance

    wrong = next((t for t in np.geomspace(1e-2, 1e2, 41) if excess(t) > 0), None)
    if wrong is None or excess(1e-3) > 0:
        raise InputError(f"tolerance is {tolerance:g}; choose one between 0.001 and 1.")
    return float(brentq(excess, 1e-3, wrong))  # type: ignore[arg-type]


def check_law(law: str) -> None:
    """Refuse a law that is neither "wigner" nor "relu"."""
    if law not in LAWS:
        raise InputError(f"law is {law!r}; it is one of {', '.join(LAWS)}.")


def _check_ratios(phi: np.ndarray) -> None:
    bad = ~(np.isfinite(phi) & (phi > 0))
    if bad.any():
        at = int(np.argmax(bad))
        raise InputError(f"aspect_ratio[{at}] is {phi[at]:g}; it must be positive and finite.")


def _root_term(phi: np.ndarray, law: str) -> np.ndarray | np.floating:
    return np.sqrt(1.0 + 8.0 * phi) if law == "wigner" else np.sqrt(1.0 + 8.0 * phi * (2.0 - phi))
