"""Run the races of some areas or of all: ``python -m benchmarks [AREA ...] [--threads N]``.

Each area's records go to ``benchmarks/results/<area>.json``; ``RESULTS.md`` is written anew
from all of them, so that an area can be run alone. Exit code 1: an answer disagrees.
"""

import argparse
import json
import os
import platform
import sys
import time
from datetime import UTC, datetime
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
AREAS = ("spectra", "sharpness", "stein", "symmetry", "approximation", "scaling")


def main() -> int:
    """Run, record, write; 1 if an answer disagrees or one of ours failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("areas", nargs="*", metavar="AREA", help=f"of {', '.join(AREAS)}; all if none")
    parser.add_argument("--threads", type=int, default=1, help="threads and cores of every contender")
    parser.add_argument("--peers", action="store_true", help="only print the peers' pip requirements")
    parser.add_argument("--write", action="store_true", help="only write RESULTS.md from the records")
    options = parser.parse_args()
    areas = options.areas or [area for area in AREAS if (HERE / f"{area}.py").exists()]
    if unknown := sorted(set(areas) - set(AREAS)):
        parser.error(f"unknown area {', '.join(unknown)}; there is {', '.join(AREAS)}")
    if options.peers:
        print("\n".join(requirement for area in areas for requirement in _peers(area)))
        return 0
    verdicts = [] if options.write else [_run(area, options.threads) for area in areas]
    from benchmarks.report import write

    write(HERE)
    return 0 if all(verdicts) else 1


def _peers(area: str) -> list[str]:
    return list(getattr(import_module(f"benchmarks.{area}"), "PEERS", []))


def _run(area: str, threads: int) -> bool:
    from benchmarks.race import run_race, run_scaling

    _hold_threads(threads)
    module = import_module(f"benchmarks.{area}")
    record: dict[str, Any] = {"area": area, "machine": _machine(area, threads), "races": [], "scalings": []}
    started = time.perf_counter()
    file = HERE / "results" / f"{area}.json"
    file.parent.mkdir(exist_ok=True)
    works = [("races", run_race, one) for one in getattr(module, "races", list)()]
    works += [("scalings", run_scaling, one) for one in getattr(module, "scalings", list)()]
    for kind, run, one in works:
        print(f"{area}: {one.title}", file=sys.stderr, flush=True)
        record[kind].append(run(one))
        record["machine"]["minutes"] = round((time.perf_counter() - started) / 60, 1)
        file.write_text(json.dumps(record, indent=1) + "\n")  # after each: a stopped run keeps what it has
    return all(race["agreed"] for race in record["races"])


def _hold_threads(count: int) -> None:
    """The same cores for all: libraries that ignore the thread settings are held by affinity."""
    import torch

    torch.set_num_threads(count)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-count:])


def _machine(area: str, threads: int) -> dict[str, Any]:
    names = ["torch", "numpy", "scipy", "numba", *(_distribution(r) for r in _peers(area))]
    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    load = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "load at the start": load,
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": versions,
    }


def _distribution(requirement: str) -> str:
    for mark in "<>=!~[; @":
        requirement = requirement.partition(mark)[0]
    return requirement.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
