"""A linear layer whose weights are tied along the orbits of a group.

``W[m, n] = weight[label[m, n]]`` for every pair of channels, and one bias for every
orbit of outputs, so that the layer commutes with the group: ``f(g x) = g f(x)``
(Ravanbakhsh, Schneider & Poczos 2017). The orbit weights are the stored truth, how the
product is computed is up to the kernel.

Initialization: the fan-in of an output is the number of its edges times the input
channels, however few weights fill them, so the weights start uniform within
1/sqrt(fan-in), as in `torch.nn.Linear`; the variance of the output is the same. The
*gradient* of a weight is a sum over all entries it fills: it grows with the orbit's
size (``orbit_sizes``), so plain gradient descent moves large orbits faster. Adam and
other per-weight scalings undo this; ``balanced=True`` divides every weight by the root of
its entries in a row, which evens out the gradients instead.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fathometer.errors import InputError
from fathometer.symmetry.action import Action
from fathometer.symmetry.automorphisms import warn_if_collapsed
from fathometer.symmetry.generators import check_count
from fathometer.symmetry.kernels import DenseKernel
from fathometer.symmetry.measure import label_means, orbit_means
from fathometer.symmetry.planner import plan
from fathometer.symmetry.tying import Tying, as_tying
from fathometer.work import generator


class TiedLinear(nn.Module):
    """Equivariant layer on signals: (batch, in_channels, N) to (batch, out_channels, M).

    Args:
        tying: A Tying, or an Action (its dense design).
        in_channels: Channels of the input; each pair of channels has its own K weights.
        out_channels: Channels of the output.
        bias: Whether to add one bias for each orbit of outputs.
        kernel: "auto" for the one expected to be cheapest, or "dense", "untied", "rows", "halves",
            "cycles", "blocks", "fourier", "im2col". All compute the same function up to rounding.
        balanced: Store ``weight * sqrt(entries in a row)`` instead of the weight.
        seed: Of the initial weights; give each layer of a network its own.
        device: Of the parameters.
        dtype: Of the parameters.

    Attributes:
        weight: (out_channels, in_channels, K), one number for each orbit.
        bias: (out_channels, Q) or None, one number for each orbit of outputs.

    Raises:
        InputError: If a count or the kernel is not usable.

    Warns:
        TheoryWarning: If the action is 2-transitive but not all permutations: then the layer
            is a set layer, equivariant to all of them.

    >>> layer = TiedLinear(Action.symmetric(5), in_channels=2, out_channels=3)
    >>> layer.weight.shape, layer.bias.shape, layer(torch.zeros(4, 2, 5)).shape
    (torch.Size([3, 2, 2]), torch.Size([3, 1]), torch.Size([4, 3, 5]))
    """

    scale: Tensor | None
    _bias_labels: Tensor
    _bias_signs: Tensor | None

    def __init__(
        self,
        tying: Tying | Action,
        in_channels: int,
        out_channels: int,
        bias: bool = True,
        kernel: str = "auto",
        *,
        balanced: bool = False,
        seed: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.tying = as_tying(tying, "tying")
        warn_if_collapsed(self.tying)
        self.in_channels = check_count(in_channels, "in_channels")
        self.out_channels = check_count(out_channels, "out_channels")
        self.seed = seed
        shape = (out_channels, in_channels, self.tying.num_orbits)
        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        if bias:
            q = self.tying.num_bias_orbits
            self.bias = nn.Parameter(torch.empty(out_channels, q, device=device, dtype=dtype))
            self.register_buffer("_bias_labels", _padded_labels(self.tying.bias_labels, q), persistent=False)
            signs = self.tying.bias_signs
            signs = None if signs is None else torch.from_numpy(signs)
            self.register_buffer("_bias_signs", signs, persistent=False)
        else:
            self.register_parameter("bias", None)
        per_row = self.tying.orbit_sizes / self.tying.sizes[1]
        scale = torch.from_numpy(1 / np.sqrt(np.maximum(per_row, 1))) if balanced else None
        self.register_buffer("scale", scale, persistent=False)
        self.kernel = plan(kernel, self.tying, self.in_channels, self.out_channels)
        self.to(device)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew from the layer's seed."""
        edges = int((self.tying.labels >= 0).sum()) / self.tying.sizes[1]
        bound = 1 / math.sqrt(max(edges * self.in_channels, 1))
        with torch.no_grad():
            for name, parameter in self.named_parameters(recurse=False):
                stream = generator(self.seed, "tied_linear", name)
                drawn = torch.rand(parameter.shape, generator=stream, dtype=torch.float64)
                drawn = (2 * drawn - 1) * bound
                if name == "weight" and self.scale is not None:
                    drawn = drawn / self.scale.cpu()
                parameter.copy_(drawn)

    @property
    def orbit_weights(self) -> Tensor:
        """(out_channels, in_channels, K) the entries of the matrix, whatever the parametrization."""
        return self.weight if self.scale is None else self.weight * self.scale.to(self.weight.dtype)

    @property
    def output_bias(self) -> Tensor | None:
        """(out_channels, M) the bias of every output, None without one."""
        if self.bias is None:
            return None
        padded = torch.nn.functional.pad(self.bias, (0, 1))
        spread = padded.index_select(1, self._bias_labels)
        return spread if self._bias_signs is None else spread * self._bias_signs.to(spread.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_channels, N) to (batch, out_channels, M).

        Raises:
            InputError: If x has another shape.
        """
        shape = x.shape
        if len(shape) != 3 or shape[1] != self.in_channels or shape[2] != self.tying.sizes[0]:
            raise InputError(
                f"x has shape {tuple(shape)}; this layer takes "
                f"(batch, {self.in_channels}, {self.tying.sizes[0]})."
            )
        # transforms and sparse products refuse empty batches
        kernel = self.kernel if shape[0] else DenseKernel(self.tying)
        y = kernel(self.orbit_weights, x)
        bias = self.output_bias
        return y if bias is None else y + bias

    def matrix(self) -> Tensor:
        """The whole weight matrix (out_channels * M, in_channels * N)."""
        return DenseKernel(self.tying).to(self.weight.device).matrix(self.orbit_weights)

    def to_dense(self) -> nn.Linear:
        """An untied `torch.nn.Linear`: the same function on features flattened as (channel, index)."""
        n, m = self.tying.sizes
        # its own random start is overwritten, so the global random state is put back
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            matrix = self.matrix()
            dense = nn.Linear(
                self.in_channels * n,
                self.out_channels * m,
                bias=self.bias is not None,
                device=matrix.device,
                dtype=matrix.dtype,
            )
            dense.weight.copy_(matrix)
            bias = self.output_bias
            if bias is not None:
                dense.bias.copy_(bias.flatten())
        return dense

    def restrict(self, subgroup: Action | Tying, *, kernel: str = "auto") -> "TiedLinear":
        """The same function with the freer weights of a subgroup, by ``kernel`` as for the layer itself.

        Raises:
            InputError: If some weight of the new tying would need two values: then it
                is not the tying of a subgroup.
        """
        finer = as_tying(subgroup, "subgroup")
        old = self.tying
        if finer.sizes != old.sizes:
            raise InputError(
                f"subgroup acts on {finer.sizes} indices; this layer has {old.sizes} (inputs, outputs)."
            )
        where, flips = _into(finer.labels, finer.signs, old.labels, old.signs, "weights")
        layer = TiedLinear(
            finer,
            self.in_channels,
            self.out_channels,
            bias=self.bias is not None,
            kernel=kernel,
            seed=self.seed,
            device=self.weight.device,
            dtype=self.weight.dtype,
        )
        with torch.no_grad():
            _spread(layer.weight, self.orbit_weights, where, flips)
            if self.bias is not None:
                where, flips = _into(
                    finer.bias_labels, finer.bias_signs, old.bias_labels, old.bias_signs, "biases"
                )
                _spread(layer.bias, self.bias, where, flips)
        return layer

    def extra_repr(self) -> str:
        """What `print` shows."""
        n, m = self.tying.sizes
        return (
            f"{self.in_channels} x {n} -> {self.out_channels} x {m}, {self.tying.num_orbits} weights "
            f"a channel pair, bias={self.bias is not None}, kernel={self.kernel.kind}"
        )


def tie(linear: nn.Linear, act: Action | Tying, kernel: str = "auto") -> TiedLinear:
    """The tied layer closest to ``linear`` (in squared difference of the weights).

    Args:
        linear: Features are flattened as (channel, index): in_features is a multiple of
            N, out_features of M.
        act: An Action (its dense design) or a Tying.
        kernel: As in `TiedLinear`.

    Raises:
        InputError: If the features are not whole channels of the action's indices.
    """
    tying = as_tying(act, "act")
    n, m = tying.sizes
    if not isinstance(linear, nn.Linear):
        raise InputError(f"linear is a {type(linear).__name__}; a torch.nn.Linear is needed.")
    if linear.in_features % n or linear.out_features % m:
        raise InputError(
            f"linear maps {linear.in_features} features to {linear.out_features}; they must be multiples of "
            f"the {n} inputs and {m} outputs of the action."
        )
    has_bias = linear.bias is not None
    with torch.no_grad():
        layer = TiedLinear(
            tying,
            linear.in_features // n,
            linear.out_features // m,
            bias=has_bias,
            kernel=kernel,
            device=linear.weight.device,
            dtype=linear.weight.dtype,
        )
        layer.weight.copy_(orbit_means(linear.weight, tying))
        if has_bias:
            column = linear.bias.reshape(layer.out_channels, 1, m)
            means = label_means(column, tying.bias_labels, tying.bias_signs, tying.num_bias_orbits)
            layer.bias.copy_(means[:, 0])
    return layer


def _padded_labels(labels: np.ndarray, count: int) -> Tensor:
    """Labels with -1 turned into ``count``, the place of a zero."""
    found = torch.from_numpy(labels.astype("int64"))
    return torch.where(found < 0, count, found)


def _into(
    finer: np.ndarray, finer_signs: Any, coarser: np.ndarray, coarser_signs: Any, what: str
) -> tuple[np.ndarray, np.ndarray]:
    """For every finer label the coarser one it lies in, and the relative sign."""
    flat, target = finer.ravel(), coarser.ravel()
    flips = np.ones(flat.shape, dtype=np.int8)
    for signs in (finer_signs, coarser_signs):
        flips = flips if signs is None else flips * signs.ravel()
    used = flat >= 0
    count = int(flat.max(initial=-1)) + 1
    where, flip = np.full(count, -1), np.ones(count, dtype=np.int8)
    where[flat[used]], flip[flat[used]] = target[used], flips[used]
    mixed = used & (np.where(used, where[flat], -1) != target)
    mixed |= used & (target >= 0) & (np.where(used, flip[flat], 1) != flips)
    if mixed.any() or (~used & (target >= 0)).any():
        raise InputError(
            f"subgroup ties {what} that differ in this layer; pass a subgroup of the layer's group."
        )
    return where, flip


def _spread(new: Tensor, old: Tensor, where: np.ndarray, flips: np.ndarray) -> None:
    padded = torch.nn.functional.pad(old, (0, 1))
    index = torch.from_numpy(np.where(where < 0, old.shape[-1], where)).to(old.device)
    signs = torch.from_numpy(flips).to(old.device, old.dtype)
    new.copy_(padded.index_select(old.ndim - 1, index) * signs)
