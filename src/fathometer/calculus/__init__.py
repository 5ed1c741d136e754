"""Smooth functions from few values: Chebyshev series on intervals and boxes."""

from fathometer.calculus.chebyshev import ChebyshevSeries, chebyshev_points, chebyshev_series

__all__ = ["ChebyshevSeries", "chebyshev_points", "chebyshev_series"]
