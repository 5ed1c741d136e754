"""What every sampler of this folder does around its step: read the start, keep, stop, report."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fathometer.errors import InputError
from fathometer.stein.chains import Chain
from fathometer.stein.sample import as_array, refuse_non_finite
from fathometer.stein.targets import Density, Posterior
from fathometer.work import check_seed, generator

_RECORD = 256


@dataclass(kw_only=True)
class Walk:
    """The state of a run of one or several chains side by side.

    Attributes:
        x: (chains, d) where they are, float64.
        steps, warmup, thin: Steps to keep, to leave out first, and from kept to kept.
        random: The stream of the run.
        accepted, proposed, evaluations: Counts.
    """

    x: Float[Tensor, "c d"]
    steps: int
    warmup: int
    thin: int
    random: torch.Generator
    single: bool
    like: Tensor | None
    accepted: float = 0.0
    proposed: float = 0.0
    evaluations: int = 0
    kept: list[Tensor] = field(default_factory=list)

    def noise(self, *shape: int) -> Tensor:
        """Standard normal numbers."""
        return torch.randn(*shape, generator=self.random, dtype=torch.float64)

    def uniform(self, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1)."""
        return torch.rand(*shape, generator=self.random, dtype=torch.float64)

    def run(self, step: Callable[[int], None]) -> None:
        """Take the steps, keep what is to be kept, and stop where the numbers end.

        Raises:
            InputError: If a chain leaves the finite numbers.
        """
        for t in range(self.warmup + self.steps * self.thin):
            step(t)
            if not torch.isfinite(self.x).all():
                raise InputError(
                    f"step_size is too large for this target: the chain left the finite numbers in step {t}."
                )
            if t >= self.warmup and (t - self.warmup + 1) % self.thin == 0:
                self.kept.append(self.x.clone())

    def chain(self, target: Density | Posterior, sampler: str) -> Chain:
        """The answer, with the whole target's score at every kept point."""
        points = torch.stack(self.kept, dim=1)
        scores = recorded_scores(target, points)
        return Chain(
            points=self._out(points),
            scores=self._out(scores),
            acceptance=self.accepted / self.proposed if self.proposed else 1.0,
            evaluations=self.evaluations,
            sampler=sampler,
        )

    def _out(self, values: Tensor) -> Any:
        answer = values[0] if self.single else values
        return answer.numpy() if self.like is None else answer.to(self.like)


def recorded_scores(target: Density | Posterior, points: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
    """The whole target's score at every point, some hundred points at a time."""
    flat = points.reshape(-1, points.shape[-1])
    return torch.cat([target.both(part)[1] for part in flat.split(_RECORD)]).reshape(points.shape)


def start_walk(
    target: Density | Posterior,
    start: Any,
    steps: int,
    *,
    seed: int,
    name: str,
    warmup: int = 0,
    thin: int = 1,
) -> Walk:
    """Check what all samplers take.

    Raises:
        InputError: If the start is not (d,) or (chains, d), finite and of the target's
            dimension, or a count is not a whole number in range.
    """
    x = as_array(start, name="start")
    single = x.ndim <= 1
    x = x.reshape(1, -1) if single else x
    if x.ndim != 2 or x.size == 0:
        raise InputError(f"start has shape {x.shape}; pass one point (d,) or one for each chain (chains, d).")
    refuse_non_finite(x, "start")
    if target.dimension is not None and x.shape[1] != target.dimension:
        raise InputError(f"start has {x.shape[1]} coordinates; the target has {target.dimension}.")
    for label, count, least in (("steps", steps, 1), ("warmup", warmup, 0), ("thin", thin, 1)):
        if isinstance(count, bool) or not isinstance(count, int) or count < least:
            raise InputError(f"{label} is {count!r}; a whole number, {least} or more, is needed.")
    like = start.detach() if isinstance(start, Tensor) else None
    return Walk(
        x=torch.from_numpy(x),
        steps=steps,
        warmup=warmup,
        thin=thin,
        random=generator(check_seed(seed), name),
        single=single,
        like=like if like is None or like.is_floating_point() else None,
    )


def read_step_size(step_size: Any, name: str = "step_size") -> float:
    """A positive number.

    Raises:
        InputError: If it is not.
    """
    try:
        size = float(step_size)
    except (TypeError, ValueError):
        size = float("nan")
    if not 0 < size < float("inf"):
        raise InputError(f"{name} is {step_size!r}; it must be a positive number.")
    return size


def read_batch(batch_size: Any, examples: int) -> int:
    """Examples in a batch.

    Raises:
        InputError: If it is not a whole number from 1 to the number of examples.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or not 1 <= batch_size <= examples:
        raise InputError(f"batch_size is {batch_size!r}; a whole number from 1 to {examples} is needed.")
    return batch_size
