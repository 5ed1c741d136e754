"""Reading what a user lists as generators: permutations of two sides, sizes and signs."""

from collections.abc import Sequence, Sized
from typing import Any

import numpy as np

from fathometer.errors import InputError
from fathometer.symmetry.permutations import Permutation, check_permutation

Signs = tuple[np.ndarray, ...]
"""One int8 array of 1 and -1 for each generator."""


def check_count(value: object, name: str, least: int = 1) -> int:
    """A whole number that is not too small."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InputError(f"{name} is {value!r}; it must be a whole number, at least {least}.")
    return int(value)


def check_listed(permutations: object, side: str) -> None:
    """Refuse what is no list at all."""
    if not isinstance(permutations, Sized):
        found = type(permutations).__name__
        raise InputError(f"{side} is of type {found}; pass a list of permutations, one for each generator.")


def checked_side(permutations: Sequence[Any], side: str, size: int | None) -> tuple[Permutation, ...]:
    """The permutations of one side, all of one length."""
    checked: list[Permutation] = []
    for i, p in enumerate(permutations):
        checked.append(check_permutation(p, f"{side}, generator {i}", len(checked[0]) if checked else size))
    return tuple(checked)


def checked_size(permutations: Sequence[Permutation], side: str, given: int | None) -> int:
    """The number of points of one side."""
    if given is not None:
        n = check_count(given, f"sizes, {side}")
    elif len(permutations):
        n = len(permutations[0])
    else:
        raise InputError(f"{side} lists no generator; pass sizes=(N, M) for the trivial group.")
    if n == 0:
        raise InputError(f"{side} is an empty set; a layer needs at least one index on each side.")
    return n


def checked_signs(
    signs: Any, inputs: Sequence[Permutation], outputs: Sequence[Permutation]
) -> tuple[Signs, Signs] | None:
    """Signs of both sides, ones where a side has none."""
    if signs is None:
        return None
    if len(signs) != 2:
        raise InputError(
            f"signs has {len(signs)} parts; pass (input signs, output signs), either may be None."
        )
    both = []
    for side, given, permutations in zip(("inputs", "outputs"), signs, (inputs, outputs), strict=True):
        if given is None:
            both.append(tuple(np.ones(len(p), dtype=np.int8) for p in permutations))
            continue
        if len(given) != len(permutations):
            raise InputError(f"signs of {side} has {len(given)} lists for {len(permutations)} generators.")
        rows = []
        for i, (row, p) in enumerate(zip(given, permutations, strict=True)):
            s = np.asarray(row)
            if s.shape != p.shape or not np.isin(s, (-1, 1)).all():
                raise InputError(
                    f"signs of {side}, generator {i}: it must hold {len(p)} entries, each 1 or -1."
                )
            rows.append(s.astype(np.int8))
        both.append(tuple(rows))
    return both[0], both[1]
