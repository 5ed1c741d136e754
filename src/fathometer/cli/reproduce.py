"""``fathometer reproduce``: the papers, rebuilt and judged."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from fathometer.cli.launch import RunDir, remember
from fathometer.cli.models import Seed
from fathometer.cli.output import AsJson, emit


def add_to(app: typer.Typer) -> None:
    """Hang the command into the tree."""
    app.command("reproduce", short_help="Rebuild figures, tables and theorems of the papers.")(reproduce)


def reproduce(
    what: Annotated[
        list[str] | None, typer.Argument(metavar="[list | all | PAPER[:ITEM]]...", help="What to rebuild.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="At the published sizes; some take hours.")] = False,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for the outcomes and the page that shows them.")
    ] = Path("gallery"),
    markdown: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the pages as Markdown with SVG files, too.")
    ] = None,
    run_dir: RunDir = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> int:
    """Rebuild figures, tables, theorems and experiments of the papers, with a verdict for each.

    One line an item: pass or FAIL, how many of its claims hold, which do not. The page
    index.html in the folder of --out shows all outcomes that the folder holds.

    \b
    examples:
      fathometer reproduce list
      fathometer reproduce dinh_2017
      fathometer reproduce all --run-dir runs/papers
    exit codes: 0 all claims hold, 1 some do not, 2 the request is wrong, 3 it cannot be done here
    """  # noqa: D301 - \b keeps the lines of the examples apart
    from fathometer.papers import catalog

    wanted = what or ["list"]
    if "list" in wanted:
        return _list(catalog.entries().values(), as_json)
    items = catalog.choose(wanted)
    command = ["reproduce", *wanted, *["--full"] * full, "--out", out, "--seed", seed]
    command += ["--markdown", markdown] if markdown else []
    command += ["--run-dir", run_dir, *["--json"] * as_json]
    remember(run_dir, command)

    from fathometer.papers.gallery import gallery, verdict, write_markdown
    from fathometer.papers.run import reproduce as rebuild
    from fathometer.papers.run import save, saved
    from fathometer.work import rank

    first = rank() == 0  # asked here, because a task runs alone

    def tell(outcome: Any) -> None:
        if first:
            save(outcome, out)
            print(outcome, file=sys.stderr if as_json else sys.stdout, flush=True)

    outcomes = rebuild(items, full=full, seed=seed, run_dir=run_dir, each=tell)
    page = out / "index.html"
    if first:
        page.write_text(gallery(saved(out)), "utf-8")
        if markdown:
            write_markdown(saved(out), markdown)
    passed = sum(outcome.passed for outcome in outcomes)
    if as_json:
        facts = {"passed": passed, "failed": len(outcomes) - passed, "gallery": str(page)}
        emit("reproduce", {"items": [_plain(outcome) for outcome in outcomes], **facts}, as_json=True)
    else:
        emit("reproduce", {"summary": f"{verdict(outcomes)} The page: {page}"}, as_json=False)
    return 0 if passed == len(outcomes) else 1


def _list(entries: Any, as_json: bool) -> int:
    rows = [{"item": e.key, "seconds": e.seconds, "title": e.title, "larger": e.larger} for e in entries]
    if as_json:
        emit("reproduce", {"items": rows}, as_json=True)
        return 0
    width = max((len(row["item"]) for row in rows), default=0)
    for row in rows:
        print(f"{row['item']:<{width}}  {row['seconds']:5.0f} s{'+' * row['larger']:1}  {row['title']}")
    minutes = sum(row["seconds"] for row in rows) / 60
    print(f"{len(rows)} items, about {minutes:.0f} minutes in all; +: larger with --full")
    return 0


def _plain(outcome: Any) -> dict[str, Any]:
    """An outcome for machines: verdicts and numbers, without the pictures."""
    fields = outcome.to_dict()
    return {k: v for k, v in fields.items() if k not in ("pictures", "explanation")} | {
        "passed": outcome.passed
    }
