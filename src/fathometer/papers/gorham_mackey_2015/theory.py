"""Sections 2 to 4: the propositions, each as numbers taken by other means than the programs."""

from typing import Any

import numpy as np
from scipy import integrate, stats

from fathometer.papers.gorham_mackey_2015.targets import wasserstein_to
from fathometer.papers.item import Outcome, check, item
from fathometer.results import Row, Table
from fathometer.stein import classical_discrepancy, graph_discrepancy


@item("proposition-1", "The operator's mean under the target is zero", seconds=1)
def proposition_1(*, full: bool = False, seed: int = 0) -> Outcome:
    """Proposition 1 for N(0, 1), Gumbel and the uniform law (with g = 0 at its ends), by quadrature."""
    tests = {
        "sin": (np.sin, np.cos),
        "tanh": (np.tanh, lambda x: 1 / np.cosh(x) ** 2),
        "bump": (lambda x: np.exp(-(x**2)), lambda x: -2 * x * np.exp(-(x**2))),
    }
    rows = []
    for law, (pdf, score, ends) in {
        "normal": (stats.norm.pdf, lambda x: -x, (-12.0, 12.0)),
        "Gumbel": (stats.gumbel_r.pdf, lambda x: np.exp(-x) - 1, (-5.0, 60.0)),
        "uniform": (lambda x: 1.0, lambda x: 0.0, (0.0, 1.0)),
    }.items():
        for name, (g, slope) in tests.items():

            def image(x: float, parts: Any = (law, pdf, score, g, slope)) -> float:
                of, p, b, f, df = parts
                # on [0, 1] the function is multiplied by x (1 - x), which vanishes at the ends
                m, dm = (x * (1 - x), 1 - 2 * x) if of == "uniform" else (1.0, 0.0)
                return p(x) * (f(x) * m * b(x) + df(x) * m + f(x) * dm)

            breaks = [0.0] if ends[0] < 0 else None
            found = integrate.quad(image, *ends, limit=400, epsabs=1e-13, points=breaks)
            rows.append(Row(law=law, function=name, mean=float(found[0])))
    worst = max(abs(r.mean) for r in rows)
    return Outcome(
        checks=(check("largest |E T g| by quadrature", 0.0, worst, worst < 1e-9),),
        table=Table(title="E_P[(T g)(Z)]", rows=tuple(rows)),
    )


@item("proposition-3", "The discrepancy is at most what a coupling moves points and scores by", seconds=2)
def proposition_3(*, full: bool = False, seed: int = 0) -> Outcome:
    """Proposition 3 on the line: S <= E|X - Z| + E|b(X) - b(Z)| + E|b(Z)(X - Z)|, monotone coupling.

    X is uniform on a sample, Z its cell of N(0, 1); the classical set with c = (1, 1, 1).
    """
    rng, rows = np.random.default_rng(seed), []
    for n in (10, 100, 1000):
        for shift in (0.0, 0.5):
            x = np.sort(rng.standard_normal(n) + shift)
            z = stats.norm.ppf((np.arange(400 * n) + 0.5) / (400 * n)).reshape(n, 400)
            away = np.abs(x[:, None] - z)
            bound = float(2 * away.mean() + (np.abs(z) * away).mean())
            rows.append(Row(n=n, shift=shift, discrepancy=classical_discrepancy(x, -x).value, bound=bound))
    ratio = max(r.discrepancy / r.bound for r in rows)
    return Outcome(
        checks=(check("largest discrepancy over its bound", "at most 1", ratio, ratio <= 1.0),),
        table=Table(title="N(0, 1), score -x", rows=tuple(rows)),
    )


@item(
    "theorem-2",
    "With Stein factors the discrepancy is above the Wasserstein distance",
    seconds=3,
)
def theorem_2(*, full: bool = False, seed: int = 0) -> Outcome:
    """Theorem 2 (lower bound): a vanishing discrepancy forces convergence in Wasserstein distance.

    Samples of N(0, 1) made wrong in four ways; c = (1, 4, 2) are its Stein factors, so W1 <= S.
    """
    rng, rows = np.random.default_rng(seed), []
    z = rng.standard_normal(500)
    for name, x in (
        ("right", z),
        ("shifted", z + 0.3),
        ("narrow", 0.7 * z),
        ("one far point", np.append(z[1:], 30.0)),
        ("one half", np.abs(z)),
    ):
        value = classical_discrepancy(x, -x, constants=(1.0, 4.0, 2.0)).value
        rows.append(Row(sample=name, wasserstein=wasserstein_to(x, stats.norm()), discrepancy=value))
    ratio = max(r.wasserstein / r.discrepancy for r in rows)
    return Outcome(
        checks=(check("largest Wasserstein distance over discrepancy", "at most 1", ratio, ratio <= 1.0),),
        table=Table(title="N(0, 1), n = 500", rows=tuple(rows)),
    )


@item("proposition-4", "Non-uniform constants change the discrepancy by bounded factors", seconds=5)
def proposition_4(*, full: bool = False, seed: int = 0) -> Outcome:
    """Proposition 4: min(c) S <= S(c) <= max(c) S, on the line and on spanners in two dimensions."""
    rng, rows = np.random.default_rng(seed), []
    for d in (1, 2):
        x = rng.standard_normal((60, d)) * 1.3
        plain = graph_discrepancy(x, -x).value
        for c in ((0.5, 2.0, 1.0), (3.0, 0.2, 0.7), (1.0, 4.0, 2.0), (0.1, 0.1, 5.0)):
            rows.append(
                Row(
                    d=d,
                    constants=c,
                    ratio=graph_discrepancy(x, -x, constants=c).value / plain,
                    low=min(c),
                    high=max(c),
                )
            )
    held = all(r.low * (1 - 1e-7) <= r.ratio <= r.high * (1 + 1e-7) for r in rows)
    spread = f"{min(r.ratio / r.low for r in rows):.3g} low, {max(r.ratio / r.high for r in rows):.3g} high"
    return Outcome(
        checks=(check("min(c) <= S(c) / S <= max(c)", "always", spread, held, "ratios to the two ends"),),
        table=Table(title="non-uniform constants", rows=tuple(rows)),
    )


@item("proposition-5", "The complete graph is equivalent to the classical set", seconds=2)
def proposition_5(*, full: bool = False, seed: int = 0) -> Outcome:
    """Proposition 5 on the line, where both programs are solved: S <= S(complete) <= kappa S."""
    rng, ratios = np.random.default_rng(seed), []
    for n in (5, 20, 80, 300):
        for scale in (0.5, 1.0, 2.0):
            x = scale * rng.standard_normal(n)
            ratios.append(graph_discrepancy(x, -x).value / classical_discrepancy(x, -x).value)
    low, high = min(ratios), max(ratios)
    return Outcome(
        checks=(
            check("least graph over classical", "at least 1", low, low >= 1 - 1e-7),
            check("largest graph over classical", "a constant", high, high < 2.0, "no value is printed"),
        ),
    )


@item("proposition-6", "A 2-spanner costs at most a factor of 8, in practice a few percent", seconds=20)
def proposition_6(*, full: bool = False, seed: int = 0) -> Outcome:
    """Proposition 6: S(complete) <= S(2-spanner) <= 8 S(complete)."""
    rng, rows = np.random.default_rng(seed), []
    for n, d in ((40, 2), (80, 2), (40, 3), (30, 4), *([(160, 2), (80, 3)] if full else [])):
        x = rng.standard_normal((n, d))
        whole, part = (graph_discrepancy(x, -x, graph=g) for g in ("complete", "spanner"))
        rows.append(
            Row(
                n=n,
                d=d,
                complete=whole.value,
                spanner=part.value,
                edges=len(part.edges),
                ratio=part.value / whole.value,
            )
        )
    low, high = min(r.ratio for r in rows), max(r.ratio for r in rows)
    return Outcome(
        checks=(
            check("least spanner over complete", "at least 1", low, low >= 1 - 1e-7),
            check("largest spanner over complete", "at most 8", high, high <= 8),
        ),
        table=Table(title="complete graph and greedy spanner", rows=tuple(rows)),
    )
