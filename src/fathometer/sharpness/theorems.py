"""The theorems of Dinh, Pascanu, Bengio & Bengio (2017) as constructions that return a witness.

Each function takes a network (or the data of the theorem) and a wish, and returns the
factors of the layers that fulfil it, with what the theorem guarantees beside what was measured at
the transformed network. Two corrections to the text: theorem 4 needs no constant from the
equivalence of norms, since a positive semidefinite matrix has a spectral norm of at least any
diagonal entry; and in theorem 5 the factor is a vector, one entry a layer.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fathometer.errors import InputError
from fathometer.model import LossSurface
from fathometer.results import Result
from fathometer.sharpness.curvature import hessian_norm, warn_if_sloped
from fathometer.sharpness.layer_scale import layer_scale
from fathometer.types import Kind

RANK_GAP = 1e-9
"""Eigenvalues below this share of the largest count as zero in a rank."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Witness(Result):
    """An equivalent network that shows what a theorem says.

    Attributes:
        theorem: Which one.
        factors: Layer -> its factor.
        wanted: The wish.
        guaranteed: What the proof promises of the quantity.
        measured: The quantity at the transformed network, by its own measurement.
        quantity: What was measured.
        model: The transformed network.
    """

    theorem: str
    factors: dict[str, float]
    wanted: float
    guaranteed: float
    measured: float
    quantity: str
    model: nn.Module | None = field(default=None, metadata={"saved": False})

    @property
    def value(self) -> float:
        """What was measured."""
        return self.measured

    @property
    def kind(self) -> Kind:
        """The theorem's promise is a lower bound."""
        return "bound"

    @property
    def error(self) -> float:
        """How far the measurement lies above the promise."""
        return abs(self.measured - self.guaranteed)

    def __str__(self) -> str:
        return (
            f"{self.theorem}: {self.quantity} {self.measured:.6g}, at least {self.guaranteed:.6g} guaranteed"
        )


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class DisjointBoxes(Result):
    """Theorem 2: boxes of one volume in the region of low loss that do not meet.

    Attributes:
        factor: Box k is the k-th image of the first under ``(factor w1, w2 / factor)``.
        centers: (count, n1 + n2).
        half_widths: (count, n1 + n2).
        log_volumes: (count,) natural logarithms.
    """

    factor: float
    centers: Tensor
    half_widths: Tensor
    log_volumes: Tensor

    @property
    def value(self) -> float:
        """Logarithm of the volume of all boxes together, a lower bound of the flatness."""
        return float(self.log_volumes.logsumexp(0))

    @property
    def kind(self) -> Kind:
        """A lower bound of the volume of the region."""
        return "bound"

    @property
    def error(self) -> float:
        """Infinite: more boxes can be added."""
        return math.inf

    def disjoint(self) -> bool:
        """Whether every two boxes are apart along some coordinate."""
        gap = (self.centers[:, None] - self.centers[None]).abs()
        reach = self.half_widths[:, None] + self.half_widths[None]
        apart = (gap > reach).any(-1)
        return bool(apart[~torch.eye(len(apart), dtype=torch.bool)].all())


def disjoint_boxes(first: Tensor, second: Tensor, radius: float, count: int) -> DisjointBoxes:
    """Theorem 2: one box of low loss gives as many more as one likes, each of at least its volume.

    Args:
        first: Weights of the first layer at the minimum, flat (n1,), not all zero.
        second: Weights of the second layer (n2,), not all zero.
        radius: Half width of a cube around the minimum on which the loss is low; smaller than
            the largest weight of either layer, so that the cube does not meet the origin of one.
        count: Boxes wanted.

    Raises:
        InputError: If an argument is out of range.
    """
    n1, n2 = first.numel(), second.numel()
    large = float((first if n1 >= n2 else second).abs().max())
    if not 0 < radius < large:
        raise InputError(
            f"radius is {radius!r}; it must lie between 0 and {large:.6g}, the largest weight of the wider "
            "layer, so that the cube does not meet its origin."
        )
    if count < 1:
        raise InputError(f"count is {count}; at least one box is wanted.")
    factor = 2.0 * (large + radius) / (large - radius)  # pushes the wider layer outward
    factor = factor if n1 >= n2 else 1.0 / factor
    powers = factor ** torch.arange(count, dtype=torch.float64)
    scale = torch.cat([powers[:, None].expand(-1, n1), 1.0 / powers[:, None].expand(-1, n2)], 1)
    center = torch.cat([first.reshape(-1), second.reshape(-1)]).double()
    widths = radius * scale
    return DisjointBoxes(
        factor=factor, centers=scale * center, half_widths=widths, log_volumes=(2.0 * widths).log().sum(1)
    )


def sharp_norm(
    surface: LossSurface, norm: float, *, layers: Sequence[str] | None = None, example_inputs: Any = None
) -> Witness:
    """Theorem 4: an equivalent network whose Hessian has at least this spectral norm.

    The factor a puts a diagonal entry gamma of the Hessian at ``gamma / a^2``.

    Args:
        surface: Loss surface at a minimum.
        norm: Wanted spectral norm, positive.
        layers: Two consecutive layers; the first two weights if None.
        example_inputs: Arguments of the model, where the surface cannot tell them.

    Raises:
        InputError: If norm is not positive, no diagonal entry in the layers is, or the layers'
            factors would change the function.
    """
    if not (math.isfinite(norm) and norm > 0):
        raise InputError(f"norm is {norm!r}; a positive number is needed.")
    warn_if_sloped(surface)
    pair = _weights(surface, layers)[:2]
    diagonal = surface.double().hessian().to_dense().diag()
    best = [float(diagonal[surface.space.positions(name)].max()) for name in pair]
    k = int(np.argmax(best))
    if not best[k] > 0:
        raise InputError(f"no diagonal entry of the Hessian in {', '.join(pair)} is positive.")
    a = min(1.0, math.sqrt(best[k] / norm))
    factors = {pair[k]: a, pair[1 - k]: 1.0 / a}
    moved, model = _moved(surface, factors, example_inputs)
    return Witness(
        theorem="theorem 4",
        factors=factors,
        wanted=norm,
        guaranteed=best[k] / a**2,
        measured=float(hessian_norm(moved.double()).value),
        quantity="spectral norm of the Hessian",
        model=model,
    )


def many_large_eigenvalues(
    surface: LossSurface,
    threshold: float,
    *,
    layers: Sequence[str] | None = None,
    example_inputs: Any = None,
) -> Witness:
    """Theorem 5: an equivalent network with ``rank - m`` eigenvalues above the threshold.

    All layers but the smallest shrink by ``beta > sqrt(threshold / smallest positive eigenvalue)``; m is
    the number of parameters that do not: the weights of the smallest layer, and with biases
    (appendix B) those that do not shrink either. Dense: for networks of up to some thousand parameters.

    Args:
        surface: Loss surface at a minimum.
        threshold: Positive.
        layers: Layers in order; all weights with two axes or more if None.
        example_inputs: Arguments of the model, where the surface cannot tell them.

    Raises:
        InputError: If threshold is not positive or the factors would change the function.
    """
    if not (math.isfinite(threshold) and threshold > 0):
        raise InputError(f"threshold is {threshold!r}; a positive number is needed.")
    warn_if_sloped(surface)
    names = _weights(surface, layers)
    eigenvalues = torch.linalg.eigvalsh(surface.double().hessian().to_dense())
    positive = eigenvalues[eigenvalues > RANK_GAP * eigenvalues[-1]]
    if not len(positive):
        raise InputError("the Hessian has no positive eigenvalue; there is nothing to enlarge.")
    beta = 1.001 * max(1.0, math.sqrt(threshold / float(positive[0])))
    smallest = min(names, key=lambda name: len(surface.space.positions(name)))
    factors = {name: beta ** (len(names) - 1) if name == smallest else 1.0 / beta for name in names}
    moved, model = _moved(surface, factors, example_inputs)
    ones = surface.at(torch.ones(surface.size))
    shrink = 1.0 / _moved(ones, factors, example_inputs)[0].theta.double()
    left_behind = int((shrink < beta * (1.0 - 1e-6)).sum())
    found = torch.linalg.eigvalsh(moved.double().hessian().to_dense())
    return Witness(
        theorem="theorem 5",
        factors=factors,
        wanted=threshold,
        guaranteed=max(0, len(positive) - left_behind),
        measured=int((found > threshold).sum()),
        quantity=f"eigenvalues above {threshold:.3g}",
        model=model,
    )


def steep_gradient(
    surface: LossSurface, norm: float, *, layers: Sequence[str] | None = None, example_inputs: Any = None
) -> Witness:
    """Theorem 6: an equivalent network with at least this gradient norm; so the loss is not Lipschitz.

    Args:
        surface: Loss surface where the gradient is not zero.
        norm: Wanted gradient norm, positive.
        layers: Two consecutive layers; the first two weights if None.
        example_inputs: Arguments of the model, where the surface cannot tell them.

    Raises:
        InputError: If norm is not positive, or the gradient is zero in these layers.
    """
    if not (math.isfinite(norm) and norm > 0):
        raise InputError(f"norm is {norm!r}; a positive number is needed.")
    pair = _weights(surface, layers)[:2]
    gradient = surface.double().gradient()
    sizes = [float(gradient[surface.space.positions(name)].norm()) for name in pair]
    k = int(np.argmax(sizes))
    if not sizes[k] > 0:
        raise InputError(f"the gradient is zero in {', '.join(pair)}; take a point that is not critical.")
    a = min(1.0, sizes[k] / norm)
    factors = {pair[k]: a, pair[1 - k]: 1.0 / a}
    moved, model = _moved(surface, factors, example_inputs)
    return Witness(
        theorem="theorem 6",
        factors=factors,
        wanted=norm,
        guaranteed=sizes[k] / a,
        measured=float(moved.double().gradient().norm()),
        quantity="gradient norm",
        model=model,
    )


def constant_in_the_ball(
    surface: LossSurface, radius: float, *, layers: Sequence[str] | None = None, example_inputs: Any = None
) -> Witness:
    """Section 4.3: an equivalent network with a constant function in its closed ball.

    The first layer gets the norm ``radius``, so that the ball reaches the point where that layer is zero. For
    networks without biases in it, the function there does not depend on the input.

    Args:
        surface: Loss surface at a minimum.
        radius: Of the ball, positive.
        layers: Two consecutive layers; the first two weights if None.
        example_inputs: Arguments of the model, where the surface cannot tell them.

    Raises:
        InputError: If radius is not positive.
    """
    if not (math.isfinite(radius) and radius > 0):
        raise InputError(f"radius is {radius!r}; a positive number is needed.")
    pair = _weights(surface, layers)[:2]
    at = surface.space.positions(pair[0])
    a = radius / float(surface.theta.double()[at].norm())
    factors = {pair[0]: a, pair[1]: 1.0 / a}
    moved, model = _moved(surface, factors, example_inputs)
    theta = moved.theta
    theta[at] = 0.0
    height, energy = float(moved.energy(theta)), float(surface.energy())
    return Witness(
        theorem="section 4.3",
        factors=factors,
        wanted=radius,
        guaranteed=(height - energy) / (1.0 + energy),
        measured=(height - float(moved.energy())) / (1.0 + float(moved.energy())),
        quantity=f"relative rise of the loss at distance {radius:.3g}",
        model=model,
    )


def _weights(surface: LossSurface, layers: Sequence[str] | None) -> list[str]:
    """Names of the weight tensors."""
    if layers is None:
        names = [n for n, shape in zip(surface.names, surface.space.shapes, strict=True) if len(shape) > 1]
    else:
        names = [name if name in surface.names else f"{name}.weight" for name in layers]
    if len(names) < 2 or any(name not in surface.names for name in names):
        raise InputError(
            f"layers is {layers!r}; two or more of {', '.join(surface.names[:8])} are needed, in order."
        )
    return names


def _moved(
    surface: LossSurface, factors: dict[str, float], example_inputs: Any
) -> tuple[LossSurface, nn.Module]:
    inputs = surface.example_inputs() if example_inputs is None else example_inputs
    model = layer_scale(surface.write(), factors, inputs)
    return surface.around(model), model
