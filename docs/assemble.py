"""Write the pages that are made from elsewhere: reference, command line, coverage, benchmarks.

    python docs/assemble.py

The reference pages name what ``__all__`` names; the site's builder fills them from the
docstrings. `docs/coverage.md` is the table of contents of ``docs/coverage/``.
"""

import re
import shutil
import sys
import tomllib
from importlib import import_module
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
ROOMS = {
    "spectra": "Loss surfaces: `fm.spectra`",
    "sharpness": "Sharpness: `fm.sharpness`",
    "stein": "Sample quality: `fm.stein`",
    "symmetry": "Symmetry: `fm.symmetry`",
    "approximation": "Approximation: `fm.approximation`",
    "model": "Models and loss surfaces: `fm.model`",
    "linalg": "Operators and Krylov methods: `fm.linalg`",
    "work": "Chunks, processes, budgets: `fm.work`",
    "drawing": "Pictures: `fm.drawing`",
    "papers": "The papers: `fathometer.papers`",
}
INSIDE = {"approximation": ("liang_srikant",), "stein": ("samplers", "examples")}
PAPERS = (
    "pennington_bahri_2017",
    "dinh_2017",
    "gorham_mackey_2015",
    "gorham_mackey_2017",
    "ravanbakhsh_2017",
    "liang_srikant_2017",
)


def main():
    """Write all pages."""
    sys.path.insert(0, str(ROOT / "src"))
    (DOCS / "reference").mkdir(exist_ok=True)
    for room, title in ROOMS.items():
        (DOCS / "reference" / f"{room}.md").write_text(reference(room, title), "utf-8")
    (DOCS / "reference" / "index.md").write_text(top(), "utf-8")
    (DOCS / "reference" / "cli.md").write_text(command_line(), "utf-8")
    (DOCS / "coverage.md").write_text(coverage(), "utf-8")
    benchmarks()
    if missing := sorted(page for page in pages(navigation()) if not (DOCS / page).exists()):
        sys.exit(f"zensical.toml names pages that do not exist: {', '.join(missing)}")


def navigation():
    """The tree of pages in the builder's settings."""
    return tomllib.loads((ROOT / "zensical.toml").read_text("utf-8"))["project"]["nav"]


def pages(nav):
    """The files in it; the builder does not ask whether they exist."""
    for entry in nav:
        for below in entry.values():
            yield from [below] if isinstance(below, str) else pages(below)


def reference(room, title):
    """A page that lists the public names of a room, and one block for each of its modules."""
    module = import_module(f"fathometer.{room}")
    names = [name for name in getattr(module, "__all__", ()) if name not in INSIDE.get(room, ())]
    names.sort(key=lambda name: (name[0].isupper(), name.lower()))  # what one calls, then what comes back
    listed = "\n".join(f"        - {name}" for name in names)
    lines = [f"# {title}\n", f"::: fathometer.{room}\n    options:\n      show_root_heading: false"]
    lines.append(f"      show_root_toc_entry: false\n      members:\n{listed}\n")
    for part in INSIDE.get(room, ()):
        inner = import_module(f"fathometer.{room}.{part}")
        own = getattr(inner, "__all__", None) or [
            name
            for name, value in vars(inner).items()
            if not name.startswith("_") and getattr(value, "__module__", "") == inner.__name__
        ]
        names = "\n".join(f"        - {name}" for name in own)
        lines.append(f"## `fm.{room}.{part}`\n\n::: fathometer.{room}.{part}\n    options:")
        lines.append(
            "      show_root_heading: false\n      show_root_toc_entry: false\n      heading_level: 3"
        )
        lines.append(f"      members:\n{names}\n")
    return "\n".join(lines)


def top():
    """What ``import fathometer as fm`` offers beside the rooms."""
    lines = ["# The package: `import fathometer as fm`\n"]
    lines += [f"- [{title}]({room}.md)" for room, title in ROOMS.items()]
    lines += [
        "- [Command line](cli.md)\n",
        "::: fathometer.survey.run.survey\n",
        "::: fathometer.survey.run.SurveyResult\n",
    ]
    names = ("Result", "Estimate", "Table", "Row", "load")
    lines += [
        "## Answers\n",
        *(f"::: fathometer.results.{name}\n    options:\n      heading_level: 3\n" for name in names),
    ]
    lines += ["## Errors\n", "::: fathometer.errors\n    options:\n      show_root_heading: false"]
    return "\n".join([*lines, "      show_root_toc_entry: false\n      heading_level: 3\n"])


def command_line():
    """The help of every command, as the shell shows it."""
    from typer.testing import CliRunner

    from fathometer.cli import app

    commands = [""] + [info.name for info in app.registered_commands if info.name]
    lines = ["# Command line\n", "As `fathometer COMMAND --help` prints it.\n"]
    for command in commands:
        answer = CliRunner().invoke(app, [*([command] if command else []), "--help"], prog_name="fathometer")
        lines.append(
            f"## `{' '.join(['fathometer', command]).strip()}`\n\n```text\n{answer.output.strip()}\n```\n"
        )
    return "\n".join(lines)


def coverage():
    """Where each paper's table is, with its number of rows."""
    lines = [
        "# Coverage: what of the papers is implemented, and what shows it\n",
        "Every definition, theorem, figure, table and experiment of the papers, with the function that",
        "implements it and the item (`fathometer reproduce PAPER:ITEM`) or test that shows it. Tests check:",
        "functions resolve, items and tests exist, and every item stands in a table.\n",
        "| paper | rows |",
        "|---|---|",
    ]
    order = {name: place for place, name in enumerate(PAPERS)}
    for path in sorted((DOCS / "coverage").glob("*.md"), key=lambda p: order.get(p.stem, len(order))):
        text = path.read_text("utf-8")
        title = next((line[2:].strip() for line in text.splitlines() if line.startswith("# ")), path.stem)
        rules = len(re.findall(r"^\|[\s:|-]+\|$", text, re.MULTILINE))
        rows = len(re.findall(r"^\|", text, re.MULTILINE)) - 2 * rules
        lines.append(f"| [{title}](coverage/{path.name}) | {rows} |")
    return "\n".join(lines) + "\n"


def benchmarks():
    """The results as a page of the site, with their plots."""
    results = ROOT / "benchmarks" / "RESULTS.md"
    text = results.read_text("utf-8") if results.exists() else "# Benchmarks\n\nNot run yet: `./run bench`.\n"
    (DOCS / "benchmarks.md").write_text(text.replace("](results/", "](benchmarks/"), "utf-8")
    folder = DOCS / "benchmarks"
    folder.mkdir(exist_ok=True)
    for picture in (ROOT / "benchmarks" / "results").glob("*.svg"):
        shutil.copy(picture, folder / picture.name)


if __name__ == "__main__":
    main()
