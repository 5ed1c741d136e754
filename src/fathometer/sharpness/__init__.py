"""How sharp is this minimum, and which of those numbers survive a change of coordinates?

After Dinh, Pascanu, Bengio & Bengio, Sharp Minima Can Generalize For Deep Nets, ICML 2017.
"""

from fathometer.sharpness.audit import AuditTable, audit
from fathometer.sharpness.curvature import hessian_frobenius, hessian_norm, hessian_trace
from fathometer.sharpness.equivalent import Equivalent, flatten, sharpen
from fathometer.sharpness.invariant import fisher_rao, orbit_trace, relative_norm, relative_trace
from fathometer.sharpness.landscape import Landscape, landscape
from fathometer.sharpness.layer_scale import layer_scale
from fathometer.sharpness.measures import measure
from fathometer.sharpness.rescalings import Rescalings, rescalings
from fathometer.sharpness.worst_case import adaptive, epsilon_sharpness, keskar

__all__ = [
    "AuditTable",
    "Equivalent",
    "Landscape",
    "Rescalings",
    "adaptive",
    "audit",
    "epsilon_sharpness",
    "fisher_rao",
    "flatten",
    "hessian_frobenius",
    "hessian_norm",
    "hessian_trace",
    "keskar",
    "landscape",
    "layer_scale",
    "measure",
    "orbit_trace",
    "relative_norm",
    "relative_trace",
    "rescalings",
    "sharpen",
]
