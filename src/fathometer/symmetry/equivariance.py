"""Does a module commute with a group? Compare f(g x) with g f(x) for every generator.

Agreement on the generators is agreement on the whole group. For a linear map random
inputs decide it; for other modules it is a test on the inputs shown.
"""

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from fathometer.errors import InputError
from fathometer.results import Result
from fathometer.symmetry.action import Action
from fathometer.types import Kind
from fathometer.work import generator

if TYPE_CHECKING:
    from collections.abc import Generator


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class EquivarianceCheck(Result):
    """How far a module is from commuting with the generators of an action.

    Attributes:
        value: Largest relative error over the generators, ``|f(g x) - g f(x)| / |f(x)|``.
        generator: The generator that shows it; None for the trivial group.
        errors: The relative error of each generator.
        tolerance: What rounding alone may cause in the dtype of the outputs.
        samples: Inputs tried.
        kind: "estimate": a test on these inputs.
        error: Rounding level.
    """

    value: float
    generator: int | None
    errors: tuple[float, ...]
    tolerance: float
    samples: int
    kind: Kind = "estimate"
    error: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether the error is at the level of rounding."""
        return self.value <= self.tolerance

    def __str__(self) -> str:
        verdict = "equivariant" if self.ok else f"not equivariant, generator {self.generator} shows it"
        return f"{verdict}: relative error {self.value:.2g} on {self.samples} inputs"


def check_equivariance(
    module: Any,
    act: Action,
    *,
    inputs: Tensor | None = None,
    channels: int | None = None,
    samples: int = 16,
    seed: int = 0,
    dtype: torch.dtype | None = None,
) -> EquivarianceCheck:
    """Compare f(g x) with g f(x) for every generator g.

    Args:
        module: A module or a callable. Its inputs end in N, or in a multiple of N flattened
            as (channel, index); its outputs likewise with M.
        act: The action of both sides.
        inputs: What to try it on; random standard normal numbers if None.
        channels: Channels of the random inputs; None asks the module (``in_channels``, or
            the in_features of an `torch.nn.Linear`), else 1.
        samples: How many random inputs.
        seed: Of the random inputs.
        dtype: Of the random inputs; that of the module's parameters if None.

    Raises:
        InputError: If inputs or outputs do not end in whole channels of the action's indices.
    """
    n, m = act.sizes
    x = _inputs(module, n, channels, samples, seed, dtype) if inputs is None else inputs
    if x.shape[-1] % n:
        raise InputError(f"inputs end in {x.shape[-1]}; a multiple of the action's {n} inputs is needed.")
    errors = []
    with _in_evaluation(module), torch.no_grad():
        y = module(x)
        if y.shape[-1] % m:
            raise InputError(
                f"the module's outputs end in {y.shape[-1]}; a multiple of the action's {m} is needed."
            )
        size = float(torch.linalg.vector_norm(y.double()))
        for g in range(len(act.inputs)):
            moved = module(_move(x, act, "inputs", g))
            gap = moved.double() - _move(y, act, "outputs", g).double()
            errors.append(float(torch.linalg.vector_norm(gap)) / size if size > 0 else float(gap.abs().max()))
    worst = int(np.argmax(errors)) if errors else None
    # sums of N products, each off by one unit in the last place
    tolerance = 8 * torch.finfo(y.dtype).eps * max(float(np.sqrt(x[0].numel())), 4.0)
    return EquivarianceCheck(
        value=errors[worst] if worst is not None else 0.0,
        generator=worst,
        errors=tuple(errors),
        tolerance=tolerance,
        samples=len(x),
    )


def _inputs(
    module: Any, n: int, channels: int | None, samples: int, seed: int, dtype: torch.dtype | None
) -> Tensor:
    weight = next(iter(module.parameters()), None) if isinstance(module, nn.Module) else None
    device = weight.device if weight is not None else torch.device("cpu")
    flat = isinstance(module, nn.Linear)
    own = getattr(module, "in_features", n) // n if flat else getattr(module, "in_channels", 1)
    x = torch.randn(
        samples, channels or own, n, generator=generator(seed, "equivariance"), dtype=torch.float64
    )
    x = x.to(device, dtype or (weight.dtype if weight is not None else torch.float32))
    return x.flatten(1) if flat else x


def _move(x: Tensor, act: Action, side: str, g: int) -> Tensor:
    """``(g x)[perm[i]] = sign[i] x[i]`` along the last dimension, in each channel."""
    p = torch.from_numpy(getattr(act, side)[g]).to(x.device)
    parts = x.reshape(*x.shape[:-1], -1, len(p))
    if act.signs is not None:
        parts = parts * torch.from_numpy(getattr(act.signs, side)[g]).to(parts)
    moved = torch.empty_like(parts)
    moved[..., p] = parts
    return moved.reshape(x.shape)


@contextmanager
def _in_evaluation(module: Any) -> "Generator[None, None, None]":
    """Evaluation mode and the global random state, both restored afterwards."""
    modes = [(part, part.training) for part in module.modules()] if isinstance(module, nn.Module) else []
    with torch.random.fork_rng(devices=[]):
        try:
            for part, _ in modes:
                part.training = False
            yield
        finally:
            for part, mode in modes:
                part.training = mode
