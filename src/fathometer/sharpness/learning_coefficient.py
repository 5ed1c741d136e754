"""The local learning coefficient: how fast the volume of low loss shrinks with its height.

``V(height) ~ height^lambda``. The exponent survives what theorem 2 of Dinh et al. (2017) does to the volume
itself; for a regular minimum it is half the number of parameters, for a singular one less (Watanabe 2009;
Lau et al. 2023). Estimated as ``n beta (E[L] - L(theta))`` under the tempered posterior
``exp(-n beta L - stiffness/2 |move|^2)``, with ``beta = 1 / log n``, sampled without discretization error
by preconditioned Langevin proposals with acceptance.
"""

import math

import torch
from torch import Tensor

from fathometer.errors import InputError
from fathometer.model import LossSurface
from fathometer.results import Estimate
from fathometer.sharpness.curvature import gauss_newton_weights
from fathometer.work import generator

WANTED_ACCEPTANCE = 0.574
"""Of Langevin proposals in high dimension (Roberts & Rosenthal 1998)."""


def learning_coefficient(
    surface: LossSurface,
    *,
    stiffness: float = 1.0,
    chains: int = 4,
    steps: int = 200,
    seed: int = 0,
) -> Estimate:
    """Local learning coefficient at the surface's point, without a unit.

    Args:
        surface: Loss surface at a minimum.
        stiffness: Of the spring to the point, positive: keeps the chains local; in 1/parameter^2.
        chains: Independent chains, at least 2.
        steps: Of each chain; the first half is thrown away.
        seed: Of the chains.

    Returns:
        An estimate; ``error`` is the standard error over chains.

    Raises:
        InputError: If an argument is out of range.
    """
    if not (math.isfinite(stiffness) and stiffness > 0):
        raise InputError(f"stiffness is {stiffness!r}; a positive number is needed.")
    if chains < 2 or steps < 4:
        raise InputError(f"chains is {chains} and steps {steps}; at least 2 and 4 are needed.")
    exact = surface.double()
    heat = exact.examples / math.log(max(exact.examples, 3))
    spread = 1.0 / (heat * gauss_newton_weights(exact, seed) + stiffness)
    base = float(exact.energy())
    means = []
    for chain in range(chains):
        means.append(_chain(exact, spread, heat, stiffness, steps, generator(seed, "learning", chain)) - base)
    found = heat * torch.tensor(means, dtype=torch.float64)
    return Estimate(
        value=float(found.mean()),
        kind="estimate",
        error=float(found.std()) / math.sqrt(chains),
        method="Langevin chains",
        cost=chains * steps,
        cost_unit="gradients",
    )


def _chain(
    surface: LossSurface, spread: Tensor, heat: float, stiffness: float, steps: int, noise: torch.Generator
) -> float:
    """Mean loss over the second half of one chain; the step is tuned in the first."""
    center = surface.theta

    def state(theta: Tensor) -> tuple[float, float, Tensor]:
        energy = float(surface.energy(theta))
        away = theta - center
        slope = heat * surface.gradient(theta) + stiffness * away
        return energy, -heat * energy - 0.5 * stiffness * float(away.square().sum()), slope

    def draw(n: int) -> Tensor:
        return torch.randn(n, generator=noise, dtype=torch.float64).to(center)

    theta = center + spread.sqrt() * draw(len(center))
    energy, density, slope = state(theta)
    step, kept, warm = 1.0 / len(center) ** (1 / 3), [], steps // 2
    for i in range(steps):
        mean = theta - 0.5 * step * spread * slope
        there = mean + (step * spread).sqrt() * draw(len(center))
        other_energy, other_density, other_slope = state(there)
        back = there - 0.5 * step * spread * other_slope
        ratio = other_density - density
        ratio += float((((there - mean) ** 2 - (theta - back) ** 2) / spread).sum()) / (2 * step)
        chance = math.exp(min(0.0, ratio)) if math.isfinite(ratio) else 0.0
        if float(torch.rand((), generator=noise, dtype=torch.float64)) < chance:
            theta, energy, density, slope = there, other_energy, other_density, other_slope
        if i < warm:
            step *= math.exp((chance - WANTED_ACCEPTANCE) / (i + 1) ** 0.6)
        else:
            kept.append(energy)
    return math.fsum(kept) / len(kept)
