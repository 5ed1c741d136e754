"""Sharpness in a ball of a geometry that the symmetries leave alone.

With the metric ``sum (move_i / theta_i)^2`` every rescaling is an isometry; its geodesics through theta are
``theta exp(b)``, straight lines in the logarithms of the weights. Between the two halves G, H of an attention
head (any invertible A gives ``G A, H A^-T`` and the same function) the metric
``tr((G'G)^-1 x' x) + tr((H'H)^-1 y' y)`` does the same for all of them, with geodesics to second order
``G + x - Gamma / 2`` (da Silva, Dangel & Oore 2025). Moves along the orbit are in the ball too and change
nothing, so this is the sharpness of the quotient. To first order it is adaptive sharpness.
"""

import torch
from torch import Tensor

from fathometer.errors import InputError
from fathometer.linalg import LinearOperator
from fathometer.model import LossSurface
from fathometer.results import Estimate
from fathometer.sharpness.attention import Side, heads
from fathometer.sharpness.bijections import Reparametrization, ReparametrizedSurface
from fathometer.sharpness.worst_case import Ellipsoid, Slope, check_region, highest_loss, lower_bound
from fathometer.work import silent

RIDGE = 1e-12
"""Share of its trace added to a Gram matrix without full rank."""


def geodesic(
    surface: LossSurface,
    radius: float,
    *,
    starts: int = 12,
    steps: int = 30,
    attention: bool = False,
    seed: int = 0,
) -> Estimate:
    """Largest rise of the loss in the geodesic ball of this radius around the weights.

    A weight that is zero stays zero. Invariant to every rescaling of the weights, or with ``attention`` to
    invertible matrices at its heads (then not to a rescaling of the features that enter them). In float64.

    Args:
        surface: Loss surface, at its point.
        radius: Of the ball; for small ones the relative change of the weights, as a Euclidean norm.
        starts: Points to climb from.
        steps: Most steps of one climb.
        attention: Take the weights of attention heads as pairs of matrices; else every weight by itself.
        seed: Of the random starts.

    Returns:
        A lower bound (``kind`` "bound"), in units of the loss; ``error`` is the spread of the good climbs.

    Raises:
        InputError: If an argument is out of range, or a network without heads is asked for them.
    """
    check_region(surface, radius, starts, steps, nonnegative=False)
    exact = surface.double()
    curved: Slope = with_heads(exact, halves_of(exact)) if attention else LogSurface(exact)
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


def halves_of(surface: LossSurface) -> list[Tensor]:
    """Positions (rows, d) in the flat vector of each half of a pair of heads, biases as a further row.

    Grouped heads that share a key are stacked.

    Raises:
        InputError: If no pair of heads is found whose weights are all parameters of the surface.
        CapabilityError: If the network cannot be exported.
    """
    found = heads(surface.write().eval(), surface.example_inputs())
    halves = []
    for pair in found.pairs:
        sides = [[_positions(surface, side) for side in part] for part in (pair.left, pair.right)]
        if all(place is not None for part in sides for place in part):
            halves += [torch.cat([p for p in part if p is not None]) for part in sides]
    if not halves:
        raise InputError("no attention head is found whose weights are parameters of the surface.")
    return halves


def _positions(surface: LossSurface, side: Side) -> Tensor | None:
    """(rows, d): where the vectors of a side stand in the flat vector; None if the surface lacks them."""
    shapes = dict(zip(surface.names, surface.space.shapes, strict=True))
    if side.weight not in shapes or (side.bias and side.bias not in shapes):
        return None
    at = surface.space.positions(side.weight).reshape(shapes[side.weight])
    entries = torch.tensor(side.entries)
    rows = at[entries].T if side.axis == 0 else at[:, entries]
    return torch.cat([rows, surface.space.positions(side.bias)[entries][None]]) if side.bias else rows


def with_heads(surface: LossSurface, halves: list[Tensor]) -> ReparametrizedSurface:
    """The loss in coordinates b (P,) in which the metric at b = 0 is Euclidean."""
    center = surface.theta
    plain = torch.ones_like(center, dtype=torch.bool)
    for at in halves:
        plain[at.reshape(-1)] = False
    frames = [_frame(center[at]) for at in halves]

    def to_theta(b: Tensor) -> Tensor:
        theta = torch.where(plain, center * b.exp(), center)
        for at, (root, inverse) in zip(halves, frames, strict=True):
            G, x = center[at], b[at] @ root
            both = x.T @ G
            bend = G @ inverse @ (x.T @ x) - x @ inverse @ (both + both.T)
            theta = theta.index_put((at,), G + x - 0.5 * bend)
        return theta

    # Only the way back is used: the forward map is asked for the middle, which is zero.
    return ReparametrizedSurface(
        surface, Reparametrization(torch.zeros_like, to_theta), torch.zeros_like(center)
    )


def _frame(G: Tensor) -> tuple[Tensor, Tensor]:
    """Root and inverse of the Gram matrix ``G'G`` (d, d) of one half."""
    gram = G.T @ G
    gram = gram + RIDGE * gram.trace() * torch.eye(len(gram), dtype=gram.dtype)
    values, vectors = torch.linalg.eigh(gram)
    return (vectors * values.sqrt()) @ vectors.T, (vectors / values) @ vectors.T
