"""Filling matrices with orbit weights where they lie, and summing their gradients back.

Labels of tied matrices come in runs: in the row of an orbit's first output all labels are
consecutive, and a subgroup's moves keep pieces of them so, upward or downward. Runs are copied
at the speed of memory; where they are short, entries are looked up one by one.
"""

import numpy as np
from numba import njit
from torch import Tensor

LONG = 4.0
"""Mean length from which runs are copied as such."""


class Entries:
    """The labels (R, C) of a matrix, -1 for no edge, ready to be filled in.

    Matrices are (out_channels * R, in_channels * C), weights (out_channels, in_channels, K).
    """

    def __init__(self, labels: np.ndarray) -> None:
        self.shape = labels.shape
        table = np.ascontiguousarray(labels, dtype=np.int32)
        runs = _runs(table)
        self.by_runs = table.size >= LONG * runs.shape[1]
        self._table = runs if self.by_runs else table
        self._fill, self._add = (_fill_runs, _add_runs) if self.by_runs else (_fill_each, _add_each)

    def fill(self, weight: Tensor, matrix: Tensor) -> None:
        """Write the entries into a contiguous matrix."""
        self._fill(weight.detach().numpy(), self._table, self._blocks(matrix, weight))

    def add(self, matrix: Tensor, weight: Tensor) -> None:
        """Add the sums of the entries of a contiguous matrix to their weights."""
        self._add(weight.detach().numpy(), self._table, self._blocks(matrix, weight), False)

    def collect(self, matrix: Tensor, weight: Tensor) -> None:
        """Write the sums of the entries over the weights, all of which occur."""
        if not self.by_runs:
            weight.zero_()
        self._add(weight.detach().numpy(), self._table, self._blocks(matrix, weight), True)

    def _blocks(self, matrix: Tensor, weight: Tensor) -> np.ndarray:
        rows, columns = self.shape
        return matrix.numpy().reshape(weight.shape[0], rows, weight.shape[1], columns)


def rows_at_a_time(weight: Tensor, rows: int, columns: int, size: int) -> list[slice]:
    """Ranges of output channels whose rows (rows each, in_channels * columns) fit into ``size`` bytes."""
    out_channels = len(weight)
    one = max(1, rows * columns * weight.shape[1] * weight.element_size())
    step = min(out_channels, max(1, size // one))
    return [slice(start, min(start + step, out_channels)) for start in range(0, out_channels, step)]


def _runs(table: np.ndarray) -> np.ndarray:
    """(6, R): row, first column, first label (-1: no edge), length, step, and 1 where labels are new."""
    new = np.zeros(table.size, dtype=np.int64)
    new[np.unique(table, return_index=True)[1]] = 1
    new = new.reshape(table.shape)
    step = np.diff(table, axis=1)
    blank = (table[:, 1:] < 0) & (table[:, :-1] < 0)
    edge = (table[:, 1:] >= 0) & (table[:, :-1] >= 0)
    kind = np.where(blank, 2, np.where(edge & (abs(step) == 1), step, 3))
    # a run goes on where the step is that of the step before; a step that begins one may be any
    begins = np.ones(table.shape, dtype=bool)
    begins[:, 1:] = kind == 3
    begins[:, 2:] |= (kind[:, 1:] != kind[:, :-1]) & (kind[:, :-1] != 3)
    begins[:, 1:] |= (new[:, 1:] != new[:, :-1]) & (table[:, 1:] >= 0)
    starts = np.flatnonzero(begins)
    lengths = np.diff(np.append(starts, table.size))
    row, column = np.divmod(starts, table.shape[1])
    first = table.ravel()[starts]
    second = table.ravel()[np.minimum(starts + 1, table.size - 1)]
    steps = np.where((lengths > 1) & (first >= 0), second - first, 1)
    return np.stack([row, column, first, lengths, steps, new.ravel()[starts]]).astype(np.int64)


@njit(cache=True, nogil=True)
def _fill_runs(weight: np.ndarray, runs: np.ndarray, matrix: np.ndarray) -> None:
    for o in range(weight.shape[0]):
        for i in range(weight.shape[1]):
            for r in range(runs.shape[1]):
                row, column, label, length, step, _ = runs[:, r]
                target = matrix[o, row, i, column : column + length]
                if label < 0:
                    target[:] = 0
                elif step > 0:
                    target[:] = weight[o, i, label : label + length]
                else:
                    source = weight[o, i, label + 1 - length : label + 1]
                    for t in range(np.uint64(length)):  # unsigned: no test for negative indices
                        target[t] = source[np.uint64(length - 1) - t]


@njit(cache=True, nogil=True)
def _add_runs(weight: np.ndarray, runs: np.ndarray, matrix: np.ndarray, over: bool) -> None:  # noqa: C901 - one compiled nest of loops
    for o in range(weight.shape[0]):
        for i in range(weight.shape[1]):
            for r in range(runs.shape[1]):
                row, column, label, length, step, new = runs[:, r]
                if label < 0:
                    continue
                source = matrix[o, row, i, column : column + length]
                first = label if step > 0 else label + 1 - length
                target = weight[o, i, first : first + length]
                if over and new:
                    target[:] = 0
                if step > 0:
                    for t in range(length):
                        target[t] += source[t]
                else:
                    for t in range(np.uint64(length)):
                        target[t] += source[np.uint64(length - 1) - t]


@njit(cache=True, nogil=True)
def _fill_each(weight: np.ndarray, table: np.ndarray, matrix: np.ndarray) -> None:
    for o in range(weight.shape[0]):
        for row in range(table.shape[0]):
            for i in range(weight.shape[1]):
                for c in range(table.shape[1]):
                    label = table[row, c]
                    matrix[o, row, i, c] = weight[o, i, label] if label >= 0 else 0


@njit(cache=True, nogil=True)
def _add_each(weight: np.ndarray, table: np.ndarray, matrix: np.ndarray, over: bool) -> None:
    for o in range(weight.shape[0]):
        for i in range(weight.shape[1]):
            for row in range(table.shape[0]):
                for c in range(table.shape[1]):
                    label = table[row, c]
                    if label >= 0:
                        weight[o, i, label] += matrix[o, row, i, c]


def moved_copies(x: Tensor, moves: Tensor) -> Tensor:
    """``x`` with its last index moved by each row of moves, (moves * batch, channels * N)."""
    copies = x.new_empty(len(moves), *x.shape)
    _move(x.detach().contiguous().numpy().reshape(-1, x.shape[2]), moves.numpy(),
          copies.numpy().reshape(len(moves), -1, x.shape[2]))  # fmt: skip
    return copies.reshape(len(moves) * len(x), -1)


def sum_of_copies(copies: Tensor, moves: Tensor, x: Tensor) -> Tensor:
    """The transpose of `moved_copies`: every copy moved back, and all added, in the shape of x."""
    gx = copies.new_zeros(x.shape)
    _move_back(copies.numpy().reshape(len(moves), -1, x.shape[2]), moves.numpy(),
               gx.numpy().reshape(-1, x.shape[2]))  # fmt: skip
    return gx


@njit(cache=True, nogil=True)
def _move(x: np.ndarray, moves: np.ndarray, copies: np.ndarray) -> None:
    for h in range(moves.shape[0]):
        move = moves[h]
        for b in range(x.shape[0]):
            for n in range(x.shape[1]):
                copies[h, b, n] = x[b, move[n]]


@njit(cache=True, nogil=True)
def _move_back(copies: np.ndarray, moves: np.ndarray, gx: np.ndarray) -> None:
    for h in range(moves.shape[0]):
        move = moves[h]
        for b in range(gx.shape[0]):
            for n in range(gx.shape[1]):
                gx[b, move[n]] += copies[h, b, n]
