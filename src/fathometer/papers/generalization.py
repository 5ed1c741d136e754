"""Do measures of sharpness tell which networks generalize? Small networks on real data.

After Jiang, Neyshabur, Mobahi, Krishnan & Bengio (2020) and Andriushchenko, Croce, Mueller, Hein & Flammarion
(2023): networks that differ in width, step size, batch size, weight decay and seed are trained on digits
to a small training error, every measure is taken, and its order is compared with that of the gap between test
and training error by Kendall's tau, with an interval from resampling the networks.
"""

import itertools
import math
from typing import Any

import numpy as np
import torch
from scipy.stats import kendalltau
from torch import Tensor, nn

from fathometer.drawing import Axis, Panel, Picture, Points, Rule
from fathometer.errors import FathometerError
from fathometer.model import LossSurface, digits, mlp
from fathometer.papers.item import Outcome, check, item
from fathometer.results import Row, Table
from fathometer.sharpness import measure, pac_bayes
from fathometer.work import generator, numpy_generator, task_map

EXAMPLES, NOISY = 240, 0.1
QUICK = (
    "hessian_norm", "hessian_trace", "hessian_frobenius", "gauss_newton_norm", "gradient_norm",
    "gradient_variance", "epsilon_sharpness", "keskar", "one_step", "average_sharpness", "local_volume",
    "local_entropy", "pac_bayes", "pac_bayes_bound", "weight_norm", "spectral_product", "frobenius_product",
    "relative_flatness_plain", "relative_flatness", "adaptive_box", "adaptive_average", "adaptive_one_step",
    "relative_norm", "relative_trace", "fisher_rao", "fisher_rao_empirical", "pac_bayes_relative",
    "path_norm", "path_norm_2", "m_sharpness", "m_sharpness_normalized", "m_sharpness_average",
    "quotient_norm",
    "information_geometric", "normalized_sharpness", "orbit_trace", "orbit_weight_norm",
)  # fmt: skip
FLAT = frozenset(["local_volume", "pac_bayes", "pac_bayes_relative"])
"""Large where the network is flat; their sign is turned."""


@item("kendall", "Order of the measures against the order of the generalization gap", seconds=60)
def kendall(*, full: bool = False, seed: int = 0) -> Outcome:
    """Kendall's tau of 38 measures with the gap, over 8 networks (full: 54), 90 % intervals by resampling.

    Rectifier perceptrons 64-w-10 on 240 digits of which a tenth have a wrong label; weights at
    initialization are the prior of one more bound. Networks and numbers are ours; the question is theirs.

    At full size (54 networks, two minutes) the sizes of the weights order the gap: norms, path norms and
    PAC-Bayes bounds reach a tau of 0.75 to 0.8. Curvature orders it the wrong way round: trace, norm and
    Frobenius norm of the Hessian lie between -0.5 and -0.3, because networks that were driven further down
    have less curvature and a larger gap. Measures relative to the weights lie around zero: invariance makes a
    number meaningful, not predictive, as Andriushchenko et al. find.
    """
    if full:
        every = itertools.product((8, 14, 24), (3e-3, 1e-2, 3e-2), (20, 60), (0.0, 1e-3), (0, 1))
        plans = [plan for i, plan in enumerate(every) if i % 4 != 3]  # 54 of 72
    else:
        plans = list(itertools.product((8, 20), (3e-3, 2e-2), (20, 60), (0.0,), (0,)))
    rows = task_map(lambda plan: study(plan, seed), plans)
    table, usable = judged(rows, seed)
    gaps = np.array([row["gap"] for row in rows])
    train = max(row["train error"] for row in rows)
    sure = sum(row.low > 0 or row.high < 0 for row in table.rows)
    best = max(table.rows, key=lambda row: abs(row.tau))
    strongest = f"{best.measure}: {best.tau:.2f} in [{best.low:.2f}, {best.high:.2f}]"
    return Outcome(
        checks=(
            check("networks", ">= 50" if full else ">= 8", len(rows), len(rows) >= (50 if full else 8)),
            check("measures with a tau", ">= 30", usable, usable >= 30),
            check("the gaps differ", "> 0", float(np.ptp(gaps)), float(np.ptp(gaps)) > 0),
            check("largest training error", "< 0.15", train, train < 0.15),
            check("intervals without zero", ">= 1", sure, sure >= 1),
            check("strongest association", "interval without zero", strongest, best.low > 0 or best.high < 0),
        ),
        table=table,
        pictures=(picture(table),),
    )  # fmt: skip


def study(plan: Any, seed: int) -> dict[str, float]:
    """Train one network and take every measure: name -> value, with "gap" and "train error"."""
    width, step, batch, decay, run = plan
    x, y, x_test, y_test = digits()
    draw = numpy_generator(seed, "generalization")
    chosen = draw.permutation(len(x))[:EXAMPLES]
    x, y = x[chosen], y[chosen].clone()
    wrong = draw.random(EXAMPLES) < NOISY
    y[torch.from_numpy(wrong)] = torch.from_numpy(draw.integers(0, 10, int(wrong.sum())))
    model = mlp((64, width, 10), seed=100 * seed + run)
    before = nn.utils.parameters_to_vector(model.parameters()).detach().double()
    fit(model, x, y, step, batch, decay, seed + run)
    surface = LossSurface(model, "cross_entropy", (x, y))
    found = {row.measure: row.value for row in measure(surface, QUICK, seed=seed)}
    try:
        found["pac_bayes_init"] = pac_bayes(surface, prior=before, seed=seed).bound
    except FathometerError:
        found["pac_bayes_init"] = math.nan
    found["distance_from_init"] = float((surface.theta.double() - before).norm())
    errors = [error_rate(model, *data) for data in ((x, y), (x_test, y_test))]
    return {**found, "train error": errors[0], "gap": errors[1] - errors[0]}


def fit(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    step: float,
    batch: int,
    decay: float,
    seed: int,
    epochs: int = 150,
) -> None:
    """Adam with decoupled weight decay, to the end of its epochs."""
    optimizer = torch.optim.AdamW(model.parameters(), step, weight_decay=decay / step)
    order = generator(seed, "generalization", "order")
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=order).split(batch):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()


def error_rate(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Share of wrong answers."""
    with torch.no_grad():
        return float((model(x).argmax(1) != y).double().mean())


def tau_of(values: np.ndarray, gaps: np.ndarray) -> float:
    """Kendall's tau, not a number where one of them is constant."""
    found: Any = kendalltau(values, gaps)
    return float(found.statistic)


def judged(rows: list[dict[str, float]], seed: int, resamples: int = 400) -> tuple[Table, int]:
    """Kendall's tau of every measure with the gap, with 5th and 95th percentile over resampled networks."""
    gaps = np.array([row["gap"] for row in rows])
    names = [name for name in rows[0] if name not in ("gap", "train error")]
    draw = numpy_generator(seed, "generalization", "resamples")
    picks = draw.integers(0, len(rows), (resamples, len(rows)))
    found = []
    for name in names:
        values = np.array([row.get(name, math.nan) for row in rows]) * (-1.0 if name in FLAT else 1.0)
        tau = tau_of(values, gaps) if np.isfinite(values).all() else math.nan
        if not math.isfinite(tau):
            continue
        with np.errstate(all="ignore"):
            again = np.array([tau_of(values[p], gaps[p]) for p in picks])
        low, high = np.nanpercentile(again, [5, 95]).tolist()
        found.append(
            Row(
                measure=name,
                tau=tau,
                low=min(low, tau),
                high=max(high, tau),
                kind="estimate",
                smallest=float(values.min()),
                largest=float(values.max()),
            )
        )
    found.sort(key=lambda row: -row.tau)
    title = f"Kendall's tau with the generalization gap, {len(rows)} networks"
    return Table(title=title, rows=tuple(found)), len(found)


def picture(table: Table) -> Picture:
    """Tau of every measure with its interval."""
    names = tuple(row.measure.replace("_", " ") for row in table.rows)
    places = [float(i) for i in range(len(names))]
    return Picture(
        title="Does sharpness tell which networks generalize?",
        caption="Kendall's tau of each measure with the gap between test and training error, 90 % intervals.",
        panels=(
            Panel(
                marks=(
                    Rule(x=0.0, label="no association"),
                    Points(x=[row.tau for row in table.rows], y=places, label="tau", marker="dot"),
                    Points(
                        x=[row.low for row in table.rows], y=places, label="interval", marker="ring", color=1
                    ),
                    Points(x=[row.high for row in table.rows], y=places, marker="ring", color=1),
                ),
                x=Axis(label="Kendall's tau", limits=(-1.0, 1.0)),
                y=Axis(label="measure", scale="category", categories=names, reverse=True),
            ),
        ),
    )
