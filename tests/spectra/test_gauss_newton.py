"""Factors, Gram spectra and exact traces against dense matrices built by products."""

import contextlib

import pytest
import torch
from torch import nn

import fathometer as fm
from fathometer.errors import BudgetError, CapabilityError, InputError
from fathometer.model.exact_diagonal import exact_trace
from fathometer.model.factors import gauss_newton_factors
from fathometer.spectra import class_split, gauss_newton_spectrum, kfac_error


class Conv(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 2, 3), nn.Linear(8, 3)
        self.gain = nn.Parameter(torch.tensor([1.3]))

    def forward(self, x):
        return self.gain * self.head(torch.relu(self.conv(x)).flatten(1))


def network(kind, loss, n=7):
    torch.manual_seed(1)
    if kind == "mlp":
        model, x = (
            nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)),
            torch.randn(n, 4),
        )
    elif kind == "in place":
        model, x = nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 3)), torch.randn(n, 4)
    elif kind == "tanh":
        model, x = nn.Sequential(nn.Linear(4, 6, bias=False), nn.Tanh(), nn.Linear(6, 3)), torch.randn(n, 4)
    elif kind == "tied":
        layer = nn.Linear(3, 3)
        model, x = nn.Sequential(layer, nn.ReLU(), layer), torch.randn(n, 3)
    else:
        model, x = Conv(), torch.randn(n, 1, 4, 4)
    y = torch.randint(0, 3, (n,)) if loss == "cross_entropy" else torch.randn(n, 3)
    return fm.LossSurface(
        model.double(), loss, (x.double(), y if y.dtype == torch.int64 else y.double()), chunk=3
    )


@pytest.mark.parametrize("kind", ["mlp", "in place", "tanh", "tied", "conv"])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse", "half_mse"])
def test_gram_matrix_has_the_eigenvalues_of_the_gauss_newton_matrix(kind, loss):
    surface = network(kind, loss)
    factors = gauss_newton_factors(surface)
    dense = surface.gauss_newton().to_dense()
    wanted = torch.linalg.eigvalsh(dense)
    found = torch.linalg.eigvalsh(factors.gram())
    k = min(len(wanted), len(found))
    torch.testing.assert_close(found[-k:], wanted[-k:], atol=1e-12, rtol=1e-9)
    for extra in (found[:-k], wanted[:-k]):
        assert extra.abs().sum() < 1e-10
    for name, value in factors.traces().items():
        at = surface.space.positions(name)
        assert value == pytest.approx(float(dense[at, at].sum()), rel=1e-10)


def test_linear_layers_are_factored_and_shared_ones_are_not():
    assert [layer.name for layer in gauss_newton_factors(network("mlp", "mse")).layers] == ["0", "2", "4"]
    assert not gauss_newton_factors(network("tied", "mse")).layers
    assert set(gauss_newton_factors(network("conv", "mse")).rows) == {"conv.weight", "conv.bias", "gain"}


@pytest.mark.parametrize("kind", ["mlp", "conv"])
@pytest.mark.parametrize("loss", ["cross_entropy", "half_mse"])
def test_traces_of_piecewise_linear_networks_are_exact(kind, loss):
    surface = network(kind, loss)
    dense = surface.hessian().to_dense()
    table = exact_trace(surface)
    assert table["all"].value == pytest.approx(float(dense.trace()), rel=1e-10)
    for name in surface.names:
        at = surface.space.positions(name)
        assert table[name].value == pytest.approx(float(dense[at, at].sum()), rel=1e-10, abs=1e-14)


@pytest.mark.parametrize(("kind", "tensor"), [("tanh", "0.weight"), ("tied", "0.weight")])
def test_networks_that_bend_within_a_tensor_are_refused(kind, tensor):
    with pytest.raises(CapabilityError, match=f"not piecewise linear in {tensor}"):
        exact_trace(network(kind, "half_mse"))


def test_factors_refuse_what_has_no_rows():
    x = torch.randn(5, 2, dtype=torch.float64)
    opaque = fm.LossSurface(nn.Linear(2, 1).double(), lambda model, batch: model(batch).square().mean(1), [x])
    with pytest.raises(InputError, match="takes \\(model, batch\\); it has no Gauss-Newton matrix"):
        gauss_newton_factors(opaque)
    bent = fm.LossSurface(
        nn.Linear(2, 1).double(), lambda o, t: torch.cos(o).sum(1) - o.sum(1) ** 2, (x, x[:, :1])
    )
    with pytest.raises(InputError, match="not convex in the outputs of example 0"):
        gauss_newton_factors(bent)
    wide = fm.LossSurface(nn.Linear(2, 1).double(), "mse", (x[:, None], x[:, None, :1]))
    with pytest.raises(CapabilityError, match=r"outputs are \(5, 1, 1\)"):
        gauss_newton_factors(wide)
    surface = network("conv", "mse")
    with fm.budget(900), pytest.raises(BudgetError, match="Gauss-Newton rows of gain, conv"):
        gauss_newton_factors(surface)


def test_the_whole_spectrum_is_exact_with_exact_zeros():
    for kind, n in (("mlp", 7), ("mlp", 60), ("conv", 4)):
        surface = network(kind, "cross_entropy", n)
        found = gauss_newton_spectrum(surface)
        wanted = torch.linalg.eigvalsh(surface.gauss_newton().to_dense())
        assert found.kind == "exact" and len(found.nodes) == surface.size
        torch.testing.assert_close(found.nodes, wanted.clamp(min=0.0), atol=1e-13, rtol=1e-9)
        if 3 * n < surface.size:
            assert int((found.nodes == 0).sum()) >= surface.size - 3 * n


def test_kronecker_error_is_the_distance_of_the_dense_blocks():
    surface = network("mlp", "cross_entropy", 12)
    dense = surface.gauss_newton().to_dense()
    model, x = surface.write(), surface._problem.batches
    inputs = torch.cat([x[i][0] for i in range(len(x))])
    p = model(inputs).detach().softmax(1)
    hidden = [inputs, model[:2](inputs).detach(), model[:4](inputs).detach()]
    for row, (name, a) in zip(kfac_error(surface), zip(("0", "2", "4"), hidden, strict=True), strict=True):
        at = surface.space.positions([f"{name}.weight", f"{name}.bias"])
        block = dense[at][:, at]
        width = model[int(name)].out_features
        # the block is ordered (out, in) and then the bias: the Kronecker product d d' x a a' in that order
        tail = model[int(name) + 1 :]
        z = model[: int(name) + 1](inputs).detach()
        D = torch.stack([torch.autograd.functional.jacobian(tail, z[i]) for i in range(12)])
        S = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
        G = torch.einsum("ncd,nck,nke->de", D, S, D) / 12
        wide = torch.cat([a, torch.ones(12, 1, dtype=a.dtype)], 1)
        A = wide.T @ wide / 12
        order = [
            o * a.shape[1] + i if i < a.shape[1] else width * a.shape[1] + o
            for o in range(width)
            for i in range(a.shape[1] + 1)
        ]
        K = torch.empty_like(block)
        K[torch.tensor(order)[:, None], torch.tensor(order)] = torch.kron(G, A)
        wanted = float((block - K).norm() / block.norm())
        assert row.layer == name and row.value == pytest.approx(wanted, rel=1e-8)
        assert row.norm == pytest.approx(float(block.norm()))


def in_position(block, positions, inputs):
    """A block over (weight, bias) in the order of Kronecker products: (out, in), the bias as the last in."""
    outs = positions // (inputs + 1)
    order = [
        o * inputs + i if i < inputs else outs * inputs + o for o in range(outs) for i in range(inputs + 1)
    ]
    return block[order][:, order]


@pytest.mark.parametrize(
    ("rows", "examples", "budget"), [(1 << 22, 64, None), (20, 3, None), (20, 3, 200_000)]
)
def test_kronecker_error_of_a_convolution_is_the_distance_of_the_dense_blocks(
    rows, examples, budget, monkeypatch
):
    monkeypatch.setattr("fathometer.model.kronecker.ROWS", rows)
    monkeypatch.setattr("fathometer.model.kronecker.EXAMPLES", examples)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 2, stride=2, padding=1), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(27, 3)
    ).double()
    x, y = torch.randn(8, 2, 4, 4, dtype=torch.float64), torch.arange(8) % 3
    surface = fm.LossSurface(model, "cross_entropy", (x, y), chunk=5)
    at = surface.space.positions("0.*")
    block = in_position(surface.gauss_newton().to_dense()[at][:, at], len(at), 8)
    z = nn.functional.conv2d(x, model[0].weight, model[0].bias, 2, 1).detach()
    tail = nn.Sequential(nn.ReLU(), nn.Flatten(0), model[3])
    D = torch.stack([torch.autograd.functional.jacobian(tail, z[i]) for i in range(8)]).flatten(3)
    p = model(x).detach().softmax(1)
    S = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    G = torch.einsum("ncol,nck,nkpl->op", D, S, D) / 8
    a = nn.functional.unfold(x, 2, padding=1, stride=2).mT.reshape(-1, 8)
    a = torch.cat([a, torch.ones(len(a), 1, dtype=a.dtype)], 1)
    K = torch.kron(G, a.T @ a / len(a))
    with fm.budget(budget) if budget else contextlib.nullcontext():
        row = kfac_error(surface)[0]
    assert row.layer == "0" and row.norm == pytest.approx(float(block.norm()))
    assert row.value == pytest.approx(float((block - K).norm() / block.norm()), rel=1e-8)
    assert row.cosine == pytest.approx(float((block * K).sum() / (block.norm() * K.norm())), rel=1e-8)


def test_a_large_convolution_streams_through_a_small_budget():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(8, 64, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 4))
    surface = fm.LossSurface(model, "half_mse", (torch.randn(8, 8, 4, 4), torch.randn(8, 4)))
    free = kfac_error(surface)
    with fm.budget(500_000):
        with pytest.raises(BudgetError, match=r"Gauss-Newton rows of 0\.weight"):
            gauss_newton_factors(surface)
        tight = kfac_error(surface)
    for a, b in zip(free, tight, strict=True):
        assert a.value == pytest.approx(b.value, rel=1e-9)


@pytest.mark.parametrize("kind", ["mlp", "conv", "tied"])
def test_class_split_is_an_identity_of_the_definition(kind):
    surface = network(kind, "cross_entropy", 14)
    model, batches = surface.write(), surface._problem.batches
    x = torch.cat([batches[i][0] for i in range(len(batches))])
    y = torch.cat([batches[i][1] for i in range(len(batches))])
    rows, weights, groups = [], [], []
    for i in range(14):
        p = model(x[i : i + 1])[0].softmax(0).detach()
        J = []
        for c in range(3):
            grads = torch.autograd.grad(model(x[i : i + 1])[0, c], list(model.parameters()))
            J.append(torch.cat([g.flatten() for g in grads]))
        J = torch.stack(J)
        for k in range(3):
            e = torch.zeros(3, dtype=torch.float64)
            e[k] = 1
            rows.append(J.T @ (e - p))
            weights.append(p[k] / 14)
            groups.append((int(y[i]), k))
    rows, weights = torch.stack(rows), torch.stack(weights)
    within = torch.zeros(surface.size, surface.size, dtype=torch.float64)
    for group in set(groups):
        at = torch.tensor([g == group for g in groups])
        mean = (weights[at, None] * rows[at]).sum(0) / weights[at].sum()
        away = rows[at] - mean
        within += (away * weights[at, None]).T @ away
    found = class_split(surface)
    parts = [found.operator(term).to_dense() for term in ("class", "cross", "own")]
    whole = surface.gauss_newton().to_dense()
    torch.testing.assert_close(sum(parts) + within, whole, atol=1e-12, rtol=1e-10)
    assert found.total == pytest.approx(float(whole.trace()), rel=1e-10)
    assert sum(found.shares) == pytest.approx(1.0)
    assert found.shares[3] == pytest.approx(float(within.trace() / whole.trace()), rel=1e-8)
    assert torch.linalg.matrix_rank(parts[0]) <= 3
    rest = found.without("class", surface.gauss_newton())
    torch.testing.assert_close(rest.to_dense(), whole - parts[0])
    top = torch.linalg.eigvalsh(parts[0]).flip(0)[:3]
    torch.testing.assert_close(found.eigenvalues("class"), top.clamp(min=0), atol=1e-12, rtol=1e-9)
    assert "class" in str(found)


def test_structure_refuses_what_it_is_not_about():
    mse = network("mlp", "mse")
    for call in (gauss_newton_spectrum, kfac_error, class_split):
        with pytest.raises(InputError, match="surface is a Tensor; pass a LossSurface"):
            call(torch.eye(2))
    with pytest.raises(CapabilityError, match="the loss is mse; the class split is one of cross-entropy"):
        class_split(mse)
    with pytest.raises(CapabilityError, match="no linear layer or convolution that is used once"):
        kfac_error(network("tied", "mse"))
    with pytest.raises(InputError, match="term is 'within'"):
        class_split(network("mlp", "cross_entropy")).factor("within")
    with fm.budget(5000), pytest.raises(BudgetError, match="Gram matrix of 21 rows"):
        gauss_newton_spectrum(mse)
    x = torch.randn(4, 2, dtype=torch.float64)
    soft = fm.LossSurface(
        nn.Linear(2, 3).double(), "cross_entropy", (x, torch.full((4, 3), 1 / 3.0).double())
    )
    with pytest.raises(CapabilityError, match="class number of every example"):
        class_split(soft)
