"""Symmetries of a whole network of tied layers, hidden permutations included.

A stack of layers with elementwise nonlinearities is a chain of sets joined by colored
pairs. Its symmetries permute every set at once; what an outsider sees is what they do to
the first and the last set.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fathometer.errors import InputError
from fathometer.results import Result
from fathometer.symmetry.groups import PermutationGroup
from fathometer.symmetry.permutations import Permutation
from fathometer.symmetry.refinement import bipartite, symmetries
from fathometer.symmetry.tying import as_tying
from fathometer.types import Kind


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class NetworkAutomorphisms(Result):
    """Permutations of all index sets of a network that keep every layer's labels.

    Attributes:
        order: Their number, exact.
        visible_order: How many different things they do to inputs and outputs: the group
            to which the network as a function is equivariant.
        hidden_order: How many leave every input and output in place.
        generators: Each a tuple of permutations, one for every set from inputs to outputs.
        sizes: Sizes of the sets.
        nodes: Search nodes visited.
        kind, error: Exact: groups are counted in whole numbers.
    """

    headline = "order"

    order: int
    visible_order: int
    hidden_order: int
    generators: tuple[tuple[Permutation, ...], ...]
    sizes: tuple[int, ...]
    nodes: int
    kind: Kind = "exact"
    error: float = 0.0

    @property
    def value(self) -> int:
        """Number of symmetries."""
        return self.order

    def __str__(self) -> str:
        return (
            f"{self.order} symmetries of {len(self.sizes) - 1} layers: {self.visible_order} on inputs and "
            f"outputs, each with {self.hidden_order} ways to permute hidden units"
        )


def network_automorphisms(layers: Sequence[Any], *, biases: bool = False) -> NetworkAutomorphisms:
    """Symmetries of layers applied one after another.

    Args:
        layers: A Tying or an Action (its dense design) for each layer, first one first.
        biases: Whether tied biases must be kept too, not only the weights.

    Raises:
        InputError: If there is no layer, one is signed, or neighbors do not fit.
        CapabilityError: If the search is too long.

    >>> from fathometer.symmetry import Action
    >>> network_automorphisms([Action.cyclic(4), Action.cyclic(4)]).visible_order
    4
    """
    ties = [as_tying(layer, f"layers[{t}]") for t, layer in enumerate(layers)]
    if not ties:
        raise InputError("layers is empty; a network has at least one layer.")
    for t, tying in enumerate(ties):
        if tying.signs is not None:
            raise InputError(f"layers[{t}] is signed; networks of unsigned layers are searched.")
        if t and tying.sizes[0] != ties[t - 1].sizes[1]:
            raise InputError(
                f"layers[{t}] takes {tying.sizes[0]} inputs, layers[{t - 1}] gives {ties[t - 1].sizes[1]}."
            )
    sizes = (ties[0].sizes[0], *(tying.sizes[1] for tying in ties))
    colors, sets = bipartite([tying.labels for tying in ties], sizes)
    if biases:
        zero = np.zeros(sizes[0], dtype=np.int64)
        marks = np.concatenate([zero, *(tying.bias_labels + 1 for tying in ties)])
        sets = np.unique(np.stack([sets, marks]), axis=1, return_inverse=True)[1].ravel()
    found = symmetries(colors, sets)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    generators = tuple(tuple(p[a:b] - a for a, b in itertools.pairwise(starts)) for p in found.generators)
    seen = [np.concatenate([g[0], sizes[0] + g[-1]]) for g in generators]
    visible = PermutationGroup(seen, sizes[0] + sizes[-1], at_most=found.order).order
    return NetworkAutomorphisms(
        order=found.order,
        visible_order=visible,
        hidden_order=found.order // visible,
        generators=generators,
        sizes=sizes,
        nodes=found.nodes,
    )
