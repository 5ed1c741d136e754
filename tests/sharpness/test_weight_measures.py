"""Measures beyond the Hessian, each against a closed form or the definition written slowly."""

import itertools
import math

import pytest
import torch
from torch import nn

from fathometer import CapabilityError, InputError
from fathometer.model import LossSurface
from fathometer.sharpness import (
    audit,
    average_sharpness,
    geodesic,
    local_entropy,
    local_volume,
    measure,
    one_step_sharpness,
    pac_bayes,
    path_norm,
    relative_flatness,
    rescalings,
)
from fathometer.sharpness.curvature import gauss_newton_norm
from fathometer.sharpness.measures import MEASURES
from fathometer.sharpness.norms import (
    frobenius_product,
    gradient_norm,
    gradient_variance,
    orbit_weight_norm,
    spectral_product,
    weight_norm,
)
from networks import Attention, Concat, Residual, Shared, mlp

D = 5


def quadratic(scale=1.0):
    g = torch.Generator().manual_seed(0)
    X, w = (scale * torch.randn(*shape, generator=g, dtype=torch.float64) for shape in ((40, D), (D,)))
    model = nn.Linear(D, 1, bias=False).double()
    model.weight.data = w[None].clone()
    return LossSurface(model, "half_mse", (X, X @ w[:, None])), X.T @ X / 40, w


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    g = torch.Generator().manual_seed(0)
    x = torch.randn(40, 3, generator=g, dtype=torch.float64)
    return LossSurface(mlp().double(), "cross_entropy", (x, torch.randint(0, 2, (40,), generator=g)))


def moved(surface, seed=3):
    group = rescalings(surface.write(), surface.example_inputs())
    return surface.around(group.move(seed=seed))


# path norms


@pytest.mark.parametrize("p", [1, 2])
def test_path_norms_sum_over_all_paths(network, p):
    W1, b1, W2, b2, W3, b3 = (t.abs() ** p for t in network.space.split(network.theta).values())
    total = b3.sum()
    for o, j in itertools.product(range(2), range(4)):
        total = total + W3[o, j] * b2[j]
        for h in range(5):
            total = total + W3[o, j] * W2[j, h] * (b1[h] + sum(W1[h, i] for i in range(3)))
    found = path_norm(network, p)
    assert found.value == pytest.approx(float(total) ** (1 / p), rel=1e-12)
    assert found.kind == "exact"


@pytest.mark.parametrize("p", [1, 2])
def test_path_norms_of_a_convolutional_network_multiply_its_matrices(p):
    torch.manual_seed(0)
    parts = [
        nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(2, 3, 2), nn.LeakyReLU(0.1), nn.AvgPool2d(2, 1), nn.Flatten(), nn.Linear(3, 2),
    ]  # fmt: skip
    model = nn.Sequential(*parts).double().eval()
    model[1].running_mean.normal_()
    model[1].running_var.uniform_(0.5, 2.0)
    x = torch.randn(1, 1, 6, 6, dtype=torch.float64)
    surface = LossSurface(model, "mse", (x, torch.zeros(1, 2, dtype=torch.float64)))
    value = torch.ones(1, 1, 6, 6, dtype=torch.float64)
    for part in parts:
        if isinstance(part, nn.ReLU | nn.LeakyReLU):
            continue
        # a maximum is a sum over its window
        linear = (lambda t: nn.functional.avg_pool2d(t, 2) * 4) if isinstance(part, nn.MaxPool2d) else part
        zero = torch.zeros_like(value)
        J = torch.autograd.functional.jacobian(linear, zero).reshape(-1, zero.numel())
        shift = linear(zero).detach()
        value = ((J.abs() ** p) @ value.reshape(-1)).reshape(shift.shape) + shift.abs() ** p
    assert path_norm(surface, p).value == pytest.approx(float(value.sum()) ** (1 / p), rel=1e-10)


@pytest.mark.parametrize("factory", [Residual, Concat, Shared])
def test_path_norms_do_not_change_under_rescalings(factory):
    torch.manual_seed(0)
    x = torch.randn(5, 3, dtype=torch.float64)
    surface = LossSurface(factory().double(), "mse", (x, torch.zeros(5, 2, dtype=torch.float64)))
    for p in (1, 2):
        assert path_norm(moved(surface), p).value == pytest.approx(path_norm(surface, p).value, rel=1e-10)


def test_path_norms_name_what_they_cannot_follow():
    torch.manual_seed(0)
    x = torch.randn(2, 5, 4)
    surface = LossSurface(Attention(), "mse", (x, x))
    with pytest.raises(
        CapabilityError, match="the network uses scaled_dot_product_attention; path norms are"
    ):
        path_norm(surface)
    with pytest.raises(CapabilityError, match="the network uses matmul; path norms"):
        path_norm(LossSurface(Attention(fused=False), "mse", (x, x)))
    with pytest.raises(InputError, match="p is 3; pass 1 or 2"):
        path_norm(surface, 3)
    words = nn.Sequential(nn.Embedding(4, 2), nn.Flatten(), nn.Linear(4, 2))
    tokens = LossSurface(words, "mse", (torch.zeros(3, 2, dtype=torch.long), torch.zeros(3, 2)))
    with pytest.raises(InputError, match="the inputs are no floating tensors; paths start"):
        path_norm(tokens)


class Pooled(nn.Module):
    def __init__(self, pool):
        super().__init__()
        self.pool, self.out = pool, nn.LazyLinear(2)

    def forward(self, x):
        return self.out(self.pool(x).flatten(1))


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        (nn.MaxPool2d(2, dilation=2), "max-pooling with dilation has no path norm"),
        (nn.AdaptiveAvgPool2d(4), "adaptive pooling with uneven windows has no path norm"),
    ],
)
def test_pooling_without_a_path_norm_is_named(pool, message):
    model, x = Pooled(pool), torch.randn(2, 1, 6, 6)
    model(x)
    with pytest.raises(CapabilityError, match=message):
        path_norm(LossSurface(model, "mse", (x, torch.zeros(2, 2))))


def test_batch_statistics_have_no_path_norm():
    from fathometer.model.tracing import trace_graph
    from fathometer.sharpness.path_norm import _Paths

    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2, track_running_stats=False)).double()
    graph = trace_graph(model, torch.randn(4, 3, dtype=torch.float64))
    with pytest.raises(CapabilityError, match="without running statistics is no linear map"):
        _Paths(graph, 1).total()


# relative flatness


def blocks(surface, name):
    W = surface.space.split(surface.theta)[name]
    at = surface.space.positions(name)
    return W, surface.hessian().to_dense()[at][:, at].reshape(*W.shape, *W.shape)


@pytest.mark.parametrize("layer", ["0", "2", "4", None])
def test_relative_flatness_is_its_definition(network, layer):
    W, H = blocks(network, f"{layer or 4}.weight")
    kappa = sum(
        float((W[s] @ W[t]) * H[s, :, t, :].trace()) for s, t in itertools.product(range(len(W)), repeat=2)
    )
    found = relative_flatness(network, layer, standardize=False)
    assert found.value == pytest.approx(kappa, rel=1e-9)


def test_relative_flatness_of_the_last_layer_has_the_closed_form_of_cross_entropy(network):
    features = network.write()[:4](network.example_inputs(40)[0]).detach()
    p = network.outputs().softmax(1)
    W = network.space.split(network.theta)["4.weight"]
    sigma = features.std(0, correction=0)
    for scale, standardize in ((torch.ones_like(sigma), False), (sigma, True)):
        assert not standardize or float(scale.min()) == 0.0  # one unit is dead on these data
        G, phi = (W * scale) @ (W * scale).T, torch.where(scale > 0, features / scale, 0.0)
        kappa = (phi.square().sum(1) * ((p * G.diag()).sum(1) - ((p @ G) * p).sum(1))).mean()
        found = relative_flatness(network, "4", standardize)
        assert found.value == pytest.approx(float(kappa), rel=1e-9)


def test_standardized_relative_flatness_survives_a_neuron_scale_and_the_plain_one_does_not(network):
    there = moved(network)
    here = [relative_flatness(network, "4", s).value for s in (True, False)]
    after = [relative_flatness(there, "4", s).value for s in (True, False)]
    assert after[0] == pytest.approx(here[0], rel=1e-9)
    assert abs(after[1] / here[1] - 1) > 0.01


def test_relative_flatness_needs_a_linear_layer(network):
    with pytest.raises(InputError, match="layer is 'head'; the linear layers of this surface are 0, 2, 4"):
        relative_flatness(network, "head")

    class Raw(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(3, 2)

        def forward(self, x):
            return nn.functional.linear(x, self.inner.weight)

    surface = LossSurface(Raw(), "mse", (torch.randn(4, 3), torch.zeros(4, 2)))
    with pytest.raises(InputError, match=r"inner.weight is not used by calling its module"):
        relative_flatness(surface)


# geodesic


def test_geodesic_sharpness_of_two_weights_is_the_best_point_of_the_disk():
    X = torch.tensor([[1.0, 0.4], [0.2, -1.0], [0.5, 0.5]], dtype=torch.float64)
    model = nn.Linear(2, 1, bias=False).double()
    model.weight.data = torch.tensor([[1.0, -2.0]], dtype=torch.float64)
    surface = LossSurface(model, "half_mse", (X, X @ torch.tensor([[0.8], [-1.5]], dtype=torch.float64)))
    angle = torch.linspace(0, 2 * math.pi, 721, dtype=torch.float64)
    best = max(
        float(surface.energy(surface.theta * (r * torch.stack([a.cos(), a.sin()])).exp()))
        for a in angle
        for r in (0.25, 0.5)
    )
    found = geodesic(surface, 0.5)
    assert found.kind == "bound"
    assert found.value == pytest.approx(best - float(surface.energy()), rel=1e-4)


def test_geodesic_sharpness_is_the_same_on_the_whole_orbit(network):
    here = geodesic(network, 0.05, starts=4).value
    assert geodesic(moved(network), 0.05, starts=4).value == pytest.approx(here, rel=1e-9)
    with pytest.raises(InputError, match=r"radius is 0\.0; a positive number"):
        geodesic(network, 0.0)


# noise


def test_the_noise_a_threshold_bears_is_that_of_the_normal_distribution():
    """Score margin m with noise of variance 2 sigma^2: accuracy Phi(m / (sqrt(2) sigma)), 0.9 at 1.2816."""
    n = 300
    model = nn.Linear(n, 2, bias=False).double()  # every example has weights, and so noise, of its own
    model.weight.data = torch.tensor([[0.5], [-0.3]], dtype=torch.float64).repeat(1, n)
    data = (torch.eye(n, dtype=torch.float64), torch.zeros(n, dtype=torch.long))
    found = pac_bayes(LossSurface(model, "cross_entropy", data), 0.1, draws=20)
    exact = 0.8 / (math.sqrt(2) * 1.2815516)
    assert found.sigma == pytest.approx(exact, rel=0.08)  # four standard errors
    assert 1e-3 * exact < found.error < 0.08 * exact  # the spread of the draws counts, not only the bisection
    assert (found.value, found.accuracy, found.kind) == (found.sigma, 1.0, "estimate")
    assert found.flatness == pytest.approx(1 / found.sigma**2)
    norm = n * (0.5**2 + 0.3**2)
    complexity = norm / (4 * found.sigma**2) + math.log(n / found.sigma) + 10
    assert found.bound == pytest.approx(math.sqrt(complexity / n))


def test_relative_noise_does_not_see_a_rescaling(network):
    here, there = (pac_bayes(s, relative=True, draws=4, depth=8).sigma for s in (network, moved(network)))
    assert there == here


def test_the_volume_of_a_quadratic_is_that_of_its_ellipsoid():
    surface, H, _ = quadratic()
    found = local_volume(surface, 0.01, reach=100.0, directions=3)
    ball = 0.5 * D * math.log(math.pi) - math.lgamma(0.5 * D + 1)
    exact = ball + 0.5 * float((0.02 / torch.linalg.eigvalsh(H)).log().sum())
    assert found.value == pytest.approx(exact, abs=1e-6)
    assert found.error < 1e-6


def test_a_region_without_end_is_cut_at_its_reach():
    """One flat direction: a strip of half width a in a disk of radius R."""
    x = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    model = nn.Linear(2, 1, bias=False).double()
    surface = LossSurface(model, "half_mse", (x, model(x).detach()))
    a, R = math.sqrt(0.02), 1.0
    area = 2 * (a * math.sqrt(R**2 - a**2) + R**2 * math.asin(a / R))
    found = local_volume(surface, 0.01, reach=R, directions=200)
    assert abs(found.value - math.log(area)) < 4 * found.error
    assert found.error < 0.1


def test_the_local_entropy_of_a_quadratic_is_a_gaussian_integral():
    surface, H, _ = quadratic()
    found = local_entropy(surface, 0.7, samples=3)
    exact = 0.5 * float(torch.logdet(H + 0.7 * torch.eye(D, dtype=torch.float64))) - 0.5 * D * math.log(
        2 * math.pi
    )
    assert found.value == pytest.approx(exact, abs=1e-9)


def test_mean_sharpness_of_a_quadratic_is_half_the_trace_times_the_variance():
    surface, H, _ = quadratic()
    found = average_sharpness(surface, 0.1, samples=400)
    assert abs(found.value - 0.005 * float(H.trace())) < 4 * found.error


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: pac_bayes(s, 0.0), "accuracy_drop is 0.0; a share between 0 and 1"),
        (lambda s: pac_bayes(s, draws=0), "draws is 0, depth 15 and largest 2.0; at least 2"),
        (lambda s: local_volume(s, 0.0), "height is 0.0 and reach is"),
        (lambda s: local_volume(s, directions=1), "directions is 1; a standard error"),
        (lambda s: local_entropy(s, 0.0), "scope is 0.0; a positive number"),
        (lambda s: local_entropy(s, samples=1), "samples is 1; a standard error"),
        (lambda s: average_sharpness(s, -1.0), "radius is -1.0; a positive number"),
        (lambda s: average_sharpness(s, samples=1), "samples is 1; a standard error"),
        (lambda s: one_step_sharpness(s, 0.0), "radius is 0.0; a positive number"),
    ],
)
def test_arguments_out_of_range_are_refused(network, call, message):
    with pytest.raises(InputError, match=message):
        call(network)


def test_an_accuracy_needs_classes():
    with pytest.raises(InputError, match="an accuracy needs one whole number an example"):
        pac_bayes(quadratic()[0])
    opaque = LossSurface(
        mlp(), lambda model, batch: model(batch[0]).square().mean(1), [(torch.ones(4, 3), torch.ones(4))]
    )
    with pytest.raises(InputError, match=r"takes \(model, batch\); its targets are its own affair"):
        pac_bayes(opaque)


# norms and slopes


def test_norms_and_products_are_those_of_the_weights(network):
    parts = network.space.split(network.theta)
    weights = [parts[f"{i}.weight"] for i in (0, 2, 4)]
    assert weight_norm(network).value == pytest.approx(
        math.sqrt(sum(float((t**2).sum()) for t in parts.values()))
    )
    assert spectral_product(network).value == pytest.approx(
        math.prod(float(torch.linalg.svdvals(W)[0]) for W in weights)
    )
    assert frobenius_product(network).value == pytest.approx(math.prod(float(W.norm()) for W in weights))
    assert gradient_norm(network).value == pytest.approx(float(network.gradient().norm()))
    top = float(torch.linalg.eigvalsh(network.gauss_newton().to_dense())[-1])
    assert gauss_newton_norm(network).value == pytest.approx(top, rel=1e-6)


def test_the_smallest_norm_on_the_orbit_balances_every_unit():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)).double()
    surface = LossSurface(model, "mse", (torch.randn(9, 3).double(), torch.zeros(9, 2).double()))
    into = model[0].weight.square().sum(1) + model[0].bias.square()
    out = model[2].weight.square().sum(0)
    smallest = (2 * (into * out).sqrt()).sum() + model[2].bias.square().sum()
    assert orbit_weight_norm(surface).value == pytest.approx(smallest.sqrt().item(), rel=1e-9)


def test_the_variance_of_gradients_is_that_of_single_examples(network):
    x = network.example_inputs(40)[0]
    y = torch.randint(0, 2, (40,), generator=_after_inputs())
    gradients = torch.stack(
        [
            LossSurface(network.write(), "cross_entropy", (x[i : i + 1], y[i : i + 1])).gradient()
            for i in range(40)
        ]
    )
    exact = float(gradients.square().sum(1).mean() - gradients.mean(0).square().sum())
    assert gradient_variance(network).value == pytest.approx(exact, rel=1e-9)


def _after_inputs():
    g = torch.Generator().manual_seed(0)
    torch.randn(40, 3, generator=g, dtype=torch.float64)
    return g


def test_one_step_of_ascent_on_a_quadratic():
    surface, H, w = quadratic()
    at = surface.at(w + 0.1)
    g = H @ (at.theta - w)
    for adaptive, unit in ((False, torch.ones(D).double()), (True, at.theta.abs())):
        step = 0.05 * unit * (unit * g) / (unit * g).norm()
        rise = float(g @ step + 0.5 * step @ H @ step)
        assert one_step_sharpness(at, 0.05, adaptive=adaptive).value == pytest.approx(rise, rel=1e-9)
    assert one_step_sharpness(surface, 0.05).value == 0.0


# the table


CHEAP = [
    "path_norm", "path_norm_2", "relative_flatness", "orbit_weight_norm", "adaptive_one_step",
    "weight_norm", "gauss_newton_norm", "gradient_variance", "weight_norm",
]  # fmt: skip


def test_declared_invariances_hold_for_the_new_measures(network):
    for row in audit(network, CHEAP):
        known = row.transformation in (*MEASURES[row.measure].invariant_to, "unit_order")
        assert row.verdict == ("invariant" if known else "changes"), str(row)


def test_there_are_thirty_measures_and_rows_for_each_weight(network):
    assert len(MEASURES) >= 30
    table = measure(network, ["weight_norm", "layer_hessian_norm", "layer_fisher_rao"])
    assert [row.measure for row in table][1:4] == [f"layer_hessian_norm:{i}.weight" for i in (0, 2, 4)]
    at = network.space.positions("2.weight")
    block = network.hessian().to_dense()[at][:, at]
    assert table["layer_hessian_norm:2.weight"].value == pytest.approx(
        float(torch.linalg.eigvalsh(block).abs().max()), rel=1e-6
    )
    w = network.theta[at]
    fisher = network.fisher().to_dense()[at][:, at]
    assert table["layer_fisher_rao:2.weight"].value == pytest.approx(float(w @ fisher @ w), rel=1e-9)
