"""Langevin steps with the gradient of a random batch: SGLD.

    theta <- theta + step_t / 2 (grad log prior + N / m * batch gradient) + N(0, step_t I)

(Welling & Teh 2011). Every sweep goes through the examples in one random order. At a constant step the
chain is biased, more so the larger the step; at a small one it hardly moves. Which is the
better compromise cannot be seen from effective sample sizes (Gorham & Mackey 2015, sec. 5.2).
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from fathometer.stein.chains import Chain
from fathometer.stein.samplers.walk import Walk, read_batch, read_step_size, start_walk
from fathometer.stein.targets import Posterior, read_target


class Sweeps:
    """Batches of row numbers, a new random order in every sweep, one stream for all chains."""

    def __init__(self, walk: Walk, examples: int, batch_size: int) -> None:
        self._walk, self._examples, self._size = walk, examples, batch_size
        self._queue = torch.empty(len(walk.x), 0, dtype=torch.long)

    def next(self) -> Int[Tensor, "c m"]:
        """The next batch of every chain. A batch that the sweep's end cuts goes on in the next sweep."""
        while self._queue.shape[1] < self._size:
            fresh = torch.stack(
                [torch.randperm(self._examples, generator=self._walk.random) for _ in range(len(self._queue))]
            )
            self._queue = torch.cat([self._queue, fresh], dim=1)
        batch, self._queue = self._queue[:, : self._size], self._queue[:, self._size :]
        return batch


def stochastic_gradient_langevin(
    target: Any,
    start: Any,
    steps: int,
    step_size: float | Callable[[int], float],
    *,
    seed: int = 0,
    batch_size: int | None = None,
    warmup: int = 0,
    thin: int = 1,
) -> Chain:
    """Sample by stochastic gradient Langevin dynamics (SGLD).

    Args:
        target: A `Posterior` or a ``LossSurface``; a log density is treated as a single term.
        start: (d,) or (chains, d).
        steps: Draws to keep of each chain.
        step_size: Variance of the noise of a step; or a function of the step number, for a
            falling sequence.
        seed: Of the random stream.
        batch_size: Examples of a batch, from 1 to N; all of them by default.
        warmup: Steps to leave out first.
        thin: Steps from one kept draw to the next.

    Raises:
        InputError: If an argument is out of range, shapes do not fit, or the chain diverges.
    """
    aim = read_target(target)
    walk = start_walk(aim, start, steps, seed=seed, name="sgld", warmup=warmup, thin=thin)
    batch = read_batch(aim.examples if batch_size is None else batch_size, aim.examples)
    constant = None if callable(step_size) else read_step_size(step_size)
    gradient = _estimate(aim, walk, batch)
    c, d = walk.x.shape

    def step(t: int) -> None:
        size = constant if constant is not None else read_step_size(step_size(t), f"step_size({t})")  # type: ignore[operator]
        walk.x = walk.x + 0.5 * size * gradient() + size**0.5 * walk.noise(c, d)
        walk.evaluations += c * batch

    walk.run(step)
    return walk.chain(aim, f"SGLD step {'schedule' if constant is None else f'{constant:g}'}, batch {batch}")


def _estimate(aim: Any, walk: Walk, batch: int) -> Callable[[], Tensor]:
    """The unbiased gradient of the log posterior at the walk's place."""
    if not isinstance(aim, Posterior) or batch == aim.examples:
        return lambda: aim.both(walk.x)[1]
    sweeps, scale = Sweeps(walk, aim.examples, batch), aim.examples / batch

    def estimate() -> Tensor:
        return aim.prior(walk.x)[1] + scale * aim.batch_gradient(walk.x, sweeps.next())

    return estimate
