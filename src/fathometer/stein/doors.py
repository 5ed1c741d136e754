"""Samples as other programs write them: ArviZ objects and CmdStan CSV files.

ArviZ keeps each variable as (chain, draw, ...); here the variables lie side by
side, flattened row-major, in the order of the group, so a sample becomes
(chain * draw, d). Nothing is imported for this: the objects are recognized by
what they offer, so ArviZ stays an extra.
"""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from fathometer.errors import InputError


def is_inference_data(thing: Any) -> bool:
    """Whether ``thing`` is an InferenceData, a DataTree or a Dataset of draws."""
    module = type(thing).__module__.partition(".")[0]
    return module in ("arviz", "arviz_base", "xarray") and (
        hasattr(thing, "posterior") or hasattr(thing, "data_vars")
    )


def draws_of(data: Any, variables: list[str] | None = None) -> Float[np.ndarray, "chain draw d"]:
    """Draws (chain, draw, d) of an ArviZ object, variables side by side.

    Args:
        data: An ``InferenceData`` or ``DataTree`` with a ``posterior`` group, or a ``Dataset``.
        variables: Names to take, in this order; all of the group by default.

    Raises:
        InputError: If there is no such variable, or one lacks the dimensions chain and draw.
    """
    group = data.posterior if hasattr(data, "posterior") else data
    known = [str(name) for name in group.data_vars]
    if not known:
        raise InputError("the posterior group holds no variable.")
    columns = []
    for name in variables or known:
        if name not in known:
            raise InputError(f"variables: there is no {name!r}; the group has {', '.join(known)}.")
        values = group[name]
        if not {"chain", "draw"} <= set(values.dims):
            raise InputError(f"{name} has dimensions {tuple(values.dims)}; chain and draw are needed.")
        array = np.asarray(values.transpose("chain", "draw", ...).values, dtype=np.float64)
        columns.append(array.reshape(*array.shape[:2], -1))
    return np.concatenate(columns, axis=2)


def read_cmdstan(
    paths: str | Path | list[str | Path], variables: list[str] | None = None
) -> tuple[Float[np.ndarray, "chain draw d"], list[str]]:
    """Draws of one or more CmdStan CSV files, one chain a file.

    Columns whose names end in ``__`` (the sampler's own) are left out, and so are draws
    of a saved warmup.

    Args:
        paths: One file, or a list of files.
        variables: Names or prefixes (``theta`` takes ``theta.1``, ``theta.2``, ...) in this order.

    Returns:
        The draws (chain, draw, d) and the name of every coordinate.

    Raises:
        InputError: If a file is missing, is not such a file, or the files differ.
    """
    files = [paths] if isinstance(paths, str | Path) else list(paths)
    if not files:
        raise InputError("paths is empty; pass at least one CSV file.")
    chains, names = [], []
    for file in files:
        draws, here = _one_chain(Path(file), variables)
        if chains and (here != names or draws.shape != chains[0].shape):
            raise InputError(
                f"{file}: {draws.shape} draws of other variables than {files[0]}; chains must match."
            )
        chains.append(draws)
        names = here
    return np.stack(chains), names


def _one_chain(path: Path, variables: list[str] | None) -> tuple[np.ndarray, list[str]]:
    """Draws (draw, d) and names of one file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as cause:
        raise InputError(f"{path}: cannot be read as text ({cause}).") from None
    body = [line for line in lines if line and not line.startswith("#")]
    if not body:
        raise InputError(f"{path}: no header and no draws; a CmdStan CSV file is needed.")
    header = body[0].split(",")
    names = [name for name in header if not name.endswith("__")]
    if variables is not None:
        names = [
            name for wanted in variables for name in names if name == wanted or name.startswith(f"{wanted}.")
        ]
    if not names:
        raise InputError(
            f"{path}: none of {variables or 'the columns'} is a model variable; it has {header[:12]}."
        )
    try:
        rows = np.array([[float(cell) for cell in line.split(",")] for line in body[1:]])
        draws = rows[:, [header.index(name) for name in names]]
    except (ValueError, IndexError):
        raise InputError(f"{path}: not every row holds {len(header)} numbers under the header.") from None
    skip = _saved_warmup(lines)
    return draws[skip:], names


def _saved_warmup(lines: list[str]) -> int:
    """Number of warmup rows in the file, from its comments."""
    settings = {}
    for line in lines:
        if line.startswith("#") and "=" in line:
            key, _, value = line[1:].partition("=")
            settings.setdefault(key.strip(), value.replace("(Default)", "").strip())
    if settings.get("save_warmup") not in ("1", "true"):
        return 0
    return int(settings.get("num_warmup", 0)) // int(settings.get("thin", 1))
