"""What is surveyed, and how a part that cannot be measured is kept from stopping the rest."""

import copy
import hashlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from fathometer.errors import FathometerError, InputError, TheoryWarning
from fathometer.model import LossSurface, embedded
from fathometer.survey.effort import FULL, Effort, planned
from fathometer.survey.vocabulary import Skipped
from fathometer.types import Progress
from fathometer.work import silent

T = TypeVar("T")
DEFAULT = "digits-mlp"


@dataclass(kw_only=True, eq=False)
class Subject:
    """A network with its loss and data, as every section receives it.

    Attributes:
        name: Of the network.
        model: The module, in evaluation mode; a copy, so that nothing can happen to the user's.
        surface: The `LossSurface` around its weights.
        fingerprint: Hashes of weights and data.
        seed: Of every random number of the survey.
        effort: How closely to look.
        remarks: What the reader must know of that choice.
        test: Test inputs and classes, where the network came with them.
        story: One line on where the network comes from.
        progress: Called with (done, total, what).
    """

    name: str
    model: nn.Module
    surface: LossSurface
    fingerprint: dict[str, str]
    seed: int = 0
    effort: Effort = FULL
    remarks: tuple[str, ...] = ()
    test: tuple[Tensor, Tensor] | None = None
    story: str = ""
    progress: Progress = silent
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def attempt(self, what: str, measure: Callable[[], T]) -> T | None:
        """The measurement, or None after noting down why it could not be made.

        Only the package's own refusals are taken down; a defect is raised. Where the theory
        behind a number is void, the warning becomes a note of the section.
        """
        try:
            with warnings.catch_warnings(record=True) as heard:
                warnings.simplefilter("always")
                value = measure()
        except FathometerError as cause:
            self.skipped.append(Skipped(what=what, reason=str(cause)))
            return None
        for warning in heard:
            if issubclass(warning.category, TheoryWarning):
                self.notes.append(_sentence(str(warning.message)))
            else:
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        return value

    def drain(self) -> tuple[tuple[str, ...], tuple[Skipped, ...]]:
        """Notes and refusals since the last call."""
        taken = tuple(dict.fromkeys(self.notes)), tuple(self.skipped)
        self.notes, self.skipped = [], []
        return taken


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "?", "!")) else text + "."


def subject_of(model: Any, loss: Any, data: Any, *, seed: int, thorough: bool, name: str = "") -> Subject:
    """What `survey` was given, as a `Subject`; the embedded network if it was given nothing.

    Raises:
        InputError: If one of model, loss and data is missing, or they do not fit together.
    """
    known: dict[str, Any] = {}
    if model is None:
        if loss is not None or data is not None:
            raise InputError("loss and data are given without a model; pass all three, or none for the demo.")
        bundle = embedded(DEFAULT)
        fingerprint = {"weights": _digest(bundle.model.state_dict()), "data": _digest(bundle.data)}
        card, surface, network, name = bundle.card, bundle.surface(), bundle.model, name or bundle.name
        story = f"{card['title']}. {card['data']}. Trained by {card['training']}."
        known = {"test": bundle.test, "story": story}
    elif isinstance(model, LossSurface):
        if loss is not None or data is not None:
            raise InputError(
                "model is a LossSurface, which has its loss and data; leave loss= and data= out."
            )
        surface, network = model, model.write()
        fingerprint = {"weights": _digest(network.state_dict()), "data": _digest(_losses(surface))}
    else:
        if not isinstance(model, nn.Module):
            raise InputError(f"model is a {type(model).__name__}; pass a torch.nn.Module.")
        if loss is None or data is None:
            missing = " and ".join(n for n, v in (("loss", loss), ("data", data)) if v is None)
            raise InputError(f"{missing} missing; a survey needs the model, its loss and its data.")
        surface = LossSurface(model, loss, data)
        fingerprint = {"weights": _digest(model.state_dict()), "data": _digest(data)}
        network = copy.deepcopy(model)
    surface, effort, remarks = planned(surface, thorough=thorough, seed=seed)
    return Subject(
        name=name or type(network).__name__,
        model=network.eval(),
        surface=surface,
        fingerprint=fingerprint,
        seed=seed,
        effort=effort,
        remarks=remarks,
        **known,
    )


def _losses(surface: LossSurface) -> Any:
    """What stands for the data of a surface: the loss of each example, or its mean and gradient."""
    try:
        return surface.losses()
    except InputError:
        return surface.energy(), surface.gradient()


def _digest(content: Any) -> str:
    """SHA-256 of all arrays in nested containers and batches, with their shapes and types."""
    digest = hashlib.sha256()
    for part in _parts(content):
        digest.update(part)
    return digest.hexdigest()


def _parts(content: Any) -> Iterator[bytes]:
    if isinstance(content, Tensor):
        flat = content.detach().cpu().contiguous()
        yield f"{flat.dtype}{tuple(flat.shape)}".encode()
        yield flat.reshape(-1).view(torch.uint8).numpy().tobytes() if flat.numel() else b""
    elif isinstance(content, np.ndarray | np.generic):
        yield f"{content.dtype}{content.shape}".encode()
        yield np.ascontiguousarray(content).tobytes()
    elif isinstance(content, Mapping):
        for key in content:
            yield str(key).encode()
            yield from _parts(content[key])
    elif isinstance(content, str | bytes | int | float | bool | None):
        yield repr(content).encode()
    elif hasattr(content, "__iter__"):
        for part in content:
            yield b"|"
            yield from _parts(part)
    else:
        yield type(content).__qualname__.encode()
