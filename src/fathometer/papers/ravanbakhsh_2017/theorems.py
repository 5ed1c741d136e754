"""The claims of the paper as counts: each theorem against brute force, Burnside or a closed form.

Only the abstracts and parts of the introduction were at hand when this was written, so statements
are named by their content; where a statement as remembered is too strong or too weak, the exact
version is checked and the difference is an own item.
"""

import itertools
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from fathometer.papers.item import Outcome, check, item
from fathometer.papers.ravanbakhsh_2017.examples import same, structure_row, symmetries_of
from fathometer.results import Row, Table
from fathometer.symmetry import Action, Tying, defect, discover, project
from fathometer.work import numpy_generator

A = Action
QUATERNIONS = A([[1, 2, 3, 0, 5, 6, 7, 4], [4, 7, 6, 5, 2, 1, 0, 3]], name="Q_8")


@item(
    "layer-symmetries",
    "A layer is equivariant to the symmetries of its structure and to nothing else",
    seconds=5,
)
def layer_symmetries(*, full: bool = False, seed: int = 0) -> Outcome:
    """Every pair of permutations is tried on a layer with drawn weights, for five activations.

    The paper asks the activation to be strictly monotonic [as remembered]; ReLU and GELU are not, and
    they do. What is needed is that the activation tells linear forms apart; |t| does so up to sign.
    """
    rng = numpy_generator(seed, "layer symmetries")
    activations = {
        "tanh": np.tanh,
        "relu": lambda t: np.maximum(t, 0),
        "leaky relu": lambda t: np.where(t > 0, t, 0.1 * t),
        "gelu-like": lambda t: t / (1 + np.exp(-1.702 * t)),
    }
    structures = {
        "Z_4": A.cyclic(4).tying(),
        "D_4": A.dihedral(4).tying(),
        "S_3, invariant": A.symmetric(3, outputs="invariant").tying(),
        "Z_4 sparse {0, 1}": A.cyclic(4).tying("sparse"),
        "own labels": Tying([[0, 1, -1], [1, 0, 0], [0, 0, 1]]),
    }
    rows = []
    for name, tying in structures.items():
        weights = rng.normal(size=tying.num_orbits)
        counts = {k: _equivariant_pairs(tying.matrix(weights), f, rng) for k, f in activations.items()}
        rows.append(
            Row(structure=name, symmetries=tying.automorphisms().order, **counts, kind="exact", error=0.0)
        )
    W = np.array([[1.0, -1.0]])
    even = _equivariant_pairs(W, np.abs, rng), _equivariant_pairs(W, np.tanh, rng)
    checks = [
        same(f"{row.structure}, {name}: pairs that commute", row.symmetries, row[name])
        for row in rows
        for name in activations
    ]
    checks.append(same("|t| on w = (1, -1) has the swap as a symmetry, tanh has not", (2, 1), even))
    return Outcome(checks=tuple(checks), table=Table(title="Pairs that commute", rows=tuple(rows)))


def _equivariant_pairs(W: np.ndarray, activation: object, rng: np.random.Generator) -> int:
    """Pairs (a, b) of all permutations with f(a x) = b f(x) on 40 drawn inputs."""
    f = activation
    m, n = W.shape
    x = rng.normal(size=(40, n))
    y = f(x @ W.T)  # type: ignore[operator]
    count = 0
    for a in itertools.permutations(range(n)):
        moved = np.empty_like(x)
        moved[:, a] = x
        z = f(moved @ W.T)  # type: ignore[operator]
        for b in itertools.permutations(range(m)):
            count += np.allclose(z[:, b], y, rtol=1e-9, atol=1e-12)
    return count


@item("dense-design", "The dense design: all equivariant matrices, counted three ways", seconds=5)
def dense_design(*, full: bool = False, seed: int = 0) -> Outcome:
    """Orbits of index pairs, Burnside's mean of fixed pairs, and the rank of the commutation equations."""
    rows = []
    for name, action in _actions().items():
        rows.append(
            Row(
                action=name,
                group=action.order,
                orbits=action.tying().num_orbits,
                burnside=_burnside(action),
                null_space=_null_space(action),
                kind="exact",
                error=0.0,
            )
        )
    agree = sum(row.orbits == row.burnside == row.null_space for row in rows)
    bell = [sum(_stirling(4, j) for j in range(1, n + 1)) for n in range(1, 7)]
    found = [A.tuples(n, 2).tying().num_orbits for n in range(1, 7)]
    return Outcome(
        checks=(
            same("The three counts agree on all actions", len(rows), agree),
            same("S_n on pairs: Bell numbers, truncated below n = 4", bell, found),
        ),
        table=Table(title="Weights of the dense design", rows=tuple(rows)),
    )


def _actions() -> dict[str, Action]:
    S = A.symmetric
    grids = {
        f"grid {h} x {w}{' turns' * bool(r)}{' flips' * f}{' still' * (not t)}": A.grid(
            h, w, translations=t, rotations=r, flips=f
        )
        for h, w, t, r, f in itertools.product((3, 4), (3, 4), (True, False), (False, 2, True), (False, True))
        if (t or r or f) and (r is not True or h == w)
    }
    groups = {
        "Z_5": A.cyclic(5), "Z_12": A.cyclic(12), "D_5": A.dihedral(5), "D_6": A.dihedral(6), "S_5": S(5),
        "A_5": A.alternating(5), "A_4 regular": A.regular(A.alternating(4)), "Q_8": QUATERNIONS,
        "S_4 pairs": A.tuples(4, 2), "S_5 edges": A.subsets(5, 2), "S_6 triples": A.subsets(6, 3),
        "S_5 edges to points": A.subsets(5, 2, outputs=S(5)), "S_3 x S_4": A.product(S(3), S(4)),
        "S_2 wr S_3": A.wreath(S(2), S(3)), "Z_4 wr Z_3": A.wreath(A.cyclic(4), A.cyclic(3)),
        "weights 2-3-1": A.weight_space([2, 3, 1]), "weights 1-2-3-1": A.weight_space([1, 2, 3, 1]),
        "D_6 invariant": A.dihedral(6, outputs="invariant"), "3- and 2-cycle": A([[1, 2, 0]], [[1, 0]]),
        "square on cosets": A.cosets(A.dihedral(4), [[0, 3, 2, 1]]), "trivial": A.trivial(3, 4),
    }  # fmt: skip
    return groups | grids


def _burnside(action: Action) -> float:
    elements = action.elements(20_000)
    fixed = sum(
        int((a == np.arange(len(a))).sum()) * int((b == np.arange(len(b))).sum()) for a, b in elements
    )
    return fixed / len(elements)


def _null_space(action: Action) -> int:
    """Dimension of all W with W P = P' W for every generator."""
    n, m = action.sizes
    rows = [np.zeros((1, n * m))]
    for a, b in action.generators:
        P, Q = np.eye(n)[:, a], np.eye(m)[:, b]
        rows.append(np.kron(np.eye(m), P.T) - np.kron(Q, np.eye(n)))
    # of whole numbers, so the small side of the product loses nothing
    gram = sum(row.T @ row for row in rows)
    return n * m - int(np.linalg.matrix_rank(gram, hermitian=True))


def _stirling(n: int, k: int) -> int:
    """Partitions of n things into k classes."""
    return sum((-1) ** i * math.comb(k, i) * (k - i) ** n for i in range(k + 1)) // math.factorial(k)


@item("dense-uniqueness", "Semi-regular on one side and faithful on the other: nothing else", seconds=2)
def dense_uniqueness(*, full: bool = False, seed: int = 0) -> Outcome:
    """The theorem, its limits (2-transitive groups collapse), and a proved repair."""
    fano = [{0, 1, 3}, {1, 2, 4}, {2, 3, 5}, {3, 4, 6}, {4, 5, 0}, {5, 6, 1}, {6, 0, 2}]
    points = [[(i + 1) % 7 for i in range(7)], [2 * i % 7 for i in range(7)], [0, 1, 4, 3, 2, 6, 5]]
    lines = [[fano.index({g[i] for i in line}) for line in fano] for g in points]
    cases = {
        "Z_8": (A.cyclic(8), 8),
        "S_3 regular": (A.regular(A.symmetric(3)), 6),
        "pixels to D_4": (A.grid(3, 3, translations=False, rotations=True, flips=True,
                                 outputs=A.regular(_square())), 8),
        "A_5 on points": (A.alternating(5), 120),
        "AGL(1,7)": (A([[(i + 1) % 7 for i in range(7)], [3 * i % 7 for i in range(7)]]), 5040),
        "PSL(3,2), points": (A(points), 5040),
        "PSL(3,2), points to lines": (A(points, lines), 168),
    }  # fmt: skip
    rows = [structure_row(name, action) for name, (action, _) in cases.items()]
    pairs = zip(rows, cases.values(), strict=True)
    checks = [same(f"{r.structure}: symmetries", n, r.symmetries) for r, (_, n) in pairs]
    repair = symmetries_of(A.alternating(5).tying()).repair
    proved = None if repair is None else repair.tying().automorphisms()
    checks.append(
        check(
            "A_5: a hidden set on which the group is regular makes both layers unique",
            60,
            proved.order if proved else None,
            bool(proved and proved.unique and proved.order == 60),
            note=proved.reason if proved else "",
        )
    )
    return Outcome(checks=tuple(checks), table=Table(title="Uniqueness, dense design", rows=tuple(rows)))


def _square() -> Action:
    turn = A.grid(3, 3, translations=False, rotations=True, flips=True)
    return A(turn.inputs, name="D_4 on nine pixels")


@item("sparse-uniqueness", "The sparse design: generators are not enough, voltages decide", seconds=3)
def sparse_uniqueness(*, full: bool = False, seed: int = 0) -> Outcome:
    """Symmetries of sparse designs against the closed form |H|^[G:H] [G:H]! of voltage graphs.

    Here N = M = G, so H is generated by the quotients a^-1 b of the chosen elements.
    """
    D5, Z4, Z6 = A.regular(A.dihedral(5)), A.cyclic(4), A.cyclic(6)
    cases = [
        ("Z_4 {1}", Z4, [1]), ("Z_4 {0, 1}", Z4, [0, 1]), ("Z_4 {0, 2}", Z4, [0, 2]),
        ("Z_6 {1, 5}", Z6, [1, 5]), ("Z_6 {0, 1, 5}", Z6, [0, 1, 5]), ("Z_6 {0, 3}", Z6, [0, 3]),
    ]  # fmt: skip
    rows = []
    for name, action, powers in cases:
        n = action.sizes[0]
        shifts = [((np.arange(n) + k) % n,) * 2 for k in powers]
        rows.append(_sparse_row(name, action, shifts))
    for name, action in (("D_5 {r, s}", D5), ("Q_8 {i, j}", QUATERNIONS)):
        chosen = list(action.generators)
        identity = (np.arange(action.sizes[0]),) * 2
        rows.append(_sparse_row(name, action, chosen))
        rows.append(_sparse_row(f"{name} with e", action, [identity, *chosen]))
    published = {"Z_4 {1}": 24, "Z_6 {1, 5}": 18, "D_5 {r, s}": 3840, "Q_8 {i, j}": 32}
    checks = [same(f"{r.structure}: symmetries by the closed form", r.formula, r.symmetries) for r in rows]
    checks += [
        same(f"{r.structure}: generates the group, but", published[r.structure], r.symmetries)
        for r in rows
        if r.structure in published
    ]  # fmt: skip
    return Outcome(checks=tuple(checks), table=Table(title="Sparse designs", rows=tuple(rows)))


def _sparse_row(name: str, action: Action, chosen: list[Any]) -> Row:
    tying = action.tying("sparse", chosen)
    quotients = [(np.argsort(chosen[0][0])[g[0]], np.argsort(chosen[0][1])[g[1]]) for g in chosen[1:]]
    moving = [a for a, _ in quotients]
    H = A(moving, sizes=action.sizes).order if moving else 1
    index = action.order // H
    return Row(
        structure=name,
        weights=tying.num_orbits,
        group=action.order,
        voltages=H,
        formula=H**index * math.factorial(index),
        symmetries=tying.automorphisms().order,
        kind="exact",
        error=0.0,
    )


@item("minimal-design", "The fewest weights that keep a layer unique", seconds=3)
def minimal_design(*, full: bool = False, seed: int = 0) -> Outcome:
    """Beyond the paper: P + Q - 1 + d(G) weights instead of P Q |A| (semi-regular actions)."""
    rows = []
    for name, action, rank in (
        ("Z_6", A.cyclic(6), 1),
        ("D_3", A.regular(A.dihedral(3)), 2),
        ("Q_8", QUATERNIONS, 2),
        ("A_4", A.regular(A.alternating(4)), 2),
    ):
        for copies in (1, 2):
            n = action.sizes[0]
            many = A([np.concatenate([i * n + g for i in range(copies)]) for g in action.inputs])
            tying = many.tying("minimal")
            rows.append(
                Row(
                    action=f"{name} on {copies} orbits",
                    dense=many.tying().num_orbits,
                    sparse=many.tying("sparse").num_orbits,
                    minimal=tying.num_orbits,
                    expected=2 * copies - 1 + rank,
                    unique=tying.automorphisms().unique,
                    kind="exact",
                    error=0.0,
                )
            )
    checks = [same(f"{r.action}: weights", r.expected, r.minimal) for r in rows]
    checks.append(same("All are unique", len(rows), sum(bool(r.unique) for r in rows)))
    return Outcome(checks=tuple(checks), table=Table(title="Minimal designs", rows=tuple(rows)))


@item("discovery", "The group behind noisy weights", seconds=6)
def discovery(*, full: bool = False, seed: int = 0) -> Outcome:
    """Beyond the paper: from a matrix with noise back to the partition and the group."""
    cases: Iterable[tuple[str, Action, int]] = (
        ("Z_8", A.cyclic(8), 8),
        ("D_8", A.dihedral(8), 16),
        ("S_3 wr S_4", A.wreath(A.symmetric(3), A.symmetric(4)), 31104),
        ("S_4 pairs", A.tuples(4, 2), 24),
        ("3 x 3 torus, turns and flips", A.grid(3, 3, rotations=True, flips=True), 72),
        ("S_3 regular", A.regular(A.symmetric(3)), 6),
    )
    rng = numpy_generator(seed, "noisy weights")
    rows = []
    for name, action, order in cases:
        tying = action.tying()
        weights = np.linspace(-1, 1, tying.num_orbits) + 0.1 / tying.num_orbits
        W = tying.matrix(rng.permutation(weights)) + 1e-4 * rng.normal(size=tying.labels.shape)
        found = discover(W)
        rows.append(
            Row(
                matrix=name,
                weights=tying.num_orbits,
                found=found.num_orbits,
                same_partition=bool((found.labels == tying.labels).all()),
                order=order,
                symmetries=found.automorphisms.order,
                gap=found.gap,
                defect=defect(W, action),
                rest=float(np.abs(W - project(W, action)).max()),
                kind="estimate",
                error=0.0,
            )
        )
    checks = [same(f"{r.matrix}: symmetries found", r.order, r.symmetries) for r in rows]
    checks.append(same("Every partition is exact", len(rows), sum(r.same_partition for r in rows)))
    return Outcome(checks=tuple(checks), table=Table(title="Discovered ties", rows=tuple(rows)))
