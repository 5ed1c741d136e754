"""Where a target lives: a box, some of whose sides may be open to infinity."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from fathometer.errors import InputError
from fathometer.stein.sample import as_array


@dataclass(frozen=True, kw_only=True)
class Support:
    """Lowest and highest value of each coordinate, (d,) each; infinite where there is none."""

    low: Float[np.ndarray, " d"]
    high: Float[np.ndarray, " d"]

    @property
    def bounded(self) -> bool:
        """Whether any side is finite."""
        return bool(np.isfinite(self.low).any() or np.isfinite(self.high).any())


def read_support(support: Any, points: Float[np.ndarray, "n d"]) -> Support:
    """The box of ``support``: one (low, high) pair a coordinate; all of space if None.

    Raises:
        InputError: If there is not one pair for each coordinate, a pair is not in order, or a
            point lies outside (the first one is named).
    """
    d = points.shape[1]
    if support is None:
        return Support(low=np.full(d, -np.inf), high=np.full(d, np.inf))
    pairs = as_array(support, name="support")
    if d == 1 and pairs.shape == (2,):
        pairs = pairs[None]
    if pairs.shape != (d, 2):
        raise InputError(
            f"support has shape {pairs.shape}; pass one (low, high) pair for each of the {d} coordinates."
        )
    low, high = pairs.T
    if not (low < high).all():
        j = int(np.argmin(low < high))
        raise InputError(
            f"support: coordinate {j} has low {low[j]:g} and high {high[j]:g}; low must be below high."
        )
    outside = (points < low) | (points > high)
    if outside.any():
        i, j = np.argwhere(outside)[0]
        raise InputError(
            f"points: row {i} lies outside the support, coordinate {j} is {points[i, j]:g} and not in "
            f"[{low[j]:g}, {high[j]:g}]."
        )
    return Support(low=low, high=high)
