"""Functions of several variables, block by block along their formula.

A sum is an affine function and costs nothing. ``relu``, ``abs``, ``max`` and ``min`` are exact. A product
is two squares, ``x y = ((x + y)/2)^2 - ((x - y)/2)^2`` for ranges scaled to one, within a few units
of what any network needs. Everything that depends on one variable, or on one inner value, is a function of
one variable: the optimum for quadratics, else whatever `approximate` finds. So products,
polynomials, ridge, radial and separable functions and compositions are all the same case.

The certificate is structural: each block has a proved error, and errors are added up with the
largest slopes on the ranges that occur, whatever the size. Where the errors go is chosen:
a squarer's falls by four with every unit, so levels are given out one at a time to the block that harms most.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import reduce
from typing import Any

import numpy as np

from fathometer.approximation.certificates import Certificate, sample_points
from fathometer.approximation.chains import squared
from fathometer.approximation.composing import inlined
from fathometer.approximation.expression import SMOOTH, Node, affine_parts, bind, flint, number, symbol
from fathometer.approximation.network import Affine, Builder, SkipNetwork
from fathometer.approximation.smoothness import chebyshev_coefficients
from fathometer.approximation.target import Target
from fathometer.errors import InputError

_PERIODS = 1.5  # from so many on, waves are folded
_CHAIN = 2.5  # squarers that a fitted chain is worth when errors are shared out
_ROUND = 1e-12


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


def composed(target: Target, error: float, seed: int) -> tuple[SkipNetwork, Certificate]:
    """A network for a formula of several variables with its structural certificate.

    Raises:
        InputError: If an operation has no block, or a slope inside has no bound.
    """
    if target.formula is None:
        raise InputError(
            "f is a callable of several variables; pass a formula, which can be built block by block."
        )
    root, order = _Plan(target).blocks()
    _add_harm(root, order)
    chains = [block for block in order if block.kind == "chain" and block.harm > 0]
    squarers = [block for block in order if block.levels]
    total = sum(len(block.levels) for block in squarers) + _CHAIN * len(chains)
    goal = error * (1 - 1e-6) - 20 * _rounding(order)
    if goal < error / 2:
        raise InputError(f"error is {error:.3g}; float64 rounds by {20 * _rounding(order):.2g} inside f.")
    for block in order:
        if block.kind == "chain":
            _fit(block, goal * _CHAIN / total / max(block.harm, 1e-300), goal, seed)
    rest = goal - sum(block.own * block.harm for block in chains)
    for _ in range(8):
        _share_out(squarers, rest)
        if _add_errors(order) <= goal:
            break
        rest *= 0.97 * goal / root.error
    else:
        raise InputError(
            f"error {error:.3g}: the slopes inside f make the errors of its parts add to {root.error:.3g}; "
            "ask for a larger error or a smaller domain."
        )
    network = _assembled(target, order)
    return network, _certificate(target, network, root, order)


class _Plan:
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
            if not args[1].symbols():
                return self._sum_of([(1 / _constant(args[1]), args[0])])
            return self.block(Node("mul", (args[0], Node("pow", (args[1], number(-1))))))
        if op == "pow" and not args[1].symbols():
            return self._univariate(Node("pow", (symbol("t"), args[1])), self.block(args[0]))
        if op == "call" and node.value == "relu":
            return self._relu(self.block(args[0]))
        if op == "call" and node.value == "abs":
            return self._sum_of([(2.0, Node("call", args, "relu")), (-1.0, args[0])])
        if op == "call" and node.value in ("max", "min"):
            sign = 1.0 if node.value == "max" else -1.0
            gap = Node("add", (args[0], Node("neg", (args[1],))))
            gap = gap if sign > 0 else Node("neg", (gap,))
            return self._sum_of([(sign, Node("call", (gap,), "relu")), (1.0, args[1])])
        if op in ("polynomial", "chebyshev") or node.value in SMOOTH:
            return self._univariate(Node(op, (symbol("t"),), node.value), self.block(args[0]))
        raise InputError(
            f"f has {node.value or op!r} of several variables, for which there is no block; sums, products, "
            "quotients, powers, abs, max, min and functions of one value can be built."
        )

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
        low -= _ROUND * (abs(constant) + sum(abs(e[0]) for e in ends))
        high += _ROUND * (abs(constant) + sum(abs(e[1]) for e in ends))
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
        low, high = low - _ROUND * abs(low), high + _ROUND * abs(high)
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
        part = _part(function, inner.low, inner.high)
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


def _add_harm(root: Block, order: list[Block]) -> None:
    root.harm = 1.0
    for block in reversed(order):
        for inner, slope in zip(block.inner, block.slope, strict=True):
            inner.harm += block.harm * slope


def _fit(block: Block, share: float, goal: float, seed: int) -> None:
    """A certified network of one variable, on a range wide enough for the errors that come in."""
    from fathometer.approximation.approximate import approximate

    function: Any = block.function
    low, high = _widened(block.inner[0], goal)
    found = approximate(_part(function, low, high), (low, high), share, seed=seed)
    block.network, block.own = found.network, found.certificate.upper


def _widened(inner: Block, goal: float) -> tuple[float, float]:
    """The range of a value with any error that the goal allows it."""
    if inner.kind == "input":
        return inner.low, inner.high
    margin = min(goal / max(inner.harm, 1e-300), 0.05 * (inner.high - inner.low))
    return inner.low - margin, inner.high + margin


def _share_out(squarers: list[Block], budget: float) -> None:
    """Levels one at a time to the worst squarer, until all errors add up to the budget."""
    for block in squarers:
        block.levels = [1, 1] if block.kind == "product" else [0]
    harms = {(i, j): b.harm * b.scale for i, b in enumerate(squarers) for j in range(len(b.levels))}
    left = {key: harm * 0.25 ** squarers[key[0]].levels[key[1]] for key, harm in harms.items()}
    while left and sum(left.values()) > budget:
        worst = max(left, key=left.__getitem__)
        squarers[worst[0]].levels[worst[1]] += 1
        left[worst] /= 4
        if squarers[worst[0]].levels[worst[1]] > 40:
            raise InputError("error is too small for float64 with the slopes inside f; ask for a larger one.")


def _add_errors(order: list[Block]) -> float:
    """Bounds of all blocks, bottom up; those of the squarers on the ranges that occur."""
    for block in order:
        inner = [b.error for b in block.inner]
        if block.kind == "product":
            a, b = block.inner
            area = (a.high - a.low + 2 * a.error) * (b.high - b.low + 2 * b.error)
            block.own = area / 8 * sum(0.25**m for m in block.levels)
            block.error = block.own + a.size * b.error + (b.size + b.error) * a.error
        elif block.kind == "quadratic":
            width = block.inner[0].high - block.inner[0].low or 1.0
            stretch = (1 + 2 * inner[0] / width) ** 2
            block.own = block.scale * stretch * 0.25 ** block.levels[0]
            # the slope of a quadratic outside the range grows by its second derivative
            block.error = block.own + (block.slope[0] + 16 * block.scale * 8 / width**2 * inner[0]) * inner[0]
        else:
            block.error = block.own + sum(s * e for s, e in zip(block.slope, inner, strict=True))
        block.error *= 1 + _ROUND
    return order[-1].error


def _assembled(target: Target, order: list[Block]) -> SkipNetwork:
    build = Builder(target.dimension)
    values: dict[int, Affine] = {}
    for block in order:
        inner = [values[id(b)] for b in block.inner]
        values[id(block)] = _BUILDERS[block.kind](build, block, inner)
    return build.network(values[id(order[-1])])


def _build_sum(build: Builder, block: Block, inner: list[Affine]) -> Affine:
    *weights, constant = block.weights
    return sum((w * v for w, v in zip(weights, inner, strict=True)), Affine({}, constant))


def _build_product(build: Builder, block: Block, inner: list[Affine]) -> Affine:
    """Product u v = ((u + v)/2)^2 - ((u - v)/2)^2 for u, v in [0, 1], and q^2 = (q + 1/2)^2 - q - 1/4."""
    scaled, ends = [], []
    for value, b in zip(inner, block.inner, strict=True):
        low, width = b.low - b.error, b.high - b.low + 2 * b.error
        scaled.append((value - low) * (1 / width))
        ends.append((low, width))
    (a, p), (c, q) = ends
    u, v = scaled
    first, second = block.levels
    plus = squared(build, (u + v) * 0.5, first) - 2.0 ** (-2 * first - 3)
    minus = squared(build, (u - v) * 0.5 + 0.5, second) - 2.0 ** (-2 * second - 3)
    return p * q * (plus - minus + (u - v) * 0.5 + 0.25) + c * inner[0] + a * inner[1] - a * c


def _build_quadratic(build: Builder, block: Block, inner: list[Affine]) -> Affine:
    from fathometer.approximation.approximate import quadratic

    b, function = block.inner[0], block.function
    part = _part(function, b.low - b.error, b.high + b.error)  # type: ignore[arg-type]
    coefficients = chebyshev_coefficients(part)[:3] if block.levels[0] else np.zeros(1)
    if not block.levels[0]:
        coefficients = chebyshev_coefficients(part)[:3]
    return inlined(build, quadratic(part, coefficients, 1.0, block.levels[0]), *inner)


def _build_fold(build: Builder, block: Block, inner: list[Affine]) -> Affine:
    scale, constant, tents = block.weights
    value = inner[0] * scale + constant
    for _ in range(int(tents)):
        value = 2.0 * value - 4.0 * build.relu(value - 0.5)
    return value


def _build_chain(build: Builder, block: Block, inner: list[Affine]) -> Affine:
    network: Any = block.network
    return inlined(build, network, *inner)


_BUILDERS: dict[str, Callable[[Builder, Block, list[Affine]], Affine]] = {
    "input": lambda build, block, inner: build.variable(int(block.weights[0])),
    "sum": _build_sum,
    "relu": lambda build, block, inner: build.relu(inner[0]),
    "fold": _build_fold,
    "product": _build_product,
    "quadratic": _build_quadratic,
    "chain": _build_chain,
}


def _certificate(target: Target, network: SkipNetwork, root: Block, order: list[Block]) -> Certificate:
    levels = max((m for b in order for m in b.levels), default=0)
    rounding = max(4, levels) * _rounding(order)
    points = sample_points(target, 4096)
    gaps = np.abs(network(points) - target.values(points))
    worst = int(gaps.argmax())
    kinds = [b.kind for b in order]
    parts = ", ".join(
        f"{kinds.count(k)} {k}{'s' * (kinds.count(k) > 1)}"
        for k in ("product", "quadratic", "chain")
        if k in kinds
    )
    return Certificate(
        lower=max(0.0, float(gaps[worst]) - rounding),
        upper=root.error + rounding,
        level="structural",
        pieces=0,
        worst_at=tuple(np.atleast_1d(points[worst]).tolist()),
        domain=target.domain,
        method=f"errors of the blocks added up: {parts or 'affine'}",
    )


def _rounding(order: list[Block]) -> float:
    """Effect on the output of rounded weights, for each level: they add at most 16 u of a block's size."""
    return 16 * 2.0**-53 * sum(b.size * b.harm for b in order if b.kind != "input")


def _part(function: Node, low: float, high: float) -> Target:
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
    from fathometer.approximation.target import substituted

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
