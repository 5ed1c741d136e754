"""Graph Stein discrepancy: sample quality by linear programming.

The supremum of the mean of ``(T g)(x) = <g, b> + div g`` over functions whose values,
gradients and gradients' Lipschitz constants are bounded, with the bounds asked for only at
the sample points and along the edges of a graph on them (Gorham & Mackey 2015, sec. 4).
On the complete graph it is equivalent to the classical Stein discrepancy up to a
constant that depends on the dimension (Prop. 5); on a 2-spanner it is at most 8 times
that of the complete graph and never less (Prop. 6; in practice 1.01 to 1.15 times).

It metrizes convergence under strong log-concavity and comes with an optimal function that
shows where the sample fails, but it costs a linear program a coordinate and becomes blind in
high dimensions, where no two points are close enough to constrain one another. The answer says
how near it is to that (``saturation``).
"""

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int

from fathometer.errors import InputError, TheoryWarning
from fathometer.results import Result
from fathometer.stein.line import solve_line
from fathometer.stein.programs import boundary_rows, cutoff, edge_rows, objective, solve, stacked
from fathometer.stein.sample import merge_duplicates, read_sample, read_weights
from fathometer.stein.spanner import close_pairs, greedy_spanner
from fathometer.stein.support import Support, read_support
from fathometer.types import Kind
from fathometer.work import chunk_size, task_map, world

if TYPE_CHECKING:
    from fathometer.drawing.picture import Picture

GRAPHS = ("spanner", "complete")
Constants = tuple[float, float, float]
_EXACT = 1e-7
_SATURATED = 1 - 1e-9


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class GraphSteinDiscrepancy(Result):
    """The graph Stein discrepancy of one sample, with its proof.

    Attributes:
        value: The discrepancy, reached by the witness.
        kind: "exact" up to ``gap``; "bound" (from below) where the gap is beyond 1e-7 of the value.
        gap: Dual bound minus ``value``: the optimum lies in [value, value + gap].
        per_coordinate: (d,) the part of each coordinate; they sum to ``value``.
        saturation: Share of ``value`` in the largest value any sample with these scores could
            have. At 1 no constraint between points binds: the number says nothing about the joint
            distribution.
        binding: Number of constraints between points that bind.
        constraints: Number of constraints between points.
        edges: (m, 2) pairs of points joined by the graph.
        witness: (n,) the function ``h = T g`` of the optimal ``g`` at the points; its
            weighted mean is ``value``. It is large where the sample has too much mass.
        function: (n, d) the optimal ``g`` at the points.
        gradient: (n, d, d) its gradient; ``[i, j, k]`` is the derivative of component j along
            coordinate k at point i.
        points: (n, d) as measured.
        graph: "spanner" or "complete".
        constants: Bounds on g, on its gradient and on the Lipschitz constant of the gradient.
    """

    value: float
    kind: Kind
    gap: float
    per_coordinate: Float[np.ndarray, " d"]
    saturation: float
    binding: int
    constraints: int
    edges: Int[np.ndarray, "m 2"]
    witness: Float[np.ndarray, " n"]
    function: Float[np.ndarray, "n d"]
    gradient: Float[np.ndarray, "n d d"]
    points: Float[np.ndarray, "n d"]
    graph: str
    constants: Constants

    @property
    def error(self) -> float:
        """The gap."""
        return self.gap

    def picture(self) -> "Picture":
        """The optimal function and what the operator makes of it."""
        from fathometer.stein.pictures import graph_picture

        return graph_picture(self)

    def __str__(self) -> str:
        n, d = self.points.shape
        return (
            f"graph Stein discrepancy {self.value:.6g} ({self.kind}, gap {self.gap:.1e}; {n} points, {d} "
            f"coordinates, {self.graph}); saturation {self.saturation:.2g}, {self.binding} of "
            f"{self.constraints} constraints bind"
        )


def graph_discrepancy(
    points: Any,
    scores: Any,
    *,
    graph: Literal["spanner", "complete"] = "spanner",
    constants: Sequence[float] = (1.0, 1.0, 1.0),
    support: Any = None,
    weights: Any = None,
) -> GraphSteinDiscrepancy:
    """Graph Stein discrepancy between a weighted sample and the target of its scores (L1 norm).

    Equal points are merged and their weights added. In one dimension both graphs are the
    neighbors in order, which give the value of the complete graph; that program is solved in
    time proportional to n. Coordinates are solved side by side: in torch's threads, or dealt out to the
    processes of a launch.

    Args:
        points: (n, d), (n,) or (chain, draw, d), numpy or torch, or an ArviZ object.
        scores: The gradient of the log target density at every point, the same shape; or a
            function of the points.
        graph: "spanner" (the greedy 2-spanner in L1) or "complete" (all pairs).
        constants: Bounds c1 on g, c2 on its gradient, c3 on the gradient's Lipschitz constant,
            all positive. For N(0, 1), (1, 4, 2) makes the value an upper bound of the
            Wasserstein distance; for the uniform distribution on [0, 1], (0.5, 0.5, 1).
        support: One (low, high) pair a coordinate, infinities allowed; all of space by default.
        weights: (n,) not negative, summing to one; uniform by default.

    Raises:
        InputError: If shapes differ, something is not finite, a constant is not positive, a point
            lies outside the support, or the graph is unknown.
        CapabilityError: If no solver finishes.
        BudgetError: If the graph does not fit the memory.

    Warns:
        TheoryWarning: If no constraint between points binds.

    >>> result = graph_discrepancy([[0.0], [0.5]], [[0.0], [-0.5]])
    >>> bool(result.gap < 1e-9)
    True
    """
    if graph not in GRAPHS:
        raise InputError(f'graph is {graph!r}; it is "spanner" or "complete".')
    c = read_constants(constants)
    sample = read_sample(points, scores)
    box = read_support(support, sample.points)
    w = read_weights(weights, sample.size)
    first, group, merged = merge_duplicates(sample.points, w)
    x, b = sample.points[first], mean_scores(sample.scores, w, group, merged)
    edges = _edges(x, graph, c)
    parts, trivial = _coordinates(x, b, merged, edges, c, box)
    per_coordinate = np.array([part[0] for part in parts])
    value, upper = float(per_coordinate.sum()), float(sum(part[1] for part in parts))
    function, gradient = _unstack([part[2] for part in parts], x)
    saturation = value / trivial if trivial > 0 else 0.0
    if saturation >= _SATURATED and len(x) > 1:
        warnings.warn(
            "no constraint between the points binds: the graph Stein discrepancy equals its trivial bound "
            "and says nothing about the joint distribution. Standardize the coordinates, take more points or "
            "fewer coordinates, or use ksd.",
            TheoryWarning,
            stacklevel=2,
        )
    g, J = function[group], gradient[group]
    gap = max(upper - value, 0.0)
    return GraphSteinDiscrepancy(
        value=value,
        kind="exact" if gap <= _EXACT * max(value, 1e-300) else "bound",
        gap=gap,
        per_coordinate=per_coordinate,
        saturation=saturation,
        binding=sum(part[3] for part in parts),
        constraints=sum(part[4] for part in parts),
        edges=first[edges],
        witness=(g * b[group]).sum(1) + np.trace(J, axis1=1, axis2=2),
        function=g,
        gradient=J,
        points=sample.points,
        graph=graph,
        constants=c,
    )


def read_constants(constants: Sequence[float]) -> Constants:
    """Three positive numbers.

    Raises:
        InputError: If they are not.
    """
    try:
        numbers = tuple(float(c) for c in constants)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != 3 or not all(np.isfinite(c) and c > 0 for c in numbers):
        raise InputError(f"constants are {constants!r}; pass three positive numbers (c1, c2, c3).")
    return numbers[0], numbers[1], numbers[2]


def mean_scores(b: np.ndarray, w: np.ndarray, group: np.ndarray, merged: np.ndarray) -> np.ndarray:
    """The score of every group of equal points: the weighted mean of theirs."""
    total = np.stack(
        [np.bincount(group, weights=w * column, minlength=len(merged)) for column in b.T], axis=1
    )
    plain = np.zeros_like(total)
    plain[group] = b
    return np.where(merged[:, None] > 0, total / np.where(merged > 0, merged, 1.0)[:, None], plain)


def _edges(x: np.ndarray, graph: str, c: Constants) -> Int[np.ndarray, "m 2"]:
    """The pairs that the constraints are laid on, as positions in ``x``."""
    n, d = x.shape
    if n == 1:
        return np.empty((0, 2), dtype=np.int64)
    if graph == "spanner" or d == 1:
        return greedy_spanner(x, cutoff=cutoff(c))
    entries = (2 * d + 2 * (d + 2) + 2) * (n * (n - 1) // 2)
    chunk_size(1, 64 * entries, what=f"the complete graph on {n} points")
    i, k, _ = close_pairs(x, cutoff(c))
    return np.stack([i, k], axis=1)


def _coordinates(
    x: np.ndarray, b: np.ndarray, q: np.ndarray, edges: np.ndarray, c: Constants, box: Support
) -> tuple[list[tuple[float, float, np.ndarray, int, int]], float]:
    """(value, upper bound, variables, binding rows, rows) of every coordinate, and the trivial bound."""
    d = x.shape[1]
    own = [boundary_rows(x, box, j, c) for j in range(d)]
    trivial = sum(float(bound @ np.abs(objective(b, q, j))) for j, (_, bound) in enumerate(own))
    if d == 1:
        return [_line(x, b, q, c, box)], trivial
    shared = edge_rows(x, edges, c)

    def coordinate(j: int) -> tuple[float, float, np.ndarray, int, int]:
        rows, bound = own[j]
        found = solve(stacked(shared, rows), bound, objective(b, q, j), dimension=d)
        return found.lower, found.upper, found.v, found.binding, found.rows

    workers = min(d, torch.get_num_threads()) if world() == 1 else 1
    if workers == 1:
        return task_map(coordinate, range(d), name="coordinates"), trivial
    with ThreadPoolExecutor(workers) as pool:  # the solvers run outside Python's lock
        return list(pool.map(coordinate, range(d))), trivial


def _line(
    x: np.ndarray, b: np.ndarray, q: np.ndarray, c: Constants, box: Support
) -> tuple[float, float, np.ndarray, int, int]:
    """The one coordinate of points on a line, in order, and back."""
    order = np.argsort(x[:, 0], kind="stable")
    found = solve_line(x[order, 0], (q * b[:, 0])[order], q[order], c, float(box.low[0]), float(box.high[0]))
    variables = np.empty(2 * len(x))
    variables[order], variables[len(x) + order] = found.g, found.p
    return found.lower, found.upper, variables, found.binding, found.rows


def _unstack(solutions: list[np.ndarray], x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The function (n, d) and its gradient (n, d, d) from the variables of every coordinate."""
    n, d = x.shape
    blocks = np.stack([v.reshape(d + 1, n) for v in solutions])
    return blocks[:, 0].T.copy(), blocks[:, 1:].transpose(2, 0, 1).copy()
