"""How sharp is this minimum, and which of those numbers survive a change of coordinates?

After Dinh, Pascanu, Bengio & Bengio, Sharp Minima Can Generalize For Deep Nets, ICML 2017.
"""

from fathometer.sharpness.layer_scale import layer_scale
from fathometer.sharpness.rescalings import Rescalings, rescalings

__all__ = ["layer_scale", "Rescalings", "rescalings"]
