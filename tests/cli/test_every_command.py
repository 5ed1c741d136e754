"""What holds for every command, also those to come: help for all it takes, one line for a refusal."""

import pytest
import typer

from fathometer import cli


def kind(parameter):
    """The first word of a parameter's type: "int" of an int, or of click's integer range."""
    described = getattr(parameter, "type_descriptor", None)  # of the copy of click that typer may carry
    name = getattr(described.annotation, "__name__", "") if described else parameter.type.name
    return name.split()[0].removesuffix("eger")


def shown(parameter):
    """What the help calls a parameter."""
    if parameter.param_type_name == "option":
        return parameter.opts[0]
    return parameter.metavar or parameter.name.upper()


def commands(group, path=()):
    """(words, command) of every command and of every command of a group."""
    for name, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


ALL = dict(commands(typer.main.get_command(cli.app)))
OPTIONS = [
    (words, parameter)
    for words, command in ALL.items()
    for parameter in command.params
    if parameter.param_type_name == "option" and "--help" not in parameter.opts
]
each = pytest.mark.parametrize("words", list(ALL), ids=" ".join)


def test_the_commands_of_the_design_are_there():
    names = {words[0] for words in ALL}
    assert {
        "survey",
        "spectrum",
        "sharpness",
        "stein",
        "symmetry",
        "approximate",
        "launch",
        "resume",
    } <= names


@each
def test_the_help_explains_every_argument_and_option(call, words):
    answer = call(*words, "--help")
    assert (answer.code, answer.err) == (0, "")
    assert ALL[words].help.splitlines()[0].endswith((".", "?"))
    for parameter in ALL[words].params:
        name = shown(parameter)
        assert name in answer.out, f"{' '.join(words)} --help says nothing of {name}"
        assert getattr(parameter, "help", "x"), f"{' '.join(words)}: {name} has no help"
    assert max(map(len, answer.out.splitlines())) <= 100


@each
def test_an_unknown_option_is_named_in_one_line(call, words):
    answer = call(*words, "--sound-of-the-sea")
    assert answer.code == 2
    said = answer.message or answer.err  # launch says it through the process that it started
    assert "--sound-of-the-sea" in said
    assert said.strip().count("\n") == 0


@pytest.mark.parametrize(
    ("words", "option"),
    [(w, p) for w, p in OPTIONS if kind(p) in ("int", "float")],
    ids=lambda x: " ".join(x) if isinstance(x, tuple) else x.opts[0],
)
def test_words_are_no_numbers(call, words, option):
    needed = ["x" for p in ALL[words].params if p.param_type_name == "argument" and p.required]
    answer = call(*words, option.opts[0], "many", *needed)
    assert answer.code == 2
    assert option.opts[0] in answer.message
