"""Independent tasks, shared over the processes and resumed after a kill.

The tasks that are not recorded yet are dealt out in turn. Each process appends its
results to a `Ledger` of its own in the run's folder; the union of all ledgers is what
is done, whatever number of processes wrote them. A task runs alone: sums inside it are
not shared. Its result must not depend on which process computes it.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from fathometer.errors import InputError
from fathometer.results import pack, unpack
from fathometer.types import Progress
from fathometer.work.ledger import Ledger
from fathometer.work.progress import silent
from fathometer.work.ranks import alone, exchange, rank, world

Item = TypeVar("Item")


def task_map(
    fn: Callable[[Item], Any],
    items: Iterable[Item],
    *,
    run_dir: str | Path | None = None,
    name: str = "tasks",
    key: str = "",
    progress: Progress | None = None,
) -> list[Any]:
    """``[fn(item) for item in items]``, shared over the processes and resumable.

    Args:
        fn: The task. Its result is a number, text, an array, a result of this package, or
            lists, tuples and dictionaries of them.
        items: What the tasks are done on; the same, in the same order, in every process.
        run_dir: Folder for the ledgers. The same call with the same folder goes on where
            the last one ended, also after kill -9. All processes must see this folder.
        name: Name of the tasks: of their ledgers, and for progress.
        key: What the results depend on, such as the hash of a manifest; a folder that was
            begun with another key, name or number of tasks is refused.
        progress: Called in the first process with (done, total, name).

    Returns:
        The results in the order of the items, in every process. With ``run_dir`` or several
        processes they have passed through the file format: fields that are not saved are None.

    Raises:
        InputError: If the folder holds another run, is not seen by all processes, or a
            result has no place in a file.
        Exception: What ``fn`` raises, here; in the other processes the same class
            (`CapabilityError` for foreign classes). What was finished stays recorded.
    """
    tasks, report = list(items), progress or silent
    if world() == 1 and run_dir is None:
        return _in_turn(fn, tasks, report, name)
    failure, done, ledger = None, {}, None
    try:
        if run_dir is not None:
            ledger, done = _open_ledgers(Path(run_dir), name, f"{key}|{name}|{len(tasks)}")
    except InputError as cause:
        failure = cause
    if len({frozenset(seen) for seen in exchange(set(done), failure)}) > 1:
        raise InputError(
            f"run_dir {run_dir} differs between the processes; it must be a folder that all of them see."
        )
    try:
        own = _done_here(fn, tasks, done, ledger, report, name)
    except Exception as cause:
        own, failure = {}, cause
    finally:
        if ledger is not None:
            ledger.close()
    for part in exchange(own, failure):
        done |= part
    return [unpack(*done[i]) for i in range(len(tasks))]


def _in_turn(fn: Callable[[Item], Any], tasks: list[Item], report: Progress, name: str) -> list[Any]:
    results = []
    for task in tasks:
        results.append(fn(task))
        report(len(results), len(tasks), name)
    return results


def _open_ledgers(folder: Path, name: str, key: str) -> tuple[Ledger, dict[int, Any]]:
    """This process's ledger, and the results in all of them by number of the task."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"run_dir {folder} is a file; a folder is needed.")
    done: dict[int, Any] = {}
    for path in sorted(folder.glob(f"{name}.*.jsonl")):
        ledger = Ledger(path, key=key)
        done |= {int(task): pack(ledger[task]) for task in ledger}
    return Ledger(folder / f"{name}.{rank()}.jsonl", key=key), done


def _done_here(
    fn: Callable[[Any], Any],
    tasks: list[Any],
    done: dict[int, Any],
    ledger: Ledger | None,
    report: Progress,
    name: str,
) -> dict[int, Any]:
    """Do and record the open tasks of this process; their packed results by number."""
    own: dict[int, Any] = {}
    pending = [i for i in range(len(tasks)) if i not in done]
    for i in pending[rank() :: world()]:
        with alone():
            result = fn(tasks[i])
        if ledger is not None:
            ledger.record(str(i), result)
        own[i] = pack(result)
        if rank() == 0:
            report(min(len(tasks), len(done) + len(own) * world()), len(tasks), name)
    return own
