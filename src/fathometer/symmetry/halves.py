"""A tied layer split in two by an element of order two: half the products of an untied layer.

If g g = 1, the sums ``x[p] + x[g p]`` and the differences ``x[p] - x[g p]`` do not mix: the
layer is one matrix on sums (and on the indices that g leaves in place) and one on differences,
``(n_+ m_+ + n_- m_-)`` entries for ``N M``. Every group of even order has such an element, so
this serves where no larger abelian subgroup or coarse partition does.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fathometer.symmetry.action import Action, Element
from fathometer.symmetry.entries import Entries
from fathometer.symmetry.groups import ElementMixer
from fathometer.symmetry.kernels import Kernel
from fathometer.symmetry.permutations import cycle_lengths, disjoint_union, is_identity, power
from fathometer.symmetry.tying import Tying

RANDOM = 24
"""Random elements whose powers are tried for one of order two."""


def involution(action: Action) -> Element | None:
    """An element of order two that leaves the fewest index pairs in place; None if none was found."""
    n, m = action.sizes
    generators = disjoint_union(action.generators)
    if not generators:
        return None
    mixer = ElementMixer(generators, n + m)
    best: np.ndarray | None = None
    for g in [*generators, *(mixer.draw() for _ in range(RANDOM))]:
        order = math.lcm(*set(cycle_lengths(g)))
        if order % 2 == 0:
            half = power(g, order // 2)
            if best is None or _entries(half, n) < _entries(best, n):
                best = half
    return None if best is None or is_identity(best) else (best[:n], best[n:] - n)


def halves_cost(pair: Element, in_channels: int, out_channels: int) -> float:
    """Multiplications a sample, and what it costs to add and subtract the entries."""
    together = np.concatenate([pair[0], len(pair[0]) + pair[1]])
    return 1.2 * _entries(together, len(pair[0])) * in_channels * out_channels


class HalvesKernel(Kernel):
    """Sums and differences along an element of order two, each a matrix product."""

    kind = "halves"

    def __init__(self, tying: Tying, pair: Element) -> None:
        super().__init__()
        self.sizes = tying.sizes
        sides = []
        for name, p in zip(("in", "out"), pair, strict=True):
            place = np.arange(len(p))
            first, still = place[p > place], place[p == place]
            sides.append((first, p[first], still))
            # where every index stands in the order: pairs first, then their partners, then the rest
            order = np.argsort(np.concatenate([first, p[first], still]))
            for part, values in (("first", first), ("second", p[first]), ("still", still), ("place", order)):
                self.register_buffer(f"{name}_{part}", torch.from_numpy(values), persistent=False)
        (p, r, f), (q, _, g) = sides
        # a matrix entry on pairs is the sum or difference of two; beside a fixed index it is one
        self.tables = [tying.labels[np.ix_(a, b)] for a, b in ((q, p), (q, r), (q, f), (g, p), (g, f))]
        self.entries = [Entries(table) for table in self.tables]
        for i, table in enumerate(self.tables):
            labels = np.where(table < 0, tying.num_orbits, table).astype(np.int64)
            self.register_buffer(f"labels_{i}", torch.from_numpy(labels), persistent=False)

    def plain(self, weight: Tensor, x: Tensor) -> Tensor:
        """(batch, in_channels, N) to (batch, out_channels, M), by differentiable operations."""
        values = torch.nn.functional.pad(weight, (0, 1))
        parts = []
        for i, (rows, columns) in enumerate(table.shape for table in self.tables):
            found = values.index_select(2, getattr(self, f"labels_{i}").reshape(-1))
            found = found.reshape(*weight.shape[:2], rows, columns).transpose(1, 2)
            parts.append(found.reshape(len(weight) * rows, weight.shape[1] * columns))
        A, B, *rest = parts
        return self._joined(*_products(A + B, A - B, rest, *self._split(x, "in")), len(weight))

    def applies(self, weight: Tensor, x: Tensor) -> bool:
        """Whether numpy can reach the memory."""
        return x.device.type == "cpu"

    def compute(self, weight: Tensor, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The outputs; kept are the split signals and the matrices, half of an untied one together."""
        split = self._split(x, "in")
        A, B, *rest = self._memory(weight)
        for entries, matrix in zip(self.entries, (A, B, *rest), strict=True):
            entries.fill(weight, matrix)
        _sum_and_difference(A, B)
        y = self._joined(*_products(A, B, rest, *split), len(weight))
        return y, (A, B, *rest, *split)

    def gradients(
        self, gy: Tensor, weight: Tensor, x: Tensor, kept: tuple[Tensor, ...], needs: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """The transposed products; sums of the outputs take the place of sums of the inputs."""
        even, odd, from_still, to_still, among_still, s, d, f = kept
        plus, minus, still = self._split(gy, "out")
        gw = gx = None
        if needs[1]:
            gs = torch.addmm(still @ to_still, plus, even, alpha=0.5)
            gd = (minus @ odd).mul_(0.5)
            gf = plus @ from_still + still @ among_still
            gx = self._joined(gs, gd, gf, x.shape[1], "in")
        if needs[0]:
            gw, found = torch.zeros_like(weight), self._memory(weight)
            pairs = ((plus, s), (minus, d), (plus, f), (still, s), (still, f))
            for matrix, (left, right) in zip(found, pairs, strict=True):
                torch.mm(left.T, right, out=matrix)
            _sum_and_difference(*found[:2])
            for matrix in found[:2]:
                matrix.mul_(0.5)
            for entries, matrix in zip(self.entries, found, strict=True):
                entries.add(matrix, gw)
        return gw, gx

    def _memory(self, weight: Tensor) -> list[Tensor]:
        out_channels, in_channels, _ = weight.shape
        return [
            weight.new_empty(out_channels * r, in_channels * c) for r, c in (t.shape for t in self.tables)
        ]

    def _split(self, x: Tensor, side: str) -> tuple[Tensor, Tensor, Tensor]:
        first, second, still = (getattr(self, f"{side}_{part}") for part in ("first", "second", "still"))
        a, b = x.index_select(2, first), x.index_select(2, second)
        return (a + b).flatten(1), (a - b).flatten(1), x.index_select(2, still).flatten(1)

    def _joined(self, plus: Tensor, minus: Tensor, still: Tensor, channels: int, side: str = "out") -> Tensor:
        a, b, c = (t.reshape(len(t), channels, t.shape[1] // channels) for t in (plus, minus, still))
        return torch.cat([a + b, a - b, c], dim=2).index_select(2, getattr(self, f"{side}_place"))


def _products(
    even: Tensor, odd: Tensor, rest: Sequence[Tensor], s: Tensor, d: Tensor, f: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Halved sums and differences of the outputs, and those that stay in place."""
    from_still, to_still, among_still = rest
    plus = torch.addmm(f @ from_still.T, s, even.T, alpha=0.5)
    return plus, (d @ odd.T) * 0.5, s @ to_still.T + f @ among_still.T


def _sum_and_difference(a: Tensor, b: Tensor) -> None:
    """Put a + b and a - b into a and b."""
    a += b
    torch.sub(a, b, alpha=2, out=b)


def _entries(p: np.ndarray, inputs: int) -> int:
    """Entries of the two matrices."""
    still = p == np.arange(len(p))
    (n, f), (m, g) = ((len(side), int(side.sum())) for side in (still[:inputs], still[inputs:]))
    return ((n + f) * (m + g) + (n - f) * (m - g)) // 4
