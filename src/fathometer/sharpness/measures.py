"""Every measure of the room in one table, each with what it is invariant to."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from fathometer.errors import FathometerError, InputError
from fathometer.linalg import eigenpairs, trace
from fathometer.model import LossSurface
from fathometer.results import Estimate, Row, Table
from fathometer.sharpness import curvature, invariant, metrics, noise, norms, worst_case
from fathometer.sharpness.geodesic import geodesic
from fathometer.sharpness.learning_coefficient import learning_coefficient
from fathometer.sharpness.path_norm import path_norm
from fathometer.sharpness.protocol import m_sharpness
from fathometer.sharpness.relative_flatness import relative_flatness
from fathometer.types import Progress
from fathometer.work import silent

RESCALING = frozenset({"layer_scale", "neuron_scale"})
LAYER = frozenset({"layer_scale"})
HEADS = RESCALING | {"head_basis"}
NOTHING: frozenset[str] = frozenset()
MOST_LAYERS = 12
"""Layers that get rows of their own."""


@dataclass(frozen=True)
class Measure:
    """A flatness measure by name.

    Attributes:
        function: (surface, seed) -> `Estimate`, or what has a value, kind and error too.
        invariant_to: Transformations of `audit` that do not change it. The order of units changes none of
            them, and is left out.
        unit: In words.
        source: Where it comes from.
    """

    function: Callable[[LossSurface, int], Any]
    invariant_to: frozenset[str]
    unit: str
    source: str

    @property
    def logarithmic(self) -> bool:
        """Whether the number is a logarithm, so that differences mean something and ratios do not."""
        return self.unit.startswith("log")


DINH, KESKAR, JIANG = "Dinh et al. 2017", "Keskar et al. 2017", "Jiang et al. 2020"
ANDRIUSHCHENKO = "Andriushchenko et al. 2023"
CURVATURE, LOSS = "loss / weight^2", "loss"

# name: (function, invariant to, unit, source)
_TABLE: dict[str, tuple[Callable[[LossSurface, int], Any], frozenset[str], str, str]] = {
    "hessian_norm": (lambda s, k: curvature.hessian_norm(s, seed=k), NOTHING, CURVATURE, f"{DINH}, sec. 3"),
    "hessian_trace": (lambda s, k: curvature.hessian_trace(s, seed=k), NOTHING, CURVATURE, f"{DINH}, sec. 3"),
    "hessian_frobenius": (
        lambda s, k: curvature.hessian_frobenius(s, seed=k), NOTHING, CURVATURE, "Frobenius norm"
    ),
    "gauss_newton_norm": (
        lambda s, k: curvature.gauss_newton_norm(s, seed=k), NOTHING, CURVATURE, "largest eigenvalue"
    ),
    "gradient_norm": (lambda s, k: norms.gradient_norm(s), NOTHING, "loss / weight", "zero at a minimum"),
    "gradient_variance": (
        lambda s, k: norms.gradient_variance(s, seed=k), NOTHING, "(loss / weight)^2", JIANG
    ),
    "epsilon_sharpness": (
        lambda s, k: worst_case.epsilon_sharpness(s, 1e-2, seed=k), NOTHING, "share of loss", DINH
    ),
    "keskar": (lambda s, k: worst_case.keskar(s, 1e-3, seed=k), NOTHING, "percent", KESKAR),
    "keskar_subspace": (
        lambda s, k: worst_case.keskar(s, 1e-3, subspace=min(100, s.size), seed=k), NOTHING, "percent", KESKAR
    ),
    "one_step": (lambda s, k: norms.one_step_sharpness(s, 0.05), NOTHING, LOSS, "Foret et al. 2021"),
    "average_sharpness": (
        lambda s, k: noise.average_sharpness(s, 0.01, seed=k), NOTHING, LOSS, ANDRIUSHCHENKO
    ),
    "local_volume": (
        lambda s, k: noise.local_volume(s, 0.1, directions=32, seed=k), NOTHING, "log of weight^P", DINH
    ),
    "local_entropy": (
        lambda s, k: noise.local_entropy(s, 1.0, samples=64, seed=k), NOTHING, "log of weight^P",
        "Chaudhari et al. 2017",
    ),
    "pac_bayes": (lambda s, k: noise.pac_bayes(s, seed=k), NOTHING, "weight", JIANG),
    "pac_bayes_bound": (lambda s, k: _bound(noise.pac_bayes(s, seed=k)), NOTHING, "error rate", JIANG),
    "weight_norm": (lambda s, k: norms.weight_norm(s), NOTHING, "weight", JIANG),
    "spectral_product": (lambda s, k: norms.spectral_product(s), LAYER, "output / input", JIANG),
    "frobenius_product": (lambda s, k: norms.frobenius_product(s), LAYER, "output / input", JIANG),
    "relative_flatness_plain": (
        lambda s, k: relative_flatness(s, standardize=False, seed=k), LAYER, LOSS, "Petzka et al. 2021"
    ),
    "relative_flatness": (lambda s, k: relative_flatness(s, seed=k), RESCALING, LOSS, "Petzka et al. 2021"),
    "adaptive_ball": (lambda s, k: worst_case.adaptive(s, 0.05, seed=k), RESCALING, LOSS, "Kwon et al. 2021"),
    "adaptive_box": (
        lambda s, k: worst_case.adaptive(s, 1e-3, norm=math.inf, seed=k), RESCALING, LOSS, ANDRIUSHCHENKO
    ),
    "adaptive_average": (
        lambda s, k: worst_case.adaptive(s, 0.05, average=True, seed=k), RESCALING, LOSS, ANDRIUSHCHENKO
    ),
    "adaptive_one_step": (
        lambda s, k: norms.one_step_sharpness(s, 0.05, adaptive=True), RESCALING, LOSS, "Kwon et al. 2021"
    ),
    "geodesic": (
        lambda s, k: geodesic(s, 0.05, starts=6, seed=k), RESCALING, LOSS, "da Silva et al. 2025"
    ),
    "geodesic_heads": (
        lambda s, k: geodesic(s, 0.05, starts=6, attention=True, seed=k), frozenset({"head_basis"}), LOSS,
        "da Silva et al. 2025",
    ),
    "relative_norm": (
        lambda s, k: invariant.relative_norm(s, seed=k), RESCALING, LOSS, "Hessian in units of the weights"
    ),
    "relative_trace": (
        lambda s, k: invariant.relative_trace(s, seed=k), RESCALING, LOSS, "Hessian in units of the weights"
    ),
    "fisher_rao": (lambda s, k: invariant.fisher_rao(s), HEADS, LOSS, "Liang et al. 2019"),
    "fisher_rao_empirical": (
        lambda s, k: invariant.fisher_rao(s, "empirical"), HEADS, LOSS, "Liang et al. 2019"
    ),
    "pac_bayes_relative": (
        lambda s, k: noise.pac_bayes(s, relative=True, seed=k),
        RESCALING | {"output_scale"}, "share of weight", JIANG
    ),
    "path_norm": (lambda s, k: path_norm(s, 1), RESCALING, "output / input", "Neyshabur et al. 2015"),
    "path_norm_2": (lambda s, k: path_norm(s, 2), RESCALING, "output / input", "Neyshabur et al. 2015"),
    "m_sharpness": (
        lambda s, k: m_sharpness(s, 1e-3, norm=math.inf, seed=k), RESCALING, LOSS, ANDRIUSHCHENKO
    ),
    "m_sharpness_normalized": (
        lambda s, k: m_sharpness(s, 1e-3, norm=math.inf, normalize=True, seed=k),
        RESCALING | {"output_scale"}, LOSS, ANDRIUSHCHENKO,
    ),
    "m_sharpness_average": (
        lambda s, k: m_sharpness(s, 0.05, average=True, seed=k), RESCALING, LOSS, ANDRIUSHCHENKO
    ),
    "quotient_norm": (
        lambda s, k: metrics.quotient_norm(s, seed=k), LAYER, LOSS, "Rangamani et al. 2019"
    ),
    "metric_norm": (lambda s, k: metrics.metric_norm(s, seed=k), RESCALING, "ratio", "Kristiadi et al. 2023"),
    "information_geometric": (
        lambda s, k: metrics.information_geometric(s), HEADS | {"bijection"}, LOSS, "Jang et al. 2022"
    ),
    "normalized_sharpness": (
        lambda s, k: metrics.normalized_sharpness(s, k), RESCALING, LOSS, "Tsuzuku et al. 2020"
    ),
    "learning_coefficient": (
        lambda s, k: learning_coefficient(s, steps=100, seed=k), NOTHING, "parameters", "Lau et al. 2023"
    ),
    "orbit_trace": (
        lambda s, k: invariant.orbit_trace(s, seed=k), RESCALING, CURVATURE, "smallest trace on the orbit"
    ),
    "orbit_weight_norm": (
        lambda s, k: norms.orbit_weight_norm(s), RESCALING, "weight", "smallest norm on the orbit"
    ),
}  # fmt: skip
MEASURES: dict[str, Measure] = {name: Measure(*parts) for name, parts in _TABLE.items()}

LayerFunction = Callable[[LossSurface, str, int], Any]
_LAYERS: dict[str, tuple[LayerFunction, frozenset[str], str, str]] = {
    "layer_hessian_norm": (
        lambda s, layer, k: _layer_norm(s, layer, k), NOTHING, CURVATURE, "block of one weight"
    ),
    "layer_hessian_trace": (
        lambda s, layer, k: _layer_trace(s, layer, k), NOTHING, CURVATURE, "block of one weight"
    ),
    "layer_weight_norm": (
        lambda s, layer, k: _layer_size(s, layer), NOTHING, "weight", "block of one weight"
    ),
    "layer_fisher_rao": (
        lambda s, layer, k: invariant.fisher_rao(s, parameters=layer), RESCALING, LOSS, "block of one weight"
    ),
}  # fmt: skip


def _bound(found: noise.PacBayes) -> Estimate:
    # d bound / d sigma, for small complexity terms beside it, is at most bound / sigma
    share = found.error / found.sigma if found.sigma else 0.0
    return Estimate(value=found.bound, kind="estimate", error=found.bound * share, method="bisection")


def _layer_norm(surface: LossSurface, layer: str, seed: int) -> Estimate:
    block = surface.double().hessian().restrict(surface.space.positions(layer))
    pairs = eigenpairs(block, 1, "magnitude", tolerance=0.01, seed=seed)
    return Estimate(
        value=abs(float(pairs.values[0])),
        kind=pairs.kind,
        error=float(pairs.residuals[0]),
        method="block Lanczos",
        cost=pairs.products,
    )


def _layer_trace(surface: LossSurface, layer: str, seed: int) -> Estimate:
    at = surface.space.positions(layer)
    known = curvature.known_diagonal(surface)
    if known is not None:
        return curvature.exact_sum(known[at])
    return trace(surface.double().hessian().restrict(at), "auto", 0.01, seed)


def _layer_size(surface: LossSurface, layer: str) -> Estimate:
    size = float(surface.theta.double()[surface.space.positions(layer)].norm())
    return Estimate(value=size, kind="exact", error=0.0, method="norm")


def of_block(name: str, pattern: str, surface: LossSurface) -> Measure:
    """A measure of one block: of all parameters that a name or glob matches."""
    function, invariant_to, unit, source = _LAYERS[name]
    surface.space.positions(pattern)  # refuses what matches nothing
    return Measure(lambda s, k: function(s, pattern, k), invariant_to, unit, source)


def of_layers(name: str, surface: LossSurface) -> dict[str, Measure]:
    """A measure of blocks, once for each weight: ``name:weight``."""
    function, invariant_to, unit, source = _LAYERS[name]
    shapes = zip(surface.names, surface.space.shapes, strict=True)
    weights = [weight for weight, shape in shapes if len(shape) > 1][:MOST_LAYERS]
    return {
        f"{name}:{weight}": Measure(
            lambda s, k, layer=weight: function(s, layer, k), invariant_to, unit, source
        )
        for weight in weights
    }


def chosen(
    names: Iterable[str] | None, surface: LossSurface | None, layers: bool = True
) -> dict[str, Measure]:
    """The measures with these names; for None all of them, those of single layers if ``layers``.

    Raises:
        InputError: If a name is unknown.
    """
    if names is None:
        names = [*MEASURES, *(_LAYERS if layers else ())]
    found: dict[str, Measure] = {}
    for name in [names] if isinstance(names, str) else names:
        if name in MEASURES:
            found[name] = MEASURES[name]
        elif name in _LAYERS and surface is not None:
            found |= of_layers(name, surface)
        elif name.partition(":")[0] in _LAYERS and surface is not None:
            kind, _, pattern = name.partition(":")
            found[name] = of_block(kind, pattern, surface)
        else:
            raise InputError(
                f"names has {name!r}, which is no measure; there are {', '.join([*MEASURES, *_LAYERS])}."
            )
    return found


def measure(
    surface: LossSurface, names: Iterable[str] | None = None, *, seed: int = 0, progress: Progress = silent
) -> Table:
    """Flatness measures of a network at its point, side by side.

    Args:
        surface: Loss surface, at its point.
        names: Which measures; all of them if None. "layer_..." gives a row for each weight, and
            "layer_...:block1.*" one for all parameters that the glob matches.
        seed: Of every random number.
        progress: Called after each measure.

    Returns:
        A table with ``measure, value, kind, error, invariant_to, unit, cost, source``. What could
        not be measured stands in ``notes`` with the reason.

    Raises:
        InputError: If a name is unknown.
    """
    wanted = chosen(names, surface)
    rows, notes = [], []
    for i, (name, what) in enumerate(wanted.items()):
        progress(i, len(wanted), name)
        try:
            found = what.function(surface, seed)
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
