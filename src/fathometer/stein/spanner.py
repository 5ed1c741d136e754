# ruff: noqa: ANN001, ANN202 - the compiler infers the types
# pyright: reportMissingParameterType=false
"""Greedy spanners: few edges along which every pair of points is joined by a short path.

In a 2-spanner for the L1 norm every two points are joined by a path at most twice
their distance. The Stein program needs its constraints only along such edges
(Gorham & Mackey 2015, Prop. 6), so thousands of rows replace millions.

The greedy spanner takes the pairs by length and adds a pair if the path so far is
too long. Known path lengths are kept in a table, as in Farshi & Gudmundsson 2009, and a
search is run only where the table does not already show a short path; the search stops at
the length that decides. Pairs beyond a cut-off never enter. ``O(n^2 log n)`` time and
``O(n^2)`` memory; ties are broken by the position of the points.
"""

import numpy as np
from jaxtyping import Float, Int
from numba import njit

from fathometer.work import chunk_size

STRETCH = 2.0


def greedy_spanner(
    points: Float[np.ndarray, "n d"], *, stretch: float = STRETCH, cutoff: float = np.inf
) -> Int[np.ndarray, "m 2"]:
    """Edges of the greedy L1 spanner among the pairs that are closer than ``cutoff``.

    In one dimension these are the neighbors in order.

    Args:
        points: (n, d), all different.
        stretch: How much longer than the distance a path may be, at least 1.
        cutoff: Pairs at this L1 distance and beyond are left out.

    Raises:
        BudgetError: If the table of path lengths does not fit the memory.
    """
    n, d = points.shape
    if d == 1:
        order = np.argsort(points[:, 0], kind="stable")
        edges = np.stack([order[:-1], order[1:]], axis=1)
        return edges[np.abs(np.diff(points[order, 0])) < cutoff]
    chunk_size(1, 8 * n * n + 32 * (n * (n - 1) // 2), what=f"the spanner of {n} points")
    first, second, length = close_pairs(points, cutoff)
    order = np.argsort(length, kind="stable")
    return _greedy(n, first[order], second[order], length[order], float(stretch))


def close_pairs(
    points: Float[np.ndarray, "n d"], cutoff: float = np.inf
) -> tuple[Int[np.ndarray, " m"], Int[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """All pairs closer than ``cutoff`` in L1: first, second and distance, in the order of positions."""
    from scipy.spatial.distance import pdist

    first, second = np.triu_indices(len(points), 1)
    length = pdist(points, "cityblock")
    keep = length < cutoff
    return first[keep], second[keep], length[keep]


@njit(cache=True)
def _greedy(n, first, second, length, stretch):
    known = np.full((n, n), np.inf)
    head = np.full(n, -1)
    following, target, weight = np.empty(16 * n, np.int64), np.empty(16 * n, np.int64), np.empty(16 * n)
    edges, count = np.empty((8 * n, 2), np.int64), 0
    heap_key, heap_node, done = np.empty(16 * n), np.empty(16 * n, np.int64), np.full(n, -1)
    for pair in range(len(first)):
        u, v, size = first[pair], second[pair], length[pair]
        limit = stretch * size
        if known[u, v] <= limit:
            continue
        _search(u, limit, known, head, following, target, weight, heap_key, heap_node, done, pair)
        if known[u, v] <= limit:
            continue
        if count == len(edges):
            edges = np.concatenate((edges, np.empty_like(edges)))
            following = np.concatenate((following, np.empty_like(following)))
            target = np.concatenate((target, np.empty_like(target)))
            weight = np.concatenate((weight, np.empty_like(weight)))
            heap_key = np.concatenate((heap_key, np.empty_like(heap_key)))
            heap_node = np.concatenate((heap_node, np.empty_like(heap_node)))
        for a, b, slot in ((u, v, 2 * count), (v, u, 2 * count + 1)):
            following[slot], target[slot], weight[slot] = head[a], b, size
            head[a] = slot
        known[u, v] = known[v, u] = size
        edges[count, 0], edges[count, 1] = u, v
        count += 1
    return edges[:count].copy()


@njit(cache=True)
def _search(source, limit, known, head, following, target, weight, heap_key, heap_node, done, mark):
    """Dijkstra's algorithm from ``source`` up to ``limit``; writes what it finds into ``known``."""
    heap_key[0], heap_node[0], size = 0.0, source, 1
    while size > 0:
        distance, node = heap_key[0], heap_node[0]
        size -= 1
        _sink(heap_key, heap_node, size)
        if done[node] == mark:
            continue
        done[node] = mark
        if distance < known[source, node]:
            known[source, node] = known[node, source] = distance
        slot = head[node]
        while slot >= 0:
            reach, other = distance + weight[slot], target[slot]
            if reach <= limit and done[other] != mark:
                _rise(heap_key, heap_node, size, reach, other)
                size += 1
            slot = following[slot]


@njit(cache=True)
def _rise(key, node, at, new_key, new_node):
    """Put an entry into the heap whose first ``at`` places are taken."""
    while at > 0:
        parent = (at - 1) // 2
        if key[parent] <= new_key:
            break
        key[at], node[at] = key[parent], node[parent]
        at = parent
    key[at], node[at] = new_key, new_node


@njit(cache=True)
def _sink(key, node, size):
    """Move the last entry, at ``size``, to the top and restore the order of the heap."""
    moved_key, moved_node, at = key[size], node[size], 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and key[child + 1] < key[child]:
            child += 1
        if key[child] >= moved_key:
            break
        key[at], node[at] = key[child], node[child]
        at = child
    key[at], node[at] = moved_key, moved_node
