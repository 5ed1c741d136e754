"""Products that are counted and checked, and what every Krylov method needs beside them.

What a measurement costs is the number of columns an operator was applied to; a
method that counts them itself cannot forget one. A product that is not finite
would poison every later number, so it is refused where it arises.
"""

import torch
from torch import Tensor

from fathometer.errors import InputError
from fathometer.linalg.operator import LinearOperator

DENSE_LIMIT = 512
"""Sizes up to which writing the whole matrix down is the cheapest plan."""


class Counted:
    """The product of an operator, with the columns spent so far in ``spent``."""

    def __init__(self, A: LinearOperator) -> None:
        self.operator = A
        self._tally = [0]

    @property
    def spent(self) -> int:
        """Columns the operator, or its transpose, was applied to."""
        return self._tally[0]

    def transposed(self) -> "Counted":
        """The product of the transpose, on the same count."""
        if self.operator.symmetric:
            return self
        other = Counted(self.operator.T)
        other._tally = self._tally
        return other

    def __call__(self, V: Tensor) -> Tensor:
        """``A @ V`` for a block (columns, k).

        Raises:
            InputError: If a value of the product is not finite.
        """
        image = (self.operator @ V).detach()
        self._tally[0] += V.shape[1]
        # one bad entry spoils the sum; a sum that only overflowed is looked at closely
        if not torch.isfinite(image.sum()) and not torch.isfinite(image).all():
            column = int((~torch.isfinite(image)).any(0).nonzero()[0])
            raise InputError(
                f"the product of {self.operator.name} is not finite (column {column} of a block of "
                f"{V.shape[1]}); is the point it was taken at sound?"
            )
        return image

    def written_down(self) -> Tensor:
        """The matrix: free where it exists, else by one product for each column."""
        A = self.operator
        if A.dense is not None:
            return A.dense
        matrix = A.to_dense().detach()
        self._tally[0] += A.shape[1]
        if not torch.isfinite(matrix).all():
            row, column = (~torch.isfinite(matrix)).nonzero()[0].tolist()
            raise InputError(f"{A.name} is not finite at row {row}, column {column}.")
        return matrix


def check_square(A: LinearOperator, what: str) -> None:
    """Refuse an operator that is not square."""
    if A.shape[0] != A.shape[1]:
        raise InputError(f"{A.name} has shape {A.shape}; {what} needs a square operator.")


def check_symmetric(A: LinearOperator, what: str) -> None:
    """Refuse an operator that is not declared symmetric."""
    if not A.symmetric:
        raise InputError(
            f"{A.name} of shape {A.shape} is not symmetric; {what} needs a symmetric operator, "
            "for example A.T @ A or (A + A.T) / 2."
        )


def normal(A: LinearOperator, columns: int, generator: torch.Generator) -> Tensor:
    """Standard normal columns (A.columns, k), the same numbers on every device."""
    draw = torch.randn(A.shape[1], columns, generator=generator, dtype=torch.float64)
    return draw.to(A.device, A.dtype)


def signs(A: LinearOperator, columns: int, generator: torch.Generator) -> Tensor:
    """Random signs (A.columns, k): +1 or -1 with equal chance."""
    draw = torch.randint(0, 2, (A.shape[1], columns), generator=generator)
    return (2 * draw - 1).to(A.device, A.dtype)


def orthogonal_to(Q: Tensor, V: Tensor) -> tuple[Tensor, Tensor]:
    """V without its part in the span of the orthonormal columns of Q, and that part's coefficients.

    Projected twice: what one pass leaves behind after cancellation, the second removes.
    """
    first = Q.T @ V
    V = V - Q @ first
    second = Q.T @ V
    return V - Q @ second, first + second
