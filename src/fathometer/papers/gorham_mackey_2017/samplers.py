"""Choosing a tolerance for approximate slice sampling, and between two Fisher scoring samplers."""

import numpy as np
import torch

from fathometer.drawing import Axis, Line, Panel, Picture, Points
from fathometer.model import digits
from fathometer.papers.gorham_mackey_2015.targets import BATCH, welling_teh
from fathometer.papers.item import Check, Outcome, check, item
from fathometer.results import Row, Table
from fathometer.stein import Gaussian, InverseMultiquadric, Matern32, Posterior, ess, ksd
from fathometer.stein.samplers import approximate_slice, fisher_scoring, langevin

TOLERANCES = (0.0, 1e-4, 1e-3, 1e-2, 1e-1)
EVALUATIONS = 147_695


@item("experiment-3", "Which tolerance for approximate slice sampling?", seconds=60)
def experiment_3(*, full: bool = False, seed: int = 0) -> Outcome:
    """Tolerances of the sequential test for the mixture posterior of Welling & Teh, batches of 5.

    147,695 likelihood evaluations a chain, as printed; 50 chains in full, as printed, and 3 else.
    """
    posterior = welling_teh(seed)
    budget, chains = (EVALUATIONS, 50 if full else 3)
    rows = []
    for tolerance in TOLERANCES:
        found = [_slices(posterior, tolerance, budget, seed + s) for s in range(chains)]
        thinned = [_spaced(x, b, 1000) for x, b in found]
        rows.append(
            Row(
                tolerance=tolerance,
                draws=int(np.median([len(x) for x, _ in found])),
                ess=float(np.median([ess(x).min() for x, _ in found])),
                ksd=float(np.median([ksd(x, b).value for x, b in thinned])),
            )
        )
    by_ess, by_ksd = max(rows, key=lambda r: r.ess).tolerance, min(rows, key=lambda r: r.ksd).tolerance
    at = np.arange(len(rows), dtype=float)
    axis = Axis(label="tolerance", scale="category", categories=tuple(f"{t:g}" for t in TOLERANCES))
    return Outcome(
        checks=(
            check("tolerance chosen by effective sample size", 1e-1, by_ess, by_ess == 1e-1),
            check("tolerance chosen by the KSD", 1e-2, by_ksd, by_ksd in (1e-3, 1e-2), "our own data"),
            check(
                "the KSD refuses the tolerance of the largest ESS", "yes", by_ksd != by_ess, by_ksd != by_ess
            ),
        ),
        table=Table(title=f"approximate slice sampling, {budget} evaluations", rows=tuple(rows)),
        pictures=(
            Picture(
                title="Tolerance of approximate slice sampling",
                caption="Left, to be large; right, to be small.",
                panels=tuple(
                    Panel(marks=(Line(x=at, y=y), Points(x=at, y=y)), x=axis, y=Axis(label=label))
                    for label, y in (
                        ("effective sample size", np.array([r.ess for r in rows])),
                        ("KSD", np.array([r.ksd for r in rows])),
                    )
                ),
            ),
        ),
    )


def _slices(posterior: Posterior, tolerance: float, budget: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """One chain of about ``budget`` evaluations of likelihood ratios."""

    def run(steps: int) -> tuple[int, np.ndarray, np.ndarray]:
        chain = approximate_slice(
            posterior, np.zeros(2), steps, 1.0, tolerance=tolerance, batch_size=BATCH, seed=seed
        )
        # the term at the present place is known from before: one evaluation, not two
        return chain.evaluations // 2, chain.points, chain.scores

    pilot = run(20)[0] / 20
    return run(max(8, int(budget / pilot)))[1:]


def _spaced(x: np.ndarray, b: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    keep = np.unique(np.linspace(0, len(x) - 1, min(len(x), most)).round().astype(int))
    return x[keep], b[keep]


@item("experiment-4", "Full or diagonal Fisher scoring: the Gaussian kernel can mislead", seconds=40)
def experiment_4(*, full: bool = False, seed: int = 0) -> Outcome:
    """SGFS-f against SGFS-d: Bayesian logistic regression on random projections of 7s and 9s.

    The paper uses MNIST, 50 projections, 100,000 draws and the first half left out. Here the 359 embedded
    8 x 8 digits carry 10 projections and an intercept; 4 chains of 2,000 draws (20,000 in full) start at
    the mode, 500 are left out. A long exact MALA run gives the true widths of the posterior. All of it
    three times, with projections of its own each time: one run says little.
    """
    rows, pictures = [], []
    for run in range(3):
        found, truth, clouds = _compared(seed + run, full=full)
        rows += [Row(run=run, **row) for row in found]
        pictures += [_marginals(truth, clouds)] if run == 0 else []
    return Outcome(
        checks=_preferences(rows),
        table=Table(title="Fisher scoring, 7 against 9, d = 11", rows=tuple(rows)),
        pictures=tuple(pictures),
    )


def _compared(seed: int, *, full: bool) -> tuple[list[Row], np.ndarray, dict[str, np.ndarray]]:
    """Both samplers on one posterior: their rows, draws of a long exact run, and draws of each."""
    posterior, X, sign = _seven_against_nine(seed)
    mode, covariance = _laplace(X, sign)
    draws, d, length = 20_000 if full else 2000, len(mode), 1000 if full else 500
    exact = langevin(
        posterior, np.tile(mode, (20, 1)), length, 0.7, preconditioner=covariance, warmup=100, seed=seed
    )
    truth = exact.points.reshape(-1, d)
    kernels = {"IMQ": InverseMultiquadric(), "Gaussian": Gaussian(), "Matern": Matern32()}
    rows, clouds = [], {}
    for form in ("full", "diagonal"):
        chain = fisher_scoring(
            posterior, np.tile(mode, (4, 1)), draws, 1.0, form=form, batch_size=100, warmup=500, seed=seed
        )
        gap = max(1, draws // 350)
        x, b = (v[:, ::gap].reshape(-1, d) for v in (chain.points, chain.scores))
        cells = {name: ksd(x, b, kernel).value for name, kernel in kernels.items()}
        width = np.abs(np.log(chain.points.reshape(-1, d).std(0) / truth.std(0))).mean()
        size = float(ess(chain.points).min())
        rows.append(Row(sampler=f"SGFS-{form[0]}", **cells, ess=size, width_error=float(width)))
        clouds[f"SGFS-{form[0]}"] = x
    return rows, truth, clouds


def _preferences(rows: list[Row]) -> tuple[Check, ...]:
    """Which sampler each measure prefers, in most runs."""
    claims = {
        "IMQ": ("sampler preferred by the IMQ kernel", "SGFS-f",
                "discrepancies vary by a factor of two between runs, more than the samplers differ"),
        "width_error": ("sampler whose widths are nearer to a long exact run", "SGFS-f", ""),
        "Gaussian": ("sampler preferred by the Gaussian kernel (misleadingly, in the paper)", "SGFS-d",
                     "11 dimensions and small data do not always mislead it; see experiment-2"),
    }  # fmt: skip
    runs = sorted({row.run for row in rows})
    checks = []
    for name, (claim, expected, note) in claims.items():
        pairs = [[row for row in rows if row.run == run] for run in runs]
        won = sum(min(pair, key=lambda row: row[name]).sampler == expected for pair in pairs)
        found = f"{expected} in {won} of {len(runs)} runs"
        checks.append(check(claim, expected, found, won > len(runs) / 2, note))
    return tuple(checks)


def _seven_against_nine(seed: int) -> tuple[Posterior, torch.Tensor, torch.Tensor]:
    """Logistic regression with a standard normal prior on projected digits; the covariates and signs."""
    images, labels, more, other = digits()
    pixels = torch.cat([images, more]).reshape(-1, 64).double()
    classes = torch.cat([labels, other])
    chosen = (classes == 7) | (classes == 9)
    rng = np.random.default_rng([1703, seed])
    X = pixels[chosen] @ torch.from_numpy(rng.standard_normal((64, 10)))
    X = torch.cat([torch.ones(len(X), 1, dtype=torch.float64), (X - X.mean(0)) / X.std(0)], dim=1)
    sign = torch.where(classes[chosen] == 7, 1.0, -1.0).double()

    def prior(theta: torch.Tensor) -> torch.Tensor:
        return -0.5 * (theta**2).sum()

    def terms(theta: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.logsigmoid(sign[rows] * (X[rows] @ theta))

    return Posterior(prior, terms, len(X)), X, sign


def _laplace(X: torch.Tensor, sign: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The posterior's mode by Newton's method, and the inverse of its curvature there."""
    eye = torch.eye(X.shape[1], dtype=torch.float64)
    theta, precision = eye[0] * 0, eye
    for _ in range(30):
        right = torch.sigmoid(sign * (X @ theta))
        precision = (X * (right * (1 - right))[:, None]).T @ X + eye
        theta = theta + torch.linalg.solve(precision, X.T @ (sign * (1 - right)) - theta)
    return theta.numpy(), torch.linalg.inv(precision).numpy()


def _marginals(truth: np.ndarray, clouds: dict[str, np.ndarray]) -> Picture:
    """The pair of coordinates that are most correlated in the exact run, for both samplers."""
    correlation = np.abs(np.corrcoef(truth.T) - np.eye(truth.shape[1]))
    i, j = (int(k) for k in np.unravel_index(int(correlation.argmax()), correlation.shape))
    shown = truth[:: len(truth) // 500]
    return Picture(
        title="The most correlated pair",
        caption="Draws of both samplers over those of a long exact run.",
        panels=tuple(
            Panel(
                marks=(
                    Points(x=shown[:, i], y=shown[:, j], label="exact", marker="ring"),
                    Points(x=x[::3, i], y=x[::3, j], label=name),
                ),
                x=Axis(label=f"coordinate {i}"),
                y=Axis(label=f"coordinate {j}"),
            )
            for name, x in clouds.items()
        ),
    )
