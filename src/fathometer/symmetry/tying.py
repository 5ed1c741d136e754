"""Which weights of a layer are one number: the dense, the sparse and the minimal design.

Dense: one weight for each orbit of the group on index pairs; these are all matrices
with ``W P(g) = P'(g) W``. Sparse: only the orbits of (p, a q) for orbit representatives
p, q and chosen elements a; other entries are zero. Coinciding double cosets are one
weight. Minimal: the fewest such orbits that leave no symmetry beyond those of the
dense design; ``P + Q - 1 + d(G)`` for semi-regular actions
(Ravanbakhsh, Schneider & Poczos 2017; the minimal design is ours).
"""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fathometer.errors import InputError
from fathometer.results import Row, Table
from fathometer.symmetry.action import Action, Element
from fathometer.symmetry.orbits import pair_orbits, signed_pair_orbits
from fathometer.symmetry.permutations import check_permutation, orbit_labels

if TYPE_CHECKING:
    from fathometer.drawing.picture import Picture
    from fathometer.symmetry.automorphisms import Automorphisms
    from fathometer.symmetry.lazy import LazyTying


class Tying:
    """A weight matrix whose entries with equal labels are one weight.

    Args:
        labels: (M, N) whole numbers 0..K-1, each used; -1 where there is no edge.
        bias_labels: (M,) in the same way; None ties the biases along the orbits of the
            symmetries of ``labels``.
        signs: (M, N) of 1 and -1: the entry is ``sign * weight``; None for all 1.
        bias_signs: (M,) the same for the biases.
        action: The action it was made for, if any.
        design: How it was made.

    Raises:
        InputError: If labels are not whole numbers from -1, leave out a number, or shapes differ.

    >>> Action.cyclic(3).tying().labels.tolist()
    [[0, 1, 2], [2, 0, 1], [1, 2, 0]]
    """

    def __init__(
        self,
        labels: Any,
        bias_labels: Any = None,
        *,
        signs: Any = None,
        bias_signs: Any = None,
        action: Action | None = None,
        design: str = "own",
    ) -> None:
        self.labels = _checked(labels, "labels", 2)
        self.signs = None if signs is None else np.asarray(signs, dtype=np.int8)
        if self.signs is not None and (self.signs.shape != self.labels.shape or (abs(self.signs) != 1).any()):
            raise InputError(f"signs must be 1 or -1, in the shape {self.labels.shape} of labels.")
        self._bias = None if bias_labels is None else _checked(bias_labels, "bias_labels", 1)
        if self._bias is not None and len(self._bias) != len(self.labels):
            raise InputError(f"bias_labels has {len(self._bias)} entries for {len(self.labels)} outputs.")
        self.bias_signs = None if bias_signs is None else np.asarray(bias_signs, dtype=np.int8)
        self.action = action
        self.design = design

    @property
    def sizes(self) -> tuple[int, int]:
        """(N, M), inputs and outputs."""
        return self.labels.shape[1], self.labels.shape[0]

    @cached_property
    def num_orbits(self) -> int:
        """Number of free weights for one pair of channels."""
        return int(self.labels.max(initial=-1)) + 1

    @cached_property
    def bias_labels(self) -> np.ndarray:
        """(M,) number of the bias of each output; -1 where a sign change forbids one."""
        if self._bias is not None:
            return self._bias
        outputs = [b for _, b in self.automorphisms().generators]
        return orbit_labels(outputs, len(self.labels))

    @property
    def num_bias_orbits(self) -> int:
        """Number of free biases for one output channel."""
        return int(self.bias_labels.max(initial=-1)) + 1

    @cached_property
    def orbit_sizes(self) -> np.ndarray:
        """(K,) number of entries that each weight fills."""
        return _counts(self.labels, self.num_orbits)

    def matrix(self, weights: Any) -> np.ndarray:
        """The (M, N) matrix with these K weights.

        Raises:
            InputError: If there are more or fewer than K.
        """
        values = np.append(np.asarray(weights), 0)
        if len(values) != self.num_orbits + 1:
            raise InputError(
                f"weights has {len(values) - 1} entries; the tying has {self.num_orbits} orbits."
            )
        return values[self.labels] if self.signs is None else values[self.labels] * self.signs

    def automorphisms(self) -> "Automorphisms":
        """All pairs of permutations that keep the labels, and whether they are just the group."""
        return self._automorphisms

    @cached_property
    def _automorphisms(self) -> "Automorphisms":
        from fathometer.symmetry.automorphisms import automorphisms_of

        return automorphisms_of(self)

    def orbit_table(self) -> Table:
        """One row a weight: how many entries, how many in a row and in a column, a first entry."""
        found, places = np.unique(self.labels, return_index=True)
        first = dict(zip(found.tolist(), places.tolist(), strict=True))
        n = self.labels.shape[1]
        rows = []
        for k in range(self.num_orbits):
            m, i = divmod(first[k], n)
            rows.append(
                Row(
                    orbit=k,
                    entries=int(self.orbit_sizes[k]),
                    in_row=int((self.labels[m] == k).sum()),
                    in_column=int((self.labels[:, i] == k).sum()),
                    first_output=m,
                    first_input=i,
                    kind="exact",
                    error=0.0,
                )
            )
        missing = int((self.labels < 0).sum())
        notes = (f"{missing} of {self.labels.size} entries have no edge.",) if missing else ()
        return Table(title=f"{self.design} design: {self.num_orbits} weights", rows=tuple(rows), notes=notes)

    def picture(self) -> "Picture":
        """The labels as a colored matrix, and the same as a bipartite graph."""
        from fathometer.symmetry.pictures import tying_picture

        return tying_picture(self)

    def __repr__(self) -> str:
        n, m = self.sizes
        return f"<Tying {self.design}: {self.num_orbits} weights for {m} outputs of {n} inputs>"


def as_tying(found: Any, name: str = "action") -> Tying:
    """The tying of an action (dense, made once), or the tying itself."""
    if isinstance(found, Tying):
        return found
    if isinstance(found, Action):
        return found.tying()
    raise InputError(f"{name} is a {type(found).__name__}; pass an Action or a Tying.")


def make_tying(
    action: Action,
    design: Literal["dense", "sparse", "minimal"],
    generators: Sequence[Element] | None,
    *,
    lazy: bool,
    seed: int,
) -> "Tying | LazyTying":
    """What `Action.tying` returns."""
    if design not in ("dense", "sparse", "minimal"):
        raise InputError(f'design is {design!r}; choose "dense", "sparse" or "minimal".')
    if generators is not None and design != "sparse":
        raise InputError(f'generators belong to the sparse design, not to "{design}".')
    if lazy:
        if design != "dense":
            raise InputError(f'the lazy engine makes the dense design only, not "{design}".')
        from fathometer.symmetry.lazy import LazyTying

        return LazyTying(action, seed=seed)
    dense = action.dense_tying
    if design == "dense":
        return dense
    if design == "sparse":
        return _sparse(dense, action, generators)
    from fathometer.symmetry.minimal import minimal_tying

    return minimal_tying(dense, action)


def dense_tying(action: Action) -> Tying:
    """All orbits of index pairs, and the orbits of the outputs for the bias."""
    if action.signs is None:
        labels = pair_orbits(action.inputs, action.outputs, action.sizes)
        bias = orbit_labels(action.outputs, action.sizes.outputs)
        return _trusted(labels, bias, action)
    labels, signs = signed_pair_orbits(action.inputs, action.outputs, action.signs, action.sizes)
    still = [np.zeros(1, dtype=np.int64)] * len(action.outputs)
    ones = [np.ones(1, dtype=np.int8)] * len(action.outputs)
    sides = (1, action.sizes.outputs)
    bias, bias_signs = signed_pair_orbits(still, action.outputs, (ones, action.signs.outputs), sides)
    return Tying(labels, bias[:, 0], signs=signs, bias_signs=bias_signs[:, 0], action=action, design="dense")


def _trusted(labels: np.ndarray, bias: np.ndarray, action: Action) -> Tying:
    """A dense design; its labels are by construction what `Tying` checks, half of a small one's time."""
    tying = Tying.__new__(Tying)
    tying.labels, tying.signs = labels, None
    tying._bias, tying.bias_signs = bias.astype(np.int32), None
    tying.action, tying.design = action, "dense"
    return tying


def keep_orbits(dense: Tying, kept: Sequence[int], design: str) -> Tying:
    """The same tying with only some of its weights, numbered by first appearance."""
    keep = np.zeros(dense.num_orbits + 1, dtype=bool)
    keep[list(kept)] = True
    # dense numbers are by first appearance already, so the order stays
    number = np.where(keep, np.cumsum(keep) - 1, -1)
    labels = number[dense.labels].astype(np.int32)
    return Tying(
        labels,
        dense.bias_labels,
        signs=dense.signs,
        bias_signs=dense.bias_signs,
        action=dense.action,
        design=design,
    )


def _sparse(dense: Tying, action: Action, generators: Sequence[Element] | None) -> Tying:
    n, m = action.sizes
    identity = (np.arange(n), np.arange(m))
    if generators is None:
        chosen = [identity, *action.generators]
    else:
        chosen = [_element(action, pair, i) for i, pair in enumerate(generators)]
    if not chosen:
        raise InputError("generators is empty; the sparse design needs at least one element.")
    starts_n = [o[0] for o in action.orbits[0]]
    starts_m = [o[0] for o in action.orbits[1]]
    kept = {int(dense.labels[b[q], p]) for _, b in chosen for q in starts_m for p in starts_n}
    return keep_orbits(dense, sorted(kept - {-1}), "sparse")


def _element(action: Action, pair: Any, i: int) -> Element:
    if len(pair) != 2:
        raise InputError(f"generators, element {i}: pass a pair (input permutation, output permutation).")
    n, m = action.sizes
    a = check_permutation(pair[0], f"generators, element {i}, inputs", n)
    b = check_permutation(pair[1], f"generators, element {i}, outputs", m)
    if action.signs is None and not action.joint_group.contains(np.concatenate([a, n + b])):
        raise InputError(f"generators, element {i} is not an element of the group of {action.name}.")
    return a, b


def _checked(labels: Any, name: str, dimensions: int) -> np.ndarray:
    if hasattr(labels, "detach"):
        labels = labels.detach().cpu().numpy()
    found = np.asarray(labels)
    if found.ndim != dimensions or found.size == 0:
        raise InputError(f"{name} has shape {found.shape}; {dimensions} non-empty dimensions are needed.")
    if found.dtype.kind not in "iu":
        raise InputError(f"{name} holds {found.dtype}; labels are whole numbers, -1 for no edge.")
    if found.min() < -1:
        raise InputError(f"{name} holds {found.min()}; the smallest label is -1, for no edge.")
    used = _counts(found, int(found.max()) + 1)
    if (used == 0).any():
        raise InputError(f"{name} leaves out {int(used.argmin())}; number weights 0, 1, ... without gaps.")
    return found.astype(np.int32) if found.dtype != np.int32 else found


def _counts(labels: np.ndarray, count: int) -> np.ndarray:
    """How often each of the labels 0, 1, ... occurs; in pieces, for counting widens them."""
    flat = labels.reshape(-1)
    total = np.zeros(count + 1, dtype=np.int64)
    for start in range(0, flat.size, 1 << 18):
        total += np.bincount(flat[start : start + (1 << 18)] + 1, minlength=count + 1)
    return total[1:]
