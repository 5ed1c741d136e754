"""How sharp is this minimum, and which of those numbers survive a change of coordinates?

After Dinh, Pascanu, Bengio & Bengio, Sharp Minima Can Generalize For Deep Nets, ICML 2017.
"""

from fathometer.sharpness.attention import Heads, heads
from fathometer.sharpness.audit import AuditTable, audit
from fathometer.sharpness.bijections import PowerBijection, RadialBijection, Reparametrization
from fathometer.sharpness.curvature import hessian_frobenius, hessian_norm, hessian_trace
from fathometer.sharpness.equivalent import Equivalent, canonical, flatten, sharpen
from fathometer.sharpness.geodesic import geodesic
from fathometer.sharpness.invariant import fisher_rao, orbit_trace, relative_norm, relative_trace
from fathometer.sharpness.landscape import Landscape, landscape
from fathometer.sharpness.layer_scale import layer_scale, output_scale
from fathometer.sharpness.learning_coefficient import learning_coefficient
from fathometer.sharpness.measures import measure
from fathometer.sharpness.metrics import (
    information_geometric,
    metric_norm,
    normalized_sharpness,
    quotient_norm,
)
from fathometer.sharpness.noise import PacBayes, average_sharpness, local_entropy, local_volume, pac_bayes
from fathometer.sharpness.norms import one_step_sharpness
from fathometer.sharpness.path_norm import path_norm
from fathometer.sharpness.paths import LossPath, align, barrier, connect, slice_through, trajectory_plane
from fathometer.sharpness.protocol import m_sharpness
from fathometer.sharpness.relative_flatness import relative_flatness
from fathometer.sharpness.rescalings import Rescalings, rescalings
from fathometer.sharpness.theorems import (
    DisjointBoxes,
    Witness,
    constant_in_the_ball,
    disjoint_boxes,
    many_large_eigenvalues,
    sharp_norm,
    steep_gradient,
)
from fathometer.sharpness.units import Units, units
from fathometer.sharpness.watch import SharpnessLog
from fathometer.sharpness.worst_case import adaptive, epsilon_sharpness, keskar

__all__ = [
    "SharpnessLog",
    "units",
    "Units",
    "output_scale",
    "trajectory_plane",
    "slice_through",
    "connect",
    "barrier",
    "align",
    "LossPath",
    "canonical",
    "heads",
    "Heads",
    "AuditTable",
    "DisjointBoxes",
    "Equivalent",
    "Landscape",
    "PacBayes",
    "PowerBijection",
    "RadialBijection",
    "Reparametrization",
    "Rescalings",
    "Witness",
    "adaptive",
    "audit",
    "average_sharpness",
    "constant_in_the_ball",
    "disjoint_boxes",
    "epsilon_sharpness",
    "fisher_rao",
    "flatten",
    "geodesic",
    "hessian_frobenius",
    "hessian_norm",
    "hessian_trace",
    "information_geometric",
    "keskar",
    "landscape",
    "layer_scale",
    "learning_coefficient",
    "local_entropy",
    "local_volume",
    "m_sharpness",
    "many_large_eigenvalues",
    "measure",
    "metric_norm",
    "normalized_sharpness",
    "one_step_sharpness",
    "orbit_trace",
    "pac_bayes",
    "path_norm",
    "quotient_norm",
    "relative_flatness",
    "relative_norm",
    "relative_trace",
    "rescalings",
    "sharp_norm",
    "sharpen",
    "steep_gradient",
]
