"""Networks as torch modules and as ONNX files, in float64 unless asked otherwise.

Units of one layer are one matrix product. A layered network reads the layer before;
a skip network reads everything before, so its features are concatenated.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from fathometer.approximation.network import SkipNetwork
from fathometer.errors import CapabilityError, InputError

_DOUBLE = 11  # onnx.TensorProto.DOUBLE


class Units(nn.Module):
    """ReLU or step of each feature, by a fixed mask: the step is 1 at zero."""

    steps: Tensor

    def __init__(self, steps: Tensor) -> None:
        super().__init__()
        self.register_buffer("steps", steps)
        self.kinds = "step" if steps.all() else "mixed" if steps.any() else "relu"

    def forward(self, z: Tensor) -> Tensor:
        """Apply to the last axis."""
        if self.kinds == "relu":
            return torch.relu(z)
        stepped = (z >= 0).to(z.dtype)
        return stepped if self.kinds == "step" else torch.where(self.steps, stepped, torch.relu(z))


class GraphModule(nn.Module):
    """A `SkipNetwork` as a torch module: points (n, d) to (n, 1); (n,) to (n,) if d is 1.

    The layer of a unit is one more than the deepest unit that it reads, so the depth
    is that of the network; unit order inside the module follows the layers.
    """

    def __init__(self, network: SkipNetwork, dtype: torch.dtype) -> None:
        super().__init__()
        self.skip = network.wiring == "skip"
        d, layers = network.inputs, network.layers
        order = np.concatenate([np.arange(d), d + np.argsort(layers, kind="stable")])
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        units = list(network.definition())
        first, linears, kinds = 0, [], []
        for layer in range(1, network.depth + 1):
            members = np.flatnonzero(layers == layer)
            stop = d + int((layers < layer).sum())
            rows = [units[j][:2] for j in members]
            linears.append(_linear(rows, place, first, stop, dtype))
            kinds.append(Units(torch.tensor([units[j][2] == "step" for j in members])))
            first = 0 if self.skip else stop
        self.layers = nn.ModuleList(linears)
        self.activations = nn.ModuleList(kinds)
        self.output = _linear([network.output], place, first, d + network.units, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs in the dtype of the weights."""
        features = x.to(self.output.weight.dtype)
        features = features[:, None] if x.ndim == 1 else features
        for linear, units in zip(self.layers, self.activations, strict=True):
            active = units(linear(features))
            features = torch.cat([features, active], dim=-1) if self.skip else active
        y = self.output(features)
        return y[:, 0] if x.ndim == 1 else y


def named_dtype(name: str) -> torch.dtype:
    """The torch dtype of a name such as "float32"."""
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def to_module(network: SkipNetwork, dtype: torch.dtype = torch.float64) -> GraphModule:
    """A fresh module with the network's weights, whatever torch's default dtype is."""
    return GraphModule(network, dtype)


def from_module(module: nn.Module) -> SkipNetwork:
    """The exact graph of a module: one of ours, or a chain of ``nn.Linear`` and ``nn.ReLU``.

    Weights of any float dtype are taken as the exact numbers they are.

    Raises:
        InputError: If it holds another layer, or does not end in one output.
    """
    if isinstance(module, GraphModule):
        return _from_graph(module)
    linears, kinds = _layers(module)
    if len(linears) != len(kinds) + 1 or linears[-1].out_features != 1:
        raise InputError("network: it must end in a linear layer with one output.")
    units: list[Any] = []
    first, width = 0, linears[0].in_features
    for linear, kind in zip(linears, kinds, strict=False):
        steps = kind.steps.tolist() if isinstance(kind, Units) else [False] * linear.out_features
        units += _read_rows(linear, first, steps)
        first, width = linears[0].in_features + len(units) - linear.out_features, linear.out_features
    (output,) = _read_rows(linears[-1], first, [False])
    if width != linears[-1].in_features:
        raise InputError(f"network: {linears[-1]} does not fit the {width} units before it.")
    return SkipNetwork(linears[0].in_features, units, output[:2])


def _layers(module: nn.Module) -> tuple[list[nn.Linear], list[nn.ReLU | Units]]:
    """Linear layers and activations, which take turns."""
    linears: list[nn.Linear] = []
    kinds: list[nn.ReLU | Units] = []
    for layer in _chain(module):
        if isinstance(layer, nn.Linear):
            if len(linears) > len(kinds):
                raise InputError(f"network: {layer} follows another linear layer; merge the two first.")
            linears.append(layer)
        elif isinstance(layer, nn.ReLU | Units):
            if len(kinds) >= len(linears):
                raise InputError(f"network: {layer} does not follow a linear layer.")
            kinds.append(layer)
        elif not isinstance(layer, nn.Identity | nn.Dropout):
            raise InputError(
                f"network: the layer {layer} cannot be read exactly; nn.Linear, nn.ReLU, nn.Identity and "
                "nn.Dropout can."
            )
    return linears, kinds


def _from_graph(module: GraphModule) -> SkipNetwork:
    layers: Any = list(zip(module.layers, module.activations, strict=True))
    output: Any = module.output
    d = layers[0][0].in_features if layers else output.in_features
    units: list[Any] = []
    first = 0
    for linear, kinds in layers:
        units += _read_rows(linear, first, kinds.steps.tolist())
        first = 0 if module.skip else d + len(units) - linear.out_features
    (row,) = _read_rows(output, first, [False])
    return SkipNetwork(d, units, row[:2])


def _chain(module: nn.Module) -> list[nn.Module]:
    if isinstance(module, nn.Sequential):
        return [layer for part in module for layer in _chain(part)]
    return [module]


def _read_rows(linear: Any, first: int, steps: list[bool]) -> list[Any]:
    weight = linear.weight.detach().double().cpu().numpy()
    bias = np.zeros(len(weight)) if linear.bias is None else linear.bias.detach().double().cpu().numpy()
    return [
        ({first + i: float(w) for i, w in enumerate(row)}, float(b), "step" if step else "relu")
        for row, b, step in zip(weight, bias, steps, strict=True)
    ]


def to_onnx(network: SkipNetwork, path: str | Path, dtype: torch.dtype = torch.float64) -> Path:
    """Write the network as ONNX: input ``x`` (n, d), output ``y`` (n, 1).

    The graph is written operator by operator, so what is in the file is exactly the
    weights of the network.

    Raises:
        CapabilityError: If onnx is not installed.
    """
    try:
        onnx: Any = import_module("onnx")
        numpy_helper: Any = import_module("onnx.numpy_helper")
    except ImportError:
        raise CapabilityError('writing ONNX needs onnx; pip install "fathometer[onnx]".') from None
    module = to_module(network, dtype)
    helper, kind = onnx.helper, onnx.TensorProto.DOUBLE if dtype == torch.float64 else onnx.TensorProto.FLOAT
    nodes, constants = [], []

    def constant(name: str, value: Tensor) -> str:
        constants.append(numpy_helper.from_array(value.detach().numpy(), name))
        return name

    def affine(linear: Any, source: str, name: str) -> None:
        weight = constant(f"{name}_weight", linear.weight.T.contiguous())
        nodes.append(helper.make_node("MatMul", [source, weight], [f"{name}_product"]))
        bias = constant(f"{name}_bias", linear.bias)
        nodes.append(helper.make_node("Add", [f"{name}_product", bias], [name]))

    source = "x"
    layers: Any = zip(module.layers, module.activations, strict=True)
    for i, (linear, units) in enumerate(layers, 1):
        affine(linear, source, f"z{i}")
        nodes += _activation(helper, units, f"z{i}", f"h{i}", kind, constant)
        if module.skip:
            nodes.append(helper.make_node("Concat", [source, f"h{i}"], [f"f{i}"], axis=-1))
        source = f"f{i}" if module.skip else f"h{i}"
    affine(module.output, source, "y")
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", kind, ["n", network.inputs])],
        [helper.make_tensor_value_info("y", kind, ["n", 1])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    target = Path(path)
    part = target.with_name(target.name + ".part")
    try:
        onnx.save(model, str(part))
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target


def _activation(helper: Any, units: Any, source: str, target: str, kind: int, constant: Any) -> list[Any]:
    """ONNX nodes of the units of one layer; ``constant(name, tensor)`` stores a constant."""
    if units.kinds == "relu":
        return [helper.make_node("Relu", [source], [target])]
    zero = constant(
        f"{target}_zero", torch.zeros((), dtype=torch.float64 if kind == _DOUBLE else torch.float32)
    )
    step = f"{target}_step" if units.kinds == "mixed" else target
    nodes = [
        helper.make_node("GreaterOrEqual", [source, zero], [f"{target}_sign"]),
        helper.make_node("Cast", [f"{target}_sign"], [step], to=kind),
    ]
    if units.kinds == "mixed":
        mask = constant(f"{target}_mask", units.steps)
        nodes.append(helper.make_node("Relu", [source], [f"{target}_relu"]))
        nodes.append(helper.make_node("Where", [mask, step, f"{target}_relu"], [target]))
    return nodes


def _linear(
    rows: list[tuple[Any, float]], place: np.ndarray, first: int, stop: int, dtype: torch.dtype
) -> Any:
    """A dense layer over the features first..stop-1 of the reordered network."""
    weight = np.zeros((len(rows), stop - first))
    for i, (weights, _) in enumerate(rows):
        for index, value in weights.items():
            weight[i, place[index] - first] = value
    # skip_init: the usual initialization would draw from the caller's global generator
    linear: Any = skip_init(nn.Linear, stop - first, len(rows), dtype=dtype)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(weight))
        linear.bias.copy_(torch.tensor([bias for _, bias in rows], dtype=torch.float64))
    return linear
