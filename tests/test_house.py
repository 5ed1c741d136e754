"""What holds for the whole house: light imports, quick help, names that resolve, small modules."""

import ast
import io
import os
import subprocess
import sys
import tokenize
from functools import cache
from pathlib import Path

import pytest

import fathometer

SOURCE = Path(fathometer.__file__).parent
MODULES = sorted(SOURCE.rglob("*.py"))
HEAVY = ("torch", "numpy", "scipy", "numba", "matplotlib", "jinja2", "safetensors", "rich")


@cache
def tree(path):
    """The syntax tree of a module."""
    return ast.parse(path.read_text())


def loaded_by(code):
    """The heavy packages that a fresh interpreter has loaded after the code."""
    report = f"import sys; [print(name) for name in {HEAVY!r} if name in sys.modules]"
    program = f"{code}\n{report}"
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()


def test_importing_the_package_loads_nothing_heavy():
    assert loaded_by("import fathometer") == []


def test_the_help_loads_nothing_heavy():
    start = "import contextlib, io, fathometer.cli as c\n"
    quiet = start + "with contextlib.redirect_stdout(io.StringIO()): c.run({!r})"
    for arguments in (["--help"], ["survey", "--help"], ["--deep"]):
        assert loaded_by(quiet.format(arguments)) == []


def test_help_takes_less_than_a_fifth_of_a_second_of_processor_time():
    resource = pytest.importorskip("resource")

    def spent():
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    plain = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE")}
    times = []
    for _ in range(6):  # the best of several: other programs can only make it slower
        before = spent()
        subprocess.run(
            [sys.executable, "-m", "fathometer", "--help"], capture_output=True, check=True, env=plain
        )
        times.append(spent() - before)
        if times[-1] < 0.2:
            break
    assert min(times) < 0.2, times


def test_every_public_name_resolves():
    for name in fathometer.__all__:
        assert getattr(fathometer, name) is not None
    assert sorted(dir(fathometer)) == sorted(fathometer.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'sonar'"):
        _ = fathometer.sonar


@pytest.mark.parametrize(
    "room",
    [
        "spectra",
        "sharpness",
        "stein",
        "symmetry",
        "approximation",
        "linalg",
        "model",
        "work",
        "drawing",
        "calculus",
        "survey",
    ],
)
def test_every_name_of_a_room_resolves(room):
    module = __import__(f"fathometer.{room}", fromlist=["x"])
    assert module.__doc__
    for name in getattr(module, "__all__", ()):
        assert hasattr(module, name), f"{room}.{name}"


def raised(module):
    """(line, name) of every class that a module raises by name."""
    for node in ast.walk(module):
        if isinstance(node, ast.Raise) and node.exc is not None:
            target = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            if isinstance(target, ast.Name | ast.Attribute):
                yield node.lineno, target.id if isinstance(target, ast.Name) else target.attr


def test_only_our_own_errors_are_raised():
    # protocols of the language (attributes, keys, iteration, abstract methods) have errors of their own
    allowed = {
        "InputError",
        "CapabilityError",
        "BudgetError",
        "AttributeError",
        "KeyError",
        "IndexError",
        "StopIteration",
        "NotImplementedError",
    }
    builtins = {
        name for name in dir(__import__("builtins")) if name.endswith(("Error", "Exception", "Iteration"))
    }
    wrong = [
        f"{path.relative_to(SOURCE)}:{line} {name}"
        for path in MODULES
        for line, name in raised(tree(path))
        if name in builtins - allowed
    ]
    assert wrong == []


def test_the_library_does_not_print_or_exit():
    wrong = []
    for path in MODULES:
        if "cli" in path.parts or path.name == "__main__.py":
            continue
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("print", "exit", "quit"):
                wrong.append(f"{path.relative_to(SOURCE)}:{node.lineno}")
    assert wrong == []


def test_global_generators_are_only_touched_where_they_are_put_back():
    names = {"manual_seed", "seed", "set_rng_state"}
    wrong = []
    for path in MODULES:
        text = path.read_text()
        for node in ast.walk(tree(path)):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in names
            ):
                owner = ast.unparse(node.func.value)
                kept = "unchanged_random_state" in text  # puts them back
                if owner in ("torch", "np.random", "numpy.random", "random") and not kept:
                    wrong.append(f"{path.relative_to(SOURCE)}:{node.lineno} {owner}.{node.func.attr}")
    assert wrong == []


def test_every_module_says_what_it_is():
    silent = [str(path.relative_to(SOURCE)) for path in MODULES if not ast.get_docstring(tree(path))]
    assert silent == []


def test_there_is_no_attic():
    attics = {"utils", "helpers", "base", "common", "misc"}
    assert [str(path) for path in MODULES if path.stem in attics or attics & set(path.parts)] == []


# A module may be longer where its docstring gives the reason in a sentence with these words.
REASON = "one module because"
LINES, CODE = 500, 60


def test_no_module_is_long_without_a_reason():
    long = {
        str(path.relative_to(SOURCE)): count
        for path in MODULES
        if (count := len(path.read_text().splitlines())) > LINES
        and REASON not in " ".join((ast.get_docstring(tree(path)) or "").split())
    }
    assert long == {}


def code_lines(text):
    """Numbers of the lines that hold code: neither blank nor only a comment."""
    empty = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    return {
        line
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in empty
        for line in range(token.start[0], token.end[0] + 1)
    }


def functions(module, text):
    """(name, lines of code without the docstring) of every function."""
    code = code_lines(text)
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            own = code & set(range(node.lineno, node.end_lineno + 1))
            if ast.get_docstring(node):
                own -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
            yield node.name, len(own)


def test_no_function_is_long():
    counted = [
        (size, f"{path.relative_to(SOURCE)}: {name}")
        for path in MODULES
        for name, size in functions(tree(path), path.read_text())
    ]
    assert len(counted) > 1500
    assert [entry for entry in counted if entry[0] > CODE] == []


def test_the_count_leaves_out_what_is_not_code():
    text = 'def f(a):\n    """Two\n    lines."""\n    # why\n\n    b = (\n        a\n    )\n    return b\n'
    assert list(functions(ast.parse(text), text)) == [("f", 5)]


def test_every_refusal_is_tested_with_its_words():
    # the types of the language say all themselves; ours say it in words
    ours = {"InputError", "CapabilityError", "BudgetError", "FathometerError", "ValueError", "RuntimeError"}
    seen, silent = 0, []
    for path in sorted(Path(__file__).parent.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.raises":
                kinds = {name.id for name in ast.walk(node.args[0]) if isinstance(name, ast.Name)}
                kinds |= {name.attr for name in ast.walk(node.args[0]) if isinstance(name, ast.Attribute)}
                seen += bool(kinds & ours)
                if kinds & ours and not any(word.arg == "match" for word in node.keywords):
                    silent.append(f"{path.name}:{node.lineno}")
    assert seen > 250
    assert silent == []
