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

from collections.abc import Callable
from typing import Any

import numpy as np

from fathometer.approximation.blocks import ROUND, Block, Plan, part_of
from fathometer.approximation.certificates import Certificate, sample_points
from fathometer.approximation.chains import squared
from fathometer.approximation.composing import inlined
from fathometer.approximation.network import Affine, Builder, SkipNetwork
from fathometer.approximation.smoothness import chebyshev_coefficients
from fathometer.approximation.target import Target
from fathometer.errors import InputError

_CHAIN = 2.5  # squarers that a fitted chain is worth when errors are shared out


def composed(target: Target, error: float, seed: int) -> tuple[SkipNetwork, Certificate]:
    """A network for a formula of several variables with its structural certificate.

    Raises:
        InputError: If an operation has no block, or a slope inside has no bound.
    """
    if target.formula is None:
        raise InputError(
            "f is a callable of several variables; pass a formula, which can be built block by block."
        )
    root, order = Plan(target).blocks()
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
    found = approximate(part_of(function, low, high), (low, high), share, seed=seed)
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
        block.error *= 1 + ROUND
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
    part = part_of(function, b.low - b.error, b.high + b.error)  # type: ignore[arg-type]
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
