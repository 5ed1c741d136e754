"""Threads are set for a block and put back; the manifest knows the machine and not the user."""

import getpass
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from threadpoolctl import threadpool_info

from fathometer import InputError
from fathometer.work import environment, threads


def pools():
    return [(pool["filepath"], pool["num_threads"]) for pool in threadpool_info()]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_threads_hold_in_the_block_and_are_put_back(n):
    before, pools_before = torch.get_num_threads(), [pool for pool in pools() if "openblas" in pool[0]]
    with pytest.raises(KeyError), threads(n):
        assert torch.get_num_threads() == n
        assert all(count == n for path, count in pools() if "openblas" in path)
        raise KeyError
    assert torch.get_num_threads() == before
    assert [pool for pool in pools() if "openblas" in pool[0]] == pools_before


def test_threads_do_not_start_those_of_numba():
    # which would set the number of OpenMP's, and so torch's, for the rest of the process
    program = (
        "import torch, numba; torch.set_num_threads(1); from fathometer.work import threads\n"
        "with threads(1): print(torch.get_num_threads())\n"
        "print(torch.get_num_threads())"
    )
    command = [sys.executable, "-c", program]
    environment = {**os.environ, "OMP_NUM_THREADS": "3"}
    answer = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert answer.stdout.split() == ["1", "1"]


@pytest.mark.parametrize("n", [0, -1, 1.0, True, "2"])
def test_a_bad_number_of_threads_is_refused(n):
    before = torch.get_num_threads()
    with pytest.raises(InputError, match=r"n is .*; a whole number of threads"), threads(n):
        pass
    assert torch.get_num_threads() == before


def test_the_environment_is_json_and_names_versions():
    found = json.loads(json.dumps(environment()))
    assert found["packages"]["torch"] == torch.__version__
    assert found["packages"]["fathometer"]
    assert found["threads"] == torch.get_num_threads()
    with threads(3):
        assert environment()["threads"] == 3
    assert found["processes"] == 1


def test_the_environment_does_not_tell_on_the_user():
    text = json.dumps(environment())
    assert str(Path.home()) not in text or str(Path.home()) == "/"
    assert str(Path.cwd()) not in text
    host = socket.gethostname()
    assert len(host) < 4 or host not in text
    user = getpass.getuser()
    assert len(user) < 5 or user not in text
