"""Beyond the paper: how few neurons are enough, what depth is worth, how far training stays behind."""

import math

import numpy as np

from fathometer.approximation import (
    approximate,
    liang_srikant,
    lower_bound,
    product_bound,
    shallow,
    tradeoff,
    trained,
)
from fathometer.drawing.picture import Axis, Line, Panel, Picture
from fathometer.papers.item import Outcome, check, item
from fathometer.results import Row, Table

# units reached by an earlier search with the same kind of network (skip wiring), from 1e-2 on by tens
ONE_VARIABLE = {
    "exp(x)": ((0, 1), (3, 5, 11, 15, 19, 24, 30, 53, 64)),
    "sin(pi*x)": ((0, 1), (5, 10, 16, 21, 27, 33, 48)),
    "x^3": ((0, 1), (3, 8, 17, 22, 28, 32, 37, 43, 47)),
    "1/(1+25*x^2)": ((-1, 1), (7, 14, 22)),
    "exp(-x/2)": ((0, 2), (2, 6, 9, 19, 24, 29, 35, 55, 68)),
    "exp(-0.5*x)": ((0, 10), (6, 13, 19, 25, 37, 45)),
    "tanh(x)": ((0, 3), (4, 9, 16)),
    "sqrt(x)": ((0, 1), (5,)),
    "abs(x-0.3)": ((0, 1), (1, 1, 1)),
}
LAYERED = {"exp(x)": (5, 11, 34, 48, 61), "sin(pi*x)": (10, 25, 45, 61, 81), "x^3": (7, 18, 55, 74, 95)}
_X = [f"x{i}" for i in range(10)]
SEVERAL = {
    "x*y": (2, {1e-2: 5, 1e-3: 8, 1e-4: 12, 1e-5: 15, 1e-6: 18, 1e-7: 22, 1e-8: 25, 1e-9: 28, 1e-10: 32}),
    "*".join(_X): (10, {1e-2: 72, 1e-4: 134, 1e-6: 194, 1e-8: 252, 1e-10: 312}),
    "exp(-(x^2+y^2)/2)": (2, {1e-2: 8, 1e-4: 22, 1e-6: 43, 1e-8: 61}),
    "exp(-(" + "+".join(f"{x}^2" for x in _X) + ")/2)": (10, {1e-2: 48, 1e-4: 90, 1e-6: 140}),
}
STORY = {"x^2": (0, 1), "exp(x)": (0, 1), "sin(pi*x)": (0, 1), "tanh(x)": (0, 3), "1/(1+25*x^2)": (-1, 1)}


@item(
    "units-one-variable",
    "Beyond: units for functions of one variable, each with an exact certificate",
    seconds=60,
)
def units_one_variable(*, full: bool = False, seed: int = 0) -> Outcome:
    """Skip wiring; by default down to 1e-5, in full every row of the table, down to 1e-10."""
    rows, checks = [], []
    for f, (domain, ceilings) in ONE_VARIABLE.items():
        within, places = 0, ceilings if full else ceilings[:4]
        for i, ceiling in enumerate(places):
            error = 10.0 ** -(i + 2)
            net = approximate(f, domain, error, seed=seed)
            bound = float(lower_bound(f, domain, error)) if "abs" not in f else 1.0
            within += net.units <= ceiling
            proved = net.certificate.level == "exact" and net.certificate.upper <= error
            rows.append(Row(f=f, error=error, units=net.units, ceiling=ceiling, bound=bound, proved=proved,
                            certified=net.certificate.upper))  # fmt: skip
        over = [
            f"{r['error']:g}: {r['units']} for {r['ceiling']}"
            for r in rows
            if r["f"] == f and r["units"] > r["ceiling"]
        ]
        note = "no smaller chain found: " * bool(over) + "; ".join(over)
        checks.append(check(f"{f}: errors at which no more units are used", len(places), within,
                            within == len(places), note))  # fmt: skip
    good = all(row["proved"] for row in rows)
    checks.append(check("every network has an exact certificate below its error", len(rows),
                        sum(row["proved"] for row in rows), good))  # fmt: skip
    return Outcome(checks=tuple(checks), table=Table(title="Units, skip wiring", rows=tuple(rows)))


@item("units-layered", "Beyond: units with layered wiring", seconds=60)
def units_layered(*, full: bool = False, seed: int = 0) -> Outcome:
    """The same functions when every layer reads only the one before it."""
    rows, checks = [], []
    for f, ceilings in LAYERED.items():
        for i, ceiling in enumerate(ceilings if full else ceilings[:3]):
            net = approximate(f, (0, 1), error := 10.0 ** -(i + 2), wiring="layered", seed=seed)
            proved = net.wiring == "layered" and net.certificate.level == "exact" and net.value <= error
            rows.append(Row(f=f, error=error, units=net.units, ceiling=ceiling, certified=net.value))
            checks.append(check(f"{f} at {error:g}", f"at most {ceiling} units", net.units,
                                proved and net.units <= ceiling, str(net.certificate)))  # fmt: skip
    return Outcome(checks=tuple(checks), table=Table(title="Units, layered wiring", rows=tuple(rows)))


@item("units-several-variables", "Beyond: products and Gaussians up to ten variables", seconds=60)
def units_several_variables(*, full: bool = False, seed: int = 0) -> Outcome:
    """Structural certificates; the product of two variables beside its proved lower bound."""
    rows, checks = [], []
    for f, (d, ceilings) in SEVERAL.items():
        name = f if len(f) < 20 else f"{f[:14]}... ({d} variables)"
        for error, ceiling in ceilings.items():
            if "exp" in f and error < (1e-9 if full else 1e-5):
                continue
            net = approximate(f, [(0, 1)] * d, error, seed=seed)
            bound = product_bound(error) if f == "x*y" else math.nan
            rows.append(
                Row(f=name, error=error, units=net.units, ceiling=ceiling, bound=bound, certified=net.value)
            )
            checks.append(check(f"{name} at {error:g}", f"at most {ceiling} units", net.units,
                                net.units <= ceiling and net.value <= error,
                                str(net.certificate)))  # fmt: skip
    return Outcome(checks=tuple(checks), table=Table(title="Units, skip wiring", rows=tuple(rows)))


@item("depth", "Beyond: what depth is worth, on five functions", seconds=90)
def depth(*, full: bool = False, seed: int = 0) -> Outcome:
    """Neurons against error: built, the paper's, the best single layer, and the bound for any network."""
    errors = [1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6] if full else [1e-1, 1e-2, 1e-3, 1e-4]
    rows, checks, pictures = [], [], []
    for f, domain in STORY.items():
        table = tradeoff(f, domain, errors, seed=seed)
        last = table.rows[-1]
        fair = all(row.lower_bound <= row.deep + 1e-9 and row.certified <= row.error for row in table)
        checks.append(
            check(f"{f}: bound <= built, certificates hold", "all rows", f"{len(table.rows)} rows", fair)
        )
        checks.append(check(f"{f} at {last.error:g}: one layer needs more", f"> {last.deep}", last.shallow,
                            last.shallow > last.deep))  # fmt: skip
        rows += [Row(f=f, **row) for row in table.rows]
        pictures.append(table.picture())
    return Outcome(
        checks=tuple(checks), table=Table(title="Hidden units", rows=tuple(rows)), pictures=tuple(pictures)
    )


@item("paper-or-chain", "Beyond: exp at 1e-6, the paper's network and ours", seconds=20)
def paper_or_chain(*, full: bool = False, seed: int = 0) -> Outcome:
    """Both are built and run; the paper's error is bounded by its theorem, ours is certified."""
    error = 1e-6
    paper, net = liang_srikant.smooth("exp(x)", error), approximate("exp(x)", (0, 1), error, seed=seed)
    x = np.linspace(0, 1, 2001)
    seen = float(np.abs(paper(x) - np.exp(x)).max())
    return Outcome(
        checks=(
            check("Theorem 4 takes N(N+1) units", 552, paper.units, paper.units == 552 and seen <= error),
            check(
                "25 times fewer", "at most 22", net.units, 25 * net.units <= paper.units, str(net.certificate)
            ),
        ),
        pictures=(net.picture(),),
    )


@item("training-gap", "Beyond: how far training stays behind a construction of the same size", seconds=60)
def training_gap(*, full: bool = False, seed: int = 0) -> Outcome:
    """x^2 and exp: Adam, and L-BFGS after it, on three shapes, against what the same units can do.

    In full with 3,000 steps of Adam and three seeds; by default 1,000 steps and one seed.
    """
    seeds, steps = ((seed, seed + 1, seed + 2), 3000) if full else ((seed,), 1000)
    rows, checks = [], []
    for f, domain in (("x^2", (0, 1)), ("exp(x)", (0, 1))):
        for widths in ([20], [8, 8, 8], [3] * 9):
            for optimizer in ("adam", "lbfgs"):
                net = trained(f, domain, widths, optimizer=optimizer, steps=steps, seeds=seeds)
                best = shallow(f, domain, pieces=sum(widths)).error
                rows.append(Row(f=f, widths="x".join(map(str, widths)), units=net.units, optimizer=optimizer,
                                error=net.value, pieces=net.pieces, one_layer=best))  # fmt: skip
        best_trained = min(row["error"] for row in rows if row["f"] == f)
        layer = min(row["one_layer"] for row in rows if row["f"] == f)
        built = approximate(f, domain, 1e-5, seed=seed)
        checks.append(check(f"{f}: no trained network of 20 to 27 units reaches the best single layer",
                            layer, best_trained, best_trained > layer))  # fmt: skip
        checks.append(check(f"{f}: a construction of at most 20 units is 100 times better",
                            best_trained, built.value, built.units <= 20 and 100 * built.value < best_trained,
                            str(built)))  # fmt: skip
    most = max(row["pieces"] for row in rows)
    checks.append(check("linear pieces that training uses, of 2^units", 2**20, most, most < 100))
    return Outcome(
        checks=tuple(checks),
        table=Table(title="Trained networks, certified", rows=tuple(rows)),
        pictures=(_gap_picture(rows),),
    )


def _gap_picture(rows: list[Row]) -> Picture:
    marks = []
    for f in dict.fromkeys(row["f"] for row in rows):
        part = [row for row in rows if row["f"] == f]
        place = np.arange(len(part), dtype=float)
        marks.append(Line(x=place, y=np.array([row["error"] for row in part]), label=f"{f}, trained"))
        marks.append(
            Line(x=place, y=np.array([row["one_layer"] for row in part]), label=f"{f}, best layer", dash=True)
        )
    return Picture(
        title="The training gap",
        caption="Certified sup error of trained networks (20, 3 x 8 and 9 x 3 units; Adam, then L-BFGS) and "
        "of the best single hidden layer with as many units.",
        panels=(Panel(marks=tuple(marks), x=Axis(label="network"), y=Axis(label="sup error", scale="log")),),
    )
