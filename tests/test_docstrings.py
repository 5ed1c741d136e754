"""Every public name explains itself: what it takes, what its fields are, which errors it raises."""

import ast
import dataclasses
import inspect
import re
import textwrap
from importlib import import_module

import pytest
import torch

ROOMS = (
    "spectra",
    "sharpness",
    "stein",
    "symmetry",
    "approximation",
    "survey",
    "model",
    "linalg",
    "calculus",
    "work",
    "drawing",
)
OURS = {"InputError", "CapabilityError", "BudgetError"}
METHODS = ("spectra", "sharpness", "stein", "symmetry", "approximation", "linalg")
WITHOUT_SOURCE = {
    "spectra.zero_modes": "a list of causes, each shown by a product",
    "sharpness.audit": "the measures, taken again",
    "sharpness.measures": "the measures, collected",
    "sharpness.units": "follows from the operations of the graph",
    "sharpness.watch": "the measures, while training",
    "stein.doors": "reads files and foreign objects",
    "stein.gradients": "the product rule, derived where it stands",
    "stein.scores": "automatic differentiation",
    "stein.tilts": "the product rule, derived where it stands",
    "symmetry.discovery": "a rule of its own, explained where it stands",
    "symmetry.equivariance": "the definition",
    "symmetry.lazy": "derived where it stands",
    "symmetry.measure": "the mean over a group",
    "symmetry.meter": "a rule of its own, explained where it stands",
    "symmetry.network": "the definition, layer by layer",
    "symmetry.pairs": "facts of permutation groups",
    "symmetry.spoken": "reads a text",
    "approximation.certificates": "ball arithmetic, explained where it stands",
    "approximation.segments": "derived where it stands",
    "approximation.training": "plain training",
    "linalg.operator": "the definition",
}
"""Modules whose public names need no publication, and what stands in its place."""


def entries(text, section):
    """The names that a section of a docstring explains; None where there is no such section."""
    found = re.search(rf"^{section}:\n((?:[ ]+.*\n?|\n)*)", text, re.MULTILINE)
    if not found:
        return None
    heads = re.findall(r"^    (\S[^:]*)", found.group(1), re.MULTILINE)
    return {part.strip("*` ") for head in heads for part in re.split(r",| and |/", head)}


def mentions(text, name):
    return re.search(rf"(?<![\w.]){re.escape(name)}(?!\w)", text) is not None


def raised(function):
    """The errors of ours that the function itself raises."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    calls = (node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise))
    names = {node.func.id for node in calls if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    return names & OURS


def gaps(function, where):
    """What the docstring of a function leaves open."""
    text = inspect.getdoc(function) or ""
    if not text:
        yield f"{where}: no docstring"
        return
    takes = [n for n in inspect.signature(function).parameters if n not in ("self", "cls") and n.strip("_")]
    listed = entries(text, "Args")
    silent = [n for n in takes if not (mentions(text, n) if listed is None else n in listed)]
    if silent:
        yield f"{where}: says nothing of {', '.join(silent)}"
    if unknown := sorted((listed or set()) - set(takes)):
        yield f"{where}: explains {', '.join(unknown)}, which it does not take"
    if shapeless(function):
        yield f"{where}: returns {function.__annotations__['return']} of a shape that it does not say"
    if unsaid := sorted(raised(function) - (entries(text, "Raises") or set())):
        yield f"{where}: raises {', '.join(unsaid)}, and does not say so"


def shapeless(function):
    """Whether it returns arrays of which neither the type nor the docstring says the shape."""
    kind, text = str(function.__annotations__.get("return", "")), inspect.getdoc(function) or ""
    if not re.search("Tensor|ndarray", kind) or re.search(r"Float|Int|Bool|dict\[", kind):
        return False
    words = r"0-d|any shape|in its shape|same shape|same kind|scalar|vector|matrix"
    return not re.search(rf"\([^()]*\b\w+(, [^()]*)?,?\)|{words}", text)


def parts(owner, where):
    """The public methods of a class, and what can be computed from it."""
    for name, value in vars(owner).items():
        function = getattr(value, "__func__", value)
        if not name.startswith("_") and inspect.isfunction(function):
            yield from gaps(getattr(owner, name), f"{where}.{name}")
        elif not name.startswith("_") and isinstance(value, property) and not inspect.getdoc(value):
            yield f"{where}.{name}: no docstring"


def gaps_of_class(owner, where):
    """What the docstring of a class leaves open, and those of its methods."""
    text = inspect.cleandoc(vars(owner).get("__doc__") or "")
    if not text or text.startswith(f"{owner.__name__}("):  # the second is what dataclasses write
        yield f"{where}: no docstring"
    elif dataclasses.is_dataclass(owner):
        own = [f.name for f in dataclasses.fields(owner) if f.name in vars(owner).get("__annotations__", {})]
        silent = [name for name in own if not name.startswith("_") and not mentions(text, name)]
        if silent:
            yield f"{where}: says nothing of its fields {', '.join(silent)}"
    elif "__init__" in vars(owner):
        text += inspect.cleandoc(owner.__init__.__doc__ or "")
        takes = [name for name in inspect.signature(owner.__init__).parameters if name != "self"]
        if silent := [name for name in takes if not mentions(text, name)]:
            yield f"{where}: says nothing of {', '.join(silent)}"
    yield from parts(owner, where)


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_says_what_it_takes_and_raises(room):
    module = import_module(f"fathometer.{room}")
    found, looked_at = [], 0
    for name in module.__all__:
        thing = getattr(module, name)
        looked_at += 1
        if inspect.isclass(thing):
            found += gaps_of_class(thing, name)
        elif inspect.isfunction(thing):
            found += gaps(thing, name)
    assert looked_at == len(module.__all__) > 0
    assert not found, "\n".join(found)


def sources(room):
    """Module of each public name of a room, and whether its docstring or the module's names a year."""
    for name in import_module(f"fathometer.{room}").__all__:
        thing = getattr(import_module(f"fathometer.{room}"), name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            module = thing.__module__.removeprefix("fathometer.")
            if not module.startswith("model."):  # a floor below the rooms
                text = f"{inspect.getdoc(thing)} {inspect.getdoc(import_module(thing.__module__))}"
                yield module, name, re.search(r"\b(1[6-9]|20)\d\d\b", text) is not None


def test_methods_name_their_source_or_why_there_is_none():
    found = [entry for room in METHODS for entry in sources(room)]
    silent = sorted({f"{m}: {name}" for m, name, said in found if not said and m not in WITHOUT_SOURCE})
    assert not silent, f"no author and year in the docstring or its module's: {', '.join(silent)}"
    idle = set(WITHOUT_SOURCE) - {module for module, _, said in found if not said}
    assert not idle, f"they name a source now: {', '.join(sorted(idle))}"


def test_the_check_sees_gaps():
    def function(first, second):
        """Take ``first``."""
        from fathometer.errors import InputError

        raise InputError(f"{first} {second}")

    assert list(gaps(function, "f")) == [
        "f: says nothing of second",
        "f: raises InputError, and does not say so",
    ]

    def array(n: int) -> torch.Tensor:
        """A tensor of ``n`` numbers."""
        return torch.zeros(n)

    assert list(gaps(array, "f")) == ["f: returns <class 'torch.Tensor'> of a shape that it does not say"]
    array.__doc__ = "A tensor (n,) of ``n`` numbers."
    assert list(gaps(array, "f")) == []

    @dataclasses.dataclass
    class Plain:
        size: int

        def grow(self, by):
            return by

    assert list(gaps_of_class(Plain, "P")) == ["P: no docstring", "P.grow: no docstring"]
    Plain.__doc__ = "A thing of its height."
    assert next(gaps_of_class(Plain, "P")) == "P: says nothing of its fields size"
