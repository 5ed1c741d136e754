"""The search space of an eigenvalue solver: block Krylov, re-orthogonalized, restartable.

The space keeps orthonormal columns Q and the projected matrix H = Q' A Q, with
A Q = Q H + X B: one residual block X holds everything that A makes of Q and Q lacks
(a Krylov-Schur decomposition, Stewart 2001; thick restart, Wu & Simon 2000; by blocks,
Zhou & Saad 2008). Expanding by X, restarting on any Ritz vectors and taking further
directions in all keep that form, so the residual of a Ritz pair is known without a
product. H is not assumed tridiagonal: its entries are the projections that
re-orthogonalization computes anyway, and comparing them with their mirror images
shows an operator that is not symmetric.
"""

import torch
from torch import Tensor

from fathometer.errors import InputError
from fathometer.linalg.counted import Counted

SKEW = 1e-3
"""Share of the operator's norm beyond which a skew part cannot be rounding."""


class Space:
    """Orthonormal columns, their images' projections, and the residual block.

    Args:
        product: The counted operator.
        capacity: Columns there is room for, the residual block included.
    """

    def __init__(self, product: Counted, capacity: int) -> None:
        A = product.operator
        self.product = product
        self.capacity = capacity
        # one column after the other in memory: every slice of columns is one contiguous piece
        self._columns = torch.empty(capacity, A.shape[0], dtype=A.dtype, device=A.device)
        self._projected = torch.zeros(capacity, capacity, dtype=torch.float64)
        self.expanded = 0  # columns whose image is known; the residual block stands behind them
        self.filled = 0
        self._block = slice(0, 0)  # the columns expanded last
        self._coupling = torch.zeros(0, 0, dtype=torch.float64)  # B on those columns
        self._eps = torch.finfo(A.dtype).eps

    @property
    def Q(self) -> Tensor:
        """The columns (P, filled), the residual block included."""
        return self._columns[: self.filled].T

    @property
    def H(self) -> Tensor:
        """The projected matrix (expanded, expanded)."""
        return self._projected[: self.expanded, : self.expanded]

    @property
    def room(self) -> int:
        """Columns that can still be taken in."""
        return self.capacity - self.filled

    def add(self, V: Tensor) -> int:
        """Take in the directions of V (P, k) that are new, as far as there is room; how many were."""
        length = torch.linalg.vector_norm(V, dim=0)
        V = V[:, length > 0][:, : self.room]
        X, _, _ = self._new_directions(V / torch.linalg.vector_norm(V, dim=0), 1e3 * self._eps)
        self._put(X)
        return X.shape[1]

    def expand(self) -> None:
        """Apply the operator to the residual block and find the next one, which must have room.

        Raises:
            InputError: If a product is not finite or the operator is not symmetric.
        """
        old, now = self.expanded, slice(self.expanded, self.filled)
        W = self.product(self.Q[:, now])
        scale = max(
            torch.linalg.vector_norm(W, dim=0).max().item(), self.H.abs().max().item() if old else 0.0
        )
        X, R, seen = self._new_directions(W, 10 * self._eps * scale)
        self._check_symmetry(seen, self._projected[: self.filled, now], old)
        square = seen[now]
        self._projected[: self.filled, now] = seen
        self._projected[now, : self.filled] = seen.T
        self._projected[now, now] = (square + square.T) / 2
        self.expanded, self._block, self._coupling = self.filled, now, R
        self._put(X)
        self._couple(R, now)

    def ritz(self) -> tuple[Tensor, Tensor, Tensor]:
        """Ritz values ascending, their coefficients, and the norms of their residuals."""
        values, S = torch.linalg.eigh(self.H)
        return values, S, torch.linalg.vector_norm(self._coupling @ S[self._block], dim=0)

    def vectors(self, S: Tensor) -> Tensor:
        """The vectors (P, k) with coefficients S (expanded, k), of unit length."""
        V = self.Q[:, : self.expanded] @ S.to(self.Q)
        return V / torch.linalg.vector_norm(V, dim=0)

    def restart(self, values: Tensor, S: Tensor) -> None:
        """Keep the Ritz pairs with coefficients S (expanded, k) and the residual block."""
        kept, block = S.shape[1], self.filled - self.expanded
        X = self._columns[self.expanded : self.filled].clone()
        mix = S.T.to(self._columns)
        for at in torch.arange(self._columns.shape[1]).split(1 << 16):  # in place: no second basis in memory
            part = slice(int(at[0]), int(at[-1]) + 1)
            self._columns[:kept, part] = mix @ self._columns[: self.expanded, part]
        self._columns[kept : kept + block] = X
        coupling = self._coupling @ S[self._block]
        self._projected.zero_()
        self._projected[:kept, :kept] = torch.diag(values)
        self.expanded, self.filled = kept, kept + block
        self._block, self._coupling = slice(0, kept), coupling
        self._couple(coupling, self._block)

    def _put(self, X: Tensor) -> None:
        self._columns[self.filled : self.filled + X.shape[1]] = X.T
        self.filled += X.shape[1]

    def _couple(self, R: Tensor, block: slice) -> None:
        rows = slice(self.expanded, self.expanded + len(R))
        self._projected[rows, block] = R
        self._projected[block, rows] = R.T

    def _new_directions(self, W: Tensor, cut: float) -> tuple[Tensor, Tensor, Tensor]:
        """Orthonormal X, R and C with W = Q C + X R; directions shorter than ``cut`` are left out.

        Normalized before the second projection, or the weakest direction of a block would
        keep the rounding errors of the strongest. What the second projection halves was noise.
        """
        C = self.Q.T @ W
        X, R = _orthonormal(W - self.Q @ C, cut)
        again = self.Q.T @ X
        X, S = _orthonormal(X - self.Q @ again, 0.5)
        return X, S @ R, C.cpu().double() + again.cpu().double() @ R

    def _check_symmetry(self, seen: Tensor, known: Tensor, old: int) -> None:
        gap = (seen[:old] - known[:old]).abs().amax().item() if old else 0.0
        square = seen[old:]
        gap = max(gap, (square - square.T).abs().max().item())
        scale = max(seen.abs().max().item(), self._projected.abs().max().item())
        if gap > SKEW * scale:
            raise InputError(
                f"{self.product.operator.name} is declared symmetric and is not: u.Av and v.Au differ by "
                f"{gap:.3g} for unit vectors u and v, where its entries reach {scale:.3g}."
            )


def _orthonormal(W: Tensor, cut: float) -> tuple[Tensor, Tensor]:
    """Orthonormal X and R with W = X R, without the directions shorter than ``cut``."""
    X, R = torch.linalg.qr(W)
    U, s, Vh = torch.linalg.svd(R.cpu().double(), full_matrices=False)
    keep = s > cut
    return X @ U[:, keep].to(X), s[keep, None] * Vh[keep]
