"""Section 5: convergence on known targets (figures 1, 4 and 5)."""

from typing import Any

import numpy as np
from scipy import stats
from scipy.stats import qmc

from fathometer.drawing import Axis, Line, Panel, Picture, Rule
from fathometer.papers.gorham_mackey_2015.targets import curves, slope, unit_student, wasserstein_to
from fathometer.papers.item import Outcome, check, item
from fathometer.results import Row, Table
from fathometer.stein import classical_discrepancy, graph_discrepancy

NORMAL = (1.0, 4.0, 2.0)
UNIFORM = (0.5, 0.5, 1.0)


@item("figure-1", "Gaussian and Student's t samples against a Gaussian target", seconds=4)
def figure_1(*, full: bool = False, seed: int = 0) -> Outcome:
    """Figure 1: the discrepancy of independent N(0, 1) draws falls, that of scaled t draws stops.

    Medians over 3 seeds (5 in full); to n = 10,000 (30,000 in full, as printed). The t law has 10 degrees
    of freedom and unit variance, so its first two moments are right.
    """
    sizes = np.array([100, 300, 1000, 3000, 10_000, *([30_000] if full else [])])
    values: dict[str, list[float]] = {"Gaussian": [], "Student's t": []}
    witnesses = {}
    for n in sizes:
        for name, found in values.items():
            seeds = range(seed, seed + (5 if full else 3))
            results = [graph_discrepancy(x, -x, constants=NORMAL) for x in (_draw(name, n, s) for s in seeds)]
            found.append(float(np.median([r.value for r in results])))
            if n == 300:
                witnesses[name] = results[0]
    # equally weighted quantiles stand for a sample without noise: the level the t curve stops at
    middle = (np.arange(4000) + 0.5) / 4000
    quantiles = stats.t(10, scale=np.sqrt(0.8)).ppf(middle)
    level = graph_discrepancy(quantiles, -quantiles, constants=NORMAL).value
    rate = slope(sizes, np.array(values["Gaussian"]))
    last = values["Student's t"][-1]
    rows = [Row(n=int(n), gaussian=a, student=b) for n, a, b in zip(sizes, *values.values(), strict=True)]
    return Outcome(
        checks=(
            check(
                "exponent of the Gaussian sample", -0.52, rate, abs(rate + 0.52) < 0.1, "medians of few seeds"
            ),
            check(
                "the t sample levels off at the discrepancy of its law",
                "a plateau",
                f"{last:.3g} at n = {sizes[-1]}, law {level:.3g}",
                0.7 < last / level < 1.5,
            ),
            check(
                "at the largest n the t sample is told from the Gaussian one",
                "yes",
                f"{last / values['Gaussian'][-1]:.2g} times as far",
                last > 2 * values["Gaussian"][-1],
            ),
        ),
        table=Table(title="graph Stein discrepancy, c = (1, 4, 2)", rows=tuple(rows)),
        pictures=(
            Picture(
                title="Gaussian and Student's t",
                caption="A sample of the target falls like n^-1/2; a wrong one stops at its own distance.",
                panels=(curves(sizes, {k: np.array(v) for k, v in values.items()}, "graph discrepancy"),),
                columns=1,
            ),
            _optimal(witnesses),
        ),
    )


def _draw(name: str, n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng([seed, n])
    return rng.standard_normal(n) if name == "Gaussian" else unit_student(rng, n)


def _optimal(results: dict[str, Any]) -> Picture:
    """The optimal functions g and h = T g of one sample each."""
    panels = []
    for label, part in (("g", lambda r: r.function[:, 0]), ("h = T g", lambda r: r.witness)):
        marks = []
        for color, (name, result) in enumerate(results.items()):
            order = np.argsort(result.points[:, 0])
            marks.append(Line(x=result.points[order, 0], y=part(result)[order], label=name, color=color))
        panels.append(Panel(marks=(*marks, Rule(y=0.0)), x=Axis(label="x"), y=Axis(label=label)))
    return Picture(
        title="Optimal functions, n = 300",
        caption="For the t sample h is large in both tails, where it has too much mass.",
        panels=tuple(panels),
    )


@item("figure-4", "Rates of independent, Sobol and herding points on [0, 1]", seconds=10)
def figure_4(*, full: bool = False, seed: int = 0) -> Outcome:
    """Figure 4: n = 1 ... 200 points for the uniform law, c = (1/2, 1/2, 1).

    Herding is that of Bach et al. 2012: kernel B2(frac(x - y)) = z^2 - z + 1/6, 200 candidates. Medians of 50
    independent samples, as printed; every fifth n in the small run.
    """
    sizes = np.arange(5, 201) if full else np.arange(5, 201, 15)
    sobol = qmc.Sobol(1, scramble=False).random(257)[1:, 0]
    herded = herding(200)

    def distance(x: np.ndarray) -> float:
        return graph_discrepancy(x, np.zeros_like(x), constants=UNIFORM, support=(0.0, 1.0)).value

    rng = np.random.default_rng(seed)
    samples = rng.random((50, 200))
    values = {
        "independent": np.array([np.median([distance(x[:n]) for x in samples]) for n in sizes]),
        "Sobol": np.array([distance(sobol[:n]) for n in sizes]),
        "herding": np.array([distance(herded[:n]) for n in sizes]),
    }
    rates = {name: slope(sizes, found) for name, found in values.items()}
    published = {"independent": (-0.49, 0.08), "Sobol": (-1.0, 0.15), "herding": (-0.96, 0.25)}
    return Outcome(
        checks=(
            *(check(f"exponent of {name} points", *_near(published[name], rates[name])) for name in rates),
            check(
                "herding and Sobol points beat independent ones at n = 200",
                "yes",
                {name: round(float(v[-1]), 4) for name, v in values.items()},
                max(values["Sobol"][-1], values["herding"][-1]) < 0.5 * values["independent"][-1],
            ),
        ),
        table=Table(
            title="graph Stein discrepancy on [0, 1]",
            rows=tuple(
                Row(n=int(n), **{name: float(v[i]) for name, v in values.items()})
                for i, n in enumerate(sizes)
            ),
        ),
        pictures=(
            Picture(
                title="Rates of convergence",
                caption="Points placed with care reach n^-1, independent ones n^-1/2.",
                panels=(curves(sizes, values, "graph discrepancy"),),
                columns=1,
            ),
        ),
    )


def _near(published: tuple[float, float], found: float) -> tuple[float, float, bool]:
    return published[0], found, abs(found - published[0]) < published[1]


def herding(n: int, candidates: int = 200) -> np.ndarray:
    """Kernel herding for the uniform law on [0, 1] with the kernel of Bach et al. 2012."""
    grid = np.arange(candidates) / candidates
    total, picked = np.zeros(candidates), np.empty(n)
    for t in range(n):
        # the kernel's mean under the target is zero, so the next point minimizes the sum over the picked ones
        picked[t] = grid[int(np.argmin(total))]
        z = np.mod(grid - picked[t], 1.0)
        total += z**2 - z + 1 / 6
    return picked


@item("figure-5", "Wasserstein, classical and graph Stein discrepancies", seconds=15)
def figure_5(*, full: bool = False, seed: int = 0) -> Outcome:
    """Section 5.4: three distances of the same samples of N(0, 1) and of the uniform law.

    To n = 1,000 in the small run, 30,000 in full. With Stein factors as constants the order
    Wasserstein <= classical <= graph must hold at every n and seed.
    """
    sizes = np.array([100, 300, 1000, *([3000, 10_000, 30_000] if full else [])])
    rows = []
    for law, constants, support in (
        (stats.norm(), NORMAL, None),
        (stats.uniform(), UNIFORM, (0.0, 1.0)),
    ):
        for n in sizes:
            for s in range(seed, seed + (5 if full else 2)):
                x = law.rvs(n, random_state=np.random.default_rng([s, n]))
                b = -x if support is None else np.zeros_like(x)
                rows.append(
                    Row(
                        law="normal" if support is None else "uniform",
                        n=int(n),
                        seed=s,
                        wasserstein=wasserstein_to(x, law),
                        classical=classical_discrepancy(x, b, constants=constants, support=support).value,
                        graph=graph_discrepancy(x, b, constants=constants, support=support).value,
                    )
                )
    ordered = all(r.wasserstein <= r.classical * (1 + 1e-3) and r.classical <= r.graph + 1e-6 for r in rows)
    ratio = max(r.graph / r.classical for r in rows)
    uniform = max(abs(r.classical / r.wasserstein - 1) for r in rows if r.law == "uniform")
    return Outcome(
        checks=(
            check(
                "Wasserstein <= classical <= graph, every sample", "always", f"{len(rows)} samples", ordered
            ),
            check("graph over classical", "close together", ratio, ratio < 2.0),
            check(
                "for the uniform law the classical discrepancy is close to the Wasserstein distance",
                "close together",
                uniform,
                uniform < 0.5,
            ),
        ),
        table=Table(title="three distances of the same samples", rows=tuple(rows)),
        pictures=(
            Picture(
                title="Three distances",
                caption="All three fall together; the graph program is the cheapest of the Stein pair.",
                panels=tuple(_distances(rows, sizes, law) for law in ("normal", "uniform")),
            ),
        ),
    )


def _distances(rows: list[Row], sizes: np.ndarray, law: str) -> Panel:
    values = {
        name: np.array([np.median([r[name] for r in rows if r.law == law and r.n == n]) for n in sizes])
        for name in ("wasserstein", "classical", "graph")
    }
    return curves(sizes, values, "distance", law)
