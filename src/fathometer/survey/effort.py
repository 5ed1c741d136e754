"""How closely a survey looks, decided beforehand from what one pass over the data costs.

A pass is one evaluation of the loss over the examples in use; a gradient is about three of
them, a Hessian product six. Operations are counted, not seconds, so that a network gets the
same survey on every machine. Where even the brief look is too much, some of the examples
are drawn, and the report says so.
"""

from dataclasses import dataclass, replace

import torch

from fathometer.errors import InputError
from fathometer.model import LossSurface
from fathometer.model.flops import forward_flops
from fathometer.work import numpy_generator

ALLOWED = {False: 2e12, True: 4e13}
"""Floating-point operations of a default and of a thorough survey."""
SMALL = 1e9
"""Operations of a pass over the data below which a second thread only waits for the first."""
FEWEST = 16
"""Examples below which none are left out."""

CHEAP = (
    "hessian_norm",
    "gradient_norm",
    "gradient_variance",
    "one_step",
    "weight_norm",
    "spectral_product",
    "frobenius_product",
    "adaptive_one_step",
    "fisher_rao_empirical",
    "path_norm",
    "path_norm_2",
)
USUAL = (
    "hessian_norm",
    "hessian_trace",
    "hessian_frobenius",
    "gradient_norm",
    "gradient_variance",
    "epsilon_sharpness",
    "one_step",
    "average_sharpness",
    "weight_norm",
    "spectral_product",
    "frobenius_product",
    "relative_flatness_plain",
    "adaptive_ball",
    "adaptive_average",
    "adaptive_one_step",
    "relative_norm",
    "relative_trace",
    "fisher_rao",
    "fisher_rao_empirical",
    "path_norm",
    "path_norm_2",
    "orbit_trace",
    "layer_hessian_norm",
)


@dataclass(frozen=True, kw_only=True)
class Effort:
    """What a survey of one effort measures.

    Attributes:
        name: "brief", "usual" or "thorough".
        passes: About how many passes over the data it takes.
        probes, steps: Of the Lanczos quadrature of the Hessian.
        products: Most products that one sampled number may take.
        measures: Rows of the table of sharpness.
        audited: Measures that are taken again at rescaled networks: some that move, some that should not.
        flattest: Whether the flattest equivalent network is looked for.
        points: Points along each axis of the landscape.
        draws: Of each Markov chain.
        directions: Stiffest directions that the chains move in.
        dense: How much larger than usual a Hessian may be to be written down.
    """

    name: str
    passes: int
    probes: int
    steps: int
    products: int
    measures: tuple[str, ...]
    audited: tuple[str, ...]
    flattest: bool
    points: int
    draws: int
    directions: int
    dense: int


BRIEF = Effort(
    name="brief",
    passes=2000,
    probes=2,
    steps=25,
    products=30,
    measures=CHEAP,
    audited=("gradient_norm", "weight_norm", "fisher_rao_empirical", "path_norm"),
    flattest=False,
    points=21,
    draws=25,
    directions=2,
    dense=0,
)
_AUDITED = (
    "hessian_norm",
    "hessian_trace",
    "hessian_frobenius",
    "relative_norm",
    "relative_trace",
    "fisher_rao_empirical",
)
FULL = Effort(
    name="usual",
    passes=25_000,
    probes=6,
    steps=80,
    products=3000,
    measures=USUAL,
    audited=_AUDITED,
    flattest=True,
    points=31,
    draws=100,
    directions=8,
    dense=1,
)
THOROUGH = replace(FULL, name="thorough", passes=100_000, probes=20, steps=160, points=61, draws=400, dense=3)


def worth(surface: LossSurface) -> int:
    """How many threads a survey takes: all that torch has, but one for a small network.

    Beside another program, two threads took 290 s of processor time for the embedded network, one 23 s:
    each waits for the other after every small product.
    """
    return 1 if forward_flops(surface) < SMALL else torch.get_num_threads()


def planned(
    surface: LossSurface, *, thorough: bool, seed: int
) -> tuple[LossSurface, Effort, tuple[str, ...]]:
    """The surface to measure, how closely, and what the reader must know of it.

    Args:
        surface: Loss surface over all examples.
        thorough: Whether twenty times as much may be spent.
        seed: Of the examples that are drawn, where not all are used.
    """
    once, allowed = forward_flops(surface), ALLOWED[thorough]
    for effort in (THOROUGH, FULL) if thorough else (FULL,):
        if once * effort.passes <= allowed:
            return surface, effort, ()
    more = "" if thorough else " Pass thorough (--thorough) for twenty times the work."
    notes = [
        f"A pass over the data takes {once:.1e} operations, so the look is a brief one, with fewer probes, "
        f"measures and draws.{more}"
    ]
    kept = max(FEWEST, int(surface.examples * allowed / (once * BRIEF.passes)))
    if kept < surface.examples:
        try:
            rows = numpy_generator(seed, "survey", "examples").choice(surface.examples, kept, replace=False)
            part = surface.select(torch.from_numpy(rows).sort().values)
        except InputError:  # batches of a kind of their own
            notes.append("The batches cannot be cut, so all of them are used and the survey takes long.")
        else:
            notes.append(
                f"All numbers are of {kept:,} of the {surface.examples:,} examples, drawn with seed {seed}."
            )
            surface = part
    return surface, BRIEF, tuple(notes)
