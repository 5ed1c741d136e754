"""Values with first and second derivatives, in floats, of formulas and of callables."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from fathometer.approximation.expression import FLOATS, Arithmetic, evaluate
from fathometer.approximation.target import Target


class Jet:
    """A value and its first two derivatives along x; supports the operations of a formula."""

    def __init__(self, value: Any, first: Any = 0.0, second: Any = 0.0) -> None:
        self.value, self.first, self.second = value, first, second

    def __add__(self, other: Any) -> "Jet":
        o = _jet(other)
        return Jet(self.value + o.value, self.first + o.first, self.second + o.second)

    __radd__ = __add__

    def __neg__(self) -> "Jet":
        return Jet(-self.value, -self.first, -self.second)

    def __sub__(self, other: Any) -> "Jet":
        return self + (-_jet(other))

    def __mul__(self, other: Any) -> "Jet":
        o = _jet(other)
        second = self.second * o.value + 2 * self.first * o.first + self.value * o.second
        return Jet(self.value * o.value, self.first * o.value + self.value * o.first, second)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> "Jet":
        o = _jet(other)
        return self * o.through(1 / o.value, -1 / o.value**2, 2 / o.value**3)

    def __pow__(self, n: int) -> "Jet":
        v = np.asarray(self.value, dtype=float)
        return self.through(v**n, n * v ** max(n - 1, 0), n * (n - 1) * v ** max(n - 2, 0))

    def through(self, value: Any, first: Any, second: Any) -> "Jet":
        """The chain rule for an outer function with these derivatives."""
        return Jet(value, first * self.first, second * self.first**2 + first * self.second)


def _jet(value: Any) -> Jet:
    return value if isinstance(value, Jet) else Jet(value)


class JetArithmetic(Arithmetic):
    """Formulas over jets; at a kink the derivatives are those of the chosen branch."""

    def number(self, value: Fraction) -> Any:
        """A constant."""
        return Jet(float(value))

    def constant(self, name: str) -> Any:
        """pi, e or tau."""
        return Jet(FLOATS.constant(name))

    def real_power(self, base: Any, exponent: Fraction) -> Any:
        """``base`` to a rational power."""
        p, v = float(exponent), np.asarray(base.value, dtype=float)
        return base.through(v**p, p * v ** (p - 1), p * (p - 1) * v ** (p - 2))

    def call(self, name: str, args: Sequence[Any]) -> Any:
        """Known derivatives; the branches of kinked functions."""
        x = args[0]
        if name in ("max", "min"):
            larger = self._where(x.value >= args[1].value, x, args[1])
            return larger if name == "max" else x + args[1] - larger
        v = x.value
        value = FLOATS.call(name, [v])
        first, second = _DERIVATIVES[name](v, value)
        return x.through(value, first, second)

    def choose(self, test: Any, then: Any, otherwise: Any, closed: bool) -> Any:
        """Elementwise choice."""
        return self._where(test.value >= 0 if closed else test.value > 0, then, otherwise)

    def _where(self, condition: Any, a: Jet, b: Jet) -> Jet:
        return Jet(
            np.where(condition, a.value, b.value),
            np.where(condition, a.first, b.first),
            np.where(condition, a.second, b.second),
        )


_TWO_OVER_ROOT_PI = 2 / np.sqrt(np.pi)
_DERIVATIVES: dict[str, Callable[[Any, Any], tuple[Any, Any]]] = {
    "exp": lambda v, f: (f, f),
    "expm1": lambda v, f: (f + 1, f + 1),
    "log": lambda v, f: (1 / v, -1 / v**2),
    "log1p": lambda v, f: (1 / (1 + v), -1 / (1 + v) ** 2),
    "sqrt": lambda v, f: (0.5 / f, -0.25 / f**3),
    "sin": lambda v, f: (np.cos(v), -f),
    "cos": lambda v, f: (-np.sin(v), -f),
    "tan": lambda v, f: (1 + f**2, 2 * f * (1 + f**2)),
    "asin": lambda v, f: ((1 - v**2) ** -0.5, v * (1 - v**2) ** -1.5),
    "acos": lambda v, f: (-((1 - v**2) ** -0.5), -v * (1 - v**2) ** -1.5),
    "atan": lambda v, f: (1 / (1 + v**2), -2 * v / (1 + v**2) ** 2),
    "sinh": lambda v, f: (np.cosh(v), f),
    "cosh": lambda v, f: (np.sinh(v), f),
    "tanh": lambda v, f: (1 - f**2, -2 * f * (1 - f**2)),
    "asinh": lambda v, f: ((1 + v**2) ** -0.5, -v * (1 + v**2) ** -1.5),
    "acosh": lambda v, f: ((v**2 - 1) ** -0.5, -v * (v**2 - 1) ** -1.5),
    "atanh": lambda v, f: (1 / (1 - v**2), 2 * v / (1 - v**2) ** 2),
    "erf": lambda v, f: (_TWO_OVER_ROOT_PI * np.exp(-(v**2)), -2 * v * _TWO_OVER_ROOT_PI * np.exp(-(v**2))),
    "sigmoid": lambda v, f: (f * (1 - f), f * (1 - f) * (1 - 2 * f)),
    "sinc": lambda v, f: ((np.cos(v) - f) / v, -f - 2 * (np.cos(v) - f) / v**2),
    "abs": lambda v, f: (np.where(np.asarray(v) >= 0, 1.0, -1.0), 0.0),
    "relu": lambda v, f: (np.where(np.asarray(v) >= 0, 1.0, 0.0), 0.0),
    "sign": lambda v, f: (0.0 * f, 0.0),
    "step": lambda v, f: (0.0 * f, 0.0),
}
JETS = JetArithmetic()


def derivatives(target: Target, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and second derivative at points (n,): exact rules for formulas, differences for callables."""
    tree = target.formula
    if tree is not None:
        with np.errstate(all="ignore"):
            jet = _jet(evaluate(tree, {target.variables[0]: Jet(x, np.ones_like(x), np.zeros_like(x))}, JETS))
        return tuple(np.broadcast_to(np.asarray(v, dtype=float), x.shape) for v in (jet.first, jet.second))  # type: ignore[return-value]
    a, b = target.interval
    h = 3e-4 * (b - a)
    middle = np.clip(x, a + h, b - h)
    low, here, high = (target.values(middle + s * h) for s in (-1, 0, 1))
    second = (high - 2 * here + low) / h**2
    return (high - low) / (2 * h) + second * (x - middle), second
