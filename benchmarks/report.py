"""``RESULTS.md`` from the records of the runs, with a plot for each scaling."""

import json
from pathlib import Path
from typing import Any

HEAD = """\
# Benchmarks

Written by `./run bench`; do not edit. Same work, same process, same threads and cores, rounds
interleaved; the ratio is the median over the rounds of (time / our time), with its range behind it: **above 1
we are faster**, below 1 we lose. Memory is the rise of the peak of resident memory during one call. Absolute
times belong to the machine and its load at that hour; ratios are what to compare.
"""


def write(folder: Path) -> Path:
    """Write ``RESULTS.md`` and the plots from ``results/*.json``."""
    records = [json.loads(path.read_text()) for path in sorted((folder / "results").glob("*.json"))]
    lines = [HEAD, *_summary(records)]
    for record in records:
        lines += [f"\n## {record['area'].capitalize()}\n", _machine(record["machine"]), ""]
        for race in record["races"]:
            lines += _race(race)
        for number, scaling in enumerate(record["scalings"]):
            lines += _scaling(scaling, folder, f"{record['area']}-{number}")
    path = folder / "RESULTS.md"
    path.write_text("\n".join(lines).rstrip() + "\n")
    return path


def _summary(records: list[dict[str, Any]]) -> list[str]:
    races = [race for record in records for race in record["races"]]
    ratios = [row["ratio"] for race in races for row in race["rows"][1:] if row["ratio"]]
    if not ratios:
        return []
    lost = sum(ratio < 1 for ratio in ratios)
    return [f"{len(races)} races, {len(ratios)} comparisons with a peer that ran; we lose {lost} of them."]


def _machine(machine: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"{machine['date']}, {machine['processor']}, {machine['cores']} cores, {machine['threads']} "
        f"thread(s), load {machine['load at the start']} at the start, {machine['system']}; {versions}."
    )


def _race(race: dict[str, Any]) -> list[str]:
    lines = [f"### {race['title']}\n", f"Goal: {race['goal']}", ""]
    lines += ["| contender | seconds | ratio (range) | memory MB | |", "|---|---|---|---|---|"]
    for row in race["rows"]:
        if row["status"]:
            lines.append(f"| {row['name']} | | | | {_cell(row['status'])} |")
            continue
        low, high = row["spread"] or (1.0, 1.0)
        ratio = "1" if row is race["rows"][0] else f"**{row['ratio']:.3g}** ({low:.3g} to {high:.3g})"
        memory = "" if row["megabytes"] is None else f"{row['megabytes']:.0f}"
        lost = "we lose" if row["ratio"] < 1 else ""
        lines.append(f"| {row['name']} | {row['seconds']:.3g} | {ratio} | {memory} | {lost} |")
    return [*lines, "", f"Agreement: {_cell(race['agreement'])}", ""]


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
