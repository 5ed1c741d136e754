"""The command line: reads arguments and files, calls one public function, prints its answer.

Nothing heavy is imported before a command runs, so ``--help`` answers at once. This is
the only floor that prints and exits: an error of the package becomes one line on stderr
and an exit code (2: the request is wrong; 3: it cannot be done here).
"""

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import typer

from fathometer.cli import approximate, launch, reproduce, sharpness, spectrum, stein, survey, symmetry
from fathometer.errors import FathometerError, InputError, TheoryWarning

# typer carries a copy of click or imports it, depending on its version
_CLICK_ERROR: Any = next(cls for cls in typer.BadParameter.__mro__ if "ClickException" in cls.__name__)
_GROUPS = (survey, spectrum, sharpness, stein, symmetry, approximate, reproduce, launch)

app = typer.Typer(
    name="fathometer",
    help="Sound the depths of deep networks: five instruments and one survey.",
    epilog="exit codes: 0 done, 2 the request is wrong, 3 it cannot be done here; stderr says why",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
for _group in _GROUPS:
    _group.add_to(app)


def _version(show: bool) -> None:
    if show:
        from fathometer import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Sound the depths of deep networks: five instruments and one survey."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code.

    Args:
        arguments: What follows ``fathometer``; from the shell if None.
    """
    # Read once, when torch is imported: threads that wait must not take the processor from other programs.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    given = list(sys.argv[1:] if arguments is None else arguments)
    code, message = run(given or ["--help"])
    if message and not launch.report(message):
        print(f"fathometer: {message}", file=sys.stderr)
    launch.leave(code)


def run(arguments: Sequence[str]) -> tuple[int, str]:
    """The exit code of a command, and the line that explains a failure."""
    try:
        with warnings.catch_warnings(), launch.joined():
            warnings.showwarning = _say_warning
            status = app(args=list(arguments), prog_name="fathometer", standalone_mode=False)
    except _CLICK_ERROR as refusal:
        return 2, " ".join(refusal.format_message().split())
    except InputError as refusal:
        return 2, str(refusal)
    except FathometerError as refusal:
        return 3, str(refusal)
    except (KeyboardInterrupt, typer.Abort):
        return 130, "interrupted"
    return status if isinstance(status, int) else 0, ""


def _say_warning(message: Warning | str, category: type[Warning], *_: Any) -> None:
    label = "theory" if issubclass(category, TheoryWarning) else "note"
    print(f"fathometer: {label}: {' '.join(str(message).split())}", file=sys.stderr)
