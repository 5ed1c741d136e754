"""Number of tied weights: orbits against Burnside and against the null space, for many actions."""

import math
import tracemalloc

import numpy as np
import pytest

from fathometer.symmetry import Action, Tying

A = Action


def psl32():
    """The Fano plane's group on points and on lines."""
    lines = [{0, 1, 3}, {1, 2, 4}, {2, 3, 5}, {3, 4, 6}, {4, 5, 0}, {5, 6, 1}, {6, 0, 2}]
    shift = [(i + 1) % 7 for i in range(7)]
    double = [2 * i % 7 for i in range(7)]
    swap = [0, 1, 4, 3, 2, 6, 5]
    points = [shift, double, swap]
    on_lines = [[lines.index({g[i] for i in line}) for line in lines] for g in points]
    return points, on_lines


def shift_and_flip(height, width):
    shift = np.roll(np.arange(height * width).reshape(height, width), 1, axis=1).ravel()
    flip = np.arange(height * width).reshape(height, width)[::-1].ravel()
    turn = np.roll(np.arange(width), 1)
    return A([shift, flip], [turn, np.arange(width)])


def mirror(height, width):
    """D_width on a height x width image and on width outputs: shifts and left-right reflection."""
    grid = np.arange(height * width).reshape(height, width)
    shift = np.roll(grid, 1, axis=1).ravel()
    flip = grid[:, ::-1].ravel()
    return A([shift, flip], [np.roll(np.arange(width), 1), np.arange(width)[::-1]])


def affine(p, root):
    return A([[(i + 1) % p for i in range(p)], [root * i % p for i in range(p)]])


quaternion = A([[1, 2, 3, 0, 5, 6, 7, 4], [4, 7, 6, 5, 2, 1, 0, 3]])
fano_points, fano_lines = psl32()

# (name, action, number of weights); numbers None where only the two independent counts are compared
CASES = [
    ("Z5", A.cyclic(5), 5),
    ("Z12", A.cyclic(12), 12),
    ("Z5 reversed", A([[1, 2, 3, 4, 0]], [[4, 0, 1, 2, 3]]), 5),
    ("Z6 invariant", A.cyclic(6, outputs="invariant"), 1),
    ("three- and two-cycle", A([[1, 2, 0]], [[1, 0]]), 1),
    ("D5", A.dihedral(5), 3),
    ("D6", A.dihedral(6), 4),
    ("D7 regular", A.regular(A.dihedral(7)), 14),
    ("S5", A.symmetric(5), 2),
    ("A5", A.alternating(5), 2),
    ("A4 regular", A.regular(A.alternating(4)), 12),
    ("S3 regular", A.regular(A.symmetric(3)), 6),
    ("Q8", quaternion, 8),
    ("S1 pairs", A.tuples(1, 2), 1),
    ("S2 pairs", A.tuples(2, 2), 8),
    ("S3 pairs", A.tuples(3, 2), 14),
    ("S4 pairs", A.tuples(4, 2), 15),
    ("S5 pairs", A.tuples(5, 2), 15),
    ("S5 pairs to points", A.tuples(5, 2, outputs=A.symmetric(5)), 5),
    ("S5 points to pairs", A.symmetric(5, outputs=A.tuples(5, 2)), 5),
    ("S4 pairs to one", A.tuples(4, 2, outputs="invariant"), 2),
    ("S5 edges", A.subsets(5, 2), 3),
    ("S6 triples", A.subsets(6, 3), 4),
    ("S5 edges to points", A.subsets(5, 2, outputs=A.symmetric(5)), 2),
    ("D5 edges", A.subsets(A.dihedral(5), 2), None),
    ("S3 x S4", A.product(A.symmetric(3), A.symmetric(4)), 4),
    ("S2 x S3 x S2", A.product(A.product(A.symmetric(2), A.symmetric(3)), A.symmetric(2)), 8),
    ("Z3 x Z4", A.product(A.cyclic(3), A.cyclic(4)), 12),
    ("S3 wr S4", A.wreath(A.symmetric(3), A.symmetric(4)), 3),
    ("Z4 wr Z5", A.wreath(A.cyclic(4), A.cyclic(5)), 8),
    ("S2 wr S2 wr S2", A.wreath(A.wreath(A.symmetric(2), A.symmetric(2)), A.symmetric(2)), 4),
    ("C4 on 5x5", A.grid(5, 5, translations=False, rotations=True), 157),
    ("C4 on 6x6", A.grid(6, 6, translations=False, rotations=True), 324),
    ("D4 on 5x5", A.grid(5, 5, translations=False, rotations=True, flips=True), 91),
    ("p4m 6x6", A.grid(6, 6, rotations=True, flips=True), 10),
    ("p4 5x5", A.grid(5, 5, rotations=True), None),
    ("torus 3x4", A.grid(3, 4), 12),
    ("half turns 3x4", A.grid(3, 4, translations=False, rotations=2), None),
    ("flips 4x3", A.grid(4, 3, translations=False, flips=True), None),
    ("Fig. 1, shifts and flips", shift_and_flip(4, 5), 10),
    ("Fig. 1, dihedral", mirror(4, 5), 12),
    ("AGL(1,7)", affine(7, 3), 2),
    ("7:3", affine(7, 2), 3),
    ("PSL(3,2) points to lines", A(fano_points, fano_lines), 2),
    ("PSL(3,2) points", A(fano_points), 2),
    ("weight space 2-3-1", A.weight_space([2, 3, 1]), 41),
    ("weight space 2-3-2", A.weight_space([2, 3, 2]), 74),
    ("weight space 1-2-3-1", A.weight_space([1, 2, 3, 1]), 55),
    ("trivial 3 to 4", A.trivial(3, 4), 12),
    ("square's vertices", A.cosets(A.dihedral(4), [[0, 3, 2, 1]]), 3),
]
IDS = [name for name, *_ in CASES]


def burnside(action, limit=3000):
    """Mean number of fixed index pairs, over a list of the group made here."""
    n, m = action.sizes
    joint = [tuple(a) + tuple(n + b) for a, b in action.generators]
    known = frontier = {tuple(range(n + m))}
    while frontier:
        frontier = {tuple(g[i] for i in p) for p in frontier for g in joint} - known
        known = known | frontier
        if len(known) > limit:
            return None, None
    fixed = sum(sum(p[i] == i for i in range(n)) * sum(p[i] == i for i in range(n, n + m)) for p in known)
    assert fixed % len(known) == 0
    return fixed // len(known), len(known)


def null_space_dimension(action):
    """Dimension of the matrices with W P = P' W for all generators."""
    n, m = action.sizes
    rows = []
    for a, b in action.generators:
        P, Q = np.zeros((n, n)), np.zeros((m, m))
        P[a, np.arange(n)] = 1
        Q[b, np.arange(m)] = 1
        rows.append(np.kron(np.eye(m), P.T) - np.kron(Q, np.eye(n)))  # row-major vec of W P - Q W
    if not rows:
        return n * m
    return n * m - np.linalg.matrix_rank(np.concatenate(rows))


@pytest.mark.parametrize(("name", "action", "expected"), CASES, ids=IDS)
def test_count_agrees_with_burnside_and_with_the_null_space(name, action, expected):
    n, m = action.sizes
    labels = action.tying().labels
    found = action.tying().num_orbits
    assert labels.shape == (m, n)
    assert sorted(set(labels.ravel().tolist())) == list(range(found))
    if expected is not None:
        assert found == expected
    average, order = burnside(action)
    checks = 0
    if average is not None:
        assert found == average
        assert action.order == order
        checks += 1
    if n * m <= 450:
        assert found == null_space_dimension(action)
        checks += 1
    assert checks >= 1
    for a, b in action.generators:
        assert (labels[b][:, a] == labels).all()


def test_there_are_at_least_forty_actions():
    assert len(CASES) >= 40


@pytest.mark.parametrize(("n", "count"), [(1, 1), (2, 8), (3, 14), (4, 15), (6, 15)])
def test_bell_numbers_are_truncated_for_few_points(n, count):
    """Partitions of four positions into at most n blocks, not the Bell number 15."""
    assert A.tuples(n, 2).tying().num_orbits == count


def test_third_order_tensors_have_the_bell_number_of_six():
    assert A.tuples(6, 3).tying().num_orbits == 203


@pytest.mark.parametrize(
    ("widths", "count"), [([2, 3, 4, 2], 114), ([3, 4, 5, 4, 2], 196)], ids=["three", "four"]
)
def test_deep_weight_spaces_have_the_counts_of_the_equivariant_layers(widths, count):
    assert A.weight_space(widths).tying().num_orbits == count


@pytest.mark.parametrize(
    ("action", "biases"),
    [
        (A.cyclic(7), 1),
        (A.tuples(5, 2), 2),
        (A.grid(5, 5, translations=False, rotations=True), 7),
        (A.grid(6, 6, translations=False, rotations=True), 9),
        (A.grid(5, 5, translations=False, rotations=True, flips=True), 6),
    ],
    ids=["Z7", "pairs", "C4 5x5", "C4 6x6", "D4 5x5"],
)
def test_biases_are_tied_along_the_orbits_of_the_outputs(action, biases):
    assert action.tying().num_bias_orbits == biases


@pytest.mark.parametrize(
    ("action", "order"),
    [
        (A.symmetric(25), math.factorial(25)),
        (A.alternating(30), math.factorial(30) // 2),
        (A.wreath(A.symmetric(3), A.symmetric(4)), 6**4 * 24),
        (A.tuples(40, 2), math.factorial(40)),
        (A.product(A.symmetric(10), A.cyclic(9)), math.factorial(10) * 9),
        (A.weight_space([5, 20, 30, 2]), math.factorial(20) * math.factorial(30)),
        (A.grid(6, 6, rotations=True, flips=True), 36 * 8),
        (A(fano_points, fano_lines), 168),
    ],
    ids=["S25", "A30", "wreath", "pairs", "product", "weights", "p4m", "Fano"],
)
def test_orders_are_exact_integers_of_any_size(action, order):
    assert action.order == order


def test_orders_from_theory_agree_with_the_searched_ones():
    for action in (A.wreath(A.symmetric(3), A.dihedral(4)), A.tuples(4, 2), A.weight_space([2, 3, 3, 1])):
        assert Action(action.inputs, action.outputs).order == action.order


def test_a_nonabelian_regular_action_gives_the_group_matrix():
    """W[h, g] depends on g^-1 h only; mixing up destinations and sources would give h g^-1."""
    action = A.regular(A.symmetric(3))
    elements = [tuple(p) for p in A.symmetric(3).joint_group.elements()[:, :3].tolist()]
    moved = {tuple(a): i for i, (a, _) in enumerate(action.elements())}
    # number the points by the element that carries the identity (point 0) there
    carrier = {}
    for p in moved:
        carrier[p[0]] = p
    labels = action.tying().labels
    words = {}
    for i in range(6):
        for j in range(6):
            g, h = carrier[i], carrier[j]
            inverse = tuple(np.argsort(g))
            quotient = tuple(inverse[k] for k in h)
            words.setdefault(quotient, set()).add(int(labels[j, i]))
    assert len(elements) == 6
    assert all(len(found) == 1 for found in words.values())
    assert len(words) == 6


def test_checking_and_counting_labels_takes_little_beside_them():
    """A table has 4 bytes a pair; what else is needed must stay below 2."""
    labels = A.cyclic(2000).tying().labels
    tracemalloc.start()
    try:
        tying = Tying(labels)
        assert tying.orbit_sizes.tolist() == [2000] * 2000
        assert tying.num_orbits == 2000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * labels.size
