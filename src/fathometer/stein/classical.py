"""The classical Stein discrepancy in one dimension, as a small second-order cone program.

The supremum runs over all functions g on the line (not only their values at the points) with
``|g| <= c1``, ``|g'| <= c2`` and ``g'`` Lipschitz with constant c3 (Gorham & Mackey 2015, sec. 4.3). Between
neighbors the extreme functions are two parabolas and perhaps a straight piece, which leaves,
for the gradients p and values g at the points and gaps h,

    |p_i| <= c2,   |p_i - p_(i+1)| <= c3 h,   |g_i| <= c1 - p_i^2 / (2 c3),
    +-(g_i - g_(i+1) + h m) + (p_i - p_(i+1))^2 / (4 c3) + t^2 / c3 <= c3 h^2 / 4,
    t >= max(0, c3 h / 2 - c2 -+ m),   m = (p_i + p_(i+1)) / 2.

With ``p' = p + h D`` and ``g' = g + h p + h^2 e / 2`` the last two lines become, for tau = t / h,

    +-2 (D - e) / c3 + (D / c3)^2 + (2 tau / c3)^2 <= 1,

which is well scaled at any h; the program is solved in these variables.

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


@dataclass(frozen=True, kw_only=True)
class _Variables:
    """Where each kind of variable stands: g and p at the nodes; e, D and both tau in the gaps."""

    G: np.ndarray
    P: np.ndarray
    e: np.ndarray
    D: np.ndarray
    down: np.ndarray
    up: np.ndarray


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
    m = n - 1
    inside = slice(first, first + len(x))
    at = _Variables(
        G=np.arange(n), P=n + np.arange(n), e=2 * n + np.arange(m), D=2 * n + m + np.arange(m),
        down=2 * n + 2 * m + np.arange(m), up=2 * n + 3 * m + np.arange(m),
    )  # fmt: skip
    cost = np.zeros(2 * n + 4 * m)
    cost[at.G[inside]], cost[at.P[inside]] = -cost_g, -cost_p
    cones = _Cones(len(cost))
    equalities = _dynamics(cones, at, h, [0] * int(np.isfinite(low)) + [n - 1] * int(np.isfinite(high)))
    linear = _linear_rows(cones, at, h, c)
    curved = _curved_rows(cones, at, c)
    clarabel: Any = import_module("clarabel")  # its names are made at run time
    settings = clarabel.DefaultSettings()
    settings.verbose, settings.max_threads = False, 1
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-10
    kinds = [clarabel.ZeroConeT(equalities), clarabel.NonnegativeConeT(linear)]
    kinds += [clarabel.SecondOrderConeT(3)] * (2 * n) + [clarabel.SecondOrderConeT(4)] * (2 * m)
    A, limits = sparse.csc_matrix(sparse.vstack(cones.blocks)), np.concatenate(cones.limits)
    empty = sparse.csc_matrix((len(cost), len(cost)))
    answer = clarabel.DefaultSolver(empty, cost, A, limits, kinds, settings).solve()
    if str(answer.status) not in ("Solved", "AlmostSolved"):
        raise CapabilityError(f"Clarabel stopped with {answer.status} on {len(x)} points ({curved} cones).")
    v = np.array(answer.x)
    residual = float(np.abs(A.T @ np.array(answer.z) + cost).sum()) * max(c1, c2) + answer.r_prim
    error = abs(answer.obj_val - answer.obj_val_dual) + residual
    return v[at.G[inside]], v[at.P[inside]], -float(cost @ v), float(error)


def _dynamics(cones: _Cones, at: _Variables, h: np.ndarray, pinned: list[int]) -> int:
    """The pinned ends and what ties neighbors together; the number of rows."""
    rows, one = np.arange(len(h)), np.ones(len(h))
    cones.add([(np.arange(len(pinned)), at.G[pinned], 1.0)], np.zeros(len(pinned)))
    step = [(rows, at.G[1:], one), (rows, at.G[:-1], -one), (rows, at.P[:-1], -h), (rows, at.e, -0.5 * h**2)]
    cones.add(step, np.zeros(len(h)))
    cones.add([(rows, at.P[1:], one), (rows, at.P[:-1], -one), (rows, at.D, -h)], np.zeros(len(h)))
    return len(pinned) + 2 * len(h)


def _linear_rows(cones: _Cones, at: _Variables, h: np.ndarray, c: Constants) -> int:
    """Bounds on p, on its slopes, and what tau exceeds; the number of rows."""
    _, c2, c3 = c
    n, m = len(at.P), len(h)
    all_n, all_m = np.arange(n), np.arange(m)
    for sign in (1.0, -1.0):
        cones.add([(all_n, at.P, sign)], np.full(n, c2))
        cones.add([(all_m, at.D, sign)], np.full(m, c3))
    for t, half in ((at.down, -0.5), (at.up, 0.5)):
        cones.add([(all_m, t, -1.0)], np.zeros(m))
        entries = [(all_m, t, -h), (all_m, at.P[:-1], half), (all_m, at.P[1:], half)]
        cones.add(entries, c2 - c3 * h / 2)
    return 2 * n + 6 * m


def _curved_rows(cones: _Cones, at: _Variables, c: Constants) -> int:
    """The quadratic constraints as cones ``|(2 y, s - 1)| <= s + 1`` for ``|y|^2 <= s``; their number."""
    c1, _, c3 = c
    n, m = len(at.G), len(at.D)
    # p^2 / (2 c3 c1) <= 1 -+ g / c1; two signs make |g|
    row, scale = np.arange(n), 1 / np.sqrt(2 * c3 * c1)
    for sign in (1.0, -1.0):
        ends = [(3 * row + k, at.G, sign / c1) for k in (0, 2)]
        cones.add([*ends, (3 * row + 1, at.P, -2 * scale)], np.tile([2.0, 0.0, 0.0], n))
    row = np.arange(m)
    for t, sign in ((at.down, 1.0), (at.up, -1.0)):
        rest = [(4 * row + k, v, s * 2 * sign / c3) for k in (0, 3) for v, s in ((at.D, 1.0), (at.e, -1.0))]
        squares = [(4 * row + 1, at.D, -2 / c3), (4 * row + 2, t, -4 / c3)]
        cones.add([*rest, *squares], np.tile([2.0, 0.0, 0.0, 0.0], m))
    return 2 * n + 2 * m
