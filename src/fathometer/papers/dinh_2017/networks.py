"""Rectifier networks that stand exactly at a minimum: they are asked for what they compute."""

import torch

from fathometer.model import LossSurface, mlp
from fathometer.work import numpy_generator


def at_a_minimum(
    widths: tuple[int, ...], *, bias: bool = False, examples: int = 64, noise: float = 0.0, seed: int = 0
) -> LossSurface:
    """Half squared error of a rectifier network on its own outputs: loss and gradient are zero.

    Args:
        widths: Inputs, hidden units, outputs.
        bias: Whether its layers have biases.
        examples: Random inputs.
        noise: Standard deviation of what is added to the targets; with it the point is no minimum.
        seed: Of weights and inputs.
    """
    draw = numpy_generator(seed, "dinh_2017", *widths)
    model = mlp(widths, bias=bias, seed=seed).double()
    x = torch.from_numpy(draw.standard_normal((examples, widths[0])))
    with torch.no_grad():
        y = model(x)
    y = y + noise * torch.from_numpy(draw.standard_normal(y.shape))
    return LossSurface(model, "half_mse", (x, y))


def product_surface(product: float = 1.0) -> LossSurface:
    """The loss ``(theta_1 theta_2 - product)^2 / 2`` at a minimum: a rectifier network 1-1-1, input 1."""
    model = mlp((1, 1, 1), bias=False).double()
    one = torch.ones(1, 1, dtype=torch.float64)
    return LossSurface(model, "half_mse", (one, product * one)).at([1.0, product])
