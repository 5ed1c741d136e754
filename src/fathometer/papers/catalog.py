"""What there is to reproduce, read from the source text.

A list comes at once, because no paper is imported for it: the modules, and torch with
them, are imported when their items run. A paper that is broken does not hide the others.
"""

import ast
import dataclasses
import difflib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from fathometer.errors import InputError

_HERE = Path(__file__).parent
_OWN = ("__init__", "item", "catalog", "run", "gallery", "pages")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """An item as the source text announces it.

    Attributes:
        paper: Name of the paper's module.
        name: Name within the paper.
        title: What the reader finds there in the paper.
        seconds: About how long the default size takes on two cores.
        module: Where the function is.
        larger: Whether the published size is more than the default one (``--full`` makes a difference).
    """

    paper: str
    name: str
    title: str
    seconds: float
    module: str
    larger: bool = False

    @property
    def key(self) -> str:
        """``paper:name``."""
        return f"{self.paper}:{self.name}"


@cache
def entries() -> dict[str, Entry]:
    """Every item of every paper by its key, read from the sources without importing them.

    Raises:
        InputError: If two items have one key.
    """
    found: dict[str, Entry] = {}
    for path in sorted(_HERE.rglob("*.py")):
        place = path.relative_to(_HERE).with_suffix("").parts
        if place[0] in _OWN:
            continue
        parts = place[:-1] if place[-1] == "__init__" else place
        module = ".".join(("fathometer", "papers", *parts))
        for name, title, seconds, larger in _announced(path):
            entry = Entry(
                paper=place[0], name=name, title=title, seconds=seconds, module=module, larger=larger
            )
            if entry.key in found:
                raise InputError(f"item is {entry.key!r} twice; names within a paper differ.")
            found[entry.key] = entry
    return found


def _announced(path: Path) -> Iterator[tuple[str, str, float, bool]]:
    """Name, title and seconds of each ``@item(...)`` in a file, and whether it reads ``full``."""
    for node in ast.parse(path.read_text("utf-8")).body:
        for mark in getattr(node, "decorator_list", ()):
            if isinstance(mark, ast.Call) and getattr(mark.func, "id", "") == "item":
                name, title = (ast.literal_eval(part) for part in mark.args)
                nodes = (n for n in ast.walk(node) if isinstance(n, ast.Name))
                names = {n.id for n in nodes if isinstance(n.ctx, ast.Load)}
                yield name, title, float(ast.literal_eval(mark.keywords[0].value)), "full" in names


def choose(wanted: Sequence[str]) -> tuple[Entry, ...]:
    """The items that are meant: ``all``, the name of a paper, or ``paper:item``.

    Raises:
        InputError: If there is no such paper or item; it names the nearest.
    """
    known = entries()
    chosen: dict[str, Entry] = {}
    for word in wanted:
        fitting = {key: e for key, e in known.items() if word in ("all", e.paper, key)}
        if not fitting:
            names = [*known, *{e.paper for e in known.values()}]
            near = difflib.get_close_matches(word, names, n=3, cutoff=0.4)
            hint = f"; near it: {', '.join(near)}" if near else ""
            raise InputError(f"there is no paper or item {word!r}{hint}. Name one that 'list' shows.")
        chosen |= fitting
    return tuple(chosen.values())
