"""A user's network from the command line: a Python file, weights, data and a loss.

``my_model.py:make`` runs the function ``make`` of that file, with its folder importable.
A model file is code, and it runs with the rights of whoever calls; weights and data are
read without running anything in them.
"""

import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fathometer.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fathometer.model import LossSurface

Model = Annotated[
    str | None,
    typer.Argument(
        metavar="[MODEL.py:FACTORY]",
        help="A Python file and the function in it that makes the network; an embedded one if left out.",
        show_default=False,
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Its weights: .safetensors, or a PyTorch file that holds only tensors."
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="An .npz file with the arrays inputs and targets (or x and y)."),
]
Loss = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="cross_entropy, mse, half_mse, or FILE.py:FUNCTION of (outputs, targets)."
    ),
]
TrustPickle = Annotated[
    bool,
    typer.Option(
        "--trust-pickle", help="Open weights that run code when opened; only for files of your own."
    ),
]
Embedded = Annotated[
    str, typer.Option("--network", metavar="NAME", help="Which embedded network, if no MODEL is given.")
]
Seed = Annotated[int, typer.Option(help="Seed of all random numbers.")]


def load_problem(
    model: str | None, weights: Path | None, data: Path | None, loss: str | None, trust_pickle: bool = False
) -> "tuple[nn.Module, Any, tuple[Tensor, Tensor]] | None":
    """Model, loss and data of the options; None if none of them was given.

    Raises:
        InputError: If one of them is missing, or cannot be loaded.
    """
    if model is None:
        extra = [
            name for name, value in (("--weights", weights), ("--data", data), ("--loss", loss)) if value
        ]
        if extra:
            raise InputError(f"{extra[0]} needs a network of yours: name it as MODEL.py:FACTORY.")
        return None
    if data is None or loss is None:
        missing = "--data" if data is None else "--loss"
        raise InputError(f"{missing} is missing; a network of yours needs --data FILE.npz and --loss NAME.")
    module = load_model(model, weights, trust_pickle)
    return module, load_loss(loss), load_data(data)


def load_surface(
    model: str | None,
    weights: Path | None,
    data: Path | None,
    loss: str | None,
    trust_pickle: bool,
    network: str,
) -> "LossSurface":
    """The loss surface of the options, or that of an embedded network."""
    from fathometer.model import LossSurface, embedded

    problem = load_problem(model, weights, data, loss, trust_pickle)
    return embedded(network).surface() if problem is None else LossSurface(*problem)


def load_model(place: str, weights: Path | None, trust_pickle: bool = False) -> "nn.Module":
    """Call the factory at ``FILE.py:NAME`` and fill what it returns with the weights."""
    from torch import nn

    model = _called(place, load_object(place))
    if not isinstance(model, nn.Module):
        raise InputError(f"{place} returned a {type(model).__name__}; a torch.nn.Module is needed.")
    if weights is not None:
        from fathometer.files import read_weights

        _fill(model, read_weights(weights, trust_pickle=trust_pickle), weights)
    return model


def load_loss(loss: str) -> Any:
    """A name as it is; ``FILE.py:NAME`` as the function it names."""
    return load_object(loss) if ".py" in loss else loss


def load_data(path: Path) -> "tuple[Tensor, Tensor]":
    """Inputs and targets; whole numbers become int64, as torch wants classes."""
    import torch

    from fathometer.files import read_arrays

    inputs, targets = read_arrays(path, ("inputs", "x"), ("targets", "y"))
    if len(inputs.shape) == 0 or inputs.shape[:1] != targets.shape[:1]:
        raise InputError(
            f"{path}: inputs have shape {inputs.shape} and targets {targets.shape}; they need as many rows."
        )
    if targets.dtype.kind in "biu":
        targets = targets.astype("int64")
    return torch.from_numpy(inputs), torch.from_numpy(targets)


def load_object(place: str) -> Callable[..., Any]:
    """The function at ``FILE.py:NAME``.

    Raises:
        InputError: If the file is missing or fails, or has no such function.
    """
    file, _, name = place.rpartition(":")
    path = Path(file)
    if not file.endswith(".py") or not name.isidentifier():
        raise InputError(f"{place!r} is not a place in a file; write FILE.py:NAME, such as my_model.py:make.")
    if not path.is_file():
        raise InputError(f"{path}: there is no such file.")
    path = path.resolve()
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    # a name of its own, so that a file called torch.py does not stand in for torch
    spec = importlib.util.spec_from_file_location(f"fathometer_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path}: is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    _called(file, lambda: spec.loader.exec_module(module))  # type: ignore[union-attr]
    found = getattr(module, name, None)
    if not callable(found):
        functions = [
            key for key, value in vars(module).items() if callable(value) and not key.startswith("_")
        ]
        raise InputError(f"{file} has no function {name!r}; it has {', '.join(functions) or 'none'}.")
    return found


def _called(place: str, function: Callable[[], Any]) -> Any:
    """Call the user's code; what it raises becomes one line with the line of the user's file."""
    try:
        return function()
    except Exception as cause:
        frames = traceback.extract_tb(cause.__traceback__)
        own = [
            frame
            for frame in frames
            if Path(frame.filename).name == Path(place.rpartition(":")[0] or place).name
        ]
        where = f", line {own[-1].lineno}" if own else ""
        raise InputError(f"{place}{where}: {type(cause).__name__}: {cause}") from cause


def _fill(model: "nn.Module", weights: "dict[str, Tensor]", path: Path) -> None:
    """Load strictly; say which names are missing, unexpected or of another shape."""
    own = model.state_dict()
    missing, unexpected = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    complaints = []
    if missing:
        complaints.append(f"lacks {_some(missing)}")
    if unexpected:
        complaints.append(f"has {_some(unexpected)}, which the model does not")
    for name in sorted(own.keys() & weights.keys()):
        if own[name].shape != weights[name].shape:
            shapes = f"{tuple(weights[name].shape)}; the model's is {tuple(own[name].shape)}"
            complaints.append(f"{name} has shape {shapes}")
            break
    if complaints:
        hint = _prefix_hint(missing, unexpected)
        raise InputError(f"{path}: does not fit the model: it {'; it '.join(complaints)}.{hint}")
    model.load_state_dict(weights, strict=True)


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _prefix_hint(missing: list[str], unexpected: list[str]) -> str:
    """Wrappers leave a common prefix on every name; say so."""
    for name in unexpected:
        for wanted in missing:
            if name.endswith(f".{wanted}"):
                return (
                    f" All names may carry the prefix {name.removesuffix(wanted)!r} of a wrapper; remove it."
                )
    return ""
