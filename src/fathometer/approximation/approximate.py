"""From a function to the smallest network found, with its certificate (after Liang & Srikant 2017).

Candidates are built from the cheapest idea on: nothing for lines, exact kinks for piecewise-linear
functions, the proved optimum for quadratics, one hidden layer of optimal knots, fitted squaring chains, and
Chebyshev emulation as a fallback. Each is certified; the smallest that holds wins.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fathometer.approximation.blocks import swings
from fathometer.approximation.certificates import Certified, certify, sample_points
from fathometer.approximation.chains import squared
from fathometer.approximation.chebyshev import emulated
from fathometer.approximation.layering import layered
from fathometer.approximation.network import Builder, SkipNetwork
from fathometer.approximation.search import ChainSearch
from fathometer.approximation.shallow import curvature_sign, shallow
from fathometer.approximation.smoothness import chebyshev_coefficients
from fathometer.approximation.structure import composed
from fathometer.approximation.target import Target, as_target
from fathometer.errors import BudgetError, CapabilityError, InputError

if TYPE_CHECKING:
    from torch import nn

    from fathometer.drawing.picture import Picture

MOST_SHALLOW = 40
_HALVINGS = 8  # of 31 bits of error: the request is known to a twelfth
_ROUND = 1e-9
_WAVES = 9.5  # radians: one period and a half
_SAMPLED = 0.997  # samples see almost all of an error; the certificate sees the rest
_FALLBACKS = ("chebyshev", "wide")  # only where nothing else was found
Build = Callable[[float], "SkipNetwork | None"]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Approximation(Certified):
    """A network with its certificate.

    Attributes:
        certificate: The enclosure of its sup error.
        table: All weights (see ``SkipNetwork.table``); they are what is saved.
        method: "affine", "quadratic", "kinks", "shallow", "chain", "fold" (waves), "wide" (one
            layer of any size), "chebyshev" or "structure" (several variables).
        requested: The error that was asked for; NaN if a number of units was.
        dtype: Of the stored weights, which the certificate is for.
        network: The exact graph.
    """

    table: dict[str, np.ndarray]
    method: str
    requested: float
    dtype: str = "float64"
    network: SkipNetwork = field(metadata={"saved": False})

    def __post_init__(self) -> None:
        if self.network is None:
            object.__setattr__(self, "network", SkipNetwork.from_table(self.table))

    @property
    def units(self) -> int:
        """Hidden units; the affine output is not counted."""
        return self.network.units

    @property
    def depth(self) -> int:
        """Hidden layers."""
        return self.network.depth

    @property
    def parameters(self) -> int:
        """Nonzero weights and biases."""
        return self.network.parameters

    @property
    def wiring(self) -> str:
        """Either "skip" or "layered"."""
        return self.network.wiring

    @property
    def module(self) -> "nn.Module":
        """A new torch module in the dtype of the weights."""
        from fathometer.approximation.export import named_dtype, to_module

        return to_module(self.network, named_dtype(self.dtype))

    def __call__(self, x: Any) -> Any:
        """Values at points, in float64."""
        return self.network(x)

    def to_onnx(self, path: Any) -> Any:
        """Write ONNX in the dtype of the weights; returns the path."""
        from fathometer.approximation.export import named_dtype, to_onnx

        return to_onnx(self.network, path, named_dtype(self.dtype))

    def __str__(self) -> str:
        shape = f"{self.units} units, depth {self.depth}, {self.wiring} wiring"
        return f"{shape} ({self.method}): {self.certificate}"

    def picture(self) -> "Picture":
        """The error curve."""
        return self.certificate.picture()


@dataclass(frozen=True, kw_only=True)
class _Request:
    """What a candidate has to keep to."""

    error: float
    units: int | None
    wiring: str
    steps: bool
    layers: int | None
    seed: int
    dtype: str


def approximate(
    f: Any,
    domain: Any,
    error: float | None = None,
    *,
    units: int | None = None,
    wiring: str = "skip",
    breakpoints: Sequence[float] = (),
    method: str = "auto",
    seed: int = 0,
    activations: Sequence[str] = ("relu", "step"),
    layers: int | None = None,
    dtype: Any = None,
    second_derivative: float | None = None,
) -> Approximation:
    """Build the smallest network found whose certified sup error is at most ``error``.

    Args:
        f: Text such as ``"exp(x)"``, a sympy expression, a numpy series, a table ``(xs, ys)``, or a callable.
        domain: ``(a, b)``, or a list of one pair a variable (then f is a formula).
        error: Sup error > 0; or
        units: a budget of hidden units, for the least certified error found (with kinks or several
            variables by halving the request).
        wiring: "skip" (a unit may read everything before it) or "layered".
        breakpoints: Kinks and jumps of a callable; those of formulas are found.
        method: "auto", "chain" (fitted squares) or "chebyshev" (emulation, nothing is searched).
        seed: Of the random starts of the fits.
        activations: Leave out "step" for ReLUs only; jumps then cost at least half their height.
        layers: Most hidden layers.
        dtype: The torch dtype of the weights, which are rounded to it before the certificate; errors
            below what it can hold are refused.
        second_derivative: Bound on ``|f''|`` of a callable, for a rigorous certificate.

    Returns:
        The network with its certificate; of a callable without a bound it is only "sampled".

    Raises:
        InputError: If the request makes no sense or cannot be met; the message says why.
    """
    target = as_target(f, domain, curvature=second_derivative, breakpoints=breakpoints)
    request = _checked(target, error, units, wiring, activations, layers, dtype, method, seed)
    if units is not None and (target.dimension != 1 or breaks_of(target)):
        return _budgeted(
            target, units,
            lambda e: approximate(
                f, domain, e, wiring=wiring, breakpoints=breakpoints, method=method, seed=seed,
                activations=activations, layers=layers, dtype=dtype, second_derivative=second_derivative,
            ),
        )  # fmt: skip
    if target.dimension != 1:
        return _composed(target, request)
    known = {"second_derivative": second_derivative, "breakpoints": tuple(breakpoints)}
    best: Approximation | None = None
    closest = math.inf
    for name, build in _candidates(target, method, request):
        if best is not None and name in _FALLBACKS:
            break
        found, seen = _certified(target, name, build, request, best, known)
        closest = min(closest, seen)
        best = best if found is None else _better(best, found, units)
    if best is None:
        seen = (
            f"the least error reached was {closest:.3g}" if math.isfinite(closest) else "no construction fits"
        )
        raise InputError(
            f"error {request.error:.3g} cannot be met within units={units}, layers={layers}, {wiring} wiring "
            f"({seen}). Allow more, or give kinks and jumps as breakpoints."
        )
    return best


def _budgeted(target: Target, units: int, build: Callable[[float], Approximation]) -> Approximation:
    """Within a budget, where parts share the error: the request is halved on a log scale."""
    size = float(np.abs(target.values(sample_points(target, 1025))).max()) or 1.0
    low, high = math.log2(1e-9 * size), math.log2(2 * size)
    best = build(2.0**high)
    if best.units > units:
        raise InputError(f"units={units} are too few; even an error of {2.0**high:.3g} takes {best.units}.")
    trial = low  # once the finest: what is exact fits at any error
    for _ in range(_HALVINGS + 1):
        try:
            found = build(2.0**trial)
        except InputError:  # below what rounding allows
            found = None
        if found is not None and found.units <= units:
            high, best = trial, min(best, found, key=lambda net: net.value)
            if trial == low:
                break
        else:
            low = trial
        trial = (low + high) / 2
    return replace(best, requested=math.nan)


def _composed(target: Target, request: _Request) -> Approximation:
    """Several variables: block by block along the formula."""
    if request.layers is not None or request.wiring != "skip":
        raise InputError(
            "layers= and layered wiring are for functions of one variable, where every piece is seen; "
            f"this one has {target.dimension}: pass wiring='skip'."
        )
    if request.dtype != "float64":
        raise InputError(
            f"dtype is {request.dtype}; functions of several variables are certified in float64."
        )
    network, certificate = composed(target, request.error, request.seed)
    return Approximation(
        certificate=certificate,
        table=network.table(),
        method="structure",
        requested=request.error,
        network=network,
    )


def _certified(
    target: Target,
    name: str,
    build: Build,
    request: _Request,
    best: Approximation | None,
    known: dict[str, Any],
) -> tuple[Approximation | None, float]:
    """A candidate with its certificate, built again for a little less where samples were optimistic."""
    tight, closest = request.error, math.inf
    for _ in range(4):
        try:
            network = build(tight)
        except (BudgetError, CapabilityError, InputError):
            if name in ("kinks", "chebyshev"):
                raise
            network = None
        if network is None:
            break
        network = layered(network, target.interval) if request.wiring == "layered" else network
        if not _allowed(network, request, best):
            break
        network = network.rounded(request.dtype)
        certificate = certify(network, target, target.domain, 1e-4, **known)
        closest = min(closest, certificate.value)
        if request.units is not None or certificate.value <= request.error * (1 + _ROUND):
            found = Approximation(
                certificate=certificate,
                table=network.table(),
                method=name,
                requested=request.error or math.nan,
                dtype=request.dtype,
                network=network,
            )
            return found, closest
        tight *= min(0.99, request.error / certificate.value)
    return None, closest


def _checked(
    target: Target, error: Any, units: Any, wiring: str, activations: Sequence[str], layers: Any, dtype: Any,
    method: str, seed: int,
) -> _Request:  # fmt: skip
    if (error is None) == (units is None):
        raise InputError("pass either error or units=, one of them.")
    _check_whole("units", units, 0)
    _check_whole("layers", layers, 1)
    if error is not None and not (isinstance(error, int | float | np.floating) and 0 < error < math.inf):
        raise InputError(f"error is {error!r}; a positive number is needed.")
    if wiring not in ("skip", "layered"):
        raise InputError(f"wiring is {wiring!r}; there are 'skip' and 'layered'.")
    if method not in ("auto", "chain", "chebyshev"):
        raise InputError(f"method is {method!r}; there are 'auto', 'chain' and 'chebyshev'.")
    if not set(activations) <= {"relu", "step"} or "relu" not in activations:
        raise InputError(f"activations is {tuple(activations)}; 'relu' with or without 'step' is needed.")
    return _Request(
        error=float(error) if error is not None else 0.0,
        units=units,
        wiring=wiring,
        steps="step" in activations,
        layers=layers,
        seed=seed,
        dtype=_held(target, None if error is None else float(error), dtype),
    )


def _check_whole(name: str, number: Any, least: int) -> None:
    if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < least):
        raise InputError(f"{name} is {number!r}; a whole number from {least} on is needed.")


def _held(target: Target, error: float | None, dtype: Any) -> str:
    """The dtype's name, if its rounding leaves room for the error."""
    floors = {"float64": 1e-14, "float32": 1e-6, "float16": 5e-3, "bfloat16": 3e-2}
    name = "float64" if dtype is None else str(dtype).rpartition(".")[2]
    if name not in floors:
        raise InputError(f"dtype is {dtype}; one of {', '.join(floors)} is needed.")
    size = float(np.abs(target.values(sample_points(target, 1025))).max())
    if error is not None and error < floors[name] * size:
        raise InputError(
            f"error is {error:.3g}, but {name} networks of this size of f ({size:.3g}) round by about "
            f"{floors[name] * size:.3g}; ask for more than that, or another dtype."
        )
    return name


def _allowed(network: SkipNetwork, request: _Request, best: Approximation | None) -> bool:
    if request.layers is not None and network.depth > request.layers:
        return False
    if request.units is not None:
        return network.units <= request.units
    return best is None or network.units < best.units


def _better(best: Approximation | None, found: Approximation, units: int | None) -> Approximation:
    if best is None:
        return found
    if units is not None:
        return found if (found.value, found.units) < (best.value, best.units) else best
    return found if found.units < best.units else best


def _candidates(target: Target, method: str, request: _Request) -> Iterator[tuple[str, Build]]:
    """Names and builders ``error -> network``, cheapest ideas first; fallbacks last."""
    breaks = breaks_of(target)
    if breaks or target.breakpoints:
        from fathometer.approximation.kinks import joined

        yield "kinks", lambda e: joined(target, breaks, e, request.steps, request.seed)
        return
    if method == "chebyshev":
        yield "chebyshev", lambda e: _emulation(target, e)
        return
    yield from _of_one_formula(target, method, request)


def _of_one_formula(target: Target, method: str, request: _Request) -> Iterator[tuple[str, Build]]:
    """Candidates for a function without breaks."""
    swing = _swing(target)
    if request.units is None and request.layers != 1 and swing > _WAVES:
        yield "fold", lambda e: composed(target, e, request.seed)[0]
        if swing > 3 * _WAVES:
            return
    c = chebyshev_coefficients(target) if _smooth(target) else None
    if c is not None and len(c) <= 3:
        yield ("affine" if len(c) <= 2 else "quadratic"), lambda e: quadratic(target, c, e, request.units)
        return
    if method == "auto":
        yield "shallow", lambda e: _one_layer(target, e, request)
    if request.layers == 1:
        return
    if c is not None:
        yield from _deep(target, request)
    elif request.units is None:
        yield "wide", lambda e: shallow(target, target.domain, error=e).network(request.wiring)


def _deep(target: Target, request: _Request) -> Iterator[tuple[str, Build]]:
    search = ChainSearch(target=target, seed=request.seed)
    if request.units is not None:
        yield "chain", lambda e: search.closest(request.units or 0)
        return
    yield "chain", lambda e: search.smallest(_SAMPLED * e, lambda net: _units(net, request, target))
    yield "chebyshev", lambda e: _emulation(target, e)


def _swing(target: Target) -> float:
    return max(swings(target.formula, target), default=0.0) if target.formula is not None else 0.0


def _units(network: SkipNetwork, request: _Request, target: Target) -> int:
    return layered(network, target.interval).units if request.wiring == "layered" else network.units


def _smooth(target: Target) -> bool:
    try:
        chebyshev_coefficients(target)
    except InputError:
        return False
    return True


def _one_layer(target: Target, error: float, request: _Request) -> SkipNetwork | None:
    limit = request.units if request.units is not None else (10**5 if request.layers == 1 else MOST_SHALLOW)
    if request.units is not None:
        fit = shallow(target, target.domain, pieces=request.units + (request.wiring == "skip") or 1)
    else:
        if curvature_sign(target) == 0 and request.layers != 1 and error < 1e-4:
            return None  # far more knots than a chain needs units
        fit = shallow(target, target.domain, error=error)
    return fit.network(request.wiring) if fit.pieces - 1 <= limit else None


def _emulation(target: Target, error: float) -> SkipNetwork:
    """The first number of levels that meets the error at samples."""
    start = max(1, math.ceil(0.5 * math.log2(1 / min(1.0, error))) - 1)
    grid = np.linspace(*target.interval, 4001)
    y = target.values(grid)
    for levels in range(start, start + 15):
        network = emulated(target, error, levels)
        if float(np.abs(network(grid) - y).max()) <= 0.98 * error:
            return network
    return emulated(target, error, start + 15)


def quadratic(target: Target, c: np.ndarray, error: float, units: int | None) -> SkipNetwork:
    """A quadratic with the least possible number of units: l^2 |a| 4^-m / 8 is exact and optimal.

    Args:
        target: The function.
        c: Its Chebyshev coefficients, at most three.
        error: Sup error, where no number of units is given.
        units: Levels to use instead.
    """
    a, b = target.interval
    build = Builder(1)
    u = (build.variable() - a) * (1 / (b - a))
    lead = 8 * float(c[2]) if len(c) == 3 else 0.0  # of u^2, for s = 2u - 1: T_2(s) = 8 u^2 - 8 u + 1
    if lead and abs(lead) > 8 * error:
        levels = (
            max(0, math.ceil(0.5 * math.log2(abs(lead) / (8 * error)) - 1e-9)) if units is None else units
        )
    else:
        levels = 0 if units is None or not lead else units
    start, end = (float(v) for v in target.values(np.array([a, b])))
    line = start + (end - start - lead) * u
    if not lead:
        return build.network(line)
    return build.network(line + lead * (squared(build, u, levels) - 2.0 ** (-2 * levels - 3)))


def breaks_of(target: Target) -> tuple[Any, ...]:
    """Where branches of a formula change inside the interval, as fractions; given breakpoints too."""
    from fathometer.approximation.kinks import branch_points

    return branch_points(target)
