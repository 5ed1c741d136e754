"""Pictures of this room, each computed from a result alone."""

from typing import TYPE_CHECKING

import numpy as np

from fathometer.drawing.picture import Axis, Bars, Line, Panel, Picture, Points, Rule
from fathometer.errors import InputError

if TYPE_CHECKING:
    from fathometer.stein.chains import Chain
    from fathometer.stein.classical import ClassicalSteinDiscrepancy
    from fathometer.stein.fit import TestResult
    from fathometer.stein.graph import GraphSteinDiscrepancy
    from fathometer.stein.ksd import KernelSteinDiscrepancy
    from fathometer.stein.large import KernelSteinEstimate
    from fathometer.stein.selection import SelectionTable

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
        panel = _signs(x, h)
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


def graph_picture(result: "GraphSteinDiscrepancy") -> Picture:
    """The optimal function and its image, in one dimension; the image over the points otherwise."""
    n, d = result.points.shape
    chosen = np.unique(np.linspace(0, n - 1, min(n, _SHOWN)).round().astype(int))
    x, h = result.points[chosen], result.witness[chosen]
    if d == 1:
        order = np.argsort(x[:, 0], kind="stable")
        at = x[order, 0]
        panels = (
            Panel(
                marks=(Line(x=at, y=result.function[chosen][order, 0], label="g"), Rule(y=0.0)),
                x=Axis(label="x"),
                y=Axis(label="optimal function g(x)"),
            ),
            Panel(
                marks=(Line(x=at, y=h[order], label="h = T g"), Rule(y=0.0)),
                x=Axis(label="x"),
                y=Axis(label="witness h(x)"),
            ),
        )
    else:
        panels = (_signs(x, h), _shares(result.per_coordinate))
    return Picture(
        title="Graph Stein discrepancy",
        caption=(
            f"Discrepancy {result.value:.3g}, proved to {result.gap:.1g}. The witness is positive where the "
            f"sample has too much mass. Saturation {result.saturation:.2g}: at 1 the number says nothing."
        ),
        panels=panels,
    )


def _signs(x: np.ndarray, h: np.ndarray) -> Panel:
    """The sign of the witness over the first two coordinates."""
    over = h > 0
    return Panel(
        marks=(
            Points(x=x[over, 0], y=x[over, 1], label="too much mass (h > 0)", marker="dot"),
            Points(x=x[~over, 0], y=x[~over, 1], label="too little mass (h < 0)", marker="ring"),
        ),
        x=Axis(label="coordinate 0"),
        y=Axis(label="coordinate 1"),
        title="sign of the witness",
    )


def _shares(parts: np.ndarray) -> Panel:
    """One bar a coordinate."""
    return Panel(
        marks=(Bars(edges=np.arange(len(parts) + 1) - 0.5, heights=parts, label="part"),),
        x=Axis(label="coordinate", scale="category", categories=tuple(str(j) for j in range(len(parts)))),
        y=Axis(label="part of the discrepancy"),
        title="where it comes from",
    )


def chain_picture(chain: "Chain") -> Picture:
    """Traces of the first coordinate, and the first two coordinates against each other."""
    points = np.asarray(chain.points)
    points = points[None] if points.ndim == 2 else points
    shown = points[: min(len(points), 4), :: max(1, points.shape[1] // _SHOWN)]
    trace = Panel(
        marks=tuple(
            Line(x=np.arange(len(one)), y=one[:, 0], label=f"chain {i}") for i, one in enumerate(shown)
        ),
        x=Axis(label="draw"),
        y=Axis(label="coordinate 0"),
        title="trace",
    )
    panels = [trace]
    if points.shape[2] > 1:
        panels.append(
            Panel(
                marks=tuple(
                    Points(x=one[:, 0], y=one[:, 1], label=f"chain {i}") for i, one in enumerate(shown)
                ),
                x=Axis(label="coordinate 0"),
                y=Axis(label="coordinate 1"),
                title="draws",
            )
        )
    return Picture(
        title=chain.sampler or "Chain",
        caption=f"Acceptance {chain.acceptance:.3g}; {len(shown)} of {len(points)} chains are shown.",
        panels=tuple(panels),
    )


def classical_picture(result: "ClassicalSteinDiscrepancy") -> Picture:
    """The optimal function and what the operator makes of it."""
    order = np.argsort(result.points[:, 0], kind="stable")
    at = result.points[order, 0]
    curves = (("optimal function g(x)", "g", result.function), ("witness h(x)", "h = T g", result.witness))
    return Picture(
        title="Classical Stein discrepancy",
        caption=f"Value {result.value:.3g}. The witness is positive where the sample has too much mass.",
        panels=tuple(
            Panel(
                marks=(Line(x=at, y=values[order], label=name), Rule(y=0.0)),
                x=Axis(label="x"),
                y=Axis(label=label),
            )
            for label, name, values in curves
        ),
    )


def fit_picture(result: "TestResult") -> Picture:
    """The imitated null law as a histogram, and the statistic."""
    if len(result.replicates) == 0:
        raise InputError("this test has no imitated null law to draw: its p-value comes from the normal law.")
    heights, edges = np.histogram(result.replicates, bins=min(40, max(5, len(result.replicates) // 20)))
    return Picture(
        title="Test of fit",
        caption=(
            f"{result.method}. Bars: the statistic under the null hypothesis; the line is the sample's own, "
            f"p = {result.p_value:.3g}."
        ),
        panels=(
            Panel(
                marks=(
                    Bars(edges=edges, heights=heights, label="null law"),
                    Rule(x=result.statistic, label="sample"),
                ),
                x=Axis(label="statistic"),
                y=Axis(label="replicates"),
            ),
        ),
        columns=1,
    )


def selection_picture(table: "SelectionTable") -> Picture:
    """Discrepancy (to be small) and effective sample size (not to be trusted alone) by candidate."""
    names = tuple(
        f"{row.candidate:g}" if isinstance(row.candidate, float) else str(row.candidate) for row in table
    )
    at = np.arange(len(names), dtype=float)
    axis = Axis(label="candidate", scale="category", categories=names)
    finite = [row.discrepancy if np.isfinite(row.discrepancy) else np.nan for row in table]
    return Picture(
        title="Which setting?",
        caption=(
            f"Left: the discrepancy, least at {table.best}. Right: the effective sample size, largest at "
            f"{table.best_by_ess}; it cannot see bias."
        ),
        panels=(
            Panel(
                marks=(Line(x=at, y=np.array(finite), label=table.measure), Points(x=at, y=np.array(finite))),
                x=axis,
                y=Axis(label=f"discrepancy ({table.measure})", scale="log"),
            ),
            Panel(
                marks=(
                    Bars(edges=np.arange(len(names) + 1) - 0.5, heights=[r.ess for r in table], label="ESS"),
                ),
                x=axis,
                y=Axis(label="effective sample size"),
            ),
        ),
    )


def estimate_picture(result: "KernelSteinEstimate") -> Picture:
    """The interval after every round of an estimate."""
    known = np.isfinite(result.path[:, 1])
    at = np.arange(1.0, len(result.path) + 1)[known]
    return Picture(
        title="Discrepancy of a large sample",
        caption=(
            f"Ends of the interval after every round of {result.method}; it covers the exact value at all "
            "times together."
        ),
        panels=(
            Panel(
                marks=(
                    Line(x=at, y=result.path[known, 0], label="low"),
                    Line(x=at, y=result.path[known, 1], label="high"),
                    Rule(y=result.expected, label="correct sample"),
                ),
                x=Axis(label="round"),
                y=Axis(label="discrepancy"),
            ),
        ),
        columns=1,
    )
