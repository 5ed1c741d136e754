"""A tied layer by pooling, small products, and broadcasting.

Partitions of inputs and outputs that the group permutes give coarse layers: sum the inputs
over blocks, mix channels once for every block of outputs, copy to the outputs. Each is a
sum of orbit indicators, so a basis of all K weights can be made of them; the cheapest
is found by the greedy algorithm of matroids (sort by cost, keep what is independent). It
finds the layer of Deep Sets, the 15 operations on pairs in O(n^2), and hierarchies by
itself. With single outputs as blocks and orbits as terms it is im2col.

Three kernels a call: one sparse product that pools for all terms, one small matrix
product a partition of the outputs, one sparse product that broadcasts.
"""

import itertools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fathometer.symmetry.action import Action
from fathometer.symmetry.kernels import Kernel
from fathometer.symmetry.orbits import pair_orbits
from fathometer.symmetry.permutations import Permutation, find_root
from fathometer.symmetry.strided import StridedTerms, View, views_of
from fathometer.symmetry.tying import Tying

PARTITIONS = 24
"""Most invariant partitions of one side that are combined."""

_NONE = np.empty(0, dtype=np.int64)

LARGEST_BASIS = 64
"""Most weights for which a basis of coarse layers is looked for."""


@dataclass(frozen=True)
class Term:
    """One 0/1 matrix of the basis.

    Attributes:
        blocks: (M,) the block of every output.
        sources: For every block, the inputs that are summed for it.
        orbits: (K,) which orbits it is the sum of.
    """

    blocks: np.ndarray
    sources: tuple[np.ndarray, ...]
    orbits: np.ndarray

    @property
    def cost(self) -> tuple[int, int]:
        """Products with a channel matrix, then additions."""
        return len(self.sources), sum(map(len, self.sources))

    @cached_property
    def views(self) -> tuple[View, View] | None:
        """Where it takes and where it puts, if both lie regularly."""
        return views_of(self)


def orbit_terms(tying: Tying) -> list[Term]:
    """One term for each orbit, with single outputs as blocks: the orbit sums themselves."""
    m = tying.sizes[1]
    identity = np.eye(tying.num_orbits, dtype=np.int64)
    terms = []
    for k in range(tying.num_orbits):
        sources = tuple(np.flatnonzero(row == k) for row in tying.labels)
        terms.append(Term(np.arange(m), sources, identity[k]))
    return terms


def block_terms(tying: Tying, action: Action) -> list[Term]:
    """The cheapest basis among coarse layers and orbit sums, by the greedy algorithm."""
    candidates = _coarse_terms(tying, action) + orbit_terms(tying)
    candidates.sort(key=_effort)
    basis: list[Term] = []
    reduced = np.zeros((0, tying.num_orbits))
    for term in candidates:
        rest = term.orbits - reduced.T @ (reduced @ term.orbits)
        rest -= reduced.T @ (reduced @ rest)
        size = np.linalg.norm(rest)
        if size > 1e-9 * np.linalg.norm(term.orbits):
            reduced = np.vstack([reduced, rest / size])
            basis.append(term)
            if len(basis) == tying.num_orbits:
                break
    return basis


def _effort(term: Term) -> tuple[float, int]:
    """Its products, three times where scattered, fewer where they are the outputs as they stand."""
    if term.views is None:
        return 3.0 * term.cost[0], term.cost[1]
    whole = term.views[1].covers(len(term.blocks))
    return (0.8 if whole else 1.0) * term.cost[0], term.cost[1]


def terms_cost(terms: Sequence[Term], outputs: int, in_channels: int, out_channels: int) -> float:
    """Multiplications a sample in units of a matrix product's; memory traffic counted as 6 of them."""
    mixed = sum(term.cost[0] for term in terms)
    added = sum(term.cost[1] for term in terms)
    partitions = len({term.blocks.tobytes() for term in terms})
    traffic = (added + 3 * mixed) * in_channels + (partitions + 2) * outputs * out_channels
    return mixed * in_channels * out_channels + 6.0 * traffic


def invariant_partitions(permutations: Sequence[Permutation], size: int) -> list[np.ndarray]:
    """Partitions that the group permutes: the finest, those that join one pair, and their joins."""
    found: dict[bytes, np.ndarray] = {}

    def add(labels: np.ndarray) -> None:
        if len(found) < PARTITIONS:
            found.setdefault(labels.tobytes(), labels)

    add(np.arange(size))
    add(np.zeros(size, dtype=np.int64))
    labels = pair_orbits(permutations, permutations, (size, size))
    firsts = np.unique(labels, return_index=True)[1]
    seeds = [divmod(int(i), size) for i in firsts]
    for x, y in seeds[:LARGEST_BASIS]:
        add(_congruence(permutations, size, [(x, y)]))
    single = list(found.values())
    for a in single:
        for b in single:
            pairs = [(int(i), int(np.flatnonzero(p == p[i])[0])) for p in (a, b) for i in range(size)]
            add(_congruence(permutations, size, pairs))
    return list(found.values())


class BlockKernel(Kernel):
    """Pool, mix, broadcast, by a list of terms that is a basis of the weights.

    By strided views where all blocks lie regularly, else by sparse products.
    """

    kind = "blocks"
    change: Tensor

    def __init__(self, tying: Tying, terms: Sequence[Term], kind: str = "blocks") -> None:
        super().__init__()
        self.kind = kind
        self.sizes = tying.sizes
        groups: dict[bytes, list[Term]] = {}
        for term in terms:
            groups.setdefault(term.blocks.tobytes(), []).append(term)
        ordered = [term for group in groups.values() for term in group]
        # orbit weights are sums of term weights; their inverse gives the term weights
        matrix = np.stack([term.orbits for term in ordered]).astype(np.float64)
        change = torch.from_numpy(np.linalg.inv(matrix))
        self.register_buffer("change", change, persistent=False)
        self.groups = [(len(group), len(group[0].sources)) for group in groups.values()]
        rows = [
            group[t].sources[b]
            for group in groups.values()
            for b in range(len(group[0].sources))
            for t in range(len(group))
        ]
        self.pool = SparseSum(rows, self.sizes[0])
        starts = np.cumsum([0, *(count for _, count in self.groups)])
        columns = [start + group[0].blocks for start, group in zip(starts, groups.values(), strict=False)]
        self.broadcast = SparseSum(list(np.stack(columns, axis=1)), int(starts[-1]))
        self.strided = StridedTerms.found(ordered, self.sizes)

    def applies(self, weight: Tensor, x: Tensor) -> bool:
        """Whether views do it."""
        return self.strided is not None

    def compute(self, weight: Tensor, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The outputs, and the coefficients and pooled signals."""
        coefficients = (weight @ self.change.to(weight.dtype)).permute(2, 0, 1).contiguous()
        strided: Any = self.strided
        y, pooled = strided.compute(coefficients, x.contiguous(), self.sizes[1])
        return y, (coefficients, *pooled)

    def gradients(
        self, gy: Tensor, weight: Tensor, x: Tensor, kept: tuple[Tensor, ...], needs: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Pools and broadcasts change places."""
        strided: Any = self.strided
        found, gx = strided.gradients(gy.contiguous(), kept[0], x.contiguous(), kept[1:], needs)
        if found is not None:
            found = found.permute(1, 2, 0) @ self.change.to(weight.dtype).T
        return found, gx

    def plain(self, weight: Tensor, x: Tensor) -> Tensor:
        """(batch, in_channels, N) to (batch, out_channels, M), by differentiable operations."""
        dtype = x.dtype
        if dtype in (torch.float16, torch.bfloat16):
            weight, x = weight.float(), x.float()
        batch, in_channels, n = x.shape
        out_channels = weight.shape[0]
        coefficients = weight @ self.change.to(weight.dtype)
        pooled = self.pool(x.permute(2, 0, 1).reshape(n, batch * in_channels))
        mixed = []
        parts = pooled.split([terms * blocks for terms, blocks in self.groups])
        matrices = coefficients.split([terms for terms, _ in self.groups], dim=2)
        for (terms, blocks), part, W in zip(self.groups, parts, matrices, strict=True):
            rows = part.reshape(blocks, terms, batch, in_channels).transpose(1, 2)
            W = W.permute(2, 1, 0).reshape(terms * in_channels, out_channels)
            mixed.append((rows.reshape(blocks * batch, -1) @ W).reshape(blocks, -1))
        y = self.broadcast(torch.cat(mixed))
        return y.reshape(self.sizes[1], batch, out_channels).permute(1, 2, 0).to(dtype)


class SparseSum(nn.Module):
    """Sums of rows: output i is the sum of the input rows listed in ``rows[i]``."""

    starts: Tensor
    columns: Tensor
    owners: Tensor
    back_starts: Tensor
    back_columns: Tensor

    def __init__(self, rows: Sequence[np.ndarray], width: int) -> None:
        super().__init__()
        self.shape = len(rows), width
        counts = np.array([len(r) for r in rows])
        columns = np.concatenate([np.sort(r) for r in rows]).astype(np.int64)
        owners = np.repeat(np.arange(len(rows)), counts)
        order = np.argsort(columns, kind="stable")
        back = np.bincount(columns, minlength=width)
        for name, array in (
            ("starts", np.concatenate([[0], np.cumsum(counts)])),
            ("columns", columns),
            ("owners", owners),
            ("back_starts", np.concatenate([[0], np.cumsum(back)])),
            ("back_columns", owners[order]),
        ):
            self.register_buffer(name, torch.from_numpy(array.astype(np.int64)), persistent=False)
        with warnings.catch_warnings():
            # torch says once that its CSR layout is in beta
            warnings.simplefilter("ignore", UserWarning)
            torch.sparse_csr_tensor(torch.tensor([0, 1]), torch.tensor([0]), torch.ones(1), (1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(width, columns) to (rows, columns)."""
        if x.dtype in (torch.float16, torch.bfloat16):  # also what autocast makes on the way
            return self.forward(x.float()).to(x.dtype)
        if torch.compiler.is_compiling():
            # graphs have no sparse tensors
            return x.new_zeros(self.shape[0], x.shape[1]).index_add(0, self.owners, x[self.columns])
        forward = self.starts, self.columns, self.shape
        backward = self.back_starts, self.back_columns, self.shape[::-1]
        return _SparseProduct.apply(x, forward, backward)  # type: ignore[return-value]


class _SparseProduct(torch.autograd.Function):
    """A 0/1 matrix times a block of columns: linear, so it is its own forward derivative.

    Its backward derivative is the transpose, to any order; a batch of blocks is a wider block.
    """

    @staticmethod
    def forward(x: Tensor, there: Any, back: Any) -> Tensor:
        starts, columns, shape = there
        ones = torch.ones(len(columns), dtype=x.dtype, device=x.device)
        matrix = torch.sparse_csr_tensor(starts, columns, ones, shape, check_invariants=False)
        with torch.autocast(x.device.type, enabled=False):
            return matrix @ x

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        _, ctx.there, ctx.back = inputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return _SparseProduct.apply(gradients[0].contiguous(), ctx.back, ctx.there), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return _SparseProduct.apply(tangents[0], ctx.there, ctx.back)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *arguments: Any) -> Any:
        x, there, back = arguments
        wide = x.movedim(in_dims[0], 1)
        y: Any = _SparseProduct.apply(wide.reshape(len(wide), -1), there, back)
        return y.reshape(len(y), *wide.shape[1:]), 1


def _coarse_terms(tying: Tying, action: Action) -> list[Term]:
    labels = tying.labels
    firsts = np.unique(labels, return_index=True)[1]
    rows, columns = np.divmod(firsts, labels.shape[1])
    inputs = [(p, _members(p)) for p in invariant_partitions(action.inputs, action.sizes.inputs)]
    outputs = invariant_partitions(action.outputs, action.sizes.outputs)
    terms = []
    for gamma in outputs:
        on_outputs = _on_blocks(action.outputs, gamma)
        count = int(gamma.max()) + 1
        for beta, members in inputs:
            on_inputs = _on_blocks(action.inputs, beta)
            coarse = pair_orbits(on_inputs, on_outputs, (len(members), count))
            kind = coarse[gamma[rows], beta[columns]]
            partial: list[Term] = []
            for c in range(int(coarse.max()) + 1):
                hit = coarse == c
                # at most one block of inputs for each of outputs; more would be a coarser partition
                if int(hit.sum(axis=1).max()) != 1:
                    continue
                used = hit.any(axis=1)
                sources = tuple(
                    members[j] if u else _NONE for j, u in zip(hit.argmax(axis=1), used, strict=True)
                )
                partial.append(Term(gamma, sources, (kind == c).astype(np.int64)))
            terms += partial + _completed(partial)
    return terms


def _completed(partial: Sequence[Term]) -> list[Term]:
    """Two terms that use complementary blocks as one: the diagonal and the rest are the identity."""
    used = [np.array([len(s) > 0 for s in term.sources]) for term in partial]
    return [
        Term(
            a.blocks,
            tuple(p if len(p) else q for p, q in zip(a.sources, b.sources, strict=True)),
            a.orbits + b.orbits,
        )
        for (a, by_a), (b, by_b) in itertools.combinations(zip(partial, used, strict=True), 2)
        if (by_a ^ by_b).all()
    ]


def _members(labels: np.ndarray) -> list[np.ndarray]:
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)


def _on_blocks(permutations: Sequence[Permutation], labels: np.ndarray) -> list[Permutation]:
    first = np.unique(labels, return_index=True)[1]
    return [labels[p[first]] for p in permutations]


def _congruence(
    permutations: Sequence[Permutation], size: int, pairs: Sequence[tuple[int, int]]
) -> np.ndarray:
    """The finest invariant partition in which these pairs share a block, numbered by first point."""
    parent = np.arange(size)
    waiting = list(pairs)
    while waiting:
        x, y = waiting.pop()
        a, b = find_root(parent, x), find_root(parent, y)
        if a != b:
            parent[max(a, b)] = min(a, b)
            waiting.extend((int(p[x]), int(p[y])) for p in permutations)
    roots = np.array([find_root(parent, i) for i in range(size)])
    return np.unique(roots, return_inverse=True)[1].astype(np.int64)
