"""The room's pictures: networks, error curves, trade-offs and linear pieces.

Each function takes a finished answer and describes a `Picture`; nothing is computed here
that is not in the answer.
"""

from typing import TYPE_CHECKING

import numpy as np

from fathometer.drawing.picture import Axis, Graph, Line, Panel, Picture, Points, Rule
from fathometer.errors import InputError

if TYPE_CHECKING:
    from fathometer.approximation.certificates import Certificate
    from fathometer.approximation.network import SkipNetwork
    from fathometer.approximation.segments import PieceCount
    from fathometer.approximation.shallow import ShallowFit
    from fathometer.results import Table


def network_picture(network: "SkipNetwork") -> Picture:
    """The graph of a network: one column a layer; inputs left, the affine output right.

    Steps and ReLUs have their own node colors, and positive and negative weights their
    own edge colors (Figures 1 and 2 of Liang & Srikant 2017, from the built networks).
    """
    d, depth = network.inputs, network.depth
    columns = np.concatenate([np.zeros(d, dtype=int), network.layers, [depth + 1]])
    heights = np.zeros(len(columns))
    for column in range(depth + 2):
        members = np.flatnonzero(columns == column)
        heights[members] = (len(members) - 1) / 2 - np.arange(len(members))
    if network.wiring == "skip":  # a slight arc, so that long wires pass beside the nodes
        heights = heights + 0.35 * np.sin(np.pi * columns / (depth + 1)) * (1 + depth / 6)
    units = [*network.definition(), (*network.output, "output")]
    edges = [(i, d + j, w > 0) for j, (weights, _, _) in enumerate(units) for i, w in weights.items()]
    labels = [
        *(f"x{k}" if d > 1 else "x" for k in range(d)),
        *("1{}" if kind == "step" else "+" for _, _, kind in units[:-1]),
        "y",
    ]
    colors = [0] * d + [1 if kind == "step" else 2 for _, _, kind in units[:-1]] + [3]
    graph = Graph(
        positions=np.column_stack([columns, heights]).astype(float),
        edges=np.array([(a, b) for a, b, _ in edges], dtype=int).reshape(-1, 2),
        labels=tuple(labels),
        edge_colors=np.array([0 if positive else 1 for _, _, positive in edges], dtype=int),
        node_colors=np.array(colors),
        arrows=True,
        edge_legend=("positive weight", "negative weight"),
    )
    header = ("unit", "layer", "activation", "bias", "reads")
    rows = tuple(
        (j, int(columns[d + j]), kind, bias, len(weights)) for j, (weights, bias, kind) in enumerate(units)
    )
    return Picture(
        title=f"A {network.wiring} network of {network.units} units",
        caption="One column a layer, from the inputs to the affine output. 1{} is a binary step, + a ReLU; "
        f"{network.parameters} nonzero weights and biases.",
        panels=(Panel(marks=(graph,), x=Axis(label="layer"), frame=False),),
        table=(header, rows),
    )


def certificate_picture(certificate: "Certificate") -> Picture:
    """The error curve of a network of one input, between its proved bounds."""
    if certificate.curve is None:
        raise InputError("the certificate has no error curve; only networks of one input have one.")
    x, gap = certificate.curve.T
    marks: list[Line | Rule] = [Line(x=x, y=gap, label="network - f")]
    if np.isfinite(certificate.upper):
        marks += [Rule(y=certificate.upper, label="proved bound"), Rule(y=-certificate.upper)]
    return Picture(
        title="Error of the network",
        caption=f"Signed error along the domain; {certificate}.",
        panels=(Panel(marks=tuple(marks), x=Axis(label="x"), y=Axis(label="error")),),
    )


def segment_picture(count: "PieceCount") -> Picture:
    """Outputs along the segment; each mark is a place where the output bends."""
    places = np.concatenate([[0.0], count.breaks, [1.0]])
    shown = count.outputs[:, :6]
    lines = [
        Line(x=places, y=y, label=f"output {k}" if shown.shape[1] > 1 else "output")
        for k, y in enumerate(shown.T)
    ]
    bends = Points(x=count.breaks, y=shown[1:-1, 0], label="bends", marker="ring")
    return Picture(
        title="Linear pieces along a segment",
        caption=f"{count}. Between two marks the network is exactly affine.",
        panels=(Panel(marks=(*lines, bends), x=Axis(label="share of the segment"), y=Axis(label="output")),),
    )


def shallow_picture(fit: "ShallowFit") -> Picture:
    """The polyline and its knots."""
    marks = (Line(x=fit.knots, y=fit.values, label="fit"), Points(x=fit.knots, y=fit.values, label="knots"))
    return Picture(
        title=f"Best fit with {fit.pieces} linear pieces",
        caption=f"{fit}. Every piece of a convex function carries the same error.",
        panels=(Panel(marks=marks, x=Axis(label="x"), y=Axis(label="value")),),
    )


def tradeoff_picture(table: "Table") -> Picture:
    """Units against error: the deep network, the paper's, one hidden layer, and the proved bound."""
    names = {
        "deep": "deep (built)",
        "paper": "paper (Theorem 4)",
        "shallow": "one hidden layer",
        "lower_bound": "bound",
    }
    marks = []
    for name, label in names.items():
        rows = [(row["error"], row[name]) for row in table if row[name] is not None]
        if rows:
            x, y = np.array(rows, dtype=float).T
            marks.append(Line(x=x, y=np.maximum(y, 1e-1), label=label, dash=name == "lower_bound"))
    return Picture(
        title="Neurons against error",
        caption="Hidden units needed for a sup error; no network of any depth lies below the dashed line.",
        panels=(
            Panel(
                marks=tuple(marks),
                x=Axis(label="sup error", scale="log", reverse=True),
                y=Axis(label="hidden units", scale="log"),
            ),
        ),
    )
