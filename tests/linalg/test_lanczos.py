"""Lanczos and its Gauss rules against dense algebra and moments."""

import math

import pytest
import torch

import fathometer as fm
from fathometer.errors import BudgetError, InputError
from fathometer.linalg import LinearOperator, as_operator, eigenpairs, lanczos, slq


def diagonal_operator(values, dtype=torch.float64):
    d = torch.as_tensor(values, dtype=dtype)[:, None]
    return LinearOperator(shape=(len(d), len(d)), product=lambda V: d * V, dtype=dtype, name="diagonal")


def random_start(size, probes=None, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*([size] if probes is None else [size, probes]), generator=g, dtype=torch.float64)


def eye(n):
    return torch.eye(n, dtype=torch.float64)


def test_the_basis_is_orthonormal_and_the_projection_tridiagonal():
    A = diagonal_operator(torch.linspace(-1, 3, 200))
    seen = lanczos(A, 60, random_start(200))
    Q = seen.basis
    torch.testing.assert_close(Q.T @ Q, eye(60), atol=1e-13, rtol=0)
    torch.testing.assert_close(Q.T @ (A @ Q), seen.to_dense(), atol=1e-13, rtol=0)
    assert seen.products == 60


@pytest.mark.parametrize("values", [[1.0] * 300, (0.5 ** torch.arange(300)).tolist()])
def test_a_basis_of_the_whole_space_stays_orthonormal(values):
    # every step ends early: a random vector must lose all but its last few dimensions. Projected
    # once only, the basis is skew by 1e-12 in the end; not at all, by 1
    Q = lanczos(diagonal_operator(values), 300, random_start(300)).basis
    torch.testing.assert_close(Q.T @ Q, eye(300), atol=2e-14, rtol=0)


def test_several_starts_run_each_on_its_own():
    A = diagonal_operator(torch.linspace(-1, 3, 80))
    starts = random_start(80, 3)
    for keep in (True, False):
        together = lanczos(A, 12, starts, reorthogonalize=keep)
        for i in range(3):
            alone = lanczos(A, 12, starts[:, i], reorthogonalize=keep)
            torch.testing.assert_close(together.diagonal[i], alone.diagonal, atol=1e-12, rtol=0)
            torch.testing.assert_close(together.off_diagonal[i], alone.off_diagonal, atol=1e-12, rtol=0)
    assert together.basis is None


def test_an_early_end_goes_on_from_a_random_vector():
    # three different eigenvalues only: the Krylov space of any start has three dimensions
    A = diagonal_operator([1.0] * 20 + [2.0] * 20 + [5.0] * 20)
    seen = lanczos(A, 60, random_start(60))
    torch.testing.assert_close(seen.basis.T @ seen.basis, eye(60), atol=1e-12, rtol=0)
    expected = torch.tensor([1.0] * 20 + [2.0] * 20 + [5.0] * 20, dtype=torch.float64)
    torch.testing.assert_close(seen.gauss()[0], expected, atol=1e-12, rtol=0)
    assert (seen.off_diagonal == 0).sum() == 19


def test_the_zero_operator_has_only_zeros():
    seen = lanczos(diagonal_operator([0.0] * 10), 10, random_start(10))
    torch.testing.assert_close(seen.gauss()[0], torch.zeros(10).double())


@pytest.mark.parametrize("keep", [True, False])
def test_gauss_rules_have_the_moments_of_the_start(keep):
    values = torch.linspace(-1, 2, 50, dtype=torch.float64)
    q = random_start(50)
    share = q.square() / q.square().sum()
    nodes, weights = lanczos(diagonal_operator(values), 6, q, reorthogonalize=keep).gauss()
    for power in range(12):  # exact up to degree 2 m - 1
        torch.testing.assert_close((weights * nodes**power).sum(), (share * values**power).sum())


def test_without_projection_ghosts_come_and_split_their_weight():
    values = torch.cat([torch.linspace(0, 1, 300), torch.tensor([20.0])])
    A, q = diagonal_operator(values), random_start(301)
    free, kept = lanczos(A, 80, q, reorthogonalize=False).gauss(), lanczos(A, 80, q).gauss()
    assert (free[0] > 19).sum() > 1
    assert (kept[0] > 19).sum() == 1
    torch.testing.assert_close(free[1][free[0] > 19].sum(), kept[1][kept[0] > 19].sum())


def test_float32_operators_are_seen_in_float32_and_summed_in_float64():
    seen = lanczos(diagonal_operator(torch.linspace(0, 1, 100), torch.float32), 20, random_start(100))
    assert seen.basis.dtype == torch.float32
    assert seen.diagonal.dtype == torch.float64
    torch.testing.assert_close(seen.basis.T @ seen.basis, torch.eye(20), atol=1e-5, rtol=0)


def test_slq_with_every_step_is_the_spectrum_seen_by_its_probes():
    values = torch.tensor([-2.0, -1.0, 0.5, 3.0, 4.0, 9.0], dtype=torch.float64)
    seen = slq(diagonal_operator(values), probes=400, steps=6)
    torch.testing.assert_close(seen.nodes, values.expand(400, 6), atol=1e-9, rtol=0)
    # each weight is a share of a random unit vector: mean 1/6, deviation sqrt(2 * 5 / 8) / 6
    assert ((seen.weights.mean(0) - 1 / 6).abs() < 5 * math.sqrt(10 / 8) / 6 / 20).all()
    assert seen.products == 2400


def test_slq_weights_sum_to_one_and_moments_agree_with_the_spectrum():
    values = torch.linspace(-1, 3, 900, dtype=torch.float64)
    nodes, weights = slq(diagonal_operator(values), probes=20, steps=30).merged()
    assert (nodes.diff() >= 0).all()
    torch.testing.assert_close(weights.sum(), torch.tensor(1.0).double())
    for power in (1, 2, 5):  # deviation of a probe: sqrt(2 var / P)
        moment = (values**power).mean()
        deviation = (2 * (values**power).var() / 900 / 20).sqrt()
        assert ((weights * nodes**power).sum() - moment).abs() < 4 * deviation


def test_deflated_eigenvalues_enter_exactly_and_the_probes_see_the_rest():
    values = torch.cat([torch.linspace(0, 1, 600), torch.tensor([10.0, 20, 30])]).double()
    A = diagonal_operator(values)
    pairs = eigenpairs(A, 3, tolerance=1e-8)
    seen = slq(A, probes=3, steps=20, deflate=pairs)
    torch.testing.assert_close(seen.exact, torch.tensor([30.0, 20, 10]).double())
    assert seen.nodes.max() <= 1 + 1e-12
    nodes, weights = seen.merged()
    torch.testing.assert_close(weights[nodes > 5], torch.full((3,), 1 / 603).double())
    torch.testing.assert_close(weights.sum(), torch.tensor(1.0).double())


def test_pairs_that_did_not_converge_are_not_deflated():
    A = diagonal_operator(torch.linspace(0, 1, 700))
    pairs = eigenpairs(A, 2, tolerance=1e-9, max_products=10)
    assert not pairs.converged.any()
    assert len(slq(A, 1, 5, deflate=pairs).exact) == 0


def test_the_number_of_probes_at_a_time_changes_nothing():
    A = diagonal_operator(torch.linspace(-1, 2, 500))
    whole = slq(A, probes=7, steps=15)
    with fm.budget(500 * 8 * 6 * 2):
        pieces = slq(A, probes=7, steps=15)
    torch.testing.assert_close(whole.nodes, pieces.nodes, atol=1e-12, rtol=0)
    torch.testing.assert_close(whole.weights, pieces.weights, atol=1e-12, rtol=0)


def test_more_probes_keep_the_first_ones():
    A = diagonal_operator(torch.linspace(-1, 2, 100))
    torch.testing.assert_close(slq(A, 5, 8).nodes[:2], slq(A, 2, 8).nodes)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda A: lanczos(A, 0, torch.ones(9)), "steps is 0; diagonal of size 9 takes 1 to 9"),
        (lambda A: lanczos(A, 10, torch.ones(9)), "steps is 10"),
        (lambda A: lanczos(A, 2, torch.ones(8)), r"start has shape \(8,\)"),
        (lambda A: lanczos(A, 2, torch.zeros(9)), "start column 0 has length 0.0"),
        (lambda A: lanczos(A, 2, torch.full((9, 2), math.nan)), "must be finite"),
        (
            lambda A: lanczos(as_operator([[1.0, 2.0], [0.0, 1.0]]), 1, torch.ones(2)),
            "not symmetric; lanczos",
        ),
        (lambda A: slq(A, 0, 3), "probes is 0"),
        (lambda A: slq(A, 1, 10), "steps is 10; diagonal has 9 eigenvalues to find"),
        (lambda A: slq(A, 1, 7, deflate=eigenpairs(A, 3)), "6 eigenvalues to find"),
        (lambda A: slq(A, 1, 3, deflate=eigenpairs(torch.eye(4), 1)), "vectors of length 4"),
        (lambda A: slq(as_operator(torch.ones(2, 3)), 1, 1), "not symmetric; slq"),
    ],
)
def test_arguments_without_a_meaning_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call(diagonal_operator(range(9)))


def test_a_basis_that_does_not_fit_is_forecast():
    A = diagonal_operator(torch.ones(1000))
    with fm.budget(1000 * 8 * 30), pytest.raises(BudgetError, match="1 probes fit"):
        lanczos(A, 20, random_start(1000, 2))
    with fm.budget(1000), pytest.raises(BudgetError, match="probes of diagonal"):
        slq(A, 2, 3)
