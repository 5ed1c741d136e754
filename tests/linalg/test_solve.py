"""MINRES against dense solutions."""

import math

import numpy as np
import pytest
import torch

from fathometer.errors import InputError
from fathometer.linalg import LinearOperator, solve


def built(values, seed=0):
    d = torch.as_tensor(values, dtype=torch.float64)
    g = torch.Generator().manual_seed(seed)
    Q = torch.linalg.qr(torch.randn(len(d), len(d), generator=g, dtype=torch.float64))[0]
    M = (Q * d) @ Q.T
    M = (M + M.T) / 2
    return LinearOperator(shape=tuple(M.shape), product=lambda V: M @ V, dtype=M.dtype, name="built"), M, Q


def sides(n, k, seed=1):
    return torch.randn(n, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    "values",
    [
        np.linspace(1, 9, 80),
        np.concatenate([np.linspace(-5, -0.5, 40), np.linspace(0.2, 9, 40)]),
        np.r_[np.ones(30), -2 * np.ones(50)],
        -np.linspace(1, 2, 80),
    ],
    ids=["positive", "indefinite", "two values", "negative"],
)
def test_every_side_is_solved_whatever_the_signs(values):
    A, M, _ = built(values)
    B = sides(80, 3)
    found = solve(A, B, tolerance=1e-10)
    assert found.converged.all()
    torch.testing.assert_close(found.value, torch.linalg.solve(M, B), atol=1e-7, rtol=0)
    torch.testing.assert_close(
        found.error, torch.linalg.vector_norm(B - M @ found.value, dim=0), atol=1e-14, rtol=1e-6
    )


def test_two_eigenvalues_need_two_steps():
    A, _, _ = built(np.r_[np.ones(30), -2 * np.ones(50)])
    assert solve(A, sides(80, 1)).products <= 4


def test_a_shift_moves_every_eigenvalue():
    A, M, _ = built(np.linspace(1, 9, 40))
    found = solve(A, sides(40, 1)[:, 0], shift=4.05, tolerance=1e-10)
    expected = torch.linalg.solve(M - 4.05 * torch.eye(40, dtype=torch.float64), sides(40, 1)[:, 0])
    assert found.value.shape == (40,)
    torch.testing.assert_close(found.value, expected, atol=1e-6, rtol=0)


def test_a_singular_system_with_a_solution_gets_the_shortest_one():
    A, M, _ = built(np.r_[np.zeros(20), np.linspace(-3, -1, 20), np.linspace(1, 5, 20)])
    B = M @ sides(60, 2)
    found = solve(A, B)
    assert found.converged.all()
    torch.testing.assert_close(found.value, torch.linalg.pinv(M, rtol=1e-10) @ B, atol=1e-7, rtol=0)


@pytest.mark.parametrize("tolerance", [1e-6, 1e-8, 1e-13])
def test_a_singular_system_without_one_gets_the_least_residual_and_says_so(tolerance):
    A, M, Q = built(np.r_[np.zeros(20), np.linspace(-3, -1, 20), np.linspace(1, 5, 20)])
    B = sides(60, 2)
    found = solve(A, B, tolerance=tolerance)
    assert not found.converged.any()
    least = torch.linalg.vector_norm(Q[:, :20].T @ B, dim=0)
    torch.testing.assert_close(found.error, least, rtol=1e-8, atol=0)
    assert (M @ (B - M @ found.value)).abs().max() < 1e-6


@pytest.mark.parametrize("first", ["all", "the null space"])
def test_rounding_is_told_by_the_largest_entry_seen_not_by_the_last_or_the_first(first):
    A, _, Q = built(np.r_[np.zeros(5), 1e-6 * np.ones(5), np.ones(5)])
    B = sides(15, 2) if first == "all" else Q[:, :1] + 1e-6 * sides(15, 2)
    # three eigenvalues: a Krylov space of three, then nothing but rounding of the largest entry
    found = solve(A, B)
    assert found.products <= 2 * (3 + 1)
    assert torch.isfinite(found.value).all() and found.error.max() <= torch.linalg.vector_norm(B, dim=0).max()


def test_easy_sides_wait_for_hard_ones_unchanged():
    A, _, Q = built(np.linspace(-3, 5, 60))
    B = torch.stack([Q[:, 4] * 2, torch.zeros(60).double(), sides(60, 1)[:, 0]], dim=1)
    found = solve(A, B)
    assert found.converged.all()
    torch.testing.assert_close(found.value[:, 0], Q[:, 4] * 2 / (-3 + 8 * 4 / 59), atol=1e-8, rtol=0)
    assert (found.value[:, 1] == 0).all()


def test_the_limit_is_kept_and_numpy_comes_back_as_numpy():
    A, M, _ = built(np.linspace(-3, 5, 60))
    found = solve(A, sides(60, 2).numpy(), max_products=12)
    assert found.products == 12
    assert not found.converged.any()
    assert isinstance(found.value, np.ndarray)
    np.testing.assert_allclose(
        found.error, np.linalg.norm(sides(60, 2).numpy() - M.numpy() @ found.value, axis=0)
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda A: solve(A, torch.zeros(3)), r"b has shape \(3,\); built needs \(9,\)"),
        (lambda A: solve(A, torch.full((9,), math.nan)), "b holds NaN"),
        (lambda A: solve(A, torch.ones(9), tolerance=0), "tolerance is 0"),
        (lambda A: solve(A, torch.ones(9), shift=math.inf), "shift inf"),
        (lambda A: solve(A, torch.ones(9, 2), max_products=3), "max_products is 3; 4 are needed"),
        (lambda A: solve([[1.0, 2.0], [0.0, 1.0]], torch.ones(2)), "not symmetric; solve needs"),
    ],
)
def test_arguments_without_a_meaning_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call(built(np.ones(9))[0])
