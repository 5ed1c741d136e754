"""The state of an iteration on disk: whole or not at all, checked when it is read.

A checkpoint is one safetensors file. It is written beside its place, flushed to the
disk and renamed, so that a kill leaves the old state or the new one. Its header carries
a checksum of the arrays, the key of the run and small values as JSON.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fathometer.errors import InputError
from fathometer.files import write_atomic

_HEADER = "fathometer-state"


def save_state(
    path: str | Path, tensors: Mapping[str, Tensor], info: Mapping[str, Any] | None = None, *, key: str = ""
) -> None:
    """Write tensors and small JSON values in place of what was there.

    In a run of several processes the first one calls this.

    Args:
        path: The file.
        tensors: The state; read into CPU memory for the write.
        info: Numbers, text, lists and dictionaries, such as the number of the step.
        key: What the state belongs to, such as the hash of a manifest.

    Raises:
        InputError: If info cannot be written as JSON.
    """
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    try:
        text = json.dumps({"info": dict(info or {}), "key": key}, allow_nan=False, sort_keys=True)
    except (TypeError, ValueError) as cause:
        raise InputError(
            f"info has a value that JSON does not have ({cause}); put arrays into tensors."
        ) from None
    header = {_HEADER: text, "sha256": _digest(state, text)}
    write_atomic(path, safetensors.torch.save(state, metadata=header))


def load_state(path: str | Path, *, key: str = "") -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The tensors and values of `save_state`; None if there is no such file.

    Args:
        path: The file.
        key: What the state must belong to: the key it was saved with.

    Raises:
        InputError: If the file is damaged or belongs to another run.
    """
    path = Path(path)
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as cause:
        raise InputError(f"{path}: not a readable checkpoint ({cause}); remove it to begin again.") from None
    text = header.get(_HEADER)
    if text is None or header.get("sha256") != _digest(state, text):
        raise InputError(
            f"{path}: the checkpoint is damaged, its checksum differs; remove it to begin again."
        )
    manifest = json.loads(text)
    if manifest["key"] != key:
        raise InputError(
            f"{path}: belongs to another run (key {manifest['key']!r}, this run is {key!r}); "
            "resume with the same arguments, or choose another folder."
        )
    return state, manifest["info"]


def _digest(state: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(state):
        tensor = state[name]
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
