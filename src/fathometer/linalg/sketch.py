"""A growing sketch: random columns, their images, and an orthonormal basis of the images.

For a random block O the sketch keeps Y = A O = Q R and Z = A Q. Columns can be added at
any time and no product is ever repeated: the basis is extended, never rebuilt. The
leave-one-out identity of Epperly, Tropp & Webber (2024, sec. 2.2) is computed here, because
trace, norm and diagonal all rest on it: with S the columns of R^-T scaled to length one,
leaving column i out of the sketch projects onto Q (I - s_i s_i') Q'.
"""

import math

import torch
from torch import Tensor

from fathometer.linalg.counted import Counted, orthogonal_to


class Sketch:
    """Random columns O (P, n), the basis Q of A O, and Z = A Q (or A' Q).

    Args:
        product: The counted operator.
        adjoint: What is applied to Q; the operator itself by default.
    """

    def __init__(self, product: Counted, adjoint: Counted | None = None) -> None:
        A = product.operator
        self._product, self._adjoint = product, product if adjoint is None else adjoint
        self.O = torch.zeros(A.shape[1], 0, dtype=A.dtype, device=A.device)
        self.Q = torch.zeros(A.shape[0], 0, dtype=A.dtype, device=A.device)
        self.Z = torch.zeros_like(self.O)
        self.R = torch.zeros(0, 0, dtype=torch.float64)

    def add(self, columns: Tensor) -> None:
        """Take in further random columns (P, k): 2 k products."""
        Y = self._product(columns)
        Y, C = orthogonal_to(self.Q, Y)
        new, R = torch.linalg.qr(Y)
        again, D = orthogonal_to(self.Q, new)  # Y may lie in the basis already; what is left is noise
        new, S = torch.linalg.qr(again)
        C, R = C + D @ R, S @ R
        n, k = self.R.shape[0], columns.shape[1]
        grown = torch.zeros(n + k, n + k, dtype=torch.float64)
        grown[:n, :n] = self.R
        grown[:n, n:] = C.cpu().double()
        grown[n:, n:] = R.cpu().double()
        self.R = grown
        self.Q = torch.cat([self.Q, new], dim=1)
        self.Z = torch.cat([self.Z, self._adjoint(new)], dim=1)
        self.O = torch.cat([self.O, columns], dim=1)

    @property
    def saturated(self) -> bool:
        """Whether the images are linearly dependent up to rounding: then Q holds the range of A."""
        return bool(self._noise.any())

    @property
    def outside(self) -> float:
        """Where it is saturated, about the Frobenius norm of what A keeps outside of the basis.

        A random column leaves that length outside, on the average; rounding hides no more than
        the longest direction that passed for noise.
        """
        noise = self._noise
        return self.R.diagonal().abs()[noise].max().item() if noise.any() else math.inf

    @property
    def rounding(self) -> float:
        """Size of the rounding errors in a trace: that of a product, over all rows.

        A random column is as long as the Frobenius norm, on the average over the columns.
        """
        rows, columns = self.Q.shape
        return torch.finfo(self.Q.dtype).eps * math.sqrt(rows / columns) * self._norm

    @property
    def _noise(self) -> Tensor:
        """Which columns are noise (n,): shorter than the rounding errors of the others."""
        eps, lengths = torch.finfo(self.Q.dtype).eps, self.R.diagonal().abs()
        return lengths <= 10 * eps * len(lengths) * self._norm

    @property
    def _norm(self) -> float:
        largest = self.R.abs().max().item()  # the squares of tiny or huge entries leave the range
        return largest * torch.linalg.matrix_norm(self.R / largest).item() if largest else 0.0

    def leave_one_out(self) -> Tensor:
        """The directions s_i (n, n): column i of the sketch adds Q s_i to the basis of the others."""
        identity = torch.eye(len(self.R), dtype=torch.float64)
        R = self.R / self.R.abs().max()  # the lengths below are squared on the way
        S = torch.linalg.solve_triangular(R.T, identity, upper=False)
        return S / torch.linalg.vector_norm(S, dim=0)
