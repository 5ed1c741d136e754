"""How the log-scales of an operator's outputs follow from those of its inputs.

One rule for each ATen operation that is homogeneous, or that only moves numbers. An
operation without a rule grounds everything it touches: its inputs may not be scaled,
so that no move can be wrong. Such operations are named in ``Reader.untreated``.

Rules never look at data. ReLU6 is homogeneous on small inputs and a clip beyond them;
only the definition of the operation tells.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.fx.node import map_arg

from fathometer.model.tracing import TracedGraph
from fathometer.sharpness.invisible import Deferred, shifts
from fathometer.sharpness.scales import ScaleSystem, compact

ROW_LIMIT = 200_000
ZERO = torch.zeros((), dtype=torch.long)


@dataclass(frozen=True)
class Weight:
    """A parameter or buffer that has not been used yet, perhaps with its axes permuted."""

    name: str
    shape: tuple[int, ...]
    axes: tuple[int, ...]

    def permuted(self, axes: tuple[int, ...]) -> "Weight":
        """The same weight as seen through a permutation of its axes."""
        return Weight(self.name, self.shape, tuple(self.axes[a] for a in axes))

    @property
    def seen_shape(self) -> tuple[int, ...]:
        """Its shape as the operation sees it."""
        return tuple(self.shape[a] for a in self.axes)


@dataclass(frozen=True)
class Use:
    """The log-scale of a weight's entries is ``s[plus] - s[minus]``, broadcast to its shape."""

    plus: Tensor
    minus: Tensor


@dataclass
class Reader:
    """Walks a graph and writes what it says into a `ScaleSystem`.

    Attributes:
        graph: The traced operations.
        system: The equations so far.
        uses: Tensor name -> the log-scale of its entries.
        followers: Biases and running means: they have the scale of what they are added to.
        untreated: Node or tensor -> why it was left as it is.
        deferred: Layer -> its bias, where that bias may be invisible (see `invisible`).
        invisible: Bias that turned out so -> the scale of what it is added to: it may have any scale, but
            only with this one are the outputs the same to the bit.
    """

    graph: TracedGraph
    system: ScaleSystem = field(default_factory=ScaleSystem)
    uses: dict[str, Use] = field(default_factory=dict)
    followers: set[str] = field(default_factory=set)
    untreated: dict[str, str] = field(default_factory=dict)
    deferred: dict[Any, Deferred | None] = field(default_factory=dict)
    invisible: dict[str, Use] = field(default_factory=dict)

    def read(self) -> None:
        """Visit every node; the network's inputs and outputs are grounded."""
        values: dict[Any, Any] = {}
        self.shifts = shifts(self.graph.nodes)
        self.deferred = {layer: None for layer, _ in self.shifts.values()}
        for node in self.graph.nodes:
            if node.op == "placeholder":
                values[node] = self._placeholder(node)
            elif node.op == "output":
                self.finish(map_arg(node.args, values.__getitem__))
            elif node.op == "call_function":
                arguments = map_arg(node.args, values.__getitem__)
                options = map_arg(node.kwargs, values.__getitem__)
                values[node] = self._call(node, arguments, options)
            else:
                values[node] = None
        for bias in self.deferred.values():
            if bias is not None:
                self.follow(bias.weight, bias.out)

    def _placeholder(self, node: Any) -> Any:
        name = self.graph.weights.get(node.name)
        if name is not None and self.graph.tensors[name].is_floating_point():
            shape = tuple(self.graph.tensors[name].shape)
            return Weight(name, shape, tuple(range(len(shape))))
        return constant_like(node)

    def _call(self, node: Any, arguments: Any, options: dict[str, Any]) -> Any:
        if node.target is operator.getitem:
            return arguments[0][arguments[1]]
        name = operation_name(node)
        if not _touches_scales((arguments, options)):
            return constant_like(node)
        rule = self.rule_of(name)
        if rule is not None:
            answer = rule(self, node, *arguments, **options)
            if answer is not None:
                return answer
        if name not in NONLINEAR:
            has = "has no rule" if rule is None else "is used in a way that its rule does not know"
            self.untreated[node.name] = f"{name} {has}: what it touches stays as it is"
        self.ground((arguments, options))
        return constant_like(node)

    def rule_of(self, name: str) -> Any:
        """The rule for an operation, None if there is none."""
        return RULES.get(name) or RULES.get(_in_place(name))

    def finish(self, outputs: Any) -> None:
        """What holds for the outputs of the network: nothing in them is scaled."""
        self.ground(outputs)

    def ground(self, value: Any) -> None:
        """Nothing in ``value`` may be scaled."""
        if isinstance(value, Weight):
            self.use(value, ZERO, ZERO)
        elif isinstance(value, Tensor):
            self.system.ground(value)
        elif isinstance(value, dict):
            self.ground(list(value.values()))
        elif isinstance(value, list | tuple):
            for part in value:
                self.ground(part)

    def use(self, weight: Weight, plus: Tensor, minus: Tensor = ZERO) -> None:
        """State the scale of a weight in the layout the operation sees; agree with earlier uses."""
        back = sorted(range(len(weight.axes)), key=weight.axes.__getitem__)
        plus, minus = (_in_layout(ids, weight, back) for ids in (plus, minus))
        known = self.uses.setdefault(weight.name, Use(plus, minus))
        if known.plus is plus:
            return
        sizes = torch.broadcast_shapes(*(compact(t).shape for t in (plus, minus, known.plus, known.minus)))
        if torch.Size(sizes).numel() > ROW_LIMIT:
            self.untreated[weight.name] = "shared in too many ways: it stays as it is"
            for ids in (plus, minus, known.plus, known.minus):
                self.system.ground(ids)
            return
        self.system.relate((1, plus), (-1, minus), (-1, known.plus), (1, known.minus))

    def follow(self, weight: Weight, ids: Tensor) -> None:
        """State that a bias or a running mean scales like the activation it meets."""
        self.followers.add(weight.name)
        self.use(weight, ids)

    def shifted(self, node: Any, arriving: Tensor) -> None:
        """Free the bias that ``node`` does not see, if it arrives equal along the axis that is summed out."""
        layer, axis = self.shifts.get(node, (None, 0))
        bias = self.deferred.get(layer)
        if bias is None:
            return
        dims = (
            [0, *range(2, arriving.ndim)] if operation_name(node) == "batch_norm" else [axis % arriving.ndim]
        )
        if bias.weight.name not in self.uses and all(_repeats(arriving, d) for d in dims):
            self.deferred[layer] = None
            self.invisible[bias.weight.name] = Use(bias.out, ZERO)
            self.use(bias.weight, self.system.fresh(*bias.weight.seen_shape))

    def ids(self, value: Any) -> Tensor:
        """Unknowns of a tensor argument; a weight gets one for each entry."""
        if isinstance(value, Weight):
            ids = self.system.fresh(*value.seen_shape)
            self.use(value, ids)
            return ids
        return value


def _repeats(ids: Tensor, dim: int) -> bool:
    return bool((ids == ids.narrow(dim, 0, 1)).all())


def operation_name(node: Any) -> str:
    """``aten.linear.default`` -> ``linear``."""
    parts = str(node.target).split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "aten" else str(node.target)


def constant_like(node: Any) -> Any:
    """Grounded unknowns for floating outputs, None for anything else."""
    return _constant(node.meta.get("val"))


def _constant(value: Any) -> Any:
    if isinstance(value, Tensor):
        return ZERO.expand(tuple(value.shape)) if value.is_floating_point() else None
    if isinstance(value, list | tuple):
        return [_constant(part) for part in value]
    return None


def _in_layout(ids: Tensor, weight: Weight, back: list[int]) -> Tensor:
    if ids.ndim == 0:
        return ids.reshape((1,) * len(weight.shape)) if weight.shape else ids
    return ids.permute(back)


def _touches_scales(value: Any) -> bool:
    """Whether any argument is a weight or a tensor that may be scaled."""
    if isinstance(value, Weight):
        return True
    if isinstance(value, Tensor):
        return bool((compact(value) != 0).any())
    if isinstance(value, dict):
        return any(_touches_scales(part) for part in value.values())
    if isinstance(value, list | tuple):
        return any(_touches_scales(part) for part in value)
    return False


def _in_place(name: str) -> str:
    """The out-of-place name, where writing in place leaves the scales of the input as they were."""
    kept = ("relu_", "leaky_relu_", "dropout_", "add_", "sub_", "clamp_min_", "detach_", "clamp_")
    return name[:-1] if name in kept else name


def shape_of(node: Any) -> tuple[int, ...]:
    """Shape of a node's output."""
    return tuple(node.meta["val"].shape)


Rule = Callable[..., Any]
RULES: dict[str, Rule] = {}

# Known not to be homogeneous: their inputs are grounded, and that is complete.
_NONLINEAR = (
    "gelu silu tanh sigmoid softmax log_softmax relu6 hardtanh hardswish hardsigmoid elu selu celu softplus "
    "mish exp log log1p erf cos sin softmin logsumexp tanhshrink hardshrink softshrink glu cross_entropy_loss"
)
NONLINEAR = frozenset(_NONLINEAR.split())


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule; it returns the unknowns of the output, or None if it does not apply."""

    def add(function: Rule) -> Rule:
        for name in names:
            RULES[name] = function
        return function

    return add


_SAME = (
    "relu abs neg alias clone contiguous detach leaky_relu dropout feature_dropout native_dropout to "
    "_to_copy type_as float double"
)


@rule(*_SAME.split())
def _same(reader: Reader, node: Any, x: Any, *_: Any, **__: Any) -> Tensor:
    return reader.ids(x)


@rule("prelu")
def _prelu(reader: Reader, node: Any, x: Any, slope: Any) -> Tensor:
    reader.ground(slope)
    return reader.ids(x)


@rule("clamp", "clamp_min", "threshold")
def _rectifier(
    reader: Reader, node: Any, x: Any, low: Any = None, high: Any = None, **options: Any
) -> Tensor | None:
    low, high = options.get("min", low), options.get("max", high)
    if not all(bound is None or isinstance(bound, int | float) for bound in (low, high)):
        return None  # bounds that were computed
    if not (low == 0 and (high is None or (operation_name(node).startswith("threshold") and high == 0))):
        reader.ground(x)  # a fixed level, which cannot follow
    return reader.ids(x)


_MOVES = (
    "view _unsafe_view reshape permute transpose t squeeze unsqueeze expand expand_as slice select cat "
    "concat stack split split_with_sizes chunk unbind flatten unflatten movedim flip roll repeat narrow "
    "view_as reshape_as swapaxes numpy_T mT repeat_interleave tril triu diagonal pixel_shuffle "
    "pixel_unshuffle channel_shuffle unfold"
)


@rule(*_MOVES.split())
def _move(reader: Reader, node: Any, x: Any, *arguments: Any, **options: Any) -> Any:
    name = operation_name(node)
    if isinstance(x, Weight) and name in ("t", "transpose", "permute", "numpy_T", "mT"):
        order = torch.empty(x.seen_shape, device="meta")
        moved = node.target(order.as_strided(x.seen_shape, _distinct_strides(len(x.axes))), *arguments)
        strides = _distinct_strides(len(x.axes))
        return x.permuted(tuple(strides.index(s) for s in moved.stride()))
    if name in ("view", "_unsafe_view", "reshape", "view_as", "reshape_as"):
        return reader.ids(x).reshape(shape_of(node))  # repeated ids have strides that view refuses
    ids = [reader.ids(part) for part in x] if isinstance(x, list | tuple) else reader.ids(x)
    moved = node.target(ids, *arguments, **options)
    return list(moved) if isinstance(moved, tuple | list) else moved


def _distinct_strides(dims: int) -> tuple[int, ...]:
    """Strides that name the dimension they belong to."""
    return tuple(range(dims, 0, -1))


@rule("constant_pad_nd", "pad")
def _pad(reader: Reader, node: Any, x: Any, *arguments: Any, **options: Any) -> Tensor | None:
    mode = options.get("mode") or next((a for a in arguments[1:] if isinstance(a, str)), "constant")
    value = options.get("value") or next((a for a in arguments[1:] if isinstance(a, int | float)), 0)
    if mode != "constant" or value != 0:
        return None
    ids = reader.ids(x)
    # A zero may have any scale, so the new entries are unknowns of their own.
    inside = torch.nn.functional.pad(torch.ones(ids.shape, dtype=torch.bool), arguments[0])
    return torch.where(inside, torch.nn.functional.pad(ids, arguments[0]), reader.system.fresh(*inside.shape))


@rule("masked_fill")
def _masked_fill(reader: Reader, node: Any, x: Any, mask: Any, value: Any) -> Tensor | None:
    plain = isinstance(value, int | float) and value in (0, float("inf"), float("-inf"))
    return reader.ids(x) if plain else None


@rule("where")
def _where(reader: Reader, node: Any, condition: Any, a: Any, b: Any) -> Tensor | None:
    if condition is not None or not isinstance(a, Tensor | Weight) or not isinstance(b, Tensor | Weight):
        return None
    return _alike(reader, node, a, b)


@rule("add", "sub", "maximum", "minimum")
def _add(reader: Reader, node: Any, a: Any, b: Any, **options: Any) -> Tensor | None:
    for x, other in ((a, b), (b, a)):
        if isinstance(other, int | float):
            if other != 0:
                reader.ground(x)  # a number has no scale that could follow
            return reader.ids(x)
    if a is None or b is None:
        return None
    return _alike(reader, node, a, b)


def _alike(reader: Reader, node: Any, a: Any, b: Any) -> Tensor:
    """Terms of a sum scale together."""
    a, b = reader.ids(a), reader.ids(b)
    reader.system.equate(a, b)
    return torch.broadcast_to(a, shape_of(node))


@rule("mul", "multiply")
def _mul(reader: Reader, node: Any, a: Any, b: Any) -> Tensor | None:
    return _product(reader, node, a, b, 1)


@rule("div", "divide", "true_divide")
def _div(reader: Reader, node: Any, a: Any, b: Any, **options: Any) -> Tensor | None:
    return None if options.get("rounding_mode") else _product(reader, node, a, b, -1)


def _product(reader: Reader, node: Any, a: Any, b: Any, power: int) -> Tensor | None:
    """``a * b**power`` for power 1 or -1."""
    if isinstance(b, int | float):
        return reader.ids(a)
    if a is None or b is None:
        return None
    a = ZERO if isinstance(a, int | float) else reader.ids(a)
    b = reader.ids(b)
    if not (compact(b) != 0).any():
        return torch.broadcast_to(a, shape_of(node))
    sizes = torch.broadcast_shapes(compact(a).shape, compact(b).shape)
    answer = reader.system.fresh(*((1,) * (len(shape_of(node)) - len(sizes)) + tuple(sizes)))
    reader.system.relate((1, a), (power, b), (-1, answer))
    return answer.expand(shape_of(node))


@rule("square", "sqrt", "rsqrt", "reciprocal", "pow")
def _power(reader: Reader, node: Any, x: Any, exponent: Any = None) -> Tensor | None:
    named = {"square": (2, 1), "sqrt": (1, 2), "rsqrt": (-1, 2), "reciprocal": (-1, 1)}
    if exponent is None:
        up, down = named[operation_name(node)]
    elif isinstance(exponent, int | float) and float(exponent * 2).is_integer() and exponent != 0:
        up, down = (int(exponent), 1) if float(exponent).is_integer() else (int(2 * exponent), 2)
    else:
        return None
    ids = compact(reader.ids(x))
    answer = reader.system.fresh(*ids.shape)
    reader.system.relate((up, ids), (-down, answer))
    return answer.expand(shape_of(node))


@rule("mean", "sum", "amax", "amin", "cumsum", "linalg_vector_norm", "norm")
def _reduce(reader: Reader, node: Any, x: Any, *arguments: Any, **options: Any) -> Tensor:
    ids = reader.ids(x)
    norms = operation_name(node) in ("linalg_vector_norm", "norm")
    dims = options.get("dim", arguments[1 if norms else 0] if len(arguments) > (1 if norms else 0) else None)
    if dims is None or (isinstance(dims, list | tuple) and not dims):
        dims = list(range(ids.ndim))
    dims = [dims] if isinstance(dims, int) else list(dims)
    ids = reader.system.uniform(ids, dims)
    shape = shape_of(node)
    return ids.expand(shape) if len(shape) == ids.ndim else ids.reshape(_without(ids, dims)).expand(shape)


@rule("sort", "topk", "cummax", "cummin")
def _ranked(reader: Reader, node: Any, x: Any, *arguments: Any, **options: Any) -> Any:
    """Numbers that may change places along an axis scale together; their places do not scale."""
    after = 1 if operation_name(node) == "topk" else 0
    dim = options.get("dim", arguments[after] if len(arguments) > after else -1)
    if not isinstance(dim, int):
        return None
    values = tuple(node.meta["val"][0].shape)
    ids = reader.system.uniform(reader.ids(x), [dim])
    return [ids.narrow(dim, 0, 1).expand(values), None]


def _without(ids: Tensor, dims: list[int]) -> tuple[int, ...]:
    gone = {d % ids.ndim for d in dims}
    return tuple(n for d, n in enumerate(ids.shape) if d not in gone)


@rule("max", "min")
def _extreme(reader: Reader, node: Any, x: Any, *arguments: Any, **options: Any) -> Any:
    if arguments and isinstance(arguments[0], Tensor | Weight):
        return _alike(reader, node, x, arguments[0])
    ids = reader.ids(x)
    if not arguments and "dim" not in options:
        return reader.system.uniform(ids, range(ids.ndim)).reshape(())
    dim = options.get("dim", arguments[0] if arguments else 0)
    ids = reader.system.uniform(ids, [dim])
    shape = tuple(node.meta["val"][0].shape)
    return [ids.expand(shape) if len(shape) == ids.ndim else ids.reshape(_without(ids, [dim])), None]


def _pool(dims: int) -> Rule:
    def apply(reader: Reader, node: Any, x: Any, *_: Any, **__: Any) -> Any:
        ids = reader.ids(x)
        ids = reader.system.uniform(ids, range(ids.ndim - dims, ids.ndim))
        value = node.meta["val"]
        if isinstance(value, tuple | list):
            return [ids.expand(tuple(value[0].shape)), None]
        return ids.expand(tuple(value.shape))

    return apply


for _dims in (1, 2, 3):
    for _pooling in ("max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool", "_adaptive_avg_pool"):
        RULES[f"{_pooling}{_dims}d"] = RULES[f"{_pooling}{_dims}d_with_indices"] = _pool(_dims)
    for _resize in ("upsample_nearest", "upsample_linear", "upsample_bilinear", "upsample_trilinear"):
        RULES[f"{_resize}{_dims}d"] = _pool(_dims)


def features(reader: Reader, x: Any, channel: int) -> Tensor:
    """Unknowns (channels,) of an activation whose other axes must share them."""
    ids = reader.ids(x)
    channel %= ids.ndim
    return reader.system.uniform(ids, [d for d in range(ids.ndim) if d != channel]).reshape(-1)


def spread(ids: Tensor, channel: int, shape: tuple[int, ...]) -> Tensor:
    """(channels,) unknowns laid out over a whole activation."""
    sizes = [1] * len(shape)
    sizes[channel] = shape[channel]
    return ids.reshape(sizes).expand(shape)
