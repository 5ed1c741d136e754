"""Outliers of the laws against matrices with a spike in them."""

import math

import numpy as np
import pytest

from fathometer.errors import InputError
from fathometer.spectra import (
    MarchenkoPastur,
    Semicircle,
    WishartPlusReluResidual,
    WishartPlusWigner,
    free_sum,
)
from fathometer.spectra.spikes import outlier

P = 600


def symmetric(variance, random):
    A = random.standard_normal((P, P))
    return (A + A.T) * math.sqrt(variance / 2 / P)


@pytest.mark.parametrize("spike", [1.5, 3.0, -2.0])
def test_a_matrix_of_rank_one_shows_outside_the_semicircle(spike):
    H = symmetric(1.0, np.random.default_rng(0))
    H[0, 0] += spike
    values = np.linalg.eigvalsh(H)
    assert values[-1 if spike > 0 else 0] == pytest.approx(outlier(Semicircle(1.0), spike), abs=0.12)


@pytest.mark.parametrize("spike", [4.0, 0.1])
def test_a_spike_of_the_covariance_shows_outside_marchenko_pastur(spike):
    phi = 0.25
    X = np.random.default_rng(1).standard_normal((P, int(P / phi)))
    X[0] *= math.sqrt(spike)
    values = np.linalg.eigvalsh(X @ X.T / X.shape[1])
    assert values[-1 if spike > 1 else 0] == pytest.approx(outlier(MarchenkoPastur(phi), spike), rel=0.05)


@pytest.mark.parametrize("kind", [WishartPlusWigner, WishartPlusReluResidual])
@pytest.mark.parametrize("spike", [2.5, 4.0])
def test_an_eigenvalue_of_the_first_part_shows_in_the_sum(kind, spike):
    law, random = kind(0.4, 0.25), np.random.default_rng(2)
    first = MarchenkoPastur(0.25).sample(P, 0)
    first[-1] = spike
    H1 = law._residual_matrix(P, random)
    Q = np.linalg.qr(random.standard_normal((P, P)))[0]
    top = np.linalg.eigvalsh(np.diag(first) + Q @ H1 @ Q.T)[-1]
    found, edge = outlier(law, spike), law.support()[-1][1]
    if math.isnan(found):
        assert top == pytest.approx(edge, abs=0.15)
    else:
        assert top == pytest.approx(found, abs=0.12) and found > edge
    assert math.isnan(outlier(law, 1.0))  # inside the band of the first part


def test_an_outlier_detaches_exactly_at_the_edge():
    law = WishartPlusWigner(0.4, 0.25)
    edge = law.support()[-1][1]
    spikes = np.linspace(2.26, 5.0, 2000)
    found = outlier(law, spikes)
    first = found[~np.isnan(found)][0]
    assert first == pytest.approx(edge, abs=1e-5) and np.isnan(found[0])
    assert (np.diff(found[~np.isnan(found)]) > 0).all()


@pytest.mark.parametrize(
    ("law", "spike", "message"),
    [
        (Semicircle(), math.inf, "spike holds a number that is not"),
        (free_sum([0.0], [1.0]), 1.0, "law is a FreeSum"),
    ],
)
def test_outliers_refuse_what_has_no_meaning(law, spike, message):
    with pytest.raises(InputError, match=message):
        outlier(law, spike)
