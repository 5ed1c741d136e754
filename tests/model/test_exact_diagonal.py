"""The structured diagonal against the dense Hessian, and its refusals."""

import pytest
import torch
from torch import nn

from fathometer import CapabilityError
from fathometer.model import LossSurface
from fathometer.model.exact_diagonal import gauss_newton_diagonal, hessian_diagonal
from networks import Attention, Concat, ConvolutionalResidual, Residual, Shared, images, mlp

X, X4 = torch.randn(9, 3, dtype=torch.float64), torch.randn(5, 1, 4, 4, dtype=torch.float64)


def grouped():
    return images(
        nn.Conv2d(1, 4, 3, padding=1, stride=2), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 2, groups=2)
    )


def normalized():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))


NETWORKS = {
    "a single layer": (lambda: nn.Linear(3, 2), X),
    "mlp": (mlp, X),
    "residual": (Residual, X),
    "concat": (Concat, X),
    "batch norm": (normalized, X),
    "convolutional residual": (ConvolutionalResidual, X4),
    "grouped convolution": (grouped, X4),
}


def surface_of(name, loss):
    factory, x = NETWORKS[name]
    torch.manual_seed(0)
    model = factory().eval()
    model(x.float())  # sets lazy shapes
    for buffer_name, buffer in model.named_buffers():
        if buffer_name.endswith("running_mean"):
            buffer.normal_()
    y = torch.randint(0, 2, (len(x),)) if loss == "cross_entropy" else torch.randn(len(x), 2).double()
    return LossSurface(model.double(), loss, (x, y), chunk=4)


@pytest.mark.parametrize("loss", ["cross_entropy", "mse", "half_mse"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_structured_diagonal_is_that_of_the_dense_hessian(name, loss):
    surface = surface_of(name, loss)
    theta = surface.theta
    dense = surface.hessian().to_dense().diag()
    torch.testing.assert_close(hessian_diagonal(surface), dense, rtol=1e-9, atol=1e-12)
    assert torch.equal(surface.theta, theta)


def test_smoothed_labels_change_no_curvature_of_the_outputs():
    torch.manual_seed(0)
    loss = nn.CrossEntropyLoss(label_smoothing=0.1)
    surface = LossSurface(mlp().double(), loss, (X, torch.randint(0, 2, (9,))))
    torch.testing.assert_close(hessian_diagonal(surface), surface.hessian().to_dense().diag())


def test_tokens_share_a_layer_but_not_a_square():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Flatten(), nn.Linear(8, 2)).double()
    surface = LossSurface(model, "mse", (torch.randn(6, 2, 3).double(), torch.randn(6, 2).double()))
    dense = surface.gauss_newton().to_dense().diag()
    torch.testing.assert_close(gauss_newton_diagonal(surface), dense)


def test_some_parameters_have_the_diagonal_of_their_block():
    torch.manual_seed(0)
    surface = LossSurface(mlp().double(), "mse", (X, torch.zeros(9, 2).double()), parameters="2.*")
    torch.testing.assert_close(hessian_diagonal(surface), surface.hessian().to_dense().diag())


def refusal(model, message, loss="mse", y=None, call=hessian_diagonal, x=X):
    y = torch.zeros(len(x), 2).double() if y is None else y
    with pytest.raises(CapabilityError, match=message):
        call(LossSurface(model.double(), loss, (x, y)))


def test_what_is_not_affine_in_each_weight_is_refused_with_the_reason():
    refusal(mlp(nn.Tanh), "the network uses tanh, which is not piecewise linear")
    refusal(Shared(), "mid.weight acts at 2 places; a path may meet it twice")
    refusal(mlp(), "has no closed form of its curvature here", loss=lambda out, y: out.square().mean(1))
    refusal(Shared(), "mid was called 2 times in a pass", call=gauss_newton_diagonal)


def test_tied_layers_are_refused():
    tied = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3), nn.Linear(3, 2))
    tied[2].weight = tied[0].weight
    refusal(tied, r"0\.weight acts at 2 places; a path may meet it twice")


def test_layers_and_outputs_without_a_structured_pass_are_refused():
    x = torch.randn(3, 5, 4).double()
    refusal(
        nn.Sequential(nn.LayerNorm(3), nn.Linear(3, 2)),
        "0.weight belongs to a LayerNorm; only linear, 2-D convolutional",
        call=gauss_newton_diagonal,
    )
    refusal(
        Attention(),
        r"the outputs are \(3, 5, 4\); a structured pass needs",
        y=x,
        x=x,
        call=gauss_newton_diagonal,
    )


def test_a_layer_that_applies_its_weight_in_a_way_of_its_own_is_refused():
    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    refusal(Doubled(3, 2), "weight belongs to a Doubled; only linear", call=gauss_newton_diagonal)


def test_ignored_targets_are_refused():
    y = torch.zeros(9, dtype=torch.long)
    y[3] = -100
    refusal(mlp(), "some targets are ignored", loss="cross_entropy", y=y)
