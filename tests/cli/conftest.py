"""How a test calls the command line: in this process, as the shell would."""

import json
from types import SimpleNamespace

import pytest


@pytest.fixture
def call(capsys):
    """``call("stein", path)`` -> code, message, out (stdout), err (stderr), json."""
    from fathometer.cli import run

    def call(*arguments):
        code, message = run([str(part) for part in arguments])
        out, err = capsys.readouterr()
        answer = None
        if "--json" in arguments and code == 0:
            assert out.count("\n") == 1
            answer = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
        return SimpleNamespace(code=code, message=message, out=out, err=err, json=answer)

    return call
