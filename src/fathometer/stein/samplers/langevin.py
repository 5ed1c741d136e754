"""Langevin samplers with exact scores: MALA and, without the Metropolis step, ULA.

One step proposes ``x + step/2 S b(x) + sqrt(step) S^(1/2) noise`` with the score b. MALA accepts
it with the ratio of densities *and* of proposal densities (Roberts & Tweedie 1996), so that
the target is its exact stationary law at any step size. ULA accepts always and is biased.
"""

from typing import Any

import torch
from torch import Tensor

from fathometer.stein.chains import Chain
from fathometer.stein.kernels import preconditioner_matrix
from fathometer.stein.sample import Sample
from fathometer.stein.samplers.walk import read_step_size, start_walk
from fathometer.stein.targets import read_target


def langevin(
    target: Any,
    start: Any,
    steps: int,
    step_size: float,
    *,
    seed: int = 0,
    metropolis: bool = True,
    preconditioner: Any = None,
    warmup: int = 0,
    thin: int = 1,
) -> Chain:
    """Sample by Langevin steps, with (MALA) or without (ULA) a Metropolis step.

    Args:
        target: A log density, a `Posterior`, or a ``LossSurface``.
        start: (d,) or (chains, d).
        steps: Draws to keep of each chain.
        step_size: Variance of the noise of a step, in units of ``start`` squared.
        seed: Of the random stream.
        metropolis: Whether proposals are accepted or refused (MALA); the default.
        preconditioner: Positive definite matrix S (d, d); identity by default.
        warmup: Steps to leave out first.
        thin: Steps from one kept draw to the next.

    Raises:
        InputError: If an argument is out of range, shapes do not fit, or the chain diverges.

    >>> chain = langevin(lambda x: -0.5 * (x**2).sum(), [0.0, 0.0], 50, 0.5, seed=1)
    >>> chain.points.shape, 0 < chain.acceptance <= 1
    ((50, 2), True)
    """
    aim = read_target(target)
    size = read_step_size(step_size)
    walk = start_walk(aim, start, steps, seed=seed, name="langevin", warmup=warmup, thin=thin)
    c, d = walk.x.shape
    factor = _factor(preconditioner, walk.x)
    value, slope = aim.both(walk.x)

    def drift(b: Tensor) -> Tensor:
        return 0.5 * size * (b if factor is None else b @ factor @ factor.T)

    def whitened(v: Tensor) -> Tensor:
        return v if factor is None else torch.linalg.solve_triangular(factor, v.T, upper=False).T

    def step(_: int) -> None:
        nonlocal value, slope
        noise = walk.noise(c, d)
        proposal = walk.x + drift(slope) + size**0.5 * (noise if factor is None else noise @ factor.T)
        new_value, new_slope = aim.both(proposal)
        walk.evaluations += c * aim.examples
        walk.proposed += c
        if not metropolis:
            walk.x, value, slope = proposal, new_value, new_slope
            walk.accepted += c
            return
        back = whitened(walk.x - proposal - drift(new_slope)).square().sum(1)
        ratio = new_value - value - back / (2 * size) + 0.5 * noise.square().sum(1)
        accept = walk.uniform(c).log() < ratio.nan_to_num(nan=-float("inf"))
        accept &= torch.isfinite(proposal).all(1) & torch.isfinite(new_slope).all(1)
        walk.x = torch.where(accept[:, None], proposal, walk.x)
        slope = torch.where(accept[:, None], new_slope, slope)
        value = torch.where(accept, new_value, value)
        walk.accepted += float(accept.sum())

    walk.run(step)
    return walk.chain(aim, f"{'MALA' if metropolis else 'ULA'} step {size:g}")


def _factor(preconditioner: Any, x: Tensor) -> Tensor | None:
    """Lower Cholesky factor of the preconditioner."""
    if preconditioner is None:
        return None
    points = x.numpy()
    matrix = preconditioner_matrix(preconditioner, Sample(points=points, scores=points))
    return None if matrix is None else torch.linalg.cholesky(torch.from_numpy(matrix))
