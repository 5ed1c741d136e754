"""Functions with kinks and jumps: one network a smooth piece, joined exactly.

``f = f_1(min(x, c_1)) + sum_i [f_i(clip(x, c_i, c_i+1)) - f_i(c_i)] + sum_i J_i step(x - c_i)``:
one ReLU a clip end and one step a jump. Between its breaks a piece sees its clipped variable at rest, so the
pieces do not disturb each other; only their end errors add, and those are taken off.
"""

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np

from fathometer.approximation.composing import inlined
from fathometer.approximation.expression import FLOATS, Node, affine_parts, evaluate
from fathometer.approximation.network import Affine, Builder, SkipNetwork
from fathometer.approximation.target import Target
from fathometer.errors import InputError

_LOCATE = 4001


def branch_points(target: Target) -> tuple[Fraction, ...]:
    """Zeros, inside the interval, of everything that a branch of the formula depends on."""
    a, b = target.interval
    found = {Fraction(c) for c in target.breakpoints}
    tree = target.formula
    if tree is not None:
        for node in tree.with_kinks():
            test = node.args[0]
            if node.op == "call" and node.value in ("max", "min"):
                test = Node("add", (node.args[0], Node("neg", (node.args[1],))))
            found |= set(_zeros(test, target.variables[0], a, b))
    return tuple(sorted(c for c in found if a < c < b))


def _zeros(test: Node, name: str, a: float, b: float) -> list[Fraction]:
    line = affine_parts(test)
    if line is not None:
        slopes, height = line
        return [-height / slopes[name]] if slopes else []

    def value(x: np.ndarray) -> np.ndarray:
        return np.broadcast_to(np.asarray(evaluate(test, {name: x}, FLOATS), dtype=float), x.shape)

    x = np.linspace(a, b, _LOCATE)
    y = value(x)
    zeros = [Fraction(float(v)) for v in x[y == 0.0]]
    for i in np.flatnonzero(y[:-1] * y[1:] < 0):
        low, high = x[i], x[i + 1]
        for _ in range(80):
            middle = 0.5 * (low + high)
            if (value(np.array([middle]))[0] > 0) == (y[i] > 0):
                low = middle
            else:
                high = middle
        zeros.append(Fraction(float(high)))
    return zeros


def joined(target: Target, breaks: tuple[Fraction, ...], error: float, steps: bool, seed: int) -> SkipNetwork:
    """The network of all pieces.

    Raises:
        InputError: If f jumps and steps are not allowed.
    """
    from fathometer.approximation.approximate import approximate

    a, b = target.interval
    cuts = [Fraction(a), *breaks, Fraction(b)]
    build = Builder(1)
    x = build.variable()
    clips: dict[Fraction, Affine] = {}

    def clip(c: Fraction) -> Affine:
        """One ReLU max(0, x - c) a break, built when first needed."""
        if c not in clips:
            clips[c] = build.relu(_shifted(x, c)) * (1 / _scale(c))
        return clips[c]

    total, last_value, slope_before = Affine({}), 0.0, 0.0
    affine = _all_affine(target, breaks)
    for i, (left, right) in enumerate(pairwise(cuts)):
        low, high = _limits(target, left, right)
        size = max(abs(low), abs(last_value), 1e-300)
        if i and abs(low - last_value) > 1e-9 * size + 1e-12:
            _check_jump(low - last_value, left, steps)
            total = total + (low - last_value) * build.step(_shifted(x, left))
        if affine:
            slope = (high - low) / float(right - left)
            if i == 0:
                total = total + low + slope * (x - float(left))
            elif abs(slope - slope_before) > 1e-12 * max(abs(slope), abs(slope_before)):
                total = total + (slope - slope_before) * clip(left)
            slope_before = slope
        else:
            width = float(right - left)
            inner = clip(left) if i else x - a
            outer = clip(right) if right != cuts[-1] else Affine({})
            clipped = (inner - outer) * (1 / width)
            part = _piece(target, left, right)
            share = error / (2 * len(cuts) - 2)
            network = approximate(part, part.domain, max(share, 1e-13 * size), seed=seed).network
            start = float(network(np.array([0.0]))[0])
            total = total + inlined(build, network, clipped) + ((low - start) if i == 0 else -start)
        last_value = high
    return build.network(total)


def _check_jump(jump: float, at: Fraction, steps: bool) -> None:
    if not steps:
        raise InputError(
            f"f has a jump of {abs(jump):.4g} at {float(at):.6g}; a ReLU network cannot get below "
            f"half of it, {abs(jump) / 2:.4g}. Allow steps: activations=('relu', 'step')."
        )


def _shifted(x: Affine, c: Fraction) -> Affine:
    """The line q x - p for c = p/q: zero exactly at c, even where c is no binary fraction."""
    q = _scale(c)
    return x - float(c) if q == 1.0 else x * q - float(c.numerator)


def _scale(c: Fraction) -> float:
    """The denominator of a fraction of small numbers; 1 for a float."""
    return float(c.denominator) if c.denominator <= 2**20 and abs(c.numerator) <= 2**52 else 1.0


def _limits(target: Target, left: Fraction, right: Fraction) -> tuple[float, float]:
    """One-sided values of f at the ends of a piece, by the branch inside."""
    part = _piece(target, left, right)
    low, high = part.values(np.array([0.0, 1.0]))
    return float(low), float(high)


def _piece(target: Target, left: Fraction, right: Fraction) -> Target:
    """The function on one piece as a function of t in [0, 1], with its branches settled."""
    settled = target
    if target.formula is not None:
        middle = float((left + right) / 2)
        formula = _settled(target.formula, {target.variables[0]: middle})
        from fathometer.approximation.expression import bind

        settled = replace(target, formula=formula, function=bind(formula, target.variables), _balls={})
    else:
        a, b = np.nextafter(float(left), float(right)), np.nextafter(float(right), float(left))
        settled = replace(target, function=lambda x: target.function(np.clip(x, a, b)))
    return replace(settled, domain=((float(left), float(right)),), breakpoints=()).stretched()


def _settled(tree: Node, point: Mapping[str, float]) -> Node:
    """The tree with every branch replaced by the one taken at a point."""
    done: dict[int, Node] = {}
    for node in tree.order:
        args = tuple(done[id(arg)] for arg in node.args)
        done[id(node)] = _branch(node, args, point)
    return done[id(tree)]


def _branch(node: Node, args: tuple[Node, ...], point: Mapping[str, float]) -> Node:
    if node.op == "choose":
        test = float(evaluate(args[0], dict(point), FLOATS))
        return args[1] if test > 0 or (node.value and test == 0) else args[2]
    if node.op != "call" or node.value not in ("abs", "sign", "step", "relu", "max", "min"):
        return Node(node.op, args, node.value)
    values = [float(evaluate(arg, dict(point), FLOATS)) for arg in args]
    if node.value in ("max", "min"):
        return args[0] if (values[0] >= values[1]) == (node.value == "max") else args[1]
    positive = values[0] >= 0
    if node.value == "abs":
        return args[0] if positive else Node("neg", args)
    if node.value == "relu":
        return args[0] if positive else Node("number", value=Fraction(0))
    negative = Fraction(-1) if node.value == "sign" else Fraction(0)
    return Node("number", value=Fraction(1) if positive else negative)


def _all_affine(target: Target, breaks: tuple[Fraction, ...]) -> bool:
    a, b = target.interval
    for left, right in pairwise([Fraction(a), *breaks, Fraction(b)]):
        y = _piece(target, left, right).values(np.array([0.0, 0.3, 0.5, 0.8, 1.0]))
        line = y[0] + (y[-1] - y[0]) * np.array([0.0, 0.3, 0.5, 0.8, 1.0])
        if np.abs(y - line).max() > 4e-15 * max(1.0, np.abs(y).max()):
            return False
    return True
