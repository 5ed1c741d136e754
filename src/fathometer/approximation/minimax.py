"""Least maximum of many residuals by linear programs in a trust region.

Each round linearizes the residuals and minimizes the largest of them over a box of steps; the box
grows while the linear model is right and shrinks when it is not (Osborne & Watson 1969; Madsen 1975).
On top of a weighted least squares fit of tents this takes about a quarter off the sup error.
"""

import math
from collections.abc import Callable

import numpy as np
from scipy.optimize import linprog

_NEAR = 0.6  # residuals below this share of the largest are left out of a round
_HOPE = 1.12  # after half of the rounds: further than this from the goal is given up


def least_maximum(
    residual: Callable[[np.ndarray], np.ndarray],
    jacobian: Callable[[np.ndarray], np.ndarray],
    start: np.ndarray,
    goal: float = 0.0,
    rounds: int = 24,
) -> tuple[np.ndarray, float]:
    """Parameters with a smaller largest absolute residual, and that residual.

    Args:
        residual: (parameters,) to (points,).
        jacobian: (parameters,) to (points, parameters): its derivative, where it has one.
        start: First parameters.
        goal: Enough: stop once the largest residual is not above it.
        rounds: Most linear programs.
    """
    x, r = start, residual(start)
    top, reach, slopes = float(np.abs(r).max()), 0.1, None
    for done in range(rounds):
        if top <= goal or reach < 1e-4 or (done >= rounds // 2 and top > _HOPE * goal > 0):
            break
        slopes = jacobian(x) if slopes is None else slopes
        move = _linear_step(r / top, slopes, reach)
        if move is None:
            break
        trial = x + top * move
        with np.errstate(all="ignore"):
            fresh = residual(trial)
        seen = float(np.abs(fresh).max())
        if math.isfinite(seen) and seen < top:
            reach *= 2.0 if seen < top * (1 - 1e-3) else 0.5
            x, r, top, slopes = trial, fresh, seen, None
        else:
            reach /= 4
    return x, top


def _linear_step(r: np.ndarray, slopes: np.ndarray, reach: float) -> np.ndarray | None:
    """The step within the box whose largest linearized residual is least; r has maximum one."""
    near = np.abs(r) > _NEAR
    scale = 1 / (np.linalg.norm(slopes, axis=0) / math.sqrt(len(slopes)) + 1e-9)
    A, b = slopes[near] * scale, r[near]
    n, one = A.shape[1], -np.ones((len(A), 1))
    answer = linprog(
        np.append(np.zeros(n), 1.0),
        A_ub=np.block([[A, one], [-A, one]]),
        b_ub=np.concatenate([-b, b]),
        bounds=[(-reach, reach)] * n + [(0, None)],
        method="highs-ds",
    )
    return None if answer.x is None else answer.x[:n] * scale
