"""Linear algebra without matrices: operators, Krylov methods, traces."""

from fathometer.linalg.operator import LinearOperator, as_operator

__all__ = ["LinearOperator", "as_operator"]
