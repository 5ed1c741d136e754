"""What is to be approximated: a function with its domain, and how much is known of it.

Formulas (text, sympy, numpy series, tables) know everything: floats, balls and all
derivatives. A callable gives floats only, so nothing about it can be certified unless a
bound on its second derivative comes along.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np

from fathometer.approximation.expression import BallArithmetic, Node, bind, evaluate, number, symbol
from fathometer.approximation.formula import from_series, from_sympy, parse
from fathometer.errors import InputError

Function = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False, kw_only=True)
class Target:
    """A real function on a box.

    Attributes:
        domain: (a, b) for each of the d variables.
        function: Float values (n,) at points (n, d).
        formula: The tree behind it; None for a callable.
        variables: Names of the d variables in the formula.
        curvature: Bound on the absolute second derivative of a callable of one variable.
        breakpoints: Places inside (a, b) where f may have a kink or a jump.
        text: How to call it in messages.
    """

    domain: tuple[tuple[float, float], ...]
    function: Function
    formula: Node | None = None
    variables: tuple[str, ...] = ("x",)
    curvature: float | None = None
    breakpoints: tuple[float, ...] = ()
    text: str = "f"
    _balls: dict[int, BallArithmetic] = field(default_factory=dict, repr=False)

    @property
    def dimension(self) -> int:
        """Number of variables."""
        return len(self.domain)

    @property
    def interval(self) -> tuple[float, float]:
        """The domain of a function of one variable."""
        return self.domain[0]

    def values(self, points: Any) -> np.ndarray:
        """Float values at points (n,) or (n, d).

        Raises:
            InputError: If a value is not finite or not real; the message says where.
        """
        x = np.asarray(points, dtype=float)
        x = x[:, None] if x.ndim == 1 else x
        y = self.function(x)
        bad = ~np.isfinite(y)
        if bad.any():
            where = x[int(bad.argmax())]
            place = f"{where[0]:.17g}" if len(where) == 1 else str(where.tolist())
            raise InputError(
                f"f is {y[int(bad.argmax())]} at {place}; it must be finite on the whole domain. "
                "Leave out the singular point."
            )
        return y

    def series(self, ball: Any, order: int) -> Any:
        """Taylor coefficients (balls) of a formula of one variable over ``ball``; order 0: its value."""
        return self._enclosed(ball, order, self._arithmetic(order))

    def at_point(self, ball: Any) -> Any:
        """The value at one number, enclosed by a tiny ball; a branch test within 2^-120 of zero is zero."""
        arithmetic = self._arithmetic(0)
        arithmetic.pointwise = True
        try:
            return self._enclosed(ball, 0, arithmetic)
        finally:
            arithmetic.pointwise = False

    def on_piece(self, left: Any, right: Any) -> tuple[Any, Any, Any]:
        """Second-order series over the open piece, and the limits of f at its ends from inside.

        Branches of kinked functions are settled on the piece and kept at the ends, so
        a jump at an end is seen from the right side.
        """
        inner, outer = self._arithmetic(3), self._arithmetic(0)
        tree: Any = self.formula
        if not tree.with_kinks():
            series = self._enclosed(left.union(right), 3, inner)
            return series, self._enclosed(left, 0, outer), self._enclosed(right, 0, outer)
        try:
            heads: list[list[Any]] = []
            for end in (left, right):
                outer.heads = []
                self._enclosed(end, 0, outer)
                heads.append(outer.heads)
            outer.heads = None
            inner.at_ends, inner.decided = list(zip(*heads, strict=True)), []
            series = self._enclosed(left.union(right), 3, inner)
            limits = []
            for end in (left, right):
                outer.replayed = list(inner.decided)
                limits.append(self._enclosed(end, 0, outer))
        finally:
            inner.at_ends = outer.heads = outer.replayed = None
        return series, limits[0], limits[1]

    def _arithmetic(self, order: int) -> BallArithmetic:
        if self.formula is None:
            raise InputError(f"{self.text} is a callable; only formulas have certified derivatives.")
        return self._balls.setdefault(order, BallArithmetic(order))

    def _enclosed(self, ball: Any, order: int, arithmetic: BallArithmetic) -> Any:
        tree: Any = self.formula
        if not order:
            return evaluate(tree, {self.variables[0]: ball}, arithmetic)
        context = arithmetic.flint.ctx
        cap, context.cap = context.cap, order
        try:
            return evaluate(tree, {self.variables[0]: arithmetic.variable(ball)}, arithmetic)
        finally:
            context.cap = cap

    def combined(self, others: Sequence["Target"], weights: Sequence[float]) -> "Target":
        """The weighted sum of functions on the same interval."""
        parts = [self, *others]
        return self._joined(
            parts,
            lambda values: sum(w * v for w, v in zip(weights, values, strict=True)),
            lambda trees: _sum([Node("mul", (number(w), t)) for w, t in zip(weights, trees, strict=True)]),
        )

    def multiplied(self, others: Sequence["Target"]) -> "Target":
        """The product of functions on the same interval."""
        return self._joined([self, *others], lambda values: np.prod(values, axis=0), _product)

    def stretched(self) -> "Target":
        """The same function of t in [0, 1], where x = a + (b - a) t."""
        a, b = self.interval
        inner = Node("add", (Node("mul", (number(b - a), symbol("x"))), number(a)))
        formula = None if self.formula is None else substituted(self.formula, self.variables[0], inner)
        return replace(
            self,
            domain=((0.0, 1.0),),
            function=lambda t: self.function(a + (b - a) * t),
            formula=formula,
            variables=("x",),
            curvature=None if self.curvature is None else self.curvature * (b - a) ** 2,
            breakpoints=tuple((c - a) / (b - a) for c in self.breakpoints),
            _balls={},
        )

    def _joined(self, parts: list["Target"], of_values: Any, of_trees: Any) -> "Target":
        whole = all(p.formula is not None for p in parts)
        trees = [substituted(p.formula, p.variables[0], symbol("x")) for p in parts if p.formula is not None]
        return Target(
            domain=self.domain,
            function=lambda x: np.asarray(of_values([p.function(x) for p in parts])),
            formula=of_trees(trees) if whole else None,
            text="the combined function",
        )


def as_target(
    f: Any,
    domain: Any,
    *,
    variables: Sequence[str] | None = None,
    curvature: float | None = None,
    breakpoints: Sequence[float] = (),
) -> Target:
    """Make a target of whatever the user has.

    Args:
        f: Text, sympy expression, numpy ``Polynomial`` or ``Chebyshev``, a table ``(xs, ys)`` joined by
            straight lines, or a callable of arrays: (n,) in one dimension, (n, d) in d.
        domain: ``(a, b)`` or a list of d such pairs.
        variables: Names of the variables in order; by default sorted by name.
        curvature: Bound on |f''| for a callable of one variable.
        breakpoints: Known kinks and jumps inside the interval.

    Raises:
        InputError: If the domain is empty, reversed or infinite, or f is none of these.
    """
    box = checked_domain(domain)
    cuts = _checked_breakpoints(breakpoints, box)
    if isinstance(f, Target):
        return f
    formula, text = _formula(f, box)
    if formula is None:
        if not callable(f):
            raise InputError(
                f"f is a {type(f).__name__}; pass a formula, a sympy expression, a numpy series, "
                "a table (xs, ys) or a callable."
            )
        if curvature is not None and not (np.isfinite(curvature) and curvature >= 0):
            raise InputError(f"second_derivative is {curvature}; a finite bound >= 0 is needed.")
        return Target(
            domain=box,
            function=_vectorized(f, len(box)),
            curvature=curvature,
            breakpoints=cuts,
            text=getattr(f, "__name__", "f"),
        )
    names = _checked_variables(formula, variables, len(box))
    if isinstance(f, tuple) and len(f) == 2:
        (a, b), knots = box[0], np.asarray(f[0], dtype=float)
        cuts = tuple(sorted({*cuts, *knots[(knots > a) & (knots < b)].tolist()}))
    return Target(
        domain=box,
        function=bind(formula, names),
        formula=formula,
        variables=names,
        breakpoints=cuts,
        text=text,
    )


def checked_domain(domain: Any) -> tuple[tuple[float, float], ...]:
    """One (a, b) a variable, from ``(a, b)`` or a list of pairs."""
    try:
        box: Any = np.asarray(domain, dtype=float)
    except (TypeError, ValueError):
        box = np.empty(0)
    box = box[None] if box.shape == (2,) else box
    if box.ndim != 2 or box.shape[1] != 2 or len(box) == 0:
        raise InputError(f"domain is {domain!r}; pass (a, b), or a list of one (a, b) a variable.")
    for a, b in box:
        if not (np.isfinite(a) and np.isfinite(b)):
            raise InputError(f"domain has the interval ({a}, {b}); both ends must be finite.")
        if not a < b:
            raise InputError(f"domain has the interval ({a}, {b}); the first end must be below the second.")
    return tuple((float(a), float(b)) for a, b in box)


def substituted(tree: Node, name: str, inner: Node) -> Node:
    """The tree with a variable replaced by another tree."""
    done: dict[int, Node] = {}
    for node in tree.order:
        if node.op == "symbol" and node.value == name:
            done[id(node)] = inner
        else:
            done[id(node)] = Node(node.op, tuple(done[id(a)] for a in node.args), node.value)
    return done[id(tree)]


def _formula(f: Any, box: tuple[tuple[float, float], ...]) -> tuple[Node | None, str]:
    if isinstance(f, str):
        return parse(f), f
    if isinstance(f, Node):
        return f, "f"
    if "sympy" in sys.modules and isinstance(f, sys.modules["sympy"].Basic):
        return from_sympy(f), str(f)
    if isinstance(f, np.polynomial.Polynomial | np.polynomial.Chebyshev):
        if not np.isfinite(f.coef).all() or np.iscomplexobj(f.coef):
            raise InputError("f is a series whose coefficients are not all real and finite.")
        return from_series(f, "x"), type(f).__name__
    if isinstance(f, tuple) and len(f) == 2:
        return _table(f, box), "table"
    return None, "f"


def _table(f: tuple[Any, Any], box: tuple[tuple[float, float], ...]) -> Node:
    """Straight lines through the points, as a sum of ReLUs with exact slopes."""
    xs: Any = np.asarray(f[0], dtype=float)
    ys: Any = np.asarray(f[1], dtype=float)
    if xs.ndim != 1 or xs.shape != ys.shape or len(xs) < 2 or not (np.diff(xs) > 0).all():
        raise InputError(
            f"f is a table of shapes {xs.shape} and {ys.shape}; increasing xs and as many ys are needed."
        )
    if not (np.isfinite(xs).all() and np.isfinite(ys).all()):
        raise InputError("f is a table with values that are not finite.")
    if box[0][0] < xs[0] or box[0][1] > xs[-1]:
        raise InputError(f"f is a table on [{xs[0]}, {xs[-1]}], which does not cover the domain {box[0]}.")
    X, Y = [Fraction(float(v)) for v in xs], [Fraction(float(v)) for v in ys]
    slopes = [(d - c) / (b - a) for (a, b), (c, d) in zip(pairwise(X), pairwise(Y), strict=True)]
    terms = [number(Y[0]), Node("mul", (number(slopes[0]), _shifted(X[0])))]
    for knot, before, after in zip(X[1:], slopes, slopes[1:], strict=False):
        if before != after:
            terms.append(Node("mul", (number(after - before), Node("call", (_shifted(knot),), "relu"))))
    return _sum(terms)


def _shifted(by: Fraction) -> Node:
    return Node("add", (symbol("x"), number(-by)))


def _sum(trees: Sequence[Node]) -> Node:
    """A balanced sum, so that long tables do not nest deeply."""
    if len(trees) == 1:
        return trees[0]
    half = len(trees) // 2
    return Node("add", (_sum(trees[:half]), _sum(trees[half:])))


def _product(trees: Sequence[Node]) -> Node:
    total = trees[0]
    for tree in trees[1:]:
        total = Node("mul", (total, tree))
    return total


def _checked_variables(formula: Node, variables: Sequence[str] | None, d: int) -> tuple[str, ...]:
    found = formula.symbols()
    if variables is None:
        if len(found) > d:
            raise InputError(
                f"f has the variables {', '.join(found)}, but the domain has {d} interval{'s' * (d > 1)}."
            )
        if len(found) < d and d > 1:
            raise InputError(
                f"f has the variables {', '.join(found) or 'none'} and the domain has {d} intervals; "
                "name them all with variables=."
            )
        return found or ("x",)
    names = tuple(str(v) for v in variables)
    missing = sorted(set(found) - set(names))
    if len(names) != d or missing or len(set(names)) != d:
        raise InputError(
            f"variables are {', '.join(names)} for {d} interval{'s' * (d > 1)} and a formula in "
            f"{', '.join(found) or 'none'}; name each variable once, in order."
        )
    return names


def _checked_breakpoints(
    breakpoints: Sequence[float], box: tuple[tuple[float, float], ...]
) -> tuple[float, ...]:
    cuts, (a, b) = sorted(float(c) for c in breakpoints), box[0]
    if cuts and len(box) > 1:
        raise InputError("breakpoints are places on a line; the domain has more than one variable.")
    for c in cuts:
        if not a < c < b:
            raise InputError(f"breakpoints has {c}, which is not inside ({a}, {b}).")
    return tuple(cuts)


def _vectorized(f: Callable[..., Any], d: int) -> Function:
    """Float values of a callable that takes arrays, tensors, or (one variable) single numbers."""

    def function(points: np.ndarray) -> np.ndarray:
        x = points[:, 0] if d == 1 else points
        raw: Any = None
        for convert in (lambda v: v, _as_tensor):
            try:
                with np.errstate(all="ignore"):
                    raw = f(convert(x))
                break
            except (TypeError, AttributeError, ValueError, RuntimeError) as cause:
                if isinstance(cause, InputError):
                    raise
                raw = None
        if raw is None or (np.ndim(raw) == 0 and len(x) != 1):
            raw = [f(float(v) if d == 1 else v) for v in x]
        raw = raw.detach().cpu().numpy() if hasattr(raw, "detach") else raw
        values: Any = np.asarray(raw)
        if np.iscomplexobj(values):
            where = points[int(np.argmax(np.abs(values.imag.reshape(len(points), -1)).max(axis=1)))]
            raise InputError(f"f is complex at {where.tolist()}; a real function is needed.")
        values = values.reshape(-1) if values.size == len(points) else values
        if values.shape != (len(points),):
            raise InputError(
                f"f gave shape {np.shape(raw)} for {len(points)} points; it must give one number a point."
            )
        return values.astype(float)

    return function


def _as_tensor(x: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(x.copy())
