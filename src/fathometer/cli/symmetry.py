"""``fathometer symmetry``: which weights a group ties together, and which symmetry a layer has."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fathometer.cli.output import AsJson, emit
from fathometer.errors import InputError

if TYPE_CHECKING:
    from fathometer.symmetry import Action, Tying


def add_to(app: typer.Typer) -> None:
    """Hang the command into the tree."""
    app.command("symmetry", short_help="Which weights a group ties together.")(symmetry)


def symmetry(
    group: Annotated[
        str | None,
        typer.Option(metavar="GROUP", help='For example "cyclic(8)" or "product(cyclic(3), symmetric(4))".'),
    ] = None,
    inputs: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Instead of a group: permutations of the inputs, one a line."),
    ] = None,
    outputs: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|GROUP", help="The same generators on the outputs, in a file or as a group."
        ),
    ] = None,
    design: Annotated[str, typer.Option(help="dense, sparse or minimal.")] = "dense",
    labels: Annotated[
        bool, typer.Option("--labels", help="Print the sharing matrix: equal numbers are one weight.")
    ] = False,
    unique: Annotated[
        bool, typer.Option("--unique", help="Find all symmetries of the layer: the group's and any more.")
    ] = False,
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Weights to measure: against the group, or a library of groups."),
    ] = None,
    layer: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which tensor of the weights (M x N).")
    ] = None,
    draw: Annotated[
        Path | None, typer.Option(metavar="SVG", help="Draw the weight matrix colored by orbit.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Which weights must be shared so that a layer is equivariant to a group.

    Without a group, weights are measured against a library of candidates: which symmetry did this
    layer learn?

    \b
    Groups: alternating, cyclic, dihedral, symmetric, trivial, regular (n); grid(h, w);
      subsets(n, k), tuples(n, k); product(a, b), wreath(a, b); weight_space([n, ...]);
      graph([[0, 1], [1, 0]]); cosets(group, [permutation, ...])
    Generator files: one permutation a line, "1 2 0" (the image of every index, from 0), or a
      JSON list of lists.

    \b
    examples:
      fathometer symmetry --group "dihedral(5)" --labels
      fathometer symmetry --group "subsets(5, 2)" --outputs "symmetric(5)" --unique
      fathometer symmetry --inputs left.txt --outputs right.txt --draw tied.svg
      fathometer symmetry --group "cyclic(64)" --weights w.safetensors --layer fc.weight
      fathometer symmetry --weights w.safetensors --layer fc.weight
    """  # noqa: D301 - \b keeps the lines of the examples apart
    import fathometer as fm

    matrix = None if weights is None else _matrix(weights, layer)
    if group is None and inputs is None:
        _measured(matrix, as_json)
        return
    act = _action(group, inputs, outputs)
    if design not in ("dense", "sparse", "minimal"):
        raise InputError(f"--design is {design!r}; dense, sparse or minimal is needed.")
    tying = act.tying(design=design)
    answers: dict[str, Any] = {"action": act.report(), "weights": tying.orbit_table()}
    if unique:
        answers["automorphisms"] = tying.automorphisms()
    if matrix is not None:
        answers["defect"] = fm.Estimate(
            value=fm.symmetry.defect(matrix, tying),
            kind="exact",
            error=0.0,
            method=f"relative distance of {layer or weights} to the equivariant matrices",
        )
    if draw is not None:
        from fathometer.drawing import to_svg
        from fathometer.files import write_atomic

        write_atomic(draw, to_svg(tying.picture()))
    emit("symmetry", answers | _shape(tying, labels, as_json), as_json)


def parse_group(text: str, outputs: "Action | None" = None) -> "Action":
    """An action from a call of its constructors; nothing else is understood, so nothing else runs."""
    from fathometer.symmetry import named_action

    return named_action(text, outputs)


def read_generators(path: Path) -> list[list[int]]:
    """Permutations from a file: one a line, or a JSON list of lists.

    Raises:
        InputError: If there is no such file or it holds anything but whole numbers.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as cause:
        raise InputError(f"{path}: {cause.strerror or cause}; a file of permutations is needed.") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not text; write one permutation a line.") from None
    try:
        if text.lstrip().startswith("["):
            rows = json.loads(text)
        else:
            lines = (line.partition("#")[0].replace(",", " ").split() for line in text.splitlines())
            rows = [[int(word) for word in words] for words in lines if words]
    except (ValueError, RecursionError):
        raise InputError(
            f'{path} holds something else than permutations; write one a line, "1 2 0".'
        ) from None
    if not rows or not all(isinstance(row, list) for row in rows):
        raise InputError(f'{path} lists no permutation; write one a line, "1 2 0".')
    return rows


def _action(group: str | None, inputs: Path | None, outputs: str | None) -> "Action":
    from fathometer.symmetry import Action

    if group is not None and inputs is not None:
        raise InputError("--group and --inputs both say how the inputs move; give one of them.")
    named = outputs is not None and outputs.rstrip().endswith(")")
    if group is not None:
        if outputs is None:
            return parse_group(group)
        return parse_group(group, parse_group(outputs) if named else _listed(outputs))
    if named:
        right = parse_group(str(outputs)).inputs
    else:
        right = None if outputs is None else read_generators(Path(outputs))
    return Action(read_generators(Path(str(inputs))), right, name=Path(str(inputs)).stem)


def _listed(outputs: str) -> "Action":
    from fathometer.symmetry import Action

    return Action(read_generators(Path(outputs)), name=Path(outputs).stem)


def _measured(matrix: Any, as_json: bool) -> None:
    from fathometer.symmetry import meter

    if matrix is None:
        raise InputError("nothing to do: give --group, --inputs or --weights.")
    emit("symmetry", {"meter": meter(matrix)}, as_json)


def _shape(tying: "Tying", labels: bool, as_json: bool) -> dict[str, Any]:
    n, m = tying.sizes
    answers: dict[str, Any] = {"orbits": tying.num_orbits, "inputs": n, "outputs": m} if as_json else {}
    if labels:
        rows = tying.labels.tolist()
        width = len(str(tying.num_orbits))
        shown = "\n".join(" ".join(f"{v:{width}}" for v in row) for row in rows)
        answers["labels"] = rows if as_json else shown
    return answers


def _matrix(path: Path, layer: str | None) -> Any:
    from fathometer.files import read_weights

    tensors = read_weights(path)
    matrices = [name for name, tensor in tensors.items() if tensor.ndim == 2]
    if layer is None and len(matrices) == 1:
        layer = matrices[0]
    if layer is None or layer not in tensors:
        raise InputError(f"--layer is {layer!r}; {path} has the matrices {', '.join(matrices) or 'none'}.")
    return tensors[layer]
