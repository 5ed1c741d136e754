"""A process that is killed at random moments while it writes."""

import multiprocessing
import os
import random
import signal
import time


def kill_often(times, seed, work, path):
    """Yield after each kill how many steps the process had acknowledged.

    Each time ``work(path, pipe)`` runs in a process of its own, writes a byte into the pipe after every
    finished step, and is killed up to 20 ms after its first.
    """
    context, chance = multiprocessing.get_context("fork"), random.Random(seed)
    for _ in range(times):
        reader, writer = os.pipe()
        child = context.Process(target=work, args=(path, writer))
        child.start()
        os.close(writer)
        steps = len(os.read(reader, 1))  # it has begun
        time.sleep(chance.random() * 0.02)
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        while data := os.read(reader, 4096):
            steps += len(data)
        os.close(reader)
        yield steps
