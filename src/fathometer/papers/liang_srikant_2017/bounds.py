"""The lower bound of the paper, as printed and corrected, and what follows from it."""

import math
from itertools import pairwise

import numpy as np

from fathometer.approximation import SkipNetwork, approximate, certify, liang_srikant, lower_bound, shallow
from fathometer.papers.item import Outcome, check, item
from fathometer.results import Row, Table


@item("theorem-11", "Theorem 11: the lower bound for strongly convex functions", seconds=2)
def theorem_11(*, full: bool = False, seed: int = 0) -> Outcome:
    """Two ReLUs reach error 1/72 for (x - 1/2)^2, where the print demands three; the corrected form holds."""
    third = 1 / 3
    units = [({0: 1.0}, -2 * third, "relu"), ({0: -1.0}, third, "relu")]
    net = SkipNetwork(1, units, ({1: 2 * third, 2: 2 * third}, 1 / 72))
    certificate = certify(net, "(x-1/2)^2", (0, 1))
    printed = lower_bound(2.0, error=1 / 72, layers=1, printed=True)
    corrected = lower_bound(2.0, error=1 / 72, layers=1)
    optimum = min(L * (1e6) ** (1 / (2 * L)) for L in range(1, 100))
    any_depth = lower_bound(2.0, error=2.0**-13)
    square = approximate("x^2", (0, 1), 2.0**-13)
    return Outcome(
        checks=(
            check("two ReLUs have sup error 1/72", 1 / 72, certificate.upper,
                  certificate.upper <= (1 + 1e-6) / 72, str(certificate)),
            check("N >= L (mu/16 eps)^(1/2L) as printed, L = 1", "3 units", f"2 units suffice ({printed})",
                  float(printed) > net.units, "an erratum: one layer of N units makes N + 1 pieces"),
            check("N >= L ((mu/16 eps)^(1/2L) - 1), corrected", float(corrected), net.units,
                  float(corrected) <= net.units),
            check("N >= log2(mu/16 eps) does not follow from the printed form", math.log2(1e6), optimum,
                  optimum < math.log2(1e6), "min over L of L A^(1/2L) = 0.942 log2 A at A = 10^6"),
            check("any depth: (1/2) log2(mu/16 eps), attained by x^2", float(any_depth), square.units,
                  square.units == math.ceil(float(any_depth)), "mu = 2: the exact optimum"),
        ),
        pictures=(certificate.picture(),),
    )  # fmt: skip


@item("corollary-12", "Corollary 12: a deep network of size O(L_s^2 log^2 N_s) for a shallow one", seconds=10)
def corollary_12(*, full: bool = False, seed: int = 0) -> Outcome:
    """For exp: the shallow optimum grows like eps^(-1/2), the paper's deep network like log^2(1/eps)."""
    rows = []
    for error in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5) if full else (1e-1, 1e-2, 1e-3, 1e-4):
        N_s = shallow("exp(x)", (0, 1), error=error).pieces - 1
        deep = liang_srikant.smooth("exp(x)", error)
        ratio = deep.units / math.log2(N_s + 1) ** 2
        rows.append(Row(error=error, shallow=N_s, paper=deep.units, ratio=ratio))
    ratios = [row["ratio"] for row in rows[1:]]
    growth = np.log(rows[-1]["shallow"] / rows[1]["shallow"]) / np.log(rows[1]["error"] / rows[-1]["error"])
    return Outcome(
        checks=(
            check(
                "N_d / log2^2 N_s stays bounded (L_s = 1), with limit 4",
                "falling",
                ratios[-1],
                all(b < a for a, b in pairwise(ratios)) and ratios[-1] > 4,
            ),
            check("the best single layer grows like eps^-1/2", 0.5, float(growth), abs(growth - 0.5) < 0.03),
        ),
        table=Table(
            title="exp on [0, 1]: the paper's deep network against the best single layer", rows=tuple(rows)
        ),
    )
