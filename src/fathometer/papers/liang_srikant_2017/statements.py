"""The networks of the paper: drawn, counted and certified.

Counts are those of the drawings (n + 1 bits where the text says n). The error of a network of one input
is enclosed exactly, piece by piece; in several variables the bound of the statement, which its
proof gives for the network as built, is set beside the largest error at many points.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fathometer.approximation import certify, liang_srikant
from fathometer.approximation.layering import layered
from fathometer.papers.item import Check, Outcome, check, item
from fathometer.results import Row, Table

UNIT = (0.0, 1.0)


def _counts(net: Any) -> str:
    return f"{net.steps} steps, {net.relus} ReLUs, depth {net.depth}"


def _same_counts(claim: str, steps: int, relus: int, depth: int, net: Any, note: str = "") -> Check:
    wanted = f"{steps} steps, {relus} ReLUs, depth {depth}"
    return check(claim, wanted, _counts(net), wanted == _counts(net), note)


def _certified(claim: str, net: Any, f: str, error: float) -> Check:
    certificate = certify(net, f, UNIT, 1e-4)
    return check(claim, f"at most {error:g}", certificate.upper, certificate.upper <= error, str(certificate))


def _seen(claim: str, net: Any, exact: Any, error: float, seed: int) -> Check:
    """The proved bound of a network of several inputs, and the largest error at many points."""
    points = np.random.Generator(np.random.PCG64(seed)).random((20_000, net.inputs))
    corners = np.array(np.meshgrid(*[[0.0, 0.5, 1.0]] * net.inputs)).reshape(net.inputs, -1).T
    points = np.concatenate([corners, points])
    worst = float(np.abs(net(points) - exact(points)).max())
    note = f"proved for the network as built: {net.promised:.3g}; the largest error at {len(points)} points"
    return check(claim, f"at most {error:g}", worst, worst <= net.promised <= error, note)


@item("figure-1", "Figure 1: the bits of x by binary steps", seconds=1)
def figure_1(*, full: bool = False, seed: int = 0) -> Outcome:
    """The bit network, drawn from the built one; every digit compared with integer arithmetic."""
    n = 12 if full else 5
    net = liang_srikant.bits(n)
    x = np.linspace(0.0, 1.0, 4 * 2**n + 1)
    exact = np.floor(x * 2**n) / 2**n
    return Outcome(
        checks=(
            _same_counts("n + 1 steps in n + 1 layers", n + 1, 0, n + 1, net, "the text says n"),
            check("the output is x cut after n places", 0.0, float(np.abs(net(x) - exact).max()),
                  bool((net(x) == exact).all()), "x = 1 is its own bit pattern"),
        ),
        pictures=(liang_srikant.bits(3).picture(),),
    )  # fmt: skip


@item("figure-2", "Figure 2: a polynomial from bits and products", seconds=1)
def figure_2(*, full: bool = False, seed: int = 0) -> Outcome:
    """x/2 - x^2/4 + x^3/4 for an error of 1/2 as in the drawing, and certified at a smaller error."""
    coefficients = [0.0, 0.5, -0.25, 0.25]
    drawn, net = (liang_srikant.polynomial(coefficients, e) for e in (0.5, 1e-2))
    n = math.ceil(math.log2(3 / 1e-2)) + 1
    return Outcome(
        checks=(
            _same_counts("n + 1 steps, (p - 1)(n + 1) ReLUs, depth n + p", n + 1, 2 * (n + 1), n + 3, net),
            _certified("sup error", net, "0.5*x - 0.25*x^2 + 0.25*x^3", 1e-2),
        ),
        pictures=(drawn.picture(),),
    )


@item("theorem-1", "Theorem 1: x^2 with O(log 1/eps) units", seconds=20)
def theorem_1(*, full: bool = False, seed: int = 0) -> Outcome:
    """Counts, both wirings and the certified error, which is known exactly: 2^(1-n) - 4^-n."""
    checks, rows = [], []
    for error in (1e-1, 1e-2, 1e-3) if full else (1e-1, 1e-2):
        n = math.ceil(math.log2(1 / error)) + 1
        net = liang_srikant.square(error)
        strict = layered(net, UNIT)
        certificate, other = certify(net, "x^2", UNIT), certify(strict, "x^2", UNIT, 1e-4)
        exact = 2.0 ** (1 - n) - 4.0**-n
        checks += [
            _same_counts(f"counts at eps = {error:g}", n + 1, n + 1, n + 2, net, "the text counts n ReLUs"),
            check(f"sup error at eps = {error:g}", exact, certificate.upper,
                  certificate.lower <= exact <= certificate.upper <= error, str(certificate)),
            check(f"layered at eps = {error:g}", "the same function", other.upper,
                  other.upper <= error and strict.wiring == "layered", f"{strict.units} units"),
        ]  # fmt: skip
        rows.append(Row(error=error, n=n, skip=net.units, layered=strict.units, certified=certificate.upper))
    return Outcome(checks=tuple(checks), table=Table(title="Theorem 1, units", rows=tuple(rows)))


@item("theorem-2", "Theorem 2: polynomials", seconds=10)
def theorem_2(*, full: bool = False, seed: int = 0) -> Outcome:
    """Three polynomials whose coefficients sum to at most one; constants cost nothing."""
    checks: list[Check] = []
    cases = {"x^5": [0.0, 0, 0, 0, 0, 1], "1/2 + x": [0.5, 1], "x/2 - x^3/2": [0, 0.5, 0, -0.5]}
    for text, coefficients in cases.items():
        error, p = 1e-2, len(coefficients) - 1
        n = math.ceil(math.log2(p / error)) + 1
        net = liang_srikant.polynomial(coefficients, error)
        checks += [
            _same_counts(f"counts for {text}", n + 1, (p - 1) * (n + 1), n + p, net),
            _certified(f"sup error for {text}", net, text, error),
        ]
    return Outcome(checks=tuple(checks))


@item("theorem-4", "Lemma 3 and Theorem 4: smooth functions by Chebyshev interpolation on bits", seconds=20)
def theorem_4(*, full: bool = False, seed: int = 0) -> Outcome:
    """Counts N(N+1) and the certified error; the factor that Lemma 3 wins on [0, 1] (length 1, not 2)."""
    checks: list[Check] = []
    for f in ("exp(x-1)", "1/(1+x)", "sin(x)"):
        for error in (1e-1, 1e-2, 1e-3) if full else (1e-1, 1e-2):
            N = math.ceil(math.log2(2 / error))
            net = liang_srikant.smooth(f, error)
            checks += [
                _same_counts(f"counts for {f} at {error:g}", N + 1, (N - 1) * (N + 1), 2 * N, net),
                _certified(f"sup error for {f} at {error:g}", net, f, error),
            ]
    N, x = 6, np.linspace(0, 1, 20_001)
    nodes = (1 + np.cos((np.arange(N + 1) + 0.5) * np.pi / (N + 1))) / 2
    from numpy.polynomial import Chebyshev

    fit = Chebyshev.fit(nodes, np.exp(nodes - 1), N, domain=[0, 1])
    gap = float(np.abs(fit(x) - np.exp(x - 1)).max())
    right = 1 / (2.0 ** (2 * N + 1) * math.factorial(N + 1))
    checks.append(check("Lemma 3 on [0, 1] for exp(x - 1), N = 6", f"below {right:.3g}", gap, gap <= right,
                        f"the text uses that of [-1, 1], {2.0**-N / math.factorial(N + 1):.2g}"))  # fmt: skip
    scaled = liang_srikant.smooth("exp(x)", 1e-2)
    checks.append(check("exp itself has f' = e > 1!: built as e times exp/e", 110, scaled.units,
                        scaled.units == 110, "N(N+1) for exp/e at eps/e"))  # fmt: skip
    return Outcome(checks=tuple(checks))


@item("corollaries-5-7", "Corollaries 5, 6 and 7: sums, products and compositions", seconds=10)
def corollaries_5_to_7(*, full: bool = False, seed: int = 0) -> Outcome:
    """Each built for 1e-2; the composition with k blocks of accuracy eps/k, as |f'| <= 1 allows."""
    error = 1e-3 if full else 1e-2
    plain = liang_srikant.smooth("exp(x-1)", error)
    total = liang_srikant.combination(["exp(x-1)", "sin(x)"], [0.5, -0.5], error)
    product = liang_srikant.product_of_functions(["exp(x-1)", "sin(x)"], error)
    nested = liang_srikant.composition(["sin(x)", "x^2/2", "1-x/2"], error)
    k = 2
    printed = math.ceil(4 * k * math.log2(4 * k) + 4 * k + 2 * math.log2(2 / error)) + 1
    return Outcome(
        checks=(
            check("Corollary 5: the counts of Theorem 4", _counts(plain), _counts(total),
                  _counts(plain) == _counts(total)),
            _certified("Corollary 5: sup error", total, "0.5*exp(x-1)-0.5*sin(x)", error),
            check("Corollary 6: degree and bits N", f"printed {printed}", product.bits,
                  product.bits <= printed, "(k + C(N+k, k-1)) / 2^N <= eps is enough"),
            _certified("Corollary 6: sup error", product, "exp(x-1)*sin(x)", error),
            _certified("Corollary 7: sup error", nested, "sin((1-x/2)^2/2)", error),
        )
    )  # fmt: skip


@item("theorems-8-9", "Theorems 8 and 9: products of linear forms, multinomials", seconds=5)
def theorems_8_and_9(*, full: bool = False, seed: int = 0) -> Outcome:
    """Counts as drawn; the printed number of steps lacks a factor d, and signs need a shift."""
    forms = np.array([[0.5, -0.5, 0.0], [0.25, 0.25, -0.5], [1.0, 0.0, 0.0], [-0.5, 0.0, 0.5]])
    p, d = forms.shape
    error = 1e-2
    n = math.ceil(math.log2(p * d / error))
    net = liang_srikant.product(forms.tolist(), error)
    terms: dict[Sequence[int], float] = {(1, 1, 0): 0.5, (1, 1, 1): -0.25, (0, 0, 2): 0.25, (0, 0, 0): 2.0}
    many = liang_srikant.multinomial(terms, error)
    b = many.bits + 1

    def multinomial(x: np.ndarray) -> Any:
        return sum(c * np.prod(x ** np.array(a), axis=1) for a, c in terms.items())

    return Outcome(
        checks=(
            _same_counts("Theorem 8: d(n+1) steps, (p-1)d(n+1) ReLUs, depth n+p",
                         d * (n + 1), (p - 1) * d * (n + 1), n + p, net, "printed: O(log pd/eps) steps"),
            _seen("Theorem 8: error, mixed signs", net, lambda x: np.prod(x @ forms.T, axis=1), error, seed),
            check("Theorem 9: ReLUs at most p^2 C(p+d-1, d-1)(n+1)", 9 * math.comb(5, 2) * b, many.relus,
                  many.relus == 3 * b, "common prefixes are shared: three products"),
            _seen("Theorem 9: error", many, multinomial, error, seed),
        )
    )  # fmt: skip


@item(
    "corollaries-10-13-14",
    "Corollaries 10, 13, 14: compositions with polynomials, Gaussians, ridges",
    seconds=5,
)
def corollaries_10_13_14(*, full: bool = False, seed: int = 0) -> Outcome:
    """Corollaries 13 and 14 stand in the appendix; their statements are as we know them."""
    error = 1e-2
    nested = liang_srikant.composition_with_polynomial(["sin(x)"], {(1, 1, 0): 0.5, (0, 2, 1): 0.5}, error)
    bell = liang_srikant.gaussian(3, error)
    direction = np.array([0.25, 0.25, 0.5])
    ridge, plain = (
        liang_srikant.ridge("exp(x-1)", direction.tolist(), error),
        liang_srikant.smooth("exp(x-1)", error),
    )
    return Outcome(
        checks=(
            _seen("Corollary 10: error", nested,
                  lambda x: np.sin(x[:, 0] * x[:, 1] / 2 + x[:, 1] ** 2 * x[:, 2] / 2), error, seed),
            _seen("Corollary 13: error", bell, lambda x: np.exp(-(x**2).sum(axis=1) / 2), error, seed),
            check("Corollary 14: the counts of Theorem 4", _counts(plain), _counts(ridge),
                  _counts(plain) == _counts(ridge)),
            _seen("Corollary 14: error", ridge, lambda x: np.exp(x @ direction - 1), error, seed),
        )
    )  # fmt: skip


@item("piecewise-smooth", "Remark after Theorem 4: piecewise smooth functions", seconds=10)
def piecewise_smooth(*, full: bool = False, seed: int = 0) -> Outcome:
    """Two smooth pieces with a jump: one ReLU a clip end, one step a jump, no products."""
    error = 1e-1
    net = liang_srikant.piecewise_smooth(["exp(x-1)", "x/2"], [0.5], error)
    f = "exp(x-1) + step(x-0.5)*(x/2-exp(x-1))"
    return Outcome(checks=(_certified("sup error over both pieces", net, f, error),))
