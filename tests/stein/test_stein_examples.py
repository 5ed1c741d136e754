"""The shipped data sets: totals of their source, densities, and what the instrument says of them."""

import numpy as np
import pytest
import torch

import fathometer as fm
from fathometer.stein import check_score, ess, examples, ksd, score


def test_nodal_data_has_the_totals_of_its_source():
    X, r = examples.nodal()
    assert X.shape == (53, 6)
    assert (X[:, 0] == 1).all()
    assert r.sum() == 20  # patients with involved nodes
    assert set(np.unique(X)) == {0.0, 1.0}
    posterior = examples.nodal_posterior()
    theta = torch.tensor([[0.1, -0.3, 0.2, 0.4, 0.0, 0.5]], dtype=torch.float64)
    p = 1 / (1 + np.exp(-X @ theta[0].numpy()))
    expected = np.log(np.where(r == 1, p, 1 - p)).sum() - 0.5 * (theta[0].numpy() ** 2).sum()
    assert float(posterior.both(theta)[0]) == pytest.approx(expected, rel=1e-12)


def test_eight_schools_density_is_the_model():
    from scipy import stats

    y, s = examples._EFFECTS, examples._ERRORS
    rng = np.random.default_rng(0)
    points = rng.normal(size=(4, 10))

    def model(v):
        mu, theta, tau = v[0], v[1:9], np.exp(v[9])
        return (
            stats.norm.logpdf(y, theta, s).sum()
            + stats.norm.logpdf(theta, mu, tau).sum()
            + stats.norm.logpdf(mu, 0, 5)
            + stats.halfcauchy.logpdf(tau, scale=5)
            + v[9]
        )

    ours = [float(examples.eight_schools_log_density(torch.tensor(v))) for v in points]
    theirs = [model(v) for v in points]
    np.testing.assert_allclose(np.diff(ours), np.diff(theirs), rtol=1e-10)
    assert (
        check_score(examples.eight_schools_log_density, score(examples.eight_schools_log_density), points)
        < 1e-6
    )


def test_the_instrument_tells_the_centered_chains_from_the_others():
    logp = score(examples.eight_schools_log_density)
    values, sizes = {}, {}
    with pytest.warns(fm.TheoryWarning, match="scores fade"):  # half-Cauchy: tau has a heavy tail
        for name in examples.PARAMETRIZATIONS:
            draws = examples.eight_schools(name)
            assert draws.shape == (4, 500, 10)
            values[name], sizes[name] = ksd(draws, logp(draws)).ratio, ess(draws)[9]
    assert values["centered"] > 1.5 * values["non_centered"]
    assert sizes["centered"] < sizes["non_centered"]
    with pytest.raises(fm.InputError, match="it is centered or non_centered"):
        examples.eight_schools("other")
