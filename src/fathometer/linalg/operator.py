"""Linear operators over flat vectors: what a matrix does, without the matrix.

An operator is one function that maps a block of columns (n, k) to a block
(m, k). Sums, multiples, products and restrictions to a subset of the coordinates
are operators again. The Krylov and trace methods of this floor ask for nothing else.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from fathometer.errors import InputError

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator as ScipyOperator

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False, kw_only=True)
class LinearOperator:
    """A linear map given by its product with a block of columns.

    Attributes:
        shape: (rows, columns).
        product: Maps (columns, k) to (rows, k).
        transposed: Maps (rows, k) to (columns, k); None for a symmetric operator.
        dtype, device: Of the vectors it takes and gives.
        symmetric: Whether the operator is its own transpose.
        name: What it is, for messages.
        dense: The matrix itself where it exists, so that exact routes are free.
    """

    shape: tuple[int, int]
    product: Product
    dtype: torch.dtype
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    transposed: Product | None = None
    symmetric: bool = True
    name: str = "operator"
    dense: Tensor | None = None

    def __post_init__(self) -> None:
        if self.symmetric and self.shape[0] != self.shape[1]:
            raise InputError(f"{self.name} has shape {self.shape}; a symmetric operator is square.")

    @property
    def T(self) -> "LinearOperator":  # noqa: N802 - the transpose has one name everywhere
        """The transpose."""
        if self.symmetric:
            return self
        if self.transposed is None:
            raise InputError(f"{self.name} was built without its transpose; pass transposed=.")
        return LinearOperator(
            shape=self.shape[::-1],
            product=self.transposed,
            transposed=self.product,
            dtype=self.dtype,
            device=self.device,
            symmetric=False,
            name=f"transpose of {self.name}",
            dense=None if self.dense is None else self.dense.T,
        )

    def __matmul__(self, V: Any) -> Any:
        """Product with a vector (columns,), a block (columns, k) or another operator.

        Numpy arrays come back as numpy arrays.

        Raises:
            InputError: If the first dimension does not fit, or V is not real floating.
        """
        if isinstance(V, LinearOperator):
            return _composed(self, V)
        given_numpy = isinstance(V, np.ndarray)
        vectors = self._vectors(V)
        columns = vectors[:, None] if vectors.ndim == 1 else vectors
        image = self.product(columns)
        image = image[:, 0] if vectors.ndim == 1 else image
        return image.detach().cpu().numpy() if given_numpy else image

    def _vectors(self, V: Any) -> Tensor:
        vectors = torch.as_tensor(V)
        if vectors.ndim not in (1, 2) or vectors.shape[0] != self.shape[1]:
            raise InputError(
                f"V has shape {tuple(vectors.shape)}; {self.name} of shape {self.shape} takes "
                f"({self.shape[1]},) or ({self.shape[1]}, k)."
            )
        if vectors.is_complex():
            raise InputError(f"V is {vectors.dtype}; {self.name} takes real vectors.")
        return vectors.to(self.device, self.dtype)

    def __add__(self, other: "LinearOperator") -> "LinearOperator":
        if self.shape != other.shape:
            raise InputError(f"shapes {self.shape} and {other.shape} cannot be added.")
        return _combined((1.0, self), (1.0, other))

    def __sub__(self, other: "LinearOperator") -> "LinearOperator":
        return self + (-1.0) * other

    def __neg__(self) -> "LinearOperator":
        return -1.0 * self

    def __mul__(self, factor: float) -> "LinearOperator":
        return _combined((float(factor), self))

    __rmul__ = __mul__

    def restrict(self, positions: Any) -> "LinearOperator":
        """The block of rows and columns at ``positions`` (k,), as an operator (k, k).

        Raises:
            InputError: If a position is out of range or the operator is not square.
        """
        rows, columns = self.shape
        at = torch.as_tensor(positions, device=self.device).long().flatten()
        if rows != columns:
            raise InputError(f"{self.name} has shape {self.shape}; only a square operator is restricted.")
        if at.numel() == 0 or at.min() < 0 or at.max() >= columns:
            raise InputError(f"positions must be a non-empty selection of 0..{columns - 1}.")

        def within(product: Product) -> Product:
            def apply(V: Tensor) -> Tensor:
                wide = V.new_zeros(columns, V.shape[1])
                wide[at] = V
                return product(wide)[at]

            return apply

        return LinearOperator(
            shape=(len(at), len(at)),
            product=within(self.product),
            transposed=within(self.transposed) if self.transposed else None,
            dtype=self.dtype,
            device=self.device,
            symmetric=self.symmetric,
            name=f"block of {self.name}",
            dense=None if self.dense is None else self.dense[at][:, at],
        )

    def to_dense(self, block: int = 64) -> Tensor:
        """The matrix (rows, columns), by products with the unit vectors, ``block`` at a time."""
        if self.dense is not None:
            return self.dense.clone()
        rows, columns = self.shape
        matrix = torch.empty(rows, columns, dtype=self.dtype, device=self.device)
        for start in range(0, columns, block):
            stop = min(start + block, columns)
            units = torch.zeros(columns, stop - start, dtype=self.dtype, device=self.device)
            units[torch.arange(start, stop), torch.arange(stop - start)] = 1.0
            matrix[:, start:stop] = self.product(units)
        return matrix

    def to_scipy(self) -> "ScipyOperator":
        """The same map for SciPy's sparse solvers, over numpy vectors on the CPU."""
        from scipy.sparse.linalg import LinearOperator as ScipyOperator

        def forward(V: np.ndarray) -> np.ndarray:
            return cast("np.ndarray", self @ np.asarray(V))

        def backward(V: np.ndarray) -> np.ndarray:
            return cast("np.ndarray", self.T @ np.asarray(V))

        dtype = torch.empty(0, dtype=self.dtype).numpy().dtype
        return ScipyOperator(self.shape, matvec=forward, matmat=forward, rmatvec=backward, dtype=dtype)  # type: ignore[call-arg]

    def __repr__(self) -> str:
        return f"<{self.name} {self.shape[0]} x {self.shape[1]}, {self.dtype}>"


def as_operator(matrix: Any, *, name: str = "matrix") -> LinearOperator:
    """Wrap a plain matrix (m, n), numpy or torch, dense; symmetry is read off it.

    Raises:
        InputError: If it is not two-dimensional, not real, or holds NaN or infinity.
    """
    if isinstance(matrix, LinearOperator):
        return matrix
    A = torch.as_tensor(matrix)
    if A.ndim != 2 or A.numel() == 0:
        raise InputError(f"matrix has shape {tuple(A.shape)}; a non-empty matrix is needed.")
    if A.is_complex():
        raise InputError(f"matrix is {A.dtype}; operators here are real.")
    if not A.is_floating_point():
        A = A.double()
    if not torch.isfinite(A).all():
        row, column = (~torch.isfinite(A)).nonzero()[0].tolist()
        raise InputError(f"matrix[{row}, {column}] is not finite.")
    symmetric = A.shape[0] == A.shape[1] and bool(torch.equal(A, A.T))
    return LinearOperator(
        shape=(A.shape[0], A.shape[1]),
        product=lambda V: A @ V,
        transposed=None if symmetric else lambda V: A.T @ V,
        dtype=A.dtype,
        device=A.device,
        symmetric=symmetric,
        name=name,
        dense=A,
    )


def _combined(*terms: tuple[float, LinearOperator]) -> LinearOperator:
    """The sum of multiples of operators of one shape."""
    first = terms[0][1]
    symmetric = all(A.symmetric for _, A in terms)
    transposable = all(A.symmetric or A.transposed for _, A in terms)
    whole = all(A.dense is not None for _, A in terms)

    def total(products: list[tuple[float, Product]]) -> Product:
        return lambda V: sum((c * apply(V) for c, apply in products[1:]), products[0][0] * products[0][1](V))

    return LinearOperator(
        shape=first.shape,
        product=total([(c, A.product) for c, A in terms]),
        transposed=None
        if symmetric or not transposable
        else total([(c, A.product if A.symmetric else cast(Product, A.transposed)) for c, A in terms]),
        dtype=first.dtype,
        device=first.device,
        symmetric=symmetric,
        name=" + ".join(A.name if c == 1.0 else f"{c:g} {A.name}" for c, A in terms),
        dense=sum(c * cast(Tensor, A.dense) for c, A in terms) if whole else None,  # type: ignore[arg-type]
    )


def _composed(A: LinearOperator, B: LinearOperator) -> LinearOperator:
    """The operator that applies B, then A."""
    if A.shape[1] != B.shape[0]:
        raise InputError(f"shapes {A.shape} and {B.shape} cannot be multiplied.")
    transposable = (A.symmetric or A.transposed) and (B.symmetric or B.transposed)
    return LinearOperator(
        shape=(A.shape[0], B.shape[1]),
        product=lambda V: A.product(B.product(V)),
        transposed=(lambda V: B.T.product(A.T.product(V))) if transposable else None,
        dtype=A.dtype,
        device=A.device,
        symmetric=False,
        name=f"{A.name} @ {B.name}",
    )
