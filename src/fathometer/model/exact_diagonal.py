"""The diagonal of the Gauss-Newton matrix, and of many Hessians, without sampling.

With S the Hessian of the loss in the outputs of an example and ``S = sum_c s_c s_c'``, the
diagonal is the mean over examples of ``sum_c (d (s_c . f) / d theta)^2``. For a linear layer the
derivative of one example is an outer product, so that its square needs no gradient of
single examples: C backward passes give everything, C being the number of outputs.

Where the network is locally an affine function of each single weight, the Hessian has the same
diagonal: piecewise linear operations, and no weight that acts twice. That is read off the graph
of the network, never guessed; otherwise the request is refused with the reason.

Traces need less: for a linear layer the squares of an outer product sum to a product of two
squared lengths, so that a trace by tensors costs C backward passes without any weight gradient.
"""

import math
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from fathometer.errors import CapabilityError, InputError
from fathometer.model.factors import gauss_newton_factors
from fathometer.model.losses import CrossEntropy, Objective, SquaredError
from fathometer.model.surface import LossSurface
from fathometer.model.tracing import trace_graph
from fathometer.results import Row, Table
from fathometer.work import generator

MOST_OUTPUTS = 128
"""Outputs beyond which sampled traces are cheaper."""

_AFFINE = (
    "linear conv2d relu relu_ leaky_relu leaky_relu_ prelu max_pool2d avg_pool2d adaptive_avg_pool2d "
    "batch_norm add add_ sub cat concat view reshape flatten unflatten squeeze unsqueeze permute transpose "
    "t slice select mean sum dropout dropout_ feature_dropout contiguous clone detach alias pad "
    "constant_pad_nd abs maximum minimum"
)
PIECEWISE_LINEAR = frozenset(_AFFINE.split())
BLOCK = 1 << 23
"""Numbers that squares of single examples' derivatives may take at a time."""
AGREE = 1e-8
"""Relative difference of two curvatures beyond which they are not the same."""


def exact_trace(surface: LossSurface, *, seed: int = 0) -> Table:
    """Trace of the Hessian and of the diagonal block of every parameter tensor, exact.

    In a network of ReLUs, leaky ReLUs, max-pooling and linear layers every parameter tensor enters the
    outputs linearly as long as no unit switches: the second derivatives of the outputs within one
    tensor vanish, and the diagonal blocks of the Hessian have the trace of its Gauss-Newton part. That
    is read off the graph of the network; where the graph does not say it, for a random direction v
    within each tensor ``v' H v = v' G v`` holds for such a network and, with probability one, for no other.

    Cost: one backward pass of the data for each output, without weight gradients, for linear layers.

    Args:
        surface: A network that is piecewise linear in every parameter tensor, outputs (N, C).
        seed: Of the directions that test for it.

    Returns:
        Rows with ``tensor``, ``value``, ``kind`` ("exact") and ``error`` (0); the first is "all".

    Raises:
        CapabilityError: If the network is not linear in a tensor; use `fathometer.trace` then.
        InputError: As `gauss_newton_factors`.
    """
    if not isinstance(surface, LossSurface):
        raise InputError(f"surface is a {type(surface).__name__}; pass a LossSurface.")
    try:
        _check_graph(surface)
    except CapabilityError:
        _check_directions(surface, seed)
    try:
        traces = {name: float(total) for name, total in _totals(surface, whole=False).items()}
    except CapabilityError:  # other layers: one row for each example and output
        traces = gauss_newton_factors(surface).traces()
    rows = [Row(tensor="all", value=sum(traces.values()), kind="exact", error=0.0)]
    rows += [Row(tensor=name, value=traces[name], kind="exact", error=0.0) for name in surface.names]
    return Table(title="trace of the Hessian by parameter tensor", rows=tuple(rows))


def _check_directions(surface: LossSurface, seed: int) -> None:
    """Refuse networks that bend along a random direction within a tensor."""
    double = surface.double()
    H, G = double.hessian(check=False), double.gauss_newton(check=False)
    for name in surface.names:
        at = double.space.positions(name)
        v = torch.zeros(surface.size, dtype=torch.float64)
        v[at] = torch.randn(len(at), generator=generator(seed, "exact trace", name), dtype=torch.float64)
        bent, plain = float(v @ (H @ v)), float(v @ (G @ v))
        if abs(bent - plain) > AGREE * (abs(bent) + abs(plain)):
            raise CapabilityError(
                f"the network is not piecewise linear in {name}: curvature {bent:.6g} and Gauss-Newton "
                f"{plain:.6g} differ along a direction within it. Use fathometer.trace for an estimate."
            )


def hessian_diagonal(surface: LossSurface) -> Tensor:
    """Diagonal (P,) of the Hessian, exact up to rounding, in float64.

    Raises:
        CapabilityError: If the diagonal is not known to be that of the Gauss-Newton matrix, or as
            `gauss_newton_diagonal`; the message says why.
    """
    _check_graph(surface)
    return gauss_newton_diagonal(surface)


def gauss_newton_diagonal(surface: LossSurface) -> Tensor:
    """Diagonal (P,) of the Gauss-Newton matrix, exact up to rounding, in float64.

    Cost: one backward pass of the data for each output.

    Raises:
        CapabilityError: If the loss is neither cross-entropy nor a squared error, the outputs are not (n, C),
            or a parameter is not that of a linear, convolutional or batch-normalization layer
            that is called once.
    """
    return surface.double().space.flatten(_totals(surface, whole=True))


def _totals(surface: LossSurface, *, whole: bool) -> dict[str, Tensor]:
    """The diagonal in the shape of every parameter, or its sums (0-d)."""
    exact = surface.double()
    objective = exact._problem.objective
    if not _is_plain(objective):
        raise CapabilityError(f"the loss {exact.loss} has no closed form of its curvature here.")
    pass_ = _Pass(exact, whole)
    total = {
        name: torch.zeros(shape if whole else (), dtype=torch.float64, device=exact.space.device)
        for name, shape in pass_.shapes.items()
    }
    batches = exact._problem.batches
    for i in range(len(batches)):
        pass_.add(batches[i], total)
    return {name: squares / exact.count for name, squares in total.items()}


def _is_plain(objective: Objective) -> bool:
    return type(objective) is SquaredError or (type(objective) is CrossEntropy and objective.weight is None)


def _check_graph(surface: LossSurface) -> None:
    """Refuse networks that are not affine in each single weight."""
    graph = trace_graph(surface.write().eval(), surface.example_inputs())
    places: Counter[str] = Counter()  # of a shared parameter by its first name
    for node in graph.nodes:
        if node.op == "placeholder":
            name = graph.weights.get(node.name, "")
            places[name] += len(node.users)
            if name in graph.parameters and places[name] > 1:
                raise CapabilityError(f"{name} acts at {places[name]} places; a path may meet it twice.")
        elif node.op == "call_function":
            parts = str(node.target).split(".")
            name = parts[1] if len(parts) > 1 else str(node.target)
            if name not in PIECEWISE_LINEAR and "getitem" not in str(node.target):
                raise CapabilityError(f"the network uses {name}, which is not piecewise linear.")


def _is_simple(layer: nn.Module, kind: str) -> bool:
    """Whether a layer applies its weight and bias as torch's own does, and pads with zeros by a number."""
    plain = {nn.Linear.forward, nn.Conv2d.forward, _BatchNorm.forward}
    if kind not in ("weight", "bias") or type(layer).forward not in plain:
        return False
    return not isinstance(layer, nn.Conv2d) or (
        layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    )


class _Pass:
    """A private copy of the network that keeps what enters and leaves its layers."""

    def __init__(self, surface: LossSurface, whole: bool) -> None:
        self.whole = whole
        self.model = surface.write().eval()
        self.objective = surface._problem.objective
        self.shapes = dict(zip(surface.names, surface.space.shapes, strict=True))
        self.layers: dict[str, nn.Module] = {}
        for parameter in self.shapes:
            owner, _, kind = parameter.rpartition(".")
            layer = self.model.get_submodule(owner)
            if not isinstance(layer, nn.Linear | nn.Conv2d | _BatchNorm) or not _is_simple(layer, kind):
                raise CapabilityError(
                    f"{parameter} belongs to a {type(layer).__name__}; only linear, 2-D convolutional and "
                    "batch-normalization layers have a structured pass."
                )
            self.layers[owner] = layer
        self.kept: dict[str, list[tuple[Tensor, Tensor]]] = {}
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)  # slopes of outputs are wanted, not of weights
        for owner, layer in self.layers.items():
            layer.register_forward_hook(self._keeper(owner))

    def _keeper(self, owner: str) -> Any:
        def keep(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            output = output if output.requires_grad else output.requires_grad_()
            self.kept.setdefault(owner, []).append((inputs[0].detach(), output))
            return output.clone()  # the next operation may write in place

        return keep

    def add(self, batch: Any, total: dict[str, Tensor]) -> None:
        """Add the sum over a batch of the squared derivatives."""
        self.kept.clear()
        self.lengths: dict[str, Tensor] = {}
        inputs, targets = batch
        found = self.model(*inputs) if isinstance(inputs, tuple | list) else self.model(inputs)
        self._check(found, targets)
        outputs = {owner: calls[0][1] for owner, calls in self.kept.items()}
        for factor in _factors(self.objective, found.detach()):
            weighted = (found * factor).sum()
            slopes = torch.autograd.grad(
                weighted, list(outputs.values()), retain_graph=True, allow_unused=True
            )
            for owner, slope in zip(outputs, slopes, strict=True):
                if slope is not None:
                    self._square(owner, self.kept[owner][0][0], slope, total)

    def _check(self, found: Any, targets: Any) -> None:
        if not isinstance(found, Tensor) or found.ndim != 2 or found.shape[1] > MOST_OUTPUTS:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise CapabilityError(
                f"the outputs are {shape}; a structured pass needs (n, C) with few columns."
            )
        ignored = self.objective.ignore_index if isinstance(self.objective, CrossEntropy) else None
        if ignored is not None and not targets.is_floating_point() and bool((targets == ignored).any()):
            raise CapabilityError("some targets are ignored; the structured pass does not leave them out.")
        for owner in self.layers:
            if len(self.kept.get(owner, [])) != 1:
                raise CapabilityError(
                    f"{owner} was called {len(self.kept.get(owner, []))} times in a pass; once is needed."
                )

    def _square(self, owner: str, x: Tensor, slope: Tensor, total: dict[str, Tensor]) -> None:
        """Add the squares for a layer, from what enters it and the slope of what leaves."""
        layer = self.layers[owner]
        if isinstance(layer, _BatchNorm):
            found = {
                "weight": _each(slope * _normal(layer, x)).square().sum(0),
                "bias": _each(slope).square().sum(0),
            }
        elif isinstance(layer, nn.Conv2d):
            sizes: Any = (layer.kernel_size, layer.dilation, layer.padding, layer.stride)
            slope = slope.flatten(2).mT
            found = {
                "weight": _squared_sums(F.unfold(x, *sizes).mT, slope, layer.groups),
                "bias": slope.sum(1).square().sum(0),
            }
        elif x.ndim == 2 and not self.whole:
            if owner not in self.lengths:
                self.lengths[owner] = x.square().sum(1)
            lengths = slope.square().sum(1)
            found = {"weight": lengths @ self.lengths[owner], "bias": lengths.sum()}
        else:
            x, slope = (t.reshape(len(t), -1, t.shape[-1]) for t in (x, slope))
            found = {"weight": _squared_sums(x, slope, 1), "bias": slope.sum(1).square().sum(0)}
        for kind, squares in found.items():
            if (name := f"{owner}.{kind}".lstrip(".")) in total:
                total[name] += squares.reshape(total[name].shape) if self.whole else squares.sum()


def _normal(layer: _BatchNorm, x: Tensor) -> Tensor:
    """What a batch normalization multiplies by its weight."""
    plain = F.batch_norm(x, layer.running_mean, layer.running_var, None, None, False, 0.0, layer.eps)
    return plain.detach()


def _each(t: Tensor) -> Tensor:
    """(n, channels): summed over space."""
    return t.flatten(2).sum(2) if t.ndim > 2 else t


def _squared_sums(x: Tensor, slope: Tensor, groups: int) -> Tensor:
    """Sum over examples of the square of ``sum_l slope[l] x[l]'``: (outputs, inputs of a group)."""
    if x.shape[1] == 1 and groups == 1:
        return slope[:, 0].square().T @ x[:, 0].square()
    ins, outs = x.shape[2] // groups, slope.shape[2] // groups
    x, slope = x.unflatten(2, (groups, ins)), slope.unflatten(2, (groups, outs))
    total = x.new_zeros(groups, outs, ins)
    step = max(1, BLOCK // (groups * outs * ins))
    for at in range(0, len(x), step):
        rows = slice(at, at + step)
        total += torch.einsum("nlgo,nlgi->ngoi", slope[rows], x[rows]).square().sum(0)
    return total.flatten(0, 1)


def _factors(objective: Objective, outputs: Tensor) -> list[Tensor]:
    """Matrices (n, C) whose outer products with themselves, summed, are S for each example."""
    columns = torch.eye(outputs.shape[1], dtype=outputs.dtype, device=outputs.device)
    if isinstance(objective, SquaredError):
        return [math.sqrt(2.0 * objective.factor) * column.expand(outputs.shape) for column in columns]
    p = outputs.softmax(1)
    return [p[:, c : c + 1].sqrt() * (column - p) for c, column in enumerate(columns)]
