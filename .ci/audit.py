"""Run the suite under coverage; list every `raise` that no test ran, and the branches of the lower floors.

    ./run audit [ARGS]     ARGS go to pytest; only a run of the whole suite can end well

Ends with 1 when a test fails, when a `raise` was never run, or when fewer than 95 % of the
branches of floors 0 to 2 were taken. What no tracer can see is left out: abstract methods
(``raise NotImplementedError``) and functions that numba compiles.
"""

import ast
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import coverage

HERE = Path(__file__).resolve().parent.parent
SOURCE = HERE / "src" / "fathometer"
SETTINGS = """
[run]
branch = true
parallel = true
source_pkgs = fathometer
concurrency = multiprocessing, thread
patch = subprocess
data_file = {folder}/.coverage
"""
LOWER_FLOORS = ("*.py", "drawing/*", "work/*", "calculus/*", "linalg/*", "model/*")
GOAL = 95.0
COMPILED = ("njit", "jit", "vectorize", "guvectorize")


def abstract(node):
    """Whether a raise says that a method is to be written by others."""
    target = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
    return isinstance(target, ast.Name) and target.id == "NotImplementedError"


def compiled(function):
    """Whether numba runs the function, so that no tracer sees its lines."""
    return any(name in ast.unparse(mark) for mark in function.decorator_list for name in COMPILED)


def raises(tree):
    """The first line of every raise that a test can run."""
    unseen = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and compiled(node)
        for inner in ast.walk(node)
    }
    found = (node for node in ast.walk(tree) if isinstance(node, ast.Raise) and node not in unseen)
    return sorted(node.lineno for node in found if not abstract(node))


def never_run(data):
    """(file, line, text) of the raises that no process of the suite ran."""
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text()
        lines = set(data.lines(str(path)) or ())
        for line in raises(ast.parse(text)):
            if line not in lines:
                yield path.relative_to(HERE), line, text.splitlines()[line - 1].strip()


def branches(measured, folder):
    """(file, taken, possible) branches of each module of the lower floors."""
    report = Path(folder) / "report.json"
    measured.json_report(outfile=str(report), include=[f"{SOURCE}/{part}" for part in LOWER_FLOORS])
    for name, entry in sorted(json.loads(report.read_text())["files"].items()):
        yield name, entry["summary"]["covered_branches"], entry["summary"]["num_branches"]


def judge(folder):
    """Print what was missed; whether nothing of weight was."""
    measured = coverage.Coverage(config_file=f"{folder}/settings")
    measured.combine()
    silent, counts = list(never_run(measured.get_data())), list(branches(measured, folder))
    for path, line, text in silent:
        print(f"{path}:{line}: never run: {text}")
    for name, taken, possible in counts:
        if taken < GOAL / 100 * possible:
            print(f"{name}: {taken} of {possible} branches")
    share = 100 * sum(count[1] for count in counts) / max(1, sum(count[2] for count in counts))
    print(
        f"{len(silent)} raises never run; {share:.1f} % of the branches of floors 0 to 2, wanted {GOAL:.0f} %"
    )
    return not silent and share >= GOAL


def main(arguments):
    """Run the suite, then judge."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder, "settings")  # a file, since that is all that forked processes hear of
        settings.write_text(SETTINGS.format(folder=folder))
        traced = [sys.executable, "-m", "coverage", "run", f"--rcfile={settings}", "-m", "pytest"]
        failed = subprocess.run([*traced, *arguments], cwd=HERE, check=False).returncode
        return 0 if judge(folder) and not failed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
