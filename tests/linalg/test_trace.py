"""Trace, norm and diagonal against spectra that were built in."""

import math

import numpy as np
import pytest
import torch

from fathometer.errors import InputError
from fathometer.linalg import LinearOperator, as_operator, diagonal, frobenius_norm, trace


def rotated(values, seed=0):
    """A dense matrix with these eigenvalues."""
    d = torch.as_tensor(values, dtype=torch.float64)
    g = torch.Generator().manual_seed(seed)
    Q = torch.linalg.qr(torch.randn(len(d), len(d), generator=g, dtype=torch.float64))[0]
    M = (Q * d) @ Q.T
    return (M + M.T) / 2


def by_products(M, **options):
    symmetric = M.shape[0] == M.shape[1] and torch.equal(M, M.T)
    return LinearOperator(
        shape=tuple(M.shape),
        product=lambda V: M @ V,
        transposed=None if symmetric else lambda V: M.T @ V,
        dtype=M.dtype,
        symmetric=symmetric,
        name="built",
        **options,
    )


j = np.arange(1, 601.0)
SPECTRA = {
    "flat": 1 + np.linspace(0, 2, 600),
    "inverse": 1 / j,
    "inverse square": 1 / j**2,
    "exponential": 0.7**j,
    "indefinite": np.where(j % 2, 1, -0.6) / j,
    "negative": -1 / j,
    "a step": np.where(j < 20, 1.0, 1e-3),
}
MATRICES = {name: rotated(values) for name, values in SPECTRA.items()}
SAMPLERS = ["hutchinson", "hutch++", "xtrace"]


def within(estimate, true, errors=5):
    assert estimate.kind == "estimate"
    assert abs(estimate.value - true) <= errors * estimate.error + 1e-12
    return True


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("method", SAMPLERS)
def test_the_trace_is_found_within_its_error(name, method):
    M = MATRICES[name]
    estimate = trace(by_products(M), method, tolerance=0.02, max_products=400)
    assert within(estimate, M.trace().item())
    assert estimate.error <= 0.02 * abs(estimate.value) or estimate.cost > 350


@pytest.mark.parametrize("method", SAMPLERS)
@pytest.mark.parametrize("name", ["inverse", "indefinite", "flat"])
def test_the_mean_over_many_seeds_is_the_trace(method, name):
    M = MATRICES[name]
    A = by_products(M)
    runs = [trace(A, method, tolerance=1e-12, seed=seed, max_products=30) for seed in range(40)]
    values = torch.tensor([run.value for run in runs], dtype=torch.float64)
    # four standard errors of the mean, from the spread over seeds itself
    assert abs(values.mean() - M.trace()) <= 4 * values.std() / math.sqrt(len(runs))
    # and the stated error is the true one: not smaller, not twice as large
    true = (values - M.trace()).square().mean().sqrt()
    stated = torch.tensor([run.error for run in runs]).square().mean().sqrt()
    assert 0.6 * true <= stated <= 2 * true


@pytest.mark.parametrize("name", ["inverse square", "exponential"])
def test_on_decaying_spectra_xtrace_beats_hutchpp_beats_hutchinson(name):
    M = MATRICES[name]
    A = by_products(M)
    rmse = {}
    for method in SAMPLERS:
        runs = [trace(A, method, tolerance=1e-12, seed=s, max_products=60).value for s in range(15)]
        rmse[method] = (torch.tensor(runs).double() - M.trace()).square().mean().sqrt().item()
    assert rmse["xtrace"] < rmse["hutch++"] < rmse["hutchinson"] / 2


def test_operators_need_not_be_symmetric():
    g = torch.Generator().manual_seed(3)
    U, V = (torch.randn(600, 4, generator=g, dtype=torch.float64) for _ in "uv")
    M = MATRICES["inverse square"] + U @ V.T / 600
    for method in SAMPLERS:
        runs = [trace(by_products(M), method, tolerance=1e-9, seed=s, max_products=60) for s in range(12)]
        mean = sum(run.value for run in runs) / 12
        spread = torch.tensor([run.value for run in runs]).std().item() / math.sqrt(12)
        assert abs(mean - M.trace().item()) <= 4 * spread


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("method", ["hutch++", "xtrace"])
def test_a_low_rank_operator_costs_no_more_than_its_sketch(method, sign):
    M = sign * rotated([3.0, 2.0, 1.0] + [0.0] * 597)
    estimate = trace(by_products(M), method)
    assert estimate.cost <= 30
    assert estimate.value == pytest.approx(sign * 6.0, abs=1e-12)
    assert 0 < estimate.error < 1e-11


def test_a_zero_operator_has_trace_zero():
    for method in SAMPLERS:
        assert trace(by_products(torch.zeros(600, 600)), method).value == 0
    assert frobenius_norm(by_products(torch.zeros(600, 600))).value == 0


def test_a_trace_near_zero_stops_at_the_limit_with_an_honest_error():
    M = rotated(np.where(j % 2, 1.0, -1.0) / np.ceil(j / 2))  # trace exactly 0
    for method in SAMPLERS:
        estimate = trace(by_products(M), method, max_products=200)
        assert 180 <= estimate.cost <= 200
        assert estimate.error > 0.01 * abs(estimate.value)
        assert within(estimate, 0.0)
        enough = trace(by_products(M), method, absolute=0.5, max_products=200)
        assert enough.cost < 60
        assert enough.error <= 0.5


def test_auto_takes_the_exact_way_where_the_estimate_would_cost_as_much():
    M = rotated(np.where(j % 2, 1.0, -1.0) / np.ceil(j / 2))
    found = trace(by_products(M))
    assert found.kind == "exact"
    assert 600 < found.cost <= 1200
    assert found.value == pytest.approx(0.0, abs=1e-12)
    assert trace(by_products(M), max_products=100).kind == "estimate"


def test_small_operators_and_matrices_are_summed_exactly():
    M = rotated([1.0, 2.0, 3.0])
    for A, cost in ((M, 0), (M.numpy(), 0), (by_products(M), 3)):
        assert trace(A).value == pytest.approx(6.0, abs=1e-12)
        assert (trace(A).kind, trace(A).cost) == ("exact", cost)
        assert frobenius_norm(A).value == pytest.approx(math.sqrt(14), abs=1e-12)
        torch.testing.assert_close(diagonal(A).value, M.diagonal())
        assert diagonal(A).kind == "exact"
    assert trace(by_products(MATRICES["flat"]), "exact").value == pytest.approx(1200.0, abs=1e-9)


@pytest.mark.parametrize("name", SPECTRA)
def test_the_frobenius_norm_is_found_within_its_error(name):
    true = math.sqrt((SPECTRA[name] ** 2).sum())
    estimates = [frobenius_norm(by_products(MATRICES[name]), seed=seed) for seed in range(4)]
    assert all(within(e, true) and e.error <= 0.01 * e.value for e in estimates)


def test_the_frobenius_norm_of_a_rectangle_is_found_within_its_error():
    M = torch.randn(300, 700, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    estimate = frobenius_norm(by_products(M), tolerance=0.01)
    assert within(estimate, torch.linalg.matrix_norm(M).item())
    assert frobenius_norm(as_operator(M)).value == pytest.approx(torch.linalg.matrix_norm(M).item())


@pytest.mark.parametrize("name", ["inverse", "indefinite", "a step", "flat"])
def test_the_diagonal_is_found_within_its_errors(name):
    M = MATRICES[name]
    estimate = diagonal(by_products(M), tolerance=0.1, max_products=300)
    assert estimate.kind == "estimate"
    gap = (estimate.value - M.diagonal()).norm()
    assert gap <= 1.5 * estimate.error.norm()
    assert estimate.error.norm() <= 0.1 * estimate.value.norm() or estimate.cost > 250


def test_the_mean_diagonal_over_many_seeds_is_the_diagonal():
    M = MATRICES["inverse"]
    runs = [diagonal(by_products(M), tolerance=1e-9, seed=s, max_products=30).value for s in range(40)]
    z = (torch.stack(runs).mean(0) - M.diagonal()) / (torch.stack(runs).std(0) / math.sqrt(40))
    assert z.square().mean() < 1.5  # one, up to the fluctuation of 600 entries


def test_a_diagonal_of_an_operator_with_a_transpose_is_found():
    g = torch.Generator().manual_seed(3)
    M = MATRICES["inverse square"] + torch.randn(600, 600, generator=g, dtype=torch.float64) * 1e-5
    estimate = diagonal(by_products(M), tolerance=0.05)
    assert (estimate.value - M.diagonal()).norm() <= 1.5 * estimate.error.norm()


def test_a_diagonal_that_would_cost_as_much_is_read_off_exactly():
    M = MATRICES["flat"]
    found = diagonal(by_products(M), tolerance=1e-6)
    assert found.kind == "exact"
    torch.testing.assert_close(found.value, M.diagonal())
    low = diagonal(by_products(rotated([3.0, 2.0, 1.0] + [0.0] * 597)), tolerance=1e-6)
    assert low.cost == 20


def test_products_of_all_kinds_are_counted():
    M = MATRICES["inverse"] + torch.randn(600, 600, generator=torch.Generator().manual_seed(0)) * 1e-6
    columns = []

    def watched(V, M=M):
        columns.append(V.shape[1])
        return M @ V

    A = LinearOperator(
        shape=(600, 600),
        product=watched,
        transposed=lambda V: watched(V, M.T),
        dtype=torch.float64,
        symmetric=False,
    )
    for measure in (trace, frobenius_norm, diagonal):
        columns.clear()
        assert measure(A, tolerance=0.1).cost == sum(columns) > 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda A: trace(A, "hutch"), "method is 'hutch'; it is one of auto, exact"),
        (lambda A: trace(A, tolerance=0), "tolerance is 0; it must be positive"),
        (lambda A: trace(A, absolute=-1.0), "absolute is -1.0"),
        (lambda A: trace(A, max_products=3), "max_products is 3; a standard error needs at least 30"),
        (lambda A: trace(torch.zeros(2, 3)), "trace needs a square operator"),
        (lambda A: diagonal(torch.zeros(2, 3)), "diagonal needs a square operator"),
        (lambda A: diagonal(A, tolerance=-1), "tolerance is -1"),
        (lambda A: frobenius_norm(A, max_products=0), "max_products is 0"),
    ],
)
def test_arguments_without_a_meaning_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call(by_products(MATRICES["flat"]))


@pytest.mark.parametrize("measure", [trace, frobenius_norm, diagonal])
@pytest.mark.parametrize("n", [20, 600])
def test_a_product_that_is_not_finite_is_refused_by_name(measure, n):
    A = LinearOperator(shape=(n, n), product=lambda V: V * math.inf, dtype=torch.float64, name="bad")
    with pytest.raises(InputError, match="bad is not finite"):
        measure(A)


@pytest.mark.parametrize("size", [1e-300, 1e-25, 1e25, 1e200])
def test_a_norm_whose_square_leaves_the_range_is_found(size):
    dtype = torch.float64 if size in (1e-300, 1e200) else torch.float32
    M = MATRICES["inverse"].to(dtype)
    rectangle = M[:, :550]
    for B in (M, rectangle):
        A = by_products(B * size)
        estimate = frobenius_norm(A, tolerance=0.05)
        true = size * torch.linalg.matrix_norm(B.double()).item()
        assert abs(estimate.value - true) <= 5 * estimate.error
        assert 0 < estimate.error <= 0.05 * estimate.value


@pytest.mark.parametrize("measure", [trace, frobenius_norm, diagonal])
def test_what_single_precision_hides_is_in_the_error(measure):
    # the tail drowns in the rounding errors of the sketch, and is a large part of trace and diagonal
    M = rotated(np.concatenate([[1.0, 0.9, 0.8], np.full(797, 3e-4)])).float()
    true = {
        trace: M.double().trace(),
        frobenius_norm: torch.linalg.matrix_norm(M.double()),
        diagonal: M.double().diagonal(),
    }[measure]
    for seed in range(5):
        found = measure(by_products(M), tolerance=1e-7, seed=seed, max_products=790)
        assert found.kind == "estimate"
        gap = torch.linalg.vector_norm(torch.atleast_1d(torch.as_tensor(found.value).double() - true))
        error = torch.linalg.vector_norm(torch.atleast_1d(torch.as_tensor(found.error).double()))
        assert gap <= 3 * error
