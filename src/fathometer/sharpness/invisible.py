"""Biases that the function does not depend on, and so may have any scale.

A softmax does not see a number added to all its inputs: the bias of the keys adds the
same to the scores of all keys. Batch normalization with the statistics of the batch subtracts
whatever bias came before it. Both are read off the graph: the bias must reach that
operation, and nothing else, through operations that only move numbers.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

_MOVES = (
    "view _unsafe_view reshape permute transpose t unsqueeze expand contiguous clone alias detach "
    "repeat_interleave flatten unflatten movedim"
)
MOVES = frozenset(_MOVES.split())
SCORES = frozenset(["mul", "div", "masked_fill", "add"])
LAYERS = frozenset(["linear", "addmm", "conv1d", "conv2d", "conv3d"])


@dataclass(frozen=True)
class Deferred:
    """A bias whose fate is decided where its output arrives.

    Attributes:
        weight: The bias.
        out: Unknowns of the output it is added to.
    """

    weight: Any
    out: Tensor


def name_of(node: Any) -> str:
    """``aten.linear.default`` -> ``linear``; "" for what is no operation."""
    parts = str(getattr(node, "target", "")).split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "aten" else ""


def shifts(nodes: Any) -> dict[Any, tuple[Any, int]]:
    """Operation that does not see a bias -> (layer with that bias, axis of its argument that is summed out).

    The bias is invisible if it is constant along that axis where it arrives; the reader checks it.
    """
    found = {}
    for node in nodes:
        blind, value, axis = _blind(node)
        layer = None if blind is None else _source(value, blind)
        if layer is not None:
            found[blind] = (layer, axis)
    return found


def _blind(node: Any) -> tuple[Any, Any, int]:
    """The operation that does not see a constant (None if there is none), its argument, and the axis."""
    name = name_of(node)
    if name == "scaled_dot_product_attention":
        return node, node.args[1], -2
    if name in ("softmax", "_softmax") and _last_axis(node):
        scores = _through(node.args[0], node, SCORES)
        if scores is not None and name_of(scores) in ("matmul", "bmm"):
            return scores, scores.args[1], -1
    if name == "batch_norm" and (node.args[5] or node.args[3] is None):
        return node, node.args[0], 0
    return None, None, 0


def _last_axis(node: Any) -> bool:
    return node.args[1] in (-1, node.meta["val"].ndim - 1)


def _source(value: Any, user: Any) -> Any:
    """The layer that a value comes from by moves alone, if nobody else reads it on the way."""
    layer = _through(value, user, MOVES)
    return layer if layer is not None and name_of(layer) in LAYERS else None


def _through(value: Any, user: Any, passed: frozenset[str]) -> Any:
    """Back along a chain of operations with one reader each."""
    while getattr(value, "op", "") == "call_function" and len(value.users) == 1 and user in value.users:
        if name_of(value) not in passed:
            return value
        if not _keeps_a_shift(value):
            return None
        user, value = value, value.args[0]
    return None


def _keeps_a_shift(node: Any) -> bool:
    """Whether what is constant along an axis before the operation still is after it."""
    name = name_of(node)
    if name in ("mul", "div"):
        return isinstance(node.args[1], int | float)
    return name != "masked_fill" or node.args[2] == float("-inf")
