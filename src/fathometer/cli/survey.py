"""``fathometer survey``: all five instruments on one network, and a report."""

from pathlib import Path
from typing import Annotated, Any

import typer

from fathometer.cli.launch import RunDir, remember
from fathometer.cli.models import Data, Loss, Model, Seed, TrustPickle, Weights, load_problem
from fathometer.cli.output import AsJson, emit, progress_display


def add_to(app: typer.Typer) -> None:
    """Hang the command into the tree."""
    app.command("survey", short_help="All five instruments on one network, and a report.")(survey)


def survey(
    model: Model = None,
    weights: Weights = None,
    data: Data = None,
    loss: Loss = None,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the report goes.")] = Path("report.html"),
    instruments: Annotated[
        list[str] | None,
        typer.Option(
            "--instrument", metavar="NAME", help="Only this one; may be given again. All by default."
        ),
    ] = None,
    run_dir: RunDir = None,
    seed: Seed = 0,
    thorough: Annotated[
        bool, typer.Option("--thorough", help="Take longer and measure more closely.")
    ] = False,
    trust_pickle: TrustPickle = False,
    as_json: AsJson = False,
) -> None:
    """Run all five instruments on a trained network and write one self-contained HTML report.

    Without a MODEL it surveys a network trained on handwritten digits that comes along.
    The default takes about a minute on two cores.

    \b
    examples:
      fathometer survey
      fathometer survey my_model.py:make --weights w.safetensors --data d.npz --loss cross_entropy
      fathometer survey --instrument spectra --instrument stein --out two.html
    """  # noqa: D301 - \b keeps the lines of the examples apart
    import fathometer as fm

    problem = load_problem(model, weights, data, loss, trust_pickle) or (None, None, None)
    options: dict[str, Any] = {"--weights": weights, "--data": data, "--loss": loss, "--out": out}
    options |= {"--run-dir": run_dir, "--seed": seed}
    command = ["survey", *([model] if model else [])]
    command += [str(part) for pair in options.items() if pair[1] is not None for part in pair]
    command += [part for name in instruments or () for part in ("--instrument", name)]
    command += ["--thorough"] * thorough + ["--trust-pickle"] * trust_pickle + ["--json"] * as_json
    remember(run_dir, command)
    with progress_display() as progress:
        result = fm.survey(
            *problem,
            out=out,
            instruments=instruments,
            run_dir=run_dir,
            seed=seed,
            progress=progress,
            thorough=thorough,
        )
    where = {"report": str(out)} if as_json else {}
    emit("survey", {"survey": result, **where}, as_json)
