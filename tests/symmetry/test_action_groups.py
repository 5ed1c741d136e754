"""Orders, membership and orbits against brute force and published orders."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fathometer.symmetry.groups import PermutationGroup, fixes_nothing_else
from fathometer.symmetry.permutations import cycle_lengths, is_even


def closure(generators, n):
    known, frontier = {tuple(range(n))}, [tuple(range(n))]
    while frontier:
        frontier = [tuple(g[i] for i in p) for p in frontier for g in generators]
        frontier = [p for p in set(frontier) if p not in known]
        known.update(frontier)
    return known


def from_cycles(n, *cycles):
    p = np.arange(n)
    for cycle in cycles:
        for a, b in itertools.pairwise((*cycle, cycle[0])):
            p[a - 1] = b - 1
    return p


M11 = [
    from_cycles(11, tuple(range(1, 12))),
    from_cycles(11, (3, 7, 11, 8), (4, 10, 5, 6)),
]
M12 = [
    *(np.append(g, 11) for g in M11),
    from_cycles(12, (1, 12), (2, 11), (3, 6), (4, 8), (5, 9), (7, 10)),
]
M23 = [
    from_cycles(23, tuple(range(1, 24))),
    from_cycles(23, (3, 17, 10, 7, 9), (4, 13, 14, 19, 5), (8, 18, 11, 12, 23), (15, 20, 22, 21, 16)),
]
CUBE = [
    from_cycles(48, (1, 3, 8, 6), (2, 5, 7, 4), (9, 33, 25, 17), (10, 34, 26, 18), (11, 35, 27, 19)),
    from_cycles(48, (9, 11, 16, 14), (10, 13, 15, 12), (1, 17, 41, 40), (4, 20, 44, 37), (6, 22, 46, 35)),
    from_cycles(48, (17, 19, 24, 22), (18, 21, 23, 20), (6, 25, 43, 16), (7, 28, 42, 13), (8, 30, 41, 11)),
    from_cycles(48, (25, 27, 32, 30), (26, 29, 31, 28), (3, 38, 43, 19), (5, 36, 45, 21), (8, 33, 48, 24)),
    from_cycles(48, (33, 35, 40, 38), (34, 37, 39, 36), (3, 9, 46, 32), (2, 12, 47, 29), (1, 14, 48, 27)),
    from_cycles(48, (41, 43, 48, 46), (42, 45, 47, 44), (14, 22, 30, 38), (15, 23, 31, 39), (16, 24, 32, 40)),
]


@pytest.mark.parametrize(
    ("generators", "order"),
    [(M11, 7920), (M12, 95040), (M23, 10200960), (CUBE, 43252003274489856000)],
    ids=["M11", "M12", "M23", "cube"],
)
def test_orders_are_those_of_the_literature(generators, order):
    assert PermutationGroup(generators, len(generators[0])).order == order


@given(st.integers(2, 6), st.integers(1, 3), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_order_and_membership_are_those_of_the_listed_group(n, k, random):
    generators = [random.sample(range(n), n) for _ in range(k)]
    listed = closure(generators, n)
    group = PermutationGroup([np.array(g) for g in generators], n)
    assert group.order == len(listed)
    assert {tuple(p) for p in group.elements().tolist()} == listed
    for p in itertools.islice(itertools.permutations(range(n)), 0, None, 7):
        assert group.contains(np.array(p)) == (p in listed)
    point = random.randrange(n)
    fixing = {p for p in listed if p[point] == point}
    assert {tuple(p) for p in group.stabilizer(point).elements().tolist()} == fixing
    free = all(p == tuple(range(n)) for p in fixing)
    assert fixes_nothing_else(group.generators, point, n) == free


def test_order_of_a_large_symmetric_group_is_its_factorial():
    rotation, swap = np.roll(np.arange(60), -1), np.arange(60)
    swap[:2] = [1, 0]
    assert PermutationGroup([rotation, swap], 60).order == math.factorial(60)
    assert PermutationGroup([rotation, swap], 60)._chain.order == math.factorial(60)


def test_a_long_cycle_needs_no_deep_recursion():
    assert PermutationGroup([np.roll(np.arange(20_000), 1)], 20_000).order == 20_000


def test_random_elements_are_uniform():
    group = PermutationGroup([np.array([1, 2, 3, 0]), np.array([0, 3, 2, 1])], 4)
    rng = np.random.default_rng(0)
    names, counts = np.unique([group.random_element(rng) for _ in range(4000)], axis=0, return_counts=True)
    assert len(names) == 8
    # chi-square with 7 degrees of freedom; its 0.9999 quantile is 29.9
    assert ((counts - 500) ** 2 / 500).sum() < 29.9


def test_parity_and_cycles():
    for p in itertools.permutations(range(5)):
        inversions = sum(a > b for a, b in itertools.combinations(p, 2))
        assert is_even(np.array(p)) == (inversions % 2 == 0)
    assert cycle_lengths(np.array([1, 2, 0, 3, 5, 4])) == [3, 1, 2]
