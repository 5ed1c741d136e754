"""Ways to a critical point of a small surface, for many searches at once.

Each search has its own surface and point, a row of ``theta`` (b, P); gradients and dense
Hessians come from `StackedDerivatives`. What a search returns is a candidate: `critical_points`
judges it.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fathometer.model.dense import StackedDerivatives

CAP, FLOOR, FARTHEST, SINGULAR = 1.0, 1e-6, 20.0, 1e-9
DAMPING, HOPELESS = 0.1, 1e9
POLISHING = 12


def descended(at: StackedDerivatives, theta: Tensor, share: Tensor, steps: int) -> Tensor:
    """Follow the gradient until the energy has fallen to a ``share`` (b,) of what it was."""
    rows = torch.arange(len(theta))
    energy, gradient = at.gradient(rows, theta)
    target, rate, theta = share * energy, torch.ones_like(energy), theta.clone()
    for _ in range(steps):
        off = ((energy > target) & (rate > 1e-8)).nonzero()[:, 0]
        if not len(off):
            break
        trial = theta[off] - rate[off, None] * gradient[off]
        found, slope = at.gradient(off, trial)
        lower = found < energy[off]
        to = off[lower]
        theta[to], energy[to], gradient[to] = trial[lower], found[lower], slope[lower]
        rate[off] *= torch.where(lower, 1.5, 0.5)
    return theta


def gradient_norm(at: StackedDerivatives, theta: Tensor, steps: int, tolerance: float) -> Tensor:
    """Minimize the squared gradient by Levenberg-Marquardt steps, then polish.

    The damping follows the ratio of actual to predicted decrease (Nielsen 1999).
    """
    theta, rows = theta.clone(), torch.arange(len(theta))
    _, g, H = at(rows, theta)
    mu = DAMPING * H.square().sum((1, 2)) / H.shape[1]
    nu = torch.full_like(mu, 2.0)
    unit = torch.eye(H.shape[1], dtype=H.dtype)
    for _ in range(steps):
        slope = H @ g[..., None]
        factor, failed = torch.linalg.cholesky_ex(H @ H + mu[:, None, None] * unit)
        step = torch.cholesky_solve(slope, factor)[..., 0]
        trial = theta[rows] - step
        _, g_new, H_new = at(rows, trial)
        predicted = (step * (mu[:, None] * step + slope[..., 0])).sum(1)
        gain = (g.square().sum(1) - g_new.square().sum(1)) / predicted
        better = (gain > 0) & (failed == 0)
        theta[rows[better]] = trial[better]
        g[better], H[better] = g_new[better], H_new[better]
        mu = torch.where(better, mu * (1 - (2 * gain - 1) ** 3).clamp(min=0.1), mu * nu)
        nu = torch.where(better, 2.0, 2.0 * nu)
        going = (torch.linalg.vector_norm(g, dim=1) > 1e-3 * tolerance) & (nu < HOPELESS) & mu.isfinite()
        if not going.all():
            rows, g, H, mu, nu = rows[going], g[going], H[going], mu[going], nu[going]
        if not len(rows):
            break
    return polished(at, theta)


def pinned(at: StackedDerivatives, theta: Tensor, index: Tensor, steps: int) -> Tensor:
    """Up along the ``index`` (b,) lowest eigenvectors, down along the others, until steps are short."""
    theta, rows = theta.clone(), torch.arange(len(theta))
    reach = _lengths(theta).clamp(min=1.0)
    for _ in range(steps):
        step = _pinned_step(*at(rows, theta[rows])[1:], index[rows])
        theta[rows] -= step
        size = _lengths(theta[rows])
        going = (_lengths(step) >= 1e-4 * size) & (size < FARTHEST * reach[rows])
        rows = rows[going]
        if not len(rows):
            break
    return polished(at, theta)


def newton(at: StackedDerivatives, theta: Tensor) -> Tensor:
    """Full Newton steps; NaN for searches whose steps do not shrink from the first on."""

    def stops(length: Tensor, before: Tensor, size: Tensor) -> Tensor:
        return ~(length < 0.5 * before) | (length > 0.1 * (1 + size))

    moved, last = _newton(at, theta, 20, stops)
    arrived = last < 1e-9 * (1 + _lengths(moved))
    return torch.where(arrived[:, None], moved, math.nan)


def polished(at: StackedDerivatives, theta: Tensor) -> Tensor:
    """Newton steps while they shrink and are short."""

    def stops(length: Tensor, before: Tensor, size: Tensor) -> Tensor:
        return ~(length < before) | (length > 1e-2 * (1 + size))

    return _newton(at, theta, POLISHING, stops)[0]


def _newton(
    at: StackedDerivatives, theta: Tensor, steps: int, stops: Callable[[Tensor, Tensor, Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Points and the lengths of their last steps; singular directions are left alone."""
    theta = theta.clone()
    last = torch.full((len(theta),), math.inf, dtype=theta.dtype)
    rows = theta.isfinite().all(1).nonzero()[:, 0]
    for _ in range(steps):
        if not len(rows):
            break
        _, g, H = at(rows, theta[rows])
        whole = H.isfinite().flatten(1).all(1) & g.isfinite().all(1)
        rows, g, H = rows[whole], g[whole], H[whole]
        values, U = torch.linalg.eigh(H)
        c = (U.mT @ g[..., None])[..., 0]
        large = values.abs() > SINGULAR * values.abs().amax(1, keepdim=True)
        c = torch.where(large, c / torch.where(large, values, 1.0), 0.0)
        length = _lengths(c)
        going = ~stops(length, last[rows], _lengths(theta[rows]))
        rows, step = rows[going], (U @ c[..., None])[going, :, 0]
        theta[rows] -= step
        last[rows] = length[going]
    return theta, last


def _pinned_step(g: Tensor, H: Tensor, index: Tensor) -> Tensor:
    """The pinned step, NaN where the derivatives are not finite."""
    whole = H.isfinite().flatten(1).all(1) & g.isfinite().all(1)
    step = torch.full_like(g, math.nan)
    values, U = torch.linalg.eigh(H[whole])
    c = (U.mT @ g[whole][..., None])[..., 0] / values.abs().clamp(min=FLOOR)
    up = torch.arange(g.shape[1]) < index[whole, None]
    c = torch.where(up, -c, c)
    c = c * (CAP / _lengths(c).clamp(min=1e-300)).clamp(max=1.0)[:, None]
    step[whole] = (U @ c[..., None])[..., 0]
    return step


def _lengths(vectors: Tensor) -> Tensor:
    return torch.linalg.vector_norm(vectors, dim=1)
