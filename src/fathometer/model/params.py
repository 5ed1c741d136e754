"""Named parameters as one flat vector, and back.

The order is that of ``model.named_parameters()``, each tensor row-major, a tensor
that is shared by several modules once, under its first name. Parameters with
``requires_grad=False`` are constants of the surface and not part of the vector.
Every flat quantity of the package (points, gradients, eigenvectors) has this order.
"""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from math import prod
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from fathometer.errors import InputError


class ParamSpace:
    """The trainable parameters of a model, or a selection of them, as R^P.

    Args:
        model: Any module; only names, shapes, types and devices are kept.
        parameters: Names or shell-style globs (``"blocks.*.attn*"``) to include; one
            string or several. A shared tensor answers to each of its names. None: all.

    Attributes:
        names: Parameter names in order; a shared tensor has its first name.
        shapes: Shape of each.
        dtypes: Type of each.
        size: P, the number of scalars.
        slices: For each name, its range in the flat vector.
        dtype: Type of flat vectors: the widest of the parameters' types.
        device: Where the parameters live.

    Raises:
        InputError: If a pattern matches no trainable parameter, there is none at all, or
            one is not real floating, not initialized, or on another device than the rest.

    >>> space = ParamSpace(nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1)), "0.*")
    >>> space.names, space.size
    (('0.weight', '0.bias'), 8)
    >>> space.slices["0.bias"]
    slice(6, 8, None)
    """

    def __init__(self, model: nn.Module, parameters: str | Iterable[str] | None = None) -> None:
        chosen = _chosen(model, parameters)
        devices = {parameter.device: name for name, parameter in chosen.items()}
        if len(devices) > 1:
            found = ", ".join(f"{name} on {device}" for device, name in devices.items())
            raise InputError(
                f"the parameters are on several devices ({found}); move the model to one of them."
            )
        for name, parameter in chosen.items():
            _check(name, parameter)
        self.names = tuple(chosen)
        self.shapes = tuple(tuple(parameter.shape) for parameter in chosen.values())
        self.dtypes = tuple(parameter.dtype for parameter in chosen.values())
        self.device = next(iter(devices))
        self._index()

    def _index(self) -> None:
        self.dtype = self.dtypes[0]
        for dtype in self.dtypes:
            self.dtype = torch.promote_types(self.dtype, dtype)
        self._lengths = [prod(shape) for shape in self.shapes]
        self.size = sum(self._lengths)
        self.slices: dict[str, slice] = {}
        start = 0
        for name, length in zip(self.names, self._lengths, strict=True):
            self.slices[name] = slice(start, start + length)
            start += length

    def to(self, dtype: torch.dtype) -> "ParamSpace":
        """The same space with every parameter of type ``dtype``."""
        other = ParamSpace.__new__(ParamSpace)
        other.names, other.shapes, other.device = self.names, self.shapes, self.device
        other.dtypes = (dtype,) * len(self.names)
        other._index()
        return other

    def read(self, model: nn.Module) -> Float[Tensor, " P"]:
        """Copy the parameters of ``model`` into a new flat vector."""
        named = dict(model.named_parameters())
        return self.flatten([named[name].detach() for name in self.names])

    @torch.no_grad()
    def write(self, theta: Float[Tensor, " P"], model: nn.Module) -> None:
        """Copy a flat vector ``theta`` into the parameters of ``model``, in place."""
        named = dict(model.named_parameters())
        for name, value in self.split(theta).items():
            named[name].copy_(value)

    def flatten(self, tensors: Sequence[Tensor | None] | Mapping[str, Tensor]) -> Float[Tensor, " P"]:
        """Join ``tensors``, one a parameter, into a flat vector; None stands for zeros.

        Raises:
            InputError: If a tensor is missing or has another number of entries.
        """
        if isinstance(tensors, Mapping):
            missing = [name for name in self.names if name not in tensors]
            if missing:
                raise InputError(f"no tensor for {missing[0]}; the space has {', '.join(self.names)}.")
            tensors = [tensors[name] for name in self.names]
        parts = []
        for name, length, tensor in zip(self.names, self._lengths, tensors, strict=True):
            if tensor is None:
                parts.append(torch.zeros(length, dtype=self.dtype, device=self.device))
            elif tensor.numel() != length:
                raise InputError(f"the tensor for {name} has {tensor.numel()} entries; {length} are needed.")
            else:
                parts.append(tensor.reshape(-1).to(self.dtype))
        return torch.cat(parts)

    def split(self, vector: Float[Tensor, " P"]) -> dict[str, Tensor]:
        """Cut a flat vector into named tensors (views where the type allows it).

        Raises:
            InputError: If the vector is not of shape (P,).
        """
        if tuple(vector.shape) != (self.size,):
            raise InputError(
                f"the vector has shape {tuple(vector.shape)}; the space has shape ({self.size},)."
            )
        parts = vector.split(self._lengths)
        return {
            name: part.view(shape).to(dtype)
            for name, shape, dtype, part in zip(self.names, self.shapes, self.dtypes, parts, strict=True)
        }

    def positions(self, patterns: str | Iterable[str]) -> Int[Tensor, " k"]:
        """Ascending positions in the flat vector of the parameters that match ``patterns``, names or globs.

        Raises:
            InputError: If a pattern matches nothing.
        """
        patterns = _listed(patterns)
        for pattern in patterns:
            if not _matching(self.names, pattern):
                raise InputError(f"{pattern!r} matches none of {_some(self.names)}.")
        wanted = [name for name in self.names if any(fnmatchcase(name, p) for p in patterns)]
        return torch.cat([torch.arange(self.slices[name].start, self.slices[name].stop) for name in wanted])

    def point(self, theta: Any) -> Float[Tensor, " P"]:
        """A copy of ``theta`` (P,), in this space's type and on its device.

        Raises:
            InputError: If it is no vector, has another length, or is not finite.
        """
        try:
            point = torch.as_tensor(theta).detach().to(self.device, self.dtype)
        except (TypeError, ValueError, RuntimeError) as cause:
            raise InputError(
                f"theta is a {type(theta).__name__}; a vector ({self.size},) is needed."
            ) from cause
        if tuple(point.shape) != (self.size,):
            raise InputError(
                f"theta has shape {tuple(point.shape)}; the surface has P = {self.size}: ({self.size},)."
            )
        if not torch.isfinite(point).all():
            bad = int((~torch.isfinite(point)).nonzero()[0])
            raise InputError(f"theta[{bad}], {self.owner(bad)}, is {point[bad].item()}; it must be finite.")
        return point.clone()

    def owner(self, position: int) -> str:
        """The name of the parameter, with the index in it, at a position of the flat vector.

        Raises:
            InputError: If the vector is shorter.
        """
        for name, shape in zip(self.names, self.shapes, strict=True):
            if position < self.slices[name].stop:
                index = np.unravel_index(position - self.slices[name].start, shape)
                return f"{name}[{', '.join(str(int(i)) for i in index)}]" if shape else name
        raise InputError(f"position is {position}; the space has {self.size} scalars.")

    def __repr__(self) -> str:
        return f"<ParamSpace of {len(self.names)} tensors, P = {self.size}, {self.dtype}>"


def _chosen(model: nn.Module, parameters: str | Iterable[str] | None) -> dict[str, nn.Parameter]:
    """Trainable parameters by first name, filtered by the patterns."""
    everything, trainable = _trainable(model)
    if parameters is None:
        return trainable
    aliases: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        aliases.setdefault(id(parameter), []).append(name)
    patterns = _listed(parameters)
    if not patterns:
        raise InputError("parameters is empty; pass names or globs, or None for all.")
    chosen: dict[str, nn.Parameter] = {}
    for pattern in patterns:
        found = {n: p for n, p in trainable.items() if _matching(aliases[id(p)], pattern)}
        frozen = _matching([name for name in everything if name not in trainable], pattern)
        if not found and frozen:
            raise InputError(
                f"parameters: {pattern!r} matches only frozen ones ({frozen[0]}); set requires_grad=True."
            )
        if not found:
            raise InputError(f"parameters: {pattern!r} matches none of {_some(trainable)}.")
        chosen |= found
    return {name: p for name, p in trainable.items() if name in chosen}


def _trainable(model: nn.Module) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
    """All parameters by first name, and those that want a gradient."""
    if not isinstance(model, nn.Module):
        raise InputError(f"model is a {type(model).__name__}; a torch.nn.Module is needed.")
    everything = dict(model.named_parameters())
    trainable = {name: p for name, p in everything.items() if p.requires_grad}
    if not trainable:
        reason = "all have requires_grad=False" if everything else "it has no parameters"
        raise InputError(
            f"model has nothing to differentiate ({reason}); set requires_grad=True on what is to be "
            "measured, and dequantize quantized weights first."
        )
    return everything, trainable


def _matching(names: Iterable[str], pattern: str) -> list[str]:
    return [name for name in names if fnmatchcase(name, pattern)]


def _check(name: str, parameter: nn.Parameter) -> None:
    if isinstance(parameter, UninitializedParameter):
        raise InputError(f"{name} is not initialized; call the model once on an example first.")
    if parameter.is_complex():
        raise InputError(f"{name} is {parameter.dtype}; split it into its real and imaginary parts.")
    if parameter.is_meta:
        raise InputError(f"{name} is on the meta device and has no values; load the weights first.")
    if parameter.layout != torch.strided:
        raise InputError(f"{name} has layout {parameter.layout}; call .to_dense() on it first.")


def _listed(patterns: str | Iterable[str]) -> list[str]:
    return [patterns] if isinstance(patterns, str) else list(patterns)


def _some(names: Iterable[str], count: int = 8) -> str:
    listed = list(names)
    return ", ".join(listed[:count]) + (f" and {len(listed) - count} more" if len(listed) > count else "")
