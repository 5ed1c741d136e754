"""Relative flatness: curvature of one layer in units of its own weights.

``kappa = sum over rows s, s' of <w_s, w_s'> tr H_ss'`` with w_s the rows of a layer and H_ss' the
blocks of its Hessian (Petzka, Kamp, Adilova, Sminchisescu & Boley 2021, def. 3). A factor of the
whole layer cancels. A factor of a single feature does not: it changed kappa by a million. So
features are standardized first: each is divided by its standard deviation over the data and its
weights are multiplied by it, which is the same function. A feature that is always zero is left out.

Cost: the trace of an operator as large as the layer.
"""

import torch
from torch import Tensor, nn

from fathometer.errors import InputError
from fathometer.linalg import LinearOperator, trace
from fathometer.model import LossSurface
from fathometer.results import Estimate


def relative_flatness(
    surface: LossSurface,
    layer: str | None = None,
    standardize: bool = True,
    *,
    tolerance: float = 0.01,
    seed: int = 0,
) -> Estimate:
    """Relative flatness of a linear layer, in units of the loss.

    Args:
        surface: Loss surface, at its point.
        layer: Name of the layer or of its weight; the last linear layer if None.
        standardize: Give every feature the standard deviation 1 first.
        tolerance: Relative standard error at which sampling stops, for large layers.
        seed: Of the random vectors.

    Raises:
        InputError: If there is no such linear layer among the surface's parameters, or the
            layer is not called with one tensor.
    """
    exact = surface.double()
    name = linear_weight(exact, layer)
    W = exact.space.split(exact.theta)[name]
    spread = feature_spread(exact, name) if standardize else torch.ones_like(W[0])
    shrink = torch.where(spread > 0, 1.0 / spread, torch.zeros_like(spread))
    scaled = W * spread
    values, vectors = torch.linalg.eigh(scaled @ scaled.T)
    root = (vectors * values.clamp(min=0.0).sqrt()) @ vectors.T
    H = exact.hessian().restrict(exact.space.positions(name))

    def product(V: Tensor) -> Tensor:
        X = V.T.reshape(-1, *W.shape)
        inner = ((root @ X) * shrink).reshape(len(X), -1).T
        image = H.product(inner).T.reshape(-1, *W.shape)
        return (root @ (image * shrink)).reshape(len(X), -1).T

    relative = LinearOperator(
        shape=H.shape, product=product, dtype=H.dtype, device=H.device, name="relative Hessian of a layer"
    )
    return trace(relative, "auto", tolerance, seed)


def linear_weight(surface: LossSurface, layer: str | None) -> str:
    """Name of a weight (outputs, inputs) of the surface."""
    shapes = dict(zip(surface.names, surface.space.shapes, strict=True))
    linear = [name for name, shape in shapes.items() if len(shape) == 2]
    if layer is None and linear:
        return linear[-1]
    for name in (layer, f"{layer}.weight"):
        if name in linear:
            return str(name)
    raise InputError(
        f"layer is {layer!r}; the linear layers of this surface are "
        f"{', '.join(name.removesuffix('.weight') for name in linear) or 'none'}."
    )


def feature_spread(surface: LossSurface, weight: str) -> Tensor:
    """Standard deviation (inputs,) of what enters a layer; its size where it is constant."""
    model = surface.write().eval()
    seen: list[Tensor] = []

    def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0].detach().reshape(-1, inputs[0].shape[-1]))

    module = model.get_submodule(weight.rpartition(".")[0])
    handle = module.register_forward_pre_hook(keep)
    try:
        with torch.no_grad():
            model(*surface.example_inputs(surface.examples))
    finally:
        handle.remove()
    width = dict(zip(surface.names, surface.space.shapes, strict=True))[weight][1]
    if not seen or seen[0].shape[-1] != width:
        raise InputError(f"{weight} is not used by calling its module on features; pass standardize=False.")
    features = torch.cat(seen).double()
    spread, size = features.std(0, correction=0), features.square().mean(0).sqrt()
    constant = spread <= 1e-12 * size
    return torch.where(constant, size, spread)
