"""A tied layer split in two by an element of order two: half the products of an untied layer.

If g g = 1, the sums ``x[p] + x[g p]`` and the differences ``x[p] - x[g p]`` do not mix: the
layer is one matrix on sums (and on the indices that g leaves in place) and one on differences,
``(n_+ m_+ + n_- m_-)`` entries for ``N M``. Every group of even order has such an element, so
this serves where no larger abelian subgroup or coarse partition does.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fathometer.symmetry.action import Action, Element
from fathometer.symmetry.groups import ElementMixer
from fathometer.symmetry.kernels import PANEL, Kernel, add_by_label, take_rows
from fathometer.symmetry.permutations import compose, cycle_lengths, disjoint_union, is_identity
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
        order = int(np.lcm.reduce(cycle_lengths(g)))
        if order % 2 == 0:
            half = _power(g, order // 2)
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
    direct: Tensor
    crossed: Tensor
    from_still: Tensor
    to_still: Tensor
    among_still: Tensor

    def __init__(self, tying: Tying, pair: Element) -> None:
        super().__init__()
        self.sizes = tying.sizes
        labels = np.where(tying.labels < 0, tying.num_orbits, tying.labels).T.astype(np.int64)
        sides = []
        for name, p in zip(("in", "out"), pair, strict=True):
            place = np.arange(len(p))
            first, still = place[p > place], place[p == place]
            sides.append((first, p[first], still))
            # where every index stands in the order: pairs first, then their partners, then the rest
            order = np.argsort(np.concatenate([first, p[first], still]))
            for part, values in (("first", first), ("second", p[first]), ("still", still), ("place", order)):
                self.register_buffer(f"{name}_{part}", torch.from_numpy(values), persistent=False)
        (p, _, f), (q, r, g) = sides
        # a matrix entry on pairs is the sum or difference of two; beside a fixed index it is one
        self.register_buffer("direct", torch.from_numpy(labels[np.ix_(p, q)]), persistent=False)
        self.register_buffer("crossed", torch.from_numpy(labels[np.ix_(p, r)]), persistent=False)
        self.register_buffer("from_still", torch.from_numpy(labels[np.ix_(f, q)]), persistent=False)
        self.register_buffer("to_still", torch.from_numpy(labels[np.ix_(p, g)]), persistent=False)
        self.register_buffer("among_still", torch.from_numpy(labels[np.ix_(f, g)]), persistent=False)

    def plain(self, weight: Tensor, x: Tensor) -> Tensor:
        """(batch, in_channels, N) to (batch, out_channels, M), by differentiable operations."""
        values = _values(weight)
        s, d, f = self._split(x, "in")
        A, B = (_entry(values, t) / 2 for t in (self.direct, self.crossed))
        plus = _product(s, A + B) + _product(f, _entry(values, self.from_still))
        minus = _product(d, A - B)
        still = _product(s, _entry(values, self.to_still)) + _product(f, _entry(values, self.among_still))
        return self._joined(plus, minus, still, "out")

    def applies(self, weight: Tensor, x: Tensor) -> bool:
        """Whether numpy can reach the memory."""
        return x.device.type == "cpu"

    def compute(self, weight: Tensor, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The outputs, panel by panel; kept are the orbit weights by channel and the split signals."""
        values = _values(weight)
        s, d, f = (part.contiguous() for part in self._split(x, "in"))
        batch, out_channels, count = len(x), len(weight), self.direct.shape[1]
        plus, minus = (x.new_empty(batch, count * out_channels) for _ in range(2))
        for here, sums, differences, _ in self._panels(values / 2, out_channels):
            torch.mm(s.reshape(batch, -1), sums, out=plus[:, here])
            torch.mm(d.reshape(batch, -1), differences, out=minus[:, here])
        plus, minus = (t.reshape(batch, count, out_channels).transpose(1, 2) for t in (plus, minus))
        still = _product(s, _entry(values, self.to_still))
        if f.shape[2]:
            plus = plus + _product(f, _entry(values, self.from_still))
            still = still + _product(f, _entry(values, self.among_still))
        return self._joined(plus, minus, still, "out"), (values, s, d, f)

    def gradients(
        self, gy: Tensor, weight: Tensor, x: Tensor, kept: tuple[Tensor, ...], needs: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """The transposed products, and each panel of the matrix's gradient summed by orbits at once."""
        values, s, d, f = kept
        batch, out_channels, k = len(x), *weight.shape[::2]
        # transposed: sums of the outputs take the place of sums of the inputs
        plus, minus, still = self._split(gy, "out")
        flat_plus, flat_minus = (t.transpose(1, 2).reshape(batch, -1) for t in (plus, minus))
        sums = torch.zeros_like(values)
        gs, gd = torch.zeros_like(s).reshape(batch, -1), torch.zeros_like(d).reshape(batch, -1)
        rows, columns = (t.reshape(batch, -1).T.contiguous() for t in (s, d))
        for here, even, odd, tables in self._panels(values / 2, out_channels, expand=needs[1]):
            if needs[1]:
                gs.addmm_(flat_plus[:, here], even.T)
                gd.addmm_(flat_minus[:, here], odd.T)
            if needs[0]:
                torch.mm(rows, flat_plus[:, here], out=even)
                torch.mm(columns, flat_minus[:, here], out=odd)
                torch.add(even, odd, out=even)
                odd.mul_(-2).add_(even)
                for panel, labels in ((even, tables[0]), (odd, tables[1])):
                    add_by_label(panel, labels, sums)
        gx = None
        sums /= 2
        gs, gd = gs.reshape(s.shape), gd.reshape(d.shape)
        gs += _product_back(still, _entry(values, self.to_still))
        gf = _product_back(plus, _entry(values, self.from_still))
        gf = gf + _product_back(still, _entry(values, self.among_still))
        if needs[0]:
            for left, right, table in (
                (s, still, self.to_still), (f, plus, self.from_still), (f, still, self.among_still)
            ):  # fmt: skip
                if table.numel():
                    block = torch.einsum("bin,bom->inmo", left, right).contiguous()
                    add_by_label(block, table.numpy().reshape(-1), sums)
        if needs[1]:
            gx = self._joined(gs, gd, gf, "in")
        return sums[:, :k].permute(2, 0, 1) if needs[0] else None, gx

    def _split(self, x: Tensor, side: str) -> tuple[Tensor, Tensor, Tensor]:
        first, second, still = (getattr(self, f"{side}_{part}") for part in ("first", "second", "still"))
        a, b = x.index_select(2, first), x.index_select(2, second)
        return a + b, a - b, x.index_select(2, still)

    def _joined(self, plus: Tensor, minus: Tensor, still: Tensor, side: str) -> Tensor:
        # channels last where they already are: whole rows are copied
        parts = [t.transpose(1, 2) if side == "out" else t for t in (plus, minus, still)]
        axis = 1 if side == "out" else 2
        together = torch.cat([parts[0] + parts[1], parts[0] - parts[1], parts[2]], dim=axis)
        joined = together.index_select(axis, getattr(self, f"{side}_place"))
        return joined.transpose(1, 2) if side == "out" else joined

    def _panels(self, halved: Tensor, out_channels: int, *, expand: bool = True) -> Iterator[Any]:
        """Columns, the matrices on sums and on differences there, and the two tables of labels."""
        in_channels, (n, m) = len(halved), self.direct.shape
        width = min(m, max(1, PANEL // (in_channels * n * out_channels * halved.element_size()))) or 1
        even, odd = (halved.new_empty(in_channels * n * width * out_channels) for _ in range(2))
        for start in range(0, m, width):
            tables = [t[:, start : start + width].reshape(-1).numpy() for t in (self.direct, self.crossed)]
            count = min(width, m - start)
            shape = in_channels * n, count * out_channels
            panels = [t[: shape[0] * shape[1]].reshape(shape) for t in (even, odd)]
            if expand:
                for panel, table in zip(panels, tables, strict=True):
                    take_rows(halved, table, panel)
                torch.add(panels[0], panels[1], out=panels[0])
                panels[1].mul_(-2).add_(panels[0])
            yield slice(start * out_channels, (start + count) * out_channels), *panels, tables


def _values(weight: Tensor) -> Tensor:
    """(in_channels, K + 1, out_channels), the last row zero."""
    return torch.nn.functional.pad(weight.permute(1, 2, 0), (0, 0, 0, 1)).contiguous()


def _entry(values: Tensor, table: Tensor) -> Tensor:
    """Entries (in_channels, n, m, out_channels)."""
    found = values.index_select(1, table.reshape(-1))
    return found.reshape(len(values), *table.shape, values.shape[2])


def _product(x: Tensor, entries: Tensor) -> Tensor:
    """(batch, in_channels, n) to (batch, out_channels, m)."""
    in_channels, n, m, out_channels = entries.shape
    y = x.reshape(len(x), in_channels * n) @ entries.reshape(in_channels * n, m * out_channels)
    return y.reshape(len(x), m, out_channels).transpose(1, 2)


def _product_back(gy: Tensor, entries: Tensor) -> Tensor:
    """(batch, out_channels, m) to (batch, in_channels, n)."""
    in_channels, n, m, out_channels = entries.shape
    flat = gy.transpose(1, 2).reshape(len(gy), m * out_channels)
    return (flat @ entries.reshape(in_channels * n, m * out_channels).T).reshape(len(gy), in_channels, n)


def _power(p: np.ndarray, exponent: int) -> np.ndarray:
    found, square = np.arange(len(p)), p
    while exponent:
        found = compose(square, found) if exponent % 2 else found
        square, exponent = compose(square, square), exponent // 2
    return found


def _entries(p: np.ndarray, inputs: int) -> int:
    """Entries of the two matrices."""
    still = p == np.arange(len(p))
    (n, f), (m, g) = ((len(side), int(side.sum())) for side in (still[:inputs], still[inputs:]))
    return ((n + f) * (m + g) + (n - f) * (m - g)) // 4
