"""Gauss rules from recurrences, against numpy's tables and exact moments."""

import math

import numpy as np
import pytest
import torch

from fathometer.calculus import gauss_rule, jacobi_matrix


def legendre(m):
    k = torch.arange(1, m, dtype=torch.float64)
    return torch.zeros(m, dtype=torch.float64), k / (4 * k**2 - 1).sqrt()


def hermite(m):
    return torch.zeros(m, dtype=torch.float64), torch.arange(1, m, dtype=torch.float64).sqrt()


@pytest.mark.parametrize("m", [1, 2, 5, 20])
def test_classical_rules_agree_with_the_tables(m):
    nodes, weights = gauss_rule(*legendre(m))
    expected = np.polynomial.legendre.leggauss(m)
    np.testing.assert_allclose(nodes.numpy(), expected[0], atol=1e-14)
    np.testing.assert_allclose(2 * weights.numpy(), expected[1], rtol=1e-12)
    nodes, weights = gauss_rule(*hermite(m))
    expected = np.polynomial.hermite_e.hermegauss(m)
    np.testing.assert_allclose(nodes.numpy(), expected[0], atol=1e-13)
    np.testing.assert_allclose(math.sqrt(2 * math.pi) * weights.numpy(), expected[1], rtol=1e-10)


def test_a_rule_is_exact_up_to_twice_its_points_less_one_and_not_beyond():
    nodes, weights = gauss_rule(*legendre(4))
    for degree in range(0, 8, 2):
        assert float((weights * nodes**degree).sum()) == pytest.approx(1 / (degree + 1), rel=1e-13)
    assert abs(float((weights * nodes**8).sum()) - 1 / 9) > 1e-3


def test_several_rules_at_once_are_the_single_ones():
    diagonal, off = torch.randn(3, 6, dtype=torch.float64), torch.rand(3, 5, dtype=torch.float64)
    nodes, weights = gauss_rule(diagonal, off)
    for i in range(3):
        single = gauss_rule(diagonal[i], off[i])
        torch.testing.assert_close((nodes[i], weights[i]), single)
    T = jacobi_matrix(diagonal, off)
    torch.testing.assert_close(T, T.mT)
    assert float(T[1, 2, 3]) == float(off[1, 2])


def test_weights_of_long_rules_sum_to_one_to_the_last_place():
    # the squares of one row of eigenvectors do so only to the rounding of the eigenvalue solver
    for m in (300, 500):
        assert abs(float(gauss_rule(*legendre(m))[1].sum()) - 1.0) < 4e-16
        row = torch.linalg.eigh(jacobi_matrix(*legendre(m)))[1][0]
        assert abs(float(row.square().sum()) - 1.0) < 1e-13
