"""The linear programs of the graph Stein discrepancy, solved and certified.

For the L1 norm the supremum over the graph Stein set splits into one program for each
coordinate j, in the values ``gamma_i`` and the gradients ``Gamma_i`` of the j-th component of g
at the points (Gorham & Mackey 2015, sec. 4):

    maximize  sum_i q_i (gamma_i b_j(x_i) + Gamma_ij)
    subject to  |gamma_i| <= c1,  |Gamma_ik| <= c2, and along every edge (i, l), L = |x_i - x_l|_1:
        |gamma_i - gamma_l| <= c2 L,   |Gamma_ik - Gamma_lk| <= c3 L,
        |gamma_i - gamma_l - <Gamma_i, x_i - x_l>| <= c3 L^2 / 2,   and the same with Gamma_l.

Every constraint is of the form ``|a v| <= r``. So any y bounds the optimum from above by
``r |y| + u |c - A'y|`` (u the bounds of the variables), and any v shrunk until it fits bounds it
from below: each answer carries its own proof, whatever the solver says. Solvers are driven
to tolerances far below their defaults, because right-hand sides are as small as L^2.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from fathometer.errors import CapabilityError
from fathometer.stein.support import Support

_GOOD_GAP = 1e-8
_REPAIRS = 50
_TINY = 1e-10


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Constraints ``|A v| <= limit``; v stacks gamma, Gamma_0, ..., Gamma_(d-1)."""

    A: sparse.csr_array
    limit: Float[np.ndarray, " m"]


@dataclass(frozen=True, kw_only=True)
class Solution:
    """One solved program.

    Attributes:
        lower: Value of ``v``, which fits all constraints.
        upper: The dual bound.
        v: (n (d + 1),) the variables.
        binding: Number of rows that bind.
        rows: Number of rows.
    """

    lower: float
    upper: float
    v: Float[np.ndarray, " k"]
    binding: int
    rows: int


def cutoff(constants: tuple[float, float, float]) -> float:
    """The distance beyond which no constraint of a pair can bind."""
    c1, c2, c3 = constants
    return max(2 * c1 / c2, 4 * c2 / c3)


def edge_rows(
    points: Float[np.ndarray, "n d"], edges: Int[np.ndarray, "m 2"], constants: tuple[float, float, float]
) -> Rows:
    """The constraints along the edges, without those that can never bind."""
    n, d = points.shape
    c1, c2, c3 = constants
    difference = points[edges[:, 0]] - points[edges[:, 1]]
    length = np.abs(difference).sum(1)
    blocks, limits = [], []

    def add(keep: np.ndarray, entries: list[tuple[np.ndarray, np.ndarray]], limit: np.ndarray) -> None:
        count = int(keep.sum())
        rows = np.tile(np.arange(count), len(entries))
        columns = np.concatenate([c[keep] for c, _ in entries])
        values = np.concatenate([np.broadcast_to(v, keep.shape)[keep] for _, v in entries])
        blocks.append(sparse.csr_array((values, (rows, columns)), shape=(count, n * (d + 1))))
        limits.append(limit[keep])

    i, k = edges[:, 0], edges[:, 1]
    one, taylor = np.ones(len(edges)), length < 4 * c2 / c3
    add(length < 2 * c1 / c2, [(i, one), (k, -one)], c2 * length)
    for j in range(d):
        offset = (j + 1) * n
        add(length < 2 * c2 / c3, [(i + offset, one), (k + offset, -one)], c3 * length)
    for end in (i, k):
        slopes = [(end + (j + 1) * n, -difference[:, j]) for j in range(d)]
        add(taylor, [(i, one), (k, -one), *slopes], 0.5 * c3 * length**2)
    return Rows(A=sparse.csr_array(sparse.vstack(blocks)), limit=np.concatenate(limits))


def stacked(a: Rows, b: Rows) -> Rows:
    """All rows of both."""
    if len(b.limit) == 0:
        return a
    return Rows(A=sparse.csr_array(sparse.vstack([a.A, b.A])), limit=np.concatenate([a.limit, b.limit]))


def boundary_rows(
    points: Float[np.ndarray, "n d"], support: Support, j: int, constants: tuple[float, float, float]
) -> tuple[Rows, Float[np.ndarray, " k"]]:
    """Rows and bounds of the variables for component j, which must vanish on the faces of coordinate j."""
    n, d = points.shape
    c1, c2, c3 = constants
    bound = np.repeat([c1, *[c2] * d], n)
    blocks, limits = [sparse.csr_array((0, n * (d + 1)))], [np.empty(0)]
    for face in (support.low[j], support.high[j]):
        if not np.isfinite(face):
            continue
        s = points[:, j] - face
        bound[:n] = np.minimum(bound[:n], c2 * np.abs(s))
        for k in range(d):
            if k != j:
                part = slice((k + 1) * n, (k + 2) * n)
                bound[part] = np.minimum(bound[part], c3 * np.abs(s))
        keep = np.flatnonzero((np.abs(s) < 4 * c2 / c3) & (s != 0))
        rows = np.tile(np.arange(len(keep)), 2)
        values = np.concatenate([np.ones(len(keep)), -s[keep]])
        columns = np.concatenate([keep, keep + (j + 1) * n])
        blocks.append(sparse.csr_array((values, (rows, columns)), shape=(len(keep), n * (d + 1))))
        limits.append(0.5 * c3 * s[keep] ** 2)
    return Rows(A=sparse.csr_array(sparse.vstack(blocks)), limit=np.concatenate(limits)), bound


def objective(
    scores: Float[np.ndarray, "n d"], weights: Float[np.ndarray, " n"], j: int
) -> Float[np.ndarray, " k"]:
    """Coefficients of the mean of ``T g`` in the variables of component j."""
    n, d = scores.shape
    c = np.zeros(n * (d + 1))
    c[:n] = weights * scores[:, j]
    c[(j + 1) * n : (j + 2) * n] = weights
    return c


def solve(
    rows: Rows, bound: Float[np.ndarray, " k"], c: Float[np.ndarray, " k"], *, dimension: int
) -> Solution:
    """Maximize ``c v`` and certify the answer; a second solver is asked where the first leaves a gap.

    Raises:
        CapabilityError: If no solver comes to an end.
    """
    solvers = [_clarabel, _highs] if dimension <= 2 else [_highs, _clarabel]
    best: Solution | None = None
    failures = []
    for run in solvers:
        try:
            v, y = run(rows, bound, c)
        except CapabilityError as cause:
            failures.append(str(cause))
            continue
        found = certify(rows, bound, c, v, y)
        best = found if best is None else _better(best, found)
        if best.upper - best.lower <= _GOOD_GAP * best.upper:
            break
    if best is None:
        raise CapabilityError(f"no solver finished the program of {len(c)} variables: {'; '.join(failures)}.")
    return best


def certify(
    rows: Rows,
    bound: Float[np.ndarray, " k"],
    c: Float[np.ndarray, " k"],
    v: Float[np.ndarray, " k"],
    y: Float[np.ndarray, " m"],
) -> Solution:
    """A feasible point from ``v`` and an upper bound from ``y``; both hold whatever v and y are."""
    v = _repaired(rows, np.clip(v, -bound, bound))
    v = np.clip(v, -bound, bound)
    image = np.abs(rows.A @ v)
    over = image > rows.limit + _rounding(rows, v)
    shrink = float((rows.limit[over] / image[over]).min()) if over.any() else 1.0
    v = v * shrink
    upper = float(rows.limit @ np.abs(y) + bound @ np.abs(c - rows.A.T @ y))
    binding = int((image * shrink > (1 - 1e-6) * rows.limit).sum())
    return Solution(lower=float(c @ v), upper=upper, v=v, binding=binding, rows=len(rows.limit))


def _rounding(rows: Rows, v: np.ndarray) -> np.ndarray:
    """What the rows cannot be told from their limits by, in float64."""
    return 4 * np.finfo(float).eps * (abs(rows.A) @ np.abs(v))


def _repaired(rows: Rows, v: np.ndarray) -> np.ndarray:
    """Move ``v`` onto the rows it breaks most, one after the other.

    The limits of points that almost coincide are smaller than any solver's tolerance. A few such
    projections mend them, where shrinking everything would cost the whole value.
    """
    A, v = rows.A, v.copy()
    for _ in range(_REPAIRS):
        excess = np.abs(A @ v) - rows.limit
        broken = np.flatnonzero(excess > np.maximum(_TINY * rows.limit, _rounding(rows, v)))
        if len(broken) == 0:
            break
        for row in broken:
            part = slice(A.indptr[row], A.indptr[row + 1])
            a, at = A.data[part], A.indices[part]
            image = a @ v[at]
            if abs(image) > rows.limit[row]:
                v[at] -= a * (image - np.sign(image) * rows.limit[row]) / (a @ a)
    return v


def _better(a: Solution, b: Solution) -> Solution:
    """The better witness with the better bound."""
    best = a if a.lower >= b.lower else b
    return Solution(
        lower=best.lower, upper=min(a.upper, b.upper), v=best.v, binding=best.binding, rows=best.rows
    )


def _clarabel(rows: Rows, bound: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    clarabel: Any = import_module("clarabel")  # its names are made at run time
    k, m = len(bound), len(rows.limit)
    eye = sparse.identity(k, format="csc")
    A = sparse.csc_matrix(sparse.vstack([rows.A, -rows.A, eye, -eye]))
    b = np.concatenate([rows.limit, rows.limit, bound, bound])
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-11
    settings.max_threads = 1
    program = clarabel.DefaultSolver(
        sparse.csc_matrix((k, k)), -c, A, b, [clarabel.NonnegativeConeT(len(b))], settings
    )
    answer = program.solve()
    v, z = np.array(answer.x), np.array(answer.z)
    if not (np.isfinite(v).all() and np.isfinite(z).all()):
        raise CapabilityError(f"Clarabel stopped with {answer.status}")
    return v, z[:m] - z[m : 2 * m]


def _highs(rows: Rows, bound: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import highspy

    # the public constructor prints a banner before it can be told not to; its base class does not
    model: Any = highspy.Highs.__mro__[1]()
    for option, setting in {
        "output_flag": False,
        "threads": 1,
        "solver": "simplex" if len(rows.limit) < 1500 else "ipm",
        "run_crossover": "off",
        "primal_feasibility_tolerance": 1e-10,
        "dual_feasibility_tolerance": 1e-10,
        "ipm_optimality_tolerance": 1e-11,
    }.items():
        model.setOptionValue(option, setting)
    program: Any = highspy.HighsLp()
    program.num_col_, program.num_row_ = len(c), len(rows.limit)
    program.col_cost_, program.col_lower_, program.col_upper_ = -c, -bound, bound
    program.row_lower_, program.row_upper_ = -rows.limit, rows.limit
    program.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    program.a_matrix_.start_ = rows.A.indptr
    program.a_matrix_.index_ = rows.A.indices
    program.a_matrix_.value_ = rows.A.data
    model.passModel(program)
    model.run()
    solution = model.getSolution()
    if not solution.value_valid:
        raise CapabilityError(f"HiGHS stopped with {model.modelStatusToString(model.getModelStatus())}")
    dual = np.array(solution.row_dual) if solution.dual_valid else np.zeros(len(rows.limit))
    return np.array(solution.col_value), -dual
