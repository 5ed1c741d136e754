"""Sharpness while a network trains: is it at the edge of stability?

Gradient descent with step size eta is stable where the largest eigenvalue of the Hessian is
below 2/eta. In training it rises to that line and then hovers at it (Cohen et al. 2021). The
monitor takes a reading every so often by a few Lanczos steps, started from the eigenvector
of the reading before: it turns slowly, so that four or five products give one percent. Every
reading carries its residual; an eigenvalue lies within it, always.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from fathometer.drawing.picture import Picture
from fathometer.errors import InputError
from fathometer.linalg import lanczos
from fathometer.results import Result, Row
from fathometer.spectra.laws import check_positive
from fathometer.types import Kind
from fathometer.work import generator

MOST_STEPS = 40
FIRST_STEPS, WARM_STEPS = 12, 4
HOVERING = 5


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SharpnessHistory(Result):
    """Readings of the largest eigenvalue during training.

    Attributes:
        rows: One `Row` a reading: ``step``, ``value``, ``error`` (residual), ``products``, ``edge``
            (2 over the step size), ``converged`` (residual within the tolerance).
        onset: Step from which the last readings stay within ``margin`` of the edge or above; -1 if none.
        margin: Share of the edge that counts as near.
    """

    rows: tuple[Row, ...]
    onset: int
    margin: float

    @property
    def value(self) -> float:
        """The last reading."""
        return self.rows[-1].value if self.rows else math.nan

    @property
    def kind(self) -> Kind:
        """An eigenvalue lies within ``error`` of each reading; that it is the largest is an estimate."""
        return "estimate"

    @property
    def error(self) -> float:
        """Residual of the last reading."""
        return self.rows[-1].error if self.rows else math.nan

    @property
    def products(self) -> int:
        """Hessian products spent."""
        return sum(row.products for row in self.rows)

    def picture(self) -> Picture:
        """Readings and the 2/eta line against steps."""
        from fathometer.spectra.pictures import sharpness_history_picture

        return sharpness_history_picture(self)


class SharpnessMonitor:
    """A callback for a training loop: call it every step.

    Args:
        surface: Called without arguments when a reading is due, returns the `LossSurface` of the
            current weights (on a fixed subset of the data, to keep readings comparable and cheap).
        step_size: Of gradient descent, or None: then there is no line.
        every: Steps between readings.
        tolerance: Residual of a reading relative to its value.
        margin: Share of the edge 2/step_size that counts as near it.
        seed: Of the first start vector.

    Raises:
        InputError: If a number is out of range.
    """

    def __init__(
        self,
        surface: Callable[[], Any],
        *,
        step_size: float | None = None,
        every: int = 50,
        tolerance: float = 0.05,
        margin: float = 0.1,
        seed: int = 0,
    ) -> None:
        if not callable(surface):
            raise InputError(
                f"surface is a {type(surface).__name__}; pass a function that returns the current surface."
            )
        if not isinstance(every, int) or every < 1:
            raise InputError(f"every is {every!r}; at least 1 step lies between two readings.")
        if step_size is not None:
            check_positive("step_size", step_size)
        self._edge = math.inf if step_size is None else 2.0 / float(step_size)
        self._tolerance = check_positive("tolerance", tolerance)
        self._margin = check_positive("margin", margin)
        self._surface, self._every, self._seed = surface, every, seed
        self._vector: Tensor | None = None
        self._rows: list[Row] = []

    def __call__(self, step: int) -> Row | None:
        """Take a reading if one is due at this step; return it, or None."""
        if step % self._every:
            return None
        A = self._surface().hessian(check=False)
        start, steps, spent = self._vector, WARM_STEPS, 0
        if start is None:
            start, steps = torch.randn(A.shape[0], generator=generator(self._seed, "monitor")), FIRST_STEPS
        while True:
            m = min(steps, A.shape[0])
            seen = lanczos(A, m, start.to(A.device, A.dtype), seed=self._seed)
            spent += m
            values, S = torch.linalg.eigh(seen.to_dense())
            value, last = float(values[-1]), float(seen.last) * abs(float(S[-1, -1]))
            basis = cast(Tensor, seen.basis)  # kept, because the steps are re-orthogonalized
            start = basis @ S[:, -1].to(basis)
            close = last <= self._tolerance * abs(value)
            if close or m == A.shape[0] or spent >= MOST_STEPS:
                break
        self._vector = start
        row = Row(step=step, value=value, error=last, products=spent, edge=self._edge, converged=close)
        self._rows.append(row)
        return row

    def result(self) -> SharpnessHistory:
        """All readings so far."""
        near = [row.value >= (1.0 - self._margin) * row.edge for row in self._rows]
        tail = len(near) - (near[::-1].index(False) if False in near else len(near))
        hovering = len(near) - tail >= HOVERING
        return SharpnessHistory(
            rows=tuple(self._rows), onset=self._rows[tail].step if hovering else -1, margin=self._margin
        )


def spectral_overlap(first: Any, second: Any) -> float:
    """How much of one subspace lies in another: mean squared cosine of their principal angles.

    Args:
        first: (P, k) columns, for example top eigenvectors at one time; they need not be orthonormal.
        second: (P, m) columns with m >= k.

    Returns:
        1 if the first lies in the second, k-dimensional chance level m/P if they are unrelated.

    Raises:
        InputError: If they have different lengths or no columns.
    """
    U, V = (torch.as_tensor(part).double() for part in (first, second))
    if U.ndim != 2 or V.ndim != 2 or len(U) != len(V) or 0 in (U.shape[1], V.shape[1]):
        raise InputError(
            f"first has shape {tuple(U.shape)}, second {tuple(V.shape)}; (P, k) and (P, m) are needed."
        )
    Q, R = torch.linalg.qr(U)[0], torch.linalg.qr(V)[0]
    return float((Q.T @ R).square().sum() / U.shape[1])


def effective_dimension(density: Any, regularization: float) -> float:
    """Number of directions that the data determines: the sum of l / (l + a) over eigenvalues l > 0.

    Args:
        density: A `SpectralDensity` of a positive semidefinite matrix.
        regularization: The number a, positive, in units of the eigenvalues.

    Raises:
        InputError: If ``regularization`` is not positive or the spectrum is clearly negative.
    """
    a = check_positive("regularization", regularization)
    nodes, weights = density.points
    if nodes[0] < -1e-6 * max(abs(nodes[-1]), abs(nodes[0])):
        raise InputError(
            f"density reaches {nodes[0]:.3g}; the effective dimension needs a positive semidefinite matrix."
        )
    up = np.maximum(nodes, 0.0)
    return float(density.size * (weights @ (up / (up + a))))
