"""Rules of the operations that carry weights: linear, convolution, norms, attention.

The log-scale of a weight from channel i to channel o is ``s_out[o] - s_in[i]``; a bias
has the scale of its output. Every rule says just that for one operation.
"""

from typing import Any

import torch
from torch import Tensor

from fathometer.sharpness.invisible import Deferred
from fathometer.sharpness.rules import (
    ZERO,
    Reader,
    Weight,
    compact,
    constant_like,
    features,
    rule,
    shape_of,
    spread,
)


@rule("linear")
def _linear(reader: Reader, node: Any, x: Any, weight: Any, bias: Any = None) -> Tensor:
    if not isinstance(weight, Weight):
        out = _product_of_activations(reader, reader.ids(x), weight.transpose(-1, -2), shape_of(node))
        return out if bias is None else _with_bias(reader, node, out, bias)
    inputs = features(reader, x, -1)
    out = reader.system.fresh(weight.seen_shape[0])
    reader.use(weight, out[:, None], inputs[None, :])
    return _finish(reader, node, bias, out, -1, shape_of(node))


def _finish(
    reader: Reader, node: Any, bias: Any, out: Tensor, channel: int, shape: tuple[int, ...]
) -> Tensor:
    """Give the bias the scale of its output and lay the output out."""
    if isinstance(bias, Weight) and node in reader.deferred:
        reader.deferred[node] = Deferred(bias, out)
    elif isinstance(bias, Weight):
        reader.follow(bias, out)
    elif bias is not None:
        reader.system.equate(reader.ids(bias), out)
    return spread(out, channel % len(shape), shape)


def _with_bias(reader: Reader, node: Any, out: Tensor, bias: Any) -> Tensor:
    reader.system.equate(reader.ids(bias), out)
    return out


@rule("conv1d", "conv2d", "conv3d")
def _convolution(
    reader: Reader, node: Any, x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1,
) -> Tensor | None:  # fmt: skip
    if not isinstance(weight, Weight):
        return None
    shape = shape_of(node)
    channel = len(shape) - (len(weight.shape) - 1)
    inputs = features(reader, x, channel)
    outs, ins = weight.seen_shape[:2]
    kernel = (1,) * (len(weight.shape) - 2)
    out = reader.system.fresh(outs)
    group = torch.arange(outs) // (outs // groups)
    source = inputs[group[:, None] * ins + torch.arange(ins)[None, :]]
    reader.use(weight, out.reshape(outs, 1, *kernel), source.reshape(outs, ins, *kernel))
    return _finish(reader, node, bias, out, channel, shape)


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _transposed_convolution(
    reader: Reader, node: Any, x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Tensor | None:  # fmt: skip
    if not isinstance(weight, Weight):
        return None
    shape = shape_of(node)
    channel = len(shape) - (len(weight.shape) - 1)
    inputs = features(reader, x, channel)
    ins, each = weight.seen_shape[:2]
    kernel = (1,) * (len(weight.shape) - 2)
    out = reader.system.fresh(each * groups)
    group = torch.arange(ins) // (ins // groups)
    target = out[group[:, None] * each + torch.arange(each)[None, :]]
    reader.use(weight, target.reshape(ins, each, *kernel), inputs.reshape(ins, 1, *kernel))
    return _finish(reader, node, bias, out, channel, shape)


@rule("matmul", "mm", "bmm")
def _matmul(reader: Reader, node: Any, a: Any, b: Any) -> Tensor | None:
    shape = shape_of(node)
    if isinstance(b, Weight) and len(b.seen_shape) == 2 and not isinstance(a, Weight):
        inputs = features(reader, a, -1)
        out = reader.system.fresh(b.seen_shape[1])
        reader.use(b, out[None, :], inputs[:, None])
        return spread(out, len(shape) - 1, shape)
    a, b = reader.ids(a), reader.ids(b)
    if a.ndim < 2 or b.ndim < 2:
        return None
    reader.shifted(node, b)
    return _product_of_activations(reader, a, b, shape)


@rule("addmm")
def _addmm(reader: Reader, node: Any, bias: Any, a: Any, b: Any, **options: Any) -> Tensor | None:
    out = _matmul(reader, node, a, b)
    if out is None or options:
        return None
    if isinstance(bias, Weight) and len(bias.shape) == 1:
        return _finish(reader, node, bias, features(reader, out, -1), -1, shape_of(node))
    return _with_bias(reader, node, out, bias)


def _product_of_activations(reader: Reader, a: Tensor, b: Tensor, shape: tuple[int, ...]) -> Tensor:
    """``out[n, m] = sum_k a[n, k] b[k, m]``: ``s_a[n, k] + s_b[k, m]`` may not depend on k."""
    a, b = compact(a), compact(b)
    rows, columns = a.shape[-2], b.shape[-1]
    lead = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    out = reader.system.fresh(*lead, rows, columns)
    reader.system.relate((1, a.unsqueeze(-1)), (1, b.unsqueeze(-3)), (-1, out.unsqueeze(-2)))
    return out.expand(shape)


@rule("scaled_dot_product_attention")
def _attention(
    reader: Reader, node: Any, query: Any, key: Any, value: Any, mask: Any = None, dropout: float = 0.0,
    causal: bool = False, *, scale: Any = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    query, key, value = (reader.ids(t) for t in (query, key, value))
    reader.shifted(node, key)
    if enable_gqa:
        repeats = query.shape[-3] // key.shape[-3]
        key, value = (t.repeat_interleave(repeats, dim=-3) for t in (key, value))
    # The scores meet a softmax: q . k must stay as it is, for every pair of positions.
    reader.system.relate((1, compact(query).unsqueeze(-2)), (1, compact(key).unsqueeze(-3)))
    if isinstance(mask, Weight):
        reader.ground(mask)
    mixed = reader.system.uniform(value, [-2])
    return mixed.expand(shape_of(node))


@rule("embedding")
def _embedding(reader: Reader, node: Any, weight: Any, *_: Any, **__: Any) -> Tensor | None:
    if not isinstance(weight, Weight):
        return None
    out = reader.system.fresh(weight.seen_shape[1])
    reader.use(weight, out[None, :])
    return out.expand(shape_of(node))


@rule("batch_norm")
def _batch_norm(
    reader: Reader,
    node: Any,
    x: Any,
    weight: Any,
    bias: Any,
    mean: Any,
    variance: Any,
    training: bool,
    *_: Any,
) -> Tensor:
    reader.shifted(node, reader.ids(x))
    inputs = features(reader, x, 1)
    reader.ground(variance)
    if training or mean is None:
        # The batch statistics divide by sqrt(variance + eps): exact only if nothing is scaled.
        reader.system.ground(inputs)
        reader.ground(mean)
    elif isinstance(mean, Weight):
        reader.follow(mean, inputs)
    else:
        reader.system.equate(mean, inputs)
    return _affine(reader, weight, bias, inputs, (inputs.shape[0],), 1, shape_of(node))


def _affine(
    reader: Reader,
    weight: Any,
    bias: Any,
    inputs: Tensor,
    sizes: tuple[int, ...],
    channel: int,
    shape: tuple[int, ...],
) -> Tensor:
    """Scale and shift of a norm along ``channel`` and the axes after it in ``sizes``."""
    if not isinstance(weight, Weight) and not isinstance(bias, Weight):
        out = inputs.expand(sizes)
    else:
        out = reader.system.fresh(*sizes)
        if isinstance(weight, Weight):
            reader.use(weight, out, inputs)
        else:
            reader.system.equate(out, inputs)
        if isinstance(bias, Weight):
            reader.follow(bias, out)
    tail = (1,) * (len(shape) - channel - len(sizes))
    return out.reshape(*sizes, *tail).expand(shape)


@rule("layer_norm", "rms_norm")
def _layer_norm(
    reader: Reader, node: Any, x: Any, sizes: Any, weight: Any = None, bias: Any = None, *_: Any, **__: Any
) -> Tensor:
    reader.ground(x)
    if not isinstance(bias, Weight):
        bias = None
    sizes = tuple(int(n) for n in sizes)
    shape = shape_of(node)
    return _affine(reader, weight, bias, ZERO.expand(sizes), sizes, len(shape) - len(sizes), shape)


@rule("group_norm", "instance_norm")
def _group_norm(reader: Reader, node: Any, x: Any, *arguments: Any, **__: Any) -> Tensor:
    reader.ground(x)
    affine = [a for a in arguments if isinstance(a, Weight)]
    shape = shape_of(node)
    for extra in affine[2:]:
        reader.ground(extra)
    weight, bias = [*affine, None, None][:2]
    return _affine(reader, weight, bias, ZERO.expand(shape[1]), (shape[1],), 1, shape)


@rule("lstm_cell", "gru_cell", "rnn_tanh_cell")
def _cell(reader: Reader, node: Any, x: Any, hidden: Any, reads: Any, *rest: Any) -> Any:
    """Gates saturate, so states stay as they are; features that enter may scale against their weights."""
    if not isinstance(reads, Weight):
        return None
    reader.ground((hidden, rest))
    reader.use(reads, ZERO, features(reader, x, -1)[None, :])
    return constant_like(node)


@rule("lstm", "gru", "rnn_tanh")
def _recurrent(
    reader: Reader, node: Any, x: Any, hidden: Any, weights: Any, biased: Any, layers: Any, dropout: Any,
    training: Any, both_ways: Any, *_: Any,
) -> Any:  # fmt: skip
    """As `_cell`; only the first layer reads the features, in one direction or both."""
    if not isinstance(weights, list | tuple) or not all(isinstance(w, Weight) for w in weights):
        return None  # a packed sequence, or weights that were computed
    directions = 2 if both_ways else 1
    step = len(weights) // (layers * directions)
    readers = weights[: step * directions : step]
    reader.ground((hidden, [w for w in weights if w not in readers]))
    inputs = features(reader, x, -1)
    for weight in readers:
        reader.use(weight, ZERO, inputs[None, :])
    return constant_like(node)
