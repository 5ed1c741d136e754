"""Where the outliers come from: the Gauss-Newton matrix split by classes.

For cross-entropy the Gauss-Newton matrix is a weighted second moment of the vectors
``d_ik = J_i' (e_k - p_i)``, one for each example i and class k, with weight ``p_ik / n``. Grouped by
true class c and class k, with group masses m_ck and means d_ck, and d_c the mean over k != c,

    G = sum_c m_c d_c d_c'                     (class: at most C outliers)
      + sum_{c, k != c} m_ck (d_ck - d_c)(..)'  (cross: a second group, at most C (C - 2))
      + sum_c m_cc d_cc d_cc'                   (own class)
      + what varies within the groups           (within: the bulk),

an identity (Papyan 2019, 2020). Taking one term away and looking which eigenvalues vanish says
where they came from.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fathometer.drawing.picture import Picture
from fathometer.errors import CapabilityError, InputError
from fathometer.linalg import LinearOperator, as_operator
from fathometer.model.class_means import class_means
from fathometer.results import Result, Row, Table
from fathometer.types import Kind

TERMS = ("class", "cross", "own", "within")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ClassSplit(Result):
    """The four terms of a Gauss-Newton matrix.

    Attributes:
        means: (C, C, P) group means d_ck, by true class c and class k.
        masses: (C, C) group masses m_ck.
        total: Trace of the Gauss-Newton matrix, exact.
        shares: Share of the trace of each term, in the order class, cross, own, within.
        kind, error: Exact: the split is an identity.
    """

    means: Tensor
    masses: Tensor
    total: float
    shares: tuple[float, ...]
    kind: Kind = "exact"
    error: float = 0.0

    @property
    def value(self) -> float:
        """Share of the trace in the class term."""
        return self.shares[0]

    def factor(self, term: str) -> Tensor:
        """Columns (P, k) whose outer products sum to the term "class", "cross" or "own".

        Raises:
            InputError: If it is another term ("within" is what is left of the whole).
        """
        C = len(self.masses)
        off = self.masses * (1.0 - torch.eye(C, dtype=self.masses.dtype))
        mass = off.sum(1)
        centers = torch.einsum("ck,ckp->cp", off, self.means) / mass.clamp(min=1e-300)[:, None]
        if term == "class":
            return (mass.sqrt()[:, None] * centers).T
        if term == "cross":
            away = off.sqrt()[:, :, None] * (self.means - centers[:, None])
            return away[off > 0].T
        if term == "own":
            own = self.means[torch.arange(C), torch.arange(C)]
            return (self.masses.diagonal().sqrt()[:, None] * own).T
        raise InputError(f"term is {term!r}; the terms with columns are class, cross and own.")

    def operator(self, term: str) -> LinearOperator:
        """The term "class", "cross" or "own" as an operator (P, P)."""
        F = self.factor(term)
        return LinearOperator(
            shape=(len(F), len(F)), product=lambda V: F @ (F.T @ V), dtype=F.dtype, name=f"{term} term"
        )

    def eigenvalues(self, term: str) -> Tensor:
        """Eigenvalues (k,) of a term that are not zero, descending."""
        F = self.factor(term)
        return torch.linalg.eigvalsh(F.T @ F).flip(0).clamp(min=0.0)

    def without(self, term: str, whole: Any) -> LinearOperator:
        """The operator ``whole`` without one term: the knock-out test of Papyan."""
        return as_operator(whole) - self.operator(term)

    def table(self) -> Table:
        """Shares of the trace and the largest eigenvalue of each term."""
        rows = [
            Row(
                term=term,
                share=share,
                largest=float(self.eigenvalues(term)[0]) if term != "within" else float("nan"),
            )
            for term, share in zip(TERMS, self.shares, strict=True)
        ]
        return Table(title="the Gauss-Newton matrix by classes", rows=tuple(rows))

    def picture(self) -> Picture:
        """Shares of the trace and spectra of the terms."""
        from fathometer.spectra.pictures import class_split_picture

        return class_split_picture(self)

    def __str__(self) -> str:
        return str(self.table())


def class_split(surface: Any) -> ClassSplit:
    """Split the Gauss-Newton matrix of a classifier into its four class terms.

    Cost: C backward passes through the data, and memory for C^2 vectors of length P.

    Args:
        surface: A `LossSurface` with the loss "cross_entropy", outputs (N, C) and whole-number targets.

    Raises:
        InputError: If the surface is none.
        CapabilityError: If the loss is not plain cross-entropy of (N, C) outputs and class numbers.
    """
    if not hasattr(surface, "gauss_newton"):
        raise InputError(f"surface is a {type(surface).__name__}; pass a LossSurface.")
    if surface.loss != "cross_entropy":
        raise CapabilityError(f"the loss is {surface.loss}; the class split is one of cross-entropy.")
    means, masses, total = class_means(surface)
    parts = ClassSplit(means=means, masses=masses, total=total, shares=(0.0, 0.0, 0.0, 0.0))
    traces = [float(parts.factor(term).square().sum()) for term in TERMS[:3]]
    traces.append(total - sum(traces))
    shares = tuple(value / total if total > 0 else 0.0 for value in traces)
    return ClassSplit(means=means, masses=masses, total=total, shares=shares)
