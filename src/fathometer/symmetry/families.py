"""The sets a group acts on: subsets, tuples, products, blocks, grids, cosets, weight spaces.

Each function takes permutations of a small set and returns what they do to a larger
one, as arrays of images. An `Origin` remembers the small group behind an action: its
order, how to draw a uniform element, and how an element acts on the large set. With it
the order of S_316 on ordered pairs is 316! without any search.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fathometer.symmetry.groups import PermutationGroup
from fathometer.symmetry.permutations import Permutation, compose, is_even

Lift = Callable[[Permutation], Permutation]
Draw = Callable[[np.random.Generator], Permutation]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The group an action comes from, as permutations of a set of its own.

    Attributes:
        generators: Its generators, in the order of the action's.
        order: Its order.
        draw: A uniform random element.
        lift: What an element does to the inputs.
        faithful: Whether ``lift`` is known to be injective.
    """

    generators: tuple[Permutation, ...]
    order: int
    draw: Draw
    lift: Lift
    faithful: bool

    def lifted(self, step: Lift, *, faithful: bool) -> "Origin":
        """The same group on a set built from this one."""
        before = self.lift
        return replace(self, lift=lambda g: step(before(g)), faithful=self.faithful and faithful)

    def same_group(self, other: "Origin") -> bool:
        """Whether both list the same generators, so that elements correspond."""
        return len(self.generators) == len(other.generators) and all(
            np.array_equal(a, b) for a, b in zip(self.generators, other.generators, strict=True)
        )


def origin_of(generators: Sequence[Permutation], size: int, order: int | None = None) -> Origin:
    """An origin for plain permutations: their group, with a base for uniform elements."""
    group = PermutationGroup(generators, size, order=order)
    return Origin(
        generators=tuple(generators),
        order=group.order,
        draw=group.random_element,
        lift=lambda g: g,
        faithful=True,
    )


def cyclic(n: int) -> tuple[list[Permutation], Origin]:
    """Rotations of n points on a circle."""
    generators = [(np.arange(n) + 1) % n] if n > 1 else []
    rotate = lambda rng: (np.arange(n) + rng.integers(n)) % n  # noqa: E731 - a formula with a name
    return generators, _own(generators, n, rotate)


def dihedral(n: int) -> tuple[list[Permutation], Origin]:
    """Rotations and reflections of n points on a circle."""
    generators = [(np.arange(n) + 1) % n, -np.arange(n) % n]

    def draw(rng: np.random.Generator) -> Permutation:
        return (int(rng.choice([1, -1])) * np.arange(n) + rng.integers(n)) % n

    return generators, _own(generators, 2 * n if n > 2 else n, draw)


def symmetric(n: int) -> tuple[list[Permutation], Origin]:
    """All permutations of n points."""
    swap = np.arange(n)
    swap[:2] = swap[:2][::-1]
    generators = [[], [], [swap]][n] if n < 3 else [(np.arange(n) + 1) % n, swap]
    return generators, _own(generators, math.factorial(n), lambda rng: rng.permutation(n))


def alternating(n: int) -> tuple[list[Permutation], Origin]:
    """All even permutations of n points."""
    if n < 3:
        return [], _own([], 1, lambda _: np.arange(n))
    three = np.arange(n)
    three[:3] = [1, 2, 0]
    first = 1 - n % 2
    long = np.concatenate([np.arange(first), first + (np.arange(n - first) + 1) % (n - first)])
    generators = [three] if n == 3 else [three, long]

    def draw(rng: np.random.Generator) -> Permutation:
        p = rng.permutation(n)
        if not is_even(p):
            p[[0, 1]] = p[[1, 0]]
        return p

    return generators, _own(generators, math.factorial(n) // 2, draw)


def _own(generators: Sequence[Permutation], order: int, draw: Draw) -> Origin:
    return Origin(generators=tuple(generators), order=order, draw=draw, lift=lambda g: g, faithful=True)


def on_subsets(n: int, k: int) -> Lift:
    """What a permutation of n points does to the k-subsets, in lexicographic order."""
    table = np.array(list(itertools.combinations(range(n), k)), dtype=np.int64).reshape(-1, k)
    codes = _code(table, n)

    def lift(g: Permutation) -> Permutation:
        return np.searchsorted(codes, _code(np.sort(g[table], axis=1), n))

    return lift


def on_tuples(n: int, k: int) -> Lift:
    """What a permutation of n points does to all ``n**k`` tuples, in lexicographic order."""

    def lift(g: Permutation) -> Permutation:
        image = g
        for _ in range(k - 1):
            image = (image[:, None] * n + g[None, :]).reshape(-1)
        return image

    return lift


def on_products(a: Permutation, b: Permutation) -> Permutation:
    """The pair (a, b) on all pairs of points; pair (i, j) has number ``i * len(b) + j``."""
    return (a[:, None] * len(b) + b[None, :]).reshape(-1)


def in_block(g: Permutation, block: int, blocks: int) -> Permutation:
    """``g`` inside one block, the others at rest."""
    image = np.arange(len(g) * blocks)
    image[block * len(g) : (block + 1) * len(g)] = block * len(g) + g
    return image


def of_blocks(g: Permutation, size: int) -> Permutation:
    """``g`` moving whole blocks of ``size`` points."""
    return (g[:, None] * size + np.arange(size)[None, :]).reshape(-1)


def grid_moves(height: int, width: int, translations: bool, quarter: int, flips: bool) -> list[Permutation]:
    """Generators of the moves of a grid; pixel (row, column) has number ``row * width + column``."""
    pixels = np.arange(height * width).reshape(height, width)
    arrived = []  # arrived[r, c] is the pixel that arrives at (r, c)
    if translations:
        arrived += [np.roll(pixels, 1, axis) for axis, length in ((0, height), (1, width)) if length > 1]
    if quarter:
        arrived.append(np.rot90(pixels, quarter))
    if flips:
        arrived.append(pixels[:, ::-1])
        if not quarter:
            arrived.append(pixels[::-1])
    moves = []
    for picture in arrived:
        image = np.empty(height * width, dtype=np.int64)
        image[picture.reshape(-1)] = np.arange(height * width)
        moves.append(image)
    return moves


def on_cosets(elements: np.ndarray, subgroup: np.ndarray) -> Lift:
    """Left multiplication on the left cosets ``x H``, H itself being number 0."""
    names: dict[bytes, int] = {}
    representatives = []
    for x in elements:
        if x.tobytes() not in names:
            for y in x[subgroup]:
                names[y.tobytes()] = len(representatives)
            representatives.append(x)

    def lift(g: Permutation) -> Permutation:
        return np.array([names[compose(g, x).tobytes()] for x in representatives], dtype=np.int64)

    return lift


def on_weight_space(widths: Sequence[int]) -> Lift:
    """What a permutation of all hidden units does to the weights and biases of a network.

    The parameters are numbered layer by layer, each weight matrix (outputs, inputs)
    row-major and then its bias. Hidden units are numbered through.
    """
    hidden = list(widths[1:-1])
    starts = np.concatenate([[0], np.cumsum(hidden)]).astype(np.int64)

    def lift(g: Permutation) -> Permutation:
        units = [np.arange(widths[0])]
        units += [g[a:b] - a for a, b in itertools.pairwise(starts)]
        units.append(np.arange(widths[-1]))
        parts, start = [], 0
        for before, after in itertools.pairwise(units):
            parts.append(start + on_products(after, before))
            start += len(after) * len(before)
            parts.append(start + after)
            start += len(after)
        return np.concatenate(parts)

    return lift


def hidden_swaps(widths: Sequence[int]) -> tuple[list[Permutation], Origin]:
    """All permutations of the hidden units within their layers."""
    hidden = list(widths[1:-1])
    total = sum(hidden)
    generators, start = [], 0
    for width in hidden:
        for g in symmetric(width)[0]:
            image = np.arange(total)
            image[start : start + width] = start + g
            generators.append(image)
        start += width

    def draw(rng: np.random.Generator) -> Permutation:
        starts = np.cumsum([0, *hidden[:-1]])
        return np.concatenate([a + rng.permutation(w) for a, w in zip(starts, hidden, strict=True)])

    order = math.prod(math.factorial(w) for w in hidden)
    return generators, _own(generators, order, draw)


def _code(table: np.ndarray, n: int) -> np.ndarray:
    """Rows of points as one number each, in lexicographic order."""
    code = np.zeros(len(table), dtype=np.int64)
    for column in table.T:
        code = code * n + column
    return code
