"""The fewest weights that leave a layer equivariant to its group and to nothing else.

For an action that is semi-regular on both sides, with P and Q orbits: a tree of weights
that joins all orbits, and one more for each element of a smallest generating set of the
group, ``P + Q - 1 + d(G)`` in all; the voltages of closed walks then generate the group.
For other actions weights are dropped from the dense design, those with most entries
first, as long as no symmetry is added: no weight of what is left can be spared.
"""

import itertools
import math

import numpy as np

from fathometer.errors import InputError
from fathometer.symmetry.action import Action
from fathometer.symmetry.automorphisms import automorphisms_of
from fathometer.symmetry.groups import PermutationGroup
from fathometer.symmetry.permutations import Permutation, is_identity
from fathometer.symmetry.tying import Tying, keep_orbits
from fathometer.work import numpy_generator

LISTED = 512
"""Largest group in which every set of generators is tried."""

TRIES = 20_000


def minimal_tying(dense: Tying, action: Action) -> Tying:
    """What ``tying("minimal")`` returns.

    Raises:
        InputError: If the action is signed.
    """
    if action.signs is not None:
        raise InputError(f'{action.name} is signed; the "minimal" design is for unsigned actions.')
    if all(action.is_semiregular):
        return _tree_and_generators(dense, action)
    return _greedy(dense)


def smallest_generating_set(group: PermutationGroup) -> list[Permutation]:
    """A generating set of the fewest elements.

    Smallest for groups of up to `LISTED` elements (all sets of that size are tried, at
    most `TRIES` of them); otherwise the best of random sets and the given generators.

    >>> rotation, flip = np.array([1, 2, 3, 0]), np.array([0, 3, 2, 1])
    >>> len(smallest_generating_set(PermutationGroup([rotation, flip, rotation], 4)))
    2
    """
    given = _irredundant(group)
    elements = group.elements() if group.order <= LISTED else None
    rng = numpy_generator(0, "generating set", group.degree)
    for size in range(1, len(given)):
        if elements is not None and math.comb(len(elements), size) <= TRIES:
            choices = itertools.combinations(elements, size)
        elif elements is not None:
            choices = (elements[rng.choice(len(elements), size, replace=False)] for _ in range(TRIES // 20))
        else:
            choices = ([group.random_element(rng) for _ in range(size)] for _ in range(200))
        for chosen in choices:
            if PermutationGroup(list(chosen), group.degree).order == group.order:
                return list(chosen)
    return given


def _irredundant(group: PermutationGroup) -> list[Permutation]:
    """The given generators without those the others make superfluous."""
    kept = list(group.generators)
    for g in group.generators:
        rest = [h for h in kept if h is not g]
        if PermutationGroup(rest, group.degree).order == group.order:
            kept = rest
    return kept


def _tree_and_generators(dense: Tying, action: Action) -> Tying:
    n = action.sizes.inputs
    inputs = [o[0] for o in action.orbits[0]]
    outputs = [o[0] for o in action.orbits[1]]
    tree = {int(dense.labels[q, inputs[0]]) for q in outputs}
    tree |= {int(dense.labels[outputs[0], p]) for p in inputs}
    generators = smallest_generating_set(action.joint_group)
    loops = {int(dense.labels[a[n + outputs[0]] - n, inputs[0]]) for a in generators if not is_identity(a)}
    return keep_orbits(dense, sorted(tree | loops), "minimal")


def _greedy(dense: Tying) -> Tying:
    goal = automorphisms_of(dense, repair=False).order
    kept = list(range(dense.num_orbits))
    for k in np.argsort(-dense.orbit_sizes, kind="stable").tolist():
        rest = [j for j in kept if j != k]
        if rest and automorphisms_of(keep_orbits(dense, rest, "minimal"), repair=False).order == goal:
            kept = rest
    return keep_orbits(dense, kept, "minimal")
