"""Stochastic gradient Fisher scoring (Ahn, Korattikara & Welling 2012): SGFS-f and SGFS-d.

The covariance of the gradients of single examples estimates the Fisher information I of one
example, and the step is preconditioned by it. With batches of n out of N examples,
``gamma = (n + N) / n`` and ``B = gamma N I_t``,

    theta <- theta + 2 (gamma N I_t + 4 B / step)^-1 (gradient + noise),  noise ~ N(0, 4 B / step),

where ``I_t`` averages the covariances of the batches so far with weights 1 / t. The full form
keeps the matrix, the diagonal one only its diagonal, which makes it fast and lets it sample wrong
correlations at large steps.
"""

from typing import Any, Literal

import torch
from torch import Tensor

from fathometer.errors import InputError
from fathometer.stein.chains import Chain
from fathometer.stein.samplers.stochastic import Sweeps
from fathometer.stein.samplers.walk import read_batch, read_step_size, start_walk
from fathometer.stein.targets import read_posterior

FORMS = ("full", "diagonal")
_BATCH = 10


def fisher_scoring(
    target: Any,
    start: Any,
    steps: int,
    step_size: float,
    *,
    seed: int = 0,
    batch_size: int | None = None,
    form: Literal["full", "diagonal"] = "full",
    warmup: int = 0,
    thin: int = 1,
) -> Chain:
    """Sample by stochastic gradient Fisher scoring.

    Args:
        target: A `Posterior` or a ``LossSurface``.
        start: (d,) or (chains, d).
        steps: Draws to keep of each chain.
        step_size: The paper's epsilon; small is accurate, large moves like a Laplace approximation.
        seed: Of the random stream.
        batch_size: Examples of a batch, from 2 to N; 10 or all, if there are fewer, by default.
        form: "full" (SGFS-f) or "diagonal" (SGFS-d).
        warmup: Steps to leave out first.
        thin: Steps from one kept draw to the next.

    Raises:
        InputError: If an argument is out of range, shapes do not fit, the target has no terms, or
            the chain diverges.
    """
    if form not in FORMS:
        raise InputError(f'form is {form!r}; it is "full" (SGFS-f) or "diagonal" (SGFS-d).')
    aim = read_posterior(target)
    size = read_step_size(step_size)
    walk = start_walk(aim, start, steps, seed=seed, name="sgfs", warmup=warmup, thin=thin)
    c, d = walk.x.shape
    N = aim.examples
    if N < 2:
        raise InputError("target: fisher_scoring needs the terms of at least 2 examples; pass a Posterior.")
    batch = min(_BATCH, N) if batch_size is None else read_batch(batch_size, N)
    if batch < 2:
        raise InputError("batch_size is 1; a covariance needs at least 2 examples.")
    sweeps, gamma = Sweeps(walk, N, batch), (batch + N) / batch
    information = torch.zeros(c, d, d, dtype=torch.float64)

    def step(t: int) -> None:
        rows, prior, noise = sweeps.next(), aim.prior(walk.x)[1], walk.noise(c, d)
        moved = []
        for i in range(c):
            each = aim.each_gradient(walk.x[i], rows[i])
            spread = each - each.mean(0)
            information[i] += (spread.T @ spread / (batch - 1) - information[i]) / (t + 1)
            gradient = prior[i] + N * each.mean(0)
            moved.append(walk.x[i] + _move(gamma * N * information[i], gradient, noise[i], size, form))
        walk.x = torch.stack(moved)
        walk.evaluations += c * batch

    walk.run(step)
    letter = "f" if form == "full" else "d"
    return walk.chain(aim, f"SGFS-{letter} step {size:g}, batch {batch}")


def _move(B: Tensor, gradient: Tensor, noise: Tensor, size: float, form: str) -> Tensor:
    """One preconditioned step with noise of covariance 4 B / size."""
    scale = (4.0 / size) ** 0.5
    if form == "diagonal":
        diagonal = B.diagonal().clamp(min=1e-300)
        return 2 * (gradient + scale * diagonal.sqrt() * noise) / (diagonal * (1 + 4.0 / size))
    # few batches give a singular matrix: the directions it has not seen do not move yet
    values, vectors = torch.linalg.eigh(B)
    seen = values > 1e-12 * values[-1]
    root = vectors[:, seen] * values[seen].sqrt()
    push = gradient + scale * root @ noise[: int(seen.sum())]
    return 2 * (vectors[:, seen] / values[seen]) @ (vectors[:, seen].T @ push) / (1 + 4.0 / size)
