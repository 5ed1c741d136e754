"""Section 5: energies of minimizers, and the index at critical points of networks that memorize noise."""

import numpy as np
from scipy.optimize import brentq

from fathometer.drawing import Axis, Line, Panel, Picture, Points, Rule
from fathometer.papers.item import Outcome, check, item
from fathometer.papers.pennington_bahri_2017.networks import memorizing, noise, trained
from fathometer.results import Row, Table
from fathometer.spectra import CriticalPoints, critical_points, minimizer_energy
from fathometer.work import numpy_generator

RATIOS = (0.25, 1 / 3, 0.5, 2 / 3, 1.0)
MINIMUM = {"tanh": "tanh", "relu": "ReLU", "linear": "linear"}


@item("minimizer-energy", "Minimizers that memorize noise have energy (1/2)(1 - phi)^2", seconds=25)
def minimizers(*, full: bool = False, seed: int = 0) -> Outcome:
    """Section 5, the open problem of the abstract: the energy reached by training on Gaussian targets.

    Width 16, standard normal data, L-BFGS; means over draws of the data. The linear network is known
    in closed form (the best map of full rank, energy (1/2)(1 - n/m)), which is (1/2)(1 - phi/2), for
    phi = 2 n/m.
    """
    width, starts, iterations = 16, 5 if full else 2, 4000 if full else 1500
    rows, found = [], {name: [] for name in MINIMUM}
    for phi in RATIOS:
        cells: dict[str, float] = {}
        for name in MINIMUM:
            runs = []
            for start in range(starts):
                x, y, weights = noise(width, phi, seed + start)
                runs.append(trained(x, y, weights, width, name, iterations)[0])
            cells[name] = float(np.mean(runs))
            found[name].append(cells[name])
        rows.append(Row(aspect_ratio=phi, **cells, formula=float(minimizer_energy(phi))))
    law = np.array([row.formula for row in rows])
    small = np.array(RATIOS) <= 2 / 3
    worst = {name: float(np.abs(np.array(found[name]) - law)[small].max()) for name in ("tanh", "relu")}
    linear = 0.5 * (1 - np.array(RATIOS) / 2)
    gap = float(np.abs(np.array(found["linear"]) / linear - 1).max())
    excess = max(found["tanh"][-1], found["relu"][-1])
    x = np.linspace(0.2, 1.0, 81)
    marks = [
        Line(x=x, y=minimizer_energy(x), label="(1/2)(1 - phi)^2"),
        Line(x=x, y=0.5 * (1 - x / 2), label="(1/2)(1 - phi/2)", dash=True),
    ]
    marks += [
        Points(x=np.array(RATIOS), y=np.array(found[name]), label=label) for name, label in MINIMUM.items()
    ]
    picture = Picture(
        title="Energy of minimizers",
        caption=f"Mean of {starts} networks of width {width} that memorize noise.",
        panels=(Panel(marks=tuple(marks), x=Axis(label="aspect ratio phi"), y=Axis(label="energy")),),
    )
    note = "finite width: fluctuations of 0.02; beyond phi = 2/3 an excess remains"
    return Outcome(
        checks=(
            check(
                "tanh networks follow (1/2)(1 - phi)^2 up to phi = 2/3",
                "fits well",
                worst["tanh"],
                worst["tanh"] < 0.04,
                note,
            ),
            check("ReLU networks follow it too", "fits well", worst["relu"], worst["relu"] < 0.04, note),
            check("at phi = 1 nonlinear networks memorize everything", 0.0, excess, excess < 0.03, note),
            check(
                "linear networks do not: (1/2)(1 - phi/2)",
                "(1/2)(1 - phi)",
                gap,
                gap < 0.08,
                "relative gap; the printed form holds if phi counts parameters of the linear map, n/m",
            ),
        ),
        table=Table(title="energy of minimizers", rows=tuple(rows)),
        pictures=(picture,),
    )


WIDTH = 8
PIECES, EACH = 5, 40
"""At full size: searches in pieces with streams of their own, that can be run one by one."""
CUTS = (0.15, 0.2, 0.3)
"""Largest index of the points that a fit is repeated on."""


def piece(phi: float, count: int, seed: int) -> CriticalPoints:
    """Some critical points of networks that memorize noise, no network twice among the pieces."""
    return critical_points(memorizing(WIDTH, phi), count, 1e-10, seed=10_000 * seed, attempts=60 * count)


def _points(phi: float, *, full: bool, seed: int) -> tuple[list[Row], int]:
    """Critical points, and the searches they took."""
    parts = [piece(phi, EACH, PIECES * seed + i) for i in range(PIECES)] if full else [piece(phi, 10, seed)]
    return [row for part in parts for row in part], sum(part.attempts for part in parts)


def spread(phi: float) -> float:
    """Standard deviation of a network's threshold around (1/2)(1 - phi)^2, as least squares have it.

    A residual of m n - P degrees of freedom, of m n = P / phi targets, has a relative variance of
    two over their number.
    """
    freedom = 2 * WIDTH**2 / phi * (1 - phi)
    return float(minimizer_energy(phi)) * (2 / freedom) ** 0.5


def exponent(energies: np.ndarray, indices: np.ndarray, start: float) -> tuple[float, float, float]:
    """Coefficient, threshold and exponent p of ``index = a (energy - threshold)^p`` by least squares.

    For each threshold the exponent follows from the root of the derivative in p, the coefficient
    linearly; thresholds below the ``start`` (the lowest energy) are tried on a grid.
    """
    best = (np.inf, 0.0, 0.0, 0.0)
    for threshold in np.linspace(0.3 * start, 0.995 * start, 60):
        t = energies - threshold

        def slope(p: float, t: np.ndarray = t) -> float:
            u = t**p
            a = (u @ indices) / (u @ u)
            return float(((a * u - indices) * a * u) @ np.log(t))

        if slope(0.2) * slope(4.0) >= 0:
            continue
        p = float(brentq(slope, 0.2, 4.0, xtol=1e-4))  # type: ignore[arg-type]
        u = t**p
        a = float((u @ indices) / (u @ u))
        loss = float(np.square(a * u - indices).sum())
        if loss < best[0]:
            best = (loss, a, float(threshold), p)
    return best[1:]


def _interval(energies: np.ndarray, indices: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the 95% bootstrap intervals of threshold and exponent: (2,) each."""
    random, fits = numpy_generator(seed, "bootstrap"), []
    for _ in range(100):
        chosen = random.integers(len(energies), size=len(energies))
        fits.append(exponent(energies[chosen], indices[chosen], float(energies[chosen].min()))[1:])
    low, high = np.quantile(fits, [0.025, 0.975], axis=0)
    return np.array([low[0], high[0]]), np.array([low[1], high[1]])


def _by_range(energies: np.ndarray, indices: np.ndarray) -> str:
    """How the exponent depends on the range of the fit."""
    found = []
    for cut in CUTS:
        low = indices <= cut
        p = exponent(energies[low], indices[low], float(energies.min()))[2] if low.sum() > 8 else np.nan
        found.append(f"{p:.2f} ({int(low.sum())} points)")
    return f"with indices up to {', '.join(map(str, CUTS))} only it is {', '.join(found)}"


def _saddles(phi: float, *, full: bool, seed: int) -> Outcome:
    points, attempts = _points(phi, full=full, seed=seed)
    energies = np.array([row.energy for row in points])
    indices = np.array([row.index for row in points])
    order = float(np.corrcoef(energies.argsort().argsort(), indices.argsort().argsort())[0, 1])
    floor = float(minimizer_energy(phi))
    slope = max(row.gradient_norm for row in points)
    left = max(row.step_left / max(row.norm, 1.0) for row in points)
    checks = [
        check("gradients vanish at all points", "below 1e-6", slope, slope <= 1e-10, "largest norm"),
        check(
            "none is gradient-flat", "not checked", left, left < 1e-6, "largest Newton step left, relative"
        ),
        check(
            "the index grows with the energy",
            "monotone",
            float(order),
            float(order) > 0.7,
            "rank correlation",
        ),
    ]
    marks: list[Line | Points | Rule] = [Points(x=energies, y=indices, label="critical points")]
    if full:
        a, threshold, p = exponent(energies, indices, float(energies.min()))
        (low, high), (lower, upper) = _interval(energies, indices, seed)
        found = f"{p:.2f} [{lower:.2f}, {upper:.2f}]"
        note = f"fit to all points, 95% bootstrap; {_by_range(energies, indices)}"
        checks.append(check("the exponent is 3/2", 1.5, found, lower <= 1.5 <= upper, note))
        near = f"{threshold:.3f} [{low:.3f}, {high:.3f}]"
        room = 3 * spread(phi)
        note = f"three standard deviations of a network's own threshold, {room:.3f}, are allowed"
        meets = low - room <= floor <= high + room
        checks.append(check("the index starts at (1/2)(1 - phi)^2", floor, near, meets, note))
        x = np.linspace(threshold, energies.max(), 80)
        marks.append(Line(x=x, y=a * (x - threshold) ** p, label=f"fit, exponent {p:.2f}"))
    marks.append(Rule(x=floor, label="(1/2)(1 - phi)^2"))
    picture = Picture(
        title=f"Index against energy at critical points, phi = {phi:g}",
        caption=f"{len(points)} critical points of tanh networks of width 8 on noise, one network each, "
        f"from {attempts} searches.",
        panels=(
            Panel(marks=tuple(marks), x=Axis(label="energy"), y=Axis(label="share of negative eigenvalues")),
        ),
    )
    columns = ("energy", "index", "negative", "gradient_norm", "smallest", "norm")
    rows = tuple(Row(**{name: row[name] for name in columns}) for row in points)
    return Outcome(checks=tuple(checks), table=Table(title="critical points", rows=rows), pictures=(picture,))


@item(
    "figure-5-half", "Index against energy at true critical points, one parameter for two targets", seconds=25
)
def half(*, full: bool = False, seed: int = 0) -> Outcome:
    """Section 5: tanh networks on Gaussian data; follow the gradient to a random energy, then to |g| = 0.

    Width 8 in place of 16, so that every network has a threshold of its own. Minimizing the squared
    gradient by Levenberg-Marquardt steps, gradients below
    1e-10 (the paper: 1e-6, where gradient-flat points pass). 200 networks in full, 10 by default.
    """
    return _saddles(0.5, full=full, seed=seed)


@item(
    "figure-5-quarter",
    "Index against energy at true critical points, one parameter for four targets",
    seconds=25,
)
def quarter(*, full: bool = False, seed: int = 0) -> Outcome:
    """As `half`, at aspect ratio 1/4: the threshold moves with (1/2)(1 - phi)^2."""
    return _saddles(0.25, full=full, seed=seed)
