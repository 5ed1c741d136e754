"""Section 3: the propositions and theorems, each as numbers taken by other means."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy import integrate, stats

from fathometer.papers.gorham_mackey_2015.targets import slope
from fathometer.papers.gorham_mackey_2017.figures import KERNELS
from fathometer.papers.item import Outcome, check, item
from fathometer.results import Row, Table
from fathometer.stein import InverseMultiquadric, ksd, witness


@item("proposition-1", "The Stein kernel has mean zero under the target", seconds=3)
def proposition_1(*, full: bool = False, seed: int = 0) -> Outcome:
    """Proposition 1: E_P k0(x, Z) = 0 at any x, for N(0, 1) and a mixture, by quadrature of the witness."""
    laws = {
        "normal": (stats.norm.pdf, lambda x: -x),
        "mixture": (
            lambda x: 0.5 * (stats.norm.pdf(x - 1.5) + stats.norm.pdf(x + 1.5)),
            lambda x: -x + 1.5 * np.tanh(1.5 * x),
        ),
    }
    grid = np.linspace(-12.0, 12.0, 4001)
    rows = []
    for law, (pdf, score) in laws.items():
        for name, kernel in KERNELS.items():
            for place in (0.0, 1.0, 4.0):
                x = np.array([[place]])
                h = witness(x, score(x), grid[:, None], score(grid)[:, None], kernel)
                mean = integrate.simpson(pdf(grid) * h, x=grid)
                rows.append(Row(law=law, kernel=name, place=place, mean=float(mean)))
    worst = max(abs(r.mean) for r in rows)
    return Outcome(
        checks=(check("largest mean of the witness under the target", 0.0, worst, worst < 1e-5),),
        table=Table(title="E_P h", rows=tuple(rows)),
    )


@item("proposition-2", "The closed form of the Stein kernel", seconds=2)
def proposition_2(*, full: bool = False, seed: int = 0) -> Outcome:
    """Proposition 2: k0 against the operator applied twice by automatic differentiation, d = 3."""
    bases = {
        "Gaussian": lambda r2: torch.exp(-r2 / 2),
        "Matern": lambda r2: (1 + (3 * r2).sqrt()) * torch.exp(-((3 * r2).sqrt())),
        "IMQ": lambda r2: (1 + r2) ** -0.5,
    }
    rng, rows = np.random.default_rng(seed), []
    for name, base in bases.items():
        x, b = rng.standard_normal((2, 3)), rng.standard_normal((2, 3))
        w = np.array([0.3, 0.7])
        found = ksd(x, b, KERNELS[name], weights=w).squared
        own = float(np.square(w) @ [ksd(x[i : i + 1], b[i : i + 1], KERNELS[name]).squared for i in (0, 1)])
        rows.append(Row(kernel=name, closed=(found - own) / 0.42, automatic=_twice(base, x, b)))
    worst = max(abs(r.closed - r.automatic) / abs(r.automatic) for r in rows)
    return Outcome(
        checks=(check("largest relative difference", 0.0, worst, worst < 1e-10),),
        table=Table(title="k0(x, y), closed form and automatic differentiation", rows=tuple(rows)),
    )


def _twice(base: Callable[[Any], Any], x: np.ndarray, b: np.ndarray) -> float:
    """The Langevin operator in both arguments of ``base(|x - y|^2)``."""
    (s, t), (a, c) = torch.from_numpy(x), torch.from_numpy(b)

    def k(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return base((u - v).square().sum())

    du, dv = torch.func.grad(k, 0)(s, t), torch.func.grad(k, 1)(s, t)
    mixed = torch.func.jacrev(torch.func.grad(k, 0), 1)(s, t)
    return float(k(s, t) * a @ c + a @ dv + c @ du + mixed.trace())


@item("definition-4", "Which targets are distantly dissipative", seconds=1)
def definition_4(*, full: bool = False, seed: int = 0) -> Outcome:
    """Definition 4: kappa(r) = inf -2 <b(x) - b(y), x - y> / r^2 at |x - y| = r, over a grid on the line."""
    targets = {
        "normal": lambda x: -x,
        "mixture, modes 6 apart": lambda x: -x + 3 * np.tanh(3 * x),
        "Student's t, 3 degrees": lambda x: -4 * x / (3 + x**2),
        "Laplace-like": lambda x: -np.tanh(x),
    }
    x = np.linspace(-200.0, 200.0, 40_001)
    rows = []
    for name, b in targets.items():
        far = [float((-2 * (b(x + r) - b(x)) / r).min()) for r in (1.0, 10.0, 100.0)]
        rows.append(Row(target=name, near=far[0], at_10=far[1], at_100=far[2]))
    kept = {r.target: r.at_100 > 0.5 for r in rows}
    expected = {name: name.startswith(("normal", "mixture")) for name in targets}
    return Outcome(
        checks=(
            check(
                "targets with kappa bounded from zero at large r",
                "normal and mixture",
                kept,
                kept == expected,
            ),
            check(
                "the mixture is not log-concave near its middle", "kappa < 0", rows[1].near, rows[1].near < 0
            ),
        ),
        table=Table(title="kappa(r)", rows=tuple(rows)),
    )


@item(
    "theorem-8", "With the inverse multiquadric a wrong limit keeps the discrepancy away from zero", seconds=5
)
def theorem_8(*, full: bool = False, seed: int = 0) -> Outcome:
    """Theorems 5, 7 and 8: samples that tend to a wrong law or run off, d = 1 and 8, n = 100 to 3000.

    In one dimension all kernels keep away from zero; in 8 the inverse multiquadric does, for three exponents.
    """
    rng, rows = np.random.default_rng(seed), []
    kernels = {
        "IMQ -0.1": InverseMultiquadric(beta=-0.1),
        "IMQ -0.9": InverseMultiquadric(beta=-0.9),
        **KERNELS,
    }
    for d in (1, 8):
        for name, kernel in kernels.items():
            if d == 8 and not name.startswith("IMQ"):
                continue
            for sample in ("shifted", "narrow", "far point"):
                values = []
                for n in (100, 3000):
                    x = rng.standard_normal((n, d))
                    if sample == "far point":  # a tenth of the points on a sphere that grows with n
                        x[: n // 10] *= (n / np.linalg.norm(x[: n // 10], axis=1))[:, None]
                    else:
                        x = x + 0.5 if sample == "shifted" else 0.6 * x
                    values.append(ksd(x, -x, kernel).value)
                rows.append(Row(d=d, kernel=name, sample=sample, small=values[0], large=values[1]))
    least = min(r.large / r.small for r in rows)
    return Outcome(
        checks=(
            check(
                "least ratio of the discrepancy at n = 3000 to that at n = 100",
                "away from 0",
                least,
                least > 0.35,
            ),
        ),
        table=Table(title="wrong limits", rows=tuple(rows)),
    )


@item("proposition-9", "Convergence in Wasserstein distance makes the discrepancy vanish", seconds=2)
def proposition_9(*, full: bool = False, seed: int = 0) -> Outcome:
    """Proposition 9: quantile points of N(0, 1), whose Wasserstein distance falls, for three kernels."""
    sizes = np.array([10, 30, 100, 300, 1000])
    rows = []
    for n in sizes:
        x = stats.norm.ppf((np.arange(n) + 0.5) / n)
        cells = {name: ksd(x, -x, kernel).value for name, kernel in KERNELS.items()}
        rows.append(Row(n=int(n), **cells))
    rates = {name: slope(sizes, np.array([r[name] for r in rows])) for name in KERNELS}
    return Outcome(
        checks=(
            check(
                "exponents over n",
                "below 0",
                {k: round(v, 2) for k, v in rates.items()},
                max(rates.values()) < -0.5,
            ),
        ),
        table=Table(title="KSD of quantile points", rows=tuple(rows)),
    )
