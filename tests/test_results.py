"""Results: the same after a trip to disk, safe to open, printed in a line, and refused if damaged."""

import dataclasses
import json
import math
import re

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fathometer as fm
from fathometer import Estimate, InputError, Result, Table
from fathometer.results import Row, check_kind, describe, pack, unpack


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Everything(Result):
    """A result with one field of every kind."""

    value: object
    kind: str = "exact"
    error: float = 0.0
    nested: object = None
    model: object = dataclasses.field(default=None, metadata={"saved": False})


def alike(a, b):
    """Equal in value, type, dtype and shape, NaN included."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return (
            a.dtype == b.dtype
            and a.shape == b.shape
            and torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))
        )
    if isinstance(a, np.ndarray | np.generic):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, Result):
        return all(alike(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    if isinstance(a, dict | Row):
        return (
            list(a) == list(b)
            and all(type(x) is type(y) for x, y in zip(a, b, strict=True))
            and all(alike(a[k], b[k]) for k in a)
        )
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(alike(x, y) for x, y in zip(a, b, strict=True))
    return a == b or (a != a and b != b)


def trip(value, folder):
    return fm.load(Everything(value=value).save(folder / "r.safetensors")).value


CASES = {
    "numbers": [1, -(10**30), True, None, 0.1, math.inf, -math.inf, math.nan, -0.0, 1e-320],
    "text": ["", 'quote " backslash \\ line\n \u2028 \U0001f30a', "$tensor"],
    "complex": [1 + 2j, complex(math.inf, -0.0)],
    "numpy scalars": [np.float32(0.1), np.int8(-3), np.bool_(True), np.complex64(1j), np.complex128(2 - 1j)],
    "arrays": [
        np.zeros((0, 3)),
        np.array(5.0),
        np.array([1, 2], dtype=np.uint16),
        np.asfortranarray(np.eye(3)[:, ::2]),
    ],
    "complex arrays": [np.array([[1 + 2j, complex(math.nan, math.inf)]]), np.array([1j], dtype=np.complex64)],
    "tensors": [
        torch.tensor(3),
        torch.eye(3).T[:, 1:],
        torch.tensor([1 + 2j], dtype=torch.complex128),
        torch.empty(0),
    ],
    "half": torch.tensor([0.1, 2.0], dtype=torch.float16),
    "dictionaries": {1: "int", "1": "text", (2, "a"): [None], None: {}, 0.5: {"a.b": {"c": ()}}},
    "rows": (Row(a=1, b=np.arange(2)), [Row(a=math.nan)]),
    "results": Estimate(value=Everything(value=np.ones(2)), kind="bound", error=torch.tensor(0.5)),
    "table": Table(title="t", rows=(Row(name="x", value=1.5), Row(name="y", value=2.5)), notes=("n",)),
}


@pytest.mark.parametrize("name", CASES)
def test_everything_comes_back_as_it_was(name, tmp_path):
    assert alike(trip(CASES[name], tmp_path), CASES[name])


def test_arrays_whose_keys_share_a_path_are_kept_apart(tmp_path):
    value = {
        "a": {"b": np.array([1])},
        "a.b": np.array([2]),
        1: np.array([3]),
        "1": np.array([4]),
        ".a.b": np.array([5]),
    }
    assert alike(trip(value, tmp_path), value)


plain = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.one_of(st.text(max_size=3), st.integers()), inner, max_size=3),
        st.builds(lambda x: np.array([x, x]), st.floats()),
    ),
    max_leaves=8,
)


@given(value=plain)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_packing_loses_nothing(value):
    code, arrays = pack(value)
    assert alike(unpack(json.loads(json.dumps(code)), arrays), value)


def test_saving_does_not_change_or_share_the_arrays(tmp_path):
    tensor, array = torch.ones(3, requires_grad=True), np.ones(3)
    loaded = trip([tensor, array], tmp_path)
    loaded[0].add_(1)
    loaded[1] += 1
    assert tensor.tolist() == array.tolist() == [1, 1, 1]
    assert tensor.requires_grad


def test_fields_that_are_not_saved_come_back_as_none(tmp_path):
    result = Everything(value=1, model=torch.nn.Linear(1, 1))
    assert fm.load(result.save(tmp_path / "r")).model is None
    assert "model" not in result.to_dict()


def test_the_same_result_gives_the_same_bytes(tmp_path):
    value = {"b": np.arange(3), "a": torch.ones(2), "c": 0.1}
    first, second = (Everything(value=value).save(tmp_path / name).read_bytes() for name in "xy")
    assert first == second


def test_a_failed_save_leaves_the_old_file_and_no_other(tmp_path):
    path = Everything(value=1).save(tmp_path / "r.safetensors")
    with pytest.raises(InputError, match=r"value.model holds a Linear, which has no place in a file"):
        Everything(value={"model": torch.nn.Linear(1, 1)}).save(path)
    assert fm.load(path).value == 1
    assert [file.name for file in tmp_path.iterdir()] == ["r.safetensors"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({1, 2}, "value holds a set"),
        (torch.ones(2, dtype=torch.bfloat16), "value is bfloat16, which NumPy does not have"),
        (np.array(["a"]), "value holds an array of <U1"),
        (np.array([None]), "value holds an array of object"),
        (np.zeros(2, dtype=np.longdouble), "value holds an array of float128"),
    ],
)
def test_what_has_no_place_in_a_file_is_refused_by_name(tmp_path, value, message):
    with pytest.raises(InputError, match=message):
        Everything(value=value).save(tmp_path / "r")


def test_files_that_are_no_results_are_refused(tmp_path):
    with pytest.raises(InputError, match="there is no such file"):
        fm.load(tmp_path / "none")
    (tmp_path / "garbage").write_bytes(b"garbage")
    with pytest.raises(InputError, match="not a readable safetensors file"):
        fm.load(tmp_path / "garbage")
    safetensors.numpy.save_file({"w": np.ones(2)}, tmp_path / "weights")
    with pytest.raises(InputError, match="a safetensors file without a result; weights are read by"):
        fm.load(tmp_path / "weights")
    path = Everything(value=np.arange(100)).save(tmp_path / "cut")
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(InputError, match="not a readable safetensors file"):
        fm.load(path)


def forged(path, result, schema=1):
    manifest = json.dumps({"schema": schema, "result": result})
    safetensors.numpy.save_file({}, path, metadata={"fathometer": manifest})
    return path


def test_newer_and_unknown_results_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"written by a newer version .schema 99, this one reads 1"):
        fm.load(forged(tmp_path / "r", 1, schema=99))
    for name, message in (
        ("fathometer.sonar:Echo", "holds a fathometer.sonar:Echo, which this version does not have"),
        ("elsewhere:Echo", "import the module that defines it first"),
        ("os:system", "import the module that defines it first"),
        ("fathometer.results:pack", "import the module that defines it first"),
    ):
        with pytest.raises(InputError, match=message):
            fm.load(forged(tmp_path / "r", {"$result": name, "fields": {}}))


def test_results_print_in_one_line():
    assert (
        str(Estimate(value=3.14159, kind="estimate", error=0.0123)) == "Estimate: 3.142 +- 0.012 (estimate)"
    )
    assert str(Estimate(value=2.0, kind="exact", error=0.0)) == "Estimate: 2 (exact)"
    assert repr(Estimate(value=torch.ones(3, 2), kind="bound", error=None)).startswith(
        "Estimate(value=array(3, 2), kind=bound, error=None"
    )
    assert describe([1.0] * 6, "bound", np.ones(2)) == "[1, 1, 1, 1, ...] (bound)"
    assert describe((True, np.float64(0.25)), "exact", 0.0) == "(yes, 0.25) (exact)"
    assert describe(torch.tensor(0.5), "exact", None) == "0.5 (exact)"
    assert "Everything" in repr(Everything(value=Everything(value=1)))


def test_results_show_themselves_in_notebooks_without_trusting_text():
    found = Everything(value="<script>alert(1)</script>")._repr_html_()
    assert "<script>" not in found
    assert "&lt;script&gt;" in found
    table = Table(title="<b>", rows=(Row(**{"<i>": "<u>"}),))._repr_html_()
    assert re.findall(r"<(b|i|u|script)>", table) == []


def test_a_result_without_a_picture_says_so():
    with pytest.raises(InputError, match="a Estimate has no picture; print it, or read its fields"):
        Estimate(value=1.0, kind="exact", error=0.0).picture()


@pytest.mark.parametrize("kind", ["", "guess", "Exact"])
def test_a_number_is_one_of_three_kinds(kind):
    with pytest.raises(InputError, match=f"kind is '{kind}'; a number is one of exact, bound, estimate"):
        check_kind(kind)
    with pytest.raises(InputError, match="kind is"):
        Estimate(value=1.0, kind=kind, error=0.0)


def test_to_dict_is_plain_json():
    result = Estimate(
        value={"a": torch.ones(2), 3: (np.int64(4), Row(x=1))}, kind="exact", error=np.float32(0.5)
    )
    found = result.to_dict()
    assert json.loads(json.dumps(found)) == found
    assert found["value"] == {"a": [1.0, 1.0], "3": [4, {"x": 1}]}


def test_results_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Estimate(value=1.0, kind="exact", error=0.0).value = 2.0
    with pytest.raises(AttributeError, match="rows do not change"):
        Row(a=1).a = 2


def test_tables_are_read_by_position_name_and_loop():
    table = Table(
        title="sizes", rows=(Row(layer="a", count=1), Row(layer="b", count=2)), notes=("c: skipped",)
    )
    assert (table.value, table.kind, table.error, len(table)) == (2, "exact", 0.0, 2)
    assert table.columns == ("layer", "count")
    assert table["b"].count == table[1]["count"] == 2
    assert [row.layer for row in table] == ["a", "b"]
    assert str(table) == "sizes\nlayer  count\na      1\nb      2\nc: skipped"
    with pytest.raises(KeyError, match="'z' is not in the table; it has a, b"):
        table["z"]
    assert Table(title="none", rows=()).columns == ()


def test_rows_are_mappings_and_attributes():
    row = Row(a=1, b=2.5)
    assert dict(row) == {"a": 1, "b": 2.5}
    assert (row.a, row["b"], len(row), repr(row)) == (1, 2.5, 2, "Row(a=1, b=2.5)")
    with pytest.raises(AttributeError, match="this row has a, b; not 'c'"):
        _ = row.c
