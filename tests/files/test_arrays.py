"""Arrays and draws of other people, and files of ours that are whole or absent."""

import io
import pickle
import zipfile

import numpy as np
import pytest
import safetensors.numpy

from fathometer import InputError
from fathometer.files import read_arrays, read_draws, write_atomic

X, Y = np.arange(6.0).reshape(3, 2), np.array([0, 1, 1])


@pytest.fixture(params=["npz", "npz packed", "safetensors"])
def pair(request, tmp_path):
    suffix = request.param.split()[0]
    path = tmp_path / f"d.{suffix}"
    if suffix == "safetensors":
        safetensors.numpy.save_file({"x": X, "y": Y}, path)
    else:
        (np.savez if request.param == "npz" else np.savez_compressed)(path, x=X, y=Y)
    return path


def test_arrays_come_in_the_order_of_the_names(pair):
    y, x = read_arrays(pair, "y", ("inputs", "x"))
    assert (x == X).all()
    assert x.dtype == X.dtype
    assert (y == Y).all()
    assert y.dtype == Y.dtype


def test_a_missing_array_is_refused_with_what_there_is(pair):
    with pytest.raises(InputError, match=r"there is no array 'inputs' or 'a'; it holds x, y"):
        read_arrays(pair, ("inputs", "a"))


def test_a_single_array_answers_to_any_one_name(tmp_path):
    np.save(tmp_path / "a.npy", X)
    (found,) = read_arrays(tmp_path / "a.npy", "points")
    assert (found == X).all()
    with pytest.raises(InputError, match="there is no array 'points'; it holds a"):
        read_arrays(tmp_path / "a.npy", "points", "scores")


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_version_of_npy_is_read(tmp_path, version, order):
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array(file, np.array(X, order=order), version=version)
    assert (read_arrays(tmp_path / "a.npy", "a")[0] == X).all()


def csv(path, text):
    path.write_text(text)
    return path


def test_columns_of_a_csv_are_found_by_name_and_number(tmp_path):
    text = "# made by a sampler\nscores_0,points.2,points.1,weight,scores_1\n1,3,2,9,4\n\n5,7,6,8,8e0\n"
    path = csv(tmp_path / "d.csv", text)
    points, scores, weight = read_arrays(path, "points", "scores", "weight")
    assert points.tolist() == [[2, 3], [6, 7]]
    assert scores.tolist() == [[1, 4], [5, 8]]
    assert weight.tolist() == [9, 8]


def test_a_csv_without_names_is_one_array(tmp_path):
    assert read_arrays(csv(tmp_path / "d.csv", "1,2\n3,nan\n"), "points")[0].shape == (2, 2)
    assert read_arrays(csv(tmp_path / "e.csv", "\ufeffa,b\n1,2\n"), "points")[0].tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3\n", "line 3 has 1 cells; 2 numbers are needed"),
        ("1,2\n3,x\n", "line 2 has 'x'; 2 numbers are needed"),
        ("a,a\n1,2\n", "the header names a column twice"),
        ("a,b\n", "there are no numbers in it"),
        ("# only words\n", "there are no numbers in it"),
    ],
)
def test_a_wrong_csv_is_refused_by_line(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_arrays(csv(tmp_path / "d.csv", text), "points")


def test_a_csv_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "d.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not a readable text file"):
        read_arrays(tmp_path / "d.csv", "a")


@pytest.mark.parametrize("bad", [np.array([{}], dtype=object), np.array(["a"]), np.zeros(2, "i4,f4")])
def test_arrays_of_other_things_are_refused(tmp_path, bad):
    np.save(tmp_path / "a.npy", bad, allow_pickle=True)
    np.savez(tmp_path / "a.npz", a=bad, b=X)
    for name in ("a.npy", "a.npz"):
        with pytest.raises(InputError, match=r"a.npy holds .*; arrays of numbers or booleans are needed"):
            read_arrays(tmp_path / name, "a")


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.safetensors", "a.csv"])
@pytest.mark.parametrize(
    "content", [b"words", b"PK\x03\x04", pickle.dumps([1]), b"\x93NUMPY\x01\x00", b"\x93NUMPY\x09\x09\0\0"]
)
def test_garbage_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        read_arrays(tmp_path / name, "a")


def header(shape):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return stream.getvalue()


def test_a_header_that_lies_is_refused_before_anything_is_allocated(tmp_path):
    lie = header((10**13,)) + b"\0" * 16
    (tmp_path / "a.npy").write_bytes(lie)
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", lie)
    for name in ("a.npy", "a.npz"):
        with pytest.raises(InputError, match=r"a.npy claims 80000000000000 bytes, and"):
            read_arrays(tmp_path / name, "a")


def test_an_array_larger_than_the_memory_is_refused(tmp_path, monkeypatch):
    import psutil

    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(1000))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("V", (), {"available": 7999})())
    with pytest.raises(InputError, match="declares 8e-06 GB of numbers"):
        read_arrays(tmp_path / "a.npz", "a")


def test_another_kind_of_file_is_refused(tmp_path):
    (tmp_path / "a.mat").write_bytes(b"x")
    with pytest.raises(
        InputError, match=r"files of arrays end in .npz, .npy, .csv, .safetensors, not in '.mat'"
    ):
        read_arrays(tmp_path / "a.mat", "a")


@pytest.fixture
def draws_file(tmp_path):
    # what InferenceData.to_netcdf does, without the seconds that importing ArviZ takes
    xarray = pytest.importorskip("xarray")
    posterior = xarray.Dataset(
        {
            "mu": (("chain", "draw"), np.arange(8.0).reshape(2, 4)),
            "theta": (("chain", "draw", "theta_dim_0"), np.ones((2, 4, 3))),
        },
        coords={"chain": [0, 1], "draw": range(4), "theta_dim_0": ["a", "b", "c"]},
    )
    observed = xarray.Dataset({"y": (("y_dim_0",), np.zeros(3))}, coords={"y_dim_0": range(3)})
    posterior.to_netcdf(tmp_path / "d.nc", group="posterior", engine="h5netcdf")
    observed.to_netcdf(tmp_path / "d.nc", group="observed_data", engine="h5netcdf", mode="a")
    return tmp_path / "d.nc"


def test_arviz_files_are_read(draws_file):
    draws = read_draws(draws_file)
    assert draws["mu"].tolist() == np.arange(8.0).reshape(2, 4).tolist()
    assert draws["theta"].shape == (2, 4, 3)
    assert sorted(draws) == ["mu", "theta"]


def test_other_groups_and_files_are_refused(draws_file, tmp_path):
    with pytest.raises(InputError, match="there is no group 'prior'; it has"):
        read_draws(draws_file, "prior")
    with pytest.raises(InputError, match=r"y has dimensions \['y_dim_0'\]; chain and draw must be the first"):
        read_draws(draws_file, "observed_data")
    (tmp_path / "bad.nc").write_bytes(b"CDF")
    with pytest.raises(InputError, match="not a readable netCDF file"):
        read_draws(tmp_path / "bad.nc")


def test_a_group_without_draws_is_refused(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "d.nc", "w") as file:
        file.create_group("posterior")
    with pytest.raises(InputError, match="the group 'posterior' holds no draws"):
        read_draws(tmp_path / "d.nc")


def test_without_the_extra_the_way_out_is_named(tmp_path, monkeypatch):
    import sys

    from fathometer import CapabilityError

    (tmp_path / "d.nc").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(CapabilityError, match=r'pip install "fathometer\[arviz\]"'):
        read_draws(tmp_path / "d.nc")


def test_files_are_written_whole(tmp_path):
    assert write_atomic(tmp_path / "a.txt", "é").read_bytes() == "é".encode()
    assert write_atomic(tmp_path / "a.txt", b"new").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    import os

    path = write_atomic(tmp_path / "a.txt", "old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"cannot be written .No space left on device"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        write_atomic(tmp_path / "none" / "a.txt", "x")
