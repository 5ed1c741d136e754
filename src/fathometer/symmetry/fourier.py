"""A tied layer as a convolution over an abelian subgroup, computed by the fast Fourier transform.

If an abelian subgroup A of the group is semi-regular on both sides, inputs are A x P and
outputs A x Q, the matrix is block-circulant over A, and each frequency is one product of a
(Q out_channels) x (P in_channels) matrix: ``|A| P Q I O`` complex multiplications a sample
and transforms instead of ``|A|**2 P Q I O``. Equivariant to rounding, not bit for bit.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from fathometer.symmetry.action import Action, Element
from fathometer.symmetry.groups import ElementMixer
from fathometer.symmetry.kernels import Kernel
from fathometer.symmetry.permutations import Permutation, compose, cycle_lengths, disjoint_union, invert
from fathometer.symmetry.tying import Tying

STARTS = 12
"""Elements from which a subgroup is grown."""

RANDOM = 24
"""Random elements tried for a subgroup beside the generators and their products."""


def abelian_coordinates(action: Action) -> tuple[np.ndarray, np.ndarray] | None:
    """Indices of both sides along a large abelian subgroup that is semi-regular on both.

    Returns:
        Arrays (P, L_1, ..., L_d) and (Q, L_1, ..., L_d): entry [p, a] is the index that
        the element with coordinates a makes of representative p. None if only the
        identity will do.
    """
    best: tuple[np.ndarray, np.ndarray] | None = None
    elements = sorted(_free_elements(action), key=lambda e: -_length(e[0]))
    for start in elements[:STARTS]:
        tables = _grown([start, *(e for e in elements if e is not start)], action.sizes)
        if tables is not None and (best is None or tables[0][0].size > best[0][0].size):
            best = tables
        if best is not None and best[0][0].size >= min(action.sizes):
            break
    return best


def _grown(elements: Sequence[Element], sizes: tuple[int, int]) -> tuple[np.ndarray, np.ndarray] | None:
    """Coordinates of the subgroup that the elements span when each that fits is taken in turn."""
    chosen: list[Element] = []
    tables: tuple[np.ndarray, np.ndarray] | None = None
    for pair in elements:
        if not all(_commute(pair, other) for other in chosen):
            continue
        inputs = _table([*(a for a, _ in chosen), pair[0]], sizes[0])
        outputs = _table([*(b for _, b in chosen), pair[1]], sizes[1])
        if inputs is not None and outputs is not None:
            chosen.append(pair)
            tables = inputs, outputs
    return tables


class FourierKernel(Kernel):
    """Products by frequency along an abelian subgroup; three of them for a step of training."""

    kind = "fourier"
    gather: Tensor
    scatter: Tensor
    filters: Tensor
    place_in: Tensor
    place_out: Tensor

    def __init__(self, tying: Tying, coordinates: tuple[np.ndarray, np.ndarray]) -> None:
        super().__init__()
        inputs, outputs = coordinates
        self.lengths = inputs.shape[1:]
        self.parts = len(inputs), len(outputs)
        self.sizes = tying.sizes
        for name, order in (("gather", inputs.reshape(-1)), ("place_out", outputs.reshape(-1))):
            self.register_buffer(name, torch.from_numpy(order), persistent=False)
        for name, order in (("place_in", inputs), ("scatter", outputs)):
            self.register_buffer(name, torch.from_numpy(invert(order.reshape(-1))), persistent=False)
        self.in_order, self.out_order = (bool((t.ravel() == np.arange(t.size)).all()) for t in coordinates)
        # W[a q, b p] depends on a - b only: the filter is the column of p's representative
        still = inputs.reshape(len(inputs), -1)[:, 0]
        labels = tying.labels[outputs.reshape(len(outputs), 1, -1), still[None, :, None]].astype(np.int64)
        labels = np.where(labels < 0, tying.num_orbits, labels)
        self.register_buffer("filters", torch.from_numpy(labels.reshape(-1)), persistent=False)

    @staticmethod
    def cost(coordinates: tuple[np.ndarray, np.ndarray], in_channels: int, out_channels: int) -> float:
        """Real multiplications a sample, transforms included (in units of a matrix product's)."""
        inputs, outputs = coordinates
        order = inputs[0].size
        p, q = len(inputs), len(outputs)
        transforms = 2.5 * order * math.log2(order + 1) * (in_channels * p + out_channels * q)
        # half the frequencies, four real products each, at about half the speed of a real product
        return 2 * (2 * order * p * q * in_channels * out_channels) + 4 * transforms

    def plain(self, weight: Tensor, x: Tensor) -> Tensor:
        """(batch, in_channels, N) to (batch, out_channels, M), by differentiable operations."""
        dtype = x.dtype
        if dtype in (torch.float16, torch.bfloat16):
            weight, x = weight.float(), x.float()
        return self.compute(weight, x)[0].to(dtype)

    def compute(self, weight: Tensor, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The outputs, and the transforms of signals and filters as real rows and columns."""
        out_channels, in_channels, _ = weight.shape
        p, q = self.parts
        ordered = x if self.in_order else x.index_select(2, self.gather)
        rows = self._transform(ordered.reshape(len(x), in_channels * p, *self.lengths))
        values = nn.functional.pad(weight, (0, 1)).index_select(2, self.filters)
        values = values.reshape(out_channels, in_channels, q, p, *self.lengths)
        values = values.transpose(1, 2).reshape(out_channels * q, in_channels * p, *self.lengths)
        F = torch.fft.rfftn(values, dim=self.axes).flatten(2)
        # complex products as real ones of twice the size: batched real products are the fast ones
        both = torch.stack([torch.view_as_real(F), torch.view_as_real(1j * F)], dim=3)
        columns = both.permute(2, 1, 3, 0, 4).flatten(3).flatten(1, 2)
        y = self._back(torch.bmm(rows, columns), len(x)).reshape(len(x), out_channels, -1)
        return y if self.out_order else y.index_select(2, self.scatter), (rows, columns)

    def gradients(
        self, gy: Tensor, weight: Tensor, x: Tensor, kept: tuple[Tensor, ...], needs: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Correlations instead of convolutions: one more transform and two more products."""
        out_channels, in_channels, k = weight.shape
        p, q = self.parts
        rows, columns = kept
        ordered = gy if self.out_order else gy.index_select(2, self.place_out)
        g = self._transform(ordered.reshape(len(gy), out_channels * q, *self.lengths))
        gw = gx = None
        if needs[1]:
            gx = self._back(torch.bmm(g, columns.transpose(1, 2)), len(x)).reshape(x.shape)
            gx = gx if self.in_order else gx.index_select(2, self.place_in)
        if needs[0]:
            R = torch.bmm(rows.transpose(1, 2), g).unflatten(1, (-1, 2)).unflatten(3, (-1, 2))
            real = R[:, :, 0, :, 0] + R[:, :, 1, :, 1]
            imaginary = R[:, :, 0, :, 1] - R[:, :, 1, :, 0]
            F = torch.complex(real, imaginary).permute(2, 1, 0)
            filters = self._inverse(F.reshape(*F.shape[:2], *self.frequencies))
            filters = filters.reshape(out_channels, q, in_channels, p, -1).permute(1, 3, 4, 0, 2)
            sums = filters.new_zeros(k + 1, out_channels * in_channels)
            sums.index_add_(0, self.filters, filters.reshape(-1, out_channels * in_channels))
            gw = sums[:k].T.reshape(weight.shape)
        return gw, gx

    @property
    def axes(self) -> tuple[int, ...]:
        """The dimensions of the subgroup."""
        return tuple(range(-len(self.lengths), 0))

    @property
    def frequencies(self) -> tuple[int, ...]:
        """The shape of the frequencies of a real signal."""
        return (*self.lengths[:-1], self.lengths[-1] // 2 + 1)

    def _transform(self, signal: Tensor) -> Tensor:
        """(batch, parts, *lengths) to (frequencies, batch, 2 parts), real beside imaginary."""
        X = torch.fft.rfftn(signal, dim=self.axes).flatten(2)
        return torch.view_as_real(X).permute(2, 0, 1, 3).flatten(2)

    def _back(self, rows: Tensor, batch: int) -> Tensor:
        """(frequencies, batch, 2 parts) to (batch, parts, indices)."""
        Y = torch.view_as_complex(rows.unflatten(2, (-1, 2)).permute(1, 2, 0, 3).contiguous())
        return self._inverse(Y.reshape(batch, -1, *self.frequencies))

    def _inverse(self, frequencies: Tensor) -> Tensor:
        return torch.fft.irfftn(frequencies, s=self.lengths, dim=self.axes).flatten(2)


def _free_elements(action: Action) -> list[Element]:
    """Elements all of whose cycles have one length, the same on both sides."""
    n, m = action.sizes
    generators = disjoint_union(action.generators)
    if not generators:
        return []
    found = list(generators)
    found += [compose(a, b) for a, b in itertools.permutations(generators, 2)]
    mixer = ElementMixer(generators, n + m)
    found += [mixer.draw() for _ in range(RANDOM)]
    free: dict[bytes, Permutation] = {}
    for g in found:
        if len(set(cycle_lengths(g))) == 1 and cycle_lengths(g)[0] > 1:
            free.setdefault(g.tobytes(), g)
    return [(g[:n], g[n:] - n) for g in free.values()]


def _length(p: Permutation) -> int:
    return cycle_lengths(p)[0]


def _commute(one: Element, other: Element) -> bool:
    return all(np.array_equal(compose(a, b), compose(b, a)) for a, b in zip(one, other, strict=True))


def _table(permutations: Sequence[Permutation], size: int) -> np.ndarray | None:
    """Every index as a representative moved by powers; None if two words give one index."""
    lengths = [_length(p) for p in permutations]
    order = math.prod(lengths)
    if size % order:
        return None
    rows, seen = [], np.zeros(size, dtype=bool)
    for start in range(size):
        if seen[start]:
            continue
        block = np.array([start])
        for p, length in zip(permutations, lengths, strict=True):
            powers = [block]
            for _ in range(length - 1):
                powers.append(p[powers[-1]])
            block = np.stack(powers, axis=-1)
        flat = block.reshape(-1)
        if seen[flat].any() or len(np.unique(flat)) < order:
            return None
        seen[flat] = True
        rows.append(block[0])
    return np.stack(rows)
