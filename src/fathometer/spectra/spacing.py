"""Level spacing: do neighboring eigenvalues repel each other as those of a random matrix do?

The ratio of neighboring gaps r = min(s_i, s_(i+1)) / max(s_i, s_(i+1)) needs no unfolding, because
the local density cancels. Its mean is 0.5307 for the Gaussian orthogonal ensemble and
2 log 2 - 1 = 0.3863 for independent levels (Atas, Bogomolny, Giraud & Roux 2013). Spectra of
networks follow the former although their densities follow no law (Baskerville et al. 2021).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from fathometer.drawing.picture import Picture
from fathometer.errors import InputError
from fathometer.results import Result
from fathometer.types import Kind

ORTHOGONAL = 0.5307
INDEPENDENT = 2.0 * math.log(2.0) - 1.0
LEAST = 10


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SpacingRatio(Result):
    """Mean ratio of neighboring gaps.

    Attributes:
        value: The mean; 0.5307 for a random symmetric matrix, 0.3863 for independent levels.
        error: Standard error, neighboring ratios taken as independent.
        ratios: (k,) the ratios.
        skipped: Gaps left out because they are zero up to rounding (multiple eigenvalues).
        kind: "estimate".
    """

    value: float
    error: float
    ratios: np.ndarray
    skipped: int
    kind: Kind = "estimate"

    @property
    def repulsion(self) -> float:
        """0 for independent levels, 1 for the Gaussian orthogonal ensemble."""
        return (self.value - INDEPENDENT) / (ORTHOGONAL - INDEPENDENT)

    def picture(self) -> Picture:
        """The ratios beside the two laws."""
        from fathometer.spectra.pictures import spacing_picture

        return spacing_picture(self)


def spacing_ratio(eigenvalues: Any) -> SpacingRatio:
    """Mean ratio of neighboring gaps of a whole spectrum.

    Args:
        eigenvalues: (m,) all eigenvalues in a window, at least ten different ones; an exact
            `SpectralDensity` stands for its nodes. Nodes of a quadrature are no eigenvalues.

    Raises:
        InputError: If they are not finite, too few, or not exact.
    """
    if hasattr(eigenvalues, "nodes"):
        if eigenvalues.kind != "exact":
            raise InputError("eigenvalues are the nodes of a quadrature; spacings need an exact spectrum.")
        eigenvalues = eigenvalues.nodes
    values = np.sort(np.asarray(eigenvalues, dtype=float).ravel())
    if not np.isfinite(values).all():
        raise InputError("eigenvalues are not all finite; look for NaN in the operator.")
    gaps = np.diff(values)
    rounding = 1e-12 * float(np.abs(values).max(initial=0.0))
    kept = gaps[gaps > rounding]
    if len(kept) < LEAST:
        raise InputError(f"eigenvalues have {len(kept)} gaps that are not zero; at least {LEAST} are needed.")
    # a gap that was left out must not make neighbors of two that are none
    both = (gaps[:-1] > rounding) & (gaps[1:] > rounding)
    first, second = gaps[:-1][both], gaps[1:][both]
    ratios = np.minimum(first, second) / np.maximum(first, second)
    return SpacingRatio(
        value=float(ratios.mean()),
        error=float(ratios.std(ddof=1) / math.sqrt(len(ratios))),
        ratios=ratios,
        skipped=len(gaps) - len(kept),
    )
