"""From a function to a network with a certificate, and how many neurons that takes.

The constructions of Liang & Srikant 2017 as they are drawn (`liang_srikant`), far smaller networks
from fitted squares (`approximate`), certificates that enclose the true error (`certify`), the
best single hidden layer (`shallow`), what no network can beat (`lower_bound`), and the linear
pieces that a trained network really uses (`pieces`).
"""

from fathometer.approximation import liang_srikant
from fathometer.approximation.approximate import Approximation, approximate
from fathometer.approximation.certificates import Certificate, certify
from fathometer.approximation.lower_bounds import LowerBound, lower_bound, product_bound
from fathometer.approximation.network import SkipNetwork
from fathometer.approximation.segments import PieceCount, pieces
from fathometer.approximation.shallow import ShallowFit, shallow
from fathometer.approximation.tradeoff import Tradeoff, tradeoff
from fathometer.approximation.training import Trained, trained

__all__ = [
    "Approximation",
    "Certificate",
    "LowerBound",
    "PieceCount",
    "ShallowFit",
    "SkipNetwork",
    "Tradeoff",
    "Trained",
    "approximate",
    "certify",
    "liang_srikant",
    "lower_bound",
    "pieces",
    "product_bound",
    "shallow",
    "tradeoff",
    "trained",
]
