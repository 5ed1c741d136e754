"""Pictures of the sharpness room: a result in, a description out."""

from typing import TYPE_CHECKING, Literal

import numpy as np

from fathometer.drawing import Axis, Bars, HeatMap, Panel, Picture, Points, Rule

if TYPE_CHECKING:
    from fathometer.sharpness.audit import AuditTable
    from fathometer.sharpness.equivalent import Equivalent
    from fathometer.sharpness.landscape import Landscape


def equivalent_picture(equivalent: "Equivalent") -> Picture:
    """Two bars on a log axis: a measure at the network and at its equivalent."""
    heights = [float(equivalent.before.value), float(equivalent.after.value)]
    places = ("this network", "its equivalent")
    bars = Bars(edges=[-0.5, 0.5, 1.5], heights=heights, texts=tuple(f"{h:.4g}" for h in heights))
    name = equivalent.measure.replace("_", " ")
    return Picture(
        title=f"One function, two values of the {name}",
        caption=(
            "Both networks compute the same outputs (largest relative change "
            f"{equivalent.output_error:.1e}); the "
            f"{name} differs {equivalent.value:.3g} times. The axis is logarithmic."
        ),
        panels=(
            Panel(
                marks=(bars,),
                x=Axis(label="network", scale="category", categories=places),
                y=Axis(label=name, scale="log"),
            ),
        ),
        table=(("network", name), tuple(zip(places, heights, strict=True))),
    )


def audit_picture(table: "AuditTable") -> Picture:
    """Ratio of every measure after each rescaling, one line a measure."""
    measures = tuple(dict.fromkeys(row.measure for row in table))
    marks = []
    markers: dict[str, Literal["dot", "square", "ring", "triangle"]] = {
        "layer_scale": "dot", "neuron_scale": "square", "unit_order": "ring", "head_basis": "ring",
        "output_scale": "triangle", "bijection": "triangle",
    }  # fmt: skip
    seen = {row.transformation for row in table}
    for transformation, marker in markers.items():
        if transformation not in seen:
            continue
        rows = [row for row in table if row.transformation == transformation and row.ratio > 0]
        marks.append(
            Points(
                x=[row.ratio for row in rows],
                y=[float(measures.index(row.measure)) for row in rows],
                label=transformation.replace("_", " "),
                marker=marker,
                texts=tuple(f"{row.measure}: {row.ratio:.4g} ({row.verdict})" for row in rows),
            )
        )
    names = tuple(name.replace("_", " ") for name in measures)
    return Picture(
        title="The same function, other numbers",
        caption=(
            "Each measure at an equivalent network, divided by the measure at this one. On the line at 1 it "
            "does not depend on the scale of the weights; elsewhere it says as much about the coordinates as "
            "about the minimum."
        ),
        panels=(
            Panel(
                marks=(Rule(x=1.0, label="unchanged"), *marks),
                x=Axis(label="ratio after the rescaling", scale="log"),
                y=Axis(label="measure", scale="category", categories=names, reverse=True),
            ),
        ),
        table=(
            ("measure", "transformation", "ratio", "verdict"),
            tuple((r.measure, r.transformation, r.ratio, r.verdict) for r in table),
        ),
    )


def landscape_picture(found: "Landscape") -> Picture:
    """Heat map of the loss on a plane, with contours and the point in the middle."""
    values = found.values
    low, high = float(values.min()), float(values.max())
    log = low > 0 and high > 30 * low
    levels = np.geomspace(low, high, 12) if log else np.linspace(low, high, 12)
    edges = []
    for axis in found.axes:
        step = (axis[-1] - axis[0]) / (len(axis) - 1)
        edges.append((float(axis[0] - step / 2), float(axis[-1] + step / 2)))
    heat = HeatMap(
        values=values,
        x_range=edges[1],
        y_range=edges[0],
        scale="log" if log else "linear",
        label="loss",
        contours=tuple(float(level) for level in levels[1:-1]) if high > low else (),
    )
    names = {
        "filter": "random directions with the norm of each filter",
        "canonical": "random directions with the norm of each filter, at the balanced point of the orbit",
        "hessian": "the two sharpest directions",
        "given": "two given directions",
    }
    return Picture(
        title="The loss on a plane",
        caption=f"Around the network, along {names[found.source]}. {found.certificate()}",
        panels=(
            Panel(
                marks=(heat, Points(x=[0.0], y=[0.0], label="this network", marker="cross")),
                x=Axis(label="second direction"),
                y=Axis(label="first direction"),
                equal=True,
            ),
        ),
    )
