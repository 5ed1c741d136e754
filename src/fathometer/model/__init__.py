"""A trained network as a function of its flat parameter vector.

`ParamSpace` orders the parameters, `LossSurface` is model, loss and data as one function
with first and second derivatives. `mlp`, `residual_cnn` and `transformer` are small
networks to try things on; `digits` and `embedded` are real data and trained networks that
come with the package.
"""

from fathometer.model.architectures import mlp, residual_cnn, transformer
from fathometer.model.embedded import Bundle, digits, embedded
from fathometer.model.params import ParamSpace
from fathometer.model.surface import LossSurface

__all__ = [
    "Bundle",
    "LossSurface",
    "ParamSpace",
    "digits",
    "embedded",
    "mlp",
    "residual_cnn",
    "transformer",
]
