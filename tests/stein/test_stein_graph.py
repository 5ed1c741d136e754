"""The graph Stein discrepancy against its definition, proofs of optimality and known orderings."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.sparse.csgraph import dijkstra

import fathometer as fm
from fathometer.stein import graph_discrepancy
from fathometer.stein.programs import Rows, certify, edge_rows
from fathometer.stein.spanner import greedy_spanner


def vanish_on_faces(constrain, point, i, j, constants, faces):
    """Component j is zero on the two faces of coordinate j."""
    _, c2, c3 = constants
    for face in faces:
        if np.isfinite(face):
            s = point[j] - face
            constrain([(i, 0, 1.0)], c2 * abs(s))
            for k in range(len(point)):
                if k != j:
                    constrain([(i, k + 1, 1.0)], c3 * abs(s))
            constrain([(i, 0, 1.0), (i, j + 1, -s)], c3 / 2 * s**2)


def brute_force(x, b, pairs, constants, support=None, q=None):  # noqa: C901 - the program, constraint by constraint
    """The program written down constraint by constraint, as in the definition, and a general solver."""
    n, d = x.shape
    c1, c2, c3 = constants
    q = np.full(n, 1 / n) if q is None else q
    pairs, total = list(pairs), 0.0
    for j in range(d):
        rows, limits = [], []

        def constrain(terms, limit, rows=rows, limits=limits):
            row = np.zeros((n, d + 1))
            for point, slot, value in terms:
                row[point, slot] += value
            rows.append(row.ravel())
            limits.append(limit)

        for i in range(n):
            constrain([(i, 0, 1.0)], c1)
            for k in range(d):
                constrain([(i, k + 1, 1.0)], c2)
            vanish_on_faces(constrain, x[i], i, j, constants, () if support is None else support[j])
        for i, m in pairs:
            delta = x[i] - x[m]
            L = np.abs(delta).sum()
            constrain([(i, 0, 1.0), (m, 0, -1.0)], c2 * L)
            for k in range(d):
                constrain([(i, k + 1, 1.0), (m, k + 1, -1.0)], c3 * L)
            for end in (i, m):
                slopes = [(end, k + 1, -delta[k]) for k in range(d)]
                constrain([(i, 0, 1.0), (m, 0, -1.0), *slopes], c3 / 2 * L**2)
        cost = np.zeros((n, d + 1))
        cost[:, 0], cost[:, j + 1] = q * b[:, j], q
        A = np.array(rows)
        answer = linprog(
            -cost.ravel(),
            np.vstack([A, -A]),
            np.tile(limits, 2),
            bounds=(None, None),
            method="highs",
            options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
        )
        total -= answer.fun
    return total


def draw(n, d, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    return x, -x + 0.3 * rng.normal(size=x.shape)


@pytest.mark.parametrize("constants", [(1.0, 1.0, 1.0), (0.5, 2.0, 0.7), (1.0, 4.0, 2.0)])
@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_complete_graph_agrees_with_the_definition(dimension, constants):
    x, b = draw(9, dimension)
    expected = brute_force(x, b, itertools.combinations(range(9), 2), constants)
    result = graph_discrepancy(x, b, graph="complete", constants=constants)
    assert result.value == pytest.approx(expected, rel=1e-8)
    assert result.kind == "exact"
    assert result.gap < 1e-8
    assert result.per_coordinate.sum() == pytest.approx(result.value, rel=1e-12)


@pytest.mark.parametrize("dimension", [1, 2])
def test_spanner_program_is_the_definition_on_its_edges(dimension):
    x, b = draw(12, dimension)
    q = np.random.default_rng(1).dirichlet(np.ones(12))
    result = graph_discrepancy(x, b, weights=q)
    assert result.value == pytest.approx(brute_force(x, b, result.edges, (1, 1, 1), q=q), rel=1e-8)


@pytest.mark.parametrize("support", [[(0, 1), (0, 1)], [(0, np.inf), (-np.inf, np.inf)], [(-1, 2), (0, 1)]])
@pytest.mark.parametrize("dimension", [1, 2])
def test_bounded_support_agrees_with_the_definition(dimension, support):
    rng = np.random.default_rng(2)
    x = rng.random((8, dimension))
    x[0, 0] = max(support[0][0], 0)  # one point on a face
    b = rng.normal(size=x.shape)
    constants = (0.5, 0.5, 1.0)
    expected = brute_force(x, b, itertools.combinations(range(8), 2), constants, support)
    result = graph_discrepancy(x, b, graph="complete", constants=constants, support=support[:dimension])
    assert result.value == pytest.approx(expected, rel=1e-7, abs=1e-9)


def test_neighbors_on_the_line_give_the_value_of_the_complete_graph():
    x, b = draw(15, 1)
    everything = brute_force(x, b, itertools.combinations(range(15), 2), (1, 4, 2))
    assert graph_discrepancy(x, b, constants=(1, 4, 2)).value == pytest.approx(everything, rel=1e-8)


@pytest.mark.parametrize("support", [None, [(0, 1)], [(0, np.inf)], [(-np.inf, 1)]])
@pytest.mark.parametrize("n", [1, 2, 3, 20])
def test_line_agrees_with_the_definition_on_every_support(n, support):
    rng = np.random.default_rng(n)
    x, b = rng.random((n, 1)), 3 * rng.normal(size=(n, 1))
    q = rng.dirichlet(np.ones(n))
    constants = (0.7, 1.2, 2.0)
    pairs = [(i, j) for i in range(n) for j in range(i)]
    expected = brute_force(x, b, pairs, constants, support, q)
    result = graph_discrepancy(x, b, constants=constants, support=support, weights=q)
    assert result.value == pytest.approx(expected, rel=1e-8, abs=1e-9)
    assert result.gap < 5e-9


def test_points_on_both_ends_of_the_support_are_pinned():
    x = np.array([[0.0], [0.3], [1.0]])
    b = np.array([[9.0], [1.0], [-9.0]])
    expected = brute_force(x, b, [(0, 1), (1, 2), (0, 2)], (1, 1, 1), [(0, 1)])
    result = graph_discrepancy(x, b, support=(0, 1))
    assert result.value == pytest.approx(expected, rel=1e-9)
    assert result.function[0] == result.function[2] == 0


@pytest.mark.parametrize("law", ["random", "quantiles"])
def test_ten_thousand_points_are_proved_to_ten_digits(law):
    from scipy.stats import norm

    n = 10_000
    x = np.random.default_rng(0).normal(size=n) if law == "random" else norm.ppf((np.arange(n) + 0.5) / n)
    result = graph_discrepancy(x, -x, constants=(1, 4, 2))
    assert result.gap < 1e-10
    assert result.witness.mean() == pytest.approx(result.value, rel=1e-9)
    order = np.argsort(x)
    x, g, p = x[order], result.function[order, 0], result.gradient[order, 0, 0]
    h, slack = np.diff(x), 1e-15
    assert (np.abs(np.diff(p)) <= 2 * h + slack).all()
    assert (np.abs(np.diff(g) - h * p[:-1]) <= h**2 + slack).all()
    assert (np.abs(np.diff(g) - h * p[1:]) <= h**2 + slack).all()
    assert (np.abs(np.diff(g)) <= 4 * h + slack).all()
    assert np.abs(g).max() <= 1
    assert np.abs(p).max() <= 4


def test_uniform_points_are_as_far_as_the_wasserstein_distance_and_little_more():
    # on [0, 1] with constants (1/2, 1/2, 1) the discrepancy is at least the Wasserstein distance
    x = np.sort(np.random.default_rng(3).random(2000))
    result = graph_discrepancy(x, 0 * x, constants=(0.5, 0.5, 1), support=(0, 1))
    wasserstein = np.abs(x - (np.arange(2000) + 0.5) / 2000).mean()
    assert wasserstein <= result.value <= 1.05 * wasserstein + 1e-4


def test_one_point_has_its_closed_form():
    b = np.array([[0.3, -2.0]])
    result = graph_discrepancy([[5.0, 1.0]], b, constants=(1.5, 0.5, 1.0))
    assert result.value == pytest.approx(1.5 * 2.3 + 2 * 0.5, rel=1e-9)
    assert result.saturation == pytest.approx(1.0)


def test_witness_is_feasible_and_reaches_the_value():
    x, b = draw(60, 2)
    w = np.random.default_rng(1).dirichlet(np.ones(60))
    result = graph_discrepancy(x, b, weights=w)
    assert w @ result.witness == pytest.approx(result.value, rel=1e-9)
    expected = (result.function * b).sum(1) + np.trace(result.gradient, axis1=1, axis2=2)
    np.testing.assert_allclose(result.witness, expected, rtol=1e-12)
    assert np.abs(result.function).max() <= 1
    assert np.abs(result.gradient).max() <= 1
    for i, m in result.edges:
        delta = x[i] - x[m]
        L = np.abs(delta).sum()
        step = result.function[i] - result.function[m]
        slack = 1e-12
        assert np.abs(step).max() <= L + slack
        assert np.abs(result.gradient[i] - result.gradient[m]).max() <= L + slack
        for end in (i, m):
            assert np.abs(step - result.gradient[end] @ delta).max() <= L**2 / 2 + slack


@given(seed=st.integers(0, 2**31), n=st.integers(2, 14), d=st.integers(1, 3))
@settings(max_examples=25, deadline=None, derandomize=True)
@pytest.mark.filterwarnings("ignore:no constraint between the points binds")
def test_spanner_lies_between_the_complete_graph_and_eight_times_it(seed, n, d):
    x, b = draw(n, d, seed)
    complete, spanner = graph_discrepancy(x, b, graph="complete"), graph_discrepancy(x, b)
    slack = 1e-7
    assert complete.value <= spanner.value + slack
    assert spanner.value <= 8 * complete.value + slack
    assert 0 <= spanner.saturation <= 1 + 1e-9


@given(
    seed=st.integers(0, 2**31), n=st.integers(2, 40), d=st.integers(1, 4), stretch=st.sampled_from([1.2, 2.0])
)
@settings(max_examples=30, deadline=None, derandomize=True)
def test_spanner_joins_every_pair_by_a_short_path_and_wastes_no_edge(seed, n, d, stretch):
    x = np.random.default_rng(seed).normal(size=(n, d))
    distance = np.abs(x[:, None] - x[None]).sum(2)
    edges = greedy_spanner(x, stretch=stretch)
    graph = np.zeros((n, n))
    graph[edges[:, 0], edges[:, 1]] = distance[edges[:, 0], edges[:, 1]]
    assert (dijkstra(graph, directed=False) <= stretch * distance + 1e-12).all()
    if d > 1:  # greedy: without the edge, its ends are further apart than allowed
        for i, m in edges:
            without = graph.copy()
            without[i, m] = without[m, i] = 0
            assert dijkstra(without, directed=False)[i, m] > stretch * distance[i, m]


def test_cutoff_keeps_the_shorter_edges_of_the_spanner():
    x = np.random.default_rng(0).normal(size=(60, 2))
    whole = greedy_spanner(x)
    short = whole[np.abs(x[whole[:, 0]] - x[whole[:, 1]]).sum(1) < 0.4]
    np.testing.assert_array_equal(greedy_spanner(x, cutoff=0.4), short)


def test_equal_points_are_merged_and_their_weights_added():
    x, b = draw(10, 2)
    repeat = np.repeat(np.arange(10), [3, 1, 1, 1, 2, 1, 1, 1, 1, 4])
    weights = np.bincount(repeat) / len(repeat)
    whole, merged = graph_discrepancy(x[repeat], b[repeat]), graph_discrepancy(x, b, weights=weights)
    assert whole.value == pytest.approx(merged.value, rel=1e-9)
    assert whole.witness.shape == (16,)
    assert whole.witness.mean() == pytest.approx(whole.value, rel=1e-9)


@pytest.mark.parametrize("distance", [1e-3, 1e-5, 1e-7, 1e-9, 1e-12])
@pytest.mark.parametrize("dimension", [1, 2])
def test_near_duplicates_leave_the_value_of_merged_points(distance, dimension):
    x, b = draw(30, dimension)
    close = np.concatenate([x, x[:1] + distance * np.linspace(0.3, 1, dimension)])
    weights = np.append(np.full(30, 1 / 31), 1 / 31)
    merged = np.full(30, 1 / 31)
    merged[0] *= 2
    result = graph_discrepancy(close, np.concatenate([b, b[:1]]), weights=weights)
    expected = graph_discrepancy(x, b, weights=merged).value
    assert result.value == pytest.approx(expected, rel=max(10 * distance, 1e-7))
    assert result.gap <= 1e-7 * result.value


def test_smooth_function_bound_holds_for_a_smooth_function():
    # g = c sin(x) satisfies the constraints with (1, 1, 1), so its mean is a lower bound
    x = np.random.default_rng(0).normal(size=(40, 1))
    b = -x
    mean = abs((np.sin(x) * b + np.cos(x)).mean())
    assert graph_discrepancy(x, b).value >= mean


def test_discrepancy_bounds_wasserstein_distance_of_the_normal_law():
    from scipy.stats import norm

    for seed in range(3):
        x = np.sort(np.random.default_rng(seed).normal(size=12))
        grid = (np.arange(200_000) + 0.5) / 200_000
        wasserstein = np.abs(x[np.minimum((grid * 12).astype(int), 11)] - norm.ppf(grid)).mean()
        assert wasserstein <= graph_discrepancy(x, -x, constants=(1, 4, 2)).value


def test_threads_do_not_change_the_value():
    x, b = draw(40, 3)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = graph_discrepancy(x, b)
        torch.set_num_threads(3)
        together = graph_discrepancy(x, b)
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(alone.per_coordinate, together.per_coordinate)
    np.testing.assert_array_equal(alone.witness, together.witness)


def test_shift_does_not_change_the_value():
    x = np.random.default_rng(0).integers(-64, 65, size=(20, 2)) / 32.0
    b = np.random.default_rng(1).normal(size=x.shape)
    assert graph_discrepancy(x + 2.0**20, b).value == pytest.approx(graph_discrepancy(x, b).value, rel=1e-9)


def test_certificate_holds_whatever_the_solver_says():
    x = draw(10, 2)[0]
    rows = edge_rows(x, greedy_spanner(x), (1.0, 1.0, 1.0))
    bound, c = np.ones(30), np.random.default_rng(0).normal(size=30)
    exact = linprog(
        -c,
        np.vstack([rows.A.toarray(), -rows.A.toarray()]),
        np.tile(rows.limit, 2),
        bounds=(-1, 1),
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    ).fun
    for seed in range(20):
        rng = np.random.default_rng(seed)
        found = certify(rows, bound, c, 3 * rng.normal(size=30), rng.normal(size=len(rows.limit)))
        assert found.lower <= -exact + 1e-9
        assert found.upper >= -exact - 1e-9
        assert (np.abs(rows.A @ found.v) <= rows.limit + 1e-12).all()
    empty = Rows(A=rows.A[:0], limit=rows.limit[:0])
    assert certify(empty, bound, c, np.sign(c), np.zeros(0)).upper == pytest.approx(np.abs(c).sum())


def test_saturation_is_reported_and_warned_of():
    x, b = draw(20, 8, seed=1)
    with pytest.warns(fm.TheoryWarning, match="no constraint between the points binds"):
        result = graph_discrepancy(20 * x, b)
    assert result.saturation == pytest.approx(1.0)
    assert result.value == pytest.approx((np.abs(b).mean(0) + 1).sum())
    assert result.binding == 0


def test_graph_result_is_saved_and_drawn(tmp_path):
    for d in (1, 2):
        x, b = draw(9, d)
        result = graph_discrepancy(x, b)
        again = fm.load(result.save(tmp_path / "r.safetensors"))
        assert again.value == result.value
        np.testing.assert_array_equal(again.gradient, result.gradient)
        assert len(result.picture().panels) == 2
        assert "constraints bind" in str(result)


BAD = {
    "graph": (lambda x, b: graph_discrepancy(x, b, graph="tree"), r'graph is .tree.; it is "spanner"'),
    "constants": (lambda x, b: graph_discrepancy(x, b, constants=(1, 0, 1)), r"three positive numbers"),
    "constants text": (lambda x, b: graph_discrepancy(x, b, constants="abc"), r"three positive numbers"),
    "two constants": (lambda x, b: graph_discrepancy(x, b, constants=(1, 1)), r"three positive numbers"),
    "negative weights": (
        lambda x, b: graph_discrepancy(x, b, weights=[0.5, 0.5, 0.5, -0.5, 0]),
        r"weights hold -0.5 in row 3",
    ),
    "support shape": (lambda x, b: graph_discrepancy(x, b, support=[(0, 1)]), r"support has shape \(1, 2\)"),
    "support order": (
        lambda x, b: graph_discrepancy(x, b, support=[(-9, 9), (1, 0)]),
        r"coordinate 1 has low 1 and high 0",
    ),
    "outside": (
        lambda x, b: graph_discrepancy(x, b, support=[(-9, 9), (-0.1, 0.1)]),
        r"row 0 lies outside the support, coordinate 1",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_graph_discrepancy_refuses(case):
    call, message = BAD[case]
    with pytest.raises(fm.InputError, match=message):
        call(*draw(5, 2))
    with fm.budget(10_000), pytest.raises(fm.BudgetError, match="spanner of 100 points"):
        graph_discrepancy(*draw(100, 2))
