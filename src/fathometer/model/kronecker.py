"""Kronecker factors of Gauss-Newton blocks, and how far they are from the blocks.

The block B of a layer is the sum over examples i and columns k of the loss's curvature of r r', for the
row r_ik = sum_l d_ikl a_il' of a linear layer or a convolution: l counts the positions where the kernel
acts, a is what it meets there (with a 1 for the bias), d what comes back. KFAC (Martens & Grosse
2015; for convolutions Grosse & Martens 2016) puts the product K = G x A in its place, A the mean
of a a' over examples and positions, G the sum of d d'. The distance of both needs |B|, |K| and
<B, K> only, and those are sums over examples and pairs of examples.

Everything streams: some examples at a time go through the network, and some rows of a layer at a time
are written down. What passes back is kept while it fits half the memory budget, else made again.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fathometer.model.factors import rooted, usable, watched
from fathometer.model.losses import length, rows_of
from fathometer.work import allowance

if TYPE_CHECKING:
    from fathometer.model.surface import LossSurface

EXAMPLES = 64
"""Examples that go through the network at a time."""
ROWS = 1 << 22
"""Numbers that the rows of one layer may take at a time."""


@dataclass(frozen=True, kw_only=True)
class KroneckerProducts:
    """Inner products of the block B of a layer and its Kronecker product K: |B|^2, |K|^2, <B, K>."""

    block: float
    product: float
    both: float


@dataclass(frozen=True, eq=False)
class _Part:
    """One layer, some examples: what came in (n, ...), what comes back (K, n, ...)."""

    layer: nn.Module
    x: Tensor
    back: Tensor
    weight: bool
    bias: bool

    @property
    def nbytes(self) -> int:
        return self.x.nbytes + self.back.nbytes

    def inputs(self, rows: slice) -> Tensor:
        """(n, L, in), with ones for the bias."""
        x, layer = self.x[rows], self.layer
        if isinstance(layer, nn.Conv2d):
            sizes = {"dilation": layer.dilation, "padding": layer.padding, "stride": layer.stride}
            a = F.unfold(x, layer.kernel_size, **sizes).mT  # type: ignore[arg-type]
        else:
            a = x.reshape(len(x), -1, x.shape[-1])
        a = a if self.weight else a[:, :, :0]
        return torch.cat([a, a.new_ones(*a.shape[:2], 1)], 2) if self.bias else a

    def slopes(self, rows: slice) -> Tensor:
        """(K, n, L, out)."""
        d = self.back[:, rows]
        if isinstance(self.layer, nn.Conv2d):
            return d.flatten(3).mT
        return d.reshape(*d.shape[:2], -1, d.shape[-1])

    def rows(self) -> Iterator[Tensor]:
        """All rows (r, out, in), some at a time."""
        at = slice(0, 1)
        size = self.slopes(at).shape[-1] * self.inputs(at).shape[-1]
        K, most = len(self.back), max(1, min(ROWS, allowance() // 32) // size)
        examples, columns = max(1, most // K), min(K, most)
        for first in range(0, len(self.x), examples):
            chosen = slice(first, first + examples)
            a, d = self.inputs(chosen), self.slopes(chosen)
            for column in range(0, K, columns):
                made = torch.einsum("knlo,nli->knoi", d[column : column + columns], a)
                yield made.flatten(0, 1)


def kronecker_products(surface: "LossSurface") -> dict[str, KroneckerProducts]:
    """The inner products that compare KFAC with the Gauss-Newton block of every layer, in float64.

    Linear layers (at any number of positions) and 2-D convolutions that are called once, without groups
    and padded with zeros; weight and bias are one block. Cost: the backward passes of the curvature's columns
    and one product of matrices for each pair of row blocks.

    Raises:
        InputError: If the loss has no outputs, or is not convex in them here.
        CapabilityError: If the outputs are not one tensor (N, C).
    """
    pieces = _Pieces(surface.double())
    sums: dict[str, list[Tensor]] = {}
    positions: dict[str, int] = {}
    for piece in range(len(pieces)):
        for name, part in pieces[piece].items():
            a, d = _of_all(part)
            found = [a.T @ a, d.T @ d]
            sums[name] = [s + f for s, f in zip(sums[name], found, strict=True)] if name in sums else found
            positions[name] = positions.get(name, 0) + len(a)
    products = {}
    for name, (a, G) in sums.items():
        A = a / positions[name]
        block = both = 0.0
        for i in range(len(pieces)):
            mine = pieces[i][name]
            for R in mine.rows():
                both += float(((G @ R @ A) * R).sum())
            for j in range(i + 1):
                block += (1.0 if i == j else 2.0) * _squares(mine, pieces[j][name])
        product = float(A.square().sum() * G.square().sum())
        products[name] = KroneckerProducts(block=block, product=product, both=both)
    return products


def _of_all(part: _Part) -> tuple[Tensor, Tensor]:
    """Inputs (n L, in) and slopes (K n L, out) of all examples of a part."""
    rows = slice(0, len(part.x))
    return part.inputs(rows).flatten(0, 1), part.slopes(rows).flatten(0, 2)


def _squares(mine: _Part, other: _Part) -> float:
    """Sum of the squared inner products of all rows of one part with all of the other."""
    a, b = (part.inputs(slice(0, len(part.x))) for part in (mine, other))
    if a.shape[1] == 1:  # outer products: no row is written down
        d, e = (part.back.reshape(*part.back.shape[:2], -1) for part in (mine, other))
        of_slopes = torch.einsum("knp,jmp->knjm", d, e).square().sum((0, 2))
        return float(((a[:, 0] @ b[:, 0].T).square() * of_slopes).sum())
    return sum(
        float((R.flatten(1) @ S.flatten(1).T).square().sum()) for R in mine.rows() for S in other.rows()
    )


class _Pieces:
    """Parts of all layers for some examples at a time, kept while they fit the budget."""

    def __init__(self, surface: "LossSurface") -> None:
        self._surface, self._kept, self._bytes = surface, dict[int, dict[str, _Part]](), 0
        batches = surface._problem.batches
        self._places = [
            (i, slice(at, at + EXAMPLES))
            for i in range(len(batches))
            for at in range(0, surface.chunk or length(batches[i]), EXAMPLES)
            if at < length(batches[i])
        ]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> dict[str, _Part]:
        if index in self._kept:
            return self._kept[index]
        batch, rows = self._places[index]
        parts = self._made(rows_of(self._surface._problem.batches[batch], rows))
        size = sum(part.nbytes for part in parts.values())
        if self._bytes + size <= allowance() // 2:
            self._kept[index] = parts
            self._bytes += size
        return parts

    def _made(self, batch: tuple[object, object]) -> dict[str, _Part]:
        problem = self._surface._problem
        seen: dict[str, list[tuple[Tensor, Tensor]]] = {}
        module = problem.replica.module
        with problem.replica.running():
            with watched(module, seen, (nn.Linear, nn.Conv2d)):
                outputs, roots = rooted(self._surface, problem.leaves(self._surface.theta), batch)
            layers = {
                name: pair
                for name, pair in usable(module, self._surface.names, seen).items()
                if _factors(module.get_submodule(name))
            }
            targets = [seen[name][0][1] for name in layers]
            backs = [
                torch.autograd.grad(outputs, targets, root, retain_graph=True, materialize_grads=True)
                for root in (roots if targets else ())
            ]
        return {
            name: _Part(
                module.get_submodule(name),
                seen[name][0][0].detach(),
                torch.stack([back[place].detach() for back in backs]),
                weight is not None,
                bias is not None,
            )
            for place, (name, (weight, bias)) in enumerate(layers.items())
        }


def _factors(layer: nn.Module) -> bool:
    if not isinstance(layer, nn.Conv2d):
        return True
    return layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
