"""Tied layers: the function, its equivariance, and moving weights in and out."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from fathometer.errors import InputError
from fathometer.symmetry import Action, TiedLinear, Tying, check_equivariance, defect, project, tie

A = Action
signed = A([[1, 2, 0]], [[1, 2, 0]], signs=([[1, 1, -1]], [[1, 1, -1]]))
ACTIONS = {
    "Z6": A.cyclic(6),
    "D5 mirror": A([[1, 2, 3, 4, 0], [0, 4, 3, 2, 1]]),
    "S4 pairs to points": A.tuples(4, 2, outputs=A.symmetric(4)),
    "p4 4x4": A.grid(4, 4, rotations=True),
    "S3 regular": A.regular(A.symmetric(3)),
    "signed": signed,
    "invariant": A.cyclic(5, outputs="invariant"),
}


@pytest.fixture(params=ACTIONS, ids=list(ACTIONS))
def action(request):
    return ACTIONS[request.param]


def by_definition(layer, x):
    """y[b, o, m] = sum over i, n of sign w[o, i, label] x[b, i, n], plus the bias."""
    tying = layer.tying
    n, m = tying.sizes
    y = torch.zeros(len(x), layer.out_channels, m, dtype=x.dtype)
    for row in range(m):
        for column in range(n):
            k = tying.labels[row, column]
            if k >= 0:
                sign = 1 if tying.signs is None else int(tying.signs[row, column])
                y[:, :, row] += sign * x[:, :, column] @ layer.weight[:, :, k].T
        if layer.bias is not None and tying.bias_labels[row] >= 0:
            sign = 1 if tying.bias_signs is None else int(tying.bias_signs[row])
            y[:, :, row] += sign * layer.bias[:, tying.bias_labels[row]]
    return y


def test_the_layer_is_the_sum_of_its_definition(action):
    layer = TiedLinear(action, 2, 3, dtype=torch.float64)
    x = torch.randn(4, 2, action.sizes[0], dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(layer(x), by_definition(layer, x))


def test_the_layer_commutes_with_every_element(action):
    layer = TiedLinear(action, 2, 3, dtype=torch.float64)
    x = torch.randn(4, 2, action.sizes[0], dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y = layer(x)
    sides = action.signs if action.signs is not None else None
    for g, (a, b) in enumerate(action.generators):
        gx, gy = torch.empty_like(x), torch.empty_like(y)
        s = torch.ones(len(a)) if sides is None else torch.from_numpy(sides.inputs[g])
        t = torch.ones(len(b)) if sides is None else torch.from_numpy(sides.outputs[g])
        gx[..., a], gy[..., b] = x * s, y * t
        torch.testing.assert_close(layer(gx), gy)
    check = check_equivariance(layer, action)
    assert check.ok
    assert check.value < 1e-14


def test_untied_layers_are_not_equivariant_and_the_generator_is_named():
    check = check_equivariance(nn.Linear(5, 5), A.dihedral(5))
    assert not check.ok
    assert check.generator in (0, 1)
    assert "not equivariant" in str(check)


def test_a_layer_that_breaks_one_generator_only_is_caught_there():
    rotation_only = TiedLinear(A.cyclic(5), 1, 1)
    check = check_equivariance(rotation_only, A.dihedral(5))
    assert check.errors[0] <= check.tolerance < check.errors[1]
    assert check.generator == 1


def test_dense_export_and_tying_back_are_inverse(action):
    layer = TiedLinear(action, 2, 3, dtype=torch.float64)
    dense = layer.to_dense()
    x = torch.randn(4, 2, action.sizes[0], dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(dense(x.flatten(1)).reshape(layer(x).shape), layer(x))
    again = tie(dense, action)
    torch.testing.assert_close(again.weight, layer.weight)
    torch.testing.assert_close(again.bias, layer.bias)
    assert defect(dense.weight, action) < 1e-15


def test_tie_gives_the_nearest_equivariant_weights(action):
    """The gap is orthogonal to every equivariant matrix, the definition of a projection."""
    n, m = action.sizes
    linear = nn.Linear(2 * n, 3 * m, dtype=torch.float64)
    tied = tie(linear, action)
    gap = (linear.weight - tied.matrix()).reshape(3, m, 2, n)
    tying = action.tying()
    for k in range(tying.num_orbits):
        direction = torch.from_numpy(tying.matrix(np.eye(tying.num_orbits)[k]))
        assert torch.einsum("omin,mn->oi", gap, direction).abs().max() < 1e-12


def test_projection_is_the_mean_over_the_group():
    action = A.grid(3, 3, rotations=True, flips=True)
    W = np.random.default_rng(0).normal(size=(9, 9))
    mean = sum(W[np.ix_(b, a)] for a, b in action.elements()) / action.order
    np.testing.assert_allclose(project(W, action), mean, atol=1e-14)
    gap = np.linalg.norm(W - mean) / np.linalg.norm(W)
    assert defect(W, action) == pytest.approx(gap, rel=1e-12)
    assert isinstance(project(W, action), np.ndarray)
    assert isinstance(project(torch.from_numpy(W), action), torch.Tensor)


def test_defect_of_the_zero_matrix_is_zero_and_of_a_missing_edge_is_counted():
    assert defect(np.zeros((3, 3)), A.cyclic(3)) == 0.0
    sparse = Tying([[0, -1], [-1, 0]], [0, 0])
    assert defect(np.array([[3.0, 4.0], [0.0, 3.0]]), sparse) == pytest.approx(4 / np.sqrt(34))


def test_restriction_to_a_subgroup_keeps_the_function(action):
    if action.signs is not None or not len(action.inputs):
        smaller = A([], [], sizes=tuple(action.sizes))
    else:
        smaller = A([action.inputs[0]], [action.outputs[0]])
    layer = TiedLinear(action, 2, 3, dtype=torch.float64)
    freer = layer.restrict(smaller)
    x = torch.randn(4, 2, action.sizes[0], dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(freer(x), layer(x))
    assert freer.tying.num_orbits >= layer.tying.num_orbits


def test_restriction_to_a_larger_group_is_refused():
    with pytest.raises(InputError, match="ties weights that differ in this layer"):
        TiedLinear(A.cyclic(4), 1, 1).restrict(A.symmetric(4))
    with pytest.raises(InputError, match=r"this layer has \(4, 4\)"):
        TiedLinear(A.cyclic(4), 1, 1).restrict(A.cyclic(5))


def test_state_dict_pickle_and_copy_keep_the_function(action):
    layer = TiedLinear(action, 2, 3, seed=5)
    other = TiedLinear(action, 2, 3, seed=6)
    x = torch.randn(4, 2, action.sizes[0], generator=torch.Generator().manual_seed(4))
    assert not torch.equal(layer(x), other(x))
    other.load_state_dict(layer.state_dict())
    for twin in (other, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        torch.testing.assert_close(twin(x), layer(x), rtol=0, atol=0)
    assert set(layer.state_dict()) == {"weight", "bias"}
    assert pickle.loads(pickle.dumps(action)).order == action.order


def test_derivatives_of_first_and_second_order_agree_with_differences(action):
    layer = TiedLinear(action, 1, 2, dtype=torch.float64)
    x = torch.randn(2, 1, action.sizes[0], dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    x.requires_grad_()

    def run(weight, signal):
        return torch.tanh(torch.func.functional_call(layer, {"weight": weight}, (signal,)))

    torch.autograd.gradcheck(run, (layer.weight, x))
    torch.autograd.gradgradcheck(run, (layer.weight, x))


def test_one_index_sets_the_global_random_state_is_left_alone():
    before = torch.random.get_rng_state()
    layer = TiedLinear(A.cyclic(4), 1, 1)
    layer.train()
    check_equivariance(nn.Sequential(layer, nn.Dropout(0.5)), A.cyclic(4), channels=1)
    assert torch.equal(before, torch.random.get_rng_state())
    assert layer.training


def test_initial_outputs_have_the_variance_of_a_plain_layer():
    tied = TiedLinear(A.symmetric(64), 8, 64, bias=False, seed=1)
    plain = nn.Linear(8 * 64, 64, bias=False)
    x = torch.randn(4000, 8, 64, generator=torch.Generator().manual_seed(6))
    # the common weights of a set layer make single draws scatter: compare second moments of the weights
    assert tied.weight.var().item() == pytest.approx(plain.weight.var().item(), rel=0.2)
    assert tied(x).shape == (4000, 64, 64)


def test_balanced_weights_have_the_same_matrix_and_even_gradients():
    action = A.symmetric(50)
    plain, balanced = (
        TiedLinear(action, 1, 1, bias=False),
        TiedLinear(action, 1, 1, balanced=True, bias=False),
    )
    torch.testing.assert_close(plain.matrix(), balanced.matrix())
    g = torch.Generator().manual_seed(7)
    x, u = torch.randn(2000, 1, 50, generator=g), torch.randn(2000, 1, 50, generator=g)
    sizes = []
    for layer in (plain, balanced):
        draws = [
            torch.autograd.grad((layer(a[None]) * b).sum(), layer.weight)[0]
            for a, b in zip(x, u, strict=True)
        ]
        sizes.append(torch.stack(draws).square().mean(0).flatten())
    assert sizes[0][1] / sizes[0][0] == pytest.approx(49, rel=0.2)
    assert sizes[1][1] / sizes[1][0] == pytest.approx(1, rel=0.2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: TiedLinear(A.cyclic(3), 0, 1), "in_channels is 0"),
        (lambda: TiedLinear(A.cyclic(3), 1, True), "out_channels is True"),
        (lambda: TiedLinear(A.cyclic(3), 1, 1, kernel="fast"), "kernel is 'fast'; choose"),
        (lambda: TiedLinear([[0]], 1, 1), "tying is a list; pass an Action or a Tying"),
        (lambda: TiedLinear(A.cyclic(3), 1, 1)(torch.zeros(2, 3)), r"x has shape \(2, 3\)"),
        (lambda: TiedLinear(A.cyclic(3), 1, 1)(torch.zeros(2, 1, 4)), r"takes \(batch, 1, 3\)"),
        (lambda: tie(nn.Linear(4, 3), A.cyclic(3)), "must be multiples of the 3 inputs and 3 outputs"),
        (lambda: tie(nn.ReLU(), A.cyclic(3)), "linear is a ReLU"),
        (lambda: defect(np.zeros((3, 4)), A.cyclic(3)), r"weight has shape \(3, 4\)"),
        (lambda: defect(np.array([[1.0, np.nan], [0, 0]]), A.cyclic(2)), r"weight\[0, 1\] is not finite"),
        (lambda: defect(np.array([[1, 2], [0, 0]]), A.cyclic(2)), "real floating point"),
        (lambda: check_equivariance(nn.Identity(), A.cyclic(3), inputs=torch.zeros(2, 4)), "inputs end in 4"),
        (lambda: check_equivariance(nn.Linear(3, 4), A.cyclic(3)), "outputs end in 4"),
    ],
)
def test_bad_use_of_a_layer_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
