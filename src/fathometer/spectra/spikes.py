"""Where a law puts an outlier: the transition of Baik, Ben Arous and Peche for sums.

One eigenvalue theta of the first part of a sum H0 + H1, outside the band of that part, shows in the sum at

    z(theta) = theta + R_1(G_0(theta)),

with the transform G_0 of the first law and the R-transform R_1 of the second, as long as z grows
with theta there; closer to the band the outlier is swallowed (Benaych-Georges & Nadakuditi 2011;
for Hessians, Baskerville et al. 2022). A semicircle alone is the sum with a matrix of one eigenvalue:
z = theta + variance / theta. For a Wishart matrix the spike is one of the covariance, z =
l (1 + scale phi / (l - scale)).
"""

import math
from typing import Any

import numpy as np

from fathometer.calculus.stieltjes import Law, like_input
from fathometer.errors import InputError
from fathometer.spectra.laws import MarchenkoPastur, Semicircle, WishartPlusReluResidual, WishartPlusWigner


def outlier(law: Law, spike: Any) -> Any:
    """Position in the spectrum of a spike, NaN where the bulk swallows it.

    Args:
        law: A `Semicircle` (the spike is the eigenvalue of a matrix of rank one that is added), a
            `MarchenkoPastur` (one eigenvalue of the covariance, the others being the scale), or a sum (one
            eigenvalue of its Gauss-Newton part, outside the band of that part).
        spike: A number or an array; the same kind comes back.

    Raises:
        InputError: If the law is of another kind or a spike is not finite.

    >>> float(outlier(Semicircle(1.0), 2.0)), math.isnan(outlier(Semicircle(1.0), 0.9))
    (2.5, True)
    """
    kinds = (Semicircle, MarchenkoPastur, WishartPlusWigner, WishartPlusReluResidual)
    if not isinstance(law, kinds):
        names = ", ".join(kind.__name__ for kind in kinds)
        raise InputError(f"law is a {type(law).__name__}; outliers are known for {names}.")

    def position(theta: np.ndarray) -> np.ndarray:
        if not np.isfinite(theta).all():
            raise InputError("spike holds a number that is not finite.")
        with np.errstate(divide="ignore", invalid="ignore"):
            if isinstance(law, Semicircle):
                z, apart = theta + law.variance / theta, np.abs(theta) > math.sqrt(law.variance)
            elif isinstance(law, MarchenkoPastur):
                away = theta / law.scale - 1.0
                z, apart = theta * (1.0 + law.aspect_ratio / away), np.abs(away) > math.sqrt(law.aspect_ratio)
                apart &= theta > 0
            else:
                z, apart = _of_sum(law, theta)
        return np.where(apart, z, math.nan)

    return like_input(spike, position)


def _of_sum(law: WishartPlusWigner | WishartPlusReluResidual, theta: np.ndarray) -> tuple[Any, Any]:
    """z(theta), and whether it is an outlier."""
    first = law.gauss_newton
    low, high = first.support()[0]
    outside = (theta > high) | (theta < low)
    safe = np.where(outside, theta, high + 1.0)
    G = np.real(first.stieltjes(safe + 0j))
    step = law.aspect_ratio * law.scale
    slope = 1.0 / (law.scale * step / (1.0 - step * G) ** 2 - 1.0 / G**2)  # of G in theta
    z, growth = safe.copy(), np.ones_like(safe)
    for size, weight in law.jumps()[1][1:]:
        z += weight * G / (1.0 - size * G)
        growth += weight / (1.0 - size * G) ** 2 * slope
    return z, outside & (growth > 0)
