"""The structured diagonal against the dense Hessian, and its refusals."""

import mpmath
import pytest
import torch
from torch import nn

from fathometer import CapabilityError
from fathometer.model import LossSurface
from fathometer.model.exact_diagonal import exact_trace, gauss_newton_diagonal, hessian_diagonal
from fathometer.model.losses import CrossEntropy
from fathometer.model.roots import output_roots
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


@pytest.mark.parametrize("weight", [None, torch.tensor([0.3, 2.0])])
def test_ignored_and_weighted_targets_count_as_the_loss_counts_them(weight):
    torch.manual_seed(0)
    y = torch.randint(0, 2, (9,))
    y[3] = -100
    surface = LossSurface(mlp().double(), nn.CrossEntropyLoss(weight=weight), (X, y))
    dense = surface.hessian().to_dense()
    torch.testing.assert_close(hessian_diagonal(surface), dense.diag())
    assert exact_trace(surface)["all"].value == pytest.approx(float(dense.trace()), rel=1e-12)


@pytest.mark.parametrize("rows", [1, 4, 1024])
def test_exact_traces_do_not_depend_on_the_cut(rows, monkeypatch):
    monkeypatch.setattr("fathometer.model.exact_diagonal.EXAMPLES", rows)
    surface = surface_of("mlp", "cross_entropy")
    expected = float(surface.hessian().to_dense().trace())
    assert exact_trace(surface)["all"].value == pytest.approx(expected, rel=1e-12)


def test_a_trace_in_single_precision_is_as_good_as_that():
    surface = surface_of("mlp", "cross_entropy")
    single = LossSurface(surface.write().float(), "cross_entropy", (X, torch.randint(0, 2, (9,))))
    found, exact = exact_trace(single), exact_trace(single.double())
    for name in ("all", *single.names):
        assert found[name].value == pytest.approx(exact[name].value, rel=1e-5)


def test_a_block_called_twice_in_a_sequence_is_no_chain():
    block = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    refusal(nn.Sequential(block, block, nn.Linear(3, 2)), "acts at 2 places|cannot be exported")


@pytest.mark.parametrize("scale", [1.0, 20.0, 400.0])
def test_roots_of_the_softmax_rebuild_its_curvature(scale):
    outputs = scale * torch.randn(40, 5, dtype=torch.float64)
    roots = output_roots(CrossEntropy(), outputs, torch.zeros(40, dtype=torch.long))
    assert roots.shape == (4, 40, 5)
    found = torch.einsum("knc,knd->ncd", roots, roots)
    mp = mpmath.mp.clone()
    mp.dps = 400
    for row, S in zip(outputs[:10].tolist(), found[:10], strict=True):
        e = [mp.exp(mp.mpf(v) - max(row)) for v in row]
        p = [v / mp.fsum(e) for v in e]
        for i in range(5):
            exact = mp.fsum(p[i] * p[j] for j in range(5) if j != i)  # p (1 - p) without cancellation
            assert float(S[i, i]) == pytest.approx(float(exact), rel=1e-12, abs=1e-300)
            for j in range(i):
                size = float(mp.sqrt(p[i] * p[j]))
                assert abs(float(S[i, j]) + float(p[i] * p[j])) <= 1e-14 * size + 1e-300
