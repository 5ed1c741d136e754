"""What a loss surface looks like: measured curvature spectra beside random matrix theory.

The laws are those of Pennington & Bahri, Geometry of Neural Network Loss Surfaces via
Random Matrix Theory (ICML 2017).
"""

from fathometer.spectra.compare import Comparison, compare
from fathometer.spectra.critical import IndexCoefficient, critical_energy, index_coefficient, minimizer_energy
from fathometer.spectra.density import SpectralDensity, density
from fathometer.spectra.free_sum import FreeSum, free_sum
from fathometer.spectra.index import IndexResult, index
from fathometer.spectra.laws import MarchenkoPastur, Semicircle, WishartPlusReluResidual, WishartPlusWigner

__all__ = [
    "Comparison",
    "FreeSum",
    "IndexCoefficient",
    "IndexResult",
    "MarchenkoPastur",
    "Semicircle",
    "SpectralDensity",
    "WishartPlusReluResidual",
    "WishartPlusWigner",
    "compare",
    "critical_energy",
    "density",
    "free_sum",
    "index",
    "index_coefficient",
    "minimizer_energy",
]
