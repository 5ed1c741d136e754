"""How good is this sample? Stein discrepancies, and better samples by them.

Gorham & Mackey, "Measuring Sample Quality with Stein's Method" (NIPS 2015) and
"Measuring Sample Quality with Kernels" (ICML 2017). Arrays in, results out: points
(n, d) and scores (n, d), the gradients of the log target density at the points.
"""

from fathometer.stein.graph import GraphSteinDiscrepancy, graph_discrepancy
from fathometer.stein.kernels import Gaussian, InverseMultiquadric, KernelSum, Matern32
from fathometer.stein.ksd import KernelSteinDiscrepancy, ksd, ksd_path, stein_function, witness

__all__ = [
    "Gaussian",
    "GraphSteinDiscrepancy",
    "InverseMultiquadric",
    "KernelSteinDiscrepancy",
    "KernelSum",
    "Matern32",
    "graph_discrepancy",
    "ksd",
    "ksd_path",
    "stein_function",
    "witness",
]
