"""Gauss rules from recurrences, Chebyshev series on intervals and boxes, Stieltjes inversion."""

from fathometer.calculus.chebyshev import ChebyshevSeries, chebyshev_points, chebyshev_series
from fathometer.calculus.quadrature import gauss_rule, jacobi_matrix
from fathometer.calculus.stieltjes import Law, like_input

__all__ = [
    "ChebyshevSeries",
    "Law",
    "chebyshev_points",
    "chebyshev_series",
    "gauss_rule",
    "jacobi_matrix",
    "like_input",
]
