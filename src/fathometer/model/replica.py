"""A private copy of the user's model, and the state in which it can be differentiated twice.

The copy is in evaluation mode, and what would make automatic differentiation return
something else than the derivative of the loss is switched off in it:

- ``nn.Embedding(padding_idx=...)`` drops the gradient of one row although the output
  depends on it. The copy has ``padding_idx=None``: same outputs, true gradient. The row
  is then an ordinary parameter of the surface (training never moves it).
- ``nn.Embedding(scale_grad_by_freq=True, sparse=True)`` likewise.

While the copy runs, fused attention and fused recurrent kernels, which have no second
derivative, give way to their plain forms; the caller's settings and random state return
afterwards, also after an exception.
"""

import copy
import random
from collections.abc import Callable, Container, Generator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm

from fathometer.errors import InputError


class Replica:
    """A copy of a model that evaluates at any parameters and never changes.

    Attributes:
        module: The copy, in evaluation mode.
        notes: What was changed in it and why, one sentence each.

    Raises:
        InputError: If the model cannot be copied, is a TorchScript module, couples the
            examples of a batch, or changes its own weights when it runs.
    """

    def __init__(self, model: nn.Module) -> None:
        original, notes = unwrapped(model)
        _check_devices(original)
        try:
            self.module = copy.deepcopy(original)
        except (RuntimeError, TypeError, ValueError) as cause:
            raise InputError(
                f"model cannot be copied ({cause}); it keeps a tensor with history or an open resource "
                "as an attribute. Detach or drop it first."
            ) from cause
        self._training = {name: module.training for name, module in self.module.named_modules()}
        self._changed: list[tuple[str, str, Any]] = []
        self._frozen: list[str] = []
        self.notes = (*notes, *self._settle())
        self._recurrent = any(isinstance(m, nn.RNNBase) for m in self.module.modules())

    def _settle(self) -> list[str]:
        """Put the copy into its measured state; say what that changed."""
        notes = []
        for parameter in self.module.parameters():
            parameter.grad = None
        live = [
            name
            for name, module in self.module.named_modules()
            if module.training and isinstance(module, _BatchNorm | nn.modules.dropout._DropoutNd)
        ]
        self.module.eval()
        if live:
            notes.append(
                f"measured in evaluation mode: dropout off, batch normalization with its running "
                f"statistics ({', '.join(live[:3])}{', ...' if len(live) > 3 else ''} was in training mode)."
            )
        for name, module in self.module.named_modules():
            if isinstance(module, _BatchNorm) and module.running_mean is None:
                raise InputError(
                    f"{name or 'model'} has no running statistics, so each batch's own statistics couple its "
                    "examples and the loss is no mean over examples; use track_running_stats=True."
                )
            if isinstance(module, nn.Embedding):
                notes.extend(self._plain_embedding(name, module))
        return notes

    def _plain_embedding(self, name: str, module: nn.Embedding) -> list[str]:
        if module.max_norm is not None:
            raise InputError(
                f"{name or 'model'} has max_norm={module.max_norm}: it rewrites its weights whenever it "
                "runs; renormalize once and set max_norm=None."
            )
        notes = []
        for attribute, plain in (("padding_idx", None), ("scale_grad_by_freq", False), ("sparse", False)):
            found = getattr(module, attribute)
            if found is not plain:
                self._changed.append((name, attribute, found))
                setattr(module, attribute, plain)
        if any(n == name and a == "padding_idx" for n, a, _ in self._changed):
            notes.append(
                f"{name or 'model'}: the row of padding_idx counts as a parameter here, although training "
                "never moves it; autograd's own gradient leaves it out even where the loss depends on it."
            )
        return notes

    def apply(self, parameters: Mapping[str, Tensor], function: Callable[..., Any], *args: Any) -> Any:
        """``function(module, *args)`` with ``parameters`` in the module (shared tensors together)."""
        inside = {f"module.{name}": value for name, value in parameters.items()}
        return functional_call(_Applied(self.module), inside, (function, *args))

    def freeze_others(self, names: Container[str]) -> None:
        """Let nothing be recorded for parameters that are not in ``names``."""
        for name, parameter in self.module.named_parameters():
            if parameter.requires_grad and name not in names:
                self._frozen.append(name)
                parameter.requires_grad_(False)

    def restored(self) -> nn.Module:
        """A copy of the user's model as it was given: modes and settings included."""
        model = copy.deepcopy(self.module)
        modules = dict(model.named_modules())
        for name, training in self._training.items():
            modules[name].training = training
        for name, attribute, found in self._changed:
            setattr(modules[name], attribute, found)
        for name in self._frozen:
            model.get_parameter(name).requires_grad_(True)
        return model

    def to(self, dtype: torch.dtype) -> "Replica":
        """The same copy with every floating parameter and buffer of type ``dtype``."""
        other = copy.copy(self)
        other.module = copy.deepcopy(self.module).to(dtype)
        return other

    @contextmanager
    def running(self) -> Generator[None, None, None]:
        """Hold the state in which the copy is differentiable twice; then restore the caller's."""
        fast = torch.backends.mha.get_fastpath_enabled()
        with ExitStack() as stack:
            stack.enter_context(unchanged_random_state())
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            for backend in (torch.backends.mkldnn, torch.backends.cudnn) if self._recurrent else ():
                stack.callback(setattr, backend, "enabled", backend.enabled)
                backend.enabled = False  # type: ignore[attr-defined]
            torch.backends.mha.set_fastpath_enabled(False)
            stack.callback(torch.backends.mha.set_fastpath_enabled, fast)
            yield


class _Applied(nn.Module):
    """Lets a function see the module while `functional_call` has replaced its parameters."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(self.module, *args)


def unwrapped(model: nn.Module) -> tuple[nn.Module, list[str]]:
    """The eager module behind ``torch.compile`` and data-parallel wrappers, and what was taken off.

    Raises:
        InputError: If the model is not a module, or is TorchScript.
    """
    notes = []
    while True:
        if not isinstance(model, nn.Module):
            raise InputError(f"model is a {type(model).__name__}; a torch.nn.Module is needed.")
        if isinstance(model, torch.jit.ScriptModule):
            raise InputError(
                "model is a TorchScript module, whose compiled graph has no reliable second derivatives; "
                "pass the original torch.nn.Module."
            )
        inner = getattr(model, "_orig_mod", None)
        if isinstance(inner, nn.Module):
            notes.append("measured on the eager module behind torch.compile.")
            model = inner
        elif isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            notes.append(f"measured on the module inside {type(model).__name__}.")
            model = model.module
        else:
            return model, notes


@contextmanager
def unchanged_random_state() -> Generator[None, None, None]:
    """Give the caller's random states (torch, numpy, Python) back afterwards."""
    cpu, numpy_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    try:
        yield
    finally:
        torch.set_rng_state(cpu)
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)


def _check_devices(model: nn.Module) -> None:
    found: dict[torch.device, str] = {}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        found.setdefault(tensor.device, name)
    if len(found) > 1:
        where = ", ".join(f"{name} on {device}" for device, name in found.items())
        raise InputError(f"model is on several devices ({where}); move it to one of them.")
