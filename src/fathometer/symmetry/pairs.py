"""What a group of pairs of permutations is: order, kernels, orbits, and how it acts.

The facts of an `Action` that need its generators alone. Orders are exact integers, from
a theorem where the action knows where it comes from, else from a stabilizer chain.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np

from fathometer.errors import InputError
from fathometer.results import Row, Table
from fathometer.symmetry.families import Lift, Origin, origin_of
from fathometer.symmetry.generators import check_listed, checked_side, checked_signs, checked_size
from fathometer.symmetry.groups import PermutationGroup, fixes_nothing_else
from fathometer.symmetry.permutations import Permutation, disjoint_union, groups_of, orbit_labels

Element = tuple[Permutation, Permutation]
"""What one group element does: (permutation of the inputs, permutation of the outputs)."""


class Sides(NamedTuple):
    """One fact for each side of a layer."""

    inputs: Any
    outputs: Any


class PairGroup:
    """The group that parallel generators of inputs and outputs make; see `Action`."""

    def __init__(
        self,
        inputs: Sequence[Any],
        outputs: Sequence[Any] | None = None,
        *,
        sizes: tuple[int, int] | None = None,
        signs: tuple[Any, Any] | None = None,
        group: Sequence[Any] | None = None,
        name: str = "action",
    ) -> None:
        outputs = inputs if outputs is None else outputs
        check_listed(inputs, "inputs")
        check_listed(outputs, "outputs")
        if len(inputs) != len(outputs):
            raise InputError(
                f"inputs lists {len(inputs)} generators and outputs {len(outputs)}; they are pairs, "
                "one permutation on each side for every generator."
            )
        given = sizes if sizes is not None else (None, None)
        self.inputs = checked_side(inputs, "inputs", given[0])
        shared = outputs is inputs and given[0] == given[1]
        self.outputs = self.inputs if shared else checked_side(outputs, "outputs", given[1])
        self.sizes = Sides(
            checked_size(self.inputs, "inputs", given[0]),
            checked_size(self.outputs, "outputs", given[1]),
        )
        both = checked_signs(signs, self.inputs, self.outputs)
        self.signs = None if both is None else Sides(*both)
        self.name = name
        self._origin: Origin | None = None
        self._output_lift: Lift | None = None
        if group is not None:
            self._check_relations(group)

    # -- what the group is

    @cached_property
    def order(self) -> int:
        """Number of elements of the group of pairs, exact."""
        if self._origin is not None and self._origin.faithful:
            return self._origin.order
        return self.joint_group.order

    @cached_property
    def joint_group(self) -> PermutationGroup:
        """The group as permutations of inputs and outputs together (signed points count twice)."""
        pairs = zip(self._points("inputs"), self._points("outputs"), strict=True)
        return PermutationGroup(disjoint_union(pairs), sum(len(p) for p in self._identity_points()))

    @cached_property
    def image_orders(self) -> Sides:
        """Orders of the groups that act effectively on each side."""
        return Sides(*(self._image(side).order for side in ("inputs", "outputs")))

    @property
    def kernel_orders(self) -> Sides:
        """How many elements leave every input, and every output, in place."""
        return Sides(*(self.order // image for image in self.image_orders))

    @property
    def is_faithful(self) -> Sides:
        """Whether only the identity leaves every input, and every output, in place."""
        return Sides(*(kernel == 1 for kernel in self.kernel_orders))

    @cached_property
    def is_transitive(self) -> Sides:
        """Whether there is one orbit of inputs, and of outputs."""
        return Sides(*(len(orbits) == 1 for orbits in self.orbits))

    @cached_property
    def is_semiregular(self) -> Sides:
        """Whether no element but the identity fixes an input, or an output."""
        n = len(self._identity_points()[0])
        joint, degree = self.joint_group.generators, self.joint_group.degree
        starts = [[o[0] for o in side] for side in self.orbits]
        step = 2 if self.signs is not None else 1
        return Sides(
            all(fixes_nothing_else(joint, step * i, degree) for i in starts[0]),
            all(fixes_nothing_else(joint, n + step * i, degree) for i in starts[1]),
        )

    @property
    def is_regular(self) -> Sides:
        """Whether the side is transitive and semi-regular: one element for each pair of points."""
        pairs = zip(self.is_transitive, self.is_semiregular, strict=True)
        return Sides(*(transitive and free for transitive, free in pairs))

    @cached_property
    def orbits(self) -> tuple[list[list[int]], list[list[int]]]:
        """Sorted orbits of the inputs and of the outputs."""
        return (
            groups_of(orbit_labels(self.inputs, self.sizes.inputs)),
            groups_of(orbit_labels(self.outputs, self.sizes.outputs)),
        )

    @property
    def generators(self) -> list[Element]:
        """The generators as (permutation of inputs, permutation of outputs)."""
        return list(zip(self.inputs, self.outputs, strict=True))

    def elements(self, limit: int = 100_000) -> list[Element]:
        """All elements as pairs, the identity first.

        Raises:
            InputError: If there are more than ``limit``, or the action is signed.
        """
        if self.signs is not None:
            raise InputError("the action is signed; its elements are not pairs of permutations.")
        n = self.sizes.inputs
        return [(row[:n], row[n:] - n) for row in self.joint_group.elements(limit)]

    @property
    def draws_uniformly(self) -> bool:
        """Whether `random_element` needs no search, because the action knows where it comes from."""
        return self._origin is not None and self._output_lift is not None

    def random_element(self, rng: np.random.Generator) -> Element:
        """An element, uniformly, as a pair."""
        if self._origin is not None and self._output_lift is not None:  # draws_uniformly
            g = self._origin.draw(rng)
            return self._origin.lift(g), self._output_lift(g)
        n = self.sizes.inputs
        row = self.joint_group.random_element(rng)
        return row[:n], row[n:] - n

    def report(self) -> Table:
        """What always matters about an action: one row for each side.

        A kernel larger than 1 on the outputs, or a side that is not semi-regular, is
        where equivariance to more than the group comes from.
        """
        facts = zip(
            ("inputs", "outputs"),
            self.sizes,
            self.orbits,
            self.image_orders,
            self.kernel_orders,
            self.is_transitive,
            self.is_semiregular,
            self.is_faithful,
            strict=True,
        )
        rows = tuple(
            Row(
                side=side,
                size=size,
                orbits=len(orbits),
                image_order=image,
                kernel_order=kernel,
                transitive=transitive,
                semiregular=free,
                faithful=faithful,
                kind="exact",
                error=0.0,
            )
            for side, size, orbits, image, kernel, transitive, free, faithful in facts
        )
        return Table(title=f"{self.name}: a group of order {self.order}", rows=rows)

    def __getstate__(self) -> dict[str, Any]:
        # how elements were lifted is a function, which no file can hold; the order it gave is kept
        state = {k: v for k, v in self.__dict__.items() if k not in ("joint_group", "dense_tying")}
        if self._origin is not None and self._origin.faithful:
            state["order"] = self._origin.order
        return {**state, "_origin": None, "_output_lift": None}

    @property
    def acts_alike(self) -> bool:
        """Whether every generator does the same on both sides."""
        return self.sizes[0] == self.sizes[1] and all(np.array_equal(a, b) for a, b in self.generators)

    def _remember_order(self, order: int) -> None:
        """Use the order that a theorem gives for an action that is the same on both sides."""
        origin = origin_of(self.inputs, self.sizes.inputs, order)
        self._origin, self._output_lift = origin, origin.lift

    def _identity_points(self) -> tuple[np.ndarray, np.ndarray]:
        double = 2 if self.signs is not None else 1
        return np.arange(double * self.sizes.inputs), np.arange(double * self.sizes.outputs)

    def _points(self, side: Literal["inputs", "outputs"]) -> list[Permutation]:
        """Permutations of one side; a signed point 2 i + 1 is minus point 2 i."""
        permutations = getattr(self, side)
        if self.signs is None:
            return list(permutations)
        doubled = []
        for p, s in zip(permutations, getattr(self.signs, side), strict=True):
            flip = (s < 0).astype(np.int64)
            doubled.append(np.stack([2 * p + flip, 2 * p + 1 - flip], axis=1).reshape(-1))
        return doubled

    def _image(self, side: Literal["inputs", "outputs"]) -> PermutationGroup:
        known = self.order if self.acts_alike and self.signs is None else None
        size = len(self._identity_points()[0 if side == "inputs" else 1])
        return PermutationGroup(self._points(side), size, order=known, at_most=self.order)

    def _check_relations(self, group: Sequence[Any]) -> None:
        if len(group) != len(self.inputs):
            raise InputError(
                f"group lists {len(group)} generators and inputs {len(self.inputs)}; one for each."
            )
        names = checked_side(group, "group", None)
        n = checked_size(names, "group", 0 if not len(names) else None)
        own = PermutationGroup(names, n)
        points = zip(self._points("inputs"), self._points("outputs"), strict=True)
        joint = [np.concatenate([g, n + j]) for g, j in zip(names, disjoint_union(points), strict=True)]
        graph = PermutationGroup(joint, n + sum(len(p) for p in self._identity_points()))
        if graph.order != own.order:
            raise InputError(
                f"the pairs break a relation of the group: it has {own.order} elements, but with the "
                f"action beside it {graph.order}. Each relation among the generators of group must "
                "hold on both sides."
            )
