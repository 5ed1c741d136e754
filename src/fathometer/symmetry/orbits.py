"""Orbits of index pairs: which entries of a weight matrix one group element can exchange.

Rows of one output orbit are permuted copies of one row. So only the row of a
representative is labeled; the others are filled by walking a spanning tree, and then
every generator is checked against the filled table. Where two labels meet that should
be one, they are merged in a union-find over labels (not over pairs). That is exact:
the filled classes lie inside orbits, and the merged ones are closed under the
generators. ``O(k N M)`` time, 4 bytes a pair (5 with signs), no recursion.
"""

from collections.abc import Sequence

import numpy as np
from numba import njit

from fathometer.errors import BudgetError
from fathometer.symmetry.permutations import Permutation, find_root, stack

LARGEST = 2**31 - 1


def pair_orbits(
    inputs: Sequence[Permutation], outputs: Sequence[Permutation], sizes: tuple[int, int]
) -> np.ndarray:
    """Number the orbit of every index pair: equal numbers are tied weights.

    Args:
        inputs: Permutations of the N inputs.
        outputs: Permutations of the M outputs, parallel to them.
        sizes: (N, M).

    Returns:
        (M, N) int32; orbits are numbered by first appearance, row by row.

    Raises:
        BudgetError: If the table has more than 2**31 - 1 entries.

    >>> pair_orbits([np.array([1, 2, 0])], [np.array([1, 2, 0])], (3, 3)).tolist()
    [[0, 1, 2], [2, 0, 1], [1, 2, 0]]
    """
    n, m = sizes
    _check_size(n, m)
    return _pair_orbits(stack(inputs, n), stack(outputs, m), n, m)


def signed_pair_orbits(
    inputs: Sequence[Permutation],
    outputs: Sequence[Permutation],
    signs: tuple[Sequence[np.ndarray], Sequence[np.ndarray]],
    sizes: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray]:
    """Orbits under signed permutations: ``W[m, n] = sign * weight[label]``.

    An orbit that reaches a pair with both signs must vanish: its label is -1.

    Returns:
        Labels (M, N) int32 and signs (M, N) int8 of 1 and -1, the first of an orbit 1.
    """
    n, m = sizes
    _check_size(n, m)
    return _signed_pair_orbits(
        stack(inputs, n), stack(outputs, m), _signs(signs[0], n), _signs(signs[1], m), n, m
    )


def _check_size(n: int, m: int) -> None:
    if n * m > LARGEST:
        raise BudgetError(
            f"the label table would have {n} x {m} entries, more than 2**31 - 1; tying(lazy=True) needs none."
        )


def _signs(rows: Sequence[np.ndarray], size: int) -> np.ndarray:
    return np.stack(rows).astype(np.int8) if len(rows) else np.empty((0, size), dtype=np.int8)


@njit(cache=True, nogil=True)
def _pair_orbits(inputs: np.ndarray, outputs: np.ndarray, n: int, m: int) -> np.ndarray:
    labels = np.empty((m, n), dtype=np.int32)
    inverse = np.empty((inputs.shape[0], n), dtype=np.int64)
    for g in range(inputs.shape[0]):
        for i in range(n):
            inverse[g, inputs[g, i]] = i
    via = np.full(m, -2, dtype=np.int64)  # the generator that filled a row; -1 for a representative
    rows = np.empty(m, dtype=np.int64)
    count = 0
    for start in range(m):
        if via[start] == -2:
            for i in range(n):
                labels[start, i] = i
            size = _walk_rows(outputs, start, via, rows)
            for t in range(1, size):
                row = rows[t]
                g = via[row] // m
                from_row = via[row] % m
                for i in range(n):
                    labels[row, i] = labels[from_row, inverse[g, i]]
            parent = _closed(labels, inverse, outputs, via, rows[:size])
            count = _number(labels, parent, rows[:size], count)
    return labels


@njit(cache=True, nogil=True)
def _walk_rows(outputs: np.ndarray, start: int, via: np.ndarray, rows: np.ndarray) -> int:
    """Rows of the orbit of ``start`` breadth first; ``via`` gets generator * m + row it came from."""
    m = outputs.shape[1]
    via[start] = -1
    rows[0] = start
    head, tail = 0, 1
    while head < tail:
        row = rows[head]
        head += 1
        for g in range(outputs.shape[0]):
            image = outputs[g, row]
            if via[image] == -2:
                via[image] = g * m + row
                rows[tail] = image
                tail += 1
    return tail


@njit(cache=True, nogil=True)
def _closed(
    labels: np.ndarray, inverse: np.ndarray, outputs: np.ndarray, via: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    """Union-find over the labels of one output orbit, closed under all generators."""
    m, n = labels.shape
    parent = np.arange(n).astype(np.int32)
    for row in rows:
        for g in range(outputs.shape[0]):
            image = outputs[g, row]
            if via[image] != g * m + row:
                for i in range(n):
                    a, b = labels[image, i], labels[row, inverse[g, i]]
                    if parent[a] != parent[b]:
                        _merge(parent, int(a), int(b))
    return parent


@njit(cache=True, nogil=True)
def _number(labels: np.ndarray, parent: np.ndarray, rows: np.ndarray, count: int) -> int:
    """Final numbers; every orbit meets the first row, so they come in order of appearance."""
    n = labels.shape[1]
    number = np.empty(n, dtype=np.int32)
    for i in range(n):
        root = find_root(parent, i)
        if root == i:
            number[i] = count
            count += 1
        else:
            number[i] = number[root]
    for row in rows:
        for i in range(n):
            labels[row, i] = number[labels[row, i]]
    return count


@njit(cache=True, nogil=True)
def _merge(parent: np.ndarray, a: int, b: int) -> None:
    a = find_root(parent, a)
    b = find_root(parent, b)
    if a < b:
        parent[b] = a
    elif b < a:
        parent[a] = b


@njit(cache=True, nogil=True)
def _signed_pair_orbits(  # noqa: C901 - one compiled nest of loops
    inputs: np.ndarray,
    outputs: np.ndarray,
    input_signs: np.ndarray,
    output_signs: np.ndarray,
    n: int,
    m: int,
) -> tuple[np.ndarray, np.ndarray]:
    labels = np.empty((m, n), dtype=np.int32)
    signs = np.ones((m, n), dtype=np.int8)
    via = np.full(m, -2, dtype=np.int64)
    rows = np.empty(m, dtype=np.int64)
    count = 0
    for start in range(m):
        if via[start] != -2:
            continue
        for i in range(n):
            labels[start, i] = i
        size = _walk_rows(outputs, start, via, rows)
        for t in range(1, size):
            g = via[rows[t]] // m
            row = via[rows[t]] % m
            for i in range(n):
                to = inputs[g, i]
                labels[rows[t], to] = labels[row, i]
                signs[rows[t], to] = signs[row, i] * output_signs[g, row] * input_signs[g, i]
        parent = np.arange(n)
        parity = np.ones(n, dtype=np.int8)  # sign relative to the parent
        vanishes = np.zeros(n, dtype=np.bool_)
        for row in rows[:size]:
            for g in range(outputs.shape[0]):
                image = outputs[g, row]
                for i in range(n):
                    to = inputs[g, i]
                    s = signs[row, i] * output_signs[g, row] * input_signs[g, i] * signs[image, to]
                    a, b = int(labels[row, i]), int(labels[image, to])
                    _merge_signed(parent, parity, vanishes, a, b, s)
        count = _number_signed(labels, signs, parent, parity, vanishes, rows[:size], count)
    return labels, signs


@njit(cache=True, nogil=True)
def _number_signed(
    labels: np.ndarray,
    signs: np.ndarray,
    parent: np.ndarray,
    parity: np.ndarray,
    vanishes: np.ndarray,
    rows: np.ndarray,
    count: int,
) -> int:
    n = labels.shape[1]
    number = np.empty(n, dtype=np.int32)
    sign_of = np.empty(n, dtype=np.int8)
    for i in range(n):
        root, s = _signed_root(parent, parity, i)
        sign_of[i] = s
        if root != i:
            number[i] = number[root]
        elif vanishes[i]:
            number[i] = -1
        else:
            number[i] = count
            count += 1
    for row in rows:
        for i in range(n):
            local = labels[row, i]
            labels[row, i] = number[local]
            signs[row, i] = 1 if number[local] < 0 else signs[row, i] * sign_of[local]
    return count


@njit(cache=True, nogil=True)
def _signed_root(parent: np.ndarray, parity: np.ndarray, i: int) -> tuple[int, int]:
    s = 1
    while parent[i] != i:
        s *= parity[i]
        i = parent[i]
    return i, s


@njit(cache=True, nogil=True)
def _merge_signed(
    parent: np.ndarray, parity: np.ndarray, vanishes: np.ndarray, a: int, b: int, s: int
) -> None:
    """Record that the weight of label a is s times that of label b."""
    root_a, sign_a = _signed_root(parent, parity, a)
    root_b, sign_b = _signed_root(parent, parity, b)
    relation = sign_a * sign_b * s
    # shorten the paths by hand: both now point at their roots
    if a != root_a:
        parent[a], parity[a] = root_a, sign_a
    if b != root_b:
        parent[b], parity[b] = root_b, sign_b
    if root_a == root_b:
        if relation < 0:
            vanishes[root_a] = True
        return
    low, high = min(root_a, root_b), max(root_a, root_b)
    parent[high], parity[high] = low, relation
    vanishes[low] = vanishes[low] or vanishes[high]
