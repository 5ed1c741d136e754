"""``fathometer approximate``: from a formula and an error to a network with a certificate."""

from pathlib import Path
from typing import Annotated, Any

import typer

from fathometer.cli.models import Seed
from fathometer.cli.output import AsJson, emit
from fathometer.errors import InputError


def add_to(app: typer.Typer) -> None:
    """Hang the command into the tree."""
    app.command("approximate", short_help="A network for a formula, with a certificate.")(approximate)


def approximate(
    formula: Annotated[str, typer.Argument(metavar="FORMULA", help='For example "exp(-x^2)".')],
    domain: Annotated[
        tuple[float, float], typer.Option(metavar="LOW HIGH", help="The interval of every variable.")
    ] = (0.0, 1.0),
    error: Annotated[
        float | None, typer.Option(metavar="EPS", help="Largest error anywhere in the domain.")
    ] = None,
    units: Annotated[
        int | None, typer.Option(metavar="N", help="Instead of an error: this many units.")
    ] = None,
    wiring: Annotated[str, typer.Option(help="skip or layered.")] = "skip",
    method: Annotated[str, typer.Option(help="auto, chain or chebyshev.")] = "auto",
    onnx: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the network as ONNX too.")] = None,
    layers: Annotated[int | None, typer.Option(metavar="L", help="At most so many hidden layers.")] = None,
    weights: Annotated[Path | None, typer.Option(metavar="FILE", help="Write all weights as JSON.")] = None,
    drawing: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the network as SVG.")] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """How many neurons does a function need for an error? Build that network, with its certificate.

    The formula is arithmetic with + - * / ^, functions such as exp, sin, sqrt, abs, max, and pi.

    \b
    examples:
      fathometer approximate "exp(x)" --domain 0 1 --error 1e-6 --onnx exp.onnx
      fathometer approximate "x*y" --domain -1 1 --error 1e-3 --json
    """  # noqa: D301 - \b keeps the lines of the examples apart
    import fathometer as fm
    from fathometer.approximation.formula import parse
    from fathometer.drawing.svg import to_svg
    from fathometer.files import write_atomic

    if (error is None) == (units is None):
        raise InputError("give one of --error EPS and --units N.")
    names = parse(formula).symbols()
    if not names:
        raise InputError(f"{formula!r} has no variable; a constant needs no network.")
    box = domain if len(names) == 1 else [domain] * len(names)
    goal: dict[str, Any] = {"error": error} if units is None else {"units": units}
    network = fm.approximation.approximate(
        formula, box, wiring=wiring, method=method, layers=layers, seed=seed, **goal
    )
    answers: dict[str, Any] = {"network": network}
    if as_json:
        answers["certificate"] = network.certificate  # the network's own line ends with it
    if onnx is not None:
        network.to_onnx(onnx)
        answers["onnx"] = str(onnx) if as_json else f"wrote {onnx}"
    for name, path, text in (
        ("weights", weights, network.network.to_json),
        ("drawing", drawing, lambda: to_svg(network.network.picture())),
    ):
        if path is not None:
            write_atomic(path, text())
            answers[name] = str(path) if as_json else f"wrote {path}"
    emit("approximate", answers, as_json)
