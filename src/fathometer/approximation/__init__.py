"""From a function to a network with a certificate, and how many neurons that takes.

The constructions of Liang & Srikant 2017 as they are drawn (`liang_srikant`), networks
as exact graphs (`SkipNetwork`), and what any network of a size can reach at best.
"""

from fathometer.approximation import liang_srikant
from fathometer.approximation.certificates import Certificate, certify
from fathometer.approximation.network import SkipNetwork
from fathometer.approximation.segments import PieceCount, pieces

__all__ = ["Certificate", "PieceCount", "SkipNetwork", "certify", "liang_srikant", "pieces"]
