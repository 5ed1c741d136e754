"""Permutations as integer arrays: checking, composing, and the orbits they span.

A permutation of ``0..n-1`` is an array with ``p[i]`` the image of ``i``, and it moves
a signal by ``(g x)[p[i]] = x[i]``. ``compose(a, b)`` applies b first. Orbits are the
connected components of the graph that joins every point to its image under each
generator: ``O(generators * n)``, the group itself is never listed.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numba import njit

from fathometer.errors import InputError

Permutation = np.ndarray
"""int64 (n,), the image of every point."""


def check_permutation(values: Any, where: str, size: int | None = None) -> Permutation:
    """The permutation as an int64 array, or a refusal that says what is wrong with it.

    Args:
        values: A sequence, array or tensor of images.
        where: How to call it in the message, e.g. "inputs, generator 2".
        size: The number of points, if known.

    Raises:
        InputError: If it is not one-dimensional, not of whole numbers, negative, out of
            range, of another length, or maps two points to one.
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    items = values if isinstance(values, np.ndarray) else list(values)
    if not isinstance(items, np.ndarray) and any(isinstance(v, bool | np.bool_) for v in items):
        raise InputError(f"{where}: it holds booleans; a permutation lists the image of each index.")
    found = np.asarray(items)
    if found.ndim != 1:
        raise InputError(f"{where}: it has {found.ndim} dimensions; a permutation is a flat list of images.")
    if found.size and found.dtype.kind not in "iu":
        raise InputError(f"{where}: its entries are {found.dtype}; images are whole numbers counted from 0.")
    n = len(found)
    if size is not None and n != size:
        raise InputError(f"{where}: it has {n} entries, the others of this side have {size}.")
    p = found.astype(np.int64)
    bad = np.flatnonzero((p < 0) | (p >= n))
    if len(bad):
        i = int(bad[0])
        raise InputError(f"{where}: index {i} goes to {int(p[i])}; images lie in 0..{n - 1}, counted from 0.")
    counts = np.bincount(p, minlength=n)
    if n and counts.max() > 1:
        j = int(counts.argmax())
        first, second = np.flatnonzero(p == j)[:2].tolist()
        raise InputError(f"{where}: not a permutation, {first} and {second} both go to {j}.")
    return p


def compose(a: Permutation, b: Permutation) -> Permutation:
    """First ``b``, then ``a``.

    >>> compose(np.array([1, 2, 0]), np.array([1, 0, 2])).tolist()
    [2, 1, 0]
    """
    return a[b]


def invert(p: Permutation) -> Permutation:
    """The inverse permutation."""
    inverse = np.empty_like(p)
    inverse[p] = np.arange(len(p), dtype=p.dtype)
    return inverse


def power(p: Permutation, exponent: int) -> Permutation:
    """``p`` applied ``exponent`` times, by repeated squaring."""
    found, square = np.arange(len(p)), p
    while exponent:
        found = compose(square, found) if exponent % 2 else found
        square, exponent = compose(square, square), exponent // 2
    return found


def is_identity(p: Permutation) -> bool:
    """Whether nothing moves."""
    return bool((p == np.arange(len(p))).all())


def is_even(p: Permutation) -> bool:
    """Whether the permutation is a product of an even number of swaps."""
    return (len(p) - int(_count_cycles(np.ascontiguousarray(p, dtype=np.int64)))) % 2 == 0


def cycle_lengths(p: Permutation) -> list[int]:
    """Lengths of the cycles, in the order of their smallest points.

    >>> cycle_lengths(np.array([1, 0, 2]))
    [2, 1]
    """
    labels = orbit_labels([p], len(p))
    return np.bincount(labels).tolist() if len(p) else []


def stack(permutations: Sequence[Permutation], size: int) -> np.ndarray:
    """The permutations as rows of one int64 array (k, size), also for k = 0."""
    if not len(permutations):
        return np.empty((0, size), dtype=np.int64)
    return np.ascontiguousarray(np.stack(permutations), dtype=np.int64)


def orbit_labels(permutations: Sequence[Permutation], size: int) -> np.ndarray:
    """The number of the orbit of every point, orbits numbered by their smallest point (size,).

    >>> orbit_labels([np.array([2, 1, 0, 3])], 4).tolist()
    [0, 1, 0, 2]
    """
    return _orbit_labels(stack(permutations, size), size)


def groups_of(labels: np.ndarray) -> list[list[int]]:
    """The points with label 0, 1, ... as sorted lists.

    >>> groups_of(np.array([0, 1, 0, 2]))
    [[0, 2], [1], [3]]
    """
    if not len(labels):
        return []
    order = np.argsort(labels, kind="stable")
    cuts = np.flatnonzero(np.diff(labels[order])) + 1
    return [part.tolist() for part in np.split(order, cuts)]


def first_of_each(labels: np.ndarray) -> np.ndarray:
    """The smallest point of every orbit."""
    return np.unique(labels, return_index=True)[1]


def disjoint_union(pairs: Iterable[tuple[Permutation, Permutation]]) -> list[Permutation]:
    """Each pair as one permutation of inputs followed by outputs."""
    return [np.concatenate([a, len(a) + b]) for a, b in pairs]


@njit(cache=True, nogil=True)
def find_root(parent: np.ndarray, i: int) -> int:
    """The root of ``i`` in a union-find forest, halving the path on the way."""
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit(cache=True, nogil=True)
def _orbit_labels(generators: np.ndarray, size: int) -> np.ndarray:
    parent = np.arange(size)
    for g in range(generators.shape[0]):
        for i in range(size):
            a = find_root(parent, i)
            b = find_root(parent, generators[g, i])
            # the smaller point is the root, so that roots come first below
            if a < b:
                parent[b] = a
            elif b < a:
                parent[a] = b
    labels = np.empty(size, dtype=np.int64)
    count = 0
    for i in range(size):
        root = find_root(parent, i)
        if root == i:
            labels[i] = count
            count += 1
        else:
            labels[i] = labels[root]
    return labels


@njit(cache=True, nogil=True)
def _count_cycles(p: np.ndarray) -> int:
    seen = np.zeros(len(p), dtype=np.bool_)
    count = 0
    for i in range(len(p)):
        if not seen[i]:
            count += 1
            j = i
            while not seen[j]:
                seen[j] = True
                j = p[j]
    return count
