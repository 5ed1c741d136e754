"""``fathometer stein``: is this sample a good stand-in for its target?"""

from pathlib import Path
from typing import Annotated, Any

import typer

from fathometer.cli.models import load_object
from fathometer.cli.output import AsJson, emit
from fathometer.errors import InputError

_KERNELS = {"imq": "InverseMultiquadric", "gaussian": "Gaussian", "matern": "Matern32"}
_MEASURES = ("kernel", "graph", "both")


def add_to(app: typer.Typer) -> None:
    """Hang the command into the tree."""
    app.command("stein", short_help="How far a sample is from its target.")(stein)


def stein(
    draws: Annotated[
        Path, typer.Argument(metavar="DRAWS", help=".npz, .csv, .npy, .safetensors or ArviZ .nc")
    ],
    scores: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A file with the array scores, if DRAWS has none.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.py:FUNCTION", help="The log density (one point, torch); gives the scores."
        ),
    ] = None,
    measure: Annotated[str, typer.Option(help="kernel, graph, or both.")] = "kernel",
    kernel: Annotated[str, typer.Option(help="imq, gaussian or matern.")] = "imq",
    statistic: Annotated[str, typer.Option(help="V (a measure of quality) or U (for tests).")] = "V",
    thin: Annotated[int, typer.Option(min=1, metavar="K", help="Use every K-th draw.")] = 1,
    as_json: AsJson = False,
) -> None:
    """How far is a sample from its target? Kernel and graph Stein discrepancy.

    The target enters only through its scores, the gradients of its log density at the
    draws: no normalizing constant and no second sample are needed. Zero is perfect. DRAWS
    holds the arrays points and scores, n x d each (in a .csv: columns points.1, ..., scores.1, ...).

    \b
    examples:
      fathometer stein draws.npz
      fathometer stein draws.nc --target my_target.py:log_density --thin 10
      fathometer stein draws.csv --measure both --json
    """  # noqa: D301 - \b keeps the lines of the examples apart
    import fathometer as fm

    if kernel not in _KERNELS:
        raise InputError(f"--kernel is {kernel!r}; one of {', '.join(_KERNELS)} is needed.")
    if measure not in _MEASURES:
        raise InputError(f"--measure is {measure!r}; one of {', '.join(_MEASURES)} is needed.")
    points, gradients = _sample(draws, scores, target, thin)
    answers = {}
    if measure != "graph":
        chosen = getattr(fm.stein, _KERNELS[kernel])()
        answers["kernel"] = fm.stein.ksd(points, gradients, chosen, statistic=statistic)
    if measure != "kernel":
        answers["graph"] = fm.stein.graph_discrepancy(points, gradients)
    emit("stein", answers, as_json)


def _sample(draws: Path, scores: Path | None, target: str | None, thin: int) -> tuple[Any, Any]:
    """Points and scores, both (n, d) of one kind."""
    import numpy as np

    from fathometer.files import read_arrays, read_draws

    if draws.suffix.lower() == ".nc":
        columns = [values.reshape(*values.shape[:2], -1) for values in read_draws(draws).values()]
        points = np.concatenate(columns, axis=2)[:, ::thin].reshape(-1, sum(c.shape[2] for c in columns))
        own = None
    elif scores is None and target is None:
        points, own = (array[::thin] for array in read_arrays(draws, "points", "scores"))
    else:
        points, own = read_arrays(draws, ("points", "draws", "x"))[0][::thin], None
    if target is not None:
        return points, _scores_of(load_object(target), points)
    if own is None:
        if scores is None:
            raise InputError(f"{draws} holds draws only; give --scores FILE or --target FILE.py:FUNCTION.")
        own = read_arrays(scores, "scores")[0]
        own = own.reshape(-1, own.shape[-1])[::thin] if own.ndim > 2 else own[::thin]
    return points, own


def _scores_of(log_density: Any, points: Any) -> Any:
    """Gradients of a log density of one point, at every point."""
    import torch

    rows = torch.as_tensor(points, dtype=torch.float64)
    rows = rows[:, None] if rows.ndim == 1 else rows
    gradients = []
    for row in rows:
        x = row.clone().requires_grad_()
        value = log_density(x)
        if not isinstance(value, torch.Tensor) or value.numel() != 1 or not value.requires_grad:
            raise InputError(
                "--target must return one number that depends on the point, computed with torch."
            )
        gradients.append(torch.autograd.grad(value.sum(), x)[0])
    return torch.stack(gradients).numpy()
