"""Where tying goes wrong in practice, each trap with a test here or in the file named.

| trap | test |
|---|---|
| sources for destinations, one side inverted | `test_a_nonabelian_regular_action_gives_the_group_matrix` (test_action_counts), `test_a_side_in_the_other_convention_is_another_layer` |
| Bell numbers for few points | `test_bell_numbers_are_truncated_for_few_points` (test_action_counts) |
| generators are not enough for a sparse design; double cosets coincide | `test_generating_the_group_is_not_enough_for_a_sparse_design`, `test_coinciding_double_cosets_are_one_weight` (test_uniqueness) |
| 2-transitive actions collapse; invariant heads are never unique | `test_alternating_groups_collapse_to_set_layers_with_a_warning_and_a_proved_repair`, `test_an_invariant_head_has_all_permutations_of_each_orbit` (test_uniqueness) |
| orders beyond 64 bits | `test_orders_are_exact_integers_of_any_size` (test_action_counts) |
| cycles that do not match, relations that break | `test_mismatched_cycles_are_a_legal_group_and_reported`, `test_a_named_group_with_kept_relations_is_accepted` (test_action_errors) |
| negative images, booleans, floats, empty sets, huge tables | `test_bad_generators_are_refused_with_side_and_number` (test_action_errors) |
| start and gradient scale with the orbit | `test_initial_outputs_have_the_variance_of_a_plain_layer`, `test_balanced_weights_have_the_same_matrix_and_even_gradients` (test_tied_layer), `test_the_gradient_of_a_weight_grows_with_its_orbit` |
| weight decay and Adam depend on the basis | `test_training_does_not_depend_on_the_kernel` |
| clusters of real weights | `test_zeros_are_no_edges_and_scale_does_not_matter`, `test_the_path_shows_finer_and_coarser_cuts_and_is_saved` (test_learned_symmetry) |
| even activations, padding, normalization by index | below |
| half pixels and odd sides | `test_quarter_turns_fix_one_pixel_of_an_odd_image_and_none_of_an_even_one` |
| inputs and outputs exchanged by the search; label 0 | `test_the_search_never_exchanges_inputs_and_outputs` |
| listing a huge group | `test_a_huge_group_is_never_listed_by_surprise` |
| odd lengths and half precision in transforms | `CASES` and `test_kernels_take_low_precision` (test_layer_kernels) |
| second derivatives of sparse products | `test_kernels_agree_with_the_dense_one_in_value_and_derivative` (test_layer_kernels) |
"""  # noqa: E501 - a table has long rows

import numpy as np
import pytest
import torch
from torch import nn

import fathometer as fm
from fathometer.errors import BudgetError, InputError
from fathometer.symmetry import Action, TiedLinear, Tying, check_equivariance

A = Action
KERNELS = ("dense", "rows", "halves", "fourier", "blocks", "im2col")


def test_a_side_in_the_other_convention_is_another_layer():
    """With arrivals for destinations on one side, circular convolution becomes its mirror image."""
    shift = np.roll(np.arange(5), 1)
    both = A([shift], [shift]).tying().labels
    mixed = A([shift], [np.argsort(shift)]).tying().labels
    inverted = A([np.argsort(shift)], [np.argsort(shift)]).tying().labels
    assert (both == inverted).all()  # on both sides the inverses generate the same group
    index = np.arange(5)
    assert (both == both[0][(index[None] - index[:, None]) % 5]).all()
    assert (mixed == mixed[0][(index[None] + index[:, None]) % 5]).all()


@pytest.mark.parametrize("kernel", KERNELS)
def test_training_does_not_depend_on_the_kernel(kernel):
    """Orbit weights are what is stored, so decay and Adam see the same numbers with every kernel."""
    found = []
    for name in ("dense", kernel):
        layer = TiedLinear(A.cyclic(8), 2, 2, kernel=name, dtype=torch.float64)
        optimizer = torch.optim.Adam(layer.parameters(), lr=0.01, weight_decay=0.1)
        x = torch.randn(5, 2, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
        for _ in range(3):
            optimizer.zero_grad()
            layer(x).square().sum().backward()
            optimizer.step()
        found.append(layer.weight.detach())
    torch.testing.assert_close(*found)


def test_the_gradient_of_a_weight_grows_with_its_orbit():
    """A set layer of n points: 1 and n - 1 entries in a row; equal gradients in every entry."""
    n = 50
    layer = TiedLinear(A.symmetric(n), 1, 1, bias=False, dtype=torch.float64)
    layer(torch.ones(1, 1, n, dtype=torch.float64)).sum().backward()
    torch.testing.assert_close(layer.weight.grad.flatten(), torch.tensor([n, n * (n - 1)]).double())
    assert layer.tying.orbit_sizes.tolist() == [n, n * (n - 1)]


def test_an_even_activation_tells_linear_forms_apart_only_up_to_sign():
    """|x_0 - x_1| does not change when the inputs are exchanged, though no label allows it."""
    tying = Tying([[0, 1]], [0])
    assert tying.automorphisms().order == 1
    W, swap = torch.tensor([[1.0, -1.0]]), [1, 0]
    x = torch.randn(9, 2)
    assert torch.equal((x[:, swap] @ W.T).abs(), (x @ W.T).abs())
    assert not torch.equal((x[:, swap] @ W.T).relu(), (x @ W.T).relu())


def test_zero_padding_is_not_a_circle():
    def convolution(mode):
        return nn.Conv1d(2, 2, 3, padding=1, padding_mode=mode, dtype=torch.float64)

    assert check_equivariance(convolution("circular"), A.cyclic(9), channels=2).ok
    padded = check_equivariance(convolution("zeros"), A.cyclic(9), channels=2)
    assert not padded.ok
    assert padded.generator == 0


def test_normalization_must_share_its_statistics_along_orbits():
    shape = (4, 6)
    by_channel = nn.BatchNorm1d(4, dtype=torch.float64)
    by_index = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(24, dtype=torch.float64), nn.Unflatten(1, shape))
    x = torch.randn(64, *shape, dtype=torch.float64) * torch.arange(1.0, 7.0, dtype=torch.float64)
    for module in (by_channel, by_index):
        for _ in range(30):
            module(x)
    assert check_equivariance(by_channel, A.symmetric(6), channels=4).ok
    assert not check_equivariance(by_index, A.symmetric(6), channels=4).ok


@pytest.mark.parametrize(("side", "fixed"), [(5, 1), (6, 0)])
def test_quarter_turns_fix_one_pixel_of_an_odd_image_and_none_of_an_even_one(side, fixed):
    action = A.grid(side, side, translations=False, rotations=True)
    turn = action.inputs[0]
    assert int((turn == np.arange(side**2)).sum()) == fixed
    assert action.is_semiregular.inputs is (fixed == 0)
    # an eighth of a turn moves pixels between pixels: no list of whole numbers describes it
    with pytest.raises(InputError, match="images are whole numbers"):
        A([np.arange(side**2) + 0.5])


def test_the_search_never_exchanges_inputs_and_outputs():
    """A symmetric matrix would allow it; and label 0 is a color like any other."""
    assert Tying([[0, 1], [1, 0]], [0, 0]).automorphisms().order == 2
    assert Tying([[0, 0], [0, 1]], [0, 0]).automorphisms().order == 1
    assert Tying([[0, -1], [-1, 0]], [0, 0]).automorphisms().order == 2


def test_a_huge_group_is_never_listed_by_surprise():
    action = A.symmetric(12)
    assert action.tying().num_orbits == 2
    with pytest.raises(InputError, match="479001600 elements; at most 100000 can be listed"):
        action.elements()


def test_a_search_beyond_the_memory_budget_is_refused_before_it_starts():
    tying = Tying(np.arange(10_000).reshape(100, 100))
    with fm.work.budget(1000), pytest.raises(BudgetError, match=r"needs 0\.0 GB, 0\.0 GB are allowed"):
        tying.automorphisms()
    assert tying.automorphisms().order == 1


@pytest.mark.untyped
@pytest.mark.parametrize("kernel", KERNELS)
def test_compiled_layers_compute_the_same_in_one_graph(kernel):
    layer = TiedLinear(A.cyclic(6), 2, 3, kernel=kernel, dtype=torch.float64)
    x = torch.randn(4, 2, 6, dtype=torch.float64, requires_grad=True)
    found = []
    torch.compiler.reset()
    for call in (layer, torch.compile(layer, backend="aot_eager", fullgraph=True)):
        y = call(x)
        found.append([y, *torch.autograd.grad(y.square().sum(), [x, layer.weight])])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("inside", [torch.float16, torch.bfloat16])
def test_layers_train_in_half_precision(kernel, inside):
    exact = TiedLinear(A.cyclic(12), 2, 3, kernel="dense", dtype=torch.float64)
    layer = TiedLinear(A.cyclic(12), 2, 3, kernel=kernel, dtype=inside)
    x = torch.randn(4, 2, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    layer(x.to(inside)).square().mean().backward()
    exact(x).square().mean().backward()
    assert layer.weight.grad.dtype == inside
    scale = float(exact.weight.grad.abs().max())
    gap = (layer.weight.grad.double() - exact.weight.grad).abs().max()
    assert float(gap) < 64 * torch.finfo(inside).eps * scale
    with torch.autocast("cpu", dtype=torch.bfloat16):
        single = TiedLinear(A.cyclic(12), 2, 3, kernel=kernel)
        single(x.float()).square().mean().backward()
    assert torch.isfinite(single.weight.grad).all()


def test_inference_notices_every_change_of_the_weights():
    layer = TiedLinear(A.symmetric(40), 2, 2, kernel="dense", bias=False)
    x = torch.randn(3, 2, 40)
    with torch.no_grad():
        before = layer(x)
        assert torch.equal(layer(x), before)
        layer.weight.data.mul_(2)  # the one way that counts as no change for automatic differentiation
        torch.testing.assert_close(layer(x), 2 * before)
