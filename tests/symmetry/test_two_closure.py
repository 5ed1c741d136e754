"""Which transitive groups are the whole symmetry of their dense design (2-closed), beyond degree 5."""

import itertools
import math
import warnings

import numpy as np
import pytest

from fathometer.errors import TheoryWarning
from fathometer.symmetry import Action

A, S = Action, Action.symmetric


def half(action, signs):
    """The elements on which the product of the signs of the generators' words is even."""
    n = action.sizes[0]
    joint = [np.concatenate([p, n + (np.arange(2) + (s < 0)) % 2]) for p, s in zip(action.inputs, signs)]  # noqa: B905
    elements = A(joint).elements()
    kept = [a[:n] for a, _ in elements if a[n] == n]
    assert 2 * len(kept) == action.order
    return A(kept)


S4_SET = S(4)
BLOCKS = A.wreath(S(3), A.cyclic(2))  # generators: a 3-cycle, a swap, then the exchange of the halves
PGL25 = A([[1, 2, 3, 4, 0, 5], [0, 2, 4, 1, 3, 5], [5, 4, 2, 3, 1, 0]])

# all 16 transitive groups of degree 6 and all 7 of degree 7, with their orders
DEGREE_6 = {
    "C6": (A.cyclic(6), 6),
    "S3 regular": (A.regular(S(3)), 6),
    "D6": (A.dihedral(6), 12),
    "A4": (A.cosets(A.alternating(4), [[1, 0, 3, 2]]), 12),
    "C3 wr C2": (A.wreath(A.cyclic(3), A.cyclic(2)), 18),
    "C2 wr C3": (A.wreath(A.cyclic(2), A.cyclic(3)), 24),
    "S4 on cosets of a 4-cycle": (A.cosets(S4_SET, [[1, 2, 3, 0]]), 24),
    "S4 on cosets of two swaps": (A.cosets(S4_SET, [[1, 0, 2, 3], [0, 1, 3, 2]]), 24),
    "even in S3 wr C2": (half(BLOCKS, [1, -1, 1]), 36),
    "even with exchange": (half(BLOCKS, [1, -1, -1]), 36),
    "C2 wr S3": (A.wreath(S(2), S(3)), 48),
    "PSL(2,5)": (half(PGL25, [1, -1, 1]), 60),
    "S3 wr C2": (BLOCKS, 72),
    "PGL(2,5)": (PGL25, 120),
    "A6": (A.alternating(6), 360),
    "S6": (S(6), 720),
}
FANO = A([[1, 2, 3, 4, 5, 6, 0], [0, 2, 4, 6, 1, 3, 5], [0, 1, 4, 3, 2, 6, 5]])
DEGREE_7 = {
    "C7": (A.cyclic(7), 7),
    "D7": (A.dihedral(7), 14),
    "7:3": (A([[1, 2, 3, 4, 5, 6, 0], [0, 2, 4, 6, 1, 3, 5]]), 21),
    "7:6": (A([[1, 2, 3, 4, 5, 6, 0], [0, 3, 6, 2, 5, 1, 4]]), 42),
    "PSL(3,2)": (FANO, 168),
    "A7": (A.alternating(7), 2520),
    "S7": (S(7), 5040),
}


def closure_by_brute_force(action):
    """Permutations of n points that keep the orbits of ordered pairs, all n! of them tried."""
    n = action.sizes[0]
    labels = action.tying().labels
    everything = np.array(list(itertools.permutations(range(n))))
    kept = np.ones(len(everything), dtype=bool)
    for i, j in itertools.product(range(n), repeat=2):
        kept &= labels[everything[:, i], everything[:, j]] == labels[i, j]
    return int(kept.sum())


def found(action):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TheoryWarning)
        return action.tying().automorphisms()


@pytest.mark.parametrize(("groups", "closed"), [(DEGREE_6, 8), (DEGREE_7, 4)], ids=["degree 6", "degree 7"])
def test_as_many_groups_are_2_closed_as_the_literature_has(groups, closed):
    """Counts by GAP's TwoClosure over its library of transitive groups: 8 of 16, 4 of 7."""
    for name, (action, order) in groups.items():
        assert action.order == order, name
        assert action.is_transitive.inputs, name
        assert found(action).order == closure_by_brute_force(action), name
    unique = {name for name, (action, _) in groups.items() if found(action).unique}
    assert len(unique) == closed
    # groups of one degree and order that are not the same group have different designs or closures
    assert {"S6", "S7"} & unique
    assert not {"A6", "A7", "PGL(2,5)", "PSL(2,5)", "PSL(3,2)", "7:6"} & unique


DEGREE_8 = {
    "C8": A.cyclic(8),
    "D8": A.dihedral(8),
    "D4 regular": A.regular(A.dihedral(4)),
    "Q8": A([[1, 2, 3, 0, 5, 6, 7, 4], [4, 7, 6, 5, 2, 1, 0, 3]]),
    "cube": A.graph([[int((a ^ b).bit_count() == 1) for b in range(8)] for a in range(8)]),
    "C2 wr C4": A.wreath(A.cyclic(2), A.cyclic(4)),
    "S4 wr S2": A.wreath(S(4), S(2)),
    "A4 wr S2": A.wreath(A.alternating(4), S(2)),
    "S2 wr A4": A.wreath(S(2), A.alternating(4)),
    "S2 x S4": A.product(S(2), S(4)),
    "C2 x A4": A.product(A.cyclic(2), A.alternating(4)),
    "two generators": A([[0, 3, 4, 5, 6, 7, 1, 2], [1, 0, 4, 7, 2, 6, 5, 3]]),
}


@pytest.mark.parametrize("name", DEGREE_8)
def test_closures_of_degree_8_are_those_of_brute_force(name):
    action = DEGREE_8[name]
    result = found(action)
    assert result.order == closure_by_brute_force(action)
    assert result.unique == (result.order == action.order)
    assert math.factorial(8) % result.order == 0
