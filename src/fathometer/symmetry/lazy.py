"""The dense design without its table: any one label of 10^10 index pairs, on demand.

For a representative p of each input orbit, the orbits of its stabilizer on the outputs
number the pairs (p, m). A pair (n, m) is carried there by a short word of generators. The
stabilizer is known by random elements: uniform g in the group, divided by the coset
representative of g p, is uniform in it, and a partition that is still too fine survives
such an element with probability at most 1/2. Memory ``O((N + M) generators)``.
"""

from functools import cached_property
from typing import Any

import numpy as np
from numba import njit

from fathometer.errors import InputError
from fathometer.results import Estimate
from fathometer.symmetry.action import Action
from fathometer.symmetry.groups import ROOT, ElementMixer, StabilizerChain, fixes_nothing_else
from fathometer.symmetry.permutations import Permutation, find_root
from fathometer.types import Kind
from fathometer.work import numpy_generator

QUIET = 56
"""Elements in a row that must merge nothing before a partition counts as final."""


class LazyTying:
    """Labels of the dense design, one pair at a time.

    Args:
        action: An unsigned action.
        seed: Of the random elements.

    Attributes:
        num_orbits: Number of weights.
        certificate: How sure ``num_orbits`` and the labels are. Its value is a probability
            of error: 0 and "exact" where no element but the identity fixes a
            representative; a "bound" where uniform elements are known; an "estimate"
            where they come from product replacement.

    Raises:
        InputError: If the action is signed.

    >>> lazy = Action.tuples(4, 2).tying(lazy=True)
    >>> lazy.num_orbits, lazy.label(0, 5) == lazy.label(5, 10)
    (15, True)
    """

    def __init__(self, action: Action, *, seed: int = 0) -> None:
        if action.signs is not None:
            raise InputError(f"{action.name} is signed; the lazy engine is for unsigned actions.")
        self.action = action
        n, m = action.sizes
        # walk the side with fewer orbits: one row of labels is kept for each of them
        self.swapped = len(action.orbits[1]) < len(action.orbits[0])
        self.walked, self.labeled = (m, n) if self.swapped else (n, m)
        self.draws = 0
        kinds: list[Kind] = []
        self.trees: list[StabilizerChain] = []
        rows, count = [], 0
        self.orbit_of = np.empty(self.walked, dtype=np.int64)
        joint = self._joint_generators()
        source = self._source(seed)
        for i, orbit in enumerate(action.orbits[1 if self.swapped else 0]):
            self.orbit_of[orbit] = i
            chain = StabilizerChain(joint, self.walked + self.labeled, [orbit[0]])
            self.trees.append(chain)
            row, kind = self._stabilizer_orbits(chain, joint, source)
            kinds.append(kind)
            labels = _numbered(row)
            rows.append(labels + count)
            count += int(labels.max()) + 1
        self.rows = np.stack(rows)
        self.num_orbits = count
        self.certificate = self._certificate(kinds)

    def label(self, n: Any, m: Any) -> Any:
        """The label of input n and output m; arrays of the same shape give an array.

        Raises:
            InputError: If an index is out of range.
        """
        inputs, outputs = np.broadcast_arrays(np.asarray(n), np.asarray(m))
        for name, index, size in zip(("n", "m"), (inputs, outputs), self.action.sizes, strict=True):
            if index.size and (index.min() < 0 or index.max() >= size):
                raise InputError(f"{name} must lie in 0..{size - 1}, found {index.min()} to {index.max()}.")
        walked, labeled = (outputs, inputs) if self.swapped else (inputs, outputs)
        found = np.empty(walked.size, dtype=np.int64)
        flat, other = walked.ravel().astype(np.int64), labeled.ravel().astype(np.int64)
        for i, chain in enumerate(self.trees):
            here = np.flatnonzero(self.orbit_of[flat] == i)
            moved = _carried(chain.via[0], chain.table, flat[here], other[here] + self.walked)
            found[here] = self.rows[i][moved - self.walked]
        return int(found[0]) if walked.ndim == 0 else found.reshape(walked.shape)

    @cached_property
    def sizes(self) -> tuple[int, int]:
        """(N, M), inputs and outputs."""
        return tuple(self.action.sizes)

    def _joint_generators(self) -> list[Permutation]:
        pairs = self.action.generators
        if self.swapped:
            pairs = [(b, a) for a, b in pairs]
        return [np.concatenate([a, self.walked + b]) for a, b in pairs]

    def _source(self, seed: int) -> Any:
        """A function that draws a joint element; uniform if the action knows where it comes from."""
        rng = numpy_generator(seed, "lazy tying")
        if self.action.draws_uniformly:

            def draw() -> Permutation:
                a, b = self.action.random_element(rng)
                first, second = (b, a) if self.swapped else (a, b)
                return np.concatenate([first, self.walked + second])

            return draw
        joint = self._joint_generators()
        return (
            ElementMixer(joint, self.walked + self.labeled, int(rng.integers(2**31))).draw if joint else None
        )

    def _stabilizer_orbits(
        self, chain: StabilizerChain, joint: list[Permutation], source: Any
    ) -> tuple[np.ndarray, Kind]:
        """Union-find over the labeled side, closed under the stabilizer of the chain's first point."""
        parent = np.arange(self.labeled)
        point = chain.base[0]
        if fixes_nothing_else(joint, point, self.walked + self.labeled):
            return parent, "exact"
        quiet = 0
        while quiet < QUIET:
            g = source()
            self.draws += 1
            merged = _merge_quotient(parent, g, chain.via[0], chain.table, int(g[point]), self.walked)
            quiet = 0 if merged else quiet + 1
        return parent, "bound" if self.action.draws_uniformly else "estimate"

    def _certificate(self, kinds: list[Kind]) -> Estimate:
        kind: Kind = "estimate" if "estimate" in kinds else "bound" if "bound" in kinds else "exact"
        probability = 0.0 if kind == "exact" else self.draws * 2.0**-QUIET
        how = {
            "exact": "no element but the identity fixes a representative",
            "bound": f"{self.draws} uniform elements, {QUIET} quiet ones for each representative",
            "estimate": f"{self.draws} elements by product replacement, taken as uniform",
        }[kind]
        return Estimate(
            value=probability, kind=kind, error=0.0, method=how, cost=self.draws, cost_unit="elements"
        )

    def __repr__(self) -> str:
        n, m = self.action.sizes
        return f"<LazyTying: {self.num_orbits} weights for {m} outputs of {n} inputs>"


def _numbered(parent: np.ndarray) -> np.ndarray:
    roots = _roots(parent)
    return np.unique(roots, return_inverse=True)[1].astype(np.int32)


@njit(cache=True, nogil=True)
def _roots(parent: np.ndarray) -> np.ndarray:
    roots = np.empty_like(parent)
    for i in range(len(parent)):
        roots[i] = find_root(parent, i)
    return roots


@njit(cache=True, nogil=True)
def _merge_quotient(
    parent: np.ndarray, g: np.ndarray, via: np.ndarray, table: np.ndarray, image: int, walked: int
) -> bool:
    """Join m with u^-1 g m, u the tree's representative of the image of the root under g."""
    s = g[walked:].copy()
    while via[image] != ROOT:
        back = via[image] ^ 1
        for i in range(len(s)):
            s[i] = table[back, s[i]]
        image = table[back, image]
    merged = False
    for i in range(len(s)):
        a, b = find_root(parent, i), find_root(parent, s[i] - walked)
        if a != b:
            merged = True
            if a < b:
                parent[b] = a
            else:
                parent[a] = b
    return merged


@njit(cache=True, nogil=True)
def _carried(via: np.ndarray, table: np.ndarray, points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Where each other point goes when its partner is carried back to the root."""
    moved = others.copy()
    for i in range(len(points)):
        point, other = points[i], others[i]
        while via[point] != ROOT:
            back = via[point] ^ 1
            point, other = table[back, point], table[back, other]
        moved[i] = other
    return moved
