"""Other coordinates for the same model: sharpness is a number about the coordinates too.

With ``theta = g(eta)`` the loss is ``L_eta = L o g``, and at a critical point its Hessian is
``J' H J`` with J the Jacobian of g (Dinh, Pascanu, Bengio & Bengio 2017, sec. 5.1). So any minimum
becomes as flat or as sharp as one likes, even by a map that is the identity outside a small
ball (appendix A). Off a critical point the curvature of g itself adds to it.

Cost: one product with the Hessian of ``L_eta`` is one with H and three passes through g.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import jacrev, jvp, vjp, vmap

from fathometer.errors import InputError
from fathometer.linalg import LinearOperator
from fathometer.model import LossSurface

Map = Callable[[Tensor], Tensor]
NEWTON_STEPS = 60
COLUMNS = 64
"""Columns of a product at a time."""


class Reparametrization:
    """New coordinates ``eta = forward(theta)`` with ``theta = inverse(eta)``.

    Args:
        forward: Maps parameters (P,) to coordinates (Q,), by differentiable torch operations.
        inverse: Maps coordinates back. Several coordinates may mean the same parameters (weight
            normalization); ``inverse(forward(theta))`` must be ``theta``.
    """

    def __init__(self, forward: Map, inverse: Map) -> None:
        for name, function in (("forward", forward), ("inverse", inverse)):
            if not callable(function):
                raise InputError(
                    f"{name} is a {type(function).__name__}; a function of a vector (P,) is needed."
                )
        self._forward, self._inverse = forward, inverse

    def to_eta(self, theta: Any) -> Any:
        """Coordinates (P,) of parameters ``theta`` (P,); numpy in, numpy out."""
        return _like(self._forward(_as_tensor(theta, "theta")), theta)

    def to_theta(self, eta: Any) -> Any:
        """Parameters (P,) at coordinates ``eta`` (P,); numpy in, numpy out."""
        return _like(self._inverse(_as_tensor(eta, "eta")), eta)

    def jacobian(self, theta: Any) -> Any:
        """``d eta / d theta`` (Q, P) at ``theta`` (P,)."""
        return _like(jacrev(self._forward)(_as_tensor(theta, "theta")), theta)

    def apply(self, surface: LossSurface) -> "ReparametrizedSurface":
        """The loss as a function of the coordinates, in float64.

        Raises:
            InputError: If the inverse does not lead back to the surface's point.
        """
        exact = surface.double()
        theta = exact.theta
        back = self._inverse(self._forward(theta))
        if back.shape != theta.shape or not torch.allclose(back, theta, rtol=1e-8, atol=1e-10):
            found = float((back - theta).norm()) if back.shape == theta.shape else tuple(back.shape)
            raise InputError(
                f"inverse(forward(theta)) is not theta at the surface's point (distance {found}); "
                "the two functions must undo each other there."
            )
        return ReparametrizedSurface(exact, self, self._forward(theta).detach())


class RadialBijection(Reparametrization):
    """Stretches a ball around ``center`` and is the identity outside a larger one (appendix A).

    A ball of radius ``inner`` becomes one of radius ``image``: ``eta - center`` is
    ``psi(r) / r`` times ``theta - center``, with psi linear on [0, inner] and [inner, outer]. At a
    critical center the Hessian is multiplied by ``(inner / image)^2``.

    Args:
        center: (P,) the point in the middle.
        outer: Radius beyond which nothing moves.
        inner: Radius of the ball that is stretched, between 0 and outer.
        image: Its radius afterwards, between 0 and outer.

    Raises:
        InputError: If a radius is out of range.
    """

    def __init__(self, center: Any, outer: float, inner: float, image: float) -> None:
        if not (math.isfinite(outer) and outer > 0):
            raise InputError(f"outer is {outer!r}; a positive radius is needed.")
        for name, radius in (("inner", inner), ("image", image)):
            if not 0 < radius < outer:
                raise InputError(f"{name} is {radius!r}; it must lie between 0 and outer = {outer!r}.")
        self.center, self.outer, self.inner, self.image = _as_tensor(center, "center"), outer, inner, image
        super().__init__(
            lambda theta: self._stretched(theta, inner, image),
            lambda eta: self._stretched(eta, image, inner),
        )

    def _stretched(self, point: Tensor, inner: float, image: float) -> Tensor:
        center = self.center.to(point)
        away = point - center
        squared = away.square().sum(-1, keepdim=True)
        inside = squared <= inner**2
        # The root is taken where it is smooth only, so that derivatives exist in the middle too.
        r = torch.where(inside, torch.full_like(squared, inner**2), squared).sqrt()
        slope = (image - self.outer) / (inner - self.outer)
        shell = torch.where(r <= self.outer, slope + self.outer * (1.0 - slope) / r, torch.ones_like(r))
        factor = torch.where(inside, torch.full_like(r, image / inner), shell)
        return torch.where(r > self.outer, point, center + factor * away)


class PowerBijection(Reparametrization):
    """``eta - center = (|theta - center|^2 + offset)^exponent (theta - center)`` (figure 5).

    At a critical center the Hessian is multiplied by ``offset^(-2 exponent)``. (The paper maps to
    eta without adding the center again; the shift changes no derivative.)

    Args:
        exponent: Larger than -1/2, so that the map grows with the distance.
        offset: Positive: at 0 the curvature in the middle would become 0 or infinite.
        center: (P,) or a number; the origin by default.

    Raises:
        InputError: If a number is out of range.
    """

    def __init__(self, exponent: float, offset: float, center: Any = 0.0) -> None:
        if not (math.isfinite(exponent) and exponent > -0.5):
            raise InputError(f"exponent is {exponent!r}; it must be larger than -1/2, or the map turns back.")
        if not (math.isfinite(offset) and offset > 0):
            raise InputError(
                f"offset is {offset!r}; it must be positive, or the map has no invertible derivative "
                "in the middle."
            )
        self.exponent, self.offset, self.center = exponent, offset, _as_tensor(center, "center")
        super().__init__(self._to_eta, self._to_theta)

    def _to_eta(self, theta: Tensor) -> Tensor:
        center = self.center.to(theta)
        away = theta - center
        return center + (_squared(away) + self.offset) ** self.exponent * away

    def _to_theta(self, eta: Tensor) -> Tensor:
        center = self.center.to(eta)
        away = eta - center
        t = self._root(_squared(away))
        return center + (t + self.offset) ** -self.exponent * away

    def _root(self, wanted: Tensor) -> Tensor:
        """The t with ``t (t + offset)^(2 exponent) = wanted``, differentiable in ``wanted``."""
        a, b = self.exponent, self.offset
        fixed = wanted.detach()
        # In logarithms the function is increasing and convex (a > 0) or concave, and the start is on the side
        # from which Newton's steps are monotone.
        goal = fixed.clamp(min=torch.finfo(fixed.dtype).tiny).log()
        x = goal - 2 * a * math.log(b)
        for _ in range(NEWTON_STEPS):
            t = x.exp()
            gap = x + 2 * a * torch.log(t + b) - goal
            x = x - gap / (1.0 + 2 * a * t / (t + b))
        t = torch.where(fixed > 0, x.exp(), torch.zeros_like(x))
        # Two more steps that autograd sees: each doubles the order to which the derivatives are right.
        for _ in range(2):
            value = t * (t + b) ** (2 * a)
            slope = (t + b) ** (2 * a) + 2 * a * t * (t + b) ** (2 * a - 1)
            t = t - (value - wanted) / slope
        return t


class ReparametrizedSurface:
    """A loss as a function of other coordinates; what measures ask of a surface, it answers.

    Attributes:
        surface: The surface in its own parameters, float64.
        bijection: The coordinates.
        theta: The point in the new coordinates (Q,); also called ``eta``.
        size: Q.
        examples: N.
    """

    def __init__(self, surface: LossSurface, bijection: Reparametrization, eta: Tensor) -> None:
        self.surface, self.bijection, self._eta = surface, bijection, eta
        self.size, self.examples = len(eta), surface.examples

    @property
    def theta(self) -> Tensor:
        """The point in the new coordinates, a copy."""
        return self._eta.clone()

    eta = theta

    def double(self) -> "ReparametrizedSurface":
        """Itself: it is in float64."""
        return self

    def at(self, eta: Any) -> "ReparametrizedSurface":
        """The same surface around other coordinates (Q,)."""
        return ReparametrizedSurface(self.surface, self.bijection, self._point(eta))

    def energy(self, eta: Any = None) -> Tensor:
        """Mean loss, 0-d."""
        return self.surface.energy(self.bijection.to_theta(self._point(eta)))

    def gradient(self, eta: Any = None) -> Tensor:
        """``J' grad L`` (Q,)."""
        point = self._point(eta)
        return self._pulled(point, self.surface.gradient(self.bijection.to_theta(point)))

    def _pulled(self, point: Tensor, w: Tensor) -> Tensor:
        """``J' w`` at a point, differentiable in it."""
        pull: Any = vjp(self.bijection.to_theta, point)[1]
        return pull(w)[0]

    def hessian(self, eta: Any = None) -> LinearOperator:
        """``J' H J + sum_k (grad L)_k g_k''`` (Q, Q)."""
        point = self._point(eta)
        slope = self.surface.gradient(self.bijection.to_theta(point))

        def pulled(z: Tensor) -> Tensor:
            return self._pulled(z, slope)

        return self._product(
            self.surface.hessian, point, lambda v: jvp(pulled, (point,), (v,))[1], "reparametrized Hessian"
        )

    def gauss_newton(self, eta: Any = None) -> LinearOperator:
        """``J' H0 J`` (Q, Q)."""
        return self._product(
            self.surface.gauss_newton,
            self._point(eta),
            torch.zeros_like,
            "reparametrized Gauss-Newton matrix",
        )

    def fisher(self, eta: Any = None) -> LinearOperator:
        """``J' F J`` (Q, Q): lengths of changes of the predictions do not depend on coordinates."""
        return self._product(
            self.surface.fisher, self._point(eta), torch.zeros_like, "reparametrized Fisher matrix"
        )

    def _product(
        self, operator: Callable[[Tensor], LinearOperator], point: Tensor, extra: Map, name: str
    ) -> LinearOperator:
        H = operator(self.bijection.to_theta(point))

        def product(V: Tensor) -> Tensor:
            def push(v: Tensor) -> Tensor:
                return jvp(self.bijection.to_theta, (point,), (v,))[1]

            def pull(w: Tensor, v: Tensor) -> Tensor:
                return self._pulled(point, w) + extra(v)

            image = H.product(vmap(push, 1, 1, chunk_size=COLUMNS)(V))
            return vmap(pull, 1, 1, chunk_size=COLUMNS)(image, V)

        return LinearOperator(
            shape=(self.size, self.size), product=product, dtype=H.dtype, device=H.device, name=name
        )

    def _point(self, eta: Any) -> Tensor:
        if eta is None:
            return self._eta
        point = torch.as_tensor(eta).detach().to(self._eta)
        if point.shape != self._eta.shape or not bool(torch.isfinite(point).all()):
            raise InputError(f"eta has shape {tuple(point.shape)}; a finite vector ({self.size},) is needed.")
        return point


Place = LossSurface | ReparametrizedSurface
"""Where curvature is measured: a loss surface in the parameters, or in other coordinates."""


def _squared(away: Tensor) -> Tensor:
    return away.square().sum(-1, keepdim=True) if away.ndim else away.square()


def _as_tensor(value: Any, name: str) -> Tensor:
    try:
        tensor = torch.as_tensor(value if isinstance(value, Tensor) else np.asarray(value, dtype=np.float64))
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"{name} is a {type(value).__name__}; a vector of numbers is needed.") from None
    return tensor.double()


def _like(value: Tensor, given: Any) -> Any:
    """As numpy where the question was asked in numpy or plain numbers."""
    return value.detach().cpu().numpy() if isinstance(given, np.ndarray | float | int | list) else value
