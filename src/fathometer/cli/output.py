"""What a command prints: results for people or one JSON object, and progress on stderr."""

import json
import math
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from fathometer.types import Progress

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def emit(command: str, answers: Mapping[str, Any], as_json: bool) -> None:
    """Print the answers of a command; in a launched run the first process does it.

    With ``as_json`` each answer is its plain fields; numbers that JSON lacks are the texts
    "NaN", "Infinity" and "-Infinity".
    """
    from fathometer.work import rank

    if rank() > 0:
        return
    if as_json:
        from fathometer import __version__

        whole = {"command": command, "version": __version__, **{k: _plain(v) for k, v in answers.items()}}
        print(json.dumps(_finite(whole), allow_nan=False))
        return
    for answer in answers.values():
        print(answer)


def _plain(answer: Any) -> Any:
    from fathometer.results import Result

    if not isinstance(answer, Result):
        return answer
    fields = answer.to_dict()
    headline = {name: getattr(answer, name, None) for name in ("value", "kind", "error")}
    rest = {name: value for name, value in headline.items() if name not in fields}
    return {"type": type(answer).__name__, **rest, **fields}


def _finite(value: Any) -> Any:
    """The value without arrays and without numbers that JSON lacks."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, complex):
        return [_finite(value.real), _finite(value.imag)]
    if isinstance(value, Mapping):
        return {str(name): _finite(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return value if value is None or isinstance(value, str | int | float) else str(value)


@contextmanager
def progress_display() -> Generator[Progress, None, None]:
    """A progress callback that draws on stderr: a bar on a terminal, else a line a stage."""
    if not sys.stderr.isatty():
        yield _Stages()
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task("", total=None)

        def draw(done: int, total: int, what: str) -> None:
            # what stands in brackets would be taken for markup
            bars.update(bar, completed=done, total=total or None, description=what.replace("[", r"\["))

        yield draw


class _Stages:
    """One line on stderr for each new stage, with the seconds since the start."""

    def __init__(self) -> None:
        self._start, self._stage = time.perf_counter(), ""

    def __call__(self, done: int, total: int, what: str) -> None:
        stage = what.partition(":")[0]
        if stage and stage != self._stage:
            self._stage = stage
            print(f"{time.perf_counter() - self._start:6.1f} s  {stage}", file=sys.stderr, flush=True)
