"""Is a tied layer equivariant to its group and to nothing else?

The symmetries of a layer are the pairs (a, b) of permutations with
``label[b m, a n] == label[m, n]``; for distinct weights and any activation that tells
linear forms apart (ReLU does, abs and even ones do up to sign) they are the symmetries of
the function. Three ways to know them, tried in this order:

1. Dense design, semi-regular on one side and faithful on the other: exactly the group (Ravanbakhsh, Schneider
   & Poczos 2017, uniqueness of the dense design).
2. Semi-regular on both sides, any choice of orbits: voltage graphs. With H the group
   of the voltages along closed walks, the order is |H|^[G:H] [G:H]!; it is the group
   when H = G. That the chosen elements generate G is not enough: Z_4 with {1} has 24.
3. Search by refinement on the label matrix.

Where the answer is no, a repair is proposed and proved: a hidden set on which the group
acts regularly, or pairs or triples of the inputs.
"""

import math
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from fathometer.errors import BudgetError, CapabilityError, TheoryWarning
from fathometer.results import Result
from fathometer.symmetry.action import Action, Element
from fathometer.symmetry.groups import PermutationGroup, list_elements
from fathometer.symmetry.permutations import compose, invert, is_identity, orbit_labels
from fathometer.symmetry.refinement import bipartite, symmetries
from fathometer.symmetry.tying import Tying, dense_tying
from fathometer.types import Kind
from fathometer.work import allowance

if TYPE_CHECKING:
    from fathometer.drawing.picture import Picture

REGULAR_LIMIT = 4096
"""Largest group whose regular action is proposed as a repair."""

TUPLE_LIMIT = 400
"""Largest number of tuples that is searched for a repair."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Automorphisms(Result):
    """The symmetries of a tied layer.

    Attributes:
        order: Number of symmetries, exact.
        generators: Pairs (permutation of inputs, permutation of outputs) that generate them.
            For a signed tying, permutations of the doubled points: 2 i + 1 is minus point 2 i.
        unique: Whether they are just the group the tying was made for; None if it was
            made from labels, without a group.
        reason: The theorem or the search that decided it.
        group_order: Order of the group, None without one.
        repair: An action to a hidden set whose dense layer has no further symmetry, or None.
        nodes: Search nodes visited; 0 for a theorem.
        kind, error: Exact: groups are counted in whole numbers.
    """

    headline = "order"

    order: int
    generators: tuple[Element, ...]
    unique: bool | None
    reason: str
    group_order: int | None
    repair: Action | None = field(metadata={"saved": False}, default=None)
    nodes: int = 0
    kind: Kind = "exact"
    error: float = 0.0

    @property
    def value(self) -> int:
        """Number of symmetries."""
        return self.order

    def __str__(self) -> str:
        if self.unique is None:
            return f"{self.order} symmetries ({self.reason})"
        if self.unique:
            return f"equivariant to the group of order {self.group_order} and to nothing else ({self.reason})"
        return f"{self.order} symmetries for a group of order {self.group_order} ({self.reason})"

    def picture(self) -> "Picture":
        """The orbits of both sides under all symmetries."""
        from fathometer.symmetry.pictures import automorphisms_picture

        return automorphisms_picture(self)


def automorphisms_of(tying: Tying, *, repair: bool = True) -> Automorphisms:
    """What `Tying.automorphisms` returns; without ``repair`` neither a proposal nor a warning."""
    action = tying.action
    if action is None or action.signs is not None:
        return _searched(tying, action)
    if tying.design == "dense":
        side = _theorem_side(action)
        if side:
            other = "outputs" if side == "inputs" else "inputs"
            reason = f"theorem: semi-regular on the {side} and faithful on the {other}"
            return _unique(action, reason)
    elif all(action.is_semiregular):
        voltages = closed_walks(tying, action)
        if voltages is not None and voltages.order == action.order:
            return _unique(action, "theorem: the voltages of closed walks generate the group")
    found = _searched(tying, action)
    if found.unique or not repair:
        return found
    _warn_of_collapse(tying, action)
    return _with_repair(found, action)


def closed_walks(tying: Tying, action: Action) -> PermutationGroup | None:
    """The group of the voltages along closed walks; None if the base graph is not connected.

    The base graph has a node for every orbit of inputs and outputs and an edge for every
    weight. The edge of the pairs (g p, g a q), for representatives p and q, has voltage a.
    """
    base = _BaseGraph(tying, action)
    return base.voltage_group()


class _BaseGraph:
    def __init__(self, tying: Tying, action: Action) -> None:
        self.n = action.sizes.inputs
        self.group = action.joint_group
        self.inputs = [o[0] for o in action.orbits[0]]
        self.outputs = [o[0] for o in action.orbits[1]]
        where = orbit_labels(action.outputs, action.sizes.outputs)
        carriers: dict[int, np.ndarray] = {}
        self.edges = []
        for i, p in enumerate(self.inputs):
            column = tying.labels[:, p]
            for m in np.unique(column, return_index=True)[1]:
                if column[m] >= 0:
                    if int(m) not in carriers:
                        carriers[int(m)] = self._carrier(int(m), self.outputs[int(where[m])])
                    self.edges.append((i, int(where[m]), carriers[int(m)]))

    def _carrier(self, m: int, representative: int) -> np.ndarray:
        """The element that carries the representative of an output orbit to output m."""
        start, goal = self.n + representative, self.n + m
        path: dict[int, tuple[int, int]] = {start: (-1, -1)}
        frontier = [start]
        while goal not in path:
            following = []
            for point in frontier:
                for g, p in enumerate(self.group.generators):
                    image = int(p[point])
                    if image not in path:
                        path[image] = (point, g)
                        following.append(image)
            frontier = following
        element = np.arange(self.group.degree)
        while goal != start:
            goal, g = path[goal]
            element = compose(element, self.group.generators[g])
        return element

    def voltage_group(self) -> PermutationGroup | None:
        identity = np.arange(self.group.degree)
        gauge: dict[tuple[str, int], np.ndarray] = {("n", 0): identity}
        grown = True
        while grown:
            grown = False
            for i, j, a in self.edges:
                left, right = ("n", i), ("m", j)
                if left in gauge and right not in gauge:
                    gauge[right] = compose(gauge[left], a)
                    grown = True
                elif right in gauge and left not in gauge:
                    gauge[left] = compose(gauge[right], invert(a))
                    grown = True
        if len(gauge) < len(self.inputs) + len(self.outputs):
            return None
        voltages = [compose(compose(gauge["n", i], a), invert(gauge["m", j])) for i, j, a in self.edges]
        return PermutationGroup([v for v in voltages if not is_identity(v)], self.group.degree)


def _theorem_side(action: Action) -> str | None:
    """The side on which the action is semi-regular while it is faithful on the other."""
    free = action.is_semiregular
    if free.inputs and action.is_faithful.outputs:
        return "inputs"
    if free.outputs and action.is_faithful.inputs:
        return "outputs"
    return None


def _unique(action: Action, reason: str) -> Automorphisms:
    return Automorphisms(
        order=action.order,
        generators=tuple(action.generators),
        unique=True,
        reason=reason,
        group_order=action.order,
    )


def _searched(tying: Tying, action: Action | None) -> Automorphisms:
    labels = tying.labels if tying.signs is None else _doubled(tying)
    m, n = labels.shape
    needed = 4 * (n + m) ** 2 * 2
    if needed > allowance():
        raise BudgetError(
            f"the search for symmetries of {n} inputs and {m} outputs needs {needed / 1e9:.1f} GB, "
            f"{allowance() / 1e9:.1f} GB are allowed; ask for the order on a smaller copy of the action."
        )
    colors, sides = bipartite([labels], [n, m])
    if tying.signs is not None:
        # a point and its negative are joined, so that symmetries commute with the sign
        for start, size in ((0, n), (n, m)):
            points = np.arange(start, start + size)
            colors[points, points ^ 1 if start % 2 == 0 else start + ((points - start) ^ 1)] = (
                colors.max() + 1
            )
    found = symmetries(colors, sides)
    pairs = tuple((p[:n], p[n:] - n) for p in found.generators)
    group_order = None if action is None else action.order
    # the group always lies inside, so equal orders mean equal groups
    return Automorphisms(
        order=found.order,
        generators=pairs,
        unique=None if action is None else found.order == group_order,
        reason=f"search: {found.nodes} nodes",
        group_order=group_order,
        nodes=found.nodes,
    )


def _doubled(tying: Tying) -> np.ndarray:
    """Labels of signed points: 2 i is plus i, 2 i + 1 minus i; a negated weight is another label."""
    labels, signs = tying.labels.astype(np.int64), tying.signs
    plus = np.where(labels < 0, -1, 2 * labels + (signs == -1))
    minus = np.where(labels < 0, -1, 2 * labels + (signs == 1))
    m, n = labels.shape
    doubled = np.empty((2 * m, 2 * n), dtype=np.int32)
    doubled[0::2, 0::2] = doubled[1::2, 1::2] = plus
    doubled[0::2, 1::2] = doubled[1::2, 0::2] = minus
    return doubled


def warn_if_collapsed(tying: Tying) -> None:
    """Warn where a 2-transitive action other than the symmetric group gives a set layer."""
    action = tying.action
    if (
        action is not None
        and _is_set_layer(tying, action)
        and action.order != math.factorial(action.sizes[0])
    ):
        _warn_of_collapse(tying, action)


def _warn_of_collapse(tying: Tying, action: Action) -> None:
    if _is_set_layer(tying, action):
        warnings.warn(
            f"{action.name} is 2-transitive: its dense design is that of all permutations, a set layer "
            "with two weights. A hidden set on which the group acts regularly keeps it apart "
            "(see automorphisms().repair).",
            TheoryWarning,
            stacklevel=4,
        )


def _is_set_layer(tying: Tying, action: Action) -> bool:
    n = action.sizes[0]
    unsigned = action.signs is None and tying.design == "dense"
    return unsigned and n > 2 and tying.num_orbits == 2 and action.acts_alike


def _with_repair(found: Automorphisms, action: Action) -> Automorphisms:
    repair, how = _repair(action)
    return Automorphisms(
        order=found.order,
        generators=found.generators,
        unique=False,
        reason=f"{found.reason}; {how}",
        group_order=found.group_order,
        repair=repair,
        nodes=found.nodes,
    )


def _repair(action: Action) -> tuple[Action | None, str]:
    """A first layer, from the inputs to a hidden set, that is unique; and why, or why there is none."""
    faithful = action.is_faithful
    if not faithful.inputs:
        return None, "the action is not faithful on the inputs, so no layer on them can be unique"
    closing = ""
    if not faithful.outputs:
        closing = (
            "; the group is not faithful on the outputs (an invariant head never is), so the last layer "
            "cannot be unique"
        )
    if action.order <= REGULAR_LIMIT:
        hidden = _regular_hidden(action)
        return hidden, f"repair: a hidden set on which the group acts regularly, by the theorem{closing}"
    for k in (2, 3):
        if action.sizes.inputs**k > TUPLE_LIMIT:
            break
        hidden = Action.tuples(Action(action.inputs), k)
        candidate = Action(action.inputs, hidden.inputs, name=f"{action.name} -> {k}-tuples")
        try:
            proof = automorphisms_of(dense_tying(candidate), repair=False)
        except CapabilityError:
            continue
        if proof.unique:
            return candidate, f"repair: hidden {k}-tuples of the inputs, by search{closing}"
    return None, f"no repair of at most {REGULAR_LIMIT} hidden indices was found{closing}"


def _regular_hidden(action: Action) -> Action:
    """From the inputs to the group itself, numbered as `list_elements` finds them."""
    elements = list_elements(action.inputs, action.sizes.inputs)
    number = {x.tobytes(): i for i, x in enumerate(elements)}
    outputs = [[number[compose(g, x).tobytes()] for x in elements] for g in action.inputs]
    return Action(action.inputs, outputs, name=f"{action.name} -> regular")
