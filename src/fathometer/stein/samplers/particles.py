"""Particles that move together: Stein variational gradient descent, and descent on the discrepancy.

Stein variational gradient descent (Liu & Wang 2016) moves along

    phi(y) = mean over the particles x of  k(x, y) b(x) + grad_x k(x, y),      y <- y + step * phi(y):

the direction in which the Kullback-Leibler divergence to the target falls fastest, in the kernel's
space. It is the (unnormalized) maximizing function of the kernel Stein discrepancy.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy import optimize

from fathometer.errors import InputError
from fathometer.stein.chains import Chain
from fathometer.stein.gradients import squared_and_gradient
from fathometer.stein.kernels import InverseMultiquadric, read_kernel
from fathometer.stein.sample import Sample, read_sample
from fathometer.stein.samplers.walk import read_step_size, start_walk
from fathometer.stein.targets import read_target
from fathometer.stein.witness import stein_field


def svgd_direction(points: Any, scores: Any, kernel: Any = None) -> Any:
    """The direction phi at every particle: (n, d), numpy or torch as the points are.

    Args:
        points: (n, d).
        scores: (n, d), or a function of the points.
        kernel: As for `ksd`.

    Raises:
        InputError: As for `ksd`.
    """
    sample = read_sample(points, scores)
    return sample.out(_direction(sample, kernel))


def svgd(
    target: Any,
    start: Any,
    steps: int,
    step_size: float,
    *,
    seed: int = 0,
    kernel: Any = None,
    decay: float = 0.9,
) -> Chain:
    """Move particles towards the target.

    Args:
        target: A log density, a `Posterior`, or a ``LossSurface``.
        start: (n, d), the particles at the beginning.
        steps: Steps to take.
        step_size: Length scale of a step, in units of ``start``.
        seed: Not used: the method is deterministic; here for the common signature.
        kernel: As for `ksd`; by default the inverse multiquadric with the median preconditioner of
            the particles, worked out anew in every step.
        decay: Of the running mean of squared directions that scales the step (AdaGrad with
            forgetting, as in the paper); 0 for plain steps.

    Returns:
        A chain whose points (n, d) are the particles after the last step.

    Raises:
        InputError: If an argument is out of range, shapes do not fit, or a particle diverges.
    """
    if not 0 <= decay < 1:
        raise InputError(f"decay is {decay:g}; a number from 0 to below 1 is needed.")
    aim, size = read_target(target), read_step_size(step_size)
    walk = start_walk(aim, start, 1, seed=seed, name="svgd", warmup=0, thin=1)
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise InputError(f"steps is {steps!r}; a whole number, 1 or more, is needed.")
    chosen = InverseMultiquadric(preconditioner="median") if kernel is None else kernel
    running = np.zeros(tuple(walk.x.shape))

    def step(_: int) -> None:
        nonlocal running
        for t in range(steps):
            scores = aim.both(walk.x)[1]
            walk.evaluations += len(walk.x) * aim.examples
            direction = _direction(Sample(points=walk.x.numpy(), scores=scores.numpy()), chosen)
            if decay > 0:
                running = direction**2 if t == 0 else decay * running + (1 - decay) * direction**2
                direction = direction / (1e-12 + np.sqrt(running))
            walk.x = walk.x + size * torch.from_numpy(direction)
            if not torch.isfinite(walk.x).all():
                break

    walk.run(step)
    return _particles(walk.chain(aim, f"SVGD step {size:g}"))


def ksd_descent(
    target: Any,
    start: Any,
    steps: int,
    step_size: float | None = None,
    *,
    seed: int = 0,
    kernel: Any = None,
) -> Chain:
    """Move particles down the squared kernel Stein discrepancy (Korba et al. 2021).

    Unlike `svgd` it has a number that falls, so that a quasi-Newton method can be used and it is known when
    to stop. It needs second derivatives of the log density, and it can stop at points that are
    stationary without being good: on a plane of symmetry between modes, for example.

    Args:
        target: A log density (twice differentiable by torch), a `Posterior`, or a ``LossSurface``.
        start: (n, d), the particles at the beginning.
        steps: Iterations at most.
        step_size: None for L-BFGS, which chooses its own; or that of plain descent (n times the gradient).
        seed: Not used: the method is deterministic; here for the common signature.
        kernel: As for `ksd`, radial; a preconditioner recipe is worked out at the start and held fixed.

    Returns:
        A chain whose points (n, d) are the particles at the end.

    Raises:
        InputError: If an argument is out of range, shapes do not fit, or a particle diverges.
    """
    aim = read_target(target)
    size = None if step_size is None else read_step_size(step_size)
    walk = start_walk(aim, start, steps, seed=seed, name="ksd descent")
    walk.steps = 1
    n, d = walk.x.shape
    w = np.full(n, 1.0 / n)
    fitted = read_kernel(kernel, _sample_at(aim, walk.x.numpy()))

    def both(flat: np.ndarray) -> tuple[float, np.ndarray]:
        walk.evaluations += n * aim.examples
        value, slope = squared_and_gradient(_sample_at(aim, flat.reshape(n, d)), aim, fitted, w)
        return n * value, n * slope.reshape(-1)

    def step(_: int) -> None:
        x = walk.x.numpy().reshape(-1)
        if size is None:
            x = optimize.minimize(both, x, jac=True, method="L-BFGS-B", options={"maxiter": steps}).x
        else:
            for _ in range(steps):
                x = x - size * both(x)[1]
        walk.x = torch.from_numpy(x.reshape(n, d))

    walk.run(step)
    return _particles(walk.chain(aim, "KSD descent, " + ("L-BFGS" if size is None else f"step {size:g}")))


def _sample_at(aim: Any, x: np.ndarray) -> Sample:
    """Points with their scores, checked."""
    return read_sample(x, lambda at: aim.both(torch.from_numpy(at))[1])


def _particles(chain: Chain) -> Chain:
    """One step was recorded of every particle: (n, 1, d) becomes (n, d)."""
    if chain.points.ndim == 2:
        return chain
    return replace(chain, points=chain.points[:, 0], scores=chain.scores[:, 0])


def _direction(sample: Sample, kernel: Any) -> np.ndarray:
    """Phi at every point."""
    weights = np.full(sample.size, 1.0 / sample.size)
    return stein_field(sample, read_kernel(kernel, sample), weights, sample.points)
