"""The paper's T_alpha: what is multiplied, what carries on, what is refused."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

from fathometer import InputError
from fathometer.sharpness import layer_scale
from networks import CASES, Residual

X = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))


def three_layers(activation=nn.ReLU):
    torch.manual_seed(0)
    layers = OrderedDict(
        fc1=nn.Linear(4, 8), a=activation(), fc2=nn.Linear(8, 6), b=activation(), fc3=nn.Linear(6, 2)
    )
    return nn.Sequential(layers).double()


def test_weights_take_their_factor_and_biases_carry_the_scale_on():
    model = three_layers()
    moved = layer_scale(model, {"fc1": 3.0, "fc2": 5.0, "fc3": 1 / 15}, X.double())
    torch.testing.assert_close(moved.fc1.weight, 3 * model.fc1.weight)
    torch.testing.assert_close(moved.fc1.bias, 3 * model.fc1.bias)
    torch.testing.assert_close(moved.fc2.weight, 5 * model.fc2.weight)
    torch.testing.assert_close(moved.fc2.bias, 15 * model.fc2.bias)  # appendix B: the product so far
    torch.testing.assert_close(moved.fc3.weight, model.fc3.weight / 15)
    torch.testing.assert_close(moved.fc3.bias, model.fc3.bias)


def test_a_layer_that_is_not_named_keeps_its_weights_and_scales_its_bias():
    model = three_layers()
    moved = layer_scale(model, {"fc1": 0.1, "fc3": 10.0}, X.double())
    assert torch.equal(moved.fc2.weight, model.fc2.weight)
    torch.testing.assert_close(moved.fc2.bias, 0.1 * model.fc2.bias)
    torch.testing.assert_close(moved(X.double()), model(X.double()), rtol=1e-12, atol=1e-14)


def test_powers_of_two_keep_every_bit():
    model = three_layers().float()
    moved = layer_scale(model, {"fc1": 2.0**20, "fc2": 2.0**-20}, X)
    assert torch.equal(moved(X), model(X))


def test_gradient_and_hessian_transform_as_theorem_three_says():
    from fathometer.model import LossSurface

    model, targets = three_layers(), torch.randn(7, 2, dtype=torch.float64)
    surface = LossSurface(model, "mse", (X.double(), targets))
    moved = surface.around(layer_scale(model, {"fc1": 4.0, "fc2": 0.25}, X.double()))
    D = surface.theta / moved.theta  # d old / d new, weight by weight
    torch.testing.assert_close(moved.gradient(), D * surface.gradient())
    torch.testing.assert_close(
        moved.hessian().to_dense(), D[:, None] * surface.hessian().to_dense() * D, rtol=1e-9, atol=1e-10
    )


def test_a_residual_stream_scales_as_a_whole():
    torch.manual_seed(0)
    model, x = Residual().double(), CASES["residual"][1].double()
    moved = layer_scale(model, {"inp": 3.0, "a": 1 / 3.0, "b": 3.0, "out": 1 / 3.0}, x)
    torch.testing.assert_close(moved(x), model(x), rtol=1e-12, atol=1e-13)
    with pytest.raises(InputError, match=r"a \* b must be 1, and it is 2"):
        layer_scale(model, {"inp": 3.0, "b": 2.0, "a": 1.0, "out": 1 / 3.0}, x)


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ({"fc1": 3.0, "fc2": 2.0}, r"fc1 \* fc2 must be 1, and it is 6"),
        ({"fc1": 3.0}, "fc1 cannot be scaled by 3 alone"),
        ({"fc1": -1.0, "fc2": -1.0}, r"factor of fc1 is -1.0; it must be positive and finite: a rectifier"),
        ({"fc1": float("inf")}, "factor of fc1 is inf"),
        ({"fc1": 0}, "factor of fc1 is 0"),
        ({"fc9": 2.0}, "'fc9', which is no layer with weights in this network; it has fc1, fc2, fc3"),
        ({}, "factors must name at least one layer"),
        ({"fc1": 1e200, "fc2": 1e-200, "fc3": 1.0}, None),
        ({"fc1": 1e310, "fc2": 1.0}, "factor of fc1 is inf"),
    ],
)
def test_factors_that_change_the_function_are_refused(factors, message):
    model = three_layers()
    if message is None:
        layer_scale(model, factors, X.double())
        return
    with pytest.raises(InputError, match=message):
        layer_scale(model, factors, X.double())


def test_a_saturating_activation_admits_no_factor():
    with pytest.raises(InputError, match="fc1 cannot be scaled by 2 alone"):
        layer_scale(three_layers(nn.Tanh), {"fc1": 2.0, "fc2": 0.5}, X.double())


def test_a_factor_beyond_the_type_names_the_admissible_interval():
    with pytest.raises(InputError, match=r"fc1.weight would leave the range .* may lie between"):
        layer_scale(three_layers().float(), {"fc1": 1e39, "fc2": 1e-39}, X)
