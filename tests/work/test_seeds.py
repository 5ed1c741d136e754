"""Random streams: addressed by seed and path, the same everywhere, far from the global state."""

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fathometer import InputError
from fathometer.work import check_seed, generator, numpy_generator

paths = st.lists(st.one_of(st.text(max_size=8), st.integers(-5, 10**30)), max_size=3)


@given(seed=st.integers(0, 2**70), path=paths)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_the_same_address_gives_the_same_stream(seed, path):
    a, b = (torch.randn(4, generator=generator(seed, *path)) for _ in range(2))
    assert torch.equal(a, b)
    a, b = (numpy_generator(seed, *path).integers(0, 2**62, 4) for _ in range(2))
    assert (a == b).all()


@given(a=st.tuples(st.integers(0, 9), paths), b=st.tuples(st.integers(0, 9), paths))
@settings(max_examples=80, deadline=None, derandomize=True)
def test_two_addresses_give_two_streams(a, b):
    if a == b:
        return
    (seed_a, path_a), (seed_b, path_b) = a, b
    assert generator(seed_a, *path_a).initial_seed() != generator(seed_b, *path_b).initial_seed()


def test_a_number_and_its_text_are_two_paths():
    assert generator(0, 1).initial_seed() != generator(0, "1").initial_seed()


def test_streams_of_one_seed_are_uncorrelated():
    draws = torch.stack([torch.randn(4000, generator=generator(0, "probe", i)) for i in range(8)])
    off_diagonal = torch.corrcoef(draws) - torch.eye(8)
    assert off_diagonal.abs().max() < 5 / 4000**0.5


def test_streams_are_those_of_the_first_release():
    # a published seed must keep its meaning, in every process: sha256 of the path, SeedSequence, 63 bits
    words = np.frombuffer(hashlib.sha256(b"name:probe").digest()[:16], "<u4").tolist()
    words += np.frombuffer(hashlib.sha256(b"number:2").digest()[:16], "<u4").tolist()
    state = int(np.random.SeedSequence(5, spawn_key=words).generate_state(1, np.uint64)[0])
    assert generator(5, "probe", 2).initial_seed() == state >> 1


def test_global_random_state_is_left_alone():
    before_torch, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    torch.randn(3, generator=generator(0, "x"))
    numpy_generator(0, "x").normal(size=3)
    assert torch.equal(torch.get_rng_state(), before_torch)
    assert (np.random.get_state()[1] == before_numpy).all()  # noqa: NPY002


@pytest.mark.parametrize("seed", [-1, 1.5, 2.0, "0", None, True, np.bool_(True)])
def test_a_seed_that_is_no_whole_number_is_refused(seed):
    for make in (generator, numpy_generator, check_seed):
        with pytest.raises(InputError, match=r"seed is .*; a whole number, zero or more"):
            make(seed)


def test_numpy_integers_are_seeds():
    assert generator(np.int64(3), np.int32(2)).initial_seed() == generator(3, 2).initial_seed()


@pytest.mark.parametrize("part", [1.0, True, None, ("a",)])
def test_a_path_of_other_things_is_refused(part):
    with pytest.raises(InputError, match="the path of a random stream has"):
        generator(0, "probe", part)
