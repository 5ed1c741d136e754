"""Ways to compute a tied layer: what they share, and the plain one, which expands the weight matrix.

A kernel is a module without parameters: ``kernel(weight, x)`` maps orbit weights
(out_channels, in_channels, K) and signals (batch, in_channels, N) to
(batch, out_channels, M). All kernels compute the same function up to rounding.
"""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor, nn

from fathometer.symmetry.tying import Tying

PANEL = 1 << 19
"""Bytes of the piece of the matrix that is expanded at a time: it stays in the second cache."""

AT_ONCE = 1 << 17
"""Entries of a matrix that is filled as a whole and kept for the gradient."""


class Kernel(nn.Module, ABC):
    """One way to compute a tied layer.

    `plain` is made of differentiable operations and serves every transform. `compute` and
    `gradients` are the same by hand, where automatic differentiation is slow; they are used for
    ordinary training and evaluation in single or double precision.
    """

    kind = "kernel"

    @abstractmethod
    def plain(self, weight: Tensor, x: Tensor) -> Tensor:
        """(batch, in_channels, N) to (batch, out_channels, M), by differentiable operations."""

    @abstractmethod
    def compute(self, weight: Tensor, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The outputs, and what the gradients can use again."""

    @abstractmethod
    def gradients(
        self, gy: Tensor, weight: Tensor, x: Tensor, kept: tuple[Tensor, ...], needs: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Gradients of the weights and of the signals, those that are needed."""

    def applies(self, weight: Tensor, x: Tensor) -> bool:
        """Whether `compute` is the faster way for these tensors."""
        return True

    def infer(self, weight: Tensor, x: Tensor) -> Tensor:
        """The outputs where no gradient is asked for."""
        return self.compute(weight, x)[0]

    def forward(self, weight: Tensor, x: Tensor) -> Tensor:
        """(batch, in_channels, N) to (batch, out_channels, M)."""
        if not (_is_ordinary(weight, x) and self.applies(weight, x)):
            return self.plain(weight, x)
        if torch.is_grad_enabled() and (weight.requires_grad or x.requires_grad):
            return _ByHand.apply(weight, x, self)  # type: ignore[return-value]
        return self.infer(weight, x)


class _ByHand(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, x: Tensor, kernel: Kernel) -> Tensor:
        y, kept = kernel.compute(weight, x)
        ctx.kernel = kernel
        ctx.save_for_backward(weight, x, *kept)
        ctx.save_for_forward(weight, x)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        weight, x, *kept = ctx.saved_tensors
        needs = ctx.needs_input_grad[:2]
        if not torch.is_grad_enabled():
            return (*ctx.kernel.gradients(gradients[0], weight, x, tuple(kept), needs), None)
        # a gradient that is differentiated again is made of differentiable operations
        sources = [tensor for tensor, need in zip((weight, x), needs, strict=True) if need]
        y = ctx.kernel.plain(weight, x)
        found = iter(torch.autograd.grad(y, sources, gradients[0], create_graph=True))
        return (*(next(found) if need else None for need in needs), None)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        weight, x = ctx.saved_tensors
        by_weight, by_x, _ = tangents
        parts = []
        if by_weight is not None:
            parts.append(ctx.kernel.plain(by_weight, x))
        if by_x is not None:
            parts.append(ctx.kernel.plain(weight, by_x))
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]


def _is_ordinary(weight: Tensor, x: Tensor) -> bool:
    """Whether plain eager tensors of one precision meet, under no transform."""
    # torch has no public question for "is a functorch transform active"
    transformed = getattr(torch._C, "_are_functorch_transforms_active", lambda: True)
    return (
        (dtype := x.dtype) is weight.dtype
        and (dtype is torch.float32 or dtype is torch.float64)
        and (device := x.device) == weight.device
        and device.type != "meta"
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled(device.type)
        and not transformed()
    )


class DenseKernel(Kernel):
    """Gather the orbit weights into the matrix, then one matrix product.

    Exactly equivariant before rounding of the product: equal weights are the same bits.
    Costs ``N M in_channels out_channels`` multiplications a sample, as an untied layer. The
    matrix is expanded panel by panel in cache and its gradient summed at once by orbits, so
    training never holds it (a small matrix is filled as a whole: there the calls are what costs);
    without gradients it is kept until the weights change (unless they are so many that looking
    for a change costs more than the panels).
    """

    kind = "dense"
    labels: Tensor

    def __init__(self, tying: Tying) -> None:
        super().__init__()
        self.sizes = tying.sizes
        k = tying.num_orbits
        # columns first: whole rows of output channels are copied, and no transpose is needed
        labels = tying.labels.T.astype("int64")
        blank = labels < 0
        self.padded, self.signed = bool(blank.any()), tying.signs is not None
        if tying.signs is not None:
            labels = labels + k * (tying.signs.T < 0)
        labels = np.where(blank, 2 * k if self.signed else k, labels)
        self.register_buffer("labels", torch.from_numpy(labels.reshape(-1)), persistent=False)
        # unsigned: compiled loops need no test for negative indices
        self._table = np.ascontiguousarray(labels.T, dtype=np.uint32)
        self._panels: dict[int, list[tuple[int, np.ndarray]]] = {}
        self._whole: tuple[Tensor, Tensor] | None = None

    def values(self, weight: Tensor) -> Tensor:
        """The entries that labels point at, (in_channels, K or more, out_channels)."""
        entries = weight.permute(1, 2, 0)
        if self.signed:
            entries = torch.cat([entries, -entries], dim=1)
        if self.padded:
            entries = torch.cat([entries, torch.zeros_like(entries[:, :1])], dim=1)
        return entries.contiguous()

    def columns(self, weight: Tensor) -> Tensor:
        """The transposed matrix (in_channels, N, M, out_channels)."""
        n, m = self.sizes
        entries = self.values(weight).index_select(1, self.labels)
        return entries.reshape(len(entries), n, m, weight.shape[0])

    def matrix(self, weight: Tensor) -> Tensor:
        """The whole matrix (out_channels * M, in_channels * N)."""
        n, m = self.sizes
        out_channels, in_channels, _ = weight.shape
        return self.columns(weight).permute(3, 2, 0, 1).reshape(out_channels * m, in_channels * n)

    def plain(self, weight: Tensor, x: Tensor) -> Tensor:
        """(batch, in_channels, N) to (batch, out_channels, M), by differentiable operations."""
        return self._product(self.columns(weight), x)

    def _product(self, columns: Tensor, x: Tensor) -> Tensor:
        in_channels, n, m, out_channels = columns.shape
        y = x.reshape(len(x), in_channels * n) @ columns.reshape(in_channels * n, m * out_channels)
        return y.reshape(len(x), m, out_channels).transpose(1, 2)

    def applies(self, weight: Tensor, x: Tensor) -> bool:
        """Whether numpy can reach the memory."""
        return x.is_cpu

    def infer(self, weight: Tensor, x: Tensor) -> Tensor:
        """The product with the matrix made at the last change of the weights."""
        if 8 * weight.shape[2] > len(self.labels):
            return self.compute(weight, x)[0]
        kept = self._whole
        # compared by value: no in-place change can go unnoticed
        if kept is None or kept[0].shape != weight.shape or not torch.equal(kept[0], weight):
            kept = self._whole = weight.detach().clone(), self.columns(weight.detach())
        return self._product(kept[1], x)

    def compute(self, weight: Tensor, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The outputs, panel by panel."""
        (n, m), (out_channels, in_channels, _) = self.sizes, weight.shape
        if out_channels * in_channels * n * m <= AT_ONCE:
            matrix = weight.new_empty(out_channels * m, in_channels * n)
            blocks = matrix.numpy().reshape(out_channels, m, in_channels, n)
            _fill(self._extended(weight.detach()).numpy(), self._table, blocks)
            signals = x.reshape(-1, in_channels * n)
            return torch.mm(signals, matrix.t()).view(-1, out_channels, m), (signals, matrix)
        signals = x.reshape(len(x), in_channels * n)
        values = self.values(weight)
        y = x.new_empty(len(x), m * out_channels)
        for here, panel, _ in self._walk(values, expand=True):
            torch.mm(signals, panel, out=y[:, here])
        return y.reshape(len(x), m, out_channels).transpose(1, 2), (values,)

    def gradients(
        self, gy: Tensor, weight: Tensor, x: Tensor, kept: tuple[Tensor, ...], needs: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Each panel of the matrix's gradient is summed by orbits as soon as it is made."""
        if len(kept) == 2:
            return self._gradients_at_once(gy, weight, x, kept, needs)
        (n, m), (out_channels, in_channels, k) = self.sizes, weight.shape
        flat = gy.transpose(1, 2).reshape(len(x), m * out_channels)
        signals = x.reshape(len(x), in_channels * n)
        (values,) = kept
        sums = torch.zeros_like(values)
        gx = torch.zeros_like(signals)
        transposed = signals.T.contiguous()
        for here, panel, labels in self._walk(values, expand=needs[1]):
            if needs[1]:
                gx.addmm_(flat[:, here], panel.T)
            if needs[0]:
                torch.mm(transposed, flat[:, here], out=panel)
                add_by_label(panel, labels, sums)
        gw = sums[:, :k] - sums[:, k : 2 * k] if self.signed else sums[:, :k]
        return gw.permute(2, 0, 1) if needs[0] else None, gx.reshape(x.shape) if needs[1] else None

    def _extended(self, weight: Tensor) -> Tensor:
        """Weights (out_channels, in_channels, K or more): with the negative ones, and zero for no edge."""
        if self.signed:
            weight = torch.cat([weight, -weight], dim=2)
        return torch.nn.functional.pad(weight, (0, 1)) if self.padded else weight

    def _gradients_at_once(
        self, gy: Tensor, weight: Tensor, x: Tensor, kept: tuple[Tensor, ...], needs: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        (signals, matrix), (n, m), (out_channels, in_channels, k) = kept, self.sizes, weight.shape
        flat = gy.reshape(-1, out_channels * m)
        gx = torch.mm(flat, matrix).view(x.shape) if needs[1] else None
        if not needs[0]:
            return None, gx
        found = torch.mm(flat.t(), signals).numpy().reshape(out_channels, m, in_channels, n)
        gw = weight.new_empty(out_channels, in_channels, k * (1 + self.signed) + self.padded)
        _collect(found, self._table, gw.numpy())
        if self.signed:
            gw = gw[..., :k] - gw[..., k : 2 * k]
        return gw[..., :k] if self.padded else gw, gx

    def _walk(self, values: Tensor, *, expand: bool) -> Any:
        """Columns, the panel of the matrix there (one memory for all), and its labels."""
        n, m = self.sizes
        in_channels, _, out_channels = values.shape
        width = min(m, max(1, PANEL // (in_channels * n * out_channels * values.element_size())))
        memory = values.new_empty(in_channels * n * width * out_channels)
        for start, labels in self._labels_of(width):
            count = len(labels) // n
            panel = memory[: in_channels * n * count * out_channels]
            if expand:
                take_rows(values, labels, panel)
            here = slice(start * out_channels, (start + count) * out_channels)
            yield here, panel.reshape(in_channels * n, count * out_channels), labels

    def _labels_of(self, width: int) -> list[tuple[int, np.ndarray]]:
        if width not in self._panels:
            n, m = self.sizes
            table = self.labels.numpy().reshape(n, m)
            starts = range(0, m, width)
            self._panels = {width: [(s, table[:, s : s + width].reshape(-1)) for s in starts]}
        return self._panels[width]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_panels": {}, "_whole": None}


def take_rows(values: Tensor, labels: np.ndarray, panel: Tensor) -> None:
    """Fill a panel with the rows of values (in_channels, K, out_channels) that labels name."""
    rows = panel.numpy().reshape(len(values), len(labels), values.shape[2])
    for source, target in zip(values.detach().numpy(), rows, strict=True):
        # any other mode than clip copies by way of a second memory
        np.take(source, labels, axis=0, out=target, mode="clip")


def add_by_label(panel: Tensor, labels: np.ndarray, sums: Tensor) -> None:
    """Add the rows of a panel to the rows of sums (in_channels, K, out_channels) that labels name."""
    _add_by_label(panel.numpy().reshape(len(sums), len(labels), sums.shape[2]), labels, sums.numpy())


@njit(cache=True, nogil=True)
def _add_by_label(rows: np.ndarray, labels: np.ndarray, sums: np.ndarray) -> None:
    for c in range(rows.shape[0]):
        for i in range(len(labels)):
            k = labels[i]
            for o in range(rows.shape[2]):
                sums[c, k, o] += rows[c, i, o]


@njit(cache=True, nogil=True)
def _fill(weight: np.ndarray, labels: np.ndarray, blocks: np.ndarray) -> None:
    for o in range(blocks.shape[0]):
        for i in range(blocks.shape[2]):
            for m in range(blocks.shape[1]):
                for n in range(blocks.shape[3]):
                    blocks[o, m, i, n] = weight[o, i, labels[m, n]]


@njit(cache=True, nogil=True)
def _collect(blocks: np.ndarray, labels: np.ndarray, sums: np.ndarray) -> None:
    out_channels, rows, in_channels, columns = blocks.shape
    total = np.empty((sums.shape[2], in_channels), sums.dtype)
    for o in range(out_channels):
        total[:] = 0
        for m in range(rows):
            for n in range(columns):
                k = labels[m, n]
                # channels innermost: where a label repeats, one sum does not wait for the last
                for i in range(in_channels):
                    total[k, i] += blocks[o, m, i, n]
        sums[o] = total.T
