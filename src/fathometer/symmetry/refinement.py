"""All symmetries of a colored structure: individualization and refinement on its color matrix.

The structure is a complete directed graph with a color on every pair, given as one
matrix; a permutation is an automorphism when it keeps the matrix. Vertices are split
into cells by how many pairs of each color they send into each cell (McKay 1981). A first
path individualizes vertices until all cells are single; from its deepest level up, every
vertex that could replace the one chosen is tried, so the product of the orbit sizes is
the exact order of the group. Two things keep it fast: orbits under the automorphisms
already found, and trying, at each node, the map that fixes whatever the two partitions
have in common (as in saucy; Darga, Sakallah & Markov 2008).

Cost: a refinement reads each row of the matrix a few times. The search is exponential
in the worst case; `NODES` bounds it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from fathometer.errors import CapabilityError, InputError
from fathometer.symmetry.permutations import Permutation, find_root

NODES = 200_000
"""Search nodes after which the search gives up."""


@dataclass(frozen=True, kw_only=True)
class Symmetries:
    """The automorphism group of a structure.

    Attributes:
        order: Its order, exact.
        generators: Permutations of the vertices.
        degree: Number of vertices.
        nodes: Search nodes visited.
    """

    order: int
    generators: tuple[Permutation, ...]
    degree: int
    nodes: int


def graph_automorphisms(adjacency: Any) -> Symmetries:
    """Automorphisms of a graph with colored edges, ``adjacency`` (n, n); the diagonal colors the vertices.

    Raises:
        InputError: If the matrix is not square.
        CapabilityError: If the search visits more than `NODES` nodes.

    >>> graph_automorphisms([[0, 1, 0], [1, 0, 1], [0, 1, 0]]).order  # a path of three
    2
    """
    if hasattr(adjacency, "detach"):
        adjacency = adjacency.detach().cpu().numpy()
    A = np.asarray(adjacency)
    if A.ndim != 2 or A.shape[0] != A.shape[1] or A.size == 0:
        raise InputError(f"adjacency has shape {A.shape}; a square matrix is needed.")
    codes = np.unique(A, return_inverse=True)[1].reshape(A.shape).astype(np.int64)
    # both directions of a pair in one code, so that rows alone tell everything
    both = codes * (codes.max() + 1) + codes.T
    colors = np.unique(both, return_inverse=True)[1].reshape(A.shape).astype(np.int32)
    return symmetries(colors, np.diag(colors))


def symmetries(colors: np.ndarray, vertex_colors: np.ndarray) -> Symmetries:
    """Permutations p with ``colors[p[u], p[v]] == colors[u, v]`` that keep the vertex colors.

    Args:
        colors: (n, n) int32 from 0; entry [u, v] must determine entry [v, u].
        vertex_colors: (n,) whole numbers.

    Raises:
        CapabilityError: If the search visits more than `NODES` nodes.
    """
    return _Search(np.ascontiguousarray(colors, dtype=np.int32), vertex_colors).run()


@dataclass
class _Partition:
    """Ordered cells: the vertices in ``order``, where each one's cell begins, cell lengths by beginning."""

    order: np.ndarray
    start: np.ndarray
    length: np.ndarray

    def copy(self) -> "_Partition":
        return _Partition(self.order.copy(), self.start.copy(), self.length.copy())

    def cell(self, at: int) -> np.ndarray:
        return self.order[at : at + self.length[at]]

    def target(self) -> int:
        """Where the first smallest cell of more than one vertex begins; -1 if there is none."""
        return int(_target_cell(self.length))


@dataclass
class _Level:
    before: _Partition
    target: int
    vertex: int
    trace: int
    after: _Partition


class _Search:
    def __init__(self, colors: np.ndarray, vertex_colors: np.ndarray) -> None:
        self.colors = colors
        self.n = len(colors)
        words = np.random.default_rng(20170806).integers(1, 2**63, int(colors.max()) + 1, dtype=np.uint64)
        self.words = words
        self.nodes = 0
        self.parent = np.arange(self.n)
        self.generators: list[Permutation] = []
        order = np.argsort(vertex_colors, kind="stable").astype(np.int64)
        sorted_colors = np.asarray(vertex_colors)[order]
        firsts = np.flatnonzero(np.r_[True, sorted_colors[1:] != sorted_colors[:-1]])
        length = np.zeros(self.n, dtype=np.int64)
        length[firsts] = np.diff(np.r_[firsts, self.n])
        start = np.empty(self.n, dtype=np.int64)
        start[order] = np.repeat(firsts, length[firsts])
        self.root = _Partition(order, start, length)
        self._refine(self.root, firsts)

    def run(self) -> Symmetries:
        path = self._first_path()
        order = 1
        for depth in reversed(range(len(path))):
            order *= self._orbit_at(path, depth)
        return Symmetries(order=order, generators=tuple(self.generators), degree=self.n, nodes=self.nodes)

    def _refine(self, partition: _Partition, splitters: np.ndarray) -> int:
        return int(
            _refine(self.colors, self.words, partition.order, partition.start, partition.length, splitters)
        )

    def _individualized(self, partition: _Partition, at: int, vertex: int) -> tuple[_Partition, int]:
        self.nodes += 1
        if self.nodes > NODES:
            raise CapabilityError(
                f"the search for symmetries of {self.n} points passed {NODES} nodes without an end; "
                "a coarser question (project, defect) or the theorem for semi-regular actions may do."
            )
        child = partition.copy()
        _single_out(child.order, child.start, child.length, at, vertex)
        return child, self._refine(child, np.array([at]))

    def _first_path(self) -> list[_Level]:
        path: list[_Level] = []
        partition = self.root
        while (at := partition.target()) >= 0:
            vertex = int(partition.cell(at).min())
            child, trace = self._individualized(partition, at, vertex)
            path.append(_Level(partition, at, vertex, trace, child))
            partition = child
        return path

    def _orbit_at(self, path: list[_Level], depth: int) -> int:
        """Size of the orbit of the vertex chosen at this depth, under what fixes those before it."""
        level = path[depth]
        cell = np.sort(level.before.cell(level.target))
        refuted: list[int] = []
        for w in cell.tolist():
            root = find_root(self.parent, w)
            if root == find_root(self.parent, level.vertex):
                continue
            if any(find_root(self.parent, v) == root for v in refuted):
                continue
            found = self._carry(path, depth, w)
            if found is None:
                refuted.append(w)
            else:
                self.generators.append(found)
                _join(self.parent, found)
        home = find_root(self.parent, level.vertex)
        return sum(find_root(self.parent, int(v)) == home for v in cell)

    def _carry(self, path: list[_Level], depth: int, w: int) -> Permutation | None:
        """An automorphism that fixes the vertices chosen before and carries the next one to ``w``."""
        stack = [(depth, path[depth].before, iter([w]))]
        while stack:
            at_depth, partition, choices = stack[-1]
            vertex = next(choices, None)
            if vertex is None:
                stack.pop()
                continue
            level = path[at_depth]
            child, trace = self._individualized(partition, level.target, vertex)
            if trace != level.trace:
                continue
            guess = _common_map(level.after.order, level.after.length, child.order, child.start)
            if _keeps(self.colors, guess):
                return guess
            if at_depth + 1 < len(path):
                following = np.sort(child.cell(path[at_depth + 1].target)).tolist()
                stack.append((at_depth + 1, child, iter(following)))
        return None


def bipartite(labels: Sequence[np.ndarray], sizes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """A chain of layers as one structure: layer t colors the pairs between set t and set t + 1.

    Args:
        labels: Whole numbers (sizes[t + 1], sizes[t]) for each layer.
        sizes: Number of vertices of each set.

    Returns:
        Colors (n, n) int32 and vertex colors (n,).
    """
    starts = np.concatenate([[0], np.cumsum(sizes)])
    n = int(starts[-1])
    colors = np.zeros((n, n), dtype=np.int32)
    used = 1
    for t, layer in enumerate(labels):
        inputs = slice(starts[t], starts[t + 1])
        outputs = slice(starts[t + 1], starts[t + 2])
        shifted = layer - int(layer.min()) + used
        colors[outputs, inputs] = shifted
        colors[inputs, outputs] = shifted.T
        used = int(shifted.max()) + 1
    return colors, np.repeat(np.arange(len(sizes)), sizes)


@njit(cache=True, nogil=True)
def _target_cell(length: np.ndarray) -> int:
    best, at, i = len(length) + 1, -1, 0
    while i < len(length):
        if 1 < length[i] < best:
            best, at = length[i], i
        i += length[i]
    return at


@njit(cache=True, nogil=True)
def _single_out(order: np.ndarray, start: np.ndarray, length: np.ndarray, at: int, vertex: int) -> None:
    """Move ``vertex`` to the front of its cell and make it a cell of its own."""
    size = length[at]
    for i in range(at, at + size):
        if order[i] == vertex:
            order[i] = order[at]
            order[at] = vertex
    length[at] = 1
    length[at + 1] = size - 1
    for i in range(at + 1, at + size):
        start[order[i]] = at + 1


@njit(cache=True, nogil=True)
def _mix(trace: np.uint64, value: np.uint64) -> np.uint64:
    x = (trace ^ value) * np.uint64(0x9E3779B97F4A7C15)
    return x ^ (x >> np.uint64(29))


@njit(cache=True, nogil=True)
def _sum_words(colors: np.ndarray, words: np.ndarray, cell: np.ndarray, sums: np.ndarray) -> None:
    """For each vertex, the sum of the words of its colors to the vertices of a cell."""
    sums[:] = np.uint64(0)
    for w in cell:
        for v in range(len(sums)):
            sums[v] += words[colors[w, v]]


@njit(cache=True, nogil=True)
def _refine(
    colors: np.ndarray,
    words: np.ndarray,
    order: np.ndarray,
    start: np.ndarray,
    length: np.ndarray,
    splitters: np.ndarray,
) -> np.uint64:
    """Split cells until each is equitable to each; returns a number that isomorphic steps share."""
    n = len(order)
    queue = np.empty(n, dtype=np.int64)
    waiting = np.zeros(n, dtype=np.bool_)
    head, count = 0, 0
    for s in splitters:
        queue[count] = s
        waiting[s] = True
        count += 1
    trace = np.uint64(1)
    sums = np.empty(n, dtype=np.uint64)
    while count > 0:
        s = queue[head]
        head = (head + 1) % n
        count -= 1
        waiting[s] = False
        _sum_words(colors, words, order[s : s + length[s]], sums)
        trace = _mix(trace, np.uint64(s))
        at = 0
        while at < n:
            size = length[at]
            if size > 1:
                trace, pieces = _split(order, start, length, sums, at, size, trace)
                if pieces > 1:
                    count = _enqueue(queue, waiting, length, head, count, at, size)
            at += size
    return trace


@njit(cache=True, nogil=True)
def _split(
    order: np.ndarray,
    start: np.ndarray,
    length: np.ndarray,
    sums: np.ndarray,
    at: int,
    size: int,
    trace: np.uint64,
) -> tuple[np.uint64, int]:
    same = True
    for i in range(at + 1, at + size):
        if sums[order[i]] != sums[order[at]]:
            same = False
            break
    if same:
        return _mix(trace, np.uint64(sums[order[at]])), 1
    _sort_cell(order, sums, at, size)
    pieces, begin = 0, at
    for i in range(at, at + size):
        v = order[i]
        if i > at and sums[v] != sums[order[i - 1]]:
            length[begin] = i - begin
            begin = i
        if begin == i:
            pieces += 1
            trace = _mix(_mix(trace, np.uint64(begin)), np.uint64(sums[v]))
        start[v] = begin
    length[begin] = at + size - begin
    return trace, pieces


@njit(cache=True, nogil=True)
def _sort_cell(order: np.ndarray, sums: np.ndarray, at: int, size: int) -> None:
    """Shell sort by the sums: compiles in a moment, and cells are short."""
    gap = 1
    while gap < size // 3:
        gap = 3 * gap + 1
    while gap > 0:
        for i in range(at + gap, at + size):
            v = order[i]
            j = i
            while j - gap >= at and sums[order[j - gap]] > sums[v]:
                order[j] = order[j - gap]
                j -= gap
            order[j] = v
        gap //= 3


@njit(cache=True, nogil=True)
def _enqueue(
    queue: np.ndarray, waiting: np.ndarray, length: np.ndarray, head: int, count: int, at: int, size: int
) -> int:
    """The new cells become splitters, all but a largest unless their parent still waited (Hopcroft)."""
    n = len(queue)
    largest, skip, i = 0, -1, at
    if not waiting[at]:
        while i < at + size:
            if length[i] > largest:
                largest, skip = length[i], i
            i += length[i]
    i = at
    while i < at + size:
        if i != skip and not waiting[i]:
            queue[(head + count) % n] = i
            waiting[i] = True
            count += 1
        i += length[i]
    return count


@njit(cache=True, nogil=True)
def _common_map(
    order: np.ndarray, length: np.ndarray, other_order: np.ndarray, other_start: np.ndarray
) -> np.ndarray:
    """The map from the cells of one partition to those of the other that moves as little as it can."""
    n = len(order)
    image = np.full(n, -1, dtype=np.int64)
    taken = np.zeros(n, dtype=np.bool_)
    at = 0
    while at < n:
        for i in range(at, at + length[at]):
            v = order[i]
            if other_start[v] == at:
                image[v] = v
                taken[v] = True
        j = at
        for i in range(at, at + length[at]):
            v = order[i]
            if image[v] < 0:
                while taken[other_order[j]]:
                    j += 1
                image[v] = other_order[j]
                taken[other_order[j]] = True
        at += length[at]
    return image


@njit(cache=True, nogil=True)
def _keeps(colors: np.ndarray, p: np.ndarray) -> bool:
    """Whether the permutation keeps the matrix; only rows that move need a look."""
    n = len(p)
    for u in range(n):
        if p[u] != u:
            for v in range(n):
                if colors[p[u], p[v]] != colors[u, v]:
                    return False
    return True


@njit(cache=True, nogil=True)
def _join(parent: np.ndarray, p: np.ndarray) -> None:
    for i in range(len(p)):
        a, b = find_root(parent, i), find_root(parent, p[i])
        if a < b:
            parent[b] = a
        elif b < a:
            parent[a] = b
