"""Was an eigenvalue missed? A Lanczos run from a random vector, and what it excludes.

If x is an eigenvalue of an operator on n dimensions with unit eigenvector u, the measure
of a random unit vector r has the mass (r . u)^2 at x: at least ``(pi/2) delta^2 / n`` with
probability 1 - delta. But no measure that has the moments seen in s Lanczos steps has
more mass at x than the Christoffel number ``1 / sum_{j<=s} p_j(x)^2`` (Szego 1939, sec. 3.4),
with p_j the orthonormal polynomials of the run. Where that is less, x is excluded. Beyond the
zeros of p_s the sum grows, so that all that lies beyond x is excluded with it. Five steps
are enough where x stands ten times further out than the rest.
"""

import math

import torch
from scipy.linalg import eigvalsh_tridiagonal
from torch import Tensor

from fathometer.linalg.counted import Counted, orthogonal_to

CONFIDENCE = 0.999
"""Probability over the random vector that an exclusion holds."""


class Probe:
    """Lanczos, re-orthogonalized, on the part of an operator orthogonal to known vectors.

    Args:
        product: The counted operator.
        V: Orthonormal columns (P, k) to leave out.
        start: Random vector (P, 1), normal.
        steps: The most steps that will be taken.
    """

    def __init__(self, product: Counted, V: Tensor, start: Tensor, steps: int) -> None:
        self._product, self._V, self._most = product, V, steps
        self._columns = torch.empty(steps, len(V), dtype=V.dtype, device=V.device)
        self._alpha: list[float] = []
        self._beta: list[float] = []
        # (r . u)^2 exceeds t / n with probability 1 - sqrt(2 t / pi), for small t
        self._least_mass = math.pi / 2 * (1 - CONFIDENCE) ** 2 / (len(V) - V.shape[1])
        start, _ = orthogonal_to(V, start)
        self._next: Tensor | None = start / torch.linalg.vector_norm(start)

    @property
    def steps(self) -> int:
        """Steps taken."""
        return len(self._alpha)

    def step(self) -> bool:
        """Take one step, one product; False if there is none left to take."""
        if self._next is None or self.steps == self._most:
            return False
        q = self._next
        self._columns[self.steps] = q[:, 0]
        w = self._product(q)
        self._alpha.append((q * w).sum().item())
        w, _ = orthogonal_to(self._V, w)
        w, _ = orthogonal_to(self._columns[: self.steps].T, w)
        length = torch.linalg.vector_norm(w).item()
        scale = max(map(abs, [*self._alpha, *self._beta]))
        if length <= 10 * torch.finfo(q.dtype).eps * scale:
            self._next, length = None, 0.0  # the whole Krylov space: its Ritz values are eigenvalues
        else:
            self._next = w / length
        self._beta.append(length)
        return True

    def ends(self) -> tuple[float, float]:
        """The lowest and the highest Ritz value."""
        m = self.steps
        low, high = (
            float(eigvalsh_tridiagonal(self._alpha, self._beta[:-1], select="i", select_range=(i, i))[0])
            for i in (0, m - 1)
        )
        return low, high

    def ritz(self) -> tuple[Tensor, Tensor]:
        """Ritz values ascending, and Ritz vectors (P, steps)."""
        off = torch.tensor(self._beta[:-1], dtype=torch.float64)
        T = (
            torch.diag(torch.tensor(self._alpha, dtype=torch.float64))
            + torch.diag(off, 1)
            + torch.diag(off, -1)
        )
        values, S = torch.linalg.eigh(T)
        return values, self._columns[: self.steps].T @ S.to(self._V)

    def excludes(self, x: float) -> bool:
        """Whether no eigenvalue is at x or beyond it, seen from the Ritz values."""
        low, high = self.ends()
        if low <= x <= high:
            return False
        return self._next is None or self._christoffel(x) < self._least_mass

    def beyond(self, sign: int) -> float:
        """The level nearest to the Ritz values that is excluded, above (1) or below (-1) them."""
        low, high = self.ends()
        edge = high if sign > 0 else low
        if self._next is None:
            return edge
        width = max(high - low, abs(edge), 1e-300)
        inner, outer = 0.0, 1e-12 * width
        while not self.excludes(edge + sign * outer):
            inner, outer = outer, 2 * outer
        while outer - inner > 1e-3 * outer:
            middle = (inner + outer) / 2
            inner, outer = (inner, middle) if self.excludes(edge + sign * middle) else (middle, outer)
        return edge + sign * outer

    def _christoffel(self, x: float) -> float:
        """The most mass that a measure with the moments seen can have at x."""
        before, now, total, back = 0.0, 1.0, 1.0, 0.0
        for a, b in zip(self._alpha, self._beta, strict=True):
            before, now, back = now, ((x - a) * now - back * before) / b, b
            total += now * now
            if total > 1e200:
                break
        return 1.0 / total
