"""What depth is worth: units against error, with the bound that no network passes.

One row an error: the best single hidden layer, the network that `approximate` builds, the
count of Theorem 4 (Liang & Srikant 2017) where it applies, and the counting lower bound.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fathometer.approximation.approximate import approximate
from fathometer.approximation.lower_bounds import lower_bound
from fathometer.approximation.shallow import shallow
from fathometer.approximation.smoothness import scale_to_factorials
from fathometer.approximation.target import Target, as_target
from fathometer.errors import InputError
from fathometer.results import Row, Table

if TYPE_CHECKING:
    from fathometer.drawing.picture import Picture

MOST_ORDERS = 60


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Tradeoff(Table):
    """Rows of ``error, shallow, deep, paper, lower_bound`` (units), with ``certified`` and ``kind``."""

    def picture(self) -> "Picture":
        """All curves on logarithmic axes."""
        from fathometer.approximation.pictures import tradeoff_picture

        return tradeoff_picture(self)


def tradeoff(f: Any, domain: Any, errors: Sequence[float], *, seed: int = 0) -> Tradeoff:
    """Compare depth with width for one function.

    Args:
        f: A function of one variable, as in `approximate`.
        domain: ``(a, b)``.
        errors: Sup errors, positive.
        seed: Of the fits.

    Returns:
        One row an error. ``paper`` is None where Theorem 4 does not apply, ``lower_bound`` is not rounded.

    Raises:
        InputError: If there are no errors, or `approximate` refuses one.
    """
    if not len(errors):
        raise InputError("errors is empty; pass at least one positive number.")
    target = as_target(f, domain)
    rows, notes = [], []
    for error in errors:
        net = approximate(target, target.domain, float(error), seed=seed)
        fit = shallow(target, target.domain, error=float(error))
        paper = paper_units(target, float(error))
        rows.append(
            Row(
                error=float(error),
                shallow=fit.pieces - 1,
                deep=net.units,
                paper=paper,
                lower_bound=float(lower_bound(target, target.domain, float(error))),
                certified=net.value,
                kind=net.kind,
            )
        )
    if any(row["paper"] is None for row in rows):
        notes.append("Theorem 4 does not apply where paper is empty: derivatives outgrow n!.")
    return Tradeoff(
        title=f"Hidden units for {target.text} on {target.interval}, skip wiring",
        rows=tuple(rows),
        notes=tuple(notes),
    )


def paper_units(target: Target, error: float) -> int | None:
    """Units N(N+1) of Theorem 4 for f, scaled to its hypothesis; None if no scale does."""
    unit = target.stretched()
    N = max(1, math.ceil(math.log2(2 / error) - 1e-12))
    try:
        while N <= MOST_ORDERS:
            scale = max(1.0, scale_to_factorials(unit, N + 1))
            wanted = max(1, math.ceil(math.log2(2 * scale / error) - 1e-12))
            if wanted <= N:
                return N * (N + 1)
            N = wanted
    except InputError:
        return None
    return None
