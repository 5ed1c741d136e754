"""Random streams that come from a seed and a name, never from the global generator.

A stream is addressed by the user's ``seed`` and a path of names, such as
``generator(seed, "hutchinson", probe)``. Two paths give independent streams, so a
method that draws more numbers in one place does not shift those of another. The
names enter through SHA-256 and NumPy's `SeedSequence`; both are the same on every
machine and in every version, unlike Python's ``hash``.
"""

import hashlib
import operator
from typing import Any, SupportsIndex

import numpy as np
import torch

from fathometer.errors import InputError


def generator(
    seed: SupportsIndex, *path: str | int | np.integer, device: str | torch.device = "cpu"
) -> torch.Generator:
    """A torch generator of its own for the stream ``path`` of ``seed``.

    Args:
        seed: A whole number, zero or more.
        path: Names and numbers that say what the stream is for.
        device: Where the generator draws.

    Raises:
        InputError: If the seed or a part of the path is of another kind.

    >>> a, b = generator(0, "probe", 1), generator(0, "probe", 1)
    >>> bool((torch.randn(3, generator=a) == torch.randn(3, generator=b)).all())
    True
    """
    state = int(_sequence(seed, path).generate_state(1, np.uint64)[0])
    return torch.Generator(device=device).manual_seed(state >> 1)


def numpy_generator(seed: SupportsIndex, *path: str | int | np.integer) -> np.random.Generator:
    """A NumPy generator of its own for the stream ``path`` of ``seed``.

    Args:
        seed: A whole number, zero or more.
        path: Names and numbers that say what the stream is for.

    Raises:
        InputError: If the seed or a part of the path is of another kind.
    """
    return np.random.Generator(np.random.PCG64(_sequence(seed, path)))


def check_seed(seed: Any) -> int:
    """The seed as a plain int.

    Raises:
        InputError: If it is not a whole number, zero or more.
    """
    try:
        number = operator.index(seed)
    except TypeError:
        number = -1
    if number < 0 or isinstance(seed, bool | np.bool_):
        raise InputError(f"seed is {seed!r}; a whole number, zero or more, is needed.")
    return number


def _sequence(seed: Any, path: tuple[str | int | np.integer, ...]) -> np.random.SeedSequence:
    words: list[int] = []
    for part in path:
        if isinstance(part, bool) or not isinstance(part, str | int | np.integer):
            raise InputError(f"the path of a random stream has {part!r}; names and whole numbers are needed.")
        tag = "name" if isinstance(part, str) else "number"
        digest = hashlib.sha256(f"{tag}:{part}".encode()).digest()
        words += np.frombuffer(digest[:16], dtype="<u4").tolist()
    return np.random.SeedSequence(check_seed(seed), spawn_key=words)
