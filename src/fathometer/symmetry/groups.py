"""Finite permutation groups from generators: exact order, membership, uniform elements.

A base and strong generating set (Sims 1970), found with random elements and then
proved: by an upper bound the order reaches, or by sifting every Schreier generator.
Coset representatives are words along Schreier trees that are kept shallow, so memory
is ``O((levels + generators) * degree)``. Orders are Python integers of any size.
"""

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numba import njit

from fathometer.errors import InputError
from fathometer.symmetry.permutations import (
    Permutation,
    compose,
    cycle_lengths,
    groups_of,
    invert,
    is_even,
    is_identity,
    orbit_labels,
    stack,
)

QUIET = 24
"""Random elements in a row that must sift to the identity before the proof starts."""

ABSENT, ROOT = -1, -2


class PermutationGroup:
    """The group that permutations of ``0..degree-1`` generate.

    Args:
        generators: Permutations, int64 (degree,) each; none for the trivial group.
        degree: Number of points.
        order: The order, where a theorem gives it; then random sifting until it is
            reached is a proof.
        at_most: A bound on the order; a search that reaches it is finished.
        base: Points whose stabilizers come first.

    >>> PermutationGroup([np.array([1, 2, 3, 0]), np.array([0, 3, 2, 1])], 4).order
    8
    """

    def __init__(
        self,
        generators: Sequence[Permutation],
        degree: int,
        *,
        order: int | None = None,
        at_most: int | None = None,
        base: Sequence[int] = (),
    ) -> None:
        self.generators = [g for g in _distinct(generators) if not is_identity(g)]
        self.degree = degree
        self._order = order
        self._at_most = at_most
        self._first_points = list(base)

    @cached_property
    def order(self) -> int:
        """Number of elements, exact."""
        if self._order is not None:
            return self._order
        if not self.generators:
            return 1
        first = int(np.flatnonzero(self.generators[0] != np.arange(self.degree))[0])
        if fixes_nothing_else(self.generators, first, self.degree):
            labels = orbit_labels(self.generators, self.degree)
            return int((labels == labels[first]).sum())
        giant = _order_of_a_giant(self.generators, self.degree)
        if giant is not None:
            return giant
        return self._chain.order

    @cached_property
    def _chain(self) -> "StabilizerChain":
        chain = StabilizerChain(self.generators, self.degree, self._first_points)
        bound = self._order if self._order is not None else _largest_order(self.generators, self.degree)
        bound = min(bound, self._at_most) if self._at_most is not None else bound
        chain.complete(bound, proved=self._order is not None)
        return chain

    def contains(self, p: Permutation) -> bool:
        """Whether ``p`` is an element."""
        return len(p) == self.degree and self._chain.sift(p.copy())[1]

    def random_element(self, rng: np.random.Generator) -> Permutation:
        """An element, uniformly: a product of uniform coset representatives."""
        return self._chain.random_element(rng)

    def stabilizer(self, point: int) -> "PermutationGroup":
        """The elements that fix ``point``."""
        group = PermutationGroup(self.generators, self.degree, order=self._order, base=[point])
        chain = group._chain
        return PermutationGroup(chain.strong(1), self.degree, order=chain.order // chain.orbit_sizes[0])

    def elements(self, limit: int = 1_000_000) -> np.ndarray:
        """All elements as rows (order, degree), the identity first.

        Raises:
            InputError: If there are more than ``limit``.
        """
        if self.order > limit:
            raise InputError(f"the group has {self.order} elements; at most {limit} can be listed.")
        return list_elements(self.generators, self.degree)

    def orbits(self) -> list[list[int]]:
        """Sorted orbits of the points."""
        return groups_of(orbit_labels(self.generators, self.degree))


def list_elements(generators: Sequence[Permutation], degree: int) -> np.ndarray:
    """All products of the generators as rows, the identity first, in breadth-first order."""
    identity = np.arange(degree)
    rows, known, done = [identity], {identity.tobytes()}, 0
    while done < len(rows):
        for g in generators:
            image = compose(g, rows[done])
            key = image.tobytes()
            if key not in known:
                known.add(key)
                rows.append(image)
        done += 1
    return np.stack(rows)


def fixes_nothing_else(generators: Sequence[Permutation], point: int, degree: int) -> bool:
    """Whether only the identity of the generated group fixes ``point``.

    So it is exactly when the permutations of the orbit that commute with all generators
    are transitive on it, and the orbit maps onto every other orbit, commuting with the
    generators. Each is found by walking a spanning tree: ``O(k**2 * degree)``.
    """
    if not len(generators):
        return True
    table = stack([row for g in generators for row in (g, invert(g))], degree)
    order, via = _spanning_tree(table, np.arange(len(table)), point)
    targets = {int(g[point]) for g in generators}
    inside = via != ABSENT
    others = (o[0] for o in groups_of(orbit_labels(generators, degree)) if len(o) > 1)
    targets.update(i for i in others if not inside[i])
    return all(_extends(table, order, via, point, target) for target in targets)


def _distinct(generators: Sequence[Permutation]) -> list[Permutation]:
    seen: dict[bytes, Permutation] = {}
    for g in generators:
        seen.setdefault(np.ascontiguousarray(g, dtype=np.int64).tobytes(), np.asarray(g, dtype=np.int64))
    return list(seen.values())


def _largest_order(generators: Sequence[Permutation], degree: int) -> int:
    """All permutations that keep the orbits, and the parity if all generators are even."""
    bound = math.prod(math.factorial(len(o)) for o in groups_of(orbit_labels(generators, degree)))
    return bound // 2 if all(is_even(g) for g in generators) else bound


def _order_of_a_giant(generators: Sequence[Permutation], degree: int, tries: int = 60) -> int | None:
    """The order n! or n!/2 when one orbit moves and a long prime cycle proves it (Jordan 1873).

    A transitive group of degree n with an element one of whose cycles has prime length
    p, n/2 < p < n - 2, contains the alternating group.
    """
    moved = [o for o in groups_of(orbit_labels(generators, degree)) if len(o) > 1]
    if len(moved) != 1 or len(moved[0]) < 8:
        return None
    n = len(moved[0])
    mixer = ElementMixer(generators, degree)
    for _ in range(tries):
        if any(n / 2 < c < n - 2 and _is_prime(c) for c in cycle_lengths(mixer.draw())):
            return math.factorial(n) // (2 if all(is_even(g) for g in generators) else 1)
    return None


def _is_prime(n: int) -> bool:
    return n > 1 and all(n % d for d in range(2, math.isqrt(n) + 1))


class ElementMixer:
    """Product replacement: random-looking elements at two compositions each."""

    def __init__(self, generators: Sequence[Permutation], degree: int, seed: int = 0) -> None:
        self.rng = np.random.default_rng([seed, degree, len(generators)])
        size = max(10, len(generators) + 2)
        self.slots = [generators[i % len(generators)].copy() for i in range(size)]
        self.last = np.arange(degree)
        for _ in range(40 + 4 * size):
            self.draw()

    def draw(self) -> Permutation:
        """The next element."""
        i, j = self.rng.choice(len(self.slots), 2, replace=False)
        other = self.slots[j] if self.rng.integers(2) else invert(self.slots[j])
        left = bool(self.rng.integers(2))
        self.slots[i] = compose(other, self.slots[i]) if left else compose(self.slots[i], other)
        self.last = compose(self.last, self.slots[i])
        return self.last


class StabilizerChain:
    """Base, strong generators, and one shallow Schreier tree for each base point.

    Row ``2 j`` of ``table`` is a permutation, row ``2 j + 1`` its inverse; ``levels[j]``
    says how many base points it fixes (a shortcut that serves one tree only has
    ``shortcut_of[j]`` set to that tree's level).
    """

    def __init__(self, generators: Sequence[Permutation], degree: int, base: Sequence[int]) -> None:
        self.degree = degree
        self.base: list[int] = []
        self.table = np.empty((8, degree), dtype=np.int64)
        self.levels: list[int] = []
        self.shortcut_of: list[int] = []
        self.order_of: list[np.ndarray] = []
        self.via: list[np.ndarray] = []
        self.given = list(generators)
        for point in base:
            self._extend_base(point)
        for g in generators:
            self.insert(g)

    @property
    def orbit_sizes(self) -> list[int]:
        """Sizes of the basic orbits; their product is the order once the chain is complete."""
        return [len(points) for points in self.order_of]

    @property
    def order(self) -> int:
        """The order of the group, or less while the chain is not complete."""
        return math.prod(self.orbit_sizes)

    def strong(self, level: int) -> list[Permutation]:
        """The strong generators that fix the first ``level`` base points."""
        kinds = zip(self.levels, self.shortcut_of, strict=True)
        return [self.table[2 * j] for j, (at, tree) in enumerate(kinds) if at >= level and tree < 0]

    def complete(self, bound: int, *, proved: bool) -> None:
        """Add strong generators until the chain is proved complete.

        With ``proved`` the bound is the order itself; otherwise only an upper bound.
        """
        if self.given:
            mixer, quiet = ElementMixer(self.given, self.degree), 0
            while (quiet < QUIET or proved) and self.order < bound:
                quiet = 0 if self.insert(mixer.draw()) else quiet + 1
        if self.order == bound:
            return
        level = len(self.base) - 1
        while level >= 0:
            residue = self._failing_schreier_generator(level)
            if residue is None:
                level -= 1
            else:
                self.insert(residue)
                level = len(self.base) - 1

    def sift(self, p: Permutation, start: int = 0) -> tuple[int, bool]:
        """Divide ``p`` (changed in place) by representatives: the level reached, and whether 1 is left."""
        for level in range(start, len(self.base)):
            if not _divide(p, self.base[level], self.via[level], self.table):
                return level, False
        return len(self.base), is_identity(p)

    def insert(self, p: Permutation) -> bool:
        """Sift ``p`` and keep what is left as a strong generator; whether anything was left."""
        p = np.array(p, dtype=np.int64)
        level, member = self.sift(p)
        if member:
            return False
        if level == len(self.base):
            self._extend_base(int(np.flatnonzero(p != np.arange(self.degree))[0]))
        self._append(p, level, -1)
        for i in range(level + 1):
            inside = self.via[i] != ABSENT
            if not inside[p[self.order_of[i]]].all():
                self._plant(i)
        return True

    def representative(self, level: int, point: int) -> Permutation:
        """A product of generators that carries the base point of the level to ``point``."""
        return _representative(self.via[level], self.table, point)

    def random_element(self, rng: np.random.Generator) -> Permutation:
        """A product of uniform coset representatives."""
        p = np.arange(self.degree)
        for level in reversed(range(len(self.base))):
            points = self.order_of[level]
            p = compose(self.representative(level, int(points[rng.integers(len(points))])), p)
        return p

    def _append(self, p: Permutation, level: int, tree: int) -> None:
        j = len(self.levels)
        if 2 * j + 2 > len(self.table):
            self.table = np.concatenate([self.table, np.empty_like(self.table)])
        self.table[2 * j], self.table[2 * j + 1] = p, invert(p)
        self.levels.append(level)
        self.shortcut_of.append(tree)

    def _extend_base(self, point: int) -> None:
        self.base.append(point)
        via = np.full(self.degree, ABSENT, dtype=np.int64)
        via[point] = ROOT
        self.order_of.append(np.array([point]))
        self.via.append(via)

    def _plant(self, level: int) -> None:
        """Grow the tree of one level anew; random shortcuts keep its words logarithmic."""
        mixer = None
        while True:
            kinds = enumerate(zip(self.levels, self.shortcut_of, strict=True))
            use = [j for j, (at, tree) in kinds if (at >= level and tree < 0) or tree == level]
            rows = np.array([r for j in use for r in (2 * j, 2 * j + 1)])
            points, via = _spanning_tree(self.table, rows, self.base[level])
            self.order_of[level], self.via[level] = points, via
            deep = _depth(via, self.table, int(points[-1])) / (2 * math.log2(len(points)) + 4)
            if deep <= 1:
                return
            mixer = mixer or ElementMixer(self.strong(level), self.degree)
            # a few at a time while far off: every attempt walks the whole orbit
            for _ in range(max(1, int(math.log2(deep)))):
                self._append(mixer.draw(), level, level)

    def _failing_schreier_generator(self, level: int) -> Permutation | None:
        generators = self.strong(level)
        last = level == len(self.base) - 1
        if last and fixes_nothing_else(generators, self.base[level], self.degree):
            return None
        for point in self.order_of[level]:
            u = self.representative(level, int(point))
            for g in generators:
                residue = compose(g, u)
                _divide(residue, self.base[level], self.via[level], self.table)
                if not self.sift(residue, level + 1)[1]:
                    return residue
        return None


@njit(cache=True, nogil=True)
def _spanning_tree(table: np.ndarray, rows: np.ndarray, root: int) -> tuple[np.ndarray, np.ndarray]:
    """Breadth-first order of the orbit of ``root``, and the row of the table that enters each point."""
    degree = table.shape[1]
    via = np.full(degree, ABSENT, dtype=np.int64)
    order = np.empty(degree, dtype=np.int64)
    via[root] = ROOT
    order[0] = root
    head, tail = 0, 1
    while head < tail:
        point = order[head]
        head += 1
        for g in rows:
            image = table[g, point]
            if via[image] == ABSENT:
                via[image] = g
                order[tail] = image
                tail += 1
    return order[:tail].copy(), via


@njit(cache=True, nogil=True)
def _depth(via: np.ndarray, table: np.ndarray, point: int) -> int:
    depth = 0
    while via[point] != ROOT:
        point = table[via[point] ^ 1, point]
        depth += 1
    return depth


@njit(cache=True, nogil=True)
def _divide(p: np.ndarray, root: int, via: np.ndarray, table: np.ndarray) -> bool:
    while p[root] != root:
        g = via[p[root]]
        if g == ABSENT:
            return False
        for i in range(len(p)):
            p[i] = table[g ^ 1, p[i]]
    return True


@njit(cache=True, nogil=True)
def _representative(via: np.ndarray, table: np.ndarray, point: int) -> np.ndarray:
    # the word is read from the point back to the root, so each step multiplies on the right
    p = np.arange(table.shape[1])
    while via[point] != ROOT:
        g = via[point]
        p = p[table[g]]
        point = table[g ^ 1, point]
    return p


@njit(cache=True, nogil=True)
def _extends(table: np.ndarray, order: np.ndarray, via: np.ndarray, start: int, image: int) -> bool:
    """Whether ``start -> image`` extends to a map of the orbit that commutes with all generators.

    Even rows of the table are the generators, odd rows their inverses.
    """
    k, degree = table.shape
    place = np.full(degree, ABSENT, dtype=np.int64)
    place[start] = image
    for t in range(1, len(order)):
        g = via[order[t]]
        place[order[t]] = table[g, place[table[g ^ 1, order[t]]]]
    for t in range(len(order)):
        for g in range(0, k, 2):
            if place[table[g, order[t]]] != table[g, place[order[t]]]:
                return False
    return True
