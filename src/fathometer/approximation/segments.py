"""Linear pieces of a trained network along a segment of its input space.

Inside one activation pattern every unit is an affine function of the position t on the
segment. One pass in forward mode at a point gives each unit's value and slope there, hence
the whole interval on which the pattern holds: its ends are the nearest places
where some unit changes side. Points are then put into the gaps, all gaps at once, until the
segment is covered: one row of a batch for each region, whatever the size of the network.

Any module works whose only nonlinear operations are ReLU-like (listed in `KINKS`): convolutions,
batch normalization in evaluation mode, residual sums and functional calls included.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fathometer.approximation.network import SkipNetwork
from fathometer.errors import BudgetError, InputError
from fathometer.results import Result
from fathometer.types import Kind

if TYPE_CHECKING:
    from fathometer.drawing.picture import Picture

KINKS = ("relu", "leaky_relu", "prelu", "rrelu", "hardtanh", "relu6", "threshold", "clamp", "abs", "maximum",
         "minimum", "max_pool1d", "max_pool2d", "hardsigmoid")  # fmt: skip
_CURVED = {
    "gelu", "elu", "selu", "celu", "silu", "mish", "softplus", "sigmoid", "tanh", "softmax", "log_softmax",
    "layer_norm", "group_norm", "instance_norm", "exp", "log", "sin", "cos", "sqrt", "pow", "logsigmoid",
    "hardswish", "scaled_dot_product_attention", "multi_head_attention_forward", "normalize", "softsign",
    "tanhshrink",
}  # fmt: skip
_STEPS = {"sign", "ge", "gt", "le", "lt", "floor", "round", "ceil", "heaviside", "hardshrink", "argmax"}
_UNFOLLOWED = {"max", "min", "amax", "amin", "max_pool3d", "adaptive_max_pool2d", "adaptive_max_pool1d"}
_LARGER = {"maximum", "minimum", "max", "min", "fmax", "fmin"}
_SHARE = (math.sqrt(5) - 1) / 2  # breaks of constructed networks are binary fractions; this is none


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PieceCount(Result, int):
    """Linear pieces along a segment; also the whole number itself.

    Attributes:
        value: Maximal intervals on which the output is affine.
        regions: Intervals on which no unit changes side; at least ``value``.
        breaks: (value - 1,) where the output bends, as shares of the segment in (0, 1).
        ceiling: Most pieces that these units could make along any line (text, for it may be
            astronomical): each layer of n units multiplies by n + 1.
        units: Units that can bend, over all layers.
        outputs: (value + 1, outputs) output at the ends of the pieces.
    """

    value: int
    regions: int
    breaks: np.ndarray
    ceiling: str
    units: int
    outputs: np.ndarray

    def __new__(cls, *, value: int, **fields: Any) -> "PieceCount":
        """The number is the value."""
        return int.__new__(cls, value)

    @property
    def kind(self) -> Kind:
        """A count, exact up to breaks closer than 1e-12 of the segment."""
        return "exact"

    @property
    def error(self) -> float:
        """Zero."""
        return 0.0

    def __str__(self) -> str:
        most = int(self.ceiling)
        limit = str(most) if most < 10**6 else f"10^{math.log10(most):.1f}"
        regions = f"{self.regions} activation regions"
        return f"{self.value} linear pieces ({regions}; at most {limit} for {self.units} units)"

    def picture(self) -> "Picture":
        """The output along the segment, with its breaks."""
        from fathometer.approximation.pictures import segment_picture

        return segment_picture(self)


def pieces(model: Any, line: Any, *, limit: int = 200_000) -> PieceCount:
    """Count the linear pieces of a ReLU network along a segment.

    Args:
        model: An ``nn.Module`` (copied, in float64 and evaluation mode), a `SkipNetwork`, or an answer of
            `approximate`.
        line: ``(start, end)``: two inputs of one example each, without the batch axis;
            numbers for a network of one input.
        limit: Most regions to follow.

    Returns:
        The count; it is an ``int`` with the breaks and the architecture's ceiling.

    Raises:
        InputError: If the ends differ in shape or coincide, or an operation of the model is
            not piecewise linear; the message names it.
        BudgetError: If there are more than ``limit`` regions.
    """
    network = getattr(model, "network", model)
    module = network.module if isinstance(network, SkipNetwork) else model
    if isinstance(network, SkipNetwork) and network.steps:
        raise InputError("model has step units, which jump; pieces are counted for continuous networks.")
    if not isinstance(module, nn.Module):
        raise InputError(f"model is a {type(model).__name__}; pass an nn.Module or a SkipNetwork.")
    start, end = _ends(line)
    if isinstance(network, SkipNetwork) and start.ndim == 0:
        start, end = start[None], end[None]
    module = copy.deepcopy(module).double().eval()
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    walk = _Walk(module, start.to(device), (end - start).to(device))
    return walk.count(limit)


def _ends(line: Any) -> tuple[Tensor, Tensor]:
    try:
        first, second = line
        start, end = (torch.as_tensor(v, dtype=torch.float64) for v in (first, second))
    except (TypeError, ValueError):
        raise InputError("line must be a pair (start, end) of inputs.") from None
    if start.shape != end.shape:
        raise InputError(f"line has ends of shapes {tuple(start.shape)} and {tuple(end.shape)}.")
    if not (torch.isfinite(start).all() and torch.isfinite(end).all()):
        raise InputError("line has an end that is not finite.")
    if torch.equal(start, end):
        raise InputError("line starts where it ends; two different inputs are needed.")
    return start.detach(), end.detach()


class _Walk:
    """Regions of one model along one segment."""

    def __init__(self, module: nn.Module, start: Tensor, direction: Tensor) -> None:
        self.module, self.start, self.direction = module, start, direction
        self.layers: list[int] = []

    def count(self, limit: int) -> PieceCount:
        """Cover [0, 1] with regions, then join those with the same slope."""
        regions: list[tuple[float, float, np.ndarray, np.ndarray]] = []
        gaps = [(0.0, 1.0)]
        while gaps:
            block, gaps = gaps[:512], gaps[512:]
            inner = [a + _SHARE * (b - a) for a, b in block]
            t = torch.tensor(inner, dtype=torch.float64, device=self.start.device)
            value, slope, low, high, tied = self._pass(t)
            for i, (a, b) in enumerate(block):
                if tied[i]:  # a unit is exactly zero here: the point is a break, not inside a region
                    gaps += [(c, d) for c, d in ((a, inner[i]), (inner[i], b)) if d - c > 1e-12]
                    continue
                left, right = max(a, float(low[i])), min(b, float(high[i]))
                regions.append((left, right, value[i] - float(t[i]) * slope[i], slope[i]))
                gaps += [(c, d) for c, d in ((a, left), (right, b)) if d - c > 1e-12]
            if len(regions) > limit:
                raise BudgetError(
                    f"the model has more than {limit} regions on the line; raise limit= or shorten it."
                )
        regions.sort(key=lambda r: r[0])
        self._check_affine(regions)
        return self._joined(regions)

    def _pass(self, t: Tensor) -> tuple[np.ndarray, np.ndarray, Tensor, Tensor, Tensor]:
        """Output, its slope, the region's ends, and whether t is itself a break, for a batch of t."""
        shape = (len(t),) + (1,) * self.start.ndim
        x = self.start + t.reshape(shape) * self.direction
        watch = _Watch(t)
        with torch.no_grad(), forward_ad.dual_level():
            dual = forward_ad.make_dual(x, self.direction.expand_as(x).contiguous())
            with watch:
                out = self.module(dual)
            if not isinstance(out, Tensor):
                raise InputError(f"model gave a {type(out).__name__}; one tensor is needed.")
            value, slope = forward_ad.unpack_dual(out)
            slope = torch.zeros_like(value) if slope is None else slope
        self.layers = watch.layers
        return (
            value.reshape(len(t), -1).cpu().numpy(),
            slope.reshape(len(t), -1).cpu().numpy(),
            watch.low,
            watch.high,
            watch.tied,
        )

    def _check_affine(self, regions: list[tuple[float, float, np.ndarray, np.ndarray]]) -> None:
        """The model at other points of some regions, near both ends too, must lie on the region's line."""
        wide = sorted(regions, key=lambda r: r[0] - r[1])[:64]
        tested = [(share, region) for share in (0.001, 0.23, 0.77, 0.999) for region in wide]
        t = torch.tensor([a + share * (b - a) for share, (a, b, _, _) in tested], dtype=torch.float64)
        value = self._pass(t.to(self.start.device))[0]
        for i, (_, (a, b, base, slope)) in enumerate(tested):
            expected = base + float(t[i]) * slope
            scale = np.abs(value[i]).max() + np.abs(slope).max() + 1e-300
            if np.abs(value[i] - expected).max() > 1e-8 * scale:
                raise InputError(
                    f"model is not affine between the shares {a:.6g} and {b:.6g} of the line, although no "
                    f"known unit changes side there; only these may bend: {', '.join(KINKS)}."
                )

    def _joined(self, regions: list[tuple[float, float, np.ndarray, np.ndarray]]) -> PieceCount:
        scale = max(float(np.abs(s).max()) for _, _, _, s in regions) or 1.0
        kept = [regions[0]]
        for region in regions[1:]:
            if np.abs(region[3] - kept[-1][3]).max() > 1e-9 * scale:
                kept.append(region)
        breaks = np.array([r[0] for r in kept[1:]])
        ends = [kept[0][2], *(r[2] + r[0] * r[3] for r in kept[1:]), kept[-1][2] + kept[-1][3]]
        return PieceCount(
            value=len(kept),
            regions=len(regions),
            breaks=breaks,
            ceiling=str(math.prod(n + 1 for n in self.layers)),
            units=sum(self.layers),
            outputs=np.array(ends),
        )


class _Watch(TorchFunctionMode):
    """Sees every operation of a forward pass; narrows the region at each that bends."""

    def __init__(self, t: Tensor) -> None:
        super().__init__()
        self.t = t
        self.low, self.high = torch.full_like(t, -math.inf), torch.full_like(t, math.inf)
        self.tied = torch.zeros_like(t, dtype=torch.bool)
        self.layers: list[int] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        options = kwargs or {}
        name = getattr(func, "__name__", "").strip("_")
        if name in _CURVED and any(_tangent(a) is not None for a in args):
            raise InputError(
                f"model uses {name}, which is not piecewise linear; pieces need {', '.join(KINKS)}."
            )
        if name in _STEPS and any(_tangent(a) is not None for a in args):
            raise InputError(f"model uses {name}, which jumps; pieces are counted for continuous networks.")
        self._bend(name, args, options)
        return func(*args, **options)

    def _bend(self, name: str, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        bent: Any = args[0] if args else None
        if name in _LARGER and len(args) > 1 and isinstance(args[1], Tensor):
            name, bent = "relu", bent - args[1]  # max(a, b) = relu(a - b) + b
        dz = _tangent(bent)
        if dz is None:
            return
        z = forward_ad.unpack_dual(bent).primal
        if name in ("relu", "leaky_relu", "prelu", "rrelu", "abs"):
            self._side(z, dz, 0.0)
        elif name in ("threshold", "hardtanh", "relu6", "hardsigmoid", "clamp", "clamp_min", "clamp_max"):
            for bound in _bounds(name, args, options):
                self._side(z, dz, bound)
        elif name in ("max_pool2d", "max_pool1d"):
            self._pool(z, dz, args, options, 2 if name == "max_pool2d" else 1)
        elif name in _UNFOLLOWED:
            raise InputError(f"model uses {name}, which is not followed; pieces need {', '.join(KINKS)}.")

    def _side(self, z: Tensor, dz: Tensor, at: float) -> None:
        """Units change side where z = at: keep the part of the line around t with this side."""
        self.layers.append(z[0].numel())
        self._narrow((z - at).reshape(len(self.t), -1), dz.reshape(len(self.t), -1))

    def _narrow(self, z: Tensor, dz: Tensor) -> None:
        self.tied |= ((z == 0) & (dz != 0)).any(dim=1)
        crossing = -z / dz
        crossing = torch.where((dz == 0) | ~torch.isfinite(crossing), math.inf, crossing)
        ahead = torch.where(crossing > 0, crossing, math.inf).amin(dim=1)
        behind = torch.where(crossing < 0, crossing, -math.inf).amax(dim=1)
        self.high = torch.minimum(self.high, self.t + ahead)
        self.low = torch.maximum(self.low, self.t + behind)

    def _pool(self, z: Tensor, dz: Tensor, args: tuple[Any, ...], options: dict[str, Any], d: int) -> None:
        size = _pair(_argument(args, options, 1, "kernel_size", None), d)
        stride = _pair(_argument(args, options, 2, "stride", None) or size, d)
        padding = _pair(_argument(args, options, 3, "padding", 0), d)
        dilation = _pair(_argument(args, options, 4, "dilation", 1), d)
        if _argument(args, options, 5, "ceil_mode", False):
            raise InputError("model uses max pooling with ceil_mode, which is not followed; set it to False.")
        if d == 1:
            z, dz = z[..., None, :], dz[..., None, :]
            size, stride, padding, dilation = ((1, *size), (1, *stride), (0, *padding), (1, *dilation))
        pad = (padding[1], padding[1], padding[0], padding[0])
        unfold = nn.Unfold(size, dilation=dilation, stride=stride)
        lowest = float(z.min()) - 1.0 - float(z.abs().max())
        windows = [
            unfold(nn.functional.pad(v, pad, value=fill)).reshape(len(z), z.shape[1], math.prod(size), -1)
            for v, fill in ((z, lowest), (dz, 0.0))
        ]
        top = windows[0].argmax(dim=2, keepdim=True)
        gap, slope = (v.gather(2, top) - v for v in windows)
        real = unfold(nn.functional.pad(torch.ones_like(z), pad)).reshape(windows[0].shape) > 0
        gap, slope = torch.where(real, gap, 1.0), torch.where(real, slope, 0.0)
        self.layers.append(gap[0].numel() - top[0].numel())
        self._narrow(gap.reshape(len(z), -1), slope.reshape(len(z), -1))


def _tangent(value: Any) -> Tensor | None:
    return forward_ad.unpack_dual(value).tangent if isinstance(value, Tensor) else None


def _argument(args: tuple[Any, ...], options: dict[str, Any], position: int, name: str, default: Any) -> Any:
    return args[position] if len(args) > position else options.get(name, default)


def _threshold(args: tuple[Any, ...], options: dict[str, Any]) -> float:
    at = float(_argument(args, options, 1, "threshold", 0.0))
    if float(_argument(args, options, 2, "value", 0.0)) != at:
        raise InputError("model uses threshold with a jump; pieces are counted for continuous networks.")
    return at


def _bounds(name: str, args: tuple[Any, ...], options: dict[str, Any]) -> list[float]:
    if name == "relu6":
        return [0.0, 6.0]
    if name == "threshold":
        return [_threshold(args, options)]
    if name == "hardsigmoid":
        return [-3.0, 3.0]
    if name == "hardtanh":
        limits = [_argument(args, options, 1, "min_val", -1.0), _argument(args, options, 2, "max_val", 1.0)]
    elif name == "clamp_max":
        limits = [_argument(args, options, 1, "max", None)]
    else:
        limits = [_argument(args, options, 1, "min", None), _argument(args, options, 2, "max", None)]
    if any(isinstance(v, Tensor) and v.numel() > 1 for v in limits):
        raise InputError("model uses clamp with tensors, which is not followed; use numbers.")
    return [float(v) for v in limits if v is not None]


def _pair(value: Any, d: int) -> tuple[int, ...]:
    return tuple(int(v) for v in value) if isinstance(value, tuple | list) else (int(value),) * d
