"""What a loss surface looks like: measured curvature spectra beside random matrix theory.

The laws are those of Pennington & Bahri, Geometry of Neural Network Loss Surfaces via
Random Matrix Theory (ICML 2017).
"""

from fathometer.model.exact_diagonal import exact_trace
from fathometer.spectra.class_split import ClassSplit, class_split
from fathometer.spectra.compare import Comparison, compare
from fathometer.spectra.critical import IndexCoefficient, critical_energy, index_coefficient, minimizer_energy
from fathometer.spectra.critical_points import CriticalPoints, critical_points
from fathometer.spectra.density import SpectralDensity, density
from fathometer.spectra.free_sum import FreeSum, free_sum
from fathometer.spectra.gauss_newton import gauss_newton_spectrum, kfac_error
from fathometer.spectra.index import IndexResult, index
from fathometer.spectra.laws import MarchenkoPastur, Semicircle, WishartPlusReluResidual, WishartPlusWigner
from fathometer.spectra.monitor import (
    SharpnessHistory,
    SharpnessMonitor,
    effective_dimension,
    spectral_overlap,
)
from fathometer.spectra.spacing import SpacingRatio, spacing_ratio
from fathometer.spectra.spikes import outlier
from fathometer.spectra.zero_modes import zero_modes

__all__ = [
    "ClassSplit",
    "Comparison",
    "CriticalPoints",
    "FreeSum",
    "IndexCoefficient",
    "IndexResult",
    "MarchenkoPastur",
    "Semicircle",
    "SharpnessHistory",
    "SharpnessMonitor",
    "SpacingRatio",
    "SpectralDensity",
    "WishartPlusReluResidual",
    "WishartPlusWigner",
    "class_split",
    "compare",
    "critical_energy",
    "critical_points",
    "density",
    "effective_dimension",
    "exact_trace",
    "free_sum",
    "gauss_newton_spectrum",
    "index",
    "index_coefficient",
    "kfac_error",
    "minimizer_energy",
    "outlier",
    "spacing_ratio",
    "spectral_overlap",
    "zero_modes",
]
