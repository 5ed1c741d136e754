"""``fathometer sharpness``: how sharp is this minimum, and do those numbers mean anything?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fathometer.cli.models import Data, Embedded, Loss, Model, Seed, TrustPickle, Weights, load_surface
from fathometer.cli.output import AsJson, emit, progress_display
from fathometer.errors import InputError

if TYPE_CHECKING:
    from torch import nn


def add_to(app: typer.Typer) -> None:
    """Hang the command into the tree."""
    app.command("sharpness", short_help="Measures of sharpness, and what they do not survive.")(sharpness)


def sharpness(
    model: Model = None,
    weights: Weights = None,
    data: Data = None,
    loss: Loss = None,
    network: Embedded = "digits-mlp",
    measures: Annotated[
        list[str] | None,
        typer.Option("--measure", metavar="NAME", help="Only this one; may be given again. All by default."),
    ] = None,
    audit: Annotated[
        bool, typer.Option("--audit", help="Take the measures at equivalent networks too: which ones change?")
    ] = False,
    sharpen: Annotated[
        float | None,
        typer.Option(metavar="FACTOR", help="Make an equivalent network that many times sharper."),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where its weights go, as safetensors (with --sharpen)."),
    ] = None,
    seed: Seed = 0,
    trust_pickle: TrustPickle = False,
    as_json: AsJson = False,
) -> None:
    """How sharp is this minimum, and which of the numbers survive a change of coordinates?

    Rescaling the layers of a rectifier network leaves its function as it is and changes most
    measures of sharpness at will. --audit shows which, --sharpen makes the sharper twin.

    \b
    examples:
      fathometer sharpness --measure hessian_trace --measure path_norm
      fathometer sharpness --measure hessian_norm --sharpen 1e6 --save sharper.safetensors
      fathometer sharpness my_model.py:make --weights w.safetensors --data d.npz --loss mse --audit
    """  # noqa: D301 - \b keeps the lines of the examples apart
    import fathometer as fm
    from fathometer.work import phase

    if save is not None and sharpen is None:
        raise InputError("--save needs --sharpen FACTOR: without it there is no new network to save.")
    surface = load_surface(model, weights, data, loss, trust_pickle, network)
    with progress_display() as progress:
        first = phase(progress, 0.0, 0.3, "measures")
        answers: dict[str, Any] = {"measures": fm.sharpness.measure(surface, measures, progress=first)}
        if audit:
            second = phase(progress, 0.3, 0.8, "audit")
            answers["audit"] = fm.sharpness.audit(surface, measures, seed=seed, progress=second)
        if sharpen is not None:
            phase(progress, 0.8, 1.0, "equivalent network")(0, 1, "")
            answers["equivalent"] = fm.sharpness.sharpen(surface, factor=sharpen, seed=seed)
    if save is not None:
        _save(answers["equivalent"].model, save)
    emit("sharpness", answers, as_json)


def _save(model: "nn.Module", path: Path) -> None:
    import safetensors.torch

    from fathometer.files import write_atomic
    from fathometer.work import rank

    if rank() == 0:
        # shared tensors get a place each: the format knows no sharing
        state = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
        write_atomic(path, safetensors.torch.save(state))
