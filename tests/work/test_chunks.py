"""Sums over chunks in one process: right, in float64, in a fixed association, and unseen by the caller."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fathometer import InputError
from fathometer.work import grid, reduce_chunks, world


@given(n=st.integers(1, 200), chunk=st.integers(1, 60))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_the_grid_cuts_everything_once_and_in_order(n, chunk):
    pieces = grid(n, chunk)
    assert [i for piece in pieces for i in range(n)[piece]] == list(range(n))
    assert all(piece.stop - piece.start == chunk for piece in pieces[:-1])


@pytest.mark.parametrize(
    ("n", "chunk", "name"), [(0, 1, "n"), (3, 0, "chunk"), (3, 1.5, "chunk"), (True, 1, "n")]
)
def test_a_grid_of_nothing_is_refused(n, chunk, name):
    with pytest.raises(InputError, match=f"^{name} is .*; a whole number, one or more"):
        grid(n, chunk)


@given(
    values=st.lists(st.floats(-(2.0**99), 2.0**99, allow_nan=False, width=32), min_size=1, max_size=40),
    sized=st.booleans(),
    slots=st.integers(1, 12),
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_sums_of_float32_are_summed_in_float64(values, sized, slots):
    items = [torch.tensor(v, dtype=torch.float32) for v in values]
    (total,) = reduce_chunks(lambda x: x, items if sized else iter(items), slots=slots)
    exact = sum(Fraction(v) for v in values)
    size = sum(abs(Fraction(v)) for v in values)
    assert abs(Fraction(total.item()) - exact) <= len(values) * Fraction(2) ** -53 * size


def brute_force(values, slots, sized):
    """The documented association, in plain Python floats."""
    n = len(values)
    slot = [i * min(slots, n) // n if sized else i % slots for i in range(n)]
    sums = {}
    for s, value in zip(slot, values, strict=True):
        sums[s] = sums[s] + value if s in sums else value
    total = None
    for s in sorted(sums):
        total = sums[s] if total is None else total + sums[s]
    return total


@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 29])
@pytest.mark.parametrize("slots", [1, 3, 8])
@pytest.mark.parametrize("sized", [True, False])
def test_the_association_is_the_documented_one_to_the_last_bit(n, slots, sized):
    g = torch.Generator().manual_seed(n)
    values = torch.randn(n, generator=g, dtype=torch.float64) * 10.0 ** torch.randint(
        -8, 8, (n,), generator=g
    )
    items = list(values)
    (total,) = reduce_chunks(lambda x: x, items if sized else iter(items), slots=slots)
    assert total.item() == brute_force(values.tolist(), slots, sized)


def test_several_results_keep_their_shapes_and_come_as_a_tuple():
    scalar, matrix = reduce_chunks(
        lambda part: (torch.ones(part.stop - part.start).sum(), torch.full((2, 3), 1.0)), grid(10, 4)
    )
    assert (scalar.item(), scalar.shape, scalar.dtype) == (10.0, (), torch.float64)
    assert matrix.tolist() == [[3.0] * 3] * 2


def test_results_of_fn_are_never_written_to():
    kept = torch.ones(3, dtype=torch.float64)
    (total,) = reduce_chunks(lambda _: kept, range(20))
    assert total.tolist() == [20.0] * 3
    assert kept.tolist() == [1.0] * 3


def test_sums_carry_no_graph():
    weight = torch.ones(2, requires_grad=True)
    (total,) = reduce_chunks(lambda x: weight * x, [1.0, 2.0])
    assert not total.requires_grad
    assert total.tolist() == [3.0, 3.0]
    assert weight.grad is None


def test_whole_numbers_and_booleans_are_counted():
    (hits,) = reduce_chunks(lambda part: torch.arange(10)[part] > 3, [slice(0, 5), slice(5, 10)])
    assert hits.tolist() == [1, 1, 1, 1, 2]


def test_one_chunk_is_not_copied():
    big = torch.ones(5, dtype=torch.float64)
    (total,) = reduce_chunks(lambda _: big, [0])
    assert total.data_ptr() == big.data_ptr()


def test_progress_counts_the_items():
    seen = []
    reduce_chunks(lambda x: torch.tensor(1.0), [1, 2, 3], progress=lambda *r: seen.append(r), what="loss")
    assert seen == [(1, 3, "loss"), (2, 3, "loss"), (3, 3, "loss"), (3, 3, "loss")]
    seen.clear()
    reduce_chunks(lambda x: torch.tensor(1.0), iter("ab"), progress=lambda *r: seen.append(r))
    assert seen == [(1, 0, ""), (2, 0, ""), (2, 2, "")]


def test_nan_and_infinity_pass_through():
    (total,) = reduce_chunks(lambda x: torch.tensor([x, 1.0]), [1.0, math.nan])
    assert math.isnan(total[0])
    assert total[1] == 2.0


def test_a_sum_within_a_sum_is_right():
    (total,) = reduce_chunks(
        lambda i: reduce_chunks(lambda j: torch.tensor(float(i * j)), range(4)), range(5)
    )
    assert total.item() == 60.0
    assert world() == 1


@pytest.mark.parametrize("nothing", [[], iter(())])
def test_no_items_are_refused(nothing):
    with pytest.raises(InputError, match="items is empty"):
        reduce_chunks(lambda x: torch.tensor(x), nothing)


def test_results_of_different_shapes_are_refused():
    with pytest.raises(InputError, match=r"gradient gave shapes \[\(3,\)\] for an item.*\[\(2,\)\]"):
        reduce_chunks(torch.ones, [2, 2, 3], what="gradient")
    with pytest.raises(InputError, match="gave shapes"):
        reduce_chunks(lambda i: (torch.ones(1),) * i, [1, 2])


def test_complex_results_are_refused():
    with pytest.raises(InputError, match=r"gave a torch.complex64 tensor; only real numbers"):
        reduce_chunks(lambda x: torch.tensor(1j), [1])


def test_a_length_that_lies_is_refused():
    class Short(list):
        def __len__(self):
            return 5

    with pytest.raises(InputError, match="items has length 5 but gave 2 items"):
        reduce_chunks(lambda x: torch.tensor(x), Short([1, 2]))


@pytest.mark.parametrize("slots", [0, 1.5, True])
def test_bad_slots_are_refused(slots):
    with pytest.raises(InputError, match=r"slots is .*; a whole number, one or more"):
        reduce_chunks(lambda x: torch.tensor(x), [1], slots=slots)


def test_an_error_of_fn_comes_out_as_it_is():
    with pytest.raises(ZeroDivisionError):
        reduce_chunks(lambda x: torch.tensor(1 / x), [1, 0])
