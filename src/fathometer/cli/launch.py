"""``fathometer launch`` and ``resume``: one command on several processes, and once more.

``launch`` starts the processes through torch's elastic launcher. Each of them runs the
same command, joins the group on the way in and leaves it together with the others; the
first one prints. A process that fails hands its one line to the launcher.
"""

import json
import os
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from fathometer.errors import InputError

_MARK = "FATHOMETER_LAUNCHED"
_COMMAND = "command.json"
_PATIENCE = timedelta(minutes=30)  # a sum waits for its slowest chunk, not for a dead process

RunDir = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Keep finished work there; the same command, or resume, goes on."),
]


def add_to(app: typer.Typer) -> None:
    """Hang the commands into the tree."""
    passing = {"allow_interspersed_args": False, "ignore_unknown_options": True}
    app.command("launch", short_help="Run a command on several processes.", context_settings=passing)(launch)
    app.command("resume", short_help="Go on with a command that was stopped.")(resume)


def launch(
    command: Annotated[list[str], typer.Argument(metavar="COMMAND...", help="The command and its options.")],
    processes: Annotated[int, typer.Option("-n", "--processes", min=1, help="How many processes.")] = 2,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of each process; the cores shared out if left out.")
    ] = None,
    restarts: Annotated[
        int,
        typer.Option(min=0, help="How often to start again after a process was killed (use with --run-dir)."),
    ] = 0,
) -> None:
    """Run a command on several processes of this machine; the numbers stay the same.

    \b
    examples:
      fathometer launch -n 4 survey --run-dir runs/first
      fathometer launch -n 2 --restarts 2 resume runs/first
    """  # noqa: D301 - \b keeps the lines of the examples apart
    if command[0] == "launch":
        raise InputError("launch cannot launch itself; name one of the other commands.")
    os.environ[_MARK] = "1"
    # without this flag restarts after a kill fail or hang: the store remembers dead processes
    os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ.setdefault("OMP_NUM_THREADS", str(threads or max(1, (os.cpu_count() or 1) // processes)))
    if Path("/sys/class/net/lo").exists():
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    code, message = _launched(command, processes, restarts)
    if message:
        print(f"fathometer: {message}", file=sys.stderr)
    raise typer.Exit(code)


def _launched(command: list[str], processes: int, restarts: int) -> tuple[int, str]:
    """Run to the end; the exit code and message of the first process that failed."""
    import logging

    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=f"fathometer-{os.getpid()}-{time.time_ns()}",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=restarts,
        monitor_interval=0.1,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "fathometer", *command)
    except ChildFailedError as failed:
        number, failure = failed.get_first_failure()
        if failure.exitcode < 0:
            way_on = "; fathometer resume goes on from its --run-dir" if "--run-dir" in command else ""
            return 1, f"process {number} was stopped by signal {-failure.exitcode}{way_on}."
        known = failure.error_file_data.get("message")
        return failure.exitcode, known if isinstance(known, str) and known != "<NONE>" else ""
    return 0, ""


def is_worker() -> bool:
    """Whether `launch` started this process."""
    return _MARK in os.environ and "RANK" in os.environ


@contextmanager
def joined() -> Generator[None, None, None]:
    """Inside this block a launched process is a member of its group."""
    if not is_worker():
        yield
        return
    import torch
    import torch.distributed as dist

    if torch.cuda.is_available() and torch.cuda.device_count() >= int(os.environ["LOCAL_WORLD_SIZE"]):
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("cpu:gloo,cuda:nccl", timeout=_PATIENCE)
    else:
        dist.init_process_group("gloo", timeout=_PATIENCE)
    yield
    # on the way out together: a process that leaves early takes the others' connections along
    dist.barrier()
    dist.destroy_process_group()


def report(message: str) -> bool:
    """Hand a failure to the launcher; False if there is none."""
    place = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not is_worker() or not place:
        return False
    Path(place).write_text(json.dumps({"message": message, "timestamp": int(time.time())}), encoding="utf-8")
    return True


def leave(code: int) -> None:
    """Exit; a failed member of a group does so at once, without waiting for the others."""
    if code and is_worker():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def remember(run_dir: Path | None, command: list[Any]) -> None:
    """Write the command into its run folder, for `resume`.

    Raises:
        InputError: If the folder belongs to another command.
    """
    from fathometer.files import write_atomic
    from fathometer.work import rank

    if run_dir is None:
        return
    if run_dir.exists() and not run_dir.is_dir():
        raise InputError(f"--run-dir {run_dir} is a file; a folder is needed.")
    if (run_dir / _COMMAND).exists():
        _, old = _remembered(run_dir)
        if old != [str(part) for part in command]:
            raise InputError(
                f"--run-dir {run_dir} belongs to another command ({' '.join(old)}); choose another."
            )
        return
    if rank() == 0:
        run_dir.mkdir(parents=True, exist_ok=True)
        record = {"arguments": [str(part) for part in command], "folder": str(Path.cwd())}
        write_atomic(run_dir / _COMMAND, json.dumps(record, indent=1))


def resume(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The folder given as --run-dir.")],
) -> int:
    """Go on with a command that was stopped, from what its run folder holds."""
    from fathometer.cli import app

    folder, arguments = _remembered(run_dir)
    if not folder.is_dir():
        raise InputError(f"{run_dir}: the command was begun in {folder}, which is gone.")
    os.chdir(folder)
    status = app(args=arguments, prog_name="fathometer", standalone_mode=False)
    return status if isinstance(status, int) else 0


def _remembered(run_dir: Path) -> tuple[Path, list[str]]:
    path = run_dir / _COMMAND
    if not path.is_file():
        raise InputError(f"{run_dir}: there is no run to resume in it (no {_COMMAND}).")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        arguments, folder = record["arguments"], Path(record["folder"])
    except (ValueError, KeyError, TypeError) as cause:
        raise InputError(f"{path}: is damaged ({cause}); begin the run anew.") from None
    if not isinstance(arguments, list) or arguments[:1] in ([], ["resume"], ["launch"]):
        raise InputError(f"{path}: is damaged (no command in it); begin the run anew.")
    return folder, [str(part) for part in arguments]
