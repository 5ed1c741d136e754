"""The symmetry engine against a numerical oracle that knows nothing of operators."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrizations

from fathometer import CapabilityError, InputError
from fathometer.sharpness import rescalings
from networks import (
    CASES,
    TOKENS,
    Attention,
    Bert,
    Gpt2,
    Llama,
    Shared,
    VisionTransformer,
    densenet121,
    mlp,
    mobilenet_v2,
    resnet18,
)


def build(name):
    factory, x = CASES[name]
    torch.manual_seed(0)
    model = factory().eval()
    with torch.no_grad():
        model(x)  # sets lazy shapes
        for buffer_name, buffer in model.named_buffers():
            if buffer_name.endswith("running_mean"):
                buffer.normal_()
    return model.double(), x.double() if x.is_floating_point() else x


def jacobian(model, fixed, theta, name, inputs):
    """d outputs / d theta[name]; running means, which torch does not differentiate, by differences."""

    def outputs(value):
        with sdpa_kernel(SDPBackend.MATH):
            return functional_call(model, {**fixed, **theta, name: value}, (inputs,)).flatten()

    if not name.endswith("running_mean"):
        return jacrev(outputs)(theta[name])
    steps = 1e-6 * torch.eye(theta[name].numel(), dtype=torch.float64)
    columns = [(outputs(theta[name] + h) - outputs(theta[name] - h)) / 2e-6 for h in steps]
    return torch.stack(columns, dim=1)


def oracle(model, x):
    """Directions v with ``J(theta) (theta * v) = 0`` at several random theta: SVD of the stacked Jacobians.

    Inputs are drawn large, so that clips (ReLU6) are seen.
    """
    movable = dict(model.named_parameters())
    movable |= {k: b for k, b in model.named_buffers() if k.endswith("running_mean")}
    fixed = {k: b for k, b in model.named_buffers() if k not in movable}
    generator = torch.Generator().manual_seed(1)
    size = sum(t.numel() for t in movable.values())
    blocks = []
    while sum(map(len, blocks)) < 4 * size:
        theta = {
            k: torch.randn(t.shape, generator=generator, dtype=torch.float64) for k, t in movable.items()
        }
        inputs = (
            5 * torch.randn(x.shape, generator=generator, dtype=torch.float64) if x.is_floating_point() else x
        )
        blocks.append(
            torch.cat([(jacobian(model, fixed, theta, k, inputs) * theta[k]).flatten(1) for k in theta], 1)
        )
    singular = torch.linalg.svdvals(torch.cat(blocks))
    return size - int((singular > 1e-7 * singular[0]).sum())


@pytest.mark.parametrize("name", CASES)
def test_dimension_agrees_with_the_numerical_oracle(name):
    model, x = build(name)
    found = rescalings(model, x)
    assert not found.untreated
    assert found.dimension == oracle(model, x)


# Channels counted by hand from the tables of the papers: see the docstrings of the networks.
ARCHITECTURES = {
    "ResNet-18": (resnet18, 64, 7680),
    "MobileNetV2": (mobilenet_v2, 32, 17768),
    "DenseNet-121": (densenet121, 64, 52064),
    "ViT-tiny": (VisionTransformer, 32, 9408),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_known_architectures_have_the_dimension_their_channels_say(name):
    factory, side, dimension = ARCHITECTURES[name]
    found = rescalings(factory().eval(), torch.randn(1, 3, side, side))
    assert (found.dimension, found.untreated) == (dimension, {})


def test_a_residual_network_in_training_mode_keeps_only_what_batch_statistics_allow():
    assert rescalings(resnet18().train(), torch.randn(2, 3, 64, 64)).dimension == 2880


def test_a_whole_residual_network_moves_by_most_of_its_norm_and_keeps_its_function():
    torch.manual_seed(0)
    model, x = resnet18().eval().double(), torch.randn(1, 3, 64, 64, dtype=torch.float64)
    moved = rescalings(model, x).move(seed=0)
    with torch.no_grad():
        assert (moved(x) - model(x)).abs().max() <= 1e-12 * model(x).abs().max()
    old, new = (torch.cat([t.flatten() for t in m.parameters()]) for m in (model, moved))
    assert (new - old).norm() > 0.5 * old.norm()


@pytest.mark.parametrize("factory", [Bert, Gpt2, Llama])
def test_language_models_move_and_keep_their_function(factory):
    torch.manual_seed(0)
    model = factory().eval().double()
    found = rescalings(model, TOKENS)
    assert found.dimension > 0
    moved = found.move(seed=1)
    with torch.no_grad():
        assert (moved(TOKENS) - model(TOKENS)).abs().max() <= 1e-12 * model(TOKENS).abs().max()


@pytest.mark.parametrize("training", [True, False])
def test_a_bias_before_batch_statistics_is_free_and_before_running_ones_it_is_not(training):
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).train(training)
    found = rescalings(model, torch.randn(6, 3))
    alone = [g for g in found.generators if set(g) == {"0.bias"}]
    assert len(alone) == (4 if training else 0)
    assert found.dimension == 8


def test_a_key_bias_that_something_else_reads_is_not_free():
    class Read(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x):
            q, k = self.q(x), self.k(x)
            return nn.functional.scaled_dot_product_attention(q, k, x) + k.sum(-1, keepdim=True)

    found = rescalings(Read(), torch.randn(2, 5, 3))
    assert not any("k.bias" in generator for generator in found.generators)


def test_a_bias_that_differs_from_key_to_key_is_not_free():
    class Mixed(nn.Module):  # heads are cut from the wrong axis: the bias reaches keys unevenly
        def __init__(self):
            super().__init__()
            self.q, self.k = nn.Linear(3, 4), nn.Linear(3, 4)

        def forward(self, x):
            q, k = (f(x).view(2, 10, 2) for f in (self.q, self.k))
            return nn.functional.scaled_dot_product_attention(q, k, q.detach())

    model = Mixed().double()
    found = rescalings(model, torch.randn(2, 5, 3, dtype=torch.float64))
    assert not any(set(generator) == {"k.bias"} for generator in found.generators)


def test_a_weight_shared_in_too_many_ways_stays_and_is_named(monkeypatch):
    from fathometer.sharpness import rules

    monkeypatch.setattr(rules, "ROW_LIMIT", 3)
    found = rescalings(Shared(), torch.randn(2, 3))
    assert found.untreated == {"mid.weight": "shared in too many ways: it stays as it is"}
    assert found.kind == "bound"
    full = found.move(seed=0)
    assert torch.equal(full.mid.weight, found.model.mid.weight)


def test_a_move_that_loses_the_function_in_rounding_is_refused():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    found = rescalings(model, torch.randn(2, 3))
    torch.manual_seed(1)
    other = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    from fathometer.sharpness.rescalings import check_same_function

    with pytest.raises(CapabilityError, match=r"the outputs changed by .* use a smaller spread"):
        check_same_function(model, other, found.example_inputs)


@pytest.mark.parametrize("name", CASES)
def test_random_moves_keep_the_function_and_the_model(name):
    model, x = build(name)
    before = copy.deepcopy(model.state_dict())
    found = rescalings(model, x)
    assert len(found.generators) == found.dimension
    moved = found.move(seed=3)
    with torch.no_grad():
        scale = model(x).abs().max()
        assert (moved(x) - model(x)).abs().max() <= 1e-12 * scale
    if found.dimension:
        old, new = (torch.cat([t.flatten() for t in m.state_dict().values()]) for m in (model, moved))
        assert (new - old).norm() > 0.3 * old.norm() * math.sqrt(1 / len(old))
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize(
    "name", ["mlp", "convolutional residual", "attention", "gated", "words", "key bias", "recurrent"]
)
def test_powers_of_two_keep_every_bit_in_float32(name):
    model, x = build(name)
    model, x = model.float(), x.float() if x.is_floating_point() else x
    moved = rescalings(model, x).move(seed=0, spread=2.0, exact_bits=True)
    with torch.no_grad():
        assert torch.equal(moved(x), model(x))
    assert any(not torch.equal(a, b) for a, b in zip(moved.parameters(), model.parameters(), strict=True))


def test_generators_are_whole_numbers_and_span_the_moves():
    model, x = build("mlp")
    found = rescalings(model, x)
    z = np.random.default_rng(0).standard_normal(found.dimension)
    total = {}
    for coordinate, generator in zip(z, found.generators, strict=True):
        for key, exponents in generator.items():
            assert torch.equal(exponents, exponents.round())
            total[key] = total.get(key, 0) + coordinate * exponents
    moved = found.move(z)
    for key, weight in model.state_dict().items():
        factor = total[key].exp() if key in total else 1.0
        torch.testing.assert_close(moved.state_dict()[key], weight * factor)


def test_there_are_as_many_generators_as_dimensions():
    model, x = build("mlp")
    found = rescalings(model, x)
    n = found.dimension
    assert len(found.generators) == n
    last, same = found.generators[-1], found.generators[n - 1 :][0]
    assert last.keys() == same.keys()
    assert all(torch.equal(last[key], same[key]) for key in last)
    for j in (n, -n - 1):
        with pytest.raises(IndexError, match=f"^{j}$"):
            found.generators[j]


def test_an_unknown_operation_is_grounded_and_named():
    class Bent(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.b(torch.atan(self.a(x)))

    found = rescalings(Bent(), torch.randn(2, 3))
    assert found.dimension == 0
    assert found.kind == "bound"
    assert any("atan" in reason for reason in found.untreated.values())


def test_clips_are_not_taken_for_rectifiers():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU6(), nn.Linear(4, 2))
    small = 1e-3 * torch.randn(5, 3)  # on these inputs the clip never acts
    assert rescalings(model, small).dimension == 0


def test_batch_statistics_pin_what_they_normalize():
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).train()
    before = copy.deepcopy(model.state_dict())
    assert rescalings(model, torch.randn(6, 3)).dimension == 4
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_move_needs_one_of_z_and_seed():
    found = rescalings(mlp(), torch.randn(2, 3))
    with pytest.raises(InputError, match="either z, one number for each generator, or seed"):
        found.move()
    with pytest.raises(InputError, match="either z"):
        found.move(np.zeros(9), seed=1)


def test_move_refuses_coordinates_of_another_group():
    found = rescalings(mlp(), torch.randn(2, 3))
    with pytest.raises(InputError, match=r"z has shape \(4,\); the group has dimension 9"):
        found.move(np.zeros(4))
    with pytest.raises(InputError, match=r"z\[2\] is not finite"):
        found.move(np.array([0, 0, np.nan, 0, 0, 0, 0, 0, 0]))


def test_move_refuses_factors_beyond_the_type():
    found = rescalings(mlp(), torch.randn(2, 3))
    with pytest.raises(InputError, match=r"would leave the range of torch.float32 .* may lie between"):
        found.move(np.full(9, 200.0))


def test_a_branch_on_data_cannot_be_exported():
    class Branch(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(3, 3)

        def forward(self, x):
            return self.a(x) if x.sum() > 0 else x

    with pytest.raises(CapabilityError, match=r"Branch cannot be exported .* torch.where"):
        rescalings(Branch(), torch.randn(2, 3))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "pass a tensor or a tuple"),
        (3, "example_inputs is a int"),
        (torch.zeros(0, 3), "an empty tensor"),
    ],
)
def test_example_inputs_must_be_arguments(inputs, message):
    with pytest.raises(InputError, match=message):
        rescalings(mlp(), inputs)


def test_a_model_is_a_module_with_real_weights():
    with pytest.raises(InputError, match=r"model is a function; a torch\.nn\.Module"):
        rescalings(lambda x: x, torch.randn(2, 3))
    model = mlp()
    model.register_parameter("phase", nn.Parameter(torch.zeros(2, dtype=torch.complex64)))
    with pytest.raises(InputError, match=r"parameter phase is torch.complex64"):
        rescalings(model, torch.randn(2, 3))


@pytest.mark.untyped
def test_the_result_survives_a_file(tmp_path):
    import fathometer as fm

    found = rescalings(Attention().eval(), torch.randn(2, 5, 4))
    again = fm.load(found.save(tmp_path / "rescalings.safetensors"))
    assert (again.value, again.kind, str(again)) == (found.value, found.kind, str(found))


def test_weights_that_are_views_of_one_memory_are_refused():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 3)
            self.b.weight = nn.Parameter(self.a.weight.detach().T)

        def forward(self, x):
            return self.b(torch.relu(self.a(x)))

    with pytest.raises(InputError, match=r"a\.weight and b\.weight are different views of one memory"):
        rescalings(Tied(), torch.randn(2, 3))


@pytest.mark.parametrize("parametrize", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_weights_that_are_computed_from_others_stay_and_are_named(parametrize):
    model = nn.Sequential(parametrize(nn.Linear(3, 4)), nn.ReLU(), nn.Linear(4, 2)).eval()
    found = rescalings(model, torch.randn(2, 3))
    assert found.dimension == 0
    assert found.untreated
