"""Which measures survive a change of coordinates: measured, not claimed.

The network is moved to an equivalent one (same outputs) by each kind of rescaling, every
measure is taken again, and the ratio is held against what rounding and sampling explain.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fathometer.drawing import Picture
from fathometer.errors import FathometerError
from fathometer.model import LossSurface
from fathometer.results import Row, Table
from fathometer.sharpness.equivalent import group_of, sharpest_tensor
from fathometer.sharpness.measures import chosen
from fathometer.types import Progress
from fathometer.work import numpy_generator, silent

TOLERANCE = 1e-3
"""Relative change that counts as none, beside the errors of the two measurements."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class AuditTable(Table):
    """Rows ``measure, transformation, before, after, ratio, error, kind, verdict``."""

    def picture(self) -> Picture:
        """The ratios of all measures on a log axis."""
        from fathometer.sharpness.pictures import audit_picture

        return audit_picture(self)


def audit(
    surface: LossSurface,
    names: Iterable[str] | None = None,
    *,
    factor: float = 10.0,
    example_inputs: Any = None,
    seed: int = 0,
    progress: Progress = silent,
) -> AuditTable:
    """Take every measure at equivalent networks and say which ones changed.

    Transformations: "layer_scale" divides one layer by ``factor`` and makes up for it in
    the next; "neuron_scale" draws a factor for every channel (log-normal, standard deviation
    1 in natural units).

    Args:
        surface: Loss surface of the network.
        names: Which measures; all of them if None.
        factor: Of the layer, positive, not 1.
        example_inputs: Arguments of the model, where the surface cannot tell them.
        seed: Of the drawn factors.
        progress: Called after each measurement.

    Returns:
        One row a measure and transformation. ``verdict`` is "invariant" where the ratio is 1 within
        the errors and one thousandth, else "changes".

    Raises:
        InputError: If a name is unknown or the network has no rescaling.
    """
    wanted = chosen(names, surface, layers=False)
    group = group_of(surface, example_inputs)
    _, z, _ = sharpest_tensor(surface, group, seed)
    drawn = numpy_generator(seed, "audit").standard_normal(group.dimension)
    places = {
        "layer_scale": surface.around(group.move(np.log(factor) * z)),
        "neuron_scale": surface.around(group.move(drawn)),
    }
    rows, notes = [], []
    total = len(wanted) * (1 + len(places))
    done = 0
    for name, what in wanted.items():
        try:
            before = what.function(surface, seed)
            progress(done := done + 1, total, name)
            for transformation, place in places.items():
                after = what.function(place, seed)
                progress(done := done + 1, total, f"{name}, {transformation}")
                rows.append(_row(name, transformation, before, after))
        except FathometerError as cause:
            notes.append(f"{name} was not measured: {cause}")
    return AuditTable(
        title="Which flatness measures survive a rescaling", rows=tuple(rows), notes=tuple(notes)
    )


def _row(name: str, transformation: str, before: Any, after: Any) -> Row:
    first, second = float(before.value), float(after.value)
    ratio = second / first if first else float("nan")
    shares = [float(m.error) / float(m.value) if m.value else 0.0 for m in (before, after)]
    spread = abs(ratio) * math.hypot(*shares)
    same = abs(ratio - 1.0) <= TOLERANCE + 4.0 * spread
    kinds = {before.kind, after.kind}
    return Row(
        measure=name,
        transformation=transformation,
        before=first,
        after=second,
        ratio=ratio,
        error=spread,
        kind="exact" if kinds == {"exact"} else "estimate" if "estimate" in kinds else "bound",
        verdict="invariant" if same else "changes",
    )
