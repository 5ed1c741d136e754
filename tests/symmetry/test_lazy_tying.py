"""The lazy engine against the table, and at sizes where no table exists."""

import numpy as np
import pytest

from fathometer.errors import InputError
from fathometer.symmetry import Action

A = Action
CASES = {
    "Z9": A.cyclic(9),
    "D8": A.dihedral(8),
    "pairs": A.tuples(4, 2),
    "edges to points": A.subsets(5, 2, outputs=A.symmetric(5)),
    "points to edges": A.symmetric(5, outputs=A.subsets(5, 2)),
    "p4m": A.grid(6, 6, rotations=True, flips=True),
    "C4 on 5x5": A.grid(5, 5, translations=False, rotations=True),
    "two cycles": A([[1, 2, 0, 4, 3]], [[1, 0, 2]]),
    "wreath": A.wreath(A.symmetric(3), A.cyclic(4)),
    "weights": A.weight_space([2, 3, 2]),
    "trivial": A.trivial(3, 4),
    "invariant": A.dihedral(7, outputs="invariant"),
}


@pytest.mark.parametrize("name", CASES)
def test_lazy_labels_are_the_table_up_to_their_numbers(name):
    action = CASES[name]
    dense, lazy = action.tying(), action.tying(lazy=True)
    n, m = action.sizes
    inputs, outputs = np.meshgrid(np.arange(n), np.arange(m))
    found = lazy.label(inputs, outputs)
    assert lazy.num_orbits == dense.num_orbits
    assert len(np.unique(np.stack([found, dense.labels]).reshape(2, -1), axis=1).T) == dense.num_orbits
    assert lazy.label(n - 1, m - 1) == found[-1, -1]
    assert lazy.certificate.value < 2.0**-40
    assert lazy.sizes == (n, m)


def test_certificates_say_how_they_know():
    assert A.cyclic(9).tying(lazy=True).certificate.kind == "exact"
    assert A.tuples(4, 2).tying(lazy=True).certificate.kind == "bound"
    assert A([[1, 2, 3, 4, 0], [1, 0, 2, 3, 4]]).tying(lazy=True).certificate.kind == "estimate"


@pytest.mark.parametrize(
    ("action", "count"),
    [
        (A.tuples(100, 2), 15),
        (A.grid(100, 100, rotations=True, flips=True), 1326),
        (A.dihedral(20_000), 10_001),
    ],
    ids=["pairs of S_100", "p4m torus", "D_20000"],
)
def test_large_actions_are_counted_without_a_table(action, count):
    """15 is the Bell number of 4; a torus of side 2 h has (h + 1)(h + 2) / 2 distances up to symmetry."""
    lazy = action.tying(lazy=True)
    assert lazy.num_orbits == count
    rng = np.random.default_rng(0)
    n, m = (rng.integers(0, size, 200) for size in action.sizes)
    for a, b in action.generators:
        assert (lazy.label(a[n], b[m]) == lazy.label(n, m)).all()


def test_bad_indices_and_signed_actions_are_refused():
    with pytest.raises(InputError, match=r"m must lie in 0\.\.8, found 9 to 9"):
        A.cyclic(9).tying(lazy=True).label(0, 9)
    with pytest.raises(InputError, match="is signed; the lazy engine"):
        A([[0]], signs=([[-1]], [[-1]])).tying(lazy=True)
