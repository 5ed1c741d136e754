"""Section 2: the loss surface - its spectrum, its index, and what random matrix theory says."""

from typing import Any

import numpy as np

from fathometer import spectra
from fathometer.drawing.texts import number
from fathometer.linalg import as_operator, eigenpairs
from fathometer.survey.subject import Subject
from fathometer.survey.vocabulary import Fact, Section, records

DENSE = 4000
WORK = 4e10
"""Parameters, and parameters squared times examples, up to which the whole Hessian is computed."""

SHALLOW = 1e-4
"""Share of the largest curvature below which a downward one is called flat."""


def measure(subject: Subject) -> Section:
    """Spectrum and index of the Hessian, and the laws at the measured energy and aspect ratio."""
    surface = subject.surface
    subject.progress(0, 3, "Hessian")
    more = subject.effort.dense
    work = float(surface.size) ** 2 * surface.examples
    dense = surface.size <= more * DENSE and work <= more**3 * WORK
    operator = _dense(surface) if dense else surface.hessian()
    subject.progress(1, 3, "spectrum and index")
    density = subject.attempt("the spectral density", lambda: _density(operator, subject, dense))
    index = subject.attempt("the index", lambda: _index(operator, density, dense))
    top = None
    if not dense:
        top = subject.attempt("the largest eigenvalue", lambda: eigenpairs(operator, 1, seed=subject.seed))
    subject.progress(2, 3, "theory")
    comparison = subject.attempt(
        "the comparison with random matrix theory",
        lambda: spectra.compare(
            surface, seed=subject.seed, known=density, max_products=subject.effort.products
        ),
    )
    facts = [*_extremes(density, top), *_index_facts(index), *_theory_facts(comparison)]
    pictures = [result.picture() for result in (density, comparison) if result is not None]
    return Section(
        name="loss-surface",
        title="The loss surface",
        question="How curved is it, in how many directions does it fall, and is that what chance would make?",
        verdict=_verdict(density, index, comparison),
        facts=tuple(facts),
        pictures=records(pictures),
        tables=() if comparison is None else (comparison.table(),),
        notes=(_how(dense, surface.size),),
    )


def _dense(surface: Any) -> Any:
    matrix = surface.double().hessian().to_dense(block=128)
    return as_operator(0.5 * (matrix + matrix.T), name="Hessian")


def _how(dense: bool, size: int) -> str:
    if dense:
        return f"All {size:,} eigenvalues come from the whole Hessian in float64."
    return f"With {size:,} parameters the spectrum is estimated by Lanczos quadrature with random probes."


def _density(operator: Any, subject: Subject, dense: bool) -> Any:
    if dense:
        return spectra.density(operator, method="exact")
    effort = subject.effort
    steps = min(effort.steps, subject.surface.size)
    return spectra.density(operator, effort.probes, steps, subject.seed, method="lanczos")


def _index(operator: Any, density: Any, dense: bool) -> Any:
    # of a sampled spectrum count those that matter: eigenvalues near zero are what probes see worst
    return spectra.index(operator, None if dense else 1e-3, known=density)


def _extremes(density: Any, top: Any) -> list[Fact]:
    if density is None:
        return []
    low, high = density.value
    if top is not None:
        value, residual = float(top.values[0]), float(top.residuals[0])
        return [
            Fact(label="largest eigenvalue", value=value, kind="estimate", error=residual),
            Fact(
                label="lowest node of the spectrum",
                value=low,
                kind="bound",
                meaning="from above, on the lowest",
            ),
        ]
    middle = float(np.median(np.abs(density.points[0])))
    return [
        Fact(label="largest eigenvalue", value=high, kind="exact"),
        Fact(label="lowest eigenvalue", value=low, kind="exact"),
        Fact(
            label="median size of an eigenvalue",
            value=middle,
            kind="exact",
            meaning="most directions are flat",
        ),
    ]


def _index_facts(index: Any) -> list[Fact]:
    if index is None:
        return []
    meaning = (
        f"{index.negative:,} of {index.size:,} directions go down; "
        f"smaller than {index.threshold:.1e} of the largest counts as flat"
    )
    return [
        Fact(
            label="index, share of negative eigenvalues",
            value=index.fraction,
            kind=index.kind,
            error=index.error,
            meaning=meaning,
        )
    ]


def _theory_facts(comparison: Any) -> list[Fact]:
    if comparison is None:
        return []
    first = comparison.rows[0]
    return [
        Fact(
            label="aspect ratio φ",
            value=comparison.aspect_ratio,
            kind="exact",
            meaning="parameters per scalar target",
        ),
        Fact(label="energy in the units of the theory", value=comparison.energy, kind="exact"),
        Fact(
            label="distance to the law",
            value=first.ks,
            kind=comparison.kind,
            error=comparison.error,
            meaning="Kolmogorov distance to Wishart + Wigner; 0 agrees, 1 could not be farther",
        ),
    ]


def _verdict(density: Any, index: Any, comparison: Any) -> str:
    parts = []
    if density is not None and index is not None:
        low, high = density.value
        if index.kind == "exact" and index.negative == 0:
            shape = "no direction goes down: a minimum up to rounding"
        elif index.kind == "exact":
            depth = abs(low) / high if high > 0 else 1.0
            ending = "a minimum up to that" if depth < SHALLOW else "a saddle"
            shape = (
                f"{index.negative:,} of {index.size:,} directions curve down, none by more than "
                f"{number(depth, 2)} of the largest curvature: {ending}"
            )
        else:
            shape = f"between {index.lower:.1%} and {index.upper:.1%} of the directions clearly go down"
        parts.append(f"Curvature reaches {number(high, 3)} and {shape}")
    if comparison is not None:
        gap = comparison.rows[0].ks
        word = "fits" if gap < 0.1 else "is near to" if gap < 0.25 else "is far from"
        parts.append(
            f"the spectrum {word} random matrix theory at this energy (distance {gap:.2f}), "
            f"with {_outliers(comparison)} above its bulk"
        )
    if not parts:
        return "The spectrum could not be measured."
    return "; ".join(parts) + "."


def _outliers(comparison: Any) -> str:
    share = comparison.rows[0].outliers_above
    count = round(share)
    return "no eigenvalue" if count == 0 else f"about {count:,} eigenvalue{'s' if count > 1 else ''}"
