"""Run by ``test_ranks``: one of several processes that share sums and tasks.

The names of the cases, the number of the process, how many there are and the folder come
in ``ARGUMENTS``; the answers go into a file of the folder as one JSON object.
"""

import datetime
import json
import os
import signal
from pathlib import Path

import torch
import torch.distributed as dist

from fathometer import BudgetError, CapabilityError, InputError
from fathometer.work import (
    Ledger,
    alone,
    budget,
    chunk_size,
    exchange,
    generator,
    grid,
    rank,
    reduce_chunks,
    task_map,
    world,
)


def values(n, dtype):
    """Numbers of very different sizes: any other association of their sum shows in the bits."""
    g = generator(0, "values", n)
    scales = 10.0 ** torch.randint(-6, 6, (n, 50), generator=g)
    return (torch.randn(n, 50, generator=g, dtype=torch.float64) * scales).to(dtype)


def bits(tensors):
    return [tensor.numpy().tobytes().hex() for tensor in tensors]


def refused(call, *kinds):
    try:
        call()
    except kinds as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was raised"


def sums():
    found = {}
    for n in (1, 2, 5, 8, 9, 21):
        for dtype in (torch.float32, torch.float64):
            data = values(n, dtype)

            def fn(i, data=data):
                return data[i], data[i].sum()

            found[f"{n} {dtype} sized"] = bits(reduce_chunks(fn, range(n)))
            found[f"{n} {dtype} stream"] = bits(reduce_chunks(fn, iter(range(n))))
            found[f"{n} {dtype} slots"] = bits(reduce_chunks(fn, range(n), slots=3))
    matrix = values(12, torch.float32)[:, :6]
    found["in chunks"] = bits(reduce_chunks(lambda part: matrix[part].T @ matrix[part], grid(12, 5)))
    seen = []
    reduce_chunks(lambda i: torch.ones(()), range(6), progress=lambda *r: seen.append(r), what="w")
    found["progress"] = seen[-1:]
    return found


def failures():
    def fails_late(i):
        if i == 7:  # slot 7 belongs to the last of two processes
            raise InputError("batch 7 holds NaN")
        return torch.ones(3)

    def foreign(i):
        return torch.ones(3) / (0 if i == 7 else 1) if i != 7 else [][1]

    def too_big():
        with budget(10 if rank() == 0 else 10**9):
            return chunk_size(5, 100.0, what="the tiles")

    def two_folders():
        own = folder / f"own{rank()}"
        if rank() == 1:
            with Ledger(own / "tasks.1.jsonl", key="|tasks|2") as ledger:
                ledger.record("0", 0.0)
        return task_map(float, range(2), run_dir=own)

    with budget(1000 * (1 + rank())):
        agreed = chunk_size(100, 100.0)
    return {
        "input": refused(lambda: reduce_chunks(fails_late, range(8)), InputError),
        "foreign": refused(lambda: reduce_chunks(foreign, range(8)), CapabilityError, IndexError),
        "count": refused(lambda: reduce_chunks(lambda i: torch.ones(1), range(4 + rank())), InputError),
        "empty": refused(lambda: reduce_chunks(lambda i: torch.ones(1), []), InputError),
        "budget": refused(too_big, BudgetError),
        "agreed": agreed,
        "task": refused(lambda: task_map(fails_late, range(8)), InputError),
        "folder": refused(two_folders, InputError),
        "still alive": exchange(rank()),
    }


def tasks():
    done = []

    def task(i):
        done.append(i)
        (total,) = reduce_chunks(lambda j: torch.tensor(float(i * j)), range(4))
        return {"i": i, "total": total, "world": world()}

    plain = task_map(task, range(7))
    recorded = task_map(task, range(7), run_dir=folder / "run", key="k")
    first = list(done)
    again = task_map(task, range(7), run_dir=folder / "run", key="k")
    with alone():
        lonely = (world(), rank(), exchange("me"))
    return {
        "plain": [(r["i"], r["total"].item(), r["world"]) for r in plain],
        "recorded": [(r["i"], r["total"].item()) for r in recorded],
        "again": [(r["i"], r["total"].item()) for r in again],
        "done": first,
        "not again": len(done) == len(first),
        "lonely": lonely,
        "world": world(),
    }


def killed():
    """Process 1 is killed while it does its third task."""

    def task(i):
        if dist.get_rank() == 1 and i == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        with (folder / "calls").open("a") as file:
            file.write(f"{i}\n")
        return i * i

    return {"results": task_map(task, range(12), run_dir=folder / "run", key="k")}


def run(cases, number, count, where):
    global folder
    folder = Path(where)
    torch.set_num_threads(1)
    if count > 1:
        store = f"file://{folder}/store"
        limit = datetime.timedelta(seconds=60)
        dist.init_process_group("gloo", init_method=store, rank=number, world_size=count, timeout=limit)
    answer = {name: globals()[name]() for name in cases}
    (folder / f"answer-{number}.json").write_text(json.dumps(answer))
    if count > 1:
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    run(*ARGUMENTS)  # given by runpy
