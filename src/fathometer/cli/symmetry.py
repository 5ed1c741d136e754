"""``fathometer symmetry``: which weights a group ties together."""

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fathometer.cli.output import AsJson, emit
from fathometer.errors import InputError

if TYPE_CHECKING:
    from fathometer.symmetry import Action

_CONSTRUCTORS = (
    "alternating", "cyclic", "dihedral", "grid", "product", "subsets", "symmetric", "trivial", "tuples",
    "weight_space", "wreath",
)  # fmt: skip


def add_to(app: typer.Typer) -> None:
    """Hang the command into the tree."""
    app.command("symmetry", short_help="Which weights a group ties together.")(symmetry)


def symmetry(
    group: Annotated[
        str,
        typer.Option(metavar="GROUP", help='For example "cyclic(8)" or "product(cyclic(3), symmetric(4))".'),
    ],
    outputs: Annotated[
        str | None,
        typer.Option(metavar="GROUP", help="How the same group acts on the outputs, if otherwise."),
    ] = None,
    design: Annotated[str, typer.Option(help="dense, sparse or minimal.")] = "dense",
    labels: Annotated[
        bool, typer.Option("--labels", help="Print the sharing matrix: equal numbers are one weight.")
    ] = False,
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Weights whose distance to the symmetry is measured.")
    ] = None,
    layer: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which tensor of the weights (M x N).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Which weights must be shared so that a layer is equivariant to a group.

    \b
    Groups: alternating, cyclic, dihedral, symmetric, trivial (n); grid(h, w);
      subsets(n, k), tuples(n, k); product(a, b), wreath(a, b); weight_space([n, ...])

    \b
    examples:
      fathometer symmetry --group "dihedral(5)" --labels
      fathometer symmetry --group "subsets(5, 2)" --outputs "symmetric(5)"
      fathometer symmetry --group "cyclic(64)" --weights w.safetensors --layer fc.weight
    """  # noqa: D301 - \b keeps the lines of the examples apart
    import fathometer as fm

    act = parse_group(group)
    if outputs is not None:
        act = parse_group(group, parse_group(outputs))
    if design not in ("dense", "sparse", "minimal"):
        raise InputError(f"--design is {design!r}; dense, sparse or minimal is needed.")
    tying = act.tying(design=design)
    n, m = tying.sizes
    answers: dict[str, Any] = {"action": act.report(), "weights": tying.orbit_table()}
    if weights is not None:
        answers["defect"] = fm.Estimate(
            value=fm.symmetry.defect(_matrix(weights, layer), tying),
            kind="exact",
            error=0.0,
            method=f"relative distance of {layer or weights.name} to the equivariant matrices",
        )
    if as_json:
        answers |= {"orbits": tying.num_orbits, "inputs": n, "outputs": m}
    if labels:
        rows = tying.labels.tolist()
        width = len(str(tying.num_orbits))
        answers["labels"] = (
            rows if as_json else "\n".join(" ".join(f"{v:{width}}" for v in row) for row in rows)
        )
    emit("symmetry", answers, as_json)


def parse_group(text: str, outputs: "Action | None" = None) -> "Action":
    """An action from a call of its constructors; nothing else is understood, so nothing else runs.

    Raises:
        InputError: If the text is anything but constructors, whole numbers, lists, yes and no.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise InputError(f'--group {text!r} is not a call such as "cyclic(8)".') from None
    if not isinstance(tree, ast.Call):
        raise InputError(f'--group {text!r} is not a call such as "cyclic(8)".')
    return _built(tree, {} if outputs is None else {"outputs": outputs})


def _built(node: ast.Call, extra: dict[str, Any]) -> "Action":
    from fathometer.symmetry import Action

    name = node.func.id if isinstance(node.func, ast.Name) else ""
    if name not in _CONSTRUCTORS:
        raise InputError(
            f"there is no group {ast.unparse(node.func)!r}; there are {', '.join(_CONSTRUCTORS)}."
        )
    arguments = [_argument(part) for part in node.args]
    options = {str(part.arg): _argument(part.value) for part in node.keywords}
    try:
        return getattr(Action, name)(*arguments, **options, **extra)
    except TypeError as cause:
        raise InputError(f"{ast.unparse(node)}: {str(cause).replace(f'Action.{name}()', name)}.") from None


def _argument(node: ast.expr) -> Any:
    if isinstance(node, ast.Call):
        return _built(node, {})
    if isinstance(node, ast.List | ast.Tuple):
        return [_argument(part) for part in node.elts]
    if isinstance(node, ast.Constant) and isinstance(node.value, bool | int):
        return node.value
    raise InputError(f"{ast.unparse(node)!r} is not a whole number, a list, True, False or a group.")


def _matrix(path: Path, layer: str | None) -> Any:
    from fathometer.files import read_weights

    tensors = read_weights(path)
    matrices = [name for name, tensor in tensors.items() if tensor.ndim == 2]
    if layer is None and len(matrices) == 1:
        layer = matrices[0]
    if layer is None or layer not in tensors:
        raise InputError(f"--layer is {layer!r}; {path} has the matrices {', '.join(matrices) or 'none'}.")
    return tensors[layer]
