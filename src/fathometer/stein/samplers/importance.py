"""Stein Pi-importance sampling: draw from a wider target than p, then weight the draws back.

The best law to draw from, if the draws are then given the weights that make the kernel Stein discrepancy
smallest, is not p but about

    pi(x)  proportional to  p(x) sqrt(k0(x, x)),    k0(x, x) = phi(0) |b(x)|^2 - 2 phi'(0) tr S^-1

(Wang et al. 2023): heavier where scores are large. Its score needs the Hessian of log p along b,

    grad log pi = b + phi(0) H b / k0(x, x).
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fathometer.errors import InputError
from fathometer.stein.chains import Chain
from fathometer.stein.kernels import read_kernel
from fathometer.stein.sample import read_sample
from fathometer.stein.samplers.langevin import langevin
from fathometer.stein.samplers.walk import recorded_scores
from fathometer.stein.targets import Density, read_target
from fathometer.stein.witness import refuse_tilted


def stein_importance(
    target: Any,
    start: Any,
    steps: int,
    step_size: float,
    *,
    seed: int = 0,
    kernel: Any = None,
    preconditioner: Any = None,
    warmup: int = 0,
    thin: int = 1,
) -> Chain:
    """Sample ``p sqrt(k0)`` by MALA; give the draws to `reweight` or `thin` with the same kernel.

    Args:
        target: A log density (twice differentiable by torch), a `Posterior`, or a ``LossSurface``.
        start: (d,) or (chains, d).
        steps: Draws to keep of each chain.
        step_size: As for `langevin`.
        seed: Of the random stream.
        kernel: As for `ksd`, radial; a preconditioner must be a matrix.
        preconditioner: Of the sampler, as for `langevin`.
        warmup: Steps to leave out first.
        thin: Steps from one kept draw to the next.

    Returns:
        The draws, with the scores *of the target p*, so that weights and discrepancies refer to p.

    Raises:
        InputError: As for `langevin`; or the kernel is not radial or has a recipe.
    """
    aim = read_target(target)
    density = importance_density(target, start, kernel)
    chain = langevin(
        density, start, steps, step_size, seed=seed, preconditioner=preconditioner, warmup=warmup, thin=thin
    )
    points = torch.as_tensor(chain.points, dtype=torch.float64)
    scores = recorded_scores(aim, points)
    answer = scores.to(chain.points) if isinstance(chain.points, Tensor) else scores.numpy()
    return Chain(
        points=chain.points,
        scores=answer,
        acceptance=chain.acceptance,
        evaluations=3 * chain.evaluations * aim.examples,
        sampler=f"Stein importance, {chain.sampler}",
    )


def importance_density(target: Any, start: Any, kernel: Any = None) -> Density:
    """The log density ``log p + log k0(x, x) / 2`` as a target of samplers.

    Raises:
        InputError: If the kernel is not radial or has a recipe, or the target has no second derivatives.
    """
    aim = read_target(target)
    if aim.bend is None:
        raise InputError("target has no second derivatives; pass a log density, Posterior or LossSurface.")
    bend = aim.bend
    parts = () if kernel is None else getattr(kernel, "parts", ())
    if any(isinstance(getattr(part, "preconditioner", None), str) for part in parts):
        raise InputError("kernel: a preconditioner recipe needs the sample to be drawn; pass a matrix.")
    place = np.atleast_2d(np.asarray(start, dtype=np.float64))
    fitted = read_kernel(kernel, read_sample(place, np.zeros_like(place)))
    refuse_tilted(fitted)
    profiles = [(radial.profile(np.zeros(1)), radial.trace) for radial in fitted]
    peak = sum(float(value[0]) for (value, _), _ in profiles)
    base = sum(float(-2 * slope[0] * trace) for (_, slope), trace in profiles)

    def both(x: Tensor) -> tuple[Tensor, Tensor]:
        value, b = aim.both(x)
        own = base + peak * b.square().sum(1)
        return value + 0.5 * own.log(), b + peak * bend(x, b) / own[:, None]

    return Density(both=both, dimension=aim.dimension)
