"""Which measures survive a change of coordinates: measured, not claimed.

The network is moved to an equivalent one (same outputs) by each kind of symmetry, every measure is taken
again, and the change is held against what rounding and sampling explain. Two more columns change
more than the weights: "output_scale" multiplies all outputs (classes stay, the loss does not), and
"bijection" leaves the network alone and changes the coordinates by a map that is the identity outside a ball.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fathometer.drawing import Picture
from fathometer.errors import FathometerError, InputError
from fathometer.model import LossSurface
from fathometer.results import Row, Table
from fathometer.sharpness.attention import heads
from fathometer.sharpness.bijections import RadialBijection
from fathometer.sharpness.equivalent import sharpest_tensor
from fathometer.sharpness.layer_scale import output_scale
from fathometer.sharpness.measures import chosen
from fathometer.sharpness.rescalings import rescalings
from fathometer.sharpness.units import units
from fathometer.types import Progress
from fathometer.work import numpy_generator, silent

TOLERANCE = 1e-3
"""Relative change that counts as none, beside the errors of the two measurements."""
CLEAR = 0.1
"""Change beyond which errors that would explain it leave the question open."""
TRANSFORMATIONS = (
    "layer_scale", "neuron_scale", "unit_order", "head_basis", "output_scale", "bijection",
)  # fmt: skip
MOST_IN_OTHER_COORDINATES = 2048
CONDITION = 10.0
"""Of the matrices at the heads of an attention."""
IN_OTHER_COORDINATES = frozenset(
    [
        "hessian_norm",
        "hessian_trace",
        "hessian_frobenius",
        "gauss_newton_norm",
        "gradient_norm",
        "epsilon_sharpness",
        "keskar",
        "one_step",
        "average_sharpness",
        "information_geometric",
    ]
)
"""Measures that ask only for losses, slopes and curvature, and so are defined in any coordinates."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class AuditTable(Table):
    """Rows ``measure, transformation, before, after, ratio, difference, error, kind, verdict``.

    ``error`` is that of the ratio; of the difference for measures that are logarithms, whose ratio is left
    out (not a number).
    """

    def picture(self) -> Picture:
        """The ratios of all measures on a log axis."""
        from fathometer.sharpness.pictures import audit_picture

        return audit_picture(self)


def audit(
    surface: LossSurface,
    names: Iterable[str] | None = None,
    *,
    transformations: Iterable[str] | None = None,
    factor: float = 10.0,
    example_inputs: Any = None,
    seed: int = 0,
    progress: Progress = silent,
) -> AuditTable:
    """Take every measure at equivalent networks and say which ones changed.

    Transformations, where the network has them: "layer_scale" divides one layer by ``factor`` and makes up
    for it in the next; "neuron_scale" draws a factor for every channel (log-normal, standard deviation 1 in
    natural units); "unit_order" permutes hidden units; "head_basis" puts an invertible matrix between the
    halves of each attention head; "output_scale" multiplies the outputs by ``factor``; "bijection" changes
    the coordinates by a `RadialBijection` that shrinks a ball around the weights by ``factor``.

    Args:
        surface: Loss surface of the network.
        names: Which measures; all of them if None.
        transformations: Which ones; all if None ("bijection" for up to 2,048 parameters: its products
            are slow).
        factor: Of the layer, the outputs and the coordinates; larger than 1.
        example_inputs: Arguments of the model, where the surface cannot tell them.
        seed: Of the drawn factors.
        progress: Called after each measurement.

    Returns:
        One row a measure and transformation. ``verdict`` is "invariant" where the ratio is 1 (for logarithms:
        the difference 0) within the errors and one thousandth, "undecided" where only large errors
        explain a change of more than a tenth, else "changes". ``notes`` names the transformations that
        the network does not have.

    Raises:
        InputError: If a measure or transformation is unknown.
        CapabilityError: If the network cannot be exported.
    """
    wanted = chosen(names, surface, layers=False)
    kinds = TRANSFORMATIONS if transformations is None else tuple(transformations)
    if unknown := [kind for kind in kinds if kind not in TRANSFORMATIONS]:
        raise InputError(f"transformations has {unknown[0]!r}; there are {', '.join(TRANSFORMATIONS)}.")
    if transformations is None and surface.size > MOST_IN_OTHER_COORDINATES:
        kinds = kinds[:-1]
    places, notes = _places(surface, kinds, factor, example_inputs, seed)
    rows = []
    total = len(wanted) * (1 + len(places))
    done = 0
    for name, what in wanted.items():
        try:
            before = what.function(surface, seed)
            progress(done := done + 1, total, name)
            for transformation, place in places.items():
                done += 1
                if transformation == "bijection" and name not in IN_OTHER_COORDINATES:
                    continue
                after = what.function(place, seed)
                progress(done, total, f"{name}, {transformation}")
                rows.append(_row(name, transformation, before, after, what.logarithmic))
        except FathometerError as cause:
            notes.append(f"{name} was not measured: {cause}")
    return AuditTable(
        title="Which flatness measures survive a change of coordinates", rows=tuple(rows), notes=tuple(notes)
    )


def _places(
    surface: LossSurface, kinds: tuple[str, ...], factor: float, example_inputs: Any, seed: int
) -> tuple[dict[str, Any], list[str]]:
    """The network after each transformation that it has, and what it has not."""
    arguments = surface.example_inputs() if example_inputs is None else example_inputs
    group = rescalings(surface.write(), arguments)
    model, arguments = group.model, group.example_inputs
    drawn = numpy_generator(seed, "audit").standard_normal(group.dimension)
    makers: dict[str, Callable[[], torch.nn.Module | None]] = {
        "layer_scale": lambda: (
            group.move(np.log(factor) * sharpest_tensor(surface, group, seed)[1]) if group.dimension else None
        ),
        "neuron_scale": lambda: group.move(drawn) if group.dimension else None,
        "unit_order": lambda: (
            found.permute(seed=seed) if (found := units(model, arguments)).classes else None
        ),
        "head_basis": lambda: (
            found.move(seed=seed, condition=CONDITION) if (found := heads(model, arguments)).pairs else None
        ),
        "output_scale": lambda: output_scale(model, factor, arguments),
    }
    notes, places = [], {}
    for name, make in makers.items():
        if name not in kinds:
            continue
        try:
            moved = make()
        except FathometerError as cause:
            notes.append(f"{name} was left out: {cause}")
            continue
        if moved is None:
            notes.append(f"{name} was left out: the network has no such symmetry.")
        else:
            places[name] = surface.around(moved)
    exact = surface.double()
    size = float(exact.theta.norm())
    if size > 0 and "bijection" in kinds:
        inner = 0.5 * size
        places["bijection"] = RadialBijection(exact.theta, size, inner, inner / factor).apply(exact)
    return places, notes


def _row(name: str, transformation: str, before: Any, after: Any, logarithmic: bool) -> Row:
    first, second = float(before.value), float(after.value)
    errors = [float(m.error) for m in (before, after)]
    plain = logarithmic or not first
    if plain:
        ratio, change, spread, unit = (
            float("nan"),
            abs(second - first),
            math.hypot(*errors),
            1.0 if logarithmic else abs(second),
        )
    else:
        ratio, unit = second / first, 1.0
        change = abs(ratio - 1.0)
        spread = abs(ratio) * math.hypot(*(e / v for e, v in zip(errors, (first, second), strict=True) if v))
    same = change <= TOLERANCE * unit + 4.0 * spread
    kinds = {before.kind, after.kind}
    return Row(
        measure=name,
        transformation=transformation,
        before=first,
        after=second,
        ratio=ratio,
        difference=second - first,
        error=spread,
        kind="exact" if kinds == {"exact"} else "estimate" if "estimate" in kinds else "bound",
        verdict="changes" if not same else "invariant" if change <= CLEAR * unit else "undecided",
    )
