"""Every measure of the room in one table, each with what it is invariant to."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fathometer.errors import FathometerError, InputError
from fathometer.model import LossSurface
from fathometer.results import Estimate, Row, Table
from fathometer.sharpness import curvature, invariant, worst_case
from fathometer.types import Progress
from fathometer.work import silent

RESCALING = frozenset({"layer_scale", "neuron_scale"})
NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Measure:
    """A flatness measure by name.

    Attributes:
        function: Surface -> `Estimate`.
        invariant_to: "layer_scale", "neuron_scale": transformations that keep the function.
        unit: In words.
        source: Where it comes from.
    """

    function: Callable[[LossSurface], Estimate]
    invariant_to: frozenset[str]
    unit: str
    source: str


MEASURES: dict[str, Measure] = {
    "hessian_norm": Measure(curvature.hessian_norm, NOTHING, "loss / weight^2", "Dinh et al. 2017, sec. 3"),
    "hessian_trace": Measure(curvature.hessian_trace, NOTHING, "loss / weight^2", "Dinh et al. 2017, sec. 3"),
    "hessian_frobenius": Measure(curvature.hessian_frobenius, NOTHING, "loss / weight^2", "Frobenius norm"),
    "epsilon_sharpness": Measure(
        lambda s: worst_case.epsilon_sharpness(s, 1e-2), NOTHING, "relative loss", "Dinh et al. 2017, def. 2"
    ),
    "keskar": Measure(lambda s: worst_case.keskar(s, 1e-3), NOTHING, "percent", "Keskar et al. 2017"),
    "keskar_subspace": Measure(
        lambda s: worst_case.keskar(s, 1e-3, subspace=min(100, s.size)),
        NOTHING,
        "percent",
        "Keskar et al. 2017",
    ),
    "adaptive_ball": Measure(lambda s: worst_case.adaptive(s, 0.05), RESCALING, "loss", "Kwon et al. 2021"),
    "adaptive_box": Measure(
        lambda s: worst_case.adaptive(s, 1e-3, norm=float("inf")),
        RESCALING,
        "loss",
        "Andriushchenko et al. 2023",
    ),
    "adaptive_average": Measure(
        lambda s: worst_case.adaptive(s, 0.05, average=True), RESCALING, "loss", "Andriushchenko et al. 2023"
    ),
    "relative_norm": Measure(invariant.relative_norm, RESCALING, "loss", "Hessian in units of the weights"),
    "relative_trace": Measure(invariant.relative_trace, RESCALING, "loss", "Hessian in units of the weights"),
    "fisher_rao": Measure(invariant.fisher_rao, RESCALING, "loss", "Liang et al. 2019"),
    "fisher_rao_empirical": Measure(
        lambda s: invariant.fisher_rao(s, "empirical"), RESCALING, "loss", "Liang et al. 2019"
    ),
    "orbit_trace": Measure(
        invariant.orbit_trace, RESCALING, "loss / weight^2", "smallest trace on the orbit"
    ),
}


def chosen(names: Iterable[str] | None) -> dict[str, Measure]:
    """The measures with these names, all of them for None.

    Raises:
        InputError: If a name is unknown.
    """
    if names is None:
        return dict(MEASURES)
    wanted = [names] if isinstance(names, str) else list(names)
    for name in wanted:
        if name not in MEASURES:
            raise InputError(f"names has {name!r}, which is no measure; there are {', '.join(MEASURES)}.")
    return {name: MEASURES[name] for name in wanted}


def measure(
    surface: LossSurface, names: Iterable[str] | None = None, *, progress: Progress = silent
) -> Table:
    """Flatness measures of a network at its point, side by side.

    Args:
        surface: Loss surface, at its point.
        names: Which measures; all of them if None.
        progress: Called after each measure.

    Returns:
        A table with ``measure, value, kind, error, invariant_to, unit, cost, source``. What could
        not be measured stands in ``notes`` with the reason.

    Raises:
        InputError: If a name is unknown.
    """
    wanted = chosen(names)
    rows, notes = [], []
    for i, (name, what) in enumerate(wanted.items()):
        progress(i, len(wanted), name)
        try:
            found = what.function(surface)
        except FathometerError as cause:
            notes.append(f"{name} was not measured: {cause}")
            continue
        rows.append(
            Row(
                measure=name,
                value=float(found.value),
                kind=found.kind,
                error=float(found.error),
                invariant_to=tuple(sorted(what.invariant_to)),
                unit=what.unit,
                cost=f"{found.cost} {found.cost_unit}",
                source=what.source,
            )
        )
    progress(len(wanted), len(wanted), "measures")
    return Table(
        title=f"Flatness of a network with {surface.size} parameters", rows=tuple(rows), notes=tuple(notes)
    )
