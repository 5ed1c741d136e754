"""Comparisons against matrices drawn from the laws and networks measured by other means."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import fathometer as fm
from fathometer.errors import InputError, TheoryWarning
from fathometer.linalg import as_operator
from fathometer.spectra import MarchenkoPastur, Semicircle, WishartPlusWigner, compare, density
from fathometer.spectra.compare import ks_distance, wasserstein_distance
from fathometer.spectra.density import of_eigenvalues


class Ensemble:
    """A surface whose Hessian is drawn from the general law with scale ``unit``: two outputs an example."""

    loss = "half_mse"

    def __init__(self, P, energy, phi, unit):
        rng = np.random.default_rng(2)
        m = 2 * round(P / phi / 2)
        X = rng.standard_normal((P, m))
        W = rng.standard_normal((P, P))
        self.size, self.count, self.examples, self._energy = P, float(m), m // 2, energy
        # the paper's loss sums over the two outputs, the surface's takes their mean
        self.H0 = torch.from_numpy(0.5 * unit * X @ X.T / m)
        self.H1 = torch.from_numpy(0.5 * (W + W.T) * np.sqrt(energy / P))

    def double(self):
        return self

    def energy(self):
        return torch.tensor(self._energy, dtype=torch.float64)

    def gradient(self):
        return torch.zeros(self.size)

    def gauss_newton(self):
        return as_operator(self.H0)

    def hessian(self):
        return as_operator(self.H0 + self.H1)


@pytest.mark.parametrize(("unit", "scale", "probes"), [(1.0, 1.0, 10), (7.0, 2.0, 10), (7.0, 1.0, 3)])
def test_a_hessian_of_the_law_is_close_to_the_law_at_any_scale(probes, unit, scale):
    found = compare(Ensemble(300, 0.3 * unit**2, 0.5, unit), probes=probes, steps=60, scale=scale)
    exact = probes == 10
    assert (found.kind == "exact") == exact
    row = found.rows[0]
    assert row.law == "wigner" and row.ks == found.value
    assert found.natural_scale == pytest.approx(unit, rel=0.02)
    assert found.normalized_energy == pytest.approx(0.3 * scale**2, rel=0.03)
    assert found.energy == pytest.approx(0.3 * unit**2)
    assert row.ks < (0.02 if exact else 0.09) and row.wasserstein < (0.03 if exact else 0.15) * scale
    assert found.measured_index == pytest.approx(row.index, abs=0.02 if exact else found.error)
    assert found.residual_variance == pytest.approx(row.residual_variance, rel=0.05)
    assert found.freeness < 0.02 if exact else np.isnan(found.freeness)
    assert row.outliers_above < 1 and row.outliers_below < 1 and len(found.outliers) == 0
    assert found.rows[1].ks > 0.1  # the other law does not fit, and that is seen


def test_a_known_spectrum_is_used_as_it_is():
    surface = Ensemble(300, 0.3, 0.5, unit=1.0)
    values = torch.linalg.eigvalsh(surface.H0 + surface.H1).numpy()
    found = compare(surface, known=of_eigenvalues(values))
    assert found.kind == "exact" and found.error == 0.0
    np.testing.assert_allclose(found.density.points[0], values * found.normalization, rtol=1e-12, atol=1e-12)
    assert found.value == pytest.approx(compare(surface).value, abs=0.01)


def test_a_spike_is_counted_as_an_outlier():
    surface = Ensemble(150, 0.1, 0.5, unit=1.0)
    surface.H0[0, 0] += 20.0
    found = compare(surface)
    assert found.rows[0].outliers_above == pytest.approx(1.0) and len(found.outliers) == 1
    assert found.outliers[0] > 30 / 1.2


@pytest.mark.parametrize("loss", ["mse", "half_mse"])
def test_energy_and_aspect_ratio_follow_from_the_loss(loss):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    x, y = torch.randn(30, 4, dtype=torch.float64), torch.randn(30, 3, dtype=torch.float64)
    found = compare(fm.LossSurface(model, loss, (x, y)), scale=2.0)
    P = sum(p.numel() for p in model.parameters())
    assert found.energy == pytest.approx(float(0.5 * (model(x) - y).detach().square().mean()))
    assert found.aspect_ratio == pytest.approx(P / 90)
    assert found.gauss_newton.mean == pytest.approx(2.0) and found.scale == 2.0
    assert any("half the loss" in note for note in found.notes) == (loss == "mse")


def test_cross_entropy_says_what_its_energy_means():
    torch.manual_seed(0)
    model = nn.Linear(4, 3).double()
    x, y = torch.randn(30, 4, dtype=torch.float64), torch.randint(0, 3, (30,))
    surface = fm.LossSurface(model, "cross_entropy", (x, y))
    with pytest.warns(TheoryWarning, match="laws are about squared errors; for cross_entropy"):
        found = compare(surface)
    residual = model(x).softmax(1) - nn.functional.one_hot(y, 3)
    assert found.energy == pytest.approx(float(0.5 * residual.detach().square().mean()))
    assert found.aspect_ratio == pytest.approx(15 / 90)
    assert found.residual_variance == pytest.approx(0.0, abs=1e-20)  # a linear model has no residual part


def test_distances_are_zero_for_the_quantiles_of_the_law_and_known_for_shifts():
    law = Semicircle()
    fine = np.linspace(-2, 2, 200_001)
    quantiles = np.interp((np.arange(1000) + 0.5) / 1000, law.cdf(fine), fine)
    assert ks_distance(of_eigenvalues(quantiles), law) == pytest.approx(0.0005, rel=0.01)
    assert wasserstein_distance(of_eigenvalues(quantiles), law) < 2e-3
    assert wasserstein_distance(of_eigenvalues(quantiles + 0.3), law) == pytest.approx(0.3, rel=1e-2)


def test_the_atom_of_a_singular_law_counts_on_both_sides():
    law = MarchenkoPastur(4.0)
    assert ks_distance(of_eigenvalues(law.sample(400, 1)), law) < 0.01
    zeros = of_eigenvalues(np.zeros(10))
    assert ks_distance(zeros, law) == pytest.approx(0.25)
    assert ks_distance(of_eigenvalues(np.full(10, -1.0)), law) == 1.0


def test_a_comparison_draws_the_law_in_shares_of_the_same_bins(tmp_path):
    found = compare(Ensemble(150, 0.3, 0.5, unit=1.0))
    again = fm.load(found.save(tmp_path / "c"))
    bars, first, *_ = again.picture().panels[0].marks
    law = WishartPlusWigner(found.normalized_energy, 0.5)
    assert float(np.nansum(first.y)) == pytest.approx(1.0, abs=1e-6)
    shares = np.diff(law.cdf(bars.edges))
    np.testing.assert_allclose(first.y, shares[shares > 0], atol=1e-12)
    assert "wigner" in str(again) and len(again.table()) == 2


def test_compare_refuses_what_it_cannot_normalize():
    with pytest.raises(InputError, match="surface is a ndarray; pass a LossSurface"):
        compare(np.eye(3))
    dead = Ensemble(20, 0.1, 0.5, unit=1.0)
    dead.H0 *= 0
    with pytest.raises(InputError, match="trace of the Gauss-Newton part is 0"):
        compare(dead)
    with pytest.raises(InputError, match=r"known is .*; a spectrum of the surface's 20 x 20 Hessian"):
        compare(Ensemble(20, 0.1, 0.5, unit=1.0), known=of_eigenvalues(np.ones(3)))
    with pytest.raises(InputError, match="scale is -1"):
        compare(dead, scale=-1.0)


def test_a_sampled_spectrum_is_used_as_it_is_and_what_is_sampled_beside_it_says_its_error():
    class ByProducts(Ensemble):
        """The same, without its matrices in sight."""

        def gauss_newton(self):
            return replace(super().gauss_newton(), dense=None)

        def hessian(self):
            return replace(super().hessian(), dense=None)

    surface = ByProducts(600, 0.3, 0.5, unit=1.0)  # smaller ones are written down
    sampled = density(surface.hessian(), 4, 20, seed=1, method="lanczos")
    found = compare(surface, known=sampled, max_products=40)
    assert found.kind == "estimate" and found.density.products == 0
    np.testing.assert_allclose(found.density.points[0], sampled.points[0] * found.normalization, rtol=1e-12)
    truth = float((surface.H1 * found.normalization).square().sum()) / 600
    assert found.residual_variance == pytest.approx(truth, rel=0.3)
    assert [note for note in found.notes if "variance of the residual part, with a relative standard" in note]
