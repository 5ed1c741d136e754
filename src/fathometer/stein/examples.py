"""Two small data sets for examples and reproductions, shipped with the package.

`nodal`: 53 prostate cancer patients (Brown 1980; Davison & Hinkley 1997), as in the R package boot. The
posterior of the logistic regression is the third experiment of Gorham & Mackey 2015.

`eight_schools`: coaching effects in eight schools (Rubin 1981) and draws of PyMC in two
parametrizations, 4 chains of 500, as they come with ArviZ (float32, tau as its logarithm). The
centered chains do not reach the neck of the funnel; the non-centered ones do.
"""

from importlib.resources import files

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fathometer.errors import InputError
from fathometer.stein.targets import Posterior

_EFFECTS = (28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0)
_ERRORS = (15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0)
PARAMETRIZATIONS = ("centered", "non_centered")


def nodal() -> tuple[Float[np.ndarray, "53 6"], Float[np.ndarray, " 53"]]:
    """Covariates (intercept, aged, stage, grade, xray, acid) and nodal involvement (0 or 1)."""
    text = (files("fathometer.stein") / "data" / "nodal.csv").read_text(encoding="utf-8")
    table = np.array([line.split(",") for line in text.splitlines()[1:]], dtype=np.float64)
    return np.delete(table, 1, axis=1), table[:, 1].copy()


def nodal_posterior() -> Posterior:
    """Logistic regression of the nodal data under a standard Gaussian prior, d = 6."""
    X, r = (torch.from_numpy(v) for v in nodal())

    def terms(theta: Tensor, rows: Tensor) -> Tensor:
        logits = X[rows] @ theta
        return r[rows] * logits - torch.nn.functional.softplus(logits)

    return Posterior(lambda theta: -0.5 * (theta**2).sum(), terms, len(r))


def eight_schools(parametrization: str = "centered") -> Float[np.ndarray, "4 500 10"]:
    """Draws (chain, draw, 10): mu, theta of the eight schools, and log tau.

    Args:
        parametrization: "centered" or "non_centered": how the sampler saw the model. The
            coordinates and the target are the same.

    Raises:
        InputError: If it is another name.
    """
    if parametrization not in PARAMETRIZATIONS:
        raise InputError(f"parametrization is {parametrization!r}; it is {' or '.join(PARAMETRIZATIONS)}.")
    with (files("fathometer.stein") / "data" / "eight_schools.npz").open("rb") as file:
        return np.load(file, allow_pickle=False)[parametrization].astype(np.float64)


def eight_schools_log_density(point: Float[Tensor, " 10"]) -> Tensor:
    """Log posterior density of (mu, theta_1 ... theta_8, log tau), up to a constant.

    The effects are N(theta, error^2), theta is N(mu, tau^2), mu is N(0, 5^2) and tau half-Cauchy of
    scale 5; the Jacobian of the logarithm is included.
    """
    effects, errors = (torch.tensor(v, dtype=point.dtype) for v in (_EFFECTS, _ERRORS))
    mu, theta, log_tau = point[0], point[1:9], point[9]
    likelihood = -0.5 * ((effects - theta) / errors).square().sum()
    schools = -0.5 * ((theta - mu) * torch.exp(-log_tau)).square().sum() - 8 * log_tau
    prior = -0.5 * (mu / 5).square() - torch.log1p((torch.exp(log_tau) / 5) ** 2)
    return likelihood + schools + prior + log_tau
