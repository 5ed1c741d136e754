"""How work is cut, shared, counted, budgeted and resumed.

Nothing here knows what is computed. Sums go through `reduce_chunks`, independent tasks
through `task_map`; both give the same answer on one process and on many. The size of a
chunk comes from `chunk_size` under the memory `budget`, random numbers from `generator`.
"""

from fathometer.work.checkpoint import load_state, save_state
from fathometer.work.chunks import grid, reduce_chunks
from fathometer.work.ledger import Ledger
from fathometer.work.machine import environment, threads
from fathometer.work.memory import Budget, Forecast, allowance, budget, chunk_size, in_words
from fathometer.work.progress import phase, silent
from fathometer.work.ranks import alone, exchange, rank, world
from fathometer.work.seeds import check_seed, generator, numpy_generator
from fathometer.work.tasks import task_map

__all__ = [
    "Budget",
    "Forecast",
    "Ledger",
    "allowance",
    "alone",
    "budget",
    "check_seed",
    "chunk_size",
    "environment",
    "exchange",
    "generator",
    "grid",
    "in_words",
    "load_state",
    "numpy_generator",
    "phase",
    "rank",
    "reduce_chunks",
    "save_state",
    "silent",
    "task_map",
    "threads",
    "world",
]
