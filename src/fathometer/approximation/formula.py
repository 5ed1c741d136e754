"""From text, sympy and numpy series to a formula tree - never through ``eval``.

The text grammar: numbers (kept as exact fractions), names, ``+ - * / ^ **``,
parentheses, functions by name, and the constants ``pi``, ``e``, ``tau``. Anything else
is refused with its position, so a string from a stranger can do nothing but arithmetic.
"""

import re
from collections.abc import Sequence
from fractions import Fraction
from importlib import import_module
from typing import Any, NoReturn

import numpy as np

from fathometer.approximation.expression import CONSTANTS, KINKED, SMOOTH, Node, number, symbol
from fathometer.errors import InputError

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<name>[A-Za-z_]\w*)|(?P<op>\*\*|[-+*/^(),]))"
)
_ALIASES = {
    "ln": "log", "Abs": "abs", "Max": "max", "Min": "min", "arcsin": "asin", "arccos": "acos",
    "arctan": "atan", "Heaviside": "step", "sgn": "sign",
}  # fmt: skip
_DEPTH = 60
_LENGTH = 10_000


def parse(text: str) -> Node:
    """The tree of a formula given as text.

    >>> parse("exp(-x^2/2)").symbols()
    ('x',)

    Raises:
        InputError: If the text is not a formula; the message says where and why.
    """
    if len(text) > _LENGTH:
        raise InputError(f"f is a string of {len(text)} characters; a formula has at most {_LENGTH}.")
    return _Parser(text).whole()


class _Parser:
    """Recursive descent over a list of (kind, text, position)."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[tuple[str, str, int]] = []
        position, end = 0, len(text.rstrip())
        while position < end:
            match = _TOKEN.match(text, position)
            if match is None or match.lastgroup is None:
                start = position + len(text[position:]) - len(text[position:].lstrip())
                self._refuse(start, f"the character {text[start]!r} has no meaning in a formula")
            self.tokens.append((match.lastgroup, match.group(match.lastgroup), match.start(match.lastgroup)))
            position = match.end()
        self.tokens.append(("end", "", end))
        self.at = 0
        self.depth = 0

    def whole(self) -> Node:
        if len(self.tokens) == 1:
            raise InputError("f is an empty string; pass a formula such as 'exp(x)'.")
        tree = self._sum()
        kind, text, position = self.tokens[self.at]
        if kind != "end":
            hint = "; write a product with '*'" if kind in ("name", "number") or text == "(" else ""
            self._refuse(position, f"{text!r} was not expected here{hint}")
        return tree

    def _refuse(self, position: int, why: str) -> NoReturn:
        raise InputError(f"f = {self.text!r} does not parse at position {position}: {why}.")

    def _take(self, *wanted: str) -> str | None:
        kind, text, _ = self.tokens[self.at]
        if kind == "op" and text in wanted:
            self.at += 1
            return text
        return None

    def _sum(self) -> Node:
        self.depth += 1
        if self.depth > _DEPTH:
            self._refuse(self.tokens[self.at][2], f"it is nested more than {_DEPTH} deep")
        left = self._product()
        while sign := self._take("+", "-"):
            right = self._product()
            left = Node("add", (left, right if sign == "+" else Node("neg", (right,))))
        self.depth -= 1
        return left

    def _product(self) -> Node:
        left = self._signed()
        while sign := self._take("*", "/"):
            left = Node("mul" if sign == "*" else "div", (left, self._signed()))
        return left

    def _signed(self) -> Node:
        negative = False
        while sign := self._take("+", "-"):
            negative ^= sign == "-"
        tree = self._power()
        return Node("neg", (tree,)) if negative else tree

    def _power(self) -> Node:
        base = self._atom()
        if not self._take("^", "**"):
            return base
        self.depth += 1
        if self.depth > _DEPTH:
            self._refuse(self.tokens[self.at][2], f"it is nested more than {_DEPTH} deep")
        exponent = fold(self._signed())  # binds to the right: 2^3^2 = 2^9
        self.depth -= 1
        return Node("pow", (base, exponent))

    def _atom(self) -> Node:
        kind, text, position = self.tokens[self.at]
        self.at += 1
        if kind == "number":
            mantissa, _, power = text.lower().partition("e")
            if power and abs(int(power)) > 400:
                self._refuse(position, f"{text} is beyond any float")
            return number(Fraction(mantissa) * Fraction(10) ** int(power or 0))
        if kind == "name":
            return self._name(text, position)
        if text == "(":
            tree = self._sum()
            if not self._take(")"):
                self._refuse(self.tokens[self.at][2], "a closing parenthesis is missing")
            return tree
        return self._refuse(
            position, "it ends too early" if kind == "end" else f"{text!r} was not expected here"
        )

    def _name(self, text: str, position: int) -> Node:
        name = _ALIASES.get(text, text)
        if self._take("("):
            return self._call(name, text, position)
        if name in SMOOTH or name in KINKED:
            self._refuse(position, f"{text} is a function; write {text}(...)")
        if "__" in text:
            self._refuse(position, f"{text!r} is not a name of a variable")
        return Node("constant", value=text) if text in CONSTANTS else symbol(text)

    def _call(self, name: str, text: str, position: int) -> Node:
        if name not in SMOOTH and name not in KINKED:
            known = ", ".join(sorted(SMOOTH | set(KINKED)))
            self._refuse(position, f"{text!r} is not a function known here; known are {known}")
        args = [self._sum()]
        while self._take(","):
            args.append(self._sum())
        if not self._take(")"):
            self._refuse(self.tokens[self.at][2], "a closing parenthesis is missing")
        wanted = KINKED.get(name, 1)
        if wanted == 2 and len(args) > 2:
            return _chain("call", args, name)
        if len(args) != wanted:
            self._refuse(position, f"{text} takes {wanted} argument{'s' * (wanted > 1)}, not {len(args)}")
        return Node("call", tuple(args), name)


def fold(tree: Node) -> Node:
    """Numbers combined exactly, so that ``x^(1/2)`` is seen as a square root."""
    done: dict[int, Node] = {}
    for node in tree.order:
        args = tuple(done[id(a)] for a in node.args)
        done[id(node)] = _folded(Node(node.op, args, node.value))
    return done[id(tree)]


def _folded(node: Node) -> Node:
    if node.op not in ("neg", "add", "mul", "div", "pow") or any(a.op != "number" for a in node.args):
        return node
    values = [a.value for a in node.args]
    if node.op == "pow":
        small = values[1].denominator == 1 and 0 <= values[1] <= 64
        return number(values[0] ** int(values[1])) if small else node
    if node.op == "div":
        if values[1] == 0:
            raise InputError("f divides by the number 0.")
        return number(values[0] / values[1])
    exact = {"neg": lambda v: -v[0], "add": lambda v: v[0] + v[1], "mul": lambda v: v[0] * v[1]}
    return number(exact[node.op](values))


def from_series(series: Any, name: str) -> Node:
    """The tree of a ``numpy.polynomial`` Polynomial or Chebyshev, exact in its coefficients."""
    coefficients = tuple(Fraction(float(c)) for c in series.coef)
    (a, b), (low, high) = ([Fraction(float(v)) for v in pair] for pair in (series.domain, series.window))
    scale = (high - low) / (b - a)
    x = Node("add", (Node("mul", (number(scale), symbol(name))), number(low - scale * a)))
    if scale == 1 and low == a:
        x = symbol(name)
    op = "chebyshev" if isinstance(series, np.polynomial.Chebyshev) else "polynomial"
    return Node(op, (x,), coefficients)


def from_sympy(expression: Any) -> Node:
    """The tree of a sympy expression.

    Raises:
        InputError: If it holds a function that is not known here.
    """
    sympy: Any = import_module("sympy")

    if expression.is_Symbol:
        return symbol(expression.name)
    if expression.is_Rational or expression.is_Float:
        exact = sympy.Rational(expression)
        return number(Fraction(int(exact.p), int(exact.q)))
    if expression in (sympy.pi, sympy.E):
        return Node("constant", value="pi" if expression == sympy.pi else "e")
    if isinstance(expression, sympy.Piecewise):
        return _pieces(expression)
    args = [from_sympy(a) for a in expression.args]
    if expression.is_Add or expression.is_Mul:
        return _chain(type(expression).__name__.lower(), args)
    if expression.is_Pow:
        return Node("pow", (args[0], fold(args[1])))
    name = _ALIASES.get(type(expression).__name__, type(expression).__name__)
    if name in SMOOTH or name in KINKED:
        return _chain("call", args, name) if KINKED.get(name) == 2 else Node("call", tuple(args[:1]), name)
    raise InputError(
        f"f holds {type(expression).__name__}, which is not known here; known are "
        f"{', '.join(sorted(SMOOTH | set(KINKED)))} and Piecewise."
    )


def _chain(op: str, args: Sequence[Node], value: Any = None) -> Node:
    tree = args[0]
    for arg in args[1:]:
        tree = Node(op, (tree, arg), value)
    return tree


def _pieces(expression: Any) -> Node:
    """Nested choices; the last branch is taken where no condition holds."""
    sympy: Any = import_module("sympy")

    *rest, last = expression.args
    if last.cond not in (True, sympy.true):
        raise InputError(
            "f is a Piecewise without a last branch for all other points; end it with (value, True)."
        )
    tree = from_sympy(last.expr)
    for branch in reversed(rest):
        condition = branch.cond
        if not isinstance(condition, sympy.core.relational.Relational) or condition.rel_op in ("==", "!="):
            raise InputError(f"f has the condition {condition}; only <, <=, > and >= are known here.")
        difference = (
            condition.lhs - condition.rhs if condition.rel_op[0] == ">" else condition.rhs - condition.lhs
        )
        tree = Node(
            "choose", (from_sympy(difference), from_sympy(branch.expr), tree), "=" in condition.rel_op
        )
    return tree
