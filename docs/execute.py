"""Run every Python block of the README, the guides and the tutorial, and every example script.

    python docs/execute.py [PAGE.md | SCRIPT.py ...]

The blocks of a page run in order, as one program, in an empty folder. A block that follows
the comment ``<!-- not run: why -->`` is left out. Every line of a ``text`` block must have been printed
by the program, numbers aside (they differ in the last digits from machine to machine) and up to
three dots. What fails is shown with the line of the page it stands on; exit code 1.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 600.0
_SHOWN = re.compile(r"^```text\n(.*?)^```", re.MULTILINE | re.DOTALL)
_NUMBER = re.compile(r"-?\d[\d.,]*(e[+-]?\d+)?")
_BLOCK = re.compile(r"(<!-- not run[^>]*-->\s*\n)?^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def program(page):
    """The blocks of a page as one program; line numbers are those of the page."""
    text = page.read_text("utf-8")
    lines = [""] * (text.count("\n") + 2)
    for block in _BLOCK.finditer(text):
        if block.group(1):
            continue
        first = text.count("\n", 0, block.start(2))
        for number, line in enumerate(block.group(2).splitlines()):
            lines[first + number] = line
    return "\n".join(lines)


def unprinted(page, output):
    """Lines that a page shows as output and that the program did not print, numbers aside."""

    def words(line):
        return " ".join(_NUMBER.sub("#", line).split())

    printed = {words(line) for line in output.splitlines()}
    shown = [line for block in _SHOWN.findall(page.read_text("utf-8")) for line in block.splitlines()]
    for line in shown:
        start = words(line.partition("...")[0])
        if not any(said.startswith(start) if "..." in line else said == start for said in printed):
            yield line


def run(path):
    """Run a page or a script in an empty folder; what it wrote on failure, and the seconds."""
    code = program(path) if path.suffix == ".md" else path.read_text("utf-8")
    if not code.strip():
        return "", 0.0
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, path.with_suffix(".py").name)
        file.write_text(code, "utf-8")
        for beside in path.parent.glob("*.py") if path.suffix == ".py" else ():
            if beside != path:  # examples may use each other
                Path(folder, beside.name).write_text(beside.read_text("utf-8"), "utf-8")
        try:
            done = subprocess.run(
                [sys.executable, file.name],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                timeout=LIMIT,
                check=False,
            )
            report = "" if done.returncode == 0 else done.stdout[-2000:] + done.stderr[-4000:]
            if not report and path.suffix == ".md":
                report = "\n".join(f"it does not print: {line}" for line in unprinted(path, done.stdout))
        except subprocess.TimeoutExpired:
            report = f"took more than {LIMIT:.0f} s"
    return report, time.perf_counter() - start


def main():
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    scripts = sorted((ROOT / "examples").glob("*.py"))
    chosen = [Path(name).resolve() for name in sys.argv[1:]] or [*pages, *scripts]
    failed = 0
    for path in chosen:
        report, seconds = run(path)
        if report or seconds:
            verdict = "FAIL" if report else "ok  "
            print(f"{verdict}  {os.path.relpath(path, ROOT)}  {seconds:.1f} s", flush=True)
        if report:
            failed += 1
            print(report, flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
