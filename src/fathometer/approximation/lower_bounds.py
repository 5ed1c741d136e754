"""How many units any network needs: Theorem 11, printed and corrected, and counting.

A layer of n units multiplies the linear pieces along a line by at most n + 1, one
more unit anywhere at most doubles them. So N units in L layers make at most ``prod (N_l + 1)`` pieces,
and with any wiring at most 2^N. A function that needs P pieces for an error
therefore needs at least log2 P units, and at least ``L (P^(1/L) - 1)`` in L layers.

Theorem 11 of Liang & Srikant (2017) estimates P from strong convexity: a piece of length h costs
mu h^2 / 16. As printed, ``N >= L (mu / 16 error)^(1 / 2L)`` forgets the "+ 1": two ReLUs
approximate (x - 1/2)^2 with error 1/72, where the print demands three.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from fathometer.approximation.shallow import curvature_sign, shallow
from fathometer.approximation.target import Target, as_target
from fathometer.approximation.tube import least_pieces
from fathometer.errors import InputError
from fathometer.results import Result
from fathometer.types import Kind


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class LowerBound(Result, float):
    """A bound on the hidden units of every network; also the real number itself.

    Attributes:
        value: Units at least, not rounded up.
        method: What it rests on.
        pieces: Linear pieces that any approximation needs; 0 for Theorem 11.
        layers: Number of hidden layers it is for; 0 for any depth and wiring.
        proved: False for the printed form of Theorem 11, which is false.
    """

    value: float
    method: str
    pieces: int = 0
    layers: int = 0
    proved: bool = True

    def __new__(cls, *, value: float, **fields: Any) -> "LowerBound":
        """The number is the value."""
        return float.__new__(cls, value)

    @property
    def kind(self) -> Kind:
        """A bound; the printed form is an estimate."""
        return "bound" if self.proved else "estimate"

    @property
    def error(self) -> float:
        """Zero: see ``kind``."""
        return 0.0

    @property
    def units(self) -> int:
        """Least whole number of units that the bound allows.

        With layers, the least sum whose best split makes enough pieces.
        """
        if self.layers and self.pieces:
            total = max(0, math.floor(self.value) - 1)
            while _most_pieces(total, self.layers) < self.pieces:
                total += 1
            return total
        return max(0, math.ceil(self.value - 1e-12))

    def __str__(self) -> str:
        depth = f"{self.layers} hidden layers" if self.layers else "any depth and wiring"
        return f"at least {self.value:.4g} units, {depth} ({self.method}; {self.kind})"


def lower_bound(
    f: Any,
    domain: Any = None,
    error: float | None = None,
    layers: int | None = None,
    printed: bool = False,
    *,
    dimension: int = 1,
) -> LowerBound:
    """Units that every ReLU and step network needs for a sup error.

    ``lower_bound(f, domain, error)`` counts the linear pieces that f needs; ``lower_bound(mu, error=...)``
    is Theorem 11 for mu-strongly convex functions on the unit cube.

    Args:
        f: A function as in `approximate`, or the number mu > 0.
        domain: ``(a, b)``, or one pair a variable (then along axes and diagonal); only with a function.
        error: Sup error > 0.
        layers: Hidden layers, each reading the one before; None for any depth and wiring.
        printed: Theorem 11 as printed, which is false by a low-order term.
        dimension: Number of variables behind mu: the diagonal of the cube is sqrt(d) long.

    Returns:
        The bound; it is a ``float``, not rounded up (``.units`` is).

    >>> float(lower_bound(2.0, error=1 / 72, layers=1, printed=True))  # but two units do it
    3.0

    Raises:
        InputError: If mu or the error is not positive, or layers is not a whole number from 1 on.
    """
    if error is None or not isinstance(error, int | float | np.floating) or not 0 < error < math.inf:
        raise InputError(f"error is {error!r}; a positive number is needed.")
    if layers is not None and (isinstance(layers, bool) or not isinstance(layers, int) or layers < 1):
        raise InputError(f"layers is {layers!r}; a whole number from 1 on is needed.")
    if isinstance(f, int | float | np.number):
        if domain is not None:
            raise InputError("domain goes with a function; Theorem 11 with a number mu is for the unit cube.")
        return _theorem_11(float(f), float(error), layers, printed, dimension)
    if printed:
        raise InputError("printed goes with Theorem 11: pass the number mu instead of a function.")
    if domain is None:
        raise InputError("domain is missing; pass (a, b).")
    P = _pieces_needed(as_target(f, domain), float(error))
    value = layers * (P ** (1 / layers) - 1) if layers else math.log2(P)
    return LowerBound(value=value, method=f"{P} linear pieces are needed", pieces=P, layers=layers or 0)


def product_bound(error: float) -> float:
    """Units that x y on the unit square needs: log2(1 / (16 error)).

    In a convex cell K on which the network is affine, ``|xi eta| <= 8 error`` for all differences in
    K - K; a convex symmetric set inside that cross has area at most 64 error, and
    K - K at least four times the area of K. So a cell covers at most 16 error, and N
    units make at most 2^N cells.

    Raises:
        InputError: If the error is not positive.
    """
    if not 0 < error < math.inf:
        raise InputError(f"error is {error!r}; a positive number is needed.")
    return max(0.0, math.log2(1 / (16 * error)))


def _theorem_11(mu: float, error: float, layers: int | None, printed: bool, dimension: int) -> LowerBound:
    if not 0 < mu < math.inf:
        raise InputError(f"mu is {mu}; strong convexity is a positive number.")
    if isinstance(dimension, bool) or not isinstance(dimension, int) or dimension < 1:
        raise InputError(f"dimension is {dimension!r}; a whole number from 1 on is needed.")
    A = mu / (16 * error) * (1 if printed else dimension)
    if printed:
        value = layers * A ** (1 / (2 * layers)) if layers else math.log2(A)
    else:
        value = layers * (A ** (1 / (2 * layers)) - 1) if layers else 0.5 * math.log2(A)
    return LowerBound(
        value=max(0.0, value),
        method="Theorem 11 as printed, false by a low-order term" if printed else "Theorem 11, corrected",
        layers=layers or 0,
        proved=not printed,
    )


def _pieces_needed(target: Target, error: float) -> int:
    if target.dimension == 1:
        if target.formula is not None and curvature_sign(target):
            return shallow(target, target.domain, error=error).pieces  # no fewer, even with jumps
        return least_pieces(target, error)
    box = np.array(target.domain)
    middle, half = box.mean(axis=1), (box[:, 1] - box[:, 0]) / 2
    directions = [half, *np.diag(half)]
    return max(least_pieces(_along(target, middle, v), error) for v in directions)


def _along(target: Target, middle: np.ndarray, direction: np.ndarray) -> Target:
    return Target(
        domain=((-1.0, 1.0),), function=lambda t: target.function(middle + t * direction), text="f on a line"
    )


def _most_pieces(units: int, layers: int) -> int:
    """Largest product of (N_l + 1) with N_l adding up to ``units``."""
    small, extra = divmod(units, layers)
    return (small + 2) ** extra * (small + 1) ** (layers - extra)
