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
        Path,
        typer.Argument(metavar="DRAWS", help=".npz, .csv (also CmdStan's), .npy, .safetensors or ArviZ .nc"),
    ],
    scores: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A file with the array scores, if DRAWS has none.")
    ] = None,
    log_density: Annotated[
        str | None,
        typer.Option(
            "--log-density",
            "--target",
            metavar="FILE.py:FUNCTION",
            help="The log density (one point, torch); gives the scores.",
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
      fathometer stein draws.nc --log-density my_target.py:log_density --thin 10
      fathometer stein draws.csv --measure both --json
    """  # noqa: D301 - \b keeps the lines of the examples apart
    import fathometer as fm

    if kernel not in _KERNELS:
        raise InputError(f"--kernel is {kernel!r}; one of {', '.join(_KERNELS)} is needed.")
    if measure not in _MEASURES:
        raise InputError(f"--measure is {measure!r}; one of {', '.join(_MEASURES)} is needed.")
    points, gradients = _sample(draws, scores, log_density, thin)
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
    elif draws.suffix.lower() == ".csv" and _from_cmdstan(draws):
        from fathometer.stein import read_cmdstan

        points, own = read_cmdstan(draws)[0][0, ::thin], None
    elif scores is None and target is None:
        points, own = (array[::thin] for array in read_arrays(draws, "points", "scores"))
    else:
        points, own = read_arrays(draws, ("points", "draws", "x"))[0][::thin], None
    if target is not None:
        return points, _scores_of(load_object(target), points)
    if own is None:
        if scores is None:
            raise InputError(
                f"{draws} holds draws only; give --scores FILE or --log-density FILE.py:FUNCTION."
            )
        own = read_arrays(scores, "scores")[0]
        own = own.reshape(-1, own.shape[-1])[::thin] if own.ndim > 2 else own[::thin]
    return points, own


def _from_cmdstan(path: Path) -> bool:
    """Whether the first line that is no comment has CmdStan's column of log densities."""
    if not path.is_file():
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        header = next((line for line in file if not line.startswith("#")), "")
    return "lp__" in header.split(",")


def _scores_of(log_density: Any, points: Any) -> Any:
    """Gradients of a log density of one point, at every point."""
    from fathometer.stein import score

    rows = points[:, None] if points.ndim == 1 else points
    try:
        return score(log_density)(rows)
    except InputError as cause:
        raise InputError(
            f"--log-density must return one number that depends on the point, by torch: {cause}"
        ) from None
