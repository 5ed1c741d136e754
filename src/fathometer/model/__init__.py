"""A trained network as a function of its flat parameter vector.

`ParamSpace` orders the parameters, `LossSurface` is model, loss and data as one function
with first and second derivatives.
"""

from fathometer.model.params import ParamSpace
from fathometer.model.surface import LossSurface

__all__ = ["LossSurface", "ParamSpace"]
