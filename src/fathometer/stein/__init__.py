"""How good is this sample? Stein discrepancies, and better samples by them.

Gorham & Mackey, "Measuring Sample Quality with Stein's Method" (NIPS 2015) and
"Measuring Sample Quality with Kernels" (ICML 2017). Arrays in, results out: points
(n, d) and scores (n, d), the gradients of the log target density at the points.
"""

from fathometer.stein import examples, samplers
from fathometer.stein.chains import Chain, ess, rhat
from fathometer.stein.classical import ClassicalSteinDiscrepancy, classical_discrepancy
from fathometer.stein.compress import thin
from fathometer.stein.doors import draws_of, read_cmdstan
from fathometer.stein.fit import TestResult, baringhaus_henze, goodness_of_fit
from fathometer.stein.graph import GraphSteinDiscrepancy, graph_discrepancy
from fathometer.stein.kernels import Gaussian, InverseMultiquadric, KernelSum, Matern32
from fathometer.stein.ksd import KernelSteinDiscrepancy, ksd, ksd_path, stein_function, witness
from fathometer.stein.scores import check_score, score
from fathometer.stein.selection import SelectionTable, select
from fathometer.stein.targets import Posterior, SurfacePosterior
from fathometer.stein.weighting import reweight

__all__ = [
    "Chain",
    "ClassicalSteinDiscrepancy",
    "Gaussian",
    "GraphSteinDiscrepancy",
    "InverseMultiquadric",
    "KernelSteinDiscrepancy",
    "KernelSum",
    "Matern32",
    "Posterior",
    "SelectionTable",
    "SurfacePosterior",
    "TestResult",
    "baringhaus_henze",
    "check_score",
    "classical_discrepancy",
    "draws_of",
    "ess",
    "examples",
    "goodness_of_fit",
    "graph_discrepancy",
    "ksd",
    "ksd_path",
    "read_cmdstan",
    "reweight",
    "rhat",
    "samplers",
    "score",
    "select",
    "stein_function",
    "thin",
    "witness",
]
