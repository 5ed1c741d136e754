"""Every kernel computes the function of the dense one, with the same derivatives."""

import copy
import pickle

import numpy as np
import pytest
import torch

from fathometer.errors import InputError
from fathometer.symmetry import Action, TiedLinear, Tying, check_equivariance, kernels, rows
from fathometer.symmetry.blocks import block_terms, invariant_partitions
from fathometer.symmetry.fourier import abelian_coordinates
from fathometer.symmetry.strided import view_of

A = Action
D5 = A.dihedral(5)
CASES = {
    "Z8": (A.cyclic(8), ("rows", "halves", "cycles", "fourier", "blocks", "im2col")),
    "Z7": (A.cyclic(7), ("rows", "cycles", "fourier", "blocks", "im2col")),
    "reversed": (A([[1, 2, 3, 4, 0]], [[4, 0, 1, 2, 3]]), ("cycles", "fourier", "im2col")),
    "D5": (D5, ("rows", "halves", "cycles", "fourier", "blocks", "im2col")),
    "S3 regular": (A.regular(A.symmetric(3)), ("halves", "fourier", "blocks")),
    "torus": (A.grid(4, 6), ("fourier", "blocks")),
    "p4m": (A.grid(5, 5, rotations=True, flips=True), ("fourier", "blocks")),
    "two rings to one": (
        A([[1, 2, 0, 4, 5, 3]], [[1, 2, 0]]),
        ("rows", "cycles", "fourier", "blocks", "im2col"),
    ),
    "S5": (A.symmetric(5), ("halves", "cycles", "fourier", "blocks", "im2col")),
    "pairs": (A.tuples(4, 2), ("halves", "blocks", "im2col")),
    "pairs to points": (A.tuples(4, 2, outputs=A.symmetric(4)), ("cycles", "blocks", "im2col")),
    "edges": (A.subsets(5, 2), ("blocks",)),
    "wreath": (
        A.wreath(A.symmetric(3), A.symmetric(4)),
        (
            "halves",
            "blocks",
        ),
    ),
    "array": (A.product(A.symmetric(3), A.symmetric(4)), ("blocks",)),
    "invariant": (A.dihedral(6, outputs="invariant"), ("cycles", "blocks", "im2col")),
    "weight space": (A.weight_space([2, 3, 1]), ("halves", "cycles", "blocks", "im2col")),
    "sparse": (A.cyclic(9).tying("sparse"), ("cycles", "fourier", "im2col")),
    "mirror": (A([[4, 3, 2, 1, 0]]), ("halves", "cycles")),
    "mirror of points alone": (A([[4, 3, 2, 1, 0]], [[0, 1]]), ("halves", "cycles")),
    "sparse turns": (
        A.grid(3, 3, translations=False, rotations=True).tying("sparse"),
        ("rows", "halves", "cycles", "im2col"),
    ),
    # order 5, and inputs that stay
    "five of seven": (A([[1, 2, 3, 4, 0, 5, 6]], [[1, 2, 3, 4, 0]]), ("cycles",)),
    "untied": (A.trivial(5, 4), ("untied", "rows", "im2col")),
    "own labels": (Tying([[0, 1, -1], [1, -1, 0]]), ("rows", "im2col")),
    "runs up and down": (Tying([[0, 1, 2, 3, 4, 5, -1, -1], [5, 4, 3, 2, 1, 0, 6, 7]]), ("rows",)),
    # order 3, and a point of the outputs that stays: it is computed three times
    "a point that stays": (
        A([[1, 2, 0]], [[*np.arange(99).reshape(33, 3)[:, [1, 2, 0]].ravel(), 99]]),
        ("rows",),
    ),
}
PAIRS = [(name, kernel) for name, (_, kernels) in CASES.items() for kernel in kernels]


@pytest.mark.parametrize(("name", "kernel"), PAIRS)
def test_kernels_agree_with_the_dense_one_in_value_and_derivative(name, kernel):
    structure = CASES[name][0]
    dense = TiedLinear(structure, 2, 3, kernel="dense", dtype=torch.float64)
    fast = TiedLinear(structure, 2, 3, kernel=kernel, dtype=torch.float64)
    assert fast.kernel.kind == kernel
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 2, dense.tying.sizes[0], dtype=torch.float64, generator=generator)
    u = torch.randn(4, 3, dense.tying.sizes[1], dtype=torch.float64, generator=generator)
    found = []
    for layer in (dense, fast):
        signal = x.clone().requires_grad_()
        y = layer(signal)
        first = torch.autograd.grad((y * u).sum().square(), [signal, layer.weight], create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), [signal, layer.weight])
        found.append([y, *first, *second])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


SIGNED = A([[1, 2, 3, 0]], [[1, 2, 3, 0]], signs=([[1, 1, 1, -1]], [[1, 1, 1, -1]]))
BY_HAND = [*PAIRS, *((name, "dense") for name in CASES), ("signed", "dense")]


@pytest.mark.parametrize(("bytes_at_a_time", "at_once"), [(1, 0), (1000, 0), (1 << 20, 0), (1, 1 << 20)])
@pytest.mark.parametrize(("name", "kernel"), BY_HAND)
def test_values_and_gradients_by_hand_are_those_of_the_operations(
    name, kernel, bytes_at_a_time, at_once, monkeypatch
):
    """Whatever the panels are; with signs and blanks too."""
    for module in (kernels, rows):
        monkeypatch.setattr(module, "PANEL", bytes_at_a_time)
    monkeypatch.setattr(kernels, "AT_ONCE", at_once)
    monkeypatch.setattr(rows, "SMALLEST_BLOCK", 0)
    structure = SIGNED if name == "signed" else CASES[name][0]
    layer = TiedLinear(structure, 2, 3, kernel=kernel, dtype=torch.float64)
    g = torch.Generator().manual_seed(4)
    w = torch.randn(layer.weight.shape, dtype=torch.float64, generator=g).requires_grad_()
    x = torch.randn(4, 2, layer.tying.sizes[0], dtype=torch.float64, generator=g).requires_grad_()
    u = torch.randn(4, 3, layer.tying.sizes[1], dtype=torch.float64, generator=g)
    y = layer.kernel.plain(w, x)
    expected = [y, *torch.autograd.grad(y, [w, x], u)]
    z = layer.kernel(w, x)
    found = [z, *torch.autograd.grad(z, [w, x], u)]
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one, other)
    for part, index in (((w.detach(), x), 1), ((w, x.detach()), 0)):
        alone = torch.autograd.grad(layer.kernel(*part), part[index], u)[0]
        torch.testing.assert_close(alone, expected[2 if index else 1])
    with torch.no_grad():
        torch.testing.assert_close(layer.kernel(w, x), y)


@pytest.mark.parametrize(
    ("table", "view"),
    [
        ([[0], [1], [2]], ((3,), (1,), (), ())),
        ([[0, 1], [2, 3], [4, 5]], ((3,), (2,), (2,), (1,))),
        ([[0, 3, 6], [1, 4, 7]], ((2,), (1,), (3,), (3,))),
        ([[0], [2], [4], [1], [3], [5]], ((2, 3), (1, 2), (), ())),
        ([[0], [3], [1], [4]], ((2, 2), (1, 3), (), ())),
        ([[0, 1], [1, 2]], None),  # blocks overlap
        ([[0, 1], [2, 4]], None),  # blocks of different shapes
        ([[1, 2, 4]], None),
        ([[4], [2], [0]], None),  # backward
    ],
)
def test_views_are_found_where_blocks_lie_regularly(table, view):
    found = view_of(np.array(table))
    if view is None:
        assert found is None
        return
    signal = torch.arange(18.0).reshape(2, 1, 9)
    torch.testing.assert_close(found.pool(signal), signal[:, :, torch.tensor(table)].sum(-1))
    assert (*found.blocks, *found.inside) == view


def test_set_layers_pairs_arrays_and_hierarchies_go_by_strides():
    S = A.symmetric
    for action in (S(9), A.tuples(5, 2), A.product(S(3), S(4)), A.wreath(S(3), S(4))):
        assert TiedLinear(action, 1, 1, kernel="blocks").kernel.strided is not None
    assert TiedLinear(A.subsets(5, 2), 1, 1, kernel="blocks").kernel.strided is None


@pytest.mark.parametrize("kernel", ["dense", "rows", "halves", "cycles", "fourier", "blocks", "im2col"])
def test_forward_derivatives_and_batches_of_them_agree_with_the_dense_matrix(kernel):
    layer = TiedLinear(A.cyclic(6), 2, 3, kernel=kernel, dtype=torch.float64, bias=False)
    matrix = layer.matrix()
    g = torch.Generator().manual_seed(2)
    x = torch.randn(4, 2, 6, dtype=torch.float64, generator=g)
    t = torch.randn(5, 4, 2, 6, dtype=torch.float64, generator=g)
    push = lambda v: torch.func.jvp(layer, (x,), (v,))[1]  # noqa: E731 - a formula with a name
    expected = (t.flatten(2) @ matrix.T).reshape(5, 4, 3, 6)
    torch.testing.assert_close(push(t[0]), expected[0])
    torch.testing.assert_close(torch.func.vmap(push)(t), expected)
    jacobian = torch.func.jacrev(lambda v: layer(v[None])[0])(x[0])
    torch.testing.assert_close(jacobian.reshape(18, 12), matrix)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kernel", ["rows", "halves", "cycles", "fourier", "blocks", "im2col"])
def test_kernels_take_low_precision(kernel, dtype):
    reference = TiedLinear(A.cyclic(12), 2, 3, kernel="dense", dtype=torch.float64)
    layer = TiedLinear(A.cyclic(12), 2, 3, kernel=kernel, dtype=dtype)
    x = torch.randn(4, 2, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y = layer(x.to(dtype))
    assert y.dtype == dtype
    torch.testing.assert_close(y.double(), reference(x), rtol=0, atol=40 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("kernel", ["dense", "fourier", "blocks", "im2col"])
def test_a_batch_may_be_empty_and_copies_keep_the_kernel(kernel):
    layer = TiedLinear(A.cyclic(8), 2, 3, kernel=kernel)
    assert layer(torch.zeros(0, 2, 8)).shape == (0, 3, 8)
    x = torch.ones(1, 2, 8)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        torch.testing.assert_close(twin(x), layer(x))
    assert set(layer.state_dict()) == {"weight", "bias"}
    other = TiedLinear(A.cyclic(8), 2, 3, kernel="dense", seed=9)
    other.load_state_dict(layer.state_dict())
    torch.testing.assert_close(other(x), layer(x))


@pytest.mark.parametrize(
    ("action", "kind"),
    [
        (A.cyclic(256), "fourier"),
        (A.dihedral(256), "fourier"),
        (A.symmetric(256), "blocks"),
        (A.tuples(16, 2), "blocks"),
        (A.product(A.symmetric(16), A.symmetric(16)), "blocks"),
        (A.wreath(A.symmetric(16), A.symmetric(16)), "blocks"),
        (A.grid(16, 16, rotations=True, flips=True), "fourier"),
        (A.cyclic(256).tying("sparse"), "im2col"),
        (A.trivial(64, 64), "untied"),
        (A.product(A.cyclic(3), A.trivial(30)), "rows"),
        (A.product(A.cyclic(3), A.trivial(60)), "cycles"),
        (A([list(range(200))[::-1]]), "halves"),
        (A.cyclic(5), "dense"),
    ],
    ids=lambda v: getattr(v, "name", v if isinstance(v, str) else "tying"),
)
def test_the_planner_finds_the_structure(action, kind):
    layer = TiedLinear(action, 8, 8)
    assert layer.kernel.kind == kind
    if isinstance(action, Action):
        assert check_equivariance(layer, action, samples=2).ok


def test_the_greedy_basis_finds_deep_sets_and_the_fifteen_operations():
    sets = A.symmetric(20)
    terms = block_terms(sets.tying(), sets)
    assert sorted(term.cost[0] for term in terms) == [1, 20]
    pairs = A.tuples(8, 2)
    basis = block_terms(pairs.tying(), pairs)
    assert len(basis) == 15
    assert np.linalg.matrix_rank(np.stack([term.orbits for term in basis])) == 15
    # only the identity and the transpose need work for every pair
    assert sum(term.cost[0] > 3 * 8 for term in basis) == 2


def test_partitions_of_a_hierarchy_are_its_levels():
    action = A.wreath(A.symmetric(3), A.symmetric(4))
    found = {tuple(p.tolist()) for p in invariant_partitions(action.inputs, 12)}
    assert found == {tuple(range(12)), (0,) * 12, tuple(i // 3 for i in range(12))}


def test_the_abelian_subgroup_of_a_torus_is_its_shifts():
    inputs, outputs = abelian_coordinates(A.grid(4, 6, rotations=2, flips=True))
    assert inputs[0].size == outputs[0].size == 24
    assert sorted(inputs.ravel().tolist()) == list(range(24))
    assert abelian_coordinates(A.symmetric(3, outputs="invariant")) is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: TiedLinear(A.symmetric(4, outputs="invariant"), 1, 1, kernel="fourier"),
            "no abelian subgroup",
        ),
        (lambda: TiedLinear(A.cyclic(3).tying("sparse"), 1, 1, kernel="blocks"), "it is for dense designs"),
        (lambda: TiedLinear(A.cyclic(3), 1, 1, kernel="halves"), "no element of order two"),
        (lambda: TiedLinear(A.trivial(3), 1, 1, kernel="halves"), "no element of order two"),
        (lambda: TiedLinear(A.cyclic(11), 1, 1, kernel="cycles"), "no element of order 2, 3, 5 or 7"),
        (lambda: TiedLinear(A.cyclic(3), 1, 1, kernel="untied"), "not 9 weights in their order"),
        (lambda: TiedLinear(Tying([[0]]), 1, 1, kernel="blocks"), "the tying knows no action"),
        (lambda: TiedLinear(A([[0]], signs=([[-1]], [[-1]])), 1, 1, kernel="blocks"), "signed or empty"),
    ],
)
def test_kernels_that_do_not_fit_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
