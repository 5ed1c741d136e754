"""The Stein Gram engine: every sum over pairs of this room runs through it.

The matrix ``K0[i, j] = k0(x_i, x_j)`` is never stored. Its lower half is visited in tiles, low
and wide so that little of the other half comes along, each filled by compiled loops
(`fathometer.stein.epilogue`) and at once reduced. Memory is ``O(n d + tile^2)`` at
any n; the work is ``n^2 / 2`` pairs, each of one square root and one division, and
``3 n^2 d`` flops of matrix products from 13 dimensions on (below that, sums over the
coordinates are faster and do not cancel).

Only differences of points matter, so the points are centered first: a sample that
sits 2^20 away from the origin has the same discrepancy to rounding. For the matrix
products scores are centered too, and ``<b, y'> + <y, b'>`` comes out of the product of
``f y + b / f`` with itself, the factor f chosen so that neither part drowns the other.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fathometer.errors import BudgetError
from fathometer.stein.kernels import Radial
from fathometer.stein.sample import Sample
from fathometer.work import chunk_size, grid, in_words, reduce_chunks
from fathometer.work.memory import chosen_budget

TILE = 256
_SMALL = 1 << 25  # bytes that are not worth a look at the free memory, only at a budget
_DIRECT_DIMENSIONS = 12


@dataclass(frozen=True, kw_only=True)
class _Side:
    """One side of a block of pairs, prepared for one kernel."""

    Z: Float[np.ndarray, "n d"]
    Y: Float[np.ndarray, "n d"]
    B: Float[np.ndarray, "n d"]
    norms: Float[np.ndarray, "4 n"]
    S: Float[np.ndarray, "n d"]
    M: Float[np.ndarray, " n"] | None

    def part(self, rows: slice) -> "_Side":
        return _Side(
            Z=self.Z[rows],
            Y=self.Y[rows],
            B=self.B[rows],
            norms=np.ascontiguousarray(self.norms[:, rows]),
            S=self.S[rows],
            M=None if self.M is None else self.M[rows],
        )


class SteinGram:
    """The Stein kernel of a fitted kernel over one sample.

    Args:
        sample: The points and scores.
        kernel: The fitted summands (`fathometer.stein.kernels.read_kernel`).
        tile: Side of a square as large as a tile (half as high, twice as wide); it does not change
            the values.
        single: Whether the pairs are computed in float32; sums stay in float64.

    Raises:
        BudgetError: If the prepared points do not fit the memory.
    """

    def __init__(
        self, sample: Sample, kernel: tuple[Radial, ...], *, tile: int = TILE, single: bool = False
    ) -> None:
        self.sample, self.kernel, self.tile_size = sample, kernel, tile
        self.dtype = np.float32 if single else np.float64
        self.direct = sample.dimension <= _DIRECT_DIMENSIONS
        self.center = sample.points.mean(0)
        # a side holds Z, Y, B and S of every summand, and making it as much again
        area = min(tile * tile, sample.size**2)
        need = 8 * len(kernel) * (10 * sample.points.size + 32 * area) + 64 * sample.size
        what = f"the Stein kernel of {sample.size} points of {sample.dimension} coordinates"
        if need > _SMALL:
            chunk_size(1, need, what=what)
        elif (allowed := chosen_budget()) is not None and need > allowed:
            raise BudgetError(
                f"{what} needs {in_words(need)}, and {in_words(allowed)} may be used; "
                f"fathometer.budget({need}) would fit."
            )
        tilted = [self._tilted(sample.points, sample.scores, radial)[0] for radial in kernel]
        self._means = [b.mean(0) for b in tilted]
        spread = np.sqrt(np.square(sample.points - self.center).sum())
        self._ratios = []
        for radial, b, mean in zip(kernel, tilted, self._means, strict=True):
            force = np.sqrt(np.square(b - mean).sum())
            balance = np.sqrt(force / spread) if spread > 0 and force > 0 else 1.0
            size = 1.0 if radial.inverse is None else sample.dimension / radial.trace
            self._ratios.append(float(balance * np.sqrt(size)))
        self._memory = [np.empty(0, self.dtype)] * 5
        self._sides = [self._prepare(sample.points, sample.scores, i) for i in range(len(kernel))]

    def __len__(self) -> int:
        return self.sample.size

    @cached_property
    def diagonal(self) -> Float[np.ndarray, " n"]:
        """``k0(x_i, x_i)`` for every point."""
        total = np.zeros(len(self))
        for radial in self.kernel:
            b, M = self._tilted(self.sample.points, self.sample.scores, radial)
            square = np.square(b).sum(1)
            if radial.origin is not None:
                z, u = _linear_sides(radial, self.sample.points)
                values = square * (1 + np.square(z).sum(1)) + 2 * (b * u).sum(1) + radial.trace
            else:
                value, slope = radial.profile(np.zeros(1))
                values = value[0] * square - 2 * slope[0] * radial.trace
            total += values if M is None else M**2 * values
        return total

    def tile(self, rows: slice, columns: slice) -> Float[np.ndarray, "r c"]:
        """The block ``K0[rows, columns]``."""
        return self._block([s.part(rows) for s in self._sides], [s.part(columns) for s in self._sides])

    def against(
        self, points: Float[np.ndarray, "m d"], scores: Float[np.ndarray, "m d"]
    ) -> Iterator[tuple[slice, Float[np.ndarray, "r n"]]]:
        """Blocks of ``k0(points, sample)``, a strip of rows at a time, with the rows they cover."""
        step = (
            max(1, self.tile_size * self.tile_size // len(self))
            if len(self) > self.tile_size
            else self.tile_size
        )
        for start in range(0, len(points), step):
            rows = slice(start, min(start + step, len(points)))
            sides = [self._prepare(points[rows], scores[rows], i) for i in range(len(self.kernel))]
            yield rows, self._block(sides, self._sides)

    def column(self, at: int) -> Float[np.ndarray, " n"]:
        """``k0(x_i, x_at)`` for every i."""
        return self._block([s.part(slice(at, at + 1)) for s in self._sides], self._sides)[0]

    def dense(self) -> Float[np.ndarray, "n n"]:
        """The whole symmetric matrix."""
        n = len(self)
        matrix = np.empty((n, n))
        for rows, columns, block in self._below(slice(0, n)):
            matrix[rows, columns] = block
            matrix[columns, rows] = block.T
        return 0.5 * (matrix + matrix.T)

    def product(self, weights: Float[np.ndarray, "n *b"]) -> Float[np.ndarray, "n *b"]:
        """``K0 @ weights`` in one pass over the lower half, strips shared over the processes."""

        def strip(item: slice) -> Tensor:
            total = np.zeros_like(weights)
            for rows, columns, block in self._below(item):
                total[rows] += block @ weights[columns]
                left = max(0, min(columns.stop, rows.start) - columns.start)
                total[columns][:left] += block[:, :left].T @ weights[rows]
            return torch.from_numpy(total)

        return reduce_chunks(strip, grid(len(self), self.tile_size), what="Stein kernel strips")[0].numpy()

    def row_sums_below(self) -> Float[np.ndarray, " n"]:
        """``sum over j < i of K0[i, j]`` for every i: what each further point adds."""

        def strip(item: slice) -> Tensor:
            total = np.zeros(len(self))
            for rows, columns, block in self._below(item):
                total[rows] += np.tril(block, rows.start - columns.start - 1).sum(1)
            return torch.from_numpy(total)

        return reduce_chunks(strip, grid(len(self), self.tile_size), what="Stein kernel strips")[0].numpy()

    def _below(self, item: slice) -> Iterator[tuple[slice, slice, Float[np.ndarray, "r c"]]]:
        """Tiles that cover the rows of ``item`` up to the diagonal, with their rows and columns.

        The last tile of a row reaches over the diagonal, to the end of its own rows. A tile is
        overwritten by the next one.
        """
        height = max(1, self.tile_size // 2)
        for start in range(item.start, item.stop, height):
            rows = slice(start, min(start + height, item.stop))
            left = [side.part(rows) for side in self._sides]
            for columns in grid(rows.stop, 2 * self.tile_size):
                (out,) = self._rooms(slice(4, 5), (rows.stop - start, columns.stop - columns.start))
                out[:] = 0.0
                yield rows, columns, self._block(left, [side.part(columns) for side in self._sides], out)

    def _rooms(self, which: slice, shape: tuple[int, int]) -> list[np.ndarray]:
        """Arrays in memory that every tile uses again: fresh pages would take a third of the time."""
        area = shape[0] * shape[1]
        if self._memory[0].size < area:
            self._memory = [np.empty(area, self.dtype) for _ in self._memory]
        return [room[:area].reshape(shape) for room in self._memory[which]]

    def _tilted(
        self, points: np.ndarray, scores: np.ndarray, radial: Radial
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """The scores that a tilted summand sees, and its ``M`` at the points."""
        if radial.tilt is None:
            return scores, None
        M, slope = radial.tilt(points)
        return scores + slope, M

    def _prepare(self, points: np.ndarray, scores: np.ndarray, which: int) -> _Side:
        """Whitened, centered columns of one side for one summand of the kernel."""
        radial = self.kernel[which]
        scores, M = self._tilted(points, scores, radial)
        none = np.zeros((4, len(points)), self.dtype)
        if radial.origin is not None:
            Z, Y = _linear_sides(radial, points)
            return _Side(Z=Z, Y=Y, B=scores, norms=none, S=Y, M=M)
        X = points - self.center
        Z = X if radial.factor is None else X @ radial.factor
        Y = X if radial.inverse is None else X @ radial.inverse
        if self.direct:
            # by columns, so that the compiled loops read each coordinate in one piece without a copy
            Z, Y, B = (np.asfortranarray(v, dtype=self.dtype) for v in (Z, Y, scores))
            return _Side(Z=Z, Y=Y, B=B, norms=none, S=Y, M=M)
        mean, f = self._means[which], self._ratios[which]
        B = scores - mean
        norms = np.stack(
            [np.square(Z).sum(1), np.square(Y).sum(1), (B * Y).sum(1), B @ mean + 0.5 * mean @ mean]
        )
        S = f * Y + B / f
        Z, Y, B, norms, S = (v.astype(self.dtype, copy=False) for v in (Z, Y, B, norms, S))
        return _Side(Z=Z, Y=Y, B=B, norms=norms, S=S, M=M)

    def _block(self, rows: list[_Side], columns: list[_Side], out: np.ndarray | None = None) -> np.ndarray:
        """The Stein kernel between two sides, added to ``out``, which holds zeros."""
        total = np.zeros((len(rows[0].Z), len(columns[0].Z)), self.dtype) if out is None else out
        fill = self._fill_direct if self.direct else self._fill_products
        for which, radial in enumerate(self.kernel):
            a, b = rows[which], columns[which]
            if radial.origin is not None:
                own, other = ((s.B * s.Y).sum(1) for s in (a, b))
                part = (a.B @ b.B.T) * (1 + a.Z @ b.Z.T) + own[:, None] + other + radial.trace
            elif a.M is not None:
                part = np.zeros_like(total)
                fill(radial, which, a, b, part)
            else:
                fill(radial, which, a, b, total)
                continue
            total += part if a.M is None or b.M is None else a.M[:, None] * part * b.M
        return total.astype(np.float64, copy=False)

    def _fill_direct(self, radial: Radial, which: int, a: _Side, b: _Side, out: np.ndarray) -> None:
        from fathometer.stein.epilogue import fill_direct

        white = radial.factor is None
        Z2, Y2, B2 = _by_coordinate(b, white)

        def run(rows: slice) -> None:
            Z, Y, B = _by_coordinate(a.part(rows), white)
            fill_direct(*_numbers(radial, self.dtype), Z, Y, B, Z2, Y2, B2, white, out[rows])

        _in_threads(run, len(out), out.size)

    def _fill_products(self, radial: Radial, which: int, a: _Side, b: _Side, out: np.ndarray) -> None:
        from fathometer.stein.epilogue import fill_products

        white = radial.factor is None
        ZZ, BB, SS, YY = self._rooms(slice(0, 4), out.shape)
        # NumPy's BLAS: on tiles this small it is a fifteenth faster than torch's
        for one, other, room in ((a.Z, b.Z, ZZ), (a.B, b.B, BB), (a.S, b.S, SS)):
            np.matmul(one, other.T, out=room)
        YY = ZZ if white else np.matmul(a.Y, b.Y.T, out=YY)
        numbers, ratio = _numbers(radial, self.dtype), self.dtype(self._ratios[which])

        def run(rows: slice) -> None:
            part = a.part(rows)
            fill_products(
                *numbers, part.Z, part.Y, part.B, part.norms, b.Z, b.Y, b.B, b.norms, white, ratio,
                ZZ[rows], YY[rows], BB[rows], SS[rows], out[rows],
            )  # fmt: skip

        _in_threads(run, len(out), out.size)


def _by_coordinate(side: _Side, white: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Z, Y and B of a side as the compiled loops read them: (d, m), each coordinate in one piece."""
    Z, B = np.ascontiguousarray(side.Z.T), np.ascontiguousarray(side.B.T)
    return Z, Z if white else np.ascontiguousarray(side.Y.T), B


def _linear_sides(radial: Radial, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whitened points and ``S^-1`` times the points, from the origin of a linear profile."""
    away = points - radial.origin
    if radial.factor is None or radial.inverse is None:
        return away, away
    return away @ radial.factor, away @ radial.inverse


def _numbers(radial: Radial, dtype: type[np.floating[Any]]) -> tuple[int, Any, Any, Any]:
    """The kernel as the compiled loops take it: numbers of the arrays' own precision."""
    return radial.code, dtype(radial.first), dtype(radial.second), dtype(radial.trace)


def _in_threads(run: Callable[[slice], None], rows: int, pairs: int) -> None:
    """Run over the rows, cut between torch's threads where that is worth a thread."""
    workers = min(torch.get_num_threads(), rows) if pairs >= 1 << 14 else 1
    if workers == 1:
        run(slice(0, rows))
        return
    edges = np.linspace(0, rows, workers + 1).astype(int)
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(run, [slice(a, b) for a, b in pairwise(edges)]))
