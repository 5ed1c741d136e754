"""Free sums against closed forms, the laws, and rotated matrices."""

import sys

import numpy as np
import pytest
import torch

import fathometer as fm
from fathometer.errors import CapabilityError, InputError
from fathometer.spectra import (
    MarchenkoPastur,
    Semicircle,
    WishartPlusReluResidual,
    WishartPlusWigner,
    density,
    free_sum,
)


def quantiles(law, count):
    low, high = law.support()[0][0], law.support()[-1][1]
    fine = np.linspace(low, high, 100_001)
    return np.interp((np.arange(count) + 0.5) / count, law.cdf(fine), fine)


def test_two_fair_coins_give_the_arcsine_law():
    coins = free_sum([-1.0, 1.0], [1.0, -1.0])
    x = np.array([-2.5, -1.9, -1.0, 0.0, 0.5, 1.9, 2.1])
    wanted = 0.5 + np.arcsin(np.clip(x / 2, -1, 1)) / np.pi
    np.testing.assert_allclose(coins.cdf(x), wanted, atol=1e-6)
    np.testing.assert_allclose(coins.pdf(x[1:-1]), 1 / (np.pi * np.sqrt(4 - x[1:-1] ** 2)), rtol=1e-5)
    assert coins.index() == pytest.approx(0.5, abs=1e-9)
    assert coins.mean == 0 and coins.variance == 2


def test_adding_a_number_shifts():
    values = quantiles(Semicircle(), 100)
    shifted = free_sum(values, [3.0])
    x = np.linspace(1.2, 4.8, 7) + 0.003
    np.testing.assert_allclose(shifted.cdf(x), np.searchsorted(values + 3, x) / 100, atol=2e-4)


@pytest.mark.parametrize("energy", [0.02, 0.3])
def test_quantiles_of_both_parts_give_the_law_of_the_paper(energy):
    law = WishartPlusWigner(energy, 0.5)
    total = free_sum(quantiles(MarchenkoPastur(0.5), 200), quantiles(Semicircle(2 * energy), 200))
    x = np.linspace(law.support()[0][0] - 0.1, law.support()[0][1] + 0.1, 21)
    np.testing.assert_allclose(total.cdf(x), law.cdf(x), atol=2e-3)  # less than half a node
    assert total.index() == pytest.approx(law.index(), abs=2e-4)
    assert np.abs(total.quantiles(100) - quantiles(law, 100)).max() < 0.02 * np.sqrt(total.variance)


def test_atoms_meet_when_their_masses_sum_to_more_than_one():
    law = WishartPlusReluResidual(0.1, 4.0)
    first = MarchenkoPastur(4.0).sample(240, 1)
    residual = np.linalg.eigvalsh(law._residual_matrix(240, np.random.default_rng(0)))
    residual[np.abs(residual) < 1e-9] = 0.0
    total = free_sum(first, residual)
    assert total.atoms() == [(0.0, pytest.approx(0.5))]
    assert total.index() == pytest.approx(0.125, abs=1e-5)
    assert total.cdf(0.5) == pytest.approx(law.cdf(0.5), abs=0.005)


def test_rotated_matrices_are_free_and_aligned_ones_are_not():
    rng = np.random.default_rng(4)
    a = np.concatenate([rng.gamma(0.4, 1.0, 195), [9.0, 14.0, 20.0, 30.0, 45.0]])
    b = rng.normal(0, 0.5, 200) ** 3
    Q, _ = np.linalg.qr(rng.standard_normal((200, 200)))
    total = free_sum(a, b)
    free = density(np.diag(a) + _symmetric(Q @ np.diag(b) @ Q.T))
    aligned = density(np.diag(np.sort(a) + np.sort(b)))
    assert total.distance(free) < 0.02
    assert total.distance(aligned) > 0.05
    assert total.index() == pytest.approx(float(free.cdf(0.0)), abs=0.01)
    assert total.mean == pytest.approx(free.mean)


def _symmetric(A):
    return 0.5 * (A + A.T)


def test_many_nodes_are_joined_without_losing_outliers():
    values = np.sort(np.concatenate([quantiles(Semicircle(), 4000), [50.0]]))
    total = free_sum(values, quantiles(Semicircle(), 2000))
    assert total.first.shape[1] < 800 and total.first[0, -1] == 50.0
    wanted = Semicircle(2.0)
    x = np.linspace(-2.7, 2.7, 15)
    np.testing.assert_allclose(total.cdf(x), wanted.cdf(x) * 4000 / 4001, atol=1e-3)
    assert total.cdf(10.0) == pytest.approx(4000 / 4001, abs=1e-6)


def test_densities_come_in_and_pictures_come_out(tmp_path):
    part = density(torch.diag(torch.linspace(-1, 1, 40, dtype=torch.float64)))
    total = fm.load(free_sum(part, part).save(tmp_path / "sum"))
    line = total.picture().panels[0].marks[0]
    assert float(np.sum(line.y)) == pytest.approx(1.0, abs=0.05)
    assert isinstance(total.cdf(torch.tensor([0.0])), torch.Tensor) and total.kind == "estimate"


def test_a_search_that_does_not_converge_says_where(monkeypatch):
    module = sys.modules["fathometer.spectra.free_sum"]
    monkeypatch.setattr(module, "_NEWTON", 0)
    monkeypatch.setattr(module, "_ROUNDS", 0)
    with pytest.raises(CapabilityError, match=r"did not converge at 1 of 1 points, the first 0\.25"):
        free_sum([-1.0, 1.0], [0.0, 1.0]).cdf(0.25)


@pytest.mark.parametrize(
    ("first", "message"),
    [
        ([], "a has 0 eigenvalues"),
        ([1.0, np.nan], "a has 2 eigenvalues; at least one, and only finite"),
        ("no", "a is a str; pass a SpectralDensity"),
    ],
)
def test_free_sum_refuses_what_is_no_spectrum(first, message):
    with pytest.raises(InputError, match=message):
        free_sum(first, [1.0])
