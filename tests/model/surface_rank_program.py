"""Run by ``test_surface_ranks``: one of several processes that share the sums of a surface.

The number of the process, how many there are and the folder come in ``ARGUMENTS``; the
bits it sees go into a file of the folder as one JSON object.
"""

import datetime
import json
from pathlib import Path

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, TensorDataset

import fathometer as fm


def rows(n, *shape, seed=0):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))


def bits(tensor):
    return tensor.numpy().tobytes().hex()


def seen(surface):
    """What a surface answers, as bits."""
    V = rows(surface.size, 2, seed=9).to(surface.space.dtype)
    return {
        "energy": bits(surface.energy()),
        "gradient": bits(surface.gradient()),
        "hessian": bits(surface.hessian() @ V),
        "gauss_newton": bits(surface.gauss_newton() @ V[:, 0]),
        "sampled fisher": bits(surface.fisher(kind="sampled", seed=3) @ V[:, 0]),
    }


def answers(small_budget):
    """Bits of the surfaces; ``small_budget`` in bytes is what the last process may use for one of them."""
    x, y = rows(29, 6), torch.arange(29) % 3
    mlp = fm.model.mlp((6, 7, 3), activation="tanh")
    images, labels = rows(11, 1, 8, 8, seed=1), torch.arange(11) % 10
    cnn = fm.model.residual_cnn(2)
    surface = fm.LossSurface(mlp, "cross_entropy", (x, y), chunk=3)
    found = {
        "float32": seen(surface),
        "float64": seen(surface.double()),
        "other chunks": seen(fm.LossSurface(mlp, "cross_entropy", (x, y), chunk=4)),
        "convolutions": seen(fm.LossSurface(cnn, "cross_entropy", (images, labels), chunk=2)),
        "loader": seen(fm.LossSurface(mlp, "cross_entropy", DataLoader(TensorDataset(x, y), 5))),
        "one chunk": seen(fm.LossSurface(mlp, "cross_entropy", (x, y), chunk=29)),
    }
    with fm.budget(small_budget):
        capped = fm.LossSurface(mlp, "cross_entropy", (x, y))
        found["capped"] = seen(capped) | {"chunk": capped.chunk}
    return found


def run(number, count, folder, small_budget):
    torch.set_num_threads(1)
    limit = datetime.timedelta(seconds=120)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=number, world_size=count, timeout=limit)
    mine = small_budget if number == count - 1 else 10**9
    Path(folder, f"answer-{number}.json").write_text(json.dumps(answers(mine)))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    run(*ARGUMENTS)  # given by runpy
