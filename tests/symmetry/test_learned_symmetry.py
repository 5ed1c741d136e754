"""What trained weights say: discovery, the meter, and whole networks."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

import fathometer as fm
from fathometer.errors import InputError
from fathometer.symmetry import (
    Action,
    Tying,
    candidates,
    discover,
    discover_from_data,
    meter,
    network_automorphisms,
)

A = Action
NOISY = {
    "Z8": A.cyclic(8),
    "D8": A.dihedral(8),
    "S3 wr S4": A.wreath(A.symmetric(3), A.symmetric(4)),
    "S4 x S4": A.product(A.symmetric(4), A.symmetric(4)),
    "S9": A.symmetric(9),
    "S3 pairs": A.tuples(3, 2),
}


def spaced_weights(count):
    """Distinct weights at least 0.2 apart, away from zero, in a mixed order."""
    return np.random.default_rng(count).permutation(0.5 + 0.2 * np.arange(count))


@pytest.mark.parametrize("name", NOISY)
def test_the_tying_is_found_in_noisy_weights(name):
    action = NOISY[name]
    tying = action.tying()
    rng = np.random.default_rng(1)
    W = tying.matrix(spaced_weights(tying.num_orbits))
    for noise in (0.0, 1e-9, 1e-2):
        found = discover(W + noise * rng.normal(size=W.shape))
        assert (found.labels == tying.labels).all()
        assert found.automorphisms.order == tying.automorphisms().order
        assert found.tying.num_orbits == tying.num_orbits
        assert found.kind == ("exact" if noise == 0 else "estimate")
        assert found.gap > 2


@pytest.mark.parametrize("name", ["Z8", "D8", "S3 wr S4"])
def test_the_tying_is_found_from_examples(name):
    action = NOISY[name]
    n, m = action.sizes
    tying = action.tying()
    W = tying.matrix(spaced_weights(tying.num_orbits))
    rng = np.random.default_rng(2)
    X = rng.normal(size=(5 * n * m, n))
    Y = X @ W.T + 3.0
    Y += 0.01 * Y.std() * rng.normal(size=Y.shape)
    found = discover_from_data(X, Y)
    assert (found.labels == tying.labels).all()


def test_zeros_are_no_edges_and_scale_does_not_matter():
    tying = A.cyclic(6).tying("sparse")
    W = np.where(tying.labels >= 0, tying.matrix([2.0, 3.0]), 0.0)
    W += 1e-3 * np.random.default_rng(0).normal(size=W.shape)
    for scale in (1e-12, 1.0, 1e12):
        assert (discover(scale * W).labels == tying.labels).all()
    assert discover(torch.from_numpy(W)).num_orbits == 2
    assert discover(W, tolerance=0.1).num_orbits == 2
    assert discover(np.zeros((2, 2))).num_orbits == 0


def test_equal_values_merge_and_the_symmetry_grows():
    """D_5-tied with equal off-diagonals: all 120 permutations."""
    W = A.dihedral(5).tying().matrix([2.0, 1.0, 1.0])
    found = discover(W)
    assert (found.num_orbits, found.automorphisms.order) == (2, 120)


def test_unstructured_weights_have_no_tying():
    found = discover(np.random.default_rng(3).normal(size=(6, 6)))
    assert found.automorphisms.order == 1


def test_the_path_shows_finer_and_coarser_cuts_and_is_saved(tmp_path):
    W = A.cyclic(8).tying().matrix(spaced_weights(8))
    found = discover(W + 1e-3 * np.random.default_rng(0).normal(size=W.shape))
    tolerances = [row.tolerance for row in found.path]
    assert tolerances == sorted(tolerances)
    again = fm.load(found.save(tmp_path / "d.safetensors"))
    assert (again.labels == found.labels).all()
    assert "8 different weights, 8 symmetries" in str(found)


@pytest.mark.parametrize(
    "action",
    [A.cyclic(12), A.dihedral(12), A.symmetric(12), A.grid(4, 4, rotations=True, flips=True), A.tuples(4, 2)],
    ids=lambda a: a.name,
)
def test_the_meter_puts_the_group_of_the_layer_first(action):
    n = action.sizes[0]
    tying = action.tying()
    rng = np.random.default_rng(4)
    W = tying.matrix(rng.normal(size=tying.num_orbits)) + 0.2 * rng.normal(size=(n, n))
    table = meter(W)
    assert table.rows[0].action == action.name
    assert table.rows[0].z > 10
    assert table.rows[0].evidence > 0
    assert table.rows[0].defect < table.rows[0].expected


def test_the_meter_of_noise_is_calibrated():
    """z has mean 0 and deviation 1 for independent normal entries."""
    action = A.dihedral(8)
    rng = np.random.default_rng(5)
    z = [meter(rng.normal(size=(8, 8)), [action]).rows[0].z for _ in range(400)]
    assert meter(rng.normal(size=(8, 8)), [action]).rows[0].evidence < 0
    assert abs(np.mean(z)) < 4 / math.sqrt(400)
    assert np.std(z) == pytest.approx(1, abs=0.15)


def test_the_meter_takes_layers_channels_and_filters():
    tied = fm.symmetry.TiedLinear(A.cyclic(6), 2, 3, bias=False).to_dense()
    table = meter(tied, channels=(2, 3))
    by_name = {row.action: row for row in table}
    assert by_name["cyclic(6)"].defect < 1e-6
    assert by_name["cyclic(6)"].weights == 36
    conv = nn.Conv2d(2, 3, 3)
    with torch.no_grad():
        conv.weight.copy_((conv.weight + conv.weight.flip(-1)) / 2)
        conv.weight.copy_((conv.weight + conv.weight.flip(-2)) / 2)
    rows = {row.action: row for row in meter(conv)}
    assert rows["grid(3, 3; flips) -> invariant"].defect < 1e-6
    assert meter(nn.Conv1d(2, 3, 4)).rows[0].action == "reversed window"
    skipped = meter(np.eye(3), [A.cyclic(4)])
    assert not skipped.rows
    assert "acts on (4, 4) indices, not (3, 3)" in skipped.notes[0]
    assert [a.sizes for a in candidates(12, 4)] == [(12, 4)] * len(candidates(12, 4))
    assert len(candidates(12, 4)) >= 3


def brute_force_network(layers):
    sizes = [layers[0].shape[1], *(len(layer) for layer in layers)]
    count = 0
    for moves in itertools.product(*(itertools.permutations(range(s)) for s in sizes)):
        count += all((layer[np.ix_(moves[t + 1], moves[t])] == layer).all() for t, layer in enumerate(layers))
    return count


@pytest.mark.parametrize("seed", range(6))
def test_network_symmetries_agree_with_brute_force(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 5, 3)
    layers = []
    for a, b in itertools.pairwise(sizes):
        drawn = rng.integers(0, 2, (b, a))
        layers.append(np.unique(drawn, return_inverse=True)[1].reshape(b, a))
    found = network_automorphisms([Tying(layer, [0] * len(layer)) for layer in layers])
    assert found.order == brute_force_network(layers)
    assert found.order == found.visible_order * found.hidden_order


def test_five_layers_of_64_points_are_searched_with_their_hidden_units():
    found = network_automorphisms([A.symmetric(64)] * 5)
    assert (found.order, found.visible_order, found.hidden_order) == (
        math.factorial(64),
        math.factorial(64),
        1,
    )
    assert len(found.sizes) == 6


def test_hidden_units_that_are_alike_are_hidden_symmetry():
    whole = Tying([[0, 0], [0, 0], [0, 0]], [0, 0, 0])
    head = Tying([[0, 0, 0]], [0])
    found = network_automorphisms([whole, head])
    assert (found.order, found.visible_order, found.hidden_order) == (12, 2, 6)
    assert "2 on inputs and outputs, each with 6" in str(found)
    told_apart = Tying([[0, 0], [0, 0], [0, 0]], [0, 1, 2])
    assert network_automorphisms([told_apart, head], biases=True).order == 2


def test_a_regular_hidden_layer_makes_a_network_of_an_alternating_group_unique():
    """A_4 on points is not 2-closed; through its regular set it is."""
    points = A.alternating(4)
    with pytest.warns(fm.TheoryWarning, match="2-transitive"):
        first = points.tying().automorphisms().repair
    found = network_automorphisms([first, A(first.outputs, first.inputs)])
    assert (found.visible_order, found.hidden_order) == (12, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: discover(np.zeros(3)), r"weight has shape \(3,\)"),
        (lambda: discover(np.array([[1j]])), "weight is complex128"),
        (lambda: discover(np.array([[np.inf]])), r"weight\[0, 0\] is not finite"),
        (lambda: discover(np.eye(2), tolerance=-1.0), "tolerance is -1.0"),
        (lambda: discover_from_data(np.eye(3), np.eye(2)), "3 examples and outputs 2"),
        (lambda: discover_from_data(np.ones((9, 3)), np.ones((9, 2))), "inputs span 1 of 4 dimensions"),
        (lambda: meter(np.eye(3), channels=(2, 1)), r"channels \(2, 1\) must divide"),
        (lambda: network_automorphisms([]), "layers is empty"),
        (lambda: network_automorphisms([A.cyclic(3), A.cyclic(4)]), r"layers\[1\] takes 4 inputs"),
        (
            lambda: network_automorphisms([A([[0]], signs=([[-1]], [[-1]]))]),
            r"layers\[0\] is signed",
        ),
    ],
)
def test_bad_questions_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
