"""Every diagonal rescaling of the weights that leaves a network's function as it is.

For a rectifier, ``a * relu(x) = relu(a * x)`` with a > 0: the weights into a unit may grow
while those out of it shrink (Dinh, Pascanu, Bengio & Bengio 2017, def. 4 and 5). This
module finds all such moves of a given module: one log-scale a channel, one linear
equation an operation (`rules`, `layer_rules`), an exact null space (`scales`).

Sound by construction: an operation that is not understood grounds what it touches.
Cost: linear in the number of channels; the export of the graph takes longer.
"""

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn

from fathometer.errors import CapabilityError, InputError
from fathometer.model.tracing import TracedGraph, as_arguments, outputs_of, trace_graph
from fathometer.results import Result
from fathometer.sharpness import layer_rules  # noqa: F401 # pyright: ignore[reportUnusedImport] - registers its rules
from fathometer.sharpness.rules import Reader, Use
from fathometer.sharpness.scales import ScaleSpace, compact
from fathometer.types import Kind
from fathometer.work import numpy_generator

LOG_2 = math.log(2.0)


class Generators(Sequence[dict[str, Tensor]]):
    """One direction each: tensor name -> integer exponents, in the shape of the tensor."""

    def __init__(self, space: ScaleSpace, uses: dict[str, Use], shapes: dict[str, tuple[int, ...]]) -> None:
        self.parts = (space, uses, shapes)

    def __len__(self) -> int:
        return self.parts[0].dimension

    def __getitem__(self, j: Any) -> Any:
        if isinstance(j, slice):
            return [self[i] for i in range(*j.indices(len(self)))]
        if not -len(self) <= j < len(self):
            raise IndexError(j)
        z = np.zeros(len(self))
        z[j] = 1.0
        moved = log_scales(*self.parts, z)
        return {name: exponents for name, exponents in moved.items() if bool((exponents != 0).any())}


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Rescalings(Result):
    """The group of rescalings of one module.

    Attributes:
        dimension: Independent directions. Running means and unused weights count.
        generators: A basis with whole exponents, `Generators`.
        untreated: Operation or tensor -> why it was left as it is.
        tensors: Names of the parameters and buffers that some direction moves.
        model, example_inputs: What was given; not saved.
        invisible: Biases that nothing sees, with the scale of what they are added to; not saved.
    """

    dimension: int
    untreated: dict[str, str]
    tensors: tuple[str, ...]
    generators: Generators = field(metadata={"saved": False})
    model: nn.Module = field(metadata={"saved": False})
    example_inputs: tuple[Any, ...] = field(metadata={"saved": False})
    invisible: dict[str, Use] = field(default_factory=dict, metadata={"saved": False})

    @property
    def value(self) -> int:
        """The dimension."""
        return self.dimension

    @property
    def kind(self) -> Kind:
        """Exact, or a lower bound where something was not treated."""
        return "bound" if self.untreated else "exact"

    @property
    def error(self) -> float:
        """Zero: the equations are solved in rational arithmetic."""
        return 0.0

    def move(
        self, z: Any = None, *, seed: int | None = None, spread: float = 1.0, exact_bits: bool = False
    ) -> nn.Module:
        """A copy of the network at coordinates ``z`` of the group, or at random ones.

        Args:
            z: (dimension,) natural logarithms, one a generator.
            seed: Draw ``z`` from a normal distribution instead.
            spread: Standard deviation of the drawn ``z``.
            exact_bits: Round the factors to powers of two, so that no weight is rounded and
                the outputs are the same to the bit. Biases that nothing sees (of keys, before a
                normalization), free otherwise, then follow what they are added to: they cancel, but not to
                the bit.

        Raises:
            InputError: If neither or both of ``z`` and ``seed`` are given, ``z`` has the wrong
                length or is not finite, or a weight leaves the range of its type.
            CapabilityError: If the outputs on the example inputs changed.
        """
        if (z is None) == (seed is None):
            raise InputError("pass either z, one number for each generator, or seed.")
        if seed is not None:
            z = spread * numpy_generator(seed, "rescalings").standard_normal(self.dimension)
        z = np.asarray(z, dtype=np.float64)
        if z.shape != (self.dimension,):
            raise InputError(
                f"z has shape {z.shape}; the group has dimension {self.dimension}: pass ({self.dimension},)."
            )
        if not np.isfinite(z).all():
            raise InputError(f"z[{int(np.argmin(np.isfinite(z)))}] is not finite.")
        if exact_bits:
            z = np.round(z / LOG_2) * LOG_2
        logarithms = self.log_scales(z)
        if exact_bits:
            space, _, shapes = self.generators.parts
            logarithms |= log_scales(space, self.invisible, shapes, z)
        moved = scaled_copy(self.model, logarithms, exact_bits=exact_bits)
        check_same_function(self.model, moved, self.example_inputs, exact_bits=exact_bits)
        return moved

    def log_scales(self, z: np.ndarray) -> dict[str, Tensor]:
        """Tensor name -> logarithm of the factor of each entry at group coordinates ``z``, float64."""
        return log_scales(*self.generators.parts, z)

    def __str__(self) -> str:
        left = f", {len(self.untreated)} left as they are" if self.untreated else ""
        return f"{self.dimension} rescalings keep the function ({self.kind}{left})"


def rescalings(model: nn.Module, example_inputs: Any) -> Rescalings:
    """All rescalings of ``model`` that keep its function.

    Args:
        model: Any module that ``torch.export`` can trace; it is not changed. BatchNorm is
            treated in the mode the module is in.
        example_inputs: A tensor or a tuple of arguments; shapes matter, values do not.

    Raises:
        InputError: If the example inputs are not arguments, or a weight is complex or quantized.
        CapabilityError: If the module cannot be exported.
    """
    arguments = as_arguments(example_inputs)
    graph, reader = read_graph(model, arguments)
    shapes = {name: tuple(tensor.shape) for name, tensor in graph.tensors.items()}
    for name in unused_parameters(graph, reader):
        reader.uses[name] = Use(reader.system.fresh(*shapes[name]), torch.zeros((), dtype=torch.long))
    space = effective_space(reader)
    generators = Generators(space, reader.uses, shapes)
    return Rescalings(
        dimension=space.dimension,
        untreated=dict(reader.untreated),
        tensors=tuple(name for name in reader.uses if _moves(space, reader.uses[name])),
        generators=generators,
        model=model,
        example_inputs=arguments,
        invisible=reader.invisible,
    )


def read_graph(model: nn.Module, arguments: tuple[Any, ...]) -> tuple[TracedGraph, Reader]:
    """Trace a module and collect the equations of its log-scales."""
    if not isinstance(model, nn.Module):
        raise InputError(f"model is a {type(model).__name__}; a torch.nn.Module is needed.")
    for name, tensor in model.named_parameters():
        if not tensor.is_floating_point():
            raise InputError(
                f"parameter {name} is {tensor.dtype}; real floating weights are needed (dequantize first)."
            )
    refuse_overlaps(model)
    graph = trace_graph(model, arguments)
    reader = Reader(graph)
    reader.read()
    return graph, reader


def refuse_overlaps(model: nn.Module) -> None:
    """Refuse weights that are different views of one memory: moved, they would come apart.

    One tensor under several names is fine: it is one weight, used several times.

    Raises:
        InputError: If two parameters share memory and are not the same tensor.
    """
    seen: dict[int, list[tuple[int, int, Any, str]]] = {}
    for name, p in model.named_parameters():
        if not p.numel():
            continue
        first = int(p.storage_offset())
        last = first + sum((int(n) - 1) * int(step) for n, step in zip(p.shape, p.stride(), strict=True))
        key = (first, tuple(p.shape), p.stride())
        others = seen.setdefault(p.untyped_storage().data_ptr(), [])
        for low, high, other, twin in others:
            if first <= high and low <= last and other != key:
                raise InputError(
                    f"parameters {twin} and {name} are different views of one memory, which factors would "
                    "move apart; keep one parameter and take the view of it in forward."
                )
        others.append((first, last, key, name))


def unused_parameters(graph: TracedGraph, reader: Reader) -> Iterator[str]:
    """Parameters that no operation reads: any scale of theirs keeps the function."""
    seen = set(reader.uses)
    alive = {tensor.data_ptr() for name, tensor in graph.tensors.items() if name in seen}
    for name in sorted(graph.parameters):
        tensor = graph.tensors[name]
        if name not in seen and tensor.numel() and tensor.data_ptr() not in alive:
            alive.add(tensor.data_ptr())
            yield name


def effective_space(reader: Reader) -> ScaleSpace:
    """The null space without directions that move no weight."""
    idle = [pair for use in reader.uses.values() for pair in _spanning_pairs(use)]
    kernel = reader.system.solve(extra=idle)
    return reader.system.solve(grounded=kernel.free)


def _spanning_pairs(use: Use) -> list[tuple[Tensor, Tensor]]:
    """Equalities that say the tensor does not move: ``s[plus] = s[minus]`` everywhere."""
    plus, minus = torch.broadcast_tensors(compact(use.plus), compact(use.minus))
    return [(plus.reshape(-1), minus.reshape(-1))]


def _moves(space: ScaleSpace, use: Use) -> bool:
    basis: csr_array = space.basis
    plus, minus = (space.group[compact(ids).numpy()].reshape(-1) for ids in (use.plus, use.minus))
    weights = np.arange(1, space.dimension + 1) ** 0.5  # generic coordinates tell groups apart
    values = basis @ weights
    return bool(np.ptp(values[plus]) or np.ptp(values[minus]) or values[plus[0]] != values[minus[0]])


def log_scales(
    space: ScaleSpace, uses: dict[str, Use], shapes: dict[str, tuple[int, ...]], z: np.ndarray
) -> dict[str, Tensor]:
    """Tensor name -> log-scale of each entry at group coordinates ``z``."""
    s = torch.from_numpy(space.values(z))
    return {name: (s[use.plus] - s[use.minus]).expand(shapes[name]) for name, use in uses.items()}


def scaled_copy(model: nn.Module, logarithms: dict[str, Tensor], *, exact_bits: bool = False) -> nn.Module:
    """A copy whose tensors are multiplied by ``exp`` of the given logarithms.

    Raises:
        InputError: If a weight would overflow, vanish or lose digits in its type.
    """
    moved = copy.deepcopy(model)
    tensors = {
        **dict(moved.named_parameters(remove_duplicate=False)),
        **dict(moved.named_buffers(remove_duplicate=False)),
    }
    with torch.no_grad():
        for name, logarithm in logarithms.items():
            if not bool((logarithm != 0).any()):
                continue
            tensor = tensors[name]
            if exact_bits:
                exponent = torch.round(logarithm / LOG_2).to(tensor.device)
                scaled = torch.ldexp(tensor.double(), exponent)
            else:
                scaled = tensor.double() * logarithm.to(tensor.device).exp()
            _check_range(name, tensor, scaled, logarithm)
            tensor.copy_(scaled)
    return moved


def _check_range(name: str, tensor: Tensor, scaled: Tensor, logarithm: Tensor) -> None:
    info = torch.finfo(tensor.dtype)
    size = scaled.abs()
    lost = (size > info.max) | ((size < info.tiny) & (tensor != 0)) | ~torch.isfinite(scaled)
    if bool(lost.any()):
        worst = logarithm.expand(tensor.shape)[lost].abs().max().item()
        largest = tensor.abs().max().item()
        smallest = tensor.abs()[tensor != 0].min().item()
        low, high = math.log(info.tiny / smallest), math.log(info.max / largest)
        raise InputError(
            f"{name} would leave the range of {tensor.dtype} (a log-factor of size {worst:.4g}); "
            f"its log-factors may lie between {low:.4g} and {high:.4g}."
        )


def check_same_function(
    model: nn.Module, moved: nn.Module, arguments: tuple[Any, ...], *, exact_bits: bool = False
) -> float:
    """Largest relative change of the outputs on ``arguments``, refused beyond rounding.

    Raises:
        CapabilityError: If an output changed by more than rounding explains.
    """
    error = output_change(model, moved, arguments)
    dtype = next((p.dtype for p in model.parameters()), torch.float64)
    allowed = 0.0 if exact_bits else 1e4 * torch.finfo(dtype).eps
    if not error <= allowed:
        raise CapabilityError(
            f"the outputs changed by {error:.2g} relative (allowed {allowed:.2g}): the factors are too large "
            f"for {dtype}; use a smaller spread, exact_bits=True or a float64 copy of the model."
        )
    return error


def output_change(model: nn.Module, moved: nn.Module, arguments: tuple[Any, ...]) -> float:
    """Largest change of any output, relative to the largest output; both run in their own mode."""
    before, after = (outputs_of(copy.deepcopy(m), arguments) for m in (model, moved))
    worst = 0.0
    for a, b in zip(before, after, strict=True):
        scale = a.abs().max().item() or 1.0
        worst = max(worst, (a.double() - b.double()).abs().max().item() / scale)
    return worst
