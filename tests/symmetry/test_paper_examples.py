"""The examples of Ravanbakhsh, Schneider & Poczos (2017): each pattern from its definition."""

import math
import warnings

import numpy as np
import pytest
import torch

from fathometer.errors import InputError, TheoryWarning
from fathometer.symmetry import Action, TiedLinear, Tying, named_action

A = Action


def pattern(value, size):
    """Labels by first appearance of the value of every (row, column)."""
    numbers = {}
    return [[numbers.setdefault(value(m, n), len(numbers)) for n in range(size)] for m in range(size)]


def test_circular_shifts_give_a_circulant_matrix():
    assert A.cyclic(6).tying().labels.tolist() == pattern(lambda m, n: (m - n) % 6, 6)


def test_shifts_in_opposite_directions_give_a_hankel_circulant_matrix():
    reverse = A([[1, 2, 3, 4, 0]], [[4, 0, 1, 2, 3]])
    assert reverse.tying().labels.tolist() == pattern(lambda m, n: (m + n) % 5, 5)
    assert reverse.tying().automorphisms().unique


def test_reflections_give_distances_on_a_circle():
    distance = lambda m, n: min((m - n) % 7, (n - m) % 7)  # noqa: E731 - a formula with a name
    assert A.dihedral(7).tying().labels.tolist() == pattern(distance, 7)


def test_a_set_layer_has_a_diagonal_and_the_rest():
    assert A.symmetric(4).tying().labels.tolist() == pattern(lambda m, n: m == n, 4)
    assert A.symmetric(4).tying().automorphisms().unique


def test_nested_sets_have_same_element_same_subset_and_other():
    labels = A.wreath(A.symmetric(3), A.symmetric(4)).tying().labels
    assert labels.tolist() == pattern(lambda m, n: (m == n, m // 3 == n // 3), 12)


def test_pairs_of_points_have_one_weight_for_each_pattern_of_equal_indices():
    def equalities(m, n):
        points = (*divmod(m, 4), *divmod(n, 4))
        return tuple(points[i] == points[j] for i in range(4) for j in range(i))

    assert A.tuples(4, 2).tying().labels.tolist() == pattern(equalities, 16)


def test_a_torus_with_all_moves_has_one_weight_for_each_distance():
    def offsets(m, n):
        (a, b), (c, d) = divmod(m, 6), divmod(n, 6)
        return tuple(sorted((min((a - c) % 6, (c - a) % 6), min((b - d) % 6, (d - b) % 6))))

    assert A.grid(6, 6, rotations=True, flips=True).tying().labels.tolist() == pattern(offsets, 36)


def test_quarter_turns_move_pixels_as_a_picture_turns():
    turn = A.grid(4, 4, translations=False, rotations=True).inputs[0]
    image = np.arange(16.0)
    turned = np.empty(16)
    turned[turn] = image
    assert (turned.reshape(4, 4) == np.rot90(image.reshape(4, 4))).all()


def test_the_sparse_design_of_shifts_is_a_narrow_kernel():
    ring = A.cyclic(7)
    steps = [(np.roll(np.arange(7), -k), np.roll(np.arange(7), -k)) for k in (-1, 0, 1)]
    labels = ring.tying("sparse", generators=steps).labels
    assert ((labels >= 0).sum(axis=1) == 3).all()
    narrow = TiedLinear(Tying(labels, [0] * 7), 1, 1, bias=False, dtype=torch.float64)
    x = torch.randn(1, 1, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    w = {int(labels[0, n]): n for n in (6, 0, 1)}
    taps = torch.stack([narrow.weight[0, 0, labels[0, n]] for n in (6, 0, 1)])
    padded = torch.nn.functional.pad(x, (1, 1), mode="circular")
    torch.testing.assert_close(narrow(x), torch.nn.functional.conv1d(padded, taps[None, None]))
    assert len(w) == 3


@pytest.mark.parametrize("activation", [torch.relu, torch.tanh, torch.nn.functional.gelu])
def test_symmetries_of_the_labels_are_those_of_the_function_for_any_activation(activation):
    """Every pair of permutations: f(a x) = b f(x) exactly when (a, b) keeps the labels."""
    import itertools

    tying = A.dihedral(4).tying()
    layer = TiedLinear(tying, 1, 1, bias=False, dtype=torch.float64, seed=1)
    x = torch.randn(5, 1, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    kept = 0
    for a, b in itertools.product(itertools.permutations(range(4)), repeat=2):
        ax, by = torch.empty_like(x), torch.empty_like(x)
        ax[..., list(a)], by[..., list(b)] = x, activation(layer(x))
        same = torch.allclose(activation(layer(ax)), by)
        assert same == bool((tying.labels[np.ix_(b, a)] == tying.labels).all())
        kept += same
    assert kept == tying.automorphisms().order == 8


def test_a_layer_of_a_2_transitive_group_warns_and_one_of_all_permutations_does_not():
    with pytest.warns(TheoryWarning, match="2-transitive: its dense design is that of all permutations"):
        TiedLinear(A.alternating(5), 1, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TiedLinear(A.symmetric(5), 1, 1)


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("dihedral(5)", 10),
        (" tuples(4, 2) ", 24),
        ("product(symmetric(3), cyclic(4))", 24),
        ("grid(6, 6, rotations=True, flips=True)", 288),
        ("weight_space([2, 3, 4, 1])", 144),
        ('cyclic(6, outputs="invariant")', 6),
        ("symmetric(30)", math.factorial(30)),
    ],
)
def test_actions_are_known_by_name(text, order):
    assert named_action(text).order == order


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dihedral(", "is not a call such as"),
        ("5", "is not a call such as"),
        ("klein(4)", "there is no group 'klein'; there are alternating"),
        ("cyclic()", "missing 1 required positional argument"),
        ("cyclic(0)", "n is 0"),
        ("cyclic(2 + 3)", "is not a whole number, a list, True, False or a group"),
        ("__import__('os')", "there is no group '__import__'"),
        ("cyclic(5).order", "is not a call such as"),
    ],
)
def test_unknown_names_are_refused_and_nothing_is_run(text, message):
    with pytest.raises(InputError, match=message):
        named_action(text)
