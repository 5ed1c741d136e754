"""Invertible matrices between the two halves of an attention head: what a softmax cannot see.

Queries and keys of a head meet in ``q k'``, so ``q A`` and ``k A^-T`` give the same scores for any
invertible A; values and the columns of the output projection that read them likewise (da Silva, Dangel &
Oore 2025). The pairs are found in the graph of the network: the rows of the two projections are followed
through operations that only move numbers, and must arrive at one attention and nowhere else. With grouped
queries one A acts for all heads that share a key. Where something else acts on the way (a rotation of
positions, a norm of the queries) there is no pair, and `Heads.untreated` names the attention.
"""

import copy
import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fathometer.errors import InputError
from fathometer.model.tracing import TracedGraph, as_arguments, trace_graph
from fathometer.sharpness.rescalings import check_same_function
from fathometer.sharpness.rules import operation_name
from fathometer.work import numpy_generator

_MOVES = (
    "view _unsafe_view reshape permute transpose t squeeze unsqueeze expand select slice split "
    "split_with_sizes chunk unbind flatten unflatten movedim contiguous clone alias detach "
    "repeat_interleave dropout"
)
MOVES = frozenset(_MOVES.split())
SCORES = frozenset(["mul", "div", "masked_fill", "add", "softmax", "_softmax", "dropout", "where"])


@dataclass(frozen=True)
class Side:
    """One half of a pair: vectors of a head as rows or columns of a weight.

    Attributes:
        weight: Name of the weight.
        bias: Name of its bias, "" if there is none (always for columns).
        axis: 0 if the entries are rows of the weight, 1 if they are columns.
        entries: (d,) positions along the axis, in the order of the head.
    """

    weight: str
    bias: str
    axis: int
    entries: tuple[int, ...]


@dataclass(frozen=True)
class Pair:
    """Two sides that meet in one product: ``left A`` and ``right A^-T`` give the same.

    Attributes:
        kind: "query-key" or "value-output".
        left, right: Sides; several where heads are grouped.
    """

    kind: str
    left: tuple[Side, ...]
    right: tuple[Side, ...]

    @property
    def size(self) -> int:
        """d, the size of A."""
        return len(self.left[0].entries)


@dataclass(frozen=True, eq=False)
class Heads:
    """All pairs of one network.

    Attributes:
        pairs: The pairs.
        untreated: Operation -> why no pair was made of what meets there.
        model: The network.
        example_inputs: Arguments of it.
    """

    pairs: tuple[Pair, ...]
    untreated: dict[str, str]
    model: nn.Module
    example_inputs: tuple[Any, ...]

    @property
    def dimension(self) -> int:
        """Sum of d^2 over the pairs; rescalings of heads are among them."""
        return sum(pair.size**2 for pair in self.pairs)

    def move(
        self, matrices: list[Tensor] | None = None, *, seed: int | None = None, condition: float = 10.0
    ) -> nn.Module:
        """A copy of the network with an invertible matrix at every pair.

        Args:
            matrices: One (d, d) matrix for each pair.
            seed: Draw them instead: random rotations around singular values spread evenly in logarithm.
            condition: Condition number of drawn matrices, at least 1.

        Raises:
            InputError: If neither or both of matrices and seed are given, a matrix has the wrong shape or is
                singular, or there is no pair.
            CapabilityError: If the outputs on the example inputs changed beyond rounding.
        """
        if not self.pairs:
            raise InputError("the network has no pair of projections that meet in an attention.")
        if (matrices is None) == (seed is None):
            raise InputError("pass either matrices, one for each pair, or seed.")
        if matrices is None:
            matrices = self._drawn(condition, seed or 0)
        moved = copy.deepcopy(self.model)
        for i, (pair, A) in enumerate(zip(self.pairs, matrices, strict=True)):
            if tuple(A.shape) != (pair.size, pair.size) or not float(torch.linalg.det(A.double()).abs()) > 0:
                raise InputError(
                    f"matrices[{i}] has shape {tuple(A.shape)}; an invertible ({pair.size}, {pair.size}) "
                    "matrix is needed."
                )
            inverse = torch.linalg.inv(A.double())
            for side in pair.left:
                transform(moved, side, A.double())
            for side in pair.right:
                transform(moved, side, inverse.T)
        check_same_function(self.model, moved, self.example_inputs)
        return moved

    def _drawn(self, condition: float, seed: int) -> list[Tensor]:
        if not condition >= 1:
            raise InputError(f"condition is {condition!r}; a number of at least 1 is needed.")
        matrices = []
        for i, pair in enumerate(self.pairs):
            d, draw = pair.size, numpy_generator(seed, "heads", i)
            U, V = (torch.linalg.qr(torch.from_numpy(draw.standard_normal((d, d))))[0] for _ in range(2))
            exponents = torch.linspace(-0.5, 0.5, d, dtype=torch.float64)
            matrices.append(U @ torch.diag(condition**exponents) @ V)
        return matrices


def transform(model: nn.Module, side: Side, A: Tensor) -> None:
    """Multiply the vectors of a side by A from the right, in place; computed in float64."""
    at = list(side.entries)
    with torch.no_grad():
        for name in (side.weight, side.bias):
            if not name:
                continue
            tensor = model.get_parameter(name)
            rows = tensor if side.axis == 0 else tensor.T
            rows[at] = (A.T @ rows[at].double().reshape(len(at), -1)).reshape(rows[at].shape).to(tensor.dtype)


def heads(model: nn.Module, example_inputs: Any) -> Heads:
    """The pairs of projections of ``model`` that meet in attention.

    Args:
        model: Any module that ``torch.export`` can trace; it is not changed.
        example_inputs: A tensor or a tuple of arguments.

    Raises:
        InputError: If the example inputs are not arguments.
        CapabilityError: If the module cannot be exported.
    """
    arguments = as_arguments(example_inputs)
    walk = _Walk(trace_graph(model, arguments))
    walk.run()
    used: set[tuple[str, int]] = set()
    pairs = []
    for pair in walk.pairs:
        mine = {(side.weight, e) for side in (*pair.left, *pair.right) for e in side.entries}
        if not mine & used:  # a weight that serves two attentions stays as it is
            pairs.append(pair)
            used |= mine
    return Heads(pairs=tuple(pairs), untreated=walk.untreated, model=model, example_inputs=arguments)


class _Walk:
    """Follows the outputs of linear layers, by number, to where they meet."""

    def __init__(self, graph: TracedGraph) -> None:
        self.graph = graph
        self.labels: dict[Any, Any] = {}
        self.owner: dict[int, tuple[Any, int]] = {}
        self.head: dict[int, int] = {}
        self.attentions: set[Any] = set()
        self.meetings: list[tuple[Any, Tensor, Tensor]] = []
        self.readers: list[Any] = []
        self.pairs: list[Pair] = []
        self.untreated: dict[str, str] = {}

    def run(self) -> None:
        """Visit every node, then make pairs of what met."""
        for node in self.graph.nodes:
            if node.op == "call_function":
                self.labels[node] = self._call(node)
        for node, q, k in self.meetings:
            groups: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
            for query, key in zip(q.tolist(), k.tolist(), strict=True):
                groups.setdefault(tuple(key), []).append(tuple(query))
            for key, queries in groups.items():
                sides = [self._rows(ids) for ids in (*queries, key)]
                self._pair("query-key", node, sides[:-1], sides[-1:])
        for node in self.readers:
            self._value_pairs(node)

    def _call(self, node: Any) -> Any:
        name = operation_name(node)
        if name == "linear" and self._weight(node.args[1]):
            if self.labels.get(node.args[0]) is not None:
                self.readers.append(node)
            outs, first = node.meta["val"].shape[-1], len(self.owner) + 1
            self.owner |= {first + i: (node, i) for i in range(outs)}
            return torch.arange(first, first + outs).expand(tuple(node.meta["val"].shape))
        if name == "scaled_dot_product_attention":
            self.attentions.add(node)
            return self._attention(node, *(self.labels.get(t) for t in node.args[:3]))
        if name in ("matmul", "bmm"):
            scores = _scores_of(node.args[0])
            if scores is None:
                return None
            self.attentions |= {node, scores}
            q, k, v = (self.labels.get(t) for t in (*scores.args[:2], node.args[1]))
            return self._attention(node, q, None if k is None else k.transpose(-1, -2), v)
        return self._moved(node, name)

    def _moved(self, node: Any, name: str) -> Any:
        """The numbers after an operation that only moves them; None if they are not known any more."""
        known = self.labels.get(node.args[0]) if node.args and hasattr(node.args[0], "op") else None
        if known is None:
            return None
        if node.target is operator.getitem:
            return known[node.args[1]]
        if name in ("view", "_unsafe_view", "reshape"):
            return known.reshape(tuple(node.meta["val"].shape))
        if name == "dropout":
            return known
        return node.target(known, *node.args[1:], **node.kwargs) if name in MOVES else None

    def _weight(self, node: Any) -> str:
        return self.graph.weights.get(getattr(node, "name", ""), "")

    def _attention(self, node: Any, q: Any, k: Any, v: Any) -> Any:
        """Note which vectors meet; the mixed values keep the numbers of the values."""
        shape = tuple(node.meta["val"].shape)
        q, k, v = (_per_head(t, shape) for t in (q, k, v))
        if q is None or k is None:
            self.untreated[node.name] = "queries or keys arrive through more than moves of numbers"
        else:
            self.meetings.append((node, q, k))
        if v is None:
            return None
        self.head |= {i: min(row) for row in v.tolist() for i in row}
        return (v[:, None] if len(shape) == 4 else v).expand(shape)

    def _rows(self, ids: tuple[int, ...]) -> Side | None:
        layer = self.owner[ids[0]][0]
        if any(self.owner[i][0] is not layer for i in ids) or not self._serves_attention(layer):
            return None
        bias = self._weight(layer.args[2]) if len(layer.args) > 2 and layer.args[2] is not None else ""
        return Side(self._weight(layer.args[1]), bias, 0, tuple(self.owner[i][1] for i in ids))

    def _serves_attention(self, layer: Any) -> bool:
        """Whether a layer's output is moved to attentions only, and its weights are its own."""
        if any(len(n.users) > 1 for n in layer.args[1:] if n is not None):
            return False
        pending = [layer]
        while pending:
            for user in pending.pop().users:
                if operation_name(user) in MOVES or user.target is operator.getitem:
                    pending.append(user)
                elif user not in self.attentions:
                    return False
        return True

    def _value_pairs(self, node: Any) -> None:
        """Pairs of the values with the columns of the layer that reads them mixed."""
        ids = self.labels[node.args[0]].reshape(-1, self.labels[node.args[0]].shape[-1])
        if not (_comes_from(node.args[0], node, self.attentions) and bool((ids == ids[:1]).all())):
            return
        groups: dict[int, dict[int, list[int]]] = {}
        for column, i in enumerate(ids[0].tolist()):
            groups.setdefault(self.head[i], {}).setdefault(i, []).append(column)
        for places in groups.values():
            counts = {len(columns) for columns in places.values()}
            alone = len(node.args[1].users) == 1 and len(counts) == 1
            weight = self._weight(node.args[1])
            right: list[Side | None] = [
                Side(weight, "", 1, tuple(columns[r] for columns in places.values()))
                for r in range(min(counts))
            ]
            self._pair("value-output", node, [self._rows(tuple(places))], right if alone else [None])

    def _pair(self, kind: str, node: Any, left: list[Side | None], right: list[Side | None]) -> None:
        sides = [tuple(side for side in part if side is not None) for part in (left, right)]
        if len(sides[0]) == len(left) and len(sides[1]) == len(right):
            self.pairs.append(Pair(kind, *sides))
        else:
            self.untreated[node.name] = (
                f"a {kind} pair is read by something else too, or its weight is shared"
            )


def _scores_of(value: Any) -> Any:
    """The product of queries and keys behind a softmax, through one reader each."""
    seen_softmax = False
    while getattr(value, "op", "") == "call_function" and len(value.users) == 1:
        name = operation_name(value)
        if name in ("matmul", "bmm"):
            return value if seen_softmax else None
        if name not in SCORES:
            return None
        seen_softmax = seen_softmax or "softmax" in name
        value = value.args[0]
    return None


def _per_head(ids: Tensor | None, shape: tuple[int, ...]) -> Tensor | None:
    """(heads, d) numbers, if they are the same for all examples and positions; grouped heads repeated."""
    if ids is None or ids.ndim not in (3, 4):
        return None
    ids = ids[:, None] if ids.ndim == 3 else ids
    found = ids[0, :, 0]
    if not bool((ids == found[:, None]).all()):
        return None
    return found.repeat_interleave(shape[1] // len(found), dim=0) if len(shape) == 4 else found


def _comes_from(value: Any, user: Any, attentions: set[Any]) -> bool:
    """Whether a value is the output of an attention, moved, with one reader on the way."""
    while getattr(value, "op", "") == "call_function" and set(value.users) == {user}:
        if value in attentions:
            return True
        if operation_name(value) not in MOVES:
            return False
        user, value = value, value.args[0]
    return False
