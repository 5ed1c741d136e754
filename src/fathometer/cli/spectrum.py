"""``fathometer spectrum``: the eigenvalues of the loss at a trained network, beside the laws."""

from typing import Annotated, Any

import typer

from fathometer.cli.models import Data, Embedded, Loss, Model, Seed, TrustPickle, Weights, load_surface
from fathometer.cli.output import AsJson, emit, progress_display


def add_to(app: typer.Typer) -> None:
    """Hang the command into the tree."""
    app.command("spectrum", short_help="Density, index and largest eigenvalues of the Hessian.")(spectrum)


def spectrum(
    model: Model = None,
    weights: Weights = None,
    data: Data = None,
    loss: Loss = None,
    network: Embedded = "digits-mlp-squared",
    top: Annotated[int, typer.Option(min=1, help="How many of the largest eigenvalues.")] = 5,
    probes: Annotated[int, typer.Option(min=1, help="Random probes of the density.")] = 10,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Krylov steps a probe; from the size if left out.")
    ] = None,
    theory: Annotated[
        bool, typer.Option("--theory", help="Compare with random matrix theory as well.")
    ] = False,
    seed: Seed = 0,
    trust_pickle: TrustPickle = False,
    as_json: AsJson = False,
) -> None:
    """What does the loss surface look like here: density, index and largest eigenvalues of the Hessian.

    Exact for small networks; an estimate with its error for large ones, which the output says.

    \b
    examples:
      fathometer spectrum
      fathometer spectrum my_model.py:make --weights w.safetensors --data d.npz --loss mse --theory
    """  # noqa: D301 - \b keeps the lines of the examples apart
    import fathometer as fm
    from fathometer.work import phase

    surface = load_surface(model, weights, data, loss, trust_pickle, network)
    with progress_display() as progress:
        phase(progress, 0.0, 0.1, "density")(0, 1, "")
        answers: dict[str, Any] = {
            "density": fm.spectra.density(surface, probes=probes, steps=steps, seed=seed)
        }
        phase(progress, 0.4, 0.5, "index")(0, 1, "")
        answers["index"] = fm.spectra.index(surface, probes=probes, steps=steps, seed=seed)
        phase(progress, 0.6, 0.7, "eigenvalues")(0, 1, "")
        answers["eigenpairs"] = fm.eigenpairs(surface.hessian(), min(top, surface.size), seed=seed)
        if theory:
            phase(progress, 0.8, 1.0, "theory")(0, 1, "")
            answers["comparison"] = fm.spectra.compare(surface, probes=probes, steps=steps, seed=seed)
    if as_json:  # P numbers for each vector are for the library, not for a pipe
        pairs = answers["eigenpairs"].to_dict()
        answers["eigenpairs"] = {name: value for name, value in pairs.items() if name != "vectors"}
    emit("spectrum", answers, as_json)
