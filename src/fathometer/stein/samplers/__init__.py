"""Samplers, exact and biased, for log densities, posteriors of many terms, and loss surfaces.

All share one signature, ``sampler(target, start, steps, step_size, *, seed=0, ...) -> Chain``.
A target is a function of one point (d,) that gives the log density by torch operations, a
`Posterior`, or a ``LossSurface`` (its posterior at temperature 1 under a standard Gaussian
prior; `SurfacePosterior` sets both). ``start`` is (d,), or (chains, d) for several chains at once.

The step size is that of Welling & Teh 2011 everywhere: a Langevin step adds
``step_size / 2`` times the score and Gaussian noise of variance ``step_size``.
"""

from fathometer.stein.samplers.fisher import fisher_scoring
from fathometer.stein.samplers.importance import stein_importance
from fathometer.stein.samplers.langevin import langevin
from fathometer.stein.samplers.particles import ksd_descent, svgd, svgd_direction
from fathometer.stein.samplers.sequential import approximate_metropolis, approximate_slice
from fathometer.stein.samplers.stochastic import stochastic_gradient_langevin

__all__ = [
    "approximate_metropolis",
    "approximate_slice",
    "fisher_scoring",
    "ksd_descent",
    "langevin",
    "stein_importance",
    "stochastic_gradient_langevin",
    "svgd",
    "svgd_direction",
]
