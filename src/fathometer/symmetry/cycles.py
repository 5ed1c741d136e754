"""A tied layer split along the cycles of one element of prime order: fewer products, few entries.

Let h have order r. Where it moves indices in cycles, sums over cycles and their real Fourier
parts do not mix: ``W[h^s q, h^t p] = w(t - s)`` gives, for frequency k, the 2 x 2 products of
``a = sum_u w(u) cos(2 pi k u / r)`` and ``b = sum_u w(u) sin(2 pi k u / r)`` with the cosine and
sine parts of the signal. Indices that h leaves in place join the sums. Of ``r^2`` products of
an untied layer ``2 r - 1`` are left (2 of 4 for a mirror), and the entries filled, and
summed again for the gradient, are one in r. Every group has an element of prime order, so this
serves where no larger abelian subgroup or coarse partition does; and the calls are few.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from numba import njit
from torch import Tensor

from fathometer.symmetry.action import Action, Element
from fathometer.symmetry.groups import ElementMixer
from fathometer.symmetry.kernels import DenseKernel, Kernel
from fathometer.symmetry.permutations import cycle_lengths, disjoint_union, power
from fathometer.symmetry.tying import Tying

PRIMES = (2, 3, 5, 7)
"""Orders that are looked for."""

RANDOM = 24
"""Random elements whose powers are tried."""


def prime_element(action: Action) -> tuple[Element, int] | None:
    """An element of small prime order that leaves the fewest products, and its order."""
    n, m = action.sizes
    generators = disjoint_union(action.generators)
    if not generators:
        return None
    mixer = ElementMixer(generators, n + m)
    best: tuple[float, np.ndarray, int] | None = None
    for g in [*generators, *(mixer.draw() for _ in range(RANDOM))]:
        order = math.lcm(*set(cycle_lengths(g)))
        for r in PRIMES:
            if order % r == 0:
                h = power(g, order // r)
                entries = products_left((h[:n], h[n:] - n), r)
                if best is None or entries < best[0]:
                    best = entries, h, r
    if best is None:
        return None
    h = best[1]
    return (h[:n], h[n:] - n), best[2]


def products_left(element: Element, r: int) -> int:
    """Multiplications for one pair of channels and one sample."""
    (c, f), (d, g) = (((len(p) - still) // r, still) for p, still in ((p, _still(p)) for p in element))
    return (c + f) * (d + g) + (c * d if r == 2 else 2 * (r - 1) * c * d)


def _still(p: np.ndarray) -> int:
    return int((p == np.arange(len(p))).sum())


class CyclesKernel(Kernel):
    """Sums and Fourier parts along the cycles of an element of prime order, two matrix products."""

    kind = "cycles"

    def __init__(self, tying: Tying, element: Element, r: int) -> None:
        super().__init__()
        self.sizes = tying.sizes
        self.dense = DenseKernel(tying)
        (cycles, still), (rows, fixed) = (_cycles(p, r) for p in element)
        self._inputs, self._outputs = (cycles, still), (rows, fixed)
        labels = np.where(tying.labels < 0, tying.num_orbits, tying.labels).astype(np.uint32)
        firsts = np.concatenate([rows[0], fixed])
        # by step u: the labels of each first output and the u-th point of each cycle of inputs
        self._moved = np.ascontiguousarray(labels[rows[0]][:, cycles].transpose(1, 0, 2))
        self._beside = np.ascontiguousarray(labels[firsts][:, still])
        self._below = np.ascontiguousarray(labels[np.ix_(fixed, cycles[0])])
        k, u = np.arange(1, r // 2 + 1)[:, None], np.arange(r)
        angle = 2 * np.pi * k * u / r
        self._waves = np.stack([np.cos(angle), np.sin(angle)])[: min(2, r - 1)]
        self._single = self._waves.astype(np.float32)

    def plain(self, weight: Tensor, x: Tensor) -> Tensor:
        """(batch, in_channels, N) to (batch, out_channels, M), by differentiable operations."""
        return self.dense.plain(weight, x)

    def applies(self, weight: Tensor, x: Tensor) -> bool:
        """Whether numpy can reach the memory."""
        return x.device.type == "cpu"

    def compute(self, weight: Tensor, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The outputs; kept are the parts of the signals and of the matrix."""
        sums, parts = self._split(x, self._inputs, wide=True)
        whole, waves = self._memory(weight)
        trig = self._trig(weight)
        _fill(weight.detach().numpy(), self._moved, self._beside, self._below,
              trig, whole.numpy(), waves.numpy())  # fmt: skip
        y = self._joined(
            sums.flatten(1) @ whole.flatten(2).flatten(0, 1).T,
            torch.bmm(parts.flatten(3).flatten(1, 2), waves.flatten(3).flatten(1, 2).mT),
            (len(x), len(weight), self.sizes[1]),
            self._outputs,
        )
        return y, (sums, parts, whole, waves)

    def gradients(
        self, gy: Tensor, weight: Tensor, x: Tensor, kept: tuple[Tensor, ...], needs: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """The transposed products."""
        sums, parts, whole, waves = kept
        G, H = self._split(gy, self._outputs, wide=False)
        G, H = G.flatten(1), H.flatten(3).flatten(1, 2)
        gw = gx = None
        if needs[1]:
            back = torch.bmm(H, waves.flatten(3).flatten(1, 2))
            gx = self._joined(G @ whole.flatten(2).flatten(0, 1), back, tuple(x.shape), self._inputs)
        if needs[0]:
            gw = torch.empty(weight.shape, dtype=weight.dtype)
            by_sums = (G.T @ sums.flatten(1)).view(whole.shape)
            by_waves = torch.bmm(H.mT, parts.flatten(3).flatten(1, 2)).view(waves.shape)
            _collect(gw.numpy(), self._moved, self._beside, self._below,
                     self._trig(weight), by_sums.numpy(), by_waves.numpy())  # fmt: skip
        return gw, gx

    def _trig(self, weight: Tensor) -> np.ndarray:
        return self._single if weight.dtype == torch.float32 else self._waves

    def _memory(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The matrix on sums (O, m, I, n) and those on waves (k, O, cycles, I, cosine or sine, cycles)."""
        out_channels, in_channels, _ = weight.shape
        _, rows, columns = self._moved.shape
        k = self._waves.shape[1]
        return (
            weight.new_empty(out_channels, len(self._beside), in_channels, columns + self._beside.shape[1]),
            weight.new_empty(k, out_channels, rows, in_channels, len(self._waves), columns),
        )

    def _split(self, x: Tensor, side: tuple[np.ndarray, np.ndarray], *, wide: bool) -> tuple[Tensor, Tensor]:
        cycles, still = side
        batch, channels, _ = x.shape
        parts, k = self._waves.shape[:2]
        sums = x.new_empty(batch, channels, cycles.shape[1] + len(still))
        shape = (k, parts, batch, channels, parts if wide else 1, cycles.shape[1])
        waves = x.new_empty(shape)
        _split(x.detach().reshape(batch * channels, -1).numpy(), cycles, still, self._trig(x),
               sums.numpy().reshape(batch * channels, -1),
               waves.numpy().reshape(k, parts, batch * channels, *shape[4:]))  # fmt: skip
        return sums, waves

    def _joined(
        self, sums: Tensor, waves: Tensor, shape: tuple[int, ...], side: tuple[np.ndarray, np.ndarray]
    ) -> Tensor:
        cycles, still = side
        batch, channels, _ = shape
        parts, k = self._waves.shape[:2]
        y = sums.new_empty(shape)
        J = batch * channels
        count = cycles.shape[1]
        width = waves.numel() // max(1, k * parts * J * count)
        _join(sums.numpy().reshape(J, -1), waves.numpy().reshape(k, parts, J, max(1, width), count),
              cycles, still, self._trig(y), y.numpy().reshape(J, -1))  # fmt: skip
        return y


def _cycles(p: np.ndarray, r: int) -> tuple[np.ndarray, np.ndarray]:
    """(r, cycles) the points of every cycle in their order, and the points that stay."""
    place = np.arange(len(p))
    orbit = np.stack(list(_powers(p, r)))
    first = place[(orbit.min(axis=0) == place) & (p != place)]
    return np.ascontiguousarray(orbit[:, first]).astype(np.uint32), place[p == place].astype(np.uint32)


def _powers(p: np.ndarray, r: int) -> Iterator[np.ndarray]:
    image = np.arange(len(p))
    for _ in range(r):
        yield image
        image = p[image]


@njit(cache=True, nogil=True)
def _split(  # noqa: C901 - one compiled nest of loops
    x: np.ndarray,
    cycles: np.ndarray,
    still: np.ndarray,
    trig: np.ndarray,
    sums: np.ndarray,
    waves: np.ndarray,
) -> None:
    """Sums (J, n) and cosine and sine parts (k, 2, J, width, c); in the second width: times i."""
    r, count = cycles.shape
    parts, frequencies, _ = trig.shape
    for j in range(x.shape[0]):
        for c in range(count):
            total = x[j, cycles[0, c]]
            for u in range(1, r):
                total += x[j, cycles[u, c]]
            sums[j, c] = total
        for c in range(len(still)):
            sums[j, count + c] = x[j, still[c]]
        for k in range(frequencies):
            for part in range(parts):
                for c in range(count):
                    total = trig[part, k, 0] * x[j, cycles[0, c]]
                    for u in range(1, r):
                        total += trig[part, k, u] * x[j, cycles[u, c]]
                    waves[k, part, j, 0, c] = total
            if waves.shape[3] == 2:
                for c in range(count):
                    waves[k, 0, j, 1, c] = waves[k, 1, j, 0, c]
                    waves[k, 1, j, 1, c] = -waves[k, 0, j, 0, c]


@njit(cache=True, nogil=True)
def _join(  # noqa: C901 - one compiled nest of loops
    sums: np.ndarray,
    waves: np.ndarray,
    cycles: np.ndarray,
    still: np.ndarray,
    trig: np.ndarray,
    y: np.ndarray,
) -> None:
    """The transpose of `_split`."""
    r, count = cycles.shape
    parts, frequencies, _ = trig.shape
    for j in range(y.shape[0]):
        if waves.shape[3] == 2:
            for k in range(frequencies):
                for c in range(count):
                    waves[k, 0, j, 0, c] -= waves[k, 1, j, 1, c]
                    waves[k, 1, j, 0, c] += waves[k, 0, j, 1, c]
        for u in range(r):
            for c in range(count):
                value = sums[j, c]
                for k in range(frequencies):
                    for part in range(parts):
                        value += trig[part, k, u] * waves[k, part, j, 0, c]
                y[j, cycles[u, c]] = value
        for c in range(len(still)):
            y[j, still[c]] = sums[j, count + c]


@njit(cache=True, nogil=True)
def _fill(  # noqa: C901 - one compiled nest of loops
    weight: np.ndarray,
    moved: np.ndarray,
    beside: np.ndarray,
    below: np.ndarray,
    trig: np.ndarray,
    whole: np.ndarray,
    waves: np.ndarray,
) -> None:
    """Sums of the weights along each cycle, and their cosine and sine parts."""
    r, rows, columns = moved.shape
    parts, frequencies, _ = trig.shape
    size = weight.shape[2]
    scaled = trig / weight.dtype.type(r / parts)
    share = weight.dtype.type(1 / r)
    entry = np.zeros(size + 1, weight.dtype)  # the last one is for no edge
    value = np.empty((r, columns), weight.dtype)
    for o in range(weight.shape[0]):
        for i in range(weight.shape[1]):
            entry[:size] = weight[o, i]
            for q in range(rows):
                for u in range(r):
                    for c in range(columns):
                        value[u, c] = entry[moved[u, q, c]]
                for c in range(columns):
                    total = value[0, c]
                    for u in range(1, r):
                        total += value[u, c]
                    whole[o, q, i, c] = share * total
                for k in range(frequencies):
                    for part in range(parts):
                        for c in range(columns):
                            total = scaled[part, k, 0] * value[0, c]
                            for u in range(1, r):
                                total += scaled[part, k, u] * value[u, c]
                            waves[k, o, q, i, part, c] = total
            for q in range(len(below)):
                for c in range(columns):
                    whole[o, rows + q, i, c] = entry[below[q, c]]
            for q in range(len(beside)):
                for c in range(beside.shape[1]):
                    whole[o, q, i, columns + c] = entry[beside[q, c]]


@njit(cache=True, nogil=True)
def _collect(  # noqa: C901 - one compiled nest of loops
    gradient: np.ndarray,
    moved: np.ndarray,
    beside: np.ndarray,
    below: np.ndarray,
    trig: np.ndarray,
    whole: np.ndarray,
    waves: np.ndarray,
) -> None:
    """The transpose of `_fill`."""
    r, rows, columns = moved.shape
    parts, frequencies, _ = trig.shape
    size = gradient.shape[2]
    scaled = trig / gradient.dtype.type(r / parts)
    share = gradient.dtype.type(1 / r)
    entry = np.empty(size + 1, gradient.dtype)
    for o in range(gradient.shape[0]):
        for i in range(gradient.shape[1]):
            entry[:] = 0
            for q in range(rows):
                for u in range(r):
                    for c in range(columns):
                        value = share * whole[o, q, i, c]
                        for k in range(frequencies):
                            for part in range(parts):
                                value += scaled[part, k, u] * waves[k, o, q, i, part, c]
                        entry[moved[u, q, c]] += value
            for q in range(len(below)):
                for c in range(columns):
                    entry[below[q, c]] += whole[o, rows + q, i, c]
            for q in range(len(beside)):
                for c in range(beside.shape[1]):
                    entry[beside[q, c]] += whole[o, q, i, columns + c]
            gradient[o, i] = entry[:size]
