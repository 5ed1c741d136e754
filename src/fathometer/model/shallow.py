"""Gradients and Hessians of many networks with one hidden layer at once, in closed form.

For outputs ``V f(W x)`` and a squared error both parts of the Hessian are products of what
passes through the network: with a = f(z), s = f'(z), c = f''(z), residuals e and u_jk = s_j x_k,

    W W:  (V'V)_jl <u_jk u_lm>  +  delta_jl <(e V)_j c_j x_k x_m>
    W V:  V_cj <u_jk a_l>       +  delta_jl <e_c u_jk>
    V V:  delta_cd <a_j a_l>

with means over the data. Automatic differentiation takes a backward pass for each of the P
rows; this takes a twentieth of its time at P = 128. A bias is the weight of an input that is one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fathometer.model.batches import Arrays
from fathometer.model.losses import SquaredError

if TYPE_CHECKING:
    from fathometer.model.surface import LossSurface

ELEMENTWISE = (
    *(nn.Tanh, nn.Sigmoid, nn.ReLU, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.Softplus, nn.ELU, nn.Identity),
)


@dataclass(frozen=True, eq=False)
class ShallowNetworks:
    """Networks of one shape on data of one shape; see `shallow_networks`.

    Attributes:
        x: (B, m, d + 1 or d) inputs, with a column of ones where there is a bias.
        y: (B, m, c) targets.
        activation: The elementwise function f.
        hidden: Hidden units h.
        output_bias: Whether the last layer has a bias.
        order: (P,) position of each flat parameter among the two augmented weights.
        factor: Of the squared error.
    """

    x: Tensor
    y: Tensor
    activation: nn.Module
    hidden: int
    output_bias: bool
    order: Tensor
    factor: float

    def gradient(self, rows: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Energies (b,) and gradients (b, P) of the networks ``rows`` (b,) at ``theta`` (b, P)."""
        V, a, s, _, e = self._forward(rows, theta)
        return self._energy(e), self._gradient(self.x[rows], V, a, s, e)

    def __call__(self, rows: Tensor, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `gradient`, and Hessians (b, P, P)."""
        V, a, s, curve, e = self._forward(rows, theta)
        x, h = self.x[rows], self.hidden
        b, c, d, each = len(rows), V.shape[1], x.shape[2], torch.arange(h)
        u = (s[..., None] * x[:, :, None]).flatten(2)
        WW = (u.mT @ u).view(b, h, d, h, d) * (V[..., :h].mT @ V[..., :h])[:, :, None, :, None]
        bent = (e @ V[..., :h]) * curve
        own = (bent.mT[:, :, None] * x.mT[:, None]) @ x[:, None]  # (b, h, d, d)
        WW[:, each, :, each] += own.transpose(0, 1)
        WV = torch.einsum("bcj,bjkl->bjkcl", V[..., :h], (u.mT @ a).view(b, h, d, -1)).contiguous()
        WV[:, each, :, :, each] += (u.mT @ e).view(b, h, d, c).transpose(0, 1)
        VV = torch.einsum("cd,bjl->bcjdl", torch.eye(c, dtype=x.dtype), a.mT @ a)
        n, k = h * d, c * a.shape[2]
        H = x.new_empty(b, n + k, n + k)
        H[:, :n, :n], H[:, n:, n:] = WW.reshape(b, n, n), VV.reshape(b, k, k)
        H[:, :n, n:] = WV.reshape(b, n, k)
        H[:, n:, :n] = H[:, :n, n:].mT
        if not torch.equal(self.order, torch.arange(n + k)):
            H = H[:, self.order][:, :, self.order]
        return self._energy(e), self._gradient(x, V, a, s, e), H.mul_(self._unit)

    @property
    def _unit(self) -> float:
        return 2.0 * self.factor / (self.y.shape[1] * self.y.shape[2])

    def _energy(self, e: Tensor) -> Tensor:
        return self.factor * e.square().mean((1, 2))

    def _forward(self, rows: Tensor, theta: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The weight V, hidden values, their two slopes, and residuals."""
        x, h = self.x[rows], self.hidden
        flat = torch.empty_like(theta)
        flat[:, self.order] = theta
        W = flat[:, : h * x.shape[2]].view(len(rows), h, -1)
        V = flat[:, h * x.shape[2] :].view(len(rows), self.y.shape[2], -1)
        with torch.enable_grad():
            z = (x @ W.mT).requires_grad_()
            a = self.activation(z)
            (s,) = torch.autograd.grad(a.sum(), z, create_graph=True)
            curve = torch.autograd.grad(s.sum(), z)[0] if s.requires_grad else torch.zeros_like(z)
        a, s = a.detach(), s.detach()
        if self.output_bias:
            a = torch.cat([a, a.new_ones(*a.shape[:2], 1)], 2)
        return V, a, s, curve, a @ V.mT - self.y[rows]

    def _gradient(self, x: Tensor, V: Tensor, a: Tensor, s: Tensor, e: Tensor) -> Tensor:
        back = (e @ V[..., : self.hidden]) * s
        return torch.cat([(back.mT @ x).flatten(1), (e.mT @ a).flatten(1)], 1)[:, self.order] * self._unit


def shallow_networks(surfaces: Sequence["LossSurface"]) -> ShallowNetworks | None:
    """The networks of ``surfaces`` together, or None unless the closed form holds for all of them.

    It holds for ``Sequential(Linear, elementwise function, Linear)`` with all its parameters
    on the surface, a squared error and whole arrays (N, d), (N, c) as data, of equal shapes.
    """
    parts = [_layers(surface) for surface in surfaces]
    first = parts[0]
    if first is None:
        return None
    shapes = {
        (s.space.shapes, s.loss, tuple(s._problem.batches.inputs.shape), repr(p[1]) if p else "")
        for s, p in zip(surfaces, parts, strict=True)
        if isinstance(s._problem.batches, Arrays) and p is not None
    }
    if len(shapes) > 1 or any(part is None for part in parts):
        return None
    lower, activation, upper = first
    data = [surface._problem.batches for surface in surfaces]
    x, y = (torch.stack([getattr(d, name).double() for d in data]) for name in ("inputs", "targets"))
    if lower.bias is not None:
        x = torch.cat([x, x.new_ones(*x.shape[:2], 1)], 2)
    objective = surfaces[0]._problem.objective
    assert isinstance(objective, SquaredError)
    h, c = lower.out_features, upper.out_features
    split = h * x.shape[2]
    W, V = (
        torch.arange(split).view(h, -1),
        split + torch.arange(c * (h + (upper.bias is not None))).view(c, -1),
    )
    order = [W[:, : lower.in_features], W[:, lower.in_features :], V[:, :h], V[:, h:]]
    return ShallowNetworks(
        x, y, activation, h, upper.bias is not None, torch.cat([o.flatten() for o in order]), objective.factor
    )


def _layers(surface: "LossSurface") -> tuple[nn.Linear, nn.Module, nn.Linear] | None:
    problem = surface._problem
    model, data = problem.replica.module, problem.batches
    if type(model) is not nn.Sequential or len(model) != 3 or not isinstance(data, Arrays):
        return None
    lower, activation, upper = model
    if type(lower) is not nn.Linear or type(upper) is not nn.Linear or type(activation) not in ELEMENTWISE:
        return None
    whole = surface.space.names == tuple(name for name, _ in model.named_parameters())
    arrays = all(isinstance(t, Tensor) and t.ndim == 2 for t in (data.inputs, data.targets))
    plain = whole and arrays and type(problem.objective) is SquaredError
    hooked = any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    return (lower, activation, upper) if plain and not hooked else None
