"""Pictures of tyings and groups: the colored weight matrix, the bipartite graph, Cayley diagrams.

Everything is drawn from a result alone; colors are orbit numbers, in the same order in
every panel.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from fathometer.drawing.picture import Axis, Graph, HeatMap, Panel, Picture, Points
from fathometer.errors import InputError
from fathometer.results import Table
from fathometer.symmetry.action import Action
from fathometer.symmetry.permutations import orbit_labels

if TYPE_CHECKING:
    from fathometer.symmetry.automorphisms import Automorphisms
    from fathometer.symmetry.tying import Tying

EDGES = 400
"""Most edges of a bipartite drawing."""

ELEMENTS = 200
"""Largest group of a Cayley diagram."""


def tying_picture(tying: "Tying") -> Picture:
    """The weight matrix colored by orbit and, for small layers, the same as a bipartite graph."""
    n, m = tying.sizes
    panels = [_matrix_panel(tying)]
    if int((tying.labels >= 0).sum()) <= EDGES:
        panels.append(_bipartite_panel(tying))
    rows = tuple((row.orbit, row.entries, row.in_row, row.in_column) for row in tying.orbit_table())
    name = tying.action.name if tying.action is not None else "own labels"
    return Picture(
        title=f"{name}, {tying.design} design: {tying.num_orbits} weights for {n * m} entries",
        caption=(
            "Entries of one color are one weight; blank entries have no edge. The numbers are the "
            "orbits of the group on pairs of an input (column) and an output (row)."
        ),
        panels=tuple(panels),
        table=(("weight", "entries", "in a row", "in a column"), rows),
    )


def cayley_picture(action: Action) -> Picture:
    """The Cayley diagram of the group: a node for every element, a color for every generator.

    Raises:
        InputError: If the group has more than `ELEMENTS` elements.
    """
    if action.order > ELEMENTS:
        raise InputError(
            f"the group has {action.order} elements; a Cayley diagram is drawn up to {ELEMENTS}."
        )
    elements = [np.concatenate(pair).tobytes() for pair in action.elements(ELEMENTS)]
    number = {key: i for i, key in enumerate(elements)}
    pairs = action.elements(ELEMENTS)
    edges, colors = [], []
    for color, (a, b) in enumerate(action.generators):
        for i, (c, d) in enumerate(pairs):
            # x -> x g, so that left multiplication is a symmetry of the drawing
            edges.append((i, number[np.concatenate([c[a], d[b]]).tobytes()]))
            colors.append(color)
    positions = _rings(pairs, action)
    graph = Graph(
        positions=positions,
        edges=np.array(edges).reshape(-1, 2),
        edge_colors=np.array(colors, dtype=int),
        arrows=True,
        edge_legend=tuple(f"generator {i}" for i in range(len(action.inputs))),
    )
    return Picture(
        title=f"Cayley diagram of {action.name}, {action.order} elements",
        caption="Nodes are group elements; an arrow multiplies by the generator of its color.",
        panels=(Panel(marks=(graph,), equal=True, frame=False),),
        table=(("generator", "arrows"), tuple((i, len(pairs)) for i in range(len(action.inputs)))),
    )


def automorphisms_picture(found: "Automorphisms") -> Picture:
    """Orbits of inputs and outputs under all symmetries, as two rows of colored cells."""
    panels = []
    pairs = list(found.generators)
    sizes = (len(pairs[0][0]), len(pairs[0][1])) if pairs else (1, 1)
    for side, name in enumerate(("inputs", "outputs")):
        labels = orbit_labels([pair[side] for pair in pairs], sizes[side])
        heat = HeatMap(
            values=labels[None, :],
            x_range=(-0.5, sizes[side] - 0.5),
            y_range=(-0.5, 0.5),
            scale="category",
            label="orbit",
        )
        panels.append(Panel(marks=(heat,), x=Axis(label=name), y=Axis(), title=f"orbits of {name}"))
    return Picture(
        title=str(found),
        caption="Indices of one color can be exchanged by a symmetry of the layer.",
        panels=tuple(panels),
        columns=1,
    )


def meter_picture(table: Table) -> Picture:
    """Defect of every candidate action beside the defect of a matrix without structure."""
    if not table.rows:
        raise InputError("the table has no rows; there is nothing to draw.")
    places = np.arange(len(table.rows), dtype=float)
    names = tuple(row.action for row in table)
    found = np.array([row.defect for row in table])
    expected = np.array([row.expected for row in table])
    marks = (
        Points(x=found, y=places, label="this layer", marker="dot", texts=names),
        Points(x=expected, y=places, label="without structure", marker="ring"),
    )
    panel = Panel(
        marks=marks,
        x=Axis(label="relative distance to the equivariant matrices", limits=(0.0, 1.02)),
        y=Axis(scale="category", categories=names, reverse=True),
    )
    return Picture(
        title=table.title,
        caption=(
            "A dot far left of its ring: the layer has learned that symmetry. A dot on the ring: the layer "
            "knows nothing of it. Best candidates come first."
        ),
        panels=(panel,),
        table=(
            ("action", "weights", "defect", "expected", "z"),
            tuple((r.action, r.weights, r.defect, r.expected, r.z) for r in table),
        ),
    )


def _matrix_panel(tying: "Tying") -> Panel:
    n, m = tying.sizes
    heat = HeatMap(
        values=tying.labels,
        x_range=(-0.5, n - 0.5),
        y_range=(-0.5, m - 0.5),
        scale="category",
        label="weight",
    )
    return Panel(
        marks=(heat,),
        x=Axis(label="input"),
        y=Axis(label="output", reverse=True),
        title="weight matrix",
        equal=True,
    )


def _bipartite_panel(tying: "Tying") -> Panel:
    n, m = tying.sizes
    outputs, inputs = np.nonzero(tying.labels >= 0)
    left = np.stack([np.zeros(n), -_spread(n)], axis=1)
    right = np.stack([np.ones(m), -_spread(m)], axis=1)
    graph = Graph(
        positions=np.concatenate([left, right]),
        edges=np.stack([inputs, n + outputs], axis=1),
        labels=tuple(str(i) for i in (*range(n), *range(m))),
        edge_colors=tying.labels[outputs, inputs],
        node_colors=np.concatenate([np.zeros(n, dtype=int), np.ones(m, dtype=int)]),
    )
    return Panel(marks=(graph,), title="inputs left, outputs right", frame=False)


def _spread(count: int) -> np.ndarray:
    return np.linspace(0.0, 1.0, count) if count > 1 else np.array([0.5])


def _rings(pairs: list[Any], action: Action) -> np.ndarray:
    """One ring for each coset of the first generator's powers, so that its arrows run around."""
    number = {np.concatenate(pair).tobytes(): i for i, pair in enumerate(pairs)}
    positions = np.full((len(pairs), 2), np.nan)
    rings = []
    for i in range(len(pairs)):
        if np.isnan(positions[i, 0]):
            ring, j = [], i
            while np.isnan(positions[j, 0]):
                positions[j] = 0.0
                ring.append(j)
                if action.inputs:
                    (c, d), a, b = pairs[j], action.inputs[0], action.outputs[0]
                    j = number[np.concatenate([c[a], d[b]]).tobytes()]
            rings.append(ring)
    for k, ring in enumerate(rings):
        radius = 1.0 + 0.8 * k
        # later rings start at the point the ring inside them touches first
        angle = 2 * np.pi * np.arange(len(ring)) / len(ring) + 0.15 * k
        positions[ring] = radius * np.stack([np.sin(angle), np.cos(angle)], axis=1)
    return positions
