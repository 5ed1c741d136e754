"""What public tools for curvature were found to get wrong, each a test that it stays right here."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import fathometer as fm
from fathometer.errors import CapabilityError, InputError
from fathometer.model.slopes import output_slopes
from fathometer.spectra import compare, critical_points, density, exact_trace, index


def diagonal(values):
    column = torch.as_tensor(values, dtype=torch.float64)[:, None]
    return fm.linalg.LinearOperator(
        shape=(len(column),) * 2, product=lambda V: column * V, dtype=torch.float64, name="diagonal"
    )


def test_the_largest_eigenvalue_is_not_returned_ten_times():
    # long runs without orthogonalization find copies of the largest one and call them converged
    values = np.concatenate([np.linspace(-1, 1, 4990), np.geomspace(5, 500, 10)])
    found = fm.eigenpairs(diagonal(values), 10, tolerance=1e-8)
    np.testing.assert_allclose(found.values, np.sort(values)[::-1][:10], rtol=1e-10)
    assert bool(found.converged.all())
    V = found.vectors
    torch.testing.assert_close(V.T @ V, torch.eye(10, dtype=torch.float64), atol=1e-10, rtol=0)


def test_pairs_of_opposite_sign_are_told_apart():
    # power iteration swings between them for ever; the residual part of a ReLU network has only such pairs
    values = np.concatenate([np.linspace(-1, 1, 2990), [8.0, -8.0, 6.0, -6.0]])
    found = fm.eigenpairs(diagonal(values), 4, which="magnitude", tolerance=1e-8)
    np.testing.assert_allclose(np.sort(found.values), [-8, -6, 6, 8], rtol=1e-10)


def test_uneven_batches_are_weighted_by_their_examples():
    # the plain mean over batches of 50, 50 and 1 gives the last example fifty times its weight
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x, y = torch.randn(101, 3).double(), torch.randn(101, 2).double()
    x[-1] *= 10
    batches = [(x[:50], y[:50]), (x[50:100], y[50:100]), (x[100:], y[100:])]
    whole = fm.LossSurface(net, "mse", (x, y)).hessian().to_dense()
    torch.testing.assert_close(fm.LossSurface(net, "mse", batches).hessian().to_dense(), whole)


def test_a_negative_trace_does_not_end_the_sampling_early():
    # a stopping rule that divides by the running mean stops after two samples if that is negative
    values = np.concatenate([-np.linspace(1, 2, 3000), [500.0]])
    found = fm.trace(diagonal(values), method="hutchinson", tolerance=0.01)
    assert abs(float(found.value) - values.sum()) <= 5 * float(found.error)
    assert float(found.error) <= 0.02 * abs(values.sum())


def test_densities_have_real_nodes_and_weights_that_sum_to_one():
    found = density(diagonal(np.linspace(-1, 3, 4000)), 3, 40, method="lanczos")
    assert found.nodes.dtype == torch.float64 and found.weights.shape == found.nodes.shape == (120,)
    assert float(found.weights.sum()) == pytest.approx(1.0) and float(found.weights.min()) >= 0


def test_a_small_network_does_not_cost_thousands_of_products():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 4), nn.Linear(4, 2))
    surface = fm.LossSurface(net, "cross_entropy", (torch.randn(20, 4), torch.arange(20) % 2))
    found = density(surface)
    assert found.kind == "exact" and found.products == surface.size < 100


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Linear(3, 2), nn.Linear(2, 5)

    def forward(self, x):
        return self.used(x)


def test_a_parameter_that_the_loss_does_not_use_is_flat():
    surface = fm.LossSurface(Unused(), "cross_entropy", (torch.randn(9, 3), torch.arange(9) % 2)).double()
    H = surface.hessian().to_dense()
    at = torch.cat([surface.space.positions(n) for n in ("unused.weight", "unused.bias")])
    assert float(H[at].abs().max()) == 0.0
    found = index(surface)
    assert found.zero >= len(at) and found.negative == 0
    assert density(surface).kind == "exact" and fm.eigenpairs(surface.hessian(), 2).converged.all()


def test_products_do_not_change_when_the_users_model_trains_on():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 2))
    A = fm.LossSurface(model, "cross_entropy", (torch.randn(9, 3), torch.arange(9) % 2)).hessian()
    v = torch.randn(A.shape[0])
    before = A @ v
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1.0)
    assert torch.equal(A @ v, before)


def test_the_share_of_negative_eigenvalues_is_a_bracket_around_the_truth():
    # with outliers a hundred times the bulk, quadrature alone counts half of the eigenvalues as negative
    random = np.random.default_rng(1)
    values = np.concatenate([random.normal(0.02, 0.03, 3970), random.uniform(2, 10, 30)])
    truth = float((values < 0).mean())
    found = index(diagonal(values), 0.0, probes=5, steps=40, method="lanczos")
    assert found.lower <= truth <= found.upper
    narrow = index(diagonal(values), 0.0, probes=5, steps=40, deflate=30, method="lanczos")
    assert narrow.lower <= truth <= narrow.upper and narrow.upper - narrow.lower < found.upper - found.lower


def test_the_empirical_fisher_is_not_the_fisher_where_the_fit_is_good():
    torch.manual_seed(0)
    x, y = torch.randn(60, 2), (torch.arange(60) % 2)
    x[:, 0] += 4.0 * y
    model = nn.Linear(2, 2)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=8)

    def closure():
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        return loss

    optimizer.step(closure)
    surface = fm.LossSurface(model, "cross_entropy", (x, y)).double()
    exact, empirical = (float(surface.fisher(kind=k).to_dense().trace()) for k in ("exact", "empirical"))
    assert float(surface.gauss_newton().to_dense().trace()) == pytest.approx(exact)
    assert empirical < 0.8 * exact


def test_losses_without_outputs_cannot_be_compared_with_theory():
    surface = fm.LossSurface(
        nn.Linear(2, 1), lambda model, batch: model(batch).square().mean(1), [torch.ones(3, 2)]
    )
    with pytest.raises(InputError, match=r"takes \(model, batch\); it has no outputs to take slopes at"):
        compare(surface)


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x):
        return {"logits": self.layer(x)}


def test_slopes_need_one_tensor_of_outputs():
    def loss(outputs, targets):
        return (outputs["logits"] - targets).square().sum(1)

    surface = fm.LossSurface(Pair(), loss, (torch.ones(3, 2), torch.ones(3, 2)))
    with pytest.raises(InputError, match="the model returned a dict; slopes need one tensor"):
        output_slopes(surface)


def test_exact_traces_need_a_surface():
    with pytest.raises(InputError, match="surface is a ndarray; pass a LossSurface"):
        exact_trace(np.eye(2))


def test_a_point_that_flattens_out_at_infinity_is_never_critical():
    x = torch.tensor([[1.0]], dtype=torch.float64)
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Sigmoid()).double()
    surface = fm.LossSurface(net, "mse", (x, x)).at([40.0])
    found = critical_points(surface, 1, attempts=2)
    assert not found.rows and math.isclose(float(surface.energy()), 0.0, abs_tol=1e-15)


def test_a_network_with_bends_inside_a_tensor_has_no_exact_trace():
    surface = fm.LossSurface(
        nn.Sequential(nn.Linear(2, 3), nn.GELU(), nn.Linear(3, 2)),
        "mse",
        (torch.ones(3, 2), torch.zeros(3, 2)),
    )
    with pytest.raises(CapabilityError, match="Use fathometer"):
        exact_trace(surface)
