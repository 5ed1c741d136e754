"""Effective sample size and R-hat against closed forms and ArviZ; files and objects of other programs."""

import numpy as np
import pytest

import fathometer as fm
from fathometer.stein import draws_of, ess, ksd, read_cmdstan, rhat


def autoregression(phi, chains, draws, seed=0):
    rng = np.random.default_rng(seed)
    x = np.empty((chains, draws))
    x[:, 0] = rng.normal(size=chains)
    for t in range(1, draws):
        x[:, t] = phi * x[:, t - 1] + np.sqrt(1 - phi**2) * rng.normal(size=chains)
    return x


@pytest.mark.parametrize("phi", [-0.4, 0.0, 0.5, 0.9])
def test_effective_size_of_an_autoregression_has_its_closed_form(phi):
    x = autoregression(phi, 4, 20_000)
    assert ess(x[..., None])[0] / x.size == pytest.approx((1 - phi) / (1 + phi), rel=0.1)


def test_effective_size_and_rhat_agree_with_arviz():
    az = pytest.importorskip("arviz")
    for phi in (0.0, 0.6, 0.95):
        x = autoregression(phi, 4, 1000, seed=1)
        assert ess(x[..., None])[0] == pytest.approx(az.ess(x, method="mean"), rel=0.05)
        assert rhat(x[..., None])[0] == pytest.approx(az.rhat(x, method="split"), rel=1e-10)


def test_rhat_sees_chains_that_disagree():
    x = autoregression(0.3, 4, 500)
    assert rhat(x[..., None])[0] == pytest.approx(1.0, abs=0.02)
    x[0] += 3
    assert rhat(x[..., None])[0] > 1.3
    frozen = np.zeros((2, 8, 2))
    frozen[1, :, 1] = 1.0
    np.testing.assert_array_equal(rhat(frozen), [1.0, np.inf])
    np.testing.assert_array_equal(ess(frozen[:, :, :1]), [16.0])


def test_too_few_or_broken_draws_are_refused():
    with pytest.raises(fm.InputError, match="at least 4 draws"):
        ess(np.zeros((3, 2)))
    with pytest.raises(fm.InputError, match="draws hold nan in row 2"):
        rhat([0.0, 1.0, np.nan, 2.0])


def test_arviz_objects_are_read_variable_by_variable():
    az = pytest.importorskip("arviz")
    rng = np.random.default_rng(0)
    mu, theta = rng.normal(size=(2, 5)), rng.normal(size=(2, 5, 3))
    data = az.from_dict({"mu": mu, "theta": theta})
    draws = draws_of(data)
    assert draws.shape == (2, 5, 4)
    np.testing.assert_array_equal(draws[..., 0], mu)
    np.testing.assert_array_equal(draws[..., 1:], theta)
    np.testing.assert_array_equal(draws_of(data, ["theta"]), theta)
    np.testing.assert_array_equal(draws_of(data.posterior, ["mu"])[..., 0], mu)
    flat = draws.reshape(10, 4)
    assert ksd(data, lambda x: -x).value == ksd(flat, -flat).value
    assert ess(data).shape == (4,)
    with pytest.raises(fm.InputError, match="there is no 'tau'; the group has mu, theta"):
        draws_of(data, ["tau"])
    with pytest.raises(fm.InputError, match=r"mean has dimensions .*; chain and draw are needed"):
        draws_of(data.posterior.assign(mean=3.0), ["mean"])
    with pytest.raises(fm.InputError, match="holds no variable"):
        draws_of(data.posterior[[]])


def test_data_trees_are_read():
    xarray = pytest.importorskip("xarray")
    if not hasattr(xarray, "DataTree"):
        pytest.skip("this xarray has no DataTree")
    mu = np.arange(10.0).reshape(2, 5)
    tree = xarray.DataTree.from_dict({"posterior": xarray.Dataset({"mu": (("chain", "draw"), mu)})})
    np.testing.assert_array_equal(draws_of(tree)[..., 0], mu)


CSV = """# method = sample (Default)
#   num_warmup = 2
#   save_warmup = {saved}
#   thin = 1 (Default)
lp__,accept_stat__,mu,theta.1,theta.2
# Adaptation terminated
-1,0.9,9,9,9
-1,0.9,8,8,8
-1,0.9,0.5,1.5,2.5
-2,0.8,1,2,3
# Elapsed Time: 0.1 seconds
"""


def test_cmdstan_files_are_read_without_warmup_and_sampler_columns(tmp_path):
    paths = []
    for i in range(2):
        paths.append(tmp_path / f"out-{i}.csv")
        paths[-1].write_text(CSV.format(saved="1"))
    draws, names = read_cmdstan(paths)
    assert names == ["mu", "theta.1", "theta.2"]
    np.testing.assert_array_equal(draws, np.tile([[0.5, 1.5, 2.5], [1, 2, 3]], (2, 1, 1)))
    draws, names = read_cmdstan(paths[0], ["theta", "mu"])
    assert names == ["theta.1", "theta.2", "mu"]
    np.testing.assert_array_equal(draws[0, 0], [1.5, 2.5, 0.5])
    paths[0].write_text(CSV.format(saved="0 (Default)"))
    assert read_cmdstan(paths[0])[0].shape == (1, 4, 3)


def test_broken_cmdstan_files_are_refused(tmp_path):
    good, other, empty, broken = (tmp_path / f"{k}.csv" for k in "goeb")
    good.write_text(CSV.format(saved="1"))
    other.write_text(CSV.format(saved="0"))
    empty.write_text("# only comments\n")
    broken.write_text("mu,tau\n1,2\n1,x\n")
    cases = [
        ([], "paths is empty"),
        (tmp_path / "none.csv", "cannot be read as text"),
        (empty, "no header and no draws"),
        (broken, "not every row holds 2 numbers"),
        ([good, other], "chains must match"),
    ]
    for paths, message in cases:
        with pytest.raises(fm.InputError, match=message):
            read_cmdstan(paths)
    with pytest.raises(fm.InputError, match="is a model variable"):
        read_cmdstan(good, ["tau"])
