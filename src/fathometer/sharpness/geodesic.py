"""Sharpness in a ball of the geometry that rescalings leave alone.

With the metric ``sum (move_i / theta_i)^2`` every rescaling is an isometry; its geodesics
through theta are ``theta exp(b)``, straight lines in the logarithms of the weights (da Silva,
Dangel & Oore 2025, for scalar factors). Moves along the rescaling orbit are in the ball too and
change nothing, so this is the sharpness of the quotient. To first order it is adaptive sharpness.
"""

import torch
from torch import Tensor

from fathometer.linalg import LinearOperator
from fathometer.model import LossSurface
from fathometer.results import Estimate
from fathometer.sharpness.worst_case import Ellipsoid, check_region, highest_loss, lower_bound
from fathometer.work import silent


def geodesic(
    surface: LossSurface, radius: float, *, starts: int = 12, steps: int = 30, seed: int = 0
) -> Estimate:
    """Largest rise of the loss in the geodesic ball, ``L(theta exp(b)) - L(theta)`` for ``|b| <= radius``.

    A weight that is zero stays zero. Invariant to every rescaling of the weights. In float64.

    Args:
        surface: Loss surface, at its point.
        radius: Of the ball; for small ones the relative change of the weights, as a Euclidean norm.
        starts: Points to climb from.
        steps: Most steps of one climb.
        seed: Of the random starts.

    Returns:
        A lower bound (``kind`` "bound"), in units of the loss; ``error`` is the spread of the good climbs.

    Raises:
        InputError: If an argument is out of range.
    """
    check_region(surface, radius, starts, steps, nonnegative=False)
    curved = LogSurface(surface)
    region = Ellipsoid(float(radius), torch.ones_like(curved.theta))
    best, spread, cost = highest_loss(curved, region, starts, steps, seed, silent)
    return lower_bound(best - float(curved.energy()), spread, cost)


class LogSurface:
    """The loss as a function of b (P,), with weights ``theta exp(b)``; the point is b = 0."""

    def __init__(self, surface: LossSurface) -> None:
        self.surface = surface.double()
        self.center = self.surface.theta

    @property
    def theta(self) -> Tensor:
        """The middle, b = 0."""
        return torch.zeros_like(self.center)

    def energy(self, b: Tensor | None = None) -> Tensor:
        """Mean loss, 0-d."""
        return self.surface.energy(self._weights(b))

    def gradient(self, b: Tensor | None = None) -> Tensor:
        """``theta exp(b) * grad L`` (P,)."""
        weights = self._weights(b)
        return weights * self.surface.gradient(weights)

    def hessian(self) -> LinearOperator:
        """``theta H theta + diag(theta grad L)`` (P, P) at b = 0."""
        H, scale, slope = self.surface.hessian(), self.center[:, None], self.gradient()[:, None]
        return LinearOperator(
            shape=H.shape,
            product=lambda V: scale * H.product(scale * V) + slope * V,
            dtype=H.dtype,
            device=H.device,
            name="Hessian in logarithms",
        )

    def _weights(self, b: Tensor | None) -> Tensor:
        return self.center if b is None else self.center * b.exp()
