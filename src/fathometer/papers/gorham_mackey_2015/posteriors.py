"""Sections 5.2 and 5.3: two posteriors, a biased sampler each (figures 2 and 3)."""

import numpy as np

from fathometer.drawing import Axis, Line, Panel, Picture, Points
from fathometer.papers.gorham_mackey_2015.targets import BATCH, welling_teh
from fathometer.papers.item import Outcome, check, item
from fathometer.results import Row, Table
from fathometer.stein import Chain, ess, examples, graph_discrepancy, ksd
from fathometer.stein.samplers import approximate_metropolis, langevin, stochastic_gradient_langevin

STEPS = (5e-2, 1e-2, 5e-3, 1e-3, 5e-4, 1e-4, 5e-5, 1e-5)
TOLERANCES = (0.0, 0.1, 0.2)


@item("figure-2", "Which SGLD step size? Discrepancy against effective sample size", seconds=25)
def figure_2(*, full: bool = False, seed: int = 0) -> Outcome:
    """Figure 2: constant-step SGLD on the mixture posterior of Welling & Teh, 1000 points a chain.

    Medians over 50 chains of the effective sample size, as printed; of the spanner discrepancy over 3
    chains and every third point (all 50 and every point in full). The 100 data are drawn anew: the paper's
    are not published.
    """
    posterior = welling_teh(seed)
    starts = np.random.default_rng([seed, 2]).standard_normal((50, 2))
    rows = []
    for step in STEPS:
        chain = stochastic_gradient_langevin(posterior, starts, 1000, step, batch_size=BATCH, seed=seed)
        used, gap = (range(50), 1) if full else (range(3), 3)
        parts = [(chain.points[i, ::gap], chain.scores[i, ::gap]) for i in used]
        spanner = [graph_discrepancy(x, b).value for x, b in parts]
        rows.append(
            Row(
                step=step,
                ess=float(np.median([ess(points).min() for points in chain.points])),
                spanner=float(np.median(spanner)),
                ksd=float(np.median([ksd(chain.points[i], chain.scores[i]).value for i in range(20)])),
            )
        )
    by_ess = max(rows, key=lambda r: r.ess).step
    by_spanner, by_ksd = (min(rows, key=lambda r: r[name]).step for name in ("spanner", "ksd"))
    near = (1e-2, 5e-3, 1e-3)
    return Outcome(
        checks=(
            check("step chosen by effective sample size", 5e-2, by_ess, by_ess == 5e-2),
            check(
                "step chosen by the spanner discrepancy", 5e-3, by_spanner, by_spanner in near, "our own data"
            ),
            check("the kernel discrepancy agrees", "same range", by_ksd, by_ksd in near),
            check(
                "the step of the largest effective sample size is far from the target",
                "grossly over-dispersed",
                f"{rows[0].spanner / min(r.spanner for r in rows):.2g} times the least discrepancy",
                rows[0].spanner > 4 * min(r.spanner for r in rows),
            ),
        ),
        table=Table(title="SGLD on the mixture posterior, medians", rows=tuple(rows)),
        pictures=(_steps(rows),),
    )


def _steps(rows: list[Row]) -> Picture:
    at = np.array([r.step for r in rows])

    def panel(names: tuple[str, ...], label: str) -> Panel:
        marks = []
        for color, name in enumerate(names):
            y = np.array([r[name] for r in rows])
            marks += [Line(x=at, y=y, label=name, color=color), Points(x=at, y=y, color=color)]
        return Panel(
            marks=tuple(marks), x=Axis(label="step size", scale="log"), y=Axis(label=label, scale="log")
        )

    return Picture(
        title="Step size of SGLD",
        caption="Left, to be large; right, to be small. Effective sample size rewards the worst bias.",
        panels=(panel(("ess",), "effective sample size"), panel(("spanner", "ksd"), "discrepancy")),
    )


@item("figure-3", "Bias against variance of approximate Metropolis-Hastings", seconds=60)
def figure_3(*, full: bool = False, seed: int = 0) -> Outcome:
    """Figure 3: approximate random-walk MH on the nodal data, 100,000 likelihood evaluations a chain.

    Proposal N(0, 0.01 I), batches of 2, tolerances 0, 0.1 and 0.2; points equally spaced along the chain, at
    most 1000. Medians over 3 chains (8 in full), and 4 more short ones at 6,000 (16). The errors are against
    a long exact MALA run.
    """
    posterior = examples.nodal_posterior()
    truth = _surrogate(posterior, seed, 20_000 if full else 1000)
    X, _ = examples.nodal()
    rows, saturation = [], 0.0
    for tolerance in TOLERANCES:
        chains = [_chain(posterior, tolerance, seed + s) for s in range(8 if full else 3)]
        short = [_chain(posterior, tolerance, seed + 100 + s, 7000) for s in range(16 if full else 4)]
        for share in (0.06, 0.25, 1.0):
            parts = [_thinned(chain, share) for chain in chains]
            parts += [_thinned(chain, 1.0, 60) for chain in short] if share == 0.06 else []
            found = [graph_discrepancy(x, b) for x, b in parts if len(x) <= (400 if full else 60)]
            saturation = max([saturation, *(result.saturation for result in found)])
            errors = np.median([_errors(x, truth, X) for x, _ in parts], axis=0)
            rows.append(
                Row(
                    tolerance=tolerance,
                    evaluations=int(1e5 * share),
                    spanner=float(np.median([result.value for result in found])) if found else float("nan"),
                    ksd=float(np.median([ksd(x, b).value for x, b in parts])),
                    mean=errors[0],
                    second_moment=errors[1],
                    predictive=errors[2],
                )
            )

    def best(measure: str, evaluations: int) -> float:
        return min((r for r in rows if r.evaluations == evaluations), key=lambda r: r[measure]).tolerance

    early, late = [best(name, 6000) for name in ("spanner", "ksd")], best("ksd", 100_000)
    return Outcome(
        checks=(
            check("tolerance that is best at 6,000 evaluations, by KSD", "above 0", early[1], early[1] > 0),
            check(
                "the same by the spanner discrepancy",
                "above 0",
                early[0],
                early[0] > 0,
                f"60 points in 6 dimensions: up to {saturation:.0%} of the largest value any points have",
            ),
            check(
                "tolerance that is best at 100,000 evaluations", 0.0, late, late == 0.0, "by KSD, n = 1000"
            ),
            check(
                "the error of the mean agrees at the small budget",
                "above 0",
                best("mean", 6000),
                best("mean", 6000) > 0,
            ),
        ),
        table=Table(title="approximate Metropolis-Hastings, nodal data", rows=tuple(rows)),
        pictures=(_budgets(rows),),
    )


def _surrogate(posterior: object, seed: int, steps: int) -> np.ndarray:
    """Draws of 20 exact chains (MALA, with the correction that the published code leaves out)."""
    start = np.random.default_rng([seed, 3]).standard_normal((20, 6))
    chain = langevin(posterior, start, steps, 0.3, warmup=300, seed=seed)
    return chain.points.reshape(-1, 6)


def _chain(posterior: object, tolerance: float, seed: int, budget: int = 100_000) -> Chain:
    """A chain of about ``budget`` likelihood evaluations, the first 1,000 left out."""

    def run(steps: int, warmup: int = 0) -> Chain:
        return approximate_metropolis(
            posterior, np.zeros(6), steps, 0.01, tolerance=tolerance, batch_size=2, seed=seed, warmup=warmup
        )

    # one evaluation is a term at the proposal: the term at the present place is known from before
    cost = run(200).evaluations / 2 / 200
    return run(int((budget - 1000) / cost), warmup=int(1000 / cost))


def _thinned(chain: Chain, share: float, most: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """Equally spaced points of the first part of a chain."""
    length = max(2, int(share * len(chain.points)))
    keep = np.unique(np.linspace(0, length - 1, min(length, int(most * share))).round().astype(int))
    return chain.points[keep], chain.scores[keep]


def _errors(x: np.ndarray, truth: np.ndarray, X: np.ndarray) -> tuple[float, float, float]:
    """Largest errors of mean, second moments and predicted probabilities."""

    def predicted(draws: np.ndarray) -> np.ndarray:
        return (1 / (1 + np.exp(-draws @ X.T))).mean(0)

    mean = np.abs(x.mean(0) - truth.mean(0)).max()
    second = np.abs(x.T @ x / len(x) - truth.T @ truth / len(truth)).max()
    return float(mean), float(second), float(np.abs(predicted(x) - predicted(truth)).max())


def _budgets(rows: list[Row]) -> Picture:
    panels = []
    for measure in ("ksd", "mean", "second_moment", "predictive"):
        marks = []
        for color, tolerance in enumerate(TOLERANCES):
            mine = [r for r in rows if r.tolerance == tolerance]
            x, y = np.array([float(r.evaluations) for r in mine]), np.array([r[measure] for r in mine])
            marks += [
                Line(x=x, y=y, label=f"tolerance {tolerance:g}", color=color),
                Points(x=x, y=y, color=color),
            ]
        panels.append(
            Panel(
                marks=tuple(marks),
                x=Axis(label="likelihood evaluations", scale="log"),
                y=Axis(label=measure.replace("_", " "), scale="log"),
            )
        )
    return Picture(
        title="Bias against variance",
        caption="A tolerant test is better early on; in the long run its bias remains.",
        panels=tuple(panels),
    )
