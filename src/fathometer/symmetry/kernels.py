"""Ways to compute a tied layer: the plain one, which expands the weight matrix.

A kernel is a module without parameters: ``kernel(weight, x)`` maps orbit weights
(out_channels, in_channels, K) and signals (batch, in_channels, N) to
(batch, out_channels, M). All kernels compute the same function up to rounding.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from fathometer.symmetry.tying import Tying


class DenseKernel(nn.Module):
    """Gather the orbit weights into the whole matrix, then one matrix product.

    Exactly equivariant before rounding of the product: equal weights are the same bits.
    Costs ``N M in_channels out_channels`` multiplications a sample.
    """

    kind = "dense"
    labels: Tensor
    signs: Tensor | None

    def __init__(self, tying: Tying) -> None:
        super().__init__()
        self.sizes = tying.sizes
        # columns first: whole rows of output channels are copied, and no transpose is needed
        labels = torch.from_numpy(tying.labels.T.astype("int64")).flatten()
        blank = labels < 0
        self.padded = bool(blank.any())
        labels = torch.where(blank, tying.num_orbits, labels)
        self.register_buffer("labels", labels, persistent=False)
        signs = None if tying.signs is None else torch.from_numpy(tying.signs.T.reshape(-1, 1))
        self.register_buffer("signs", signs, persistent=False)

    def columns(self, weight: Tensor) -> Tensor:
        """The transposed matrix (in_channels, N, M, out_channels)."""
        n, m = self.sizes
        out_channels, in_channels, _ = weight.shape
        values = (pad(weight, (0, 1)) if self.padded else weight).permute(1, 2, 0).contiguous()
        entries = values.index_select(1, self.labels)
        if self.signs is not None:
            entries = entries * self.signs.to(entries.dtype)
        return entries.reshape(in_channels, n, m, out_channels)

    def matrix(self, weight: Tensor) -> Tensor:
        """The whole matrix (out_channels * M, in_channels * N)."""
        n, m = self.sizes
        out_channels, in_channels, _ = weight.shape
        return self.columns(weight).permute(3, 2, 0, 1).reshape(out_channels * m, in_channels * n)

    def forward(self, weight: Tensor, x: Tensor) -> Tensor:
        """(batch, in_channels, N) to (batch, out_channels, M)."""
        n, m = self.sizes
        out_channels, in_channels, _ = weight.shape
        W = self.columns(weight).reshape(in_channels * n, m * out_channels)
        y = x.reshape(len(x), in_channels * n) @ W
        return y.reshape(len(x), m, out_channels).transpose(1, 2)
