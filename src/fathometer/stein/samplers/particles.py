"""Stein variational gradient descent: particles that move together (Liu & Wang 2016).

    phi(y) = mean over the particles x of  k(x, y) b(x) + grad_x k(x, y),      y <- y + step * phi(y):

the direction in which the Kullback-Leibler divergence to the target falls fastest, in the kernel's
space. It is the (unnormalized) maximizing function of the kernel Stein discrepancy.
"""

from typing import Any

import numpy as np
import torch

from fathometer.errors import InputError
from fathometer.stein.chains import Chain
from fathometer.stein.kernels import InverseMultiquadric, read_kernel
from fathometer.stein.sample import Sample, read_sample
from fathometer.stein.samplers.walk import read_step_size, start_walk
from fathometer.stein.targets import read_target


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
    chain = walk.chain(aim, f"SVGD step {size:g}")
    return (
        chain
        if chain.points.ndim == 2
        else Chain(
            points=chain.points[:, 0],
            scores=chain.scores[:, 0],
            acceptance=1.0,
            evaluations=chain.evaluations,
            sampler=chain.sampler,
        )
    )


def _direction(sample: Sample, kernel: Any) -> np.ndarray:
    """Phi at every point, a strip of points at a time."""
    n, d = sample.points.shape
    fitted = read_kernel(kernel, sample)
    direction = np.zeros((n, d))
    center = sample.points - sample.points.mean(0)
    for radial in fitted:
        Z = center if radial.factor is None else center @ radial.factor
        Y = center if radial.inverse is None else center @ radial.inverse
        square = np.square(Z).sum(1)
        for start in range(0, n, 256):
            rows = slice(start, min(start + 256, n))
            r2 = np.clip(square[rows, None] + square - 2 * Z[rows] @ Z.T, 0, None)
            value, slope = radial.profile(r2)
            # grad_x k(x, y) = 2 phi' S^-1 (x - y)
            direction[rows] += value @ sample.scores + 2 * (slope @ Y - slope.sum(1, keepdims=True) * Y[rows])
    return direction / n
