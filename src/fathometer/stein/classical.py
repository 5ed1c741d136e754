"""The classical Stein discrepancy in one dimension, as a small second-order cone program.

The supremum runs over all functions g on the line (not only their values at the points) with
``|g| <= c1``, ``|g'| <= c2`` and ``g'`` Lipschitz with constant c3 (Gorham & Mackey 2015, sec. 4.3). Between
neighbors the extreme functions are two parabolas and perhaps a straight piece, which leaves,
for the gradients p and values g at the points and gaps h,

    |p_i| <= c2,   |p_i - p_(i+1)| <= c3 h,   |g_i| <= c1 - p_i^2 / (2 c3),
    +-(g_i - g_(i+1) + h m) + (p_i - p_(i+1))^2 / (4 c3) + t^2 / c3 <= c3 h^2 / 4,
    t >= max(0, c3 h / 2 - c2 -+ m),   m = (p_i + p_(i+1)) / 2.

It lies between the Wasserstein distance (for constants that are Stein factors of the target)
and the graph Stein discrepancy. A finite end of the support is a node at which g vanishes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from scipy import sparse

from fathometer.errors import CapabilityError, InputError
from fathometer.results import Result
from fathometer.stein.graph import Constants, mean_scores, read_constants
from fathometer.stein.sample import merge_duplicates, read_sample, read_weights
from fathometer.stein.support import read_support
from fathometer.types import Kind

if TYPE_CHECKING:
    from fathometer.drawing.picture import Picture


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ClassicalSteinDiscrepancy(Result):
    """The classical Stein discrepancy of a sample on the line.

    Attributes:
        value: The discrepancy.
        kind: "exact" up to ``error``.
        error: Gap between the two solutions of the cone program, plus their residuals.
        function: (n,) the optimal g at the points.
        gradient: (n,) its derivative.
        witness: (n,) ``T g``; its weighted mean is ``value``.
        points: (n, 1) as measured.
        constants: Bounds on g, g' and the Lipschitz constant of g'.
    """

    value: float
    kind: Kind
    error: float
    function: Float[np.ndarray, " n"]
    gradient: Float[np.ndarray, " n"]
    witness: Float[np.ndarray, " n"]
    points: Float[np.ndarray, "n 1"]
    constants: Constants

    def picture(self) -> "Picture":
        """The optimal function and the witness."""
        from fathometer.stein.pictures import classical_picture

        return classical_picture(self)


def classical_discrepancy(
    points: Any,
    scores: Any,
    *,
    constants: Sequence[float] = (1.0, 1.0, 1.0),
    support: Any = None,
    weights: Any = None,
) -> ClassicalSteinDiscrepancy:
    """Classical Stein discrepancy of a univariate sample.

    Args:
        points: (n,) or (n, 1).
        scores: The derivative of the log target density at every point, or a function of the points.
        constants: Bounds c1 on g, c2 on g', c3 on the Lipschitz constant of g'. Stein factors: (1, 4, 2) for
            N(0, 1), (0.5, 0.5, 1) for the uniform law on [0, 1].
        support: (low, high), infinities allowed; the whole line by default.
        weights: (n,) not negative, summing to one; uniform by default.

    Raises:
        InputError: As for `graph_discrepancy`, and if there is more than one coordinate.
        CapabilityError: If the solver does not finish.
    """
    c = read_constants(constants)
    sample = read_sample(points, scores)
    if sample.dimension != 1:
        raise InputError(
            f"points have {sample.dimension} coordinates; the classical program is for one. "
            "Use graph_discrepancy."
        )
    box = read_support(support, sample.points)
    w = read_weights(weights, sample.size)
    first, group, q = merge_duplicates(sample.points, w)
    b = mean_scores(sample.scores, w, group, q)[:, 0]
    x = sample.points[first, 0]
    order = np.argsort(x, kind="stable")
    low, high = float(box.low[0]), float(box.high[0])
    g, p, value, error = _solve(x[order], (q * b)[order], q[order], c, low, high)
    at = np.empty_like(order)
    at[order] = np.arange(len(order))
    g, p = g[at][group], p[at][group]
    return ClassicalSteinDiscrepancy(
        value=value,
        kind="exact",
        error=error,
        function=g,
        gradient=p,
        witness=g * b[group] + p,
        points=sample.points,
        constants=c,
    )


class _Cones:
    """Rows ``b - A v`` in a cone, collected one kind at a time."""

    def __init__(self, variables: int) -> None:
        self.variables, self.blocks, self.limits, self.rows = variables, [], [], 0

    def add(self, entries: list[tuple[np.ndarray, Any, Any]], limits: np.ndarray) -> None:
        """Rows whose entries are (row numbers, columns, values), in blocks as long as ``limits``."""
        rows = np.concatenate([np.broadcast_to(r, np.shape(k)) for r, k, _ in entries])
        columns = np.concatenate([k for _, k, _ in entries])
        values = np.concatenate([np.broadcast_to(v, np.shape(k)).astype(float) for _, k, v in entries])
        shape = (len(limits), self.variables)
        self.blocks.append(sparse.csc_matrix((values, (rows, columns)), shape=shape))
        self.limits.append(limits)


def _solve(
    x: np.ndarray, cost_g: np.ndarray, cost_p: np.ndarray, c: Constants, low: float, high: float
) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Optimal g and p at the points in order, the value and its error."""
    c1, c2, _ = c
    first, last = int(np.isfinite(low) and x[0] > low), int(np.isfinite(high) and x[-1] < high)
    nodes = np.concatenate([[low] * first, x, [high] * last])
    n, h = len(nodes), np.diff(nodes)
    inside = slice(first, first + len(x))
    G, P = np.arange(n), n + np.arange(n)
    down, up = 2 * n + np.arange(n - 1), 3 * n - 1 + np.arange(n - 1)
    cost = np.zeros(4 * n - 2)
    cost[G[inside]], cost[P[inside]] = -cost_g, -cost_p
    pinned = [G[0]] * int(np.isfinite(low)) + [G[-1]] * int(np.isfinite(high))
    cones = _Cones(len(cost))
    cones.add([(np.arange(len(pinned)), np.array(pinned, dtype=int), 1.0)], np.zeros(len(pinned)))
    linear = _linear_rows(cones, P, down, up, h, c)
    curved = _curved_rows(cones, G, P, down, up, h, c)
    clarabel: Any = import_module("clarabel")  # its names are made at run time
    settings = clarabel.DefaultSettings()
    settings.verbose, settings.max_threads = False, 1
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-10
    kinds = [clarabel.ZeroConeT(len(pinned)), clarabel.NonnegativeConeT(linear)]
    kinds += [clarabel.SecondOrderConeT(3)] * (2 * n) + [clarabel.SecondOrderConeT(4)] * (2 * (n - 1))
    A, limits = sparse.csc_matrix(sparse.vstack(cones.blocks)), np.concatenate(cones.limits)
    empty = sparse.csc_matrix((len(cost), len(cost)))
    answer = clarabel.DefaultSolver(empty, cost, A, limits, kinds, settings).solve()
    if str(answer.status) not in ("Solved", "AlmostSolved"):
        raise CapabilityError(f"Clarabel stopped with {answer.status} on {len(x)} points ({curved} cones).")
    v = np.array(answer.x)
    residual = float(np.abs(A.T @ np.array(answer.z) + cost).sum()) * max(c1, c2) + answer.r_prim
    error = abs(answer.obj_val - answer.obj_val_dual) + residual
    return v[G[inside]], v[P[inside]], -float(cost @ v), float(error)


def _linear_rows(
    cones: _Cones, P: np.ndarray, down: np.ndarray, up: np.ndarray, h: np.ndarray, c: Constants
) -> int:
    """Bounds on p, on its increments, and what t exceeds; the number of rows."""
    _, c2, c3 = c
    n, m = len(P), len(h)
    all_n, all_m = np.arange(n), np.arange(m)
    before = sum(len(b) for b in cones.limits)
    for sign in (1.0, -1.0):
        cones.add([(all_n, P, sign)], np.full(n, c2))
        cones.add([(all_m, P[:-1], sign), (all_m, P[1:], -sign)], c3 * h)
    for t, sign in ((down, -1.0), (up, 1.0)):
        cones.add([(all_m, t, -1.0)], np.zeros(m))
        half = 0.5 * sign
        cones.add([(all_m, t, -1.0), (all_m, P[:-1], half), (all_m, P[1:], half)], c2 - c3 * h / 2)
    return sum(len(b) for b in cones.limits) - before


def _curved_rows(
    cones: _Cones, G: np.ndarray, P: np.ndarray, down: np.ndarray, up: np.ndarray, h: np.ndarray, c: Constants
) -> int:
    """The quadratic constraints as cones ``|(2 y, s - 1)| <= s + 1`` for ``|y|^2 <= s``; their number.

    Both are divided by their scale, so that gaps of any length make cones of size one.
    """
    c1, _, c3 = c
    n, m = len(P), len(h)
    # p^2 / (2 c3 c1) <= 1 -+ g / c1; two signs make |g|
    at = np.arange(n)
    scale = 1 / np.sqrt(2 * c3 * c1)
    for sign in (1.0, -1.0):
        cones.add(
            [(3 * at, G, sign / c1), (3 * at + 1, P, -2 * scale), (3 * at + 2, G, sign / c1)],
            np.tile([2.0, 0.0, 0.0], n),
        )
    at, size = np.arange(m), 0.25 * c3 * h**2
    for t, sign in ((down, 1.0), (up, -1.0)):
        rest = [(G[:-1], sign / size), (G[1:], -sign / size), (P[:-1], 0.5 * sign * h / size)]
        rest.append((P[1:], 0.5 * sign * h / size))
        slope = 2 / np.sqrt(4 * c3 * size)
        cones.add(
            [
                *((4 * at, k, v) for k, v in rest),
                (4 * at + 1, P[:-1], -slope),
                (4 * at + 1, P[1:], slope),
                (4 * at + 2, t, -2 / np.sqrt(c3 * size)),
                *((4 * at + 3, k, v) for k, v in rest),
            ],
            np.tile([2.0, 0.0, 0.0, 0.0], m),
        )
    return 2 * n + 2 * m
