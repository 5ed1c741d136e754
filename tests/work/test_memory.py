"""The memory budget: what is allowed, what fits, and what the refusal says."""

import math
import re

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fathometer as fm
from fathometer import BudgetError, InputError
from fathometer.work import Forecast, allowance, budget, chunk_size, in_words, memory


@pytest.fixture(autouse=True)
def default_budget():
    with budget(None):
        yield


def test_a_plain_call_sets_the_budget_until_the_next():
    budget(1234)
    assert allowance() == 1234
    budget(99)
    assert allowance() == 99
    budget(None)
    assert allowance() != 99


def test_a_block_puts_the_old_budget_back_also_after_an_error():
    budget(1000)
    with budget(10), budget(5):
        assert allowance() == 5
    assert allowance() == 1000
    with pytest.raises(KeyError), budget(10):
        raise KeyError
    assert allowance() == 1000


def test_the_package_offers_the_budget():
    with fm.budget(777):
        assert allowance() == 777


@pytest.mark.parametrize("size", [0, -5, 1.5, "2 GB", True])
def test_a_budget_that_is_no_number_of_bytes_is_refused(size):
    with pytest.raises(InputError, match=r"bytes is .*; a whole number of bytes"):
        budget(size)


def test_the_default_is_a_share_of_what_is_free(monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("V", (), {"available": 1000})())
    monkeypatch.setattr(memory, "_address_space_left", lambda: 5000)
    monkeypatch.setattr(memory, "_control_groups_left", lambda: [3000])
    assert allowance() == 800
    monkeypatch.setattr(memory, "_control_groups_left", lambda: [3000, 500])
    assert allowance() == 400
    monkeypatch.setattr(memory, "_address_space_left", lambda: 100)
    assert allowance() == 80


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_control_groups_of_version_2_are_read_up_to_the_root(tmp_path):
    root, membership = tmp_path / "cgroup", tmp_path / "membership"
    membership.write_text("0::/batch/job\n")
    write(
        root / "batch" / "job", memory__max="max\n", memory__current="10\n", memory__stat="inactive_file 3\n"
    )
    write(
        root / "batch", memory__max="100\n", memory__current="60\n", memory__stat="anon 1\ninactive_file 7\n"
    )
    write(root, memory__max="1000\n", memory__current="2000\n")
    assert memory._control_groups_left(root, membership) == [47, 0]


def test_control_groups_of_version_1_are_read(tmp_path):
    root, membership = tmp_path / "cgroup", tmp_path / "membership"
    membership.write_text("5:cpu,cpuacct:/x\n4:memory:/job\n")
    folder = root / "memory" / "job"
    write(folder, memory__stat="total_inactive_file 5\ninactive_file 1\n")
    write(folder, memory__limit_in_bytes="50", memory__usage_in_bytes="20")
    write(root / "cpu" / "x", memory__max="1", memory__current="0")
    assert memory._control_groups_left(root, membership) == [35]


def test_no_control_group_means_no_limit(tmp_path):
    assert memory._control_groups_left(tmp_path, tmp_path / "missing") == []


def test_the_address_space_limit_counts(monkeypatch):
    resource = pytest.importorskip("resource")
    used = psutil.Process().memory_info().vms
    monkeypatch.setattr(resource, "getrlimit", lambda _: (used + 10**9, -1))
    assert abs(memory._address_space_left() - 10**9) < 10**8
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, -1))
    assert memory._address_space_left() > 10**15


@given(
    items=st.integers(1, 10**6),
    each=st.one_of(st.integers(0, 10**6), st.floats(0, 1e6)),
    fixed=st.integers(0, 10**9),
    allowed=st.integers(1, 10**10),
)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_the_chunk_is_the_largest_that_fits(items, each, fixed, allowed):
    work = Forecast(what="", fixed=fixed, bytes_per_item=each, items=items)
    with budget(allowed):
        if work.needs(1) > allowed:
            with pytest.raises(BudgetError, match="would fit"):
                chunk_size(items, each, fixed=fixed)
            return
        chunk = chunk_size(items, each, fixed=fixed)
    assert 1 <= chunk <= items
    assert work.needs(chunk) <= allowed
    assert chunk == items or work.needs(chunk + 1) > allowed


def test_the_default_budget_gives_chunks_that_do_not_flicker(monkeypatch):
    sizes = set()
    for free in (10_300, 12_000, 15_000, 20_000 - 1):
        monkeypatch.setattr(memory, "allowance", lambda free=free: free)
        sizes.add(chunk_size(1000, 20.0))
    assert sizes == {512}
    monkeypatch.setattr(memory, "allowance", lambda: 20_000)
    assert chunk_size(1000, 20.0) == 1000


def test_the_refusal_says_what_would_fit_and_it_does():
    with budget(1000):
        with pytest.raises(BudgetError, match=r"the tiles needs 2.51 kB for one of its 30 items") as refusal:
            chunk_size(30, 2000, fixed=512, what="the tiles")
        enough = int(re.search(r"budget\((\d+)\) would fit", str(refusal.value)).group(1))
    with budget(enough):
        assert chunk_size(30, 2000, fixed=512) == 1


@pytest.mark.parametrize("sizes", [(0, 1.0, 0), (3, -1.0, 0), (3, 1.0, -1), (3, math.nan, 0)])
def test_sizes_that_make_no_sense_are_refused(sizes):
    items, each, fixed = sizes
    with pytest.raises(InputError, match="at least one item and no negative size"):
        chunk_size(items, each, fixed=fixed)


@pytest.mark.parametrize(
    ("size", "words"), [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (2.5e9, "2.5 GB"), (4e15, "4e+03 TB")]
)
def test_sizes_are_written_as_people_do(size, words):
    assert in_words(size) == words


def test_a_fixed_part_beyond_the_budget_is_refused_also_where_items_are_free():
    with budget(10), pytest.raises(BudgetError, match="would fit"):
        chunk_size(3, 0.0, fixed=100)
