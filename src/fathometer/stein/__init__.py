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
from fathometer.stein.fit_compound import aggregated_test, family_test, relative_test
from fathometer.stein.fit_quick import finite_set_test, linear_time_test
from fathometer.stein.gradients import ksd_gradient
from fathometer.stein.graph import GraphSteinDiscrepancy, graph_discrepancy
from fathometer.stein.kernels import Gaussian, InverseMultiquadric, KernelSum, Matern32
from fathometer.stein.ksd import KernelSteinDiscrepancy, ksd, ksd_path
from fathometer.stein.large import KernelSteinEstimate, estimate_ksd, nystrom_ksd
from fathometer.stein.noisy import StochasticSteinDiscrepancy, stochastic_ksd, stochastic_scores
from fathometer.stein.scores import check_score, score
from fathometer.stein.selection import SelectionTable, select
from fathometer.stein.targets import Posterior, SurfacePosterior
from fathometer.stein.tilts import Bounded, MomentControl
from fathometer.stein.weighting import reweight
from fathometer.stein.witness import stein_function, witness

__all__ = [
    "Bounded",
    "Chain",
    "ClassicalSteinDiscrepancy",
    "Gaussian",
    "GraphSteinDiscrepancy",
    "InverseMultiquadric",
    "KernelSteinDiscrepancy",
    "KernelSteinEstimate",
    "KernelSum",
    "Matern32",
    "MomentControl",
    "Posterior",
    "SelectionTable",
    "StochasticSteinDiscrepancy",
    "SurfacePosterior",
    "TestResult",
    "aggregated_test",
    "baringhaus_henze",
    "check_score",
    "classical_discrepancy",
    "draws_of",
    "ess",
    "estimate_ksd",
    "examples",
    "family_test",
    "finite_set_test",
    "goodness_of_fit",
    "graph_discrepancy",
    "ksd",
    "ksd_gradient",
    "ksd_path",
    "linear_time_test",
    "nystrom_ksd",
    "read_cmdstan",
    "relative_test",
    "reweight",
    "rhat",
    "samplers",
    "score",
    "select",
    "stein_function",
    "stochastic_ksd",
    "stochastic_scores",
    "thin",
    "witness",
]
