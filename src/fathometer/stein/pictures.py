"""Pictures of this room, each computed from a result alone."""

from typing import TYPE_CHECKING

import numpy as np

from fathometer.drawing.picture import Axis, Line, Panel, Picture, Points, Rule

if TYPE_CHECKING:
    from fathometer.stein.ksd import KernelSteinDiscrepancy

_SHOWN = 2000


def ksd_picture(result: "KernelSteinDiscrepancy") -> Picture:
    """The witness over the sample, along the first coordinate or over the first two."""
    n, d = result.points.shape
    chosen = np.unique(np.linspace(0, n - 1, min(n, _SHOWN)).round().astype(int))
    x, h = result.points[chosen], result.witness[chosen]
    if d == 1:
        order = np.argsort(x[:, 0], kind="stable")
        panel = Panel(
            marks=(Line(x=x[order, 0], y=h[order], label="witness"), Rule(y=0.0)),
            x=Axis(label="x"),
            y=Axis(label="witness h(x)"),
            title=f"discrepancy {result.value:.3g}, yardstick {result.expected:.3g}",
        )
    else:
        over = h > 0
        panel = Panel(
            marks=(
                Points(x=x[over, 0], y=x[over, 1], label="too much mass (h > 0)", marker="dot"),
                Points(x=x[~over, 0], y=x[~over, 1], label="too little mass (h < 0)", marker="ring"),
            ),
            x=Axis(label="coordinate 0"),
            y=Axis(label="coordinate 1"),
            title=f"discrepancy {result.value:.3g}, yardstick {result.expected:.3g}",
        )
    return Picture(
        title="Kernel Stein discrepancy",
        caption=(
            "The witness is the test function that tells the sample from its target best: it is positive "
            "where the sample has too much mass. The discrepancy is "
            f"{result.value / max(result.expected, 1e-300):.2g} times that of a correct independent sample."
        ),
        panels=(panel,),
        columns=1,
    )
