"""The flat vector: order, round trips, positions, refusals."""

import pytest
import torch
from torch import nn

import fathometer as fm


def net():
    return nn.Sequential(nn.Linear(3, 2), nn.Conv2d(1, 2, 3), nn.LayerNorm(4))


def test_the_order_is_that_of_named_parameters_row_major():
    model = net()
    space = fm.ParamSpace(model)
    expected = torch.cat([p.detach().reshape(-1) for _, p in model.named_parameters()])
    assert torch.equal(space.read(model), expected)
    assert space.names == tuple(name for name, _ in model.named_parameters())
    assert space.size == sum(p.numel() for p in model.parameters())


def test_writing_and_splitting_undo_reading():
    model, other = net(), net()
    space = fm.ParamSpace(model)
    theta = torch.arange(space.size, dtype=torch.float32)
    space.write(theta, other)
    assert torch.equal(space.read(other), theta)
    assert torch.equal(space.flatten(space.split(theta)), theta)
    for name, part in space.split(theta).items():
        assert torch.equal(part.reshape(-1), theta[space.slices[name]])


def test_mixed_types_widen_the_vector_and_narrow_again():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double())
    space = fm.ParamSpace(model)
    assert space.dtype == torch.float64
    assert [p.dtype for p in space.split(space.read(model)).values()] == [p.dtype for p in model.parameters()]


def test_positions_and_owners_name_the_same_entries():
    model = net()
    space = fm.ParamSpace(model)
    theta = space.read(model)
    at = space.positions("1.*")
    assert torch.equal(theta[at], torch.cat([model[1].weight.flatten(), model[1].bias]).detach())
    assert space.owner(int(at[10])) == "1.weight[1, 0, 0, 1]"
    assert torch.equal(theta[at[10]], model[1].weight[1, 0, 0, 1].detach())


def test_what_is_not_of_the_space_is_refused():
    with pytest.raises(fm.InputError, match=r"model is a dict; a torch\.nn\.Module is needed"):
        fm.ParamSpace(dict(net().state_dict()))
    space = fm.ParamSpace(net())
    with pytest.raises(fm.InputError, match=r"shape \(3,\); the space has shape"):
        space.split(torch.zeros(3))
    with pytest.raises(fm.InputError, match="'9' matches none of"):
        space.positions("9")
    with pytest.raises(fm.InputError, match=r"no tensor for 0\.weight"):
        space.flatten({})
    with pytest.raises(fm.InputError, match=r"tensor for 0\.weight has 1 entries; 6 are needed"):
        space.flatten([torch.zeros(1)] * 6)
    with pytest.raises(fm.InputError, match="position is 900; the space has"):
        space.owner(900)


def test_initial_weights_come_from_the_seed_alone():
    state = torch.get_rng_state()
    a, b, c = fm.model.mlp(seed=1), fm.model.mlp(seed=1), fm.model.mlp(seed=2)
    assert torch.equal(a.fc1.weight, b.fc1.weight)
    assert not torch.equal(a.fc1.weight, c.fc1.weight)
    assert torch.equal(state, torch.get_rng_state())


def test_architectures_refuse_numbers_that_make_no_network():
    with pytest.raises(fm.InputError, match=r"widths is \(3,\)"):
        fm.model.mlp((3,))
    with pytest.raises(fm.InputError, match="activation is 'sin'"):
        fm.model.mlp(activation="sin")
    with pytest.raises(fm.InputError, match="width is 0"):
        fm.model.residual_cnn(0)
    with pytest.raises(fm.InputError, match="width is 6 and heads 4"):
        fm.model.transformer(6, 4)
