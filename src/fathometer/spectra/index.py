"""The index of a point on a loss surface: how many directions curve down.

Its share of all directions is what Pennington & Bahri (2017) predict from the energy.

Zero has no sign: scale symmetries, dead units and unused parameters give exact zeros that
rounding scatters to both sides. So eigenvalues are counted in three classes, negative,
zero and positive, with a threshold relative to the largest one, and the threshold is part
of the answer. Small matrices are diagonalized and the counts are exact. For large ones no
Krylov method can tell the signs of a crowd near zero; the answer is then a bracket.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fathometer.drawing.picture import Picture
from fathometer.errors import InputError
from fathometer.results import Result
from fathometer.spectra.density import (
    EXACT_LIMIT,
    Method,
    SpectralDensity,
    all_eigenvalues,
    density,
    fits_dense,
    symmetric_operator,
)
from fathometer.types import Kind


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class IndexResult(Result):
    """Counts of negative, zero and positive eigenvalues.

    Attributes:
        negative, zero, positive: Counts, which sum to ``size``; for an estimate, those of the
            middle of the bracket.
        lower, upper: Bounds of the share of negative eigenvalues; equal if exact.
        size: P.
        threshold: Eigenvalues up to this share of the largest one in size count as zero.
        largest: The largest eigenvalue in size.
        kind: "exact" or "estimate".
        products: Products with the operator that were spent.
    """

    negative: int
    zero: int
    positive: int
    lower: float
    upper: float
    size: int
    threshold: float
    largest: float
    kind: Kind
    products: int

    @property
    def fraction(self) -> float:
        """Share of negative eigenvalues, the normalized index."""
        return self.negative / self.size

    @property
    def value(self) -> float:
        """Share of negative eigenvalues."""
        return self.fraction

    @property
    def error(self) -> float:
        """Distance from the value to the farther end of the bracket; zero if exact."""
        return max(self.upper - self.fraction, self.fraction - self.lower, 0.0)

    def picture(self) -> Picture:
        """Counts of directions that go down, are flat and go up."""
        from fathometer.spectra.pictures import index_picture

        return index_picture(self)

    def __str__(self) -> str:
        head = (
            f"index {self.fraction:.4g}: {self.negative} negative, {self.zero} zero, {self.positive} positive"
        )
        if self.kind == "exact":
            return f"{head} (exact, zero is below {self.threshold:.1e} of the largest)"
        return f"{head} (estimate, the share of negative ones is in [{self.lower:.4g}, {self.upper:.4g}])"


def index(
    A_or_surface: Any,
    threshold: float | None = None,
    *,
    probes: int = 10,
    steps: int | None = None,
    deflate: int = 0,
    seed: int = 0,
    method: Method = "auto",
    known: SpectralDensity | None = None,
) -> IndexResult:
    """Count negative, zero and positive eigenvalues.

    Args:
        A_or_surface: A symmetric matrix (P, P), a `LinearOperator`, or a `LossSurface`.
        threshold: Share of the largest eigenvalue in size up to which one counts as zero; by
            default the rounding of the operator's type, ``P`` times its epsilon. With probes, a
            larger one (0.01, say) gives a much narrower bracket.
        probes: Random probes, where P is too large to diagonalize; as in `density`.
        steps: Nodes of each probe.
        deflate: Eigenvalues of largest size to compute one by one first.
        seed: Of the probes.
        method: "auto" diagonalizes up to P = 3000, "exact" always, "lanczos" never.
        known: The operator's spectrum, where it has been measured already: nothing is spent then.

    Raises:
        InputError: If the operator is not symmetric, an argument is out of range, or ``known`` is
            of another size.
        BudgetError: If the work does not fit the memory budget.

    >>> index(np.diag([-1.0, 0.0, 2.0, 3.0])).negative
    1
    """
    A = symmetric_operator(A_or_surface)
    P = A.shape[0]
    exact = method == "exact" or (method == "auto" and P <= EXACT_LIMIT and fits_dense(P))
    if threshold is None:
        threshold = (
            P * torch.finfo(torch.float64 if exact and hasattr(A_or_surface, "hessian") else A.dtype).eps
        )
    if not 0 <= threshold < 1:
        raise InputError(f"threshold is {threshold}; it is a share of the largest eigenvalue, from 0 to 1.")
    if known is not None and known.size != P:
        raise InputError(f"known is {known}; a spectrum of the {P} x {P} operator is needed.")
    if known is not None and known.kind == "exact":
        return _counted(known.points[0], threshold)
    if exact and known is None:
        return _counted(all_eigenvalues(A_or_surface), threshold)
    found = density(A, probes, steps, seed, deflate=deflate, method=method) if known is None else known
    largest = max(abs(end) for end in found.value)
    cut = threshold * largest
    below, above = found.bracket(np.nextafter(-cut, -np.inf)), found.bracket(cut)
    shares = [0.5 * float(sum(pair)) for pair in (below, above)]
    negative, not_positive = (round(share * P) for share in shares)
    return IndexResult(
        negative=negative,
        zero=max(not_positive - negative, 0),
        positive=P - max(not_positive, negative),
        lower=float(below[0]),
        upper=float(below[1]),
        size=P,
        threshold=threshold,
        largest=largest,
        kind=found.kind,
        products=found.products,
    )


def _counted(values: np.ndarray, threshold: float) -> IndexResult:
    largest = float(np.abs(values).max())
    negative = int((values < -threshold * largest).sum())
    positive = int((values > threshold * largest).sum())
    return IndexResult(
        negative=negative,
        zero=len(values) - negative - positive,
        positive=positive,
        lower=negative / len(values),
        upper=negative / len(values),
        size=len(values),
        threshold=threshold,
        largest=largest,
        kind="exact",
        products=len(values),
    )
