"""Refusals of the model floor that need an unusual model or loss to be met."""

import pytest
import torch
from torch import nn

import fathometer as fm
from fathometer.model.slopes import output_slopes

X = torch.linspace(-1, 1, 12).view(4, 3)
Y = torch.tensor([0, 1, 1, 0])


class Breaks(torch.autograd.Function):
    """Squares; its backward pass fails for a reason of its own."""

    @staticmethod
    def forward(ctx, x):
        return x * x

    @staticmethod
    def backward(ctx, grad):
        raise RuntimeError("the accelerator went away")


class Lopsided(torch.autograd.Function):
    """x A x / 2 for a matrix A that is not symmetric, with the gradient A x, which no function has."""

    A = torch.tensor([[1.0, 4.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return 0.5 * x @ Lopsided.A.to(x) @ x

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * (Lopsided.A.to(x) @ x)


class Applies(nn.Module):
    """Three parameters and a function of them."""

    def __init__(self, function):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
        self.function = function

    def forward(self, x):
        return x * 0 + self.function.apply(self.w)


class Tuple(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        return self.layer(x), x


def first(outputs, targets):
    return nn.functional.cross_entropy(outputs[0], targets, reduction="none")


def test_a_failure_of_the_backward_pass_itself_comes_through_unchanged():
    with pytest.raises(RuntimeError, match="the accelerator went away"):
        fm.LossSurface(Applies(Breaks), lambda outputs, targets: outputs.mean(1), (X, Y)).gradient()


def test_a_gradient_that_no_function_has_is_found_by_symmetry():
    surface = fm.LossSurface(Applies(Lopsided), lambda outputs, targets: outputs.mean(1), (X, Y))
    with pytest.raises(
        fm.CapabilityError, match=r"not symmetric: u'Hv and v'Hu differ by .* wrong second derivative"
    ):
        surface.hessian()
    H = surface.hessian(check=False).to_dense()
    torch.testing.assert_close(H, Lopsided.A.T, msg=lambda m: m)


def test_slopes_need_one_tensor_of_outputs():
    opaque = fm.LossSurface(nn.Linear(3, 2), lambda model, batch: model(batch[0]).square().mean(1), (X, Y))
    with pytest.raises(fm.InputError, match=r"takes \(model, batch\); it has no outputs to take slopes at"):
        output_slopes(opaque)
    with pytest.raises(fm.InputError, match="the model returned a tuple; slopes need one tensor"):
        output_slopes(fm.LossSurface(Tuple(), first, (X, Y)))


def test_cross_entropy_needs_a_dimension_of_classes():
    flat = nn.Sequential(nn.Linear(3, 1), nn.Flatten(0))
    with pytest.raises(
        fm.InputError, match=r"outputs have shape \(4,\); cross-entropy needs \(n, classes, ...\)"
    ):
        fm.LossSurface(flat, "cross_entropy", (X, Y)).energy()


@pytest.mark.parametrize(
    ("model", "inputs", "message"),
    [
        (nn.Linear(3, 2), torch.ones(5, 4), r"cannot be multiplied.*\(5, 4\) float32"),
        (nn.Embedding(3, 2), torch.tensor([1, 5, 0, 0, 0]), r"index out of range.*\(5,\) int64"),
    ],
)
def test_data_that_does_not_fit_the_model_is_named_with_its_shapes(model, inputs, message):
    with pytest.raises(fm.InputError, match=f"data does not fit the model and its loss: .*{message}"):
        fm.LossSurface(model, "mse", (inputs, torch.ones(5, 2)))


def test_running_out_of_memory_is_not_called_a_misfit():
    class Large(nn.Linear):
        def forward(self, x):
            raise torch.OutOfMemoryError("no room on the device")

    with pytest.raises(torch.OutOfMemoryError, match="no room on the device"):
        fm.LossSurface(Large(3, 2), "mse", (torch.ones(5, 3), torch.ones(5, 2)))
