"""What a network computes, as a graph of tensor operations.

``torch.export`` records a module on example inputs without running its Python again:
nodes are ATen operations, placeholders are parameters, buffers and inputs. The graph
is taken before decomposition, so that a linear layer is still one node.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fathometer.errors import CapabilityError, InputError


@dataclass(frozen=True, kw_only=True, eq=False)
class TracedGraph:
    """The operations of one forward pass.

    Attributes:
        nodes: ``torch.fx`` nodes in order of execution; each has ``op``, ``target``, ``args``.
        weights: Placeholder name -> name of the parameter or buffer it stands for. Names
            that share one storage map to the first of them.
        constants: Placeholder name -> a constant tensor of the graph.
        tensors: Parameter or buffer name -> its tensor.
        parameters: Names that are parameters (the others are buffers).
    """

    nodes: tuple[Any, ...]
    weights: dict[str, str]
    constants: dict[str, Tensor]
    tensors: dict[str, Tensor]
    parameters: frozenset[str]


def as_arguments(example_inputs: Any) -> tuple[Any, ...]:
    """Positional arguments of the model: a tensor stands for one argument.

    Raises:
        InputError: If ``example_inputs`` is neither a tensor nor a tuple, or is empty.
    """
    if isinstance(example_inputs, Tensor):
        example_inputs = (example_inputs,)
    if not isinstance(example_inputs, tuple | list) or not example_inputs:
        raise InputError(
            f"example_inputs is a {type(example_inputs).__name__}; "
            "pass a tensor or a tuple of the model's arguments."
        )
    if any(isinstance(x, Tensor) and x.numel() == 0 for x in example_inputs):
        raise InputError("example_inputs holds an empty tensor; one small batch is needed.")
    return tuple(example_inputs)


def trace_graph(model: nn.Module, example_inputs: Any) -> TracedGraph:
    """Export ``model`` on ``example_inputs`` (a tensor or a tuple) and name its weights.

    The model is exported in the mode (train or eval) it is in, and is not changed.

    Raises:
        InputError: If ``example_inputs`` are not arguments.
        CapabilityError: If the module cannot be exported; the message holds the reason.
    """
    arguments = as_arguments(example_inputs)
    try:
        with warnings.catch_warnings():
            # recurrent layers keep a list of their weights, which torch puts back itself
            warnings.filterwarnings("ignore", r"The tensor attributes? .*assigned during export")
            program = torch.export.export(model, arguments, strict=False)
    except Exception as cause:
        reason = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
        raise CapabilityError(
            f"{type(model).__name__} cannot be exported by torch.export ({type(cause).__name__}: {reason}). "
            "Data-dependent branches must be removed or replaced by torch.where; Hugging Face causal "
            "models need use_cache=False."
        ) from cause
    tensors = {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }
    first = _first_names(tensors)
    weights, constants = {}, {}
    for spec in program.graph_signature.input_specs:
        name = getattr(spec.arg, "name", None)
        if spec.target is None or name is None:
            continue
        if spec.target in tensors:
            weights[name] = first[spec.target]
        elif spec.target in program.constants:
            constants[name] = program.constants[spec.target]
    return TracedGraph(
        nodes=tuple(program.graph.nodes),
        weights=weights,
        constants=constants,
        tensors=tensors,
        parameters=frozenset(name for name, _ in model.named_parameters(remove_duplicate=False)),
    )


def _first_names(tensors: dict[str, Tensor]) -> dict[str, str]:
    """Every name -> the first name of the same memory."""
    seen: dict[tuple[Any, ...], str] = {}
    names = {}
    for name, tensor in tensors.items():
        key: tuple[Any, ...] = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride())
        names[name] = seen.setdefault(key if tensor.numel() else (name,), name)
    return names


def outputs_of(model: nn.Module, arguments: Sequence[Any]) -> tuple[Tensor, ...]:
    """The floating tensors a forward pass returns, in a fixed order, without gradients."""
    with torch.no_grad():
        answer = model(*arguments)
    return tuple(_tensors_in(answer))


def _tensors_in(answer: Any) -> list[Tensor]:
    if isinstance(answer, Tensor):
        return [answer] if answer.is_floating_point() else []
    if isinstance(answer, dict):
        return [t for key in answer for t in _tensors_in(answer[key])]
    if isinstance(answer, tuple | list):
        return [t for part in answer for t in _tensors_in(part)]
    return []
