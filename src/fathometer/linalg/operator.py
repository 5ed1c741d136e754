"""Linear operators over flat vectors: what a matrix does, without the matrix.

An operator is one function that maps a block of columns (n, k) to a block
(m, k). Sums, multiples, products and restrictions to a subset of the coordinates
are operators again. The Krylov and trace methods of this floor ask for nothing else.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import reduce
from numbers import Real
from typing import TYPE_CHECKING, Any, SupportsFloat, cast

import numpy as np
import torch
from torch import Tensor

from fathometer.errors import BudgetError, InputError

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator as ScipyOperator

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
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

    __array_ufunc__ = None  # numpy scalars and arrays leave the arithmetic to the operator

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
    def T(self) -> "LinearOperator":
        """The transpose."""
        if self.symmetric:
            return self
        if self.transposed is None:
            raise InputError(f"{self.name} was built without its transpose; pass transposed=.")
        return LinearOperator(
            shape=(self.shape[1], self.shape[0]),
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

        Vectors are taken in the operator's dtype and device; numpy arrays come back
        as numpy arrays.

        Raises:
            InputError: If the first dimension does not fit or V is complex, or if the
                operator's product does not give one column for each of V.
        """
        if isinstance(V, LinearOperator):
            return _composed(self, V)
        vectors = self._vectors(V)
        image = self.product(vectors[:, None] if vectors.ndim == 1 else vectors)
        columns = 1 if vectors.ndim == 1 else vectors.shape[1]
        if image.shape != (self.shape[0], columns):
            raise InputError(
                f"the product of {self.name} gave shape {tuple(image.shape)} for {columns} columns; "
                f"({self.shape[0]}, {columns}) is needed."
            )
        image = image[:, 0] if vectors.ndim == 1 else image
        return image.detach().cpu().numpy() if isinstance(V, np.ndarray) else image

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
        if not isinstance(other, LinearOperator):
            return NotImplemented
        if self.shape != other.shape:
            raise InputError(f"shapes {self.shape} and {other.shape} cannot be added.")
        return _combined((1.0, self), (1.0, other))

    def __sub__(self, other: "LinearOperator") -> "LinearOperator":
        if not isinstance(other, LinearOperator):
            return NotImplemented
        return self + (-1.0) * other

    def __neg__(self) -> "LinearOperator":
        return -1.0 * self

    def __mul__(self, factor: SupportsFloat) -> "LinearOperator":
        if not isinstance(factor, Real) and not (isinstance(factor, Tensor) and factor.ndim == 0):
            return NotImplemented
        if not math.isfinite(factor):
            raise InputError(f"factor is {float(factor)}; an operator is scaled by a finite number.")
        return _combined((float(factor), self))

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> "LinearOperator":
        if divisor == 0:
            raise InputError(f"{self.name} cannot be divided by zero.")
        return self * (1.0 / divisor)

    def restrict(self, positions: Any) -> "LinearOperator":
        """The block of rows and columns at ``positions``, as an operator.

        Args:
            positions: Distinct positions (k,) in the order wanted, or a mask (n,) of booleans.

        Raises:
            InputError: If a position is out of range or repeated, or the operator is not square.
        """
        rows, columns = self.shape
        if rows != columns:
            raise InputError(f"{self.name} has shape {self.shape}; only a square operator is restricted.")
        at = _positions(positions, columns).to(self.device)

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
        """The matrix (rows, columns), by products with the unit vectors, ``block`` at a time.

        Raises:
            InputError: If ``block`` is not positive.
            BudgetError: If the matrix does not fit the memory budget.
        """
        if block < 1:
            raise InputError(f"block is {block}; at least one column is taken at a time.")
        rows, columns = self.shape
        _check_memory(self)
        if self.dense is not None:
            return self.dense.clone()
        matrix = torch.empty(rows, columns, dtype=self.dtype, device=self.device)
        for start in range(0, columns, block):
            stop = min(start + block, columns)
            units = torch.zeros(columns, stop - start, dtype=self.dtype, device=self.device)
            units[torch.arange(start, stop), torch.arange(stop - start)] = 1.0
            matrix[:, start:stop] = self @ units
        return matrix

    def to_scipy(self) -> "ScipyOperator":
        """The same map for SciPy's sparse solvers, over numpy vectors on the CPU."""
        from scipy.sparse.linalg import LinearOperator as ScipyOperator

        def forward(V: np.ndarray) -> np.ndarray:
            return self @ np.asarray(V)

        def backward(V: np.ndarray) -> np.ndarray:
            return self.T @ np.asarray(V)

        options: dict[str, Any] = {
            "matvec": forward,
            "matmat": forward,
            "rmatvec": backward,
            "rmatmat": backward,
            "dtype": torch.empty(0, dtype=self.dtype).numpy().dtype,
        }
        return ScipyOperator(self.shape, **options)

    def __repr__(self) -> str:
        return f"<{self.name} {self.shape[0]} x {self.shape[1]}, {self.dtype}>"


def as_operator(matrix: Any, *, name: str = "matrix") -> LinearOperator:
    """Wrap a plain matrix (m, n), numpy or torch, dense; messages call it ``name``.

    A square matrix that equals its transpose up to rounding (ten units in the last
    place of its Frobenius norm) counts as symmetric, and its symmetric part is taken.

    Raises:
        InputError: If it is not a dense array of two dimensions, not real, or holds NaN or infinity.

    >>> as_operator([[2, 1], [1, 2]])
    <matrix 2 x 2, torch.float64>
    """
    if isinstance(matrix, LinearOperator):
        return matrix
    A = _as_matrix(matrix)
    if A.ndim != 2 or A.numel() == 0:
        raise InputError(f"matrix has shape {tuple(A.shape)}; a non-empty matrix is needed.")
    if A.is_complex():
        raise InputError(f"matrix is {A.dtype}; operators here are real.")
    if not A.is_floating_point():
        A = A.double()
    if not torch.isfinite(A).all():
        row, column = (~torch.isfinite(A)).nonzero()[0].tolist()
        raise InputError(f"matrix[{row}, {column}] is not finite.")
    symmetric = A.shape[0] == A.shape[1] and _is_symmetric(A)
    if symmetric:
        A = (A + A.T) / 2
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


def _as_matrix(matrix: Any) -> Tensor:
    try:
        A = torch.as_tensor(matrix)
    except (TypeError, ValueError, RuntimeError) as cause:
        raise InputError(
            f"matrix is a {type(matrix).__name__}, which is no dense array ({cause}); "
            "pass numpy or torch, or build a LinearOperator from its products."
        ) from None
    if A.layout != torch.strided:
        raise InputError(f"matrix has layout {A.layout}; pass matrix.to_dense(), or a LinearOperator.")
    return A.detach()


def _is_symmetric(A: Tensor) -> bool:
    gap = (A - A.T).abs().max()
    return bool(gap <= 10 * torch.finfo(A.dtype).eps * torch.linalg.matrix_norm(A))


def _positions(positions: Any, size: int) -> Tensor:
    at = torch.as_tensor(positions).flatten()
    if at.dtype == torch.bool:
        if len(at) != size:
            raise InputError(f"positions is a mask of {len(at)} entries; {size} are needed.")
        at = at.nonzero()[:, 0]
    at = at.long()
    if at.numel() == 0 or at.min() < 0 or at.max() >= size:
        raise InputError(f"positions must be a non-empty selection of 0..{size - 1}.")
    if len(at.unique()) != len(at):
        repeated = int(at[torch.bincount(at)[at] > 1][0])
        raise InputError(f"positions holds {repeated} more than once; each coordinate is taken at most once.")
    return at


def _check_memory(A: LinearOperator) -> None:
    """Refuse to write down a matrix that the memory budget does not hold."""
    from fathometer.work import allowance, in_words

    need, free = math.prod(A.shape) * A.dtype.itemsize, allowance()
    if need > free:
        fits = math.isqrt(free // A.dtype.itemsize)
        raise BudgetError(
            f"{A.name} as a dense matrix needs {in_words(need)} and {in_words(free)} may be used; "
            f"up to {fits} x {fits} fits. Use products (A @ V), or raise fm.budget."
        )


def _combined(*terms: tuple[float, LinearOperator]) -> LinearOperator:
    """The sum of multiples of operators of one shape, in the widest of their dtypes."""
    first = terms[0][1]
    for _, A in terms:
        if A.device != first.device:
            raise InputError(f"{first.name} is on {first.device} and {A.name} on {A.device}; use one device.")
    dtype = reduce(torch.promote_types, (A.dtype for _, A in terms))
    symmetric = all(A.symmetric for _, A in terms)
    transposable = all(A.symmetric or A.transposed for _, A in terms)
    whole = all(A.dense is not None for _, A in terms)

    def total(products: list[tuple[float, LinearOperator, Product]]) -> Product:
        def apply(V: Tensor) -> Tensor:
            image: Tensor | None = None
            for c, A, product in products:
                part = product(V.to(A.dtype)).to(dtype)
                image = c * part if image is None else image.add_(part, alpha=c)
            return cast(Tensor, image)

        return apply

    forward = [(c, A, A.product) for c, A in terms]
    backward = [(c, A, A.product if A.symmetric else cast(Product, A.transposed)) for c, A in terms]
    return LinearOperator(
        shape=first.shape,
        product=total(forward),
        transposed=total(backward) if transposable and not symmetric else None,
        dtype=dtype,
        device=first.device,
        symmetric=symmetric,
        name=" + ".join(A.name if c == 1.0 else f"{c:g} {A.name}" for c, A in terms),
        dense=sum(c * cast(Tensor, A.dense) for c, A in terms) if whole else None,  # type: ignore[arg-type]
    )


def _composed(A: LinearOperator, B: LinearOperator) -> LinearOperator:
    """The operator that applies B, then A; ``A @ A`` and ``A.T @ A`` know that they are symmetric."""
    if A.shape[1] != B.shape[0]:
        raise InputError(f"shapes {A.shape} and {B.shape} cannot be multiplied.")
    if A.dtype != B.dtype or A.device != B.device:
        raise InputError(
            f"{A.name} takes {A.dtype} on {A.device} and {B.name} gives {B.dtype} on {B.device}; "
            "they must agree."
        )
    square = A is B and A.symmetric
    gram = A.product is B.transposed and A.transposed is B.product
    transposable = (A.symmetric or A.transposed) and (B.symmetric or B.transposed)
    return LinearOperator(
        shape=(A.shape[0], B.shape[1]),
        product=lambda V: A.product(B.product(V)),
        transposed=(lambda V: B.T.product(A.T.product(V))) if transposable and not (square or gram) else None,
        dtype=A.dtype,
        device=A.device,
        symmetric=square or gram,
        name=f"{A.name} @ {B.name}",
    )
