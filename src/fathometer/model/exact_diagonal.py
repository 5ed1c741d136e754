"""The diagonal of the Gauss-Newton matrix, and of many Hessians, without sampling.

With S the Hessian of the loss in the outputs of an example and ``S = sum_k s_k s_k'`` (`roots`), the
diagonal is the mean over examples of ``sum_k (d (s_k . f) / d theta)^2``. For a linear layer the
derivative of one example is an outer product, so that its square needs no gradient of
single examples: as many backward passes as columns give everything, one less than classes for a softmax.

Where the network is locally an affine function of each single weight, the Hessian has the same
diagonal: piecewise linear operations, and no weight that acts twice. That is read off the graph
of the network, never guessed; otherwise the request is refused with the reason.

Traces need less: for a linear layer the squares of an outer product sum to a product of two
squared lengths, so that a trace by tensors costs those backward passes without any weight gradient. In
chains of linear layers all columns go back at once: one product of matrices for each layer.
"""

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from fathometer.errors import CapabilityError, InputError
from fathometer.model.factors import gauss_newton_factors
from fathometer.model.losses import CrossEntropy, SquaredError, length, rows_of
from fathometer.model.roots import output_roots
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
CHAIN = (
    nn.Linear,
    nn.Conv2d,
    nn.ReLU,
    nn.LeakyReLU,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.Dropout,
    nn.Identity,
    nn.Flatten,
)
"""Layers, affine in pieces, whose plain sequence needs no graph to be known."""
EXAMPLES = 256
"""Examples at a time: what all columns leave behind on their way back stays near the cache."""
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

    Cost: one backward pass of the data for each output, without weight gradients, for linear layers
    (2.2 gradients for a perceptron of ten classes). The passes run in the surface's type, the
    sums in float64: ``exact_trace(surface.double())`` is exact to 1e-12, twice as dear.

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
    """The diagonal in the shape of every parameter, in float64, or its sums (0-d)."""
    surface = surface.double() if whole else surface
    if type(surface._problem.objective) not in (SquaredError, CrossEntropy):
        raise CapabilityError(f"the loss {surface.loss} has no closed form of its curvature here.")
    pass_ = _Pass(surface, whole)
    total = {
        name: torch.zeros(shape if whole else (), dtype=torch.float64, device=surface.space.device)
        for name, shape in pass_.shapes.items()
    }
    batches = surface._problem.batches
    for i in range(len(batches)):
        batch = batches[i]
        for at in range(0, length(batch[1]), EXAMPLES):
            pass_.add(rows_of(batch, slice(at, at + EXAMPLES)), total)
    return {name: squares / surface.count for name, squares in total.items()}


def _check_graph(surface: LossSurface) -> None:
    """Refuse networks that are not affine in each single weight."""
    if _is_chain(surface.write()):
        return
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


def _is_chain(model: nn.Module) -> bool:
    """Whether a model is a sequence of known layers, of weights of their own."""
    layers = [m for m in model.modules() if not isinstance(m, nn.Sequential)]
    sequences = [m for m in model.modules() if isinstance(m, nn.Sequential)]
    if not isinstance(model, (nn.Sequential, *CHAIN)) or any(type(layer) not in CHAIN for layer in layers):
        return False
    calls = sum(len(m) for m in sequences) == len(layers) + len(sequences) - 1 if sequences else True
    weights = [p for layer in layers for p in layer.parameters()]
    return calls and len({p.data_ptr() for p in weights}) == len(weights)


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
        self.batched = _is_chain(self.model) and not any(
            isinstance(m, nn.Conv2d) for m in self.model.modules()
        )
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
        """Add the sum over some examples of the squared derivatives."""
        self.kept.clear()
        inputs, targets = batch
        found = self.model(*inputs) if isinstance(inputs, tuple | list) else self.model(inputs)
        self._check(found)
        outputs = {owner: calls[0][1] for owner, calls in self.kept.items()}
        roots = output_roots(self.objective, found.detach(), targets)
        for owner, slopes in zip(outputs, self._slopes(found, list(outputs.values()), roots), strict=True):
            if slopes is not None:
                self._square(owner, self.kept[owner][0][0], slopes, total)

    def _slopes(self, found: Tensor, outputs: list[Tensor], roots: Tensor) -> list[Tensor | None]:
        """Derivatives (k, ...) of the outputs along all ``roots`` (k, n, C), where they depend on a layer."""
        if self.batched:
            back = torch.autograd.grad(found, outputs, roots, is_grads_batched=True, allow_unused=True)
            return list(back)
        single = [
            torch.autograd.grad(found, outputs, root, retain_graph=True, allow_unused=True) for root in roots
        ]
        return [None if s[0] is None else torch.stack(s) for s in zip(*single, strict=True)]

    def _check(self, found: Any) -> None:
        if not isinstance(found, Tensor) or found.ndim != 2 or found.shape[1] > MOST_OUTPUTS:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise CapabilityError(
                f"the outputs are {shape}; a structured pass needs (n, C) with few columns."
            )
        for owner in self.layers:
            if len(self.kept.get(owner, [])) != 1:
                raise CapabilityError(
                    f"{owner} was called {len(self.kept.get(owner, []))} times in a pass; once is needed."
                )

    def _square(self, owner: str, x: Tensor, slope: Tensor, total: dict[str, Tensor]) -> None:
        """Add the squares for a layer, from what enters it and the slopes (k, ...) of what leaves."""
        layer = self.layers[owner]
        if isinstance(layer, _BatchNorm):
            found = {
                "weight": _each(slope * _normal(layer, x)).square().sum((0, 1)),
                "bias": _each(slope).square().sum((0, 1)),
            }
        elif isinstance(layer, nn.Conv2d):
            sizes: Any = (layer.kernel_size, layer.dilation, layer.padding, layer.stride)
            slope = slope.flatten(3).mT
            found = {
                "weight": _squared_sums(F.unfold(x, *sizes).mT, slope, layer.groups),
                "bias": slope.sum(2).square().sum((0, 1)),
            }
        elif x.ndim == 2 and not self.whole:
            lengths = torch.linalg.vector_norm(slope, dim=(0, 2)).double().square()
            entering = torch.linalg.vector_norm(x, dim=1).double().square()
            found = {"weight": lengths @ entering, "bias": lengths.sum()}
        else:
            x, slope = (
                x.reshape(len(x), -1, x.shape[-1]),
                slope.reshape(*slope.shape[:2], -1, slope.shape[-1]),
            )
            found = {"weight": _squared_sums(x, slope, 1), "bias": slope.sum(2).square().sum((0, 1))}
        for kind, squares in found.items():
            if (name := f"{owner}.{kind}".lstrip(".")) in total:
                total[name] += (squares.reshape(total[name].shape) if self.whole else squares.sum()).double()


def _normal(layer: _BatchNorm, x: Tensor) -> Tensor:
    """What a batch normalization multiplies by its weight."""
    plain = F.batch_norm(x, layer.running_mean, layer.running_var, None, None, False, 0.0, layer.eps)
    return plain.detach()


def _each(t: Tensor) -> Tensor:
    """(k, n, channels): summed over space."""
    return t.flatten(3).sum(3) if t.ndim > 3 else t


def _squared_sums(x: Tensor, slope: Tensor, groups: int) -> Tensor:
    """Sum over n and k of the square of ``sum_l slope[k, n, l] x[n, l]'``: (outputs, inputs of a group)."""
    if x.shape[1] == 1 and groups == 1:
        return slope[:, :, 0].square().sum(0).T @ x[:, 0].square()
    ins, outs = x.shape[2] // groups, slope.shape[3] // groups
    x, slope = x.unflatten(2, (groups, ins)), slope.unflatten(3, (groups, outs))
    total = x.new_zeros(groups, outs, ins)
    step = max(1, BLOCK // (groups * outs * ins))
    for column in slope:
        for at in range(0, len(x), step):
            rows = slice(at, at + step)
            total += torch.einsum("nlgo,nlgi->ngoi", column[rows], x[rows]).square().sum(0)
    return total.flatten(0, 1)
