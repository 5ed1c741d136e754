"""Weights tied to a group and to nothing else.

Say how a group permutes the inputs and outputs of a layer (`Action`); get which weights
must be shared (`Tying`), whether the layer is equivariant to exactly that group, and a
layer that computes it (`TiedLinear`). Or measure which symmetry a trained layer has.
Paper: Ravanbakhsh, Schneider & Poczos, Equivariance Through Parameter-Sharing, ICML 2017.
"""

from fathometer.symmetry.action import Action, Element, Sides
from fathometer.symmetry.automorphisms import Automorphisms
from fathometer.symmetry.discovery import Discovery, discover, discover_from_data
from fathometer.symmetry.equivariance import EquivarianceCheck, check_equivariance
from fathometer.symmetry.layer import TiedLinear, tie
from fathometer.symmetry.lazy import LazyTying
from fathometer.symmetry.measure import defect, project
from fathometer.symmetry.meter import candidates, meter
from fathometer.symmetry.network import NetworkAutomorphisms, network_automorphisms
from fathometer.symmetry.refinement import graph_automorphisms
from fathometer.symmetry.spoken import named_action
from fathometer.symmetry.tying import Tying

__all__ = [
    "Action",
    "Automorphisms",
    "Discovery",
    "Element",
    "EquivarianceCheck",
    "LazyTying",
    "NetworkAutomorphisms",
    "Sides",
    "TiedLinear",
    "Tying",
    "candidates",
    "check_equivariance",
    "defect",
    "discover",
    "discover_from_data",
    "graph_automorphisms",
    "meter",
    "named_action",
    "network_automorphisms",
    "project",
    "tie",
]
