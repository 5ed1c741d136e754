"""Formulas as trees, evaluated in whatever arithmetic is asked for.

One tree serves float arrays (numpy), balls (Arb numbers that enclose the true value)
and power series of balls (all derivatives, enclosed). A formula is never Python
code: the parser of `formula` makes trees from text, and only the operations listed
here exist. Functions with kinks or jumps (abs, sign, max, min, step, pieces) are
enclosed by the union of their branches where the branch is not certain.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np

from fathometer.errors import CapabilityError, InputError

SMOOTH = {
    "exp", "log", "sqrt", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh",
    "acosh", "atanh", "erf", "expm1", "log1p", "sinc", "sigmoid",
}  # fmt: skip
KINKED = {"abs": 1, "sign": 1, "step": 1, "relu": 1, "max": 2, "min": 2}
CONSTANTS = {"pi": math.pi, "e": math.e, "E": math.e, "tau": math.tau}


@dataclass(frozen=True, eq=False)
class Node:
    """One operation of a formula.

    ``op`` is "number", "constant", "symbol", "add", "mul", "div", "neg", "pow",
    "call", "choose" (``args = (test, then, otherwise)``: then where test > 0, or
    >= 0 if ``value``), "polynomial" or "chebyshev" (``value`` = coefficients).
    """

    op: str
    args: tuple["Node", ...] = ()
    value: Any = None

    @cached_property
    def order(self) -> "list[Node]":
        """Every node once, arguments before their users."""
        seen: dict[int, Node] = {}
        stack: list[tuple[Node, bool]] = [(self, False)]
        while stack:
            node, ready = stack.pop()
            if id(node) in seen:
                continue
            if ready:
                seen[id(node)] = node
            else:
                stack.append((node, True))
                stack.extend((arg, False) for arg in reversed(node.args))
        return list(seen.values())

    def symbols(self) -> tuple[str, ...]:
        """Names of the variables, sorted."""
        return tuple(sorted({n.value for n in self.order if n.op == "symbol"}))

    def with_kinks(self) -> "list[Node]":
        """Nodes at which the formula may have a kink or a jump."""
        return [n for n in self.order if n.op == "choose" or (n.op == "call" and n.value in KINKED)]


def number(value: Fraction | float) -> Node:
    """A constant, kept exactly."""
    return Node("number", value=Fraction(value))


def symbol(name: str) -> Node:
    """A variable."""
    return Node("symbol", value=name)


def evaluate(node: Node, values: dict[str, Any], arithmetic: "Arithmetic") -> Any:
    """The value of the tree where the variables are ``values``, in the given arithmetic."""
    done: dict[int, Any] = {}
    for item in node.order:
        done[id(item)] = _apply(item, [done[id(a)] for a in item.args], values, arithmetic)
    return done[id(node)]


def _apply(node: Node, args: list[Any], values: dict[str, Any], arithmetic: "Arithmetic") -> Any:
    match node.op:
        case "number":
            return arithmetic.number(node.value)
        case "constant":
            return arithmetic.constant(node.value)
        case "symbol":
            return values[node.value]
        case "polynomial" | "chebyshev":
            return _series(node, args[0], arithmetic)
        case "pow":
            return _power(node, args, arithmetic)
        case "call":
            return arithmetic.call(node.value, args)
        case "choose":
            return arithmetic.choose(args[0], args[1], args[2], bool(node.value))
        case _:
            return _ARITHMETIC[node.op](arithmetic, *args)


_ARITHMETIC: dict[str, Callable[..., Any]] = {
    "neg": lambda _, a: -a,
    "add": lambda _, a, b: a + b,
    "mul": lambda _, a, b: a * b,
    "div": lambda arithmetic, a, b: arithmetic.divide(a, b),
}


def _series(node: Node, x: Any, arithmetic: "Arithmetic") -> Any:
    """Horner's rule, or Clenshaw's for a Chebyshev series."""
    coefficients = [arithmetic.number(c) for c in node.value]
    if node.op == "polynomial":
        total = coefficients[-1] + 0 * x
        for c in reversed(coefficients[:-1]):
            total = total * x + c
        return total
    above, last = 0 * x, 0 * x
    for c in reversed(coefficients[1:]):
        above, last = last, 2 * x * last - above + c
    return x * last - above + coefficients[0]


def _power(node: Node, args: list[Any], arithmetic: "Arithmetic") -> Any:
    exponent = node.args[1]
    if exponent.op == "number" and exponent.value.denominator == 1 and abs(exponent.value) <= 1000:
        power = int(exponent.value)
        return (
            arithmetic.divide(arithmetic.number(Fraction(1)), args[0] ** -power)
            if power < 0
            else args[0] ** power
        )
    if exponent.op == "number" and exponent.value == Fraction(1, 2):
        return arithmetic.call("sqrt", args[:1])
    if exponent.op == "number":
        return arithmetic.real_power(args[0], exponent.value)
    return arithmetic.call("exp", [args[1] * arithmetic.call("log", args[:1])])


def affine_parts(tree: Node) -> tuple[dict[str, Fraction], Fraction] | None:
    """Slopes and constant of an affine tree with rational numbers, exactly; None for any other."""
    done: dict[int, Any] = {}
    for node in tree.order:
        parts = [done[id(arg)] for arg in node.args]
        done[id(node)] = None if None in parts else _affine_step(node, parts)
    return done[id(tree)]


def _affine_step(node: Node, parts: list[Any]) -> tuple[dict[str, Fraction], Fraction] | None:
    if node.op == "number":
        return {}, node.value
    if node.op == "symbol":
        return {node.value: Fraction(1)}, Fraction(0)
    if node.op == "neg":
        return _scaled(parts[0], Fraction(-1))
    if node.op == "add":
        (first, c), (second, d) = parts
        slopes = {name: first.get(name, 0) + second.get(name, 0) for name in {**first, **second}}
        return {name: Fraction(w) for name, w in slopes.items() if w}, c + d
    if node.op == "mul" and not (parts[0][0] and parts[1][0]):
        line, factor = parts if parts[0][0] else parts[::-1]
        return _scaled(line, factor[1])
    if node.op == "div" and not parts[1][0] and parts[1][1]:
        return _scaled(parts[0], 1 / parts[1][1])
    return None


def _scaled(
    line: tuple[dict[str, Fraction], Fraction], factor: Fraction
) -> tuple[dict[str, Fraction], Fraction]:
    return {name: factor * w for name, w in line[0].items() if factor}, factor * line[1]


class Arithmetic:
    """What a tree needs beyond ``+``, ``*``, unary minus and whole powers."""

    def number(self, value: Fraction) -> Any:
        """A rational constant."""
        raise NotImplementedError

    def constant(self, name: str) -> Any:
        """pi, e or tau."""
        raise NotImplementedError

    def divide(self, a: Any, b: Any) -> Any:
        """The quotient a / b."""
        return a / b

    def real_power(self, base: Any, exponent: Fraction) -> Any:
        """``base`` (not negative) to a rational power."""
        raise NotImplementedError

    def call(self, name: str, args: Sequence[Any]) -> Any:
        """A function of `SMOOTH` or `KINKED`."""
        raise NotImplementedError

    def choose(self, test: Any, then: Any, otherwise: Any, closed: bool) -> Any:
        """``then`` where test > 0 (>= 0 if closed), else ``otherwise``."""
        raise NotImplementedError


class FloatArithmetic(Arithmetic):
    """Numpy arrays in float64; outside its domain a function is NaN."""

    def number(self, value: Fraction) -> Any:
        """The nearest float."""
        return float(value)

    def constant(self, name: str) -> Any:
        """The nearest float."""
        return CONSTANTS[name]

    def real_power(self, base: Any, exponent: Fraction) -> Any:
        """NaN for a negative base."""
        return np.power(np.asarray(base, dtype=float), float(exponent))

    def call(self, name: str, args: Sequence[Any]) -> Any:
        """Numpy's function of that name."""
        return _FLOAT[name](*args)

    def choose(self, test: Any, then: Any, otherwise: Any, closed: bool) -> Any:
        """Elementwise choice."""
        return np.where(test >= 0 if closed else test > 0, then, otherwise)


def _erf(x: Any) -> Any:
    from scipy.special import erf

    return erf(x)


_FLOAT: dict[str, Callable[..., Any]] = {
    "exp": np.exp, "log": np.log, "sqrt": np.sqrt, "sin": np.sin, "cos": np.cos, "tan": np.tan,
    "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "sinh": np.sinh, "cosh": np.cosh,
    "tanh": np.tanh, "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh, "erf": _erf,
    "expm1": np.expm1, "log1p": np.log1p, "sinc": lambda x: np.sinc(np.asarray(x) / np.pi),
    "sigmoid": lambda x: 0.5 * (1 + np.tanh(0.5 * x)), "abs": np.abs, "sign": np.sign,
    "step": lambda x: np.where(np.asarray(x) >= 0, 1.0, 0.0), "relu": lambda x: np.maximum(x, 0.0),
    "max": np.maximum, "min": np.minimum,
}  # fmt: skip
FLOATS = FloatArithmetic()


def flint() -> Any:
    """The module of exact and ball arithmetic.

    Raises:
        CapabilityError: If python-flint is not installed.
    """
    try:
        import flint as module
    except ImportError:
        raise CapabilityError(
            "a rigorous certificate needs python-flint, which is not installed; "
            'pip install "fathometer[certify]".'
        ) from None
    return module


class BallArithmetic(Arithmetic):
    """Arb balls, or power series of them: every result contains the true value.

    Args:
        order: Number of Taylor coefficients kept; 0 works with plain balls.
    """

    def __init__(self, order: int = 0) -> None:
        self.flint = flint()
        self.order = order
        self.heads: list[Any] | None = None
        self.at_ends: list[tuple[Any, Any]] | None = None
        self.decided: list[bool | None] = []
        self.pointwise = False
        self.replayed: list[bool | None] | None = None

    def variable(self, ball: Any) -> Any:
        """The variable itself around ``ball``."""
        return self.flint.arb_series([ball, 1], self.order) if self.order else ball

    def number(self, value: Fraction) -> Any:
        """A ball around a rational number."""
        ball = self.flint.arb(self.flint.fmpq(value.numerator, value.denominator))
        return self.flint.arb_series([ball], self.order) if self.order else ball

    def constant(self, name: str) -> Any:
        """A ball around pi, e or tau."""
        arb = self.flint.arb
        ball = arb.const_e() if name in ("e", "E") else arb.pi() * (2 if name == "tau" else 1)
        return self.flint.arb_series([ball], self.order) if self.order else ball

    def divide(self, a: Any, b: Any) -> Any:
        """The quotient; not finite where the divisor may vanish."""
        if self.order and self._head(b).contains(0):
            return self._nothing()
        return a / b

    def real_power(self, base: Any, exponent: Fraction) -> Any:
        """By exp and log, and for plain balls by Arb's own power, which takes zero."""
        if self.order:
            return (self.number(exponent) * self.call("log", [base])).exp()
        if exponent > 0 and base.contains(0):  # monotone: the range over the part that is defined
            top = base.upper()
            zero = self.flint.arb(0)
            return zero if top == 0 else zero.union(top ** self.number(exponent)) if top > 0 else base.nan()
        return base ** self.number(exponent)

    def call(self, name: str, args: Sequence[Any]) -> Any:
        """Enclosure of a function; branches that are not certain are united."""
        if name in KINKED:
            return self._kinked(name, args)
        x = args[0]
        if self.order:
            return self._smooth_series(name, x)
        if name == "sqrt":
            return self._root(x)
        return 1 / (1 + (-x).exp()) if name == "sigmoid" else getattr(x, name)()

    def choose(self, test: Any, then: Any, otherwise: Any, closed: bool) -> Any:
        """The branch if it is certain, else the union of both (NaN for series)."""
        side = self._side(test, closed)
        if side is None:
            return self._nothing() if self.order else then.union(otherwise)
        return then if side else otherwise

    def _side(self, test: Any, closed: bool) -> bool | None:
        """The branch, None if not certain; inside a piece, touching zero at an end does not count."""
        if self.replayed is not None:
            return self.replayed.pop(0)
        head = self._head(test)
        if self.heads is not None:
            self.heads.append(head)
        if self.pointwise and abs(head) < 2.0**-120:
            return closed
        if head > 0 or (closed and head >= 0):
            side: bool | None = True
        elif head < 0 or (not closed and head <= 0):
            side = False
        else:
            side = None
        if self.at_ends is not None:
            left, right = self.at_ends.pop(0)
            if side is None and self.order > 1 and not test[1].contains(0):  # monotone: the ends decide
                side = _side_of_ends(left, right)
            self.decided.append(side)
        return side

    def _root(self, x: Any) -> Any:
        if x.contains(0) and x.upper() >= 0:  # the range over the part that is defined
            return self.flint.arb(0).union(x.upper().sqrt())
        return x.sqrt()

    def _head(self, x: Any) -> Any:
        return x[0] if self.order else x

    def _nothing(self) -> Any:
        nan = self.flint.arb.nan()
        return self.flint.arb_series([nan] * self.order, self.order)

    def _kinked(self, name: str, args: Sequence[Any]) -> Any:
        x = args[0]
        zero, one = self.number(Fraction(0)), self.number(Fraction(1))
        if name == "abs":
            return self.choose(x, x, -x, True)
        if name == "sign":
            return self.choose(x, one, self.choose(-x, -one, zero, False), False)
        if name == "step":
            return self.choose(x, one, zero, True)
        if name == "relu":
            return self.choose(x, x, zero, True)
        y = args[1]
        return self.choose(x - y, x, y, True) if name == "max" else self.choose(x - y, y, x, True)

    def _smooth_series(self, name: str, x: Any) -> Any:
        one = self.number(Fraction(1))
        if name in ("log", "sqrt") and not x[0] > 0:
            return self._nothing()
        composed: dict[str, Callable[[], Any]] = {
            "sinh": lambda: (x.exp() - (-x).exp()) / 2,
            "cosh": lambda: (x.exp() + (-x).exp()) / 2,
            "tanh": lambda: one - 2 / ((2 * x).exp() + one),
            "sigmoid": lambda: one / (one + (-x).exp()),
            "expm1": lambda: x.exp() - one,
            "log1p": lambda: self._smooth_series("log", x + one),
            "asinh": lambda: (x + (x * x + one).sqrt()).log(),
            "acosh": lambda: (x + (x * x - one).sqrt()).log(),
            "atanh": lambda: self.divide(one + x, one - x).log() / 2,
            "sinc": lambda: self.divide(x.sin(), x),
        }
        return composed[name]() if name in composed else getattr(x, name)()


def _side_of_ends(left: Any, right: Any) -> bool | None:
    """Sign of a monotone function inside, from balls at the ends; what is below 2^-120 is zero."""
    signs = [0 if abs(v) < 2.0**-120 else 1 if v > 0 else -1 if v < 0 else None for v in (left, right)]
    if None in signs or signs[0] == signs[1] == 0 or signs[0] == -1 * (signs[1] or 2):
        return None
    return 1 in signs


def bind(node: Node, variables: Sequence[str]) -> Callable[[np.ndarray], np.ndarray]:
    """A vectorized float function of (n, d) arrays, one column a variable."""
    unknown = sorted(set(node.symbols()) - set(variables))
    if unknown:
        raise InputError(
            f"the formula has the symbol {unknown[0]!r}; the variables are {', '.join(variables)}."
        )

    def function(points: np.ndarray) -> np.ndarray:
        columns = {name: points[:, i] for i, name in enumerate(variables)}
        with np.errstate(all="ignore"):
            return np.broadcast_to(
                np.asarray(evaluate(node, columns, FLOATS), dtype=float), (len(points),)
            ).copy()

    return function
