"""A tied layer by the weight rows of a few outputs, on copies of the signal that a subgroup moved.

``W[h q, h n] = W[q, n]``, so the output h q is the row of q times the signal moved by h. One
row for every orbit of a small subgroup is enough: the multiplications are those of an untied
layer, but only ``1 / |subgroup|`` of its matrix is ever filled, and where the subgroup moves
every output the filled rows are the weights as they are stored. With the identity alone it is
the untied layer.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fathometer.symmetry.action import Action, Element
from fathometer.symmetry.entries import Entries, moved_copies, rows_at_a_time, sum_of_copies
from fathometer.symmetry.groups import ElementMixer, list_elements
from fathometer.symmetry.kernels import Kernel
from fathometer.symmetry.permutations import (
    Permutation,
    cycle_lengths,
    disjoint_union,
    first_of_each,
    orbit_labels,
    power,
)
from fathometer.symmetry.tying import Tying

RANDOM = 16
"""Random elements whose powers are tried as generators of the subgroup."""

LARGEST_SUBGROUP = 8
"""Copies of the signal are cheap beside the matrix only while they are few."""

WASTE = 1.03
"""Computed over needed outputs: those that an element leaves in place are computed twice."""

SMALLEST_BLOCK = 1 << 12
"""Index pairs from which the product of one pair of channels is worth a call."""

PANEL = 1 << 21
"""Bytes of the matrix that are filled at a time where it is not kept for the gradient."""


def free_subgroup(action: Action | None, sizes: tuple[int, int]) -> list[Element]:
    """A small subgroup that leaves almost no output in place, the largest that was found."""
    n, m = sizes
    best: np.ndarray = np.arange(n + m)[None]
    generators = [] if action is None else disjoint_union(action.generators)
    if action is not None and generators:
        mixer = ElementMixer(generators, n + m)
        drawn = [*generators, *(mixer.draw() for _ in range(RANDOM))]
        choices = [[h] for g in drawn for h in _small_powers(g)]
        for chosen in [generators, *choices] if action.order <= LARGEST_SUBGROUP else choices:
            count = _orbits(chosen, n)
            elements = list_elements(chosen, n + m)
            if len(elements) * count <= WASTE * m and len(elements) > len(best):
                best = elements
    return [(g[:n], g[n:] - n) for g in best]


def _small_powers(g: Permutation) -> list[Permutation]:
    """Powers of g of small order."""
    order = math.lcm(*set(cycle_lengths(g)))
    return [power(g, order // r) for r in range(2, LARGEST_SUBGROUP + 1) if order % r == 0]


def _orbits(chosen: Sequence[Permutation], inputs: int) -> int:
    labels = orbit_labels([g[inputs:] - inputs for g in chosen], len(chosen[0]) - inputs)
    return int(labels.max()) + 1


class UntiedKernel(Kernel):
    """Every entry is a weight of its own: products with the stored weights, channel by channel, no copy."""

    kind = "untied"

    def __init__(self, tying: Tying) -> None:
        super().__init__()
        self.sizes = tying.sizes

    def applies(self, weight: Tensor, x: Tensor) -> bool:
        """Whether the products are large enough to be made one by one."""
        return self.sizes[0] * self.sizes[1] >= SMALLEST_BLOCK

    def plain(self, weight: Tensor, x: Tensor) -> Tensor:
        """(batch, in_channels, N) to (batch, out_channels, M), by differentiable operations."""
        n, m = self.sizes
        matrix = weight.unflatten(2, (m, n)).transpose(1, 2).reshape(len(weight) * m, -1)
        return (x.flatten(1) @ matrix.T).reshape(len(x), -1, m)

    def compute(self, weight: Tensor, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The outputs; nothing is kept."""
        n, m = self.sizes
        y = x.new_zeros(len(x), len(weight), m)
        for o, row in enumerate(weight.unflatten(2, (m, n))):
            for i, W in enumerate(row):
                y[:, o].addmm_(x[:, i], W.T)
        return y, ()

    def gradients(
        self, gy: Tensor, weight: Tensor, x: Tensor, kept: tuple[Tensor, ...], needs: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """The same products transposed."""
        n, m = self.sizes
        blocks = weight.unflatten(2, (m, n))
        gw = torch.empty_like(weight, memory_format=torch.contiguous_format) if needs[0] else None
        gx = torch.zeros_like(x, memory_format=torch.contiguous_format) if needs[1] else None
        signals = x.flatten(1)
        panel = x.new_empty(m, signals.shape[1])
        for o in range(len(weight)):
            g = gy[:, o]
            if gw is not None:
                torch.mm(g.T, signals, out=panel)
                gw[o].view(-1, m, n).copy_(panel.view(m, -1, n).transpose(0, 1))
            if gx is not None:
                for i, W in enumerate(blocks[o]):
                    gx[:, i].addmm_(g, W)
        return gw, gx


class RowsKernel(Kernel):
    """Rows of representatives times moved signals; a list of elements begins with the identity."""

    kind = "rows"
    moved: Tensor
    place: Tensor
    slots: Tensor
    table: Tensor

    def __init__(self, tying: Tying, elements: Sequence[Element]) -> None:
        super().__init__()
        _, m = self.sizes = tying.sizes
        images = np.stack([b for _, b in elements])
        firsts = first_of_each(orbit_labels(list(images), m))
        self.shape = len(elements), len(firsts)
        place = np.full(m, -1)
        for h in range(len(elements))[::-1]:
            place[images[h, firsts]] = h * len(firsts) + np.arange(len(firsts))
        # where no output is computed, the gradient that comes back is zero: index m
        slots = np.full(len(elements) * len(firsts), m)
        slots[place] = np.arange(m)
        rows = tying.labels[firsts]
        self.entries = Entries(rows)
        self.padded, self.spare = bool((rows < 0).any()), bool((slots == m).any())
        self.alone = len(elements) == 1
        for name, array in (
            ("moved", np.stack([a for a, _ in elements])),
            ("place", place),
            ("slots", slots),
            ("table", np.where(rows < 0, tying.num_orbits, rows).ravel()),
        ):
            self.register_buffer(name, torch.from_numpy(array.astype(np.int64)), persistent=False)

    def applies(self, weight: Tensor, x: Tensor) -> bool:
        """Whether numpy can reach the memory."""
        return x.device.type == "cpu"

    def plain(self, weight: Tensor, x: Tensor) -> Tensor:
        """(batch, in_channels, N) to (batch, out_channels, M), by differentiable operations."""
        out_channels, in_channels, _ = weight.shape
        values = torch.nn.functional.pad(weight, (0, 1)) if self.padded else weight
        W = values.index_select(2, self.table).reshape(out_channels, in_channels, self.shape[1], -1)
        matrix = W.transpose(1, 2).reshape(out_channels * self.shape[1], -1)
        X = torch.cat([x.index_select(2, a) for a in self.moved]).flatten(1)
        return self._placed(X @ matrix.T, len(x))

    def compute(self, weight: Tensor, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The outputs; kept are the moved signals and, where it is less than an untied one, the matrix."""
        X, rows = self._copies(x), self.shape[1]
        Y = X.new_empty(len(X), len(weight) * rows)
        if not self.alone:
            matrix = self._memory(weight)
            self.entries.fill(weight, matrix)
            return self._placed(torch.mm(X, matrix.T, out=Y), len(x)), (X, matrix)
        parts = self._parts(weight)
        memory = self._memory(weight[parts[0]])
        for channels in parts:
            here = slice(channels.start * rows, channels.stop * rows)
            panel = memory[: (channels.stop - channels.start) * rows]
            self.entries.fill(weight[channels], panel)
            torch.mm(X, panel.T, out=Y[:, here])
        return self._placed(Y, len(x)), (X,)

    def gradients(
        self, gy: Tensor, weight: Tensor, x: Tensor, kept: tuple[Tensor, ...], needs: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Each panel of the gradient is added to the weights as soon as it is made."""
        X, rows = kept[0], self.shape[1]
        G = self._unplaced(gy)
        gw = torch.empty_like(weight) if needs[0] else None
        gX = None
        if needs[1]:
            gX = G @ kept[1] if len(kept) > 1 else torch.zeros_like(X)
        parts = self._parts(weight)
        memory = self._memory(weight[parts[0]])
        for channels in parts:
            here = slice(channels.start * rows, channels.stop * rows)
            panel = memory[: (channels.stop - channels.start) * rows]
            if gX is not None and len(kept) == 1:
                self.entries.fill(weight[channels], panel)
                gX.addmm_(G[:, here], panel)
            if gw is not None:
                torch.mm(G[:, here].T, X, out=panel)
                self.entries.collect(panel, gw[channels])
        if gX is None:
            return gw, None
        return gw, gX.reshape(x.shape) if self.alone else sum_of_copies(gX, self.moved, x)

    def _parts(self, weight: Tensor) -> list[slice]:
        return rows_at_a_time(weight, self.shape[1], self.sizes[0], PANEL)

    def _memory(self, weight: Tensor) -> Tensor:
        """For the rows of these output channels."""
        return weight.new_empty(len(weight) * self.shape[1], weight.shape[1] * self.sizes[0])

    def _copies(self, x: Tensor) -> Tensor:
        """The signals as each element moves them, (elements * batch, in_channels * N)."""
        return x.reshape(len(x), -1) if self.alone else moved_copies(x, self.moved)

    def _placed(self, Y: Tensor, batch: int) -> Tensor:
        """From (elements * batch, out_channels * rows) to (batch, out_channels, M)."""
        if self.alone:
            return Y.reshape(batch, -1, self.sizes[1])
        parts = Y.reshape(self.shape[0], batch, -1, self.shape[1]).permute(1, 2, 0, 3)
        return parts.reshape(*parts.shape[:2], -1).index_select(2, self.place)

    def _unplaced(self, gy: Tensor) -> Tensor:
        if self.alone:
            return gy.reshape(len(gy), -1)
        padded = torch.nn.functional.pad(gy, (0, 1)) if self.spare else gy
        parts = padded.index_select(2, self.slots).reshape(*gy.shape[:2], *self.shape)
        return parts.permute(2, 0, 1, 3).reshape(self.shape[0] * len(gy), -1)
