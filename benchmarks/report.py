"""``RESULTS.md`` from the records of the runs, with a plot for each scaling."""

import json
from pathlib import Path
from typing import Any

HEAD = """\
# Benchmarks

Written by `./run bench`; do not edit. Same work, same process, same threads and cores, rounds
interleaved; the ratio is the median over the rounds of (time / our time), with its range behind it:
**above 1 we are faster**. A *yardstick* does other work (one gradient, a bare matrix product) and shows
what ours costs; the others do the same work, and where one is faster the row says that we lose. Memory
is the rise of the peak of resident memory during one call. Absolute times belong to the machine and its
load at that hour; ratios are what to compare.
"""


def write(folder: Path) -> Path:
    """Write ``RESULTS.md`` and the plots from ``results/*.json``."""
    records = [json.loads(path.read_text()) for path in sorted((folder / "results").glob("*.json"))]
    lines = [HEAD, *_summary(records)]
    for record in records:
        lines += [f"\n## {record['area'].capitalize()}\n", _machine(record["machine"]), ""]
        for number, race in enumerate(record["races"]):
            lines += _race(race, f"{record['area']}-{number}")
        for number, scaling in enumerate(record["scalings"]):
            lines += _scaling(scaling, folder, f"{record['area']}-{number}")
    path = folder / "RESULTS.md"
    path.write_text("\n".join(lines).rstrip() + "\n")
    return path


def _summary(records: list[dict[str, Any]]) -> list[str]:
    """How the goals came out, those that were missed first, and the peers that are faster."""
    races = [
        (f"[{_cell(race['title'])}](#{record['area']}-{number})", race)
        for record in records
        for number, race in enumerate(record["races"])
    ]
    goals = [(link, goal) for link, race in races for goal in race.get("goals", [])]
    compared = [(link, row, race) for link, race in races for row in race["rows"][1:] if _compared(row)]
    if not races:
        return []
    met = [goal["met"] for _, goal in goals]
    lost = [entry for entry in compared if entry[1]["ratio"] < 1]
    lines = [
        f"{len(races)} races with {len(goals)} goals: {met.count(True)} met, {met.count(False)} missed, "
        f"{met.count(None)} not measured. {len(compared)} comparisons with a peer that ran; we lose "
        f"{len(lost)} of them."
    ]
    if goals:
        lines += ["", "| race | goal | found | |", "|---|---|---|---|"]
        goals.sort(key=lambda pair: {False: 0, None: 1, True: 2}[pair[1]["met"]])
        lines += [f"| {link} | {_goal(goal)} |" for link, goal in goals]
    if lost:
        lines += ["", "| race that we lose | to | our time / its time | why |", "|---|---|---|---|"]
        lines += [
            f"| {link} | {_cell(row['name'])} | {1 / row['ratio']:.3g} | {_cell(race.get('note', ''))} |"
            for link, row, race in lost
        ]
    return lines


def _compared(row: dict[str, Any]) -> bool:
    return bool(row["ratio"]) and not row.get("yardstick")


_VERDICTS = {True: "met", False: "**missed**", None: "not measured"}


def _goal(goal: dict[str, Any]) -> str:
    return f"{_cell(goal['words'])} | {_cell(goal['found'])} | {_VERDICTS[goal['met']]}"


def _machine(machine: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"{machine['date']}, {machine['processor']}, {machine['cores']} cores, {machine['threads']} "
        f"thread(s), load {machine['load at the start']} at the start, {machine['system']}; {versions}."
    )


def _race(race: dict[str, Any], anchor: str) -> list[str]:
    goals = race.get("goals", [])
    lines = [f'<a id="{anchor}"></a>\n', f"### {race['title']}\n"]
    told = [f"- Goal {_VERDICTS[goal['met']]}: {goal['words']}; found {goal['found']}" for goal in goals]
    lines += told or [f"- Goal: {race['goal'] or 'none; the row is there to compare'}"]
    lines += ["", "| contender | seconds | ratio (range) | memory MB | |", "|---|---|---|---|---|"]
    for row in race["rows"]:
        if row["status"]:
            lines.append(f"| {row['name']} | | | | {_cell(row['status'])} |")
            continue
        low, high = row["spread"] or (1.0, 1.0)
        ratio = "1" if row is race["rows"][0] else f"**{row['ratio']:.3g}** ({low:.3g} to {high:.3g})"
        memory = "" if row["megabytes"] is None else f"{row['megabytes']:.0f}"
        mark = "yardstick" if row.get("yardstick") else "we lose" if row["ratio"] < 1 else ""
        lines.append(f"| {row['name']} | {row['seconds']:.3g} | {ratio} | {memory} | {mark} |")
    lines += ["", f"Agreement: {_cell(race['agreement'])}", ""]
    return [*lines, f"Note: {race['note']}", ""] if race.get("note") else lines


def _scaling(scaling: dict[str, Any], folder: Path, name: str) -> list[str]:
    lines = [f"### {scaling['title']}\n", f"| {scaling['axis']} | contender | seconds | memory MB |"]
    lines.append("|---|---|---|---|")
    for contender, curve in scaling["curves"].items():
        for size, seconds, memory in zip(curve["sizes"], curve["seconds"], curve["megabytes"], strict=True):
            megabytes = "" if memory is None else f"{memory:.0f}"
            lines.append(f"| {size} | {contender} | {seconds:.3g} | {megabytes} |")
        if curve["status"]:
            lines.append(f"| | {contender} | | {_cell(curve['status'])} |")
    picture = _plot(scaling)
    if picture:
        (folder / "results" / f"{name}.svg").write_text(picture)
        lines += ["", f"![{scaling['title']}](results/{name}.svg)"]
    return [*lines, ""]


def _plot(scaling: dict[str, Any]) -> str:
    from fathometer.drawing import Axis, Line, Panel, Picture, to_svg

    panels = []
    for what, label in (("seconds", "seconds"), ("megabytes", "memory in MB")):
        lines = []
        for contender, curve in scaling["curves"].items():
            pairs = [
                (n, v) for n, v in zip(curve["sizes"], curve[what], strict=True) if v is not None and v > 0
            ]
            if len(pairs) > 1:
                x, y = zip(*pairs, strict=True)
                lines.append(Line(x=x, y=y, label=contender))
        if lines:
            x, y = Axis(label=scaling["axis"], scale="log"), Axis(label=label, scale="log")
            panels.append(Panel(marks=tuple(lines), x=x, y=y))
    if not panels:
        return ""
    caption = "Both axes are logarithmic: a straight line of slope k is growth with the k-th power."
    return to_svg(Picture(title=scaling["title"], caption=caption, panels=tuple(panels)))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
