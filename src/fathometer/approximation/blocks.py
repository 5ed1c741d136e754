"""The blocks of a formula of several variables, with ranges and slopes.

Every value that the network will hold is a block: an affine sum, a kink, a product, a folded wave
or a function of one value. What depends on one variable is kept together, equal subformulas are one
block, and ranges and largest slopes are enclosed by interval and ball arithmetic.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import reduce
from typing import Any

import numpy as np

from fathometer.approximation.expression import SMOOTH, Node, affine_parts, bind, flint, number, symbol
from fathometer.approximation.network import SkipNetwork
from fathometer.approximation.smoothness import chebyshev_coefficients
from fathometer.approximation.target import Target, substituted
from fathometer.errors import InputError

ROUND = 1e-12
_PERIODS = 1.5  # from so many on, waves are folded


@dataclass(eq=False)
class Block:
    """One value inside the network.

    Attributes:
        kind: "input", "sum", "relu", "fold", "product", "quadratic", "chain".
        inner: The blocks that it reads.
        low, high: Range of the exact value.
        weights: Of a sum: one a block, then the constant. Of a fold: slope, constant, number of tents.
        function: Of a chain or quadratic: the formula in ``t``.
        slope: Largest slope by each inner block.
        harm: How much an error here moves the final output, at most.
        scale: Error of one squarer without units.
        levels: Of its squarers.
        own: Error that it adds itself.
        error: Bound on the distance from the exact value, inner errors included.
    """

    kind: str
    inner: tuple["Block", ...] = ()
    low: float = 0.0
    high: float = 0.0
    weights: tuple[float, ...] = ()
    function: Node | None = None
    slope: tuple[float, ...] = ()
    harm: float = 0.0
    scale: float = 0.0
    levels: list[int] = field(default_factory=list)
    own: float = 0.0
    error: float = 0.0
    network: SkipNetwork | None = None

    @property
    def size(self) -> float:
        """Largest absolute value."""
        return max(abs(self.low), abs(self.high))


class Plan:
    """Blocks of a formula, each built once."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.known: dict[str, Block] = {}
        self.order: list[Block] = []
        self.keys: dict[int, str] = {}
        self.affine: dict[int, Any] = {}

    def blocks(self) -> tuple[Block, list[Block]]:
        """The block of the whole formula, and all in the order of use."""
        tree: Any = self.target.formula
        root = self.block(tree)
        return root, self.order

    def block(self, node: Node) -> Block:
        """The block of a subformula."""
        key = self._key(node)
        if key not in self.known:
            self.known[key] = self._made(node)
        return self.known[key]

    def _key(self, node: Node) -> str:
        for item in node.order:
            if id(item) not in self.keys:
                inner = ",".join(self.keys[id(a)] for a in item.args)
                self.keys[id(item)] = f"{item.op}[{item.value}]({inner})"
        return self.keys[id(node)]

    def _add(self, block: Block) -> Block:
        self.order.append(block)
        return block

    def _made(self, node: Node) -> Block:
        line = affine_parts(node)
        if line is not None:
            return self._line(*line)
        names = node.symbols()
        if node.op == "call" and node.value in ("sin", "cos"):
            return self._wave(node.value, self.block(node.args[0]))
        if len(names) == 1 and not node.with_kinks() and not self._waves(node):
            return self._univariate(_renamed(node, names[0]), self.block(symbol(names[0])))
        return self._operation(node)

    def _operation(self, node: Node) -> Block:
        op, args = node.op, node.args
        if op in ("add", "neg"):
            return self._sum_of(_summands(node))
        if op == "mul":
            return self._product_of(_factors(node))
        if op == "div":
            return self._quotient(*args)
        if op == "pow" and not args[1].symbols():
            return self._univariate(Node("pow", (symbol("t"), args[1])), self.block(args[0]))
        if op == "call" and node.value in ("relu", "abs", "max", "min"):
            return self._kinked(node)
        if op in ("polynomial", "chebyshev") or node.value in SMOOTH:
            return self._univariate(Node(op, (symbol("t"),), node.value), self.block(args[0]))
        raise InputError(
            f"f has {node.value or op!r} of several variables, for which there is no block; sums, products, "
            "quotients, powers, abs, max, min and functions of one value can be built."
        )

    def _quotient(self, over: Node, under: Node) -> Block:
        if not under.symbols():
            return self._sum_of([(1 / _constant(under), over)])
        return self.block(Node("mul", (over, Node("pow", (under, number(-1))))))

    def _kinked(self, node: Node) -> Block:
        """By one ReLU: ``|a| = 2 relu(a) - a``, ``max(a, b) = relu(a - b) + b``."""
        args = node.args
        if node.value == "relu":
            return self._relu(self.block(args[0]))
        if node.value == "abs":
            return self._sum_of([(2.0, Node("call", args, "relu")), (-1.0, args[0])])
        sign = 1.0 if node.value == "max" else -1.0
        gap = Node("add", (args[0], Node("neg", (args[1],))))
        gap = gap if sign > 0 else Node("neg", (gap,))
        return self._sum_of([(sign, Node("call", (gap,), "relu")), (1.0, args[1])])

    def _line(self, slopes: dict[str, Fraction], constant: Fraction) -> Block:
        inputs = [self._input(name) for name in slopes]
        weights = [float(c) for c in slopes.values()]
        if len(inputs) == 1 and weights == [1.0] and constant == 0:
            return inputs[0]
        return self._sum(inputs, weights, float(constant))

    def _input(self, name: str) -> Block:
        key = f"symbol[{name}]()"
        if key not in self.known:
            k = self.target.variables.index(name)
            low, high = self.target.domain[k]
            self.known[key] = self._add(Block("input", low=low, high=high, weights=(float(k),)))
        return self.known[key]

    def _sum(self, blocks: Sequence[Block], weights: Sequence[float], constant: float) -> Block:
        ends = [sorted((w * b.low, w * b.high)) for w, b in zip(weights, blocks, strict=True)]
        low, high = (constant + sum(e[side] for e in ends) for side in (0, 1))
        low -= ROUND * (abs(constant) + sum(abs(e[0]) for e in ends))
        high += ROUND * (abs(constant) + sum(abs(e[1]) for e in ends))
        return self._add(
            Block(
                "sum", tuple(blocks), low, high,
                weights=(*weights, constant), slope=tuple(abs(w) for w in weights),
            )
        )  # fmt: skip

    def _sum_of(self, terms: list[tuple[float, Node]]) -> Block:
        """A sum; what depends on one variable only is joined first."""
        groups: dict[tuple[str, ...], list[tuple[float, Node]]] = {}
        for weight, term in terms:
            names = term.symbols()
            whole = len(names) == 1 and not term.with_kinks() and not _has_waves(term)
            key = names if whole else (*names, str(len(groups)))
            groups.setdefault(key if names else (), []).append((weight, term))
        constant = sum(w * _constant(t) for w, t in groups.pop((), []))
        blocks, weights = [], []
        for members in groups.values():
            if len(members) == 1:
                weight, node = members[0]
            else:
                scaled = [Node("mul", (number(w), t)) for w, t in members]
                weight, node = 1.0, reduce(lambda a, b: Node("add", (a, b)), scaled)
            blocks.append(self.block(node))
            weights.append(weight)
        return self._sum(blocks, weights, constant)

    def _product_of(self, factors: list[Node]) -> Block:
        """A balanced tree of products; factors of one variable are joined, constants taken out."""
        groups: dict[tuple[str, ...], list[Node]] = {}
        constant = 1.0
        for factor in factors:
            names = factor.symbols()
            if not names:
                constant *= _constant(factor)
            else:
                key = names if len(names) == 1 and not factor.with_kinks() else (self._key(factor),)
                groups.setdefault(key, []).append(factor)
        nodes = []
        for members in groups.values():
            same = len({self._key(m) for m in members}) == 1 and len(members) > 1
            power = Node("pow", (members[0], number(len(members)))) if same else None
            nodes.append(power or reduce(lambda a, b: Node("mul", (a, b)), members))
        blocks = [self.block(node) for node in nodes]
        while len(blocks) > 1:
            pairs = [
                self._product(a, b)
                for a, b in zip(blocks[: len(blocks) // 2], blocks[(len(blocks) + 1) // 2 :], strict=True)
            ]
            blocks = pairs + ([blocks[len(blocks) // 2]] if len(blocks) % 2 else [])
        return blocks[0] if constant == 1.0 else self._sum(blocks, [constant], 0.0)

    def _product(self, a: Block, b: Block) -> Block:
        ends = [x * y for x in (a.low, a.high) for y in (b.low, b.high)]
        low, high = min(ends), max(ends)
        low, high = low - ROUND * abs(low), high + ROUND * abs(high)
        block = Block("product", (a, b), low, high, slope=(b.size, a.size))
        block.scale, block.levels = (a.high - a.low) * (b.high - b.low) / 8, [1, 1]
        return self._add(block)

    def _relu(self, inner: Block) -> Block:
        return self._add(Block("relu", (inner,), max(inner.low, 0.0), max(inner.high, 0.0), slope=(1.0,)))

    def _waves(self, node: Node) -> bool:
        return _has_waves(node) and any(w > _PERIODS * 2 * math.pi for w in swings(node, self.target))

    def _wave(self, name: str, inner: Block) -> Block:
        """Sine or cosine of one value; many periods are folded into half of one, at one ReLU a halving.

        ``cos(pi 2^k u) = cos(pi T_k(u))`` for the tent map T_k: the number of units grows with
        the logarithm of the frequency (Perekrestenko et al. 2018).
        """
        if inner.high - inner.low <= _PERIODS * 2 * math.pi:
            return self._univariate(Node("call", (symbol("t"),), name), inner)
        shift = math.pi / 2 if name == "sin" else 0.0
        start = 2 * math.pi * math.floor((inner.low - shift) / (2 * math.pi)) + shift
        tents = math.ceil(math.log2((inner.high - start) / math.pi) + 1e-9)
        scale = math.ldexp(1 / math.pi, -tents)
        fold = Block("fold", (inner,), 0.0, 1.0, slope=(scale * 2.0**tents,))
        fold.weights = (scale, -start * scale, float(tents))
        fold.own = 2.0**-50 * max(abs(inner.low), abs(inner.high), 1.0)  # of the rounded scale
        self._add(fold)
        wave = Node("call", (Node("mul", (Node("constant", value="pi"), symbol("t"))),), "cos")
        return self._univariate(wave, fold)

    def _univariate(self, function: Node, inner: Block) -> Block:
        """A function of one value; its range and its largest slope are enclosed by balls."""
        part = part_of(function, inner.low, inner.high)
        low, high, slope = _range_and_slope(part)
        block = Block("chain", (inner,), low, high, function=function, slope=(slope,))
        try:
            c = chebyshev_coefficients(part)
        except InputError:
            c = np.zeros(9)
        if len(c) <= 3 and not function.with_kinks():
            block.kind, block.levels = "quadratic", [0]
            block.scale = abs(float(c[2])) if len(c) == 3 else 0.0  # lead = 8 c_2 on length one, times 1/8
        return self._add(block)


def part_of(function: Node, low: float, high: float) -> Target:
    """A formula in ``t`` on an interval, which may be a single point."""
    if not low < high:
        high = math.nextafter(low, math.inf) if low == high else high
    return Target(domain=((low, high),), function=bind(function, ["t"]), formula=function, variables=("t",))


def _range_and_slope(part: Target) -> tuple[float, float, float]:
    """Proved range and largest absolute slope of a formula of one variable, over 64 balls."""
    arb = flint().arb
    edges = np.linspace(*part.interval, 65)
    low, high, steep = math.inf, -math.inf, 0.0
    for a, b in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        ball = arb(a).union(arb(b))
        value = part.series(ball, 0)
        low, high = min(low, float(value.lower())), max(high, float(value.upper()))
        slope = part.series(ball, 2)[1]
        steep = max(steep, float(abs(slope).upper())) if slope.is_finite() else math.inf
        if not (math.isfinite(low + high) and math.isfinite(steep)):
            raise InputError(
                f"f has an inner function whose value or slope has no bound near {a:.6g}; "
                "errors of what it reads could not be followed. Keep singular points out of the domain."
            )
    return low, high, steep


def _has_waves(node: Node) -> bool:
    return any(n.op == "call" and n.value in ("sin", "cos") for n in node.order)


def swings(node: Node, target: Target) -> list[float]:
    """By how much the argument of each sine and cosine of one variable moves over the domain."""
    found = []
    for wave in node.order:
        if wave.op == "call" and wave.value in ("sin", "cos") and len(names := wave.symbols()) == 1:
            ends = np.linspace(*target.domain[target.variables.index(names[0])], 257)
            found.append(float(np.ptp(bind(wave.args[0], names)(ends[:, None]))))
    return found


def _constant(node: Node) -> float:
    return float(bind(node, [])(np.zeros((1, 0)))[0])


def _renamed(node: Node, name: str) -> Node:
    return substituted(node, name, symbol("t"))


def _summands(node: Node) -> list[tuple[float, Node]]:
    """The terms of nested sums and constant multiples, with their weights."""
    stack, terms = [(1.0, node)], []
    while stack:
        weight, item = stack.pop()
        if item.op == "add":
            stack += [(weight, arg) for arg in reversed(item.args)]
        elif item.op == "neg":
            stack.append((-weight, item.args[0]))
        elif item.op == "mul" and not item.args[0].symbols():
            stack.append((weight * _constant(item.args[0]), item.args[1]))
        elif item.op == "mul" and not item.args[1].symbols():
            stack.append((weight * _constant(item.args[1]), item.args[0]))
        elif item.op == "div" and not item.args[1].symbols():
            stack.append((weight / _constant(item.args[1]), item.args[0]))
        else:
            terms.append((weight, item))
    return terms


def _factors(node: Node) -> list[Node]:
    if node.op == "mul":
        return [factor for arg in node.args for factor in _factors(arg)]
    return [*_factors(node.args[0]), number(-1)] if node.op == "neg" else [node]
