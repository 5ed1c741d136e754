"""Every way to give wrong generators, and what the refusal says."""

import numpy as np
import pytest
import torch

from fathometer.errors import BudgetError, InputError
from fathometer.symmetry import Action, Tying

A = Action


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: A([[1, 1, 0]]), "inputs, generator 0: not a permutation, 0 and 1 both go to 1"),
        (lambda: A([[1, 0], [0, 1]], [[1, 0], [0, 0]]), "outputs, generator 1: not a permutation"),
        (lambda: A([[1, 0, -1]]), r"inputs, generator 0: index 2 goes to -1; images lie in 0\.\.2"),
        (lambda: A([[1, 2, 3]]), "index 2 goes to 3; images lie in 0..2, counted from 0"),
        (lambda: A([[1.0, 0.0]]), "its entries are float64"),
        (lambda: A([[True, False]]), "it holds booleans"),
        (lambda: A([np.array([True, False])]), "its entries are bool"),
        (lambda: A([[[1, 0]]]), "it has 2 dimensions"),
        (lambda: A([[1, 0], [1, 2, 0]]), "inputs, generator 1: it has 3 entries"),
        (lambda: A([[1, 0]], [[1, 0], [0, 1]]), "inputs lists 1 generators and outputs 2"),
        (lambda: A([], []), r"inputs lists no generator; pass sizes=\(N, M\)"),
        (lambda: A([[]]), "inputs is an empty set"),
        (lambda: A(None), "inputs is of type NoneType; pass a list of permutations"),
        (lambda: A([[1, 0]], 3), "outputs is of type int; pass a list of permutations"),
        (lambda: A([], [], sizes=(0, 3)), "sizes, inputs is 0"),
        (lambda: A([[1, 0]], sizes=(3, 2)), "inputs, generator 0: it has 2 entries"),
        (lambda: A([[1, 0]], signs=([[1, 1]],)), "signs has 1 parts"),
        (lambda: A([[1, 0]], signs=([[1, 1], [1, 1]], None)), "signs of inputs has 2 lists for 1"),
        (lambda: A([[1, 0]], signs=([[1, 2]], None)), "signs of inputs, generator 0: it must hold 2"),
        (
            lambda: A([[1, 2, 0]], [[1, 0]], group=[[1, 2, 0]]),
            "break a relation of the group: it has 3 elements, but with the action beside it 6",
        ),
        (lambda: A([[1, 2, 0]], group=[[1, 2, 0], [0, 1, 2]]), "group lists 2 generators and inputs 1"),
        (lambda: A.cyclic(0), "n is 0; it must be a whole number, at least 1"),
        (lambda: A.symmetric(2.5), "n is 2.5"),
        (lambda: A.cyclic(3, outputs="same"), "outputs is 'same'"),
        (lambda: A.cyclic(3, outputs=[[1, 0], [0, 1]]), "inputs lists 1 generators and outputs 2"),
        (lambda: A.subsets(4, 5), "k is 5; subsets of 4 points have 1 to 4"),
        (lambda: A.grid(3, 4, rotations=True), "a quarter turn needs a square image, not 3 x 4"),
        (lambda: A.grid(3, 3, rotations=3), "rotations is 3"),
        (lambda: A.cosets(A.cyclic(4), [[1, 0, 2, 3]]), "subgroup, generator 0 is not an element"),
        (lambda: A.weight_space([3]), "a network has at least inputs and outputs"),
        (lambda: A.wreath(A.cyclic(2), A([[1, 2, 0]], [[2, 0, 1]])), "acts differently on its two sides"),
        (lambda: A.tuples(A([[1, 0]], signs=([[1, -1]], None)), 2), "is signed; sets are built from"),
        (lambda: A([[1, 0]], signs=([[1, -1]], None)).elements(), "the action is signed"),
        (lambda: A.symmetric(12).elements(), "479001600 elements; at most 100000"),
        (lambda: A.cyclic(4).tying("thin"), "design is 'thin'"),
        (lambda: A.cyclic(4).tying(generators=[]), "generators belong to the sparse design"),
        (lambda: A.cyclic(4).tying("sparse", generators=[]), "generators is empty"),
        (lambda: A.cyclic(4).tying("sparse", lazy=True), "the lazy engine makes the dense design only"),
        (
            lambda: A.cyclic(4).tying("sparse", generators=[([1, 0, 2, 3], [1, 0, 2, 3])]),
            "generators, element 0 is not an element of the group",
        ),
        (lambda: A.cyclic(4).tying("sparse", generators=[[[1, 0, 2, 3]]]), "element 0: pass a pair"),
        (lambda: Tying([0, 1]), r"labels has shape \(2,\)"),
        (lambda: Tying([[0.5]]), "labels holds float64"),
        (lambda: Tying([[-2]]), "the smallest label is -1"),
        (lambda: Tying([[0, 2]]), "labels leaves out 1"),
        (lambda: Tying([[0, 1]], [0, 0]), "bias_labels has 2 entries for 1 outputs"),
        (lambda: Tying([[0, 1]], signs=[[1, 0]]), "signs must be 1 or -1"),
        (lambda: A.cyclic(3).tying().matrix([1.0]), "weights has 1 entries; the tying has 3"),
    ],
)
def test_bad_generators_are_refused_with_side_and_number(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_a_table_of_more_than_two_billion_pairs_is_refused_with_the_way_out():
    with pytest.raises(BudgetError, match=r"tying\(lazy=True\) needs none"):
        A.cyclic(50_000).tying()


def test_mismatched_cycles_are_a_legal_group_and_reported():
    action = A([[1, 2, 0]], [[1, 0]])
    assert (action.order, *action.image_orders) == (6, 3, 2)
    assert tuple(action.kernel_orders) == (2, 3)
    assert action.tying().num_orbits == 1


def test_a_named_group_with_kept_relations_is_accepted():
    assert A([[1, 2, 0]], [[0]], group=[[1, 2, 0]]).order == 3


def test_torch_numpy_lists_and_ranges_mean_the_same():
    for rotation in ([1, 2, 0], (1, 2, 0), np.array([1, 2, 0], dtype=np.int8), torch.tensor([1, 2, 0])):
        assert A([rotation]).tying().labels.tolist() == [[0, 1, 2], [2, 0, 1], [1, 2, 0]]
    assert A([range(3)]).order == 1


def test_the_trivial_group_ties_nothing():
    assert A([], [], sizes=(3, 2)).tying().labels.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert A.trivial(3, 2).order == 1
    assert A([[0, 1, 2]]).tying().num_orbits == 9


def test_the_report_says_what_acts_how():
    report = A.cyclic(4, outputs="invariant").report()
    assert "a group of order 4" in report.title
    inputs, outputs = report.rows
    assert (inputs.transitive, inputs.semiregular, inputs.faithful, inputs.kernel_order) == (
        True,
        True,
        True,
        1,
    )
    assert (outputs.size, outputs.semiregular, outputs.faithful, outputs.kernel_order) == (1, False, False, 4)
    assert tuple(A.symmetric(3).is_regular) == (False, False)
    assert tuple(A.regular(A.symmetric(3)).is_regular) == (True, True)


def test_orbits_are_sorted_lists_of_both_sides():
    assert A([[1, 0, 2]], [[0, 2, 1]]).orbits == ([[0, 1], [2]], [[0], [1, 2]])


def test_signed_orbits_that_meet_both_signs_vanish():
    """x -> -x on both sides commutes with W always; on the outputs alone it forces W = 0."""
    both = A([[0]], [[0]], signs=([[-1]], [[-1]]))
    assert both.tying().labels.tolist() == [[0]]
    assert both.tying().bias_labels.tolist() == [-1]
    one = A([[0]], [[0]], signs=(None, [[-1]]))
    assert one.tying().labels.tolist() == [[-1]]
    assert one.tying().num_orbits == 0


@pytest.mark.parametrize("seed", range(12))
def test_signed_counts_agree_with_the_null_space(seed):
    rng = np.random.default_rng(seed)
    n, m, k = rng.integers(1, 6), rng.integers(1, 6), rng.integers(1, 4)
    inputs = [rng.permutation(n) for _ in range(k)]
    outputs = [rng.permutation(m) for _ in range(k)]
    signs = [rng.choice([-1, 1], n) for _ in range(k)], [rng.choice([-1, 1], m) for _ in range(k)]
    action = A(inputs, outputs, signs=signs)
    rows = []
    for a, b, s, t in zip(inputs, outputs, *signs, strict=True):
        P, Q = np.zeros((n, n)), np.zeros((m, m))
        P[a, np.arange(n)] = s
        Q[b, np.arange(m)] = t
        rows.append(np.kron(np.eye(m), P.T) - np.kron(Q, np.eye(n)))
    tying = action.tying()
    assert tying.num_orbits == n * m - np.linalg.matrix_rank(np.concatenate(rows))
    W = tying.matrix(rng.normal(size=tying.num_orbits))
    for row in rows:
        assert np.abs(row @ W.ravel()).max() < 1e-12
