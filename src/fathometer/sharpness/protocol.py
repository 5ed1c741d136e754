"""Sharpness over small batches, as it is compared across networks in the literature.

The worst rise of the loss is taken for each batch by itself and averaged (m-sharpness, Foret et al.
2021), in a neighborhood in units of the weights, by projected ascent with step sizes that halve where
they stop paying (Auto-PGD, in the settings of Andriushchenko, Croce, Mueller, Hein & Flammarion 2023).
Logits can be normalized first, which takes out the scale of the outputs. One correction to the published
code: for the 2-norm the step goes along ``w^2 g``, the steepest direction in units of the weights, so that
the value does not change under a rescaling.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from fathometer.errors import InputError
from fathometer.model import LossSurface
from fathometer.results import Estimate
from fathometer.sharpness.worst_case import Box, Ellipsoid, check_region
from fathometer.work import generator, numpy_generator

POINTS, DRAWS = 1024, 8
MOMENTUM, PAYING = 0.75, 0.75
LOGIT_FLOOR = 1e-10


def m_sharpness(
    surface: LossSurface,
    radius: float,
    *,
    norm: float = 2,
    batch: int = 128,
    steps: int = 20,
    adaptive: bool = True,
    normalize: bool = False,
    average: bool = False,
    seed: int = 0,
) -> Estimate:
    """Mean over batches of the worst (or average) rise of each batch's loss near the weights.

    ``E_S max over |move / c|_norm <= radius of L_S(theta + move) - L_S(theta)`` with ``c = |theta|``, over
    batches of up to 1,024 random examples (Andriushchenko et al. 2023, eq. 1 and 2).

    Args:
        surface: Loss surface, at its point; whole arrays as data.
        radius: Positive; relative to the weights if ``adaptive``.
        norm: 2 or infinity.
        batch: Examples of a batch, m.
        steps: Of the ascent.
        adaptive: In units of each weight; else in absolute units.
        normalize: Subtract from each example's outputs their mean and divide by their norm first.
        average: Gaussian noise of standard deviation ``radius c`` (8 draws a batch) instead of the maximum.
        seed: Of the choice of examples and the noise.

    Returns:
        Worst case: a lower bound whose ``error`` is the standard error over batches. Average: an estimate.

    Raises:
        InputError: If an argument is out of range, or examples cannot be selected.
    """
    check_region(surface, radius, 1, steps, nonnegative=False)
    if norm not in (2, math.inf):
        raise InputError(f"norm is {norm!r}; pass 2 or math.inf.")
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise InputError(f"batch is {batch!r}; at least one example is needed.")
    whole = normalized_outputs(surface) if normalize else surface
    order = numpy_generator(seed, "m_sharpness").permutation(surface.examples)[:POINTS]
    noise, rises = generator(seed, "m_sharpness", "noise"), []
    for start in range(0, len(order), batch):
        part = whole.select(order[start : start + batch]).double()
        unit = part.theta.abs() if adaptive else torch.ones_like(part.theta)
        if average:
            here = float(part.energy())
            for _ in range(DRAWS):
                draw = torch.randn(part.size, generator=noise, dtype=torch.float64).to(unit)
                rises.append(float(part.energy(part.theta + radius * unit * draw)) - here)
        else:
            region = Ellipsoid(radius, unit) if norm == 2 else Box(radius * unit)
            rises.append(ascend(part, region, unit, norm, steps))
    found = torch.tensor(rises, dtype=torch.float64)
    return Estimate(
        value=float(found.mean()),
        kind="estimate" if average else "bound",
        error=float(found.std()) / math.sqrt(len(found)) if len(found) > 1 else 0.0,
        method="noise" if average else "Auto-PGD (lower bound)",
        cost=len(found) * (1 if average else steps),
        cost_unit="batches",
    )


def normalized_outputs(surface: LossSurface) -> LossSurface:
    """The surface of the network whose outputs have mean 0 and norm 1 for each example."""
    model = surface.write()

    def normalize(_: nn.Module, __: object, outputs: Tensor) -> Tensor:
        centered = outputs - outputs.mean(-1, keepdim=True)
        return centered / centered.norm(dim=-1, keepdim=True).clamp(min=LOGIT_FLOOR)

    model.register_forward_hook(normalize)
    return surface.around(model)


def checkpoints(steps: int) -> set[int]:
    """Iterations at which Auto-PGD looks back, as shares 0, 0.22, ... that come closer and closer."""
    shares = [0.0, 0.22]
    while shares[-1] < 1.0:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    return {math.ceil(share * steps - 1e-9) for share in shares if share <= 1.0}


def ascend(surface: LossSurface, region: Box | Ellipsoid, unit: Tensor, norm: float, steps: int) -> float:
    """Largest rise of the loss on one run of Auto-PGD from the middle of the region."""
    theta, start = surface.theta, float(surface.energy())
    here = torch.zeros_like(theta)
    before, best, best_at, best_before = here, 0.0, here, 0.0
    radius = (
        region.radius
        if isinstance(region, Ellipsoid)
        else float((region.half_width / unit).nan_to_num().max())
    )
    step, last_step, gains = 2.0 * radius, 2.0 * radius, 0
    looks = sorted(checkpoints(steps) | {0})
    length = {b: b - a for a, b in pairwise(looks)}
    value = 0.0
    for i in range(1, steps + 1):
        slope = unit * surface.gradient(theta + here)
        size = float(slope.norm()) if norm == 2 else 1.0
        if size == 0.0:
            break
        way = unit * (slope / size if norm == 2 else slope.sign())
        goal = region.clip(here + step * way)
        share = 1.0 if i == 1 else MOMENTUM
        there = region.clip(here + share * (goal - here) + (1 - share) * (here - before))
        before, here = here, there
        old, value = value, float(surface.energy(theta + here)) - start
        gains += value > old
        if value > best:
            best, best_at = value, here
        if i in length:
            stuck = last_step == step and best_before == best
            last_step, best_before = step, best
            if gains < PAYING * length[i] or stuck:
                step, here, value = step / 2, best_at, best
                before = here
            gains = 0
    return best
