"""How sharp is this minimum, and which of those numbers survive a change of coordinates?

After Dinh, Pascanu, Bengio & Bengio, Sharp Minima Can Generalize For Deep Nets, ICML 2017.
"""

from fathometer.sharpness.curvature import hessian_frobenius, hessian_norm, hessian_trace
from fathometer.sharpness.equivalent import Equivalent, flatten, sharpen
from fathometer.sharpness.layer_scale import layer_scale
from fathometer.sharpness.rescalings import Rescalings, rescalings
from fathometer.sharpness.worst_case import adaptive, epsilon_sharpness, keskar

__all__ = [
    "Equivalent",
    "Rescalings",
    "adaptive",
    "epsilon_sharpness",
    "flatten",
    "hessian_frobenius",
    "hessian_norm",
    "hessian_trace",
    "keskar",
    "layer_scale",
    "rescalings",
    "sharpen",
]
