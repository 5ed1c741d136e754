"""Symmetries of tied layers against brute force, theorems against the search, published orders."""

import itertools
import math
import warnings
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fathometer.errors import CapabilityError, InputError, TheoryWarning
from fathometer.symmetry import Action, Tying, refinement
from fathometer.symmetry.groups import PermutationGroup
from fathometer.symmetry.minimal import smallest_generating_set
from fathometer.symmetry.refinement import graph_automorphisms

A = Action


def brute_force_order(labels):
    """Row permutations that keep the multiset of columns, times the swaps of equal columns."""
    columns = Counter(map(tuple, labels.T.tolist()))
    swaps = math.prod(math.factorial(c) for c in columns.values())
    kept = sum(
        Counter(map(tuple, labels[list(b)].T.tolist())) == columns
        for b in itertools.permutations(range(len(labels)))
    )
    return kept * swaps


def preserves(labels, generators):
    return all((labels[b][:, a] == labels).all() for a, b in generators)


def quietly(tying):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TheoryWarning)
        return tying.automorphisms()


def power(action, k):
    a, b = np.arange(action.sizes[0]), np.arange(action.sizes[1])
    for _ in range(k):
        a, b = action.inputs[0][a], action.outputs[0][b]
    return a, b


def copies(action, count):
    """The same action on several disjoint copies of both sides."""
    n = action.sizes[0]
    return A([np.concatenate([i * n + g for i in range(count)]) for g in action.inputs])


Q8 = A([[1, 2, 3, 0, 5, 6, 7, 4], [4, 7, 6, 5, 2, 1, 0, 3]])


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 3), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_the_search_finds_all_symmetries_of_any_labels(m, n, colors, seed):
    labels = np.random.default_rng(seed).integers(0, colors, (m, n))
    labels = np.unique(labels, return_inverse=True)[1].reshape(m, n)
    found = Tying(labels).automorphisms()
    assert found.unique is None
    assert found.order == brute_force_order(labels)
    assert preserves(labels, found.generators)
    joint = [np.concatenate([a, n + b]) for a, b in found.generators]
    assert PermutationGroup(joint, n + m).order == found.order


SMALL = {
    "Z5": A.cyclic(5),
    "Z5 reversed": A([[1, 2, 3, 4, 0]], [[4, 0, 1, 2, 3]]),
    "D6": A.dihedral(6),
    "A5": A.alternating(5),
    "S4 edges": A.subsets(4, 2),
    "S4 edges to points": A.subsets(4, 2, outputs=A.symmetric(4)),
    "S3 pairs to points": A.tuples(3, 2, outputs=A.symmetric(3)),
    "points to pairs of S2": A.symmetric(2, outputs=A.tuples(2, 2)),
    "S3 regular": A.regular(A.symmetric(3)),
    "S2 wr S3": A.wreath(A.symmetric(2), A.symmetric(3)),
    "S2 x S3": A.product(A.symmetric(2), A.symmetric(3)),
    "Z4 to its square": A([[1, 2, 3, 0]], [[1, 0]]),
    "trivial": A.trivial(3, 3),
    "7:3": A([[(i + 1) % 7 for i in range(7)], [2 * i % 7 for i in range(7)]]),
    "AGL(1,5)": A([[(i + 1) % 5 for i in range(5)], [2 * i % 5 for i in range(5)]]),
    "invariant": A.dihedral(5, outputs="invariant"),
    "S4 halves": A.cosets(A.symmetric(4), [[1, 0, 2, 3], [0, 1, 3, 2]]),
}


@pytest.mark.parametrize("name", SMALL)
def test_uniqueness_agrees_with_brute_force(name):
    action = SMALL[name]
    for design in ("dense", "sparse", "minimal"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TheoryWarning)
            tying = action.tying(design)
            found = tying.automorphisms()
        expected = brute_force_order(tying.labels)
        assert found.order == expected, design
        assert found.unique == (expected == action.order), design
        assert preserves(tying.labels, found.generators), design


@pytest.mark.parametrize("name", SMALL)
def test_minimal_designs_add_no_symmetry_and_no_weight_can_be_spared(name):
    action = SMALL[name]
    dense, minimal = action.tying(), action.tying("minimal")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TheoryWarning)
        goal = brute_force_order(dense.labels)
        assert brute_force_order(minimal.labels) == (action.order if all(action.is_semiregular) else goal)
    for k in range(minimal.num_orbits):
        fewer = np.where(minimal.labels == k, -1, minimal.labels)
        if (fewer >= 0).any() and action.order > 2:
            assert brute_force_order(fewer) > brute_force_order(minimal.labels)


@pytest.mark.parametrize(
    ("action", "elements", "order"),
    [
        (A.cyclic(4), [1], 24),
        (A.cyclic(6), [1, 5], 18),
        (A.cyclic(4), [0, 1], 4),
        (A.cyclic(7), [1, 2], 7),
        (copies(A.cyclic(4), 2), [1], 24),
    ],
    ids=["Z4 {1}", "Z6 {1,-1}", "Z4 {0,1}", "Z7 {1,2}", "two copies of Z4 {1}"],
)
def test_generating_the_group_is_not_enough_for_a_sparse_design(action, elements, order):
    tying = action.tying("sparse", generators=[power(action, k) for k in elements])
    assert tying.automorphisms().order == order
    assert tying.automorphisms().unique == (order == action.order)


@pytest.mark.parametrize(
    ("action", "order"), [(A.regular(A.dihedral(5)), 3840), (Q8, 32)], ids=["D5 {r,s}", "Q8 {i,j}"]
)
def test_adding_the_identity_repairs_a_sparse_design(action, order):
    bare = action.tying("sparse", generators=action.generators)
    assert bare.automorphisms().order == order
    full = action.tying("sparse")
    assert full.automorphisms().unique
    assert "voltages" in full.automorphisms().reason
    assert Tying(full.labels).automorphisms().order == action.order


def test_the_minimal_design_has_one_weight_a_tree_edge_and_one_a_generator():
    for action, generators in [(A.regular(A.dihedral(3)), 2), (A.cyclic(5), 1), (Q8, 2)]:
        for count in (1, 2, 3):
            wide = copies(action, count)
            minimal = wide.tying("minimal")
            assert minimal.num_orbits == 2 * count - 1 + generators
            assert minimal.automorphisms().unique
            assert Tying(minimal.labels).automorphisms().order == action.order
            assert minimal.num_orbits <= wide.tying("sparse").num_orbits


def test_coinciding_double_cosets_are_one_weight():
    """For S_n on points every element gives one of the two orbits."""
    assert A.symmetric(5).tying("sparse").num_orbits == 2


@pytest.mark.parametrize("name", [k for k, a in SMALL.items() if k != "trivial"])
def test_theorems_agree_with_the_search(name):
    action = SMALL[name]
    tying = action.tying()
    found = quietly(tying)
    assert Tying(tying.labels).automorphisms().order == found.order


def test_the_theorem_decides_where_its_conditions_hold():
    assert "theorem: semi-regular" in A.cyclic(9).tying().automorphisms().reason
    regular_first = A.regular(A.symmetric(4))
    assert "theorem" in A(regular_first.inputs, A.symmetric(4).inputs).tying().automorphisms().reason
    assert "search" in A.dihedral(9).tying().automorphisms().reason
    assert A.dihedral(9).tying().automorphisms().unique


def test_figure_one_as_captioned_is_not_unique_and_the_dihedral_reading_is():
    grid = np.arange(20).reshape(4, 5)
    turn = np.roll(np.arange(5), 1)
    shift = np.roll(grid, 1, axis=1).ravel()
    captioned = A([shift, grid[::-1].ravel()], [turn, np.arange(5)])
    found = captioned.tying().automorphisms()
    assert (captioned.order, captioned.tying().num_orbits, found.order) == (10, 10, 5 * 2**10)
    assert not found.unique
    assert "not faithful on the outputs" in found.reason
    dihedral = A([shift, grid[:, ::-1].ravel()], [turn, np.arange(5)[::-1]])
    found = dihedral.tying().automorphisms()
    assert (dihedral.tying().num_orbits, found.order, found.unique) == (12, 10, True)


def test_an_invariant_head_has_all_permutations_of_each_orbit():
    head = A([[1, 0, 2, 3, 4], [0, 1, 3, 4, 2]], [[0], [0]])
    assert head.tying().automorphisms().order == math.factorial(2) * math.factorial(3)


@pytest.mark.parametrize("n", [4, 5, 6])
def test_alternating_groups_collapse_to_set_layers_with_a_warning_and_a_proved_repair(n):
    with pytest.warns(TheoryWarning, match="2-transitive: its dense design is that of all permutations"):
        found = A.alternating(n).tying().automorphisms()
    assert (found.order, found.unique) == (math.factorial(n), False)
    first = found.repair
    assert first.sizes == (n, math.factorial(n) // 2)
    proof = first.tying().automorphisms()
    assert proof.unique
    assert "theorem" in proof.reason
    if n == 4:
        assert Tying(first.tying().labels).automorphisms().order == 12
    second = A(first.outputs, first.inputs)
    assert second.tying().automorphisms().unique


def test_points_and_lines_of_the_fano_plane_are_unique_though_points_alone_are_not():
    lines = [{0, 1, 3}, {1, 2, 4}, {2, 3, 5}, {3, 4, 6}, {4, 5, 0}, {5, 6, 1}, {6, 0, 2}]
    points = [[(i + 1) % 7 for i in range(7)], [2 * i % 7 for i in range(7)], [0, 1, 4, 3, 2, 6, 5]]
    on_lines = [[lines.index({g[i] for i in line}) for line in lines] for g in points]
    between = A(points, on_lines).tying().automorphisms()
    assert (between.order, between.unique) == (168, True)
    assert quietly(A(points).tying()).order == 5040


def test_the_outer_twist_of_s6_has_one_weight_and_all_symmetries():
    """Points against synthemic totals: the orbits of pairs are one."""
    pairs = list(itertools.combinations(range(6), 2))
    matchings = [
        frozenset(m) for m in itertools.combinations(pairs, 3) if len({i for p in m for i in p}) == 6
    ]
    totals = [frozenset(t) for t in itertools.combinations(matchings, 5) if len(set().union(*t)) == 15]
    assert (len(matchings), len(totals)) == (15, 6)

    def on_totals(g):
        move = {p: tuple(sorted((g[p[0]], g[p[1]]))) for p in pairs}
        image = [frozenset(frozenset(move[p] for p in m) for m in t) for t in totals]
        return [totals.index(t) for t in image]

    s6 = A.symmetric(6)
    twist = A(s6.inputs, [on_totals(g.tolist()) for g in s6.inputs])
    assert twist.order == 720
    assert twist.tying().num_orbits == 1
    assert twist.tying().automorphisms().order == 720**2


@pytest.mark.parametrize(("n", "transitive", "closed"), [(2, 1, 1), (3, 2, 2), (4, 5, 4), (5, 5, 3)])
def test_few_transitive_groups_are_2_closed(n, transitive, closed):
    """Counts over all transitive groups of small degree, the groups listed here by brute force."""
    everything = list(itertools.permutations(range(n)))
    groups = set()
    for a, b in itertools.combinations_with_replacement(everything, 2):
        known = frontier = {tuple(range(n))}
        while frontier:
            frontier = {tuple(g[i] for i in p) for p in frontier for g in (a, b)} - known
            known = known | frontier
        if {p[0] for p in known} == set(range(n)):
            groups.add(frozenset(known))
    classes = {}
    for group in groups:
        conjugates = {frozenset(tuple(c[p[c.index(i)]] for i in range(n)) for p in group) for c in everything}
        classes[min(sorted(g) for g in conjugates).__repr__()] = group
    unique = sum(bool(quietly(A(sorted(group)).tying()).unique) for group in classes.values())
    assert (len(classes), unique) == (transitive, closed)


def cycle(n):
    return np.roll(np.eye(n, dtype=int), 1, 0) + np.roll(np.eye(n, dtype=int), -1, 0)


def kneser(n, k):
    nodes = list(itertools.combinations(range(n), k))
    return np.array([[int(not set(a) & set(b)) for b in nodes] for a in nodes])


def from_lcf(n, jumps):
    G = cycle(n)
    for i in range(n):
        j = (i + jumps[i % len(jumps)]) % n
        G[i, j] = G[j, i] = 1
    return G


DODECAHEDRON = from_lcf(20, [10, 7, 4, -4, -7, 10, -4, 7, -7, 4])
FRUCHT = from_lcf(12, [-5, -2, -4, 2, 5, -2, 2, 5, -2, -5, 4, 2])
GRAPHS = {
    "Petersen": (kneser(5, 2), 120, 3),
    "C7": (cycle(7), 14, 4),
    "dodecahedron": (DODECAHEDRON, 120, 6),
    "Heawood": (from_lcf(14, [5, -5]), 336, 4),
    "path": (np.eye(5, k=1, dtype=int) + np.eye(5, k=-1, dtype=int), 2, 13),
    "Frucht": (FRUCHT, 1, 144),
    "cube": (np.array([[int((a ^ b).bit_count() == 1) for b in range(8)] for a in range(8)]), 48, 4),
    "no edges": (np.zeros((5, 5), dtype=int), 120, 2),
    "directed cycle": (np.roll(np.eye(6, dtype=int), 1, 1), 6, 6),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_have_their_known_groups_and_weights(name):
    adjacency, order, weights = GRAPHS[name]
    action = A.graph(adjacency)
    assert action.order == order
    assert action.tying().num_orbits == weights
    assert graph_automorphisms(adjacency).order == order
    for g in action.inputs:
        assert (adjacency[np.ix_(g, g)] == adjacency).all()


def test_a_graph_layer_of_identity_and_adjacency_has_the_symmetries_of_the_graph():
    adjacency = kneser(5, 2)
    labels = np.where(np.eye(10, dtype=int) == 1, 0, np.where(adjacency == 1, 1, -1))
    assert Tying(labels).automorphisms().order == 120


def test_signed_symmetries_agree_with_brute_force():
    """All signed permutations of three points on both sides, tried one by one."""
    action = A([[1, 2, 0]], [[1, 2, 0]], signs=([[1, 1, -1]], [[1, 1, -1]]))
    tying = action.tying()
    coded = np.where(tying.labels < 0, 0, (tying.labels + 1) * tying.signs)
    count = 0
    moves = [(p, s) for p in itertools.permutations(range(3)) for s in itertools.product((1, -1), repeat=3)]
    for a, s in moves:
        for b, t in moves:
            moved = np.empty_like(coded)
            moved[np.ix_(b, a)] = coded * np.array(t)[:, None] * np.array(s)[None, :]
            count += (moved == coded).all()
    assert tying.automorphisms().order == count == action.order == 6


def test_the_smallest_generating_sets_are_smallest():
    klein = [np.array([1, 0, 3, 2]), np.array([2, 3, 0, 1]), np.array([3, 2, 1, 0])]
    assert len(smallest_generating_set(PermutationGroup(klein, 4))) == 2
    six = [np.array([1, 2, 0, 3, 4]), np.array([0, 1, 2, 4, 3])]
    assert len(smallest_generating_set(PermutationGroup(six, 5))) == 1
    cube = [np.array([*range(2 * i), 2 * i + 1, 2 * i, *range(2 * i + 2, 6)]) for i in range(3)]
    assert len(smallest_generating_set(PermutationGroup(cube, 6))) == 3
    s = A.symmetric(7)
    assert len(smallest_generating_set(s.joint_group)) == 2


def test_a_search_without_an_end_is_given_up(monkeypatch):
    monkeypatch.setattr(refinement, "NODES", 3)
    with pytest.raises(CapabilityError, match="passed 3 nodes without an end"):
        graph_automorphisms(kneser(5, 2))


def test_bad_graphs_and_signed_minimal_designs_are_refused():
    with pytest.raises(InputError, match=r"adjacency has shape \(2, 3\)"):
        A.graph(np.zeros((2, 3)))
    with pytest.raises(InputError, match='is signed; the "minimal" design'):
        A([[0]], signs=([[-1]], [[-1]])).tying("minimal")


def test_results_say_what_they_are_and_can_be_saved(tmp_path):
    import fathometer as fm

    found = A.cyclic(4).tying().automorphisms()
    assert str(found) == (
        "equivariant to the group of order 4 and to nothing else "
        "(theorem: semi-regular on the inputs and faithful on the outputs)"
    )
    again = fm.load(found.save(tmp_path / "found.safetensors"))
    assert (again.order, again.unique, again.value) == (4, True, 4)
    large = A.symmetric(30).tying().automorphisms()
    assert large.order == math.factorial(30)
    assert fm.load(large.save(tmp_path / "large.safetensors")).order == math.factorial(30)
    assert "symmetries for a group of order" in str(quietly(A.alternating(4).tying()))
    assert str(Tying([[0, 1], [1, 0]]).automorphisms()).startswith("2 symmetries (search")
