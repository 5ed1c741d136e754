"""Linear algebra without matrices: operators, Krylov methods, traces."""

from fathometer.linalg.eigenpairs import Eigenpairs, eigenpairs
from fathometer.linalg.lanczos import Tridiagonal, lanczos
from fathometer.linalg.operator import LinearOperator, as_operator
from fathometer.linalg.slq import Quadrature, slq
from fathometer.linalg.solve import Solution, solve
from fathometer.linalg.trace import diagonal, frobenius_norm, trace

__all__ = [
    "Eigenpairs",
    "LinearOperator",
    "Quadrature",
    "Solution",
    "Tridiagonal",
    "as_operator",
    "diagonal",
    "eigenpairs",
    "frobenius_norm",
    "lanczos",
    "slq",
    "solve",
    "trace",
]
