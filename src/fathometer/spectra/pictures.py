"""Pictures of spectra: what was measured, and the laws drawn over it.

Outliers of a real Hessian are a hundred times larger than the bulk, so spectra are drawn on
an axis that is logarithmic on both sides of zero. Heights are shares of the eigenvalues in a
bin, not densities: on such an axis an area would mean nothing.
"""

from typing import TYPE_CHECKING

import numpy as np

from fathometer.drawing.picture import Axis, Band, Bars, Line, Panel, Picture, Points, Rule

if TYPE_CHECKING:
    from fathometer.calculus.stieltjes import Law
    from fathometer.spectra.class_split import ClassSplit
    from fathometer.spectra.compare import Comparison
    from fathometer.spectra.critical_points import CriticalPoints
    from fathometer.spectra.density import SpectralDensity
    from fathometer.spectra.free_sum import FreeSum
    from fathometer.spectra.index import IndexResult
    from fathometer.spectra.monitor import SharpnessHistory
    from fathometer.spectra.spacing import SpacingRatio

BINS_PER_DECADE = 12
LAW_NAMES = {"wigner": "Wishart + Wigner", "relu": "Wishart + ReLU residual"}


def signed_log_bins(values: np.ndarray, low: float, high: float) -> tuple[np.ndarray, float]:
    """Bin edges from ``low`` to ``high``, even on a signed log axis, and the axis' threshold.

    The threshold is where the smallest 2% of the values that are not zero end, within six decades.
    """
    size = np.abs(values[values != 0])
    largest = max(abs(low), abs(high), 1e-300)
    threshold = float(np.quantile(size, 0.02)) if len(size) else largest
    threshold = 10.0 ** np.floor(np.log10(min(max(threshold, 1e-6 * largest), 0.1 * largest)))

    def forward(x: float) -> float:
        u = abs(x) / threshold
        return float(np.sign(x) * (u if u < 1 else 1 + np.log10(u)))

    first, last = forward(low), forward(high)
    steps = np.linspace(first, last, max(int(BINS_PER_DECADE * (last - first)), 8) + 1)
    inner = np.abs(steps)
    edges = np.sign(steps) * threshold * np.where(inner < 1, inner, 10.0 ** (inner - 1))
    return edges, threshold


def density_picture(density: "SpectralDensity") -> Picture:
    """Shares of the spectrum on a signed logarithmic axis, with the bracket of the distribution function."""
    nodes, _ = density.points
    edges, threshold = _bins(nodes)
    shares = np.diff(density.cdf(edges))
    axis = Axis(label="eigenvalue", scale="signed_log", threshold=threshold)
    marks = [Bars(edges=edges, heights=shares, label="share of the eigenvalues"), Rule(x=0.0)]
    panels = [Panel(marks=tuple(marks), x=axis, y=_share_axis(density.size), title="spectrum")]
    if density.kind == "estimate":
        lower, upper = density.bracket(edges)
        curve = (
            Band(x=edges, lower=lower, upper=upper, label="proved, 99.9%"),
            Line(x=edges, y=density.cdf(edges), label="estimate"),
            Rule(x=0.0),
        )
        panels.append(Panel(marks=curve, x=axis, y=Axis(label="share at or below"), title="bracket"))
    return Picture(
        title=f"Spectrum of {density.name}",
        caption=f"{density}. Bars are shares of all {density.size} eigenvalues; the axis is logarithmic on "
        f"both sides of zero and linear within {threshold:.1g}.",
        panels=tuple(panels),
    )


def comparison_picture(comparison: "Comparison") -> Picture:
    """The measured spectrum with the laws drawn over it."""
    laws = {LAW_NAMES[name]: law for name, law in comparison.laws().items()}
    first = comparison.rows[0]
    return spectrum_beside_laws(
        comparison.density,
        laws,
        title="The Hessian beside random matrix theory",
        caption=f"Bars: the measured spectrum, H normalized to a Gauss-Newton part of mean "
        f"{comparison.scale:g}. Lines: the laws at energy {comparison.normalized_energy:.3g} in these units "
        f"and aspect ratio {comparison.aspect_ratio:.3g}. Index measured {comparison.measured_index:.3f}, "
        f"by the general law {first.index:.3f}; Kolmogorov distance {first.ks:.3f}.",
    )


def spectrum_beside_laws(
    density: "SpectralDensity", laws: dict[str, "Law"], *, title: str, caption: str
) -> Picture:
    """A measured spectrum as bars and laws as lines, as shares of the same bins."""
    nodes, _ = density.points
    ends = [edge for law in laws.values() for band in law.support() for edge in band]
    edges, threshold = _bins(np.concatenate([nodes, ends]))
    middle = 0.5 * (edges[1:] + edges[:-1])
    marks: list[Bars | Line | Rule] = [
        Bars(edges=edges, heights=np.diff(density.cdf(edges)), label="measured", color=0)
    ]
    for i, (name, law) in enumerate(laws.items()):
        shares = np.diff(law.cdf(edges))
        drawn = np.flatnonzero(shares > 0)
        part = slice(drawn[0], drawn[-1] + 1)  # gaps between bands break the line
        line = np.where(shares > 0, shares, np.nan)[part]
        marks.append(Line(x=middle[part], y=line, label=name, color=i + 1, dash=i > 0))
    marks.append(Rule(x=0.0))
    axis = Axis(label="eigenvalue of the normalized Hessian", scale="signed_log", threshold=threshold)
    panel = Panel(marks=tuple(marks), x=axis, y=_share_axis(density.size))
    return Picture(title=title, caption=caption, panels=(panel,))


def critical_points_picture(points: "CriticalPoints") -> Picture:
    """Index against energy, one dot a critical point."""
    energies = np.array([row.energy for row in points], dtype=float)
    indices = np.array([row.index for row in points], dtype=float)
    texts = tuple(f"gradient {row.gradient_norm:.1e}, {row.zero} zero modes" for row in points)
    panel = Panel(
        marks=(Points(x=energies, y=indices, label="critical points", texts=texts),),
        x=Axis(label="energy"),
        y=Axis(label="share of negative eigenvalues"),
    )
    return Picture(
        title="Critical points",
        caption=f"{len(points)} verified critical points from {points.attempts} searches; "
        f"{points.refused} searches ended where the gradient is small and refused.",
        panels=(panel,),
    )


def sharpness_history_picture(history: "SharpnessHistory") -> Picture:
    """Readings of the largest eigenvalue against training steps, with the 2/eta line."""
    steps = np.array([row.step for row in history.rows], dtype=float)
    values = np.array([row.value for row in history.rows], dtype=float)
    edges = np.array([row.edge for row in history.rows], dtype=float)
    marks: list[Line | Rule] = [Line(x=steps, y=values, label="largest eigenvalue")]
    if len(edges) and np.isfinite(edges).all():
        marks.append(Line(x=steps, y=edges, label="2 / step size", dash=True))
    if history.onset >= 0:
        marks.append(Rule(x=float(history.onset), label="onset"))
    panel = Panel(marks=tuple(marks), x=Axis(label="training step"), y=Axis(label="sharpness"))
    return Picture(
        title="Sharpness during training",
        caption=f"{len(history.rows)} readings, {history.products} Hessian products. Gradient descent is "
        "stable below the dashed line.",
        panels=(panel,),
    )


def free_sum_picture(total: "FreeSum") -> Picture:
    """Shares of the free sum and of its two parts, on a signed logarithmic axis."""
    parts = (total.first, total.second)
    edges, threshold = _bins(np.concatenate([parts[0][0], parts[1][0], total.quantiles(100)]))
    middle = 0.5 * (edges[1:] + edges[:-1])
    lines = [Line(x=middle, y=np.diff(total.cdf(edges)), label="free sum")]
    for (nodes, weights), name in zip(parts, ("first part", "second part"), strict=True):
        lines.append(Line(x=middle, y=np.histogram(nodes, edges, weights=weights)[0], label=name, dash=True))
    axis = Axis(label="eigenvalue", scale="signed_log", threshold=threshold)
    panel = Panel(marks=(*lines, Rule(x=0.0)), x=axis, y=Axis(label="share of the eigenvalues in a bin"))
    return Picture(
        title="Free sum of two measured spectra",
        caption="What the spectrum of the sum would be if the eigenvectors of the parts were independent; "
        f"share of negative eigenvalues {total.index():.3f}.",
        panels=(panel,),
    )


def _bins(values: np.ndarray) -> tuple[np.ndarray, float]:
    low, high = float(values.min()), float(values.max())
    pad = 0.02 * max(high - low, abs(high), abs(low), 1e-12)
    return signed_log_bins(values, low - pad, high + pad)


def _share_axis(size: int) -> Axis:
    return Axis(label="share of the eigenvalues in a bin", scale="log", limits=(0.5 / size, 1.0))


def index_picture(index: "IndexResult") -> Picture:
    """How many directions go down, are flat and go up; what is not certain is between the rules."""
    shares = np.array([index.negative, index.zero, index.positive]) / index.size
    counts = tuple(f"{count:,}" for count in (index.negative, index.zero, index.positive))
    kinds = Axis(scale="category", categories=("down", "flat", "up"), label="curvature")
    marks: list[Bars | Rule] = [Bars(edges=np.arange(4) - 0.5, heights=shares, texts=counts)]
    if index.kind == "estimate":
        marks += [Rule(y=index.lower, label="least share down"), Rule(y=index.upper, label="most")]
    panel = Panel(marks=tuple(marks), x=kinds, y=Axis(label=f"share of {index.size:,} eigenvalues"))
    return Picture(
        title="Index",
        caption=f"{index}. Flat: below {index.threshold:.1e} of the largest in size, {index.largest:.3g}.",
        panels=(panel,),
    )


def class_split_picture(split: "ClassSplit") -> Picture:
    """The spectra of the terms of a Gauss-Newton matrix, largest first, and their shares of the trace."""
    lines = []
    for term in ("class", "cross", "own"):
        values = split.eigenvalues(term).numpy()
        values = values[values > 1e-12 * values[0]] if len(values) and values[0] > 0 else values[:0]
        lines.append(Points(x=np.arange(1, len(values) + 1.0), y=values, label=term))
    shares = Bars(edges=np.arange(len(split.shares) + 1) - 0.5, heights=np.array(split.shares))
    names = Axis(scale="category", categories=("class", "cross", "own", "within"))
    panels = (
        Panel(marks=(shares,), x=names, y=Axis(label="share of the trace"), title="shares"),
        Panel(
            marks=tuple(lines),
            x=Axis(label="rank", scale="log"),
            y=Axis(label="eigenvalue", scale="log"),
            title="spectra",
        ),
    )
    return Picture(
        title="Where the outliers come from",
        caption=f"The Gauss-Newton matrix of {len(split.masses)} classes: the class term has at most that "
        "many outliers, the cross term a second group; the rest varies within the groups.",
        panels=panels,
    )


def spacing_picture(spacing: "SpacingRatio") -> Picture:
    """The ratios of neighboring gaps beside those of random matrices and of independent levels."""
    edges = np.linspace(0.0, 1.0, 21)
    heights = np.histogram(spacing.ratios, edges, density=True)[0]
    r = np.linspace(0.0, 1.0, 101)
    repelling = 27.0 / 4.0 * (r + r**2) / (1.0 + r + r**2) ** 2.5
    marks = (
        Bars(edges=edges, heights=heights, label="measured"),
        Line(x=r, y=repelling, label="random symmetric matrix"),
        Line(x=r, y=2.0 / (1.0 + r) ** 2, label="independent levels", dash=True),
    )
    panel = Panel(marks=marks, x=Axis(label="ratio of neighboring gaps"), y=Axis(label="density"))
    return Picture(
        title="Level spacing",
        caption=f"Mean {spacing.value:.3f} +- {spacing.error:.3f}: 0.531 where levels repel, else 0.386.",
        panels=(panel,),
    )
