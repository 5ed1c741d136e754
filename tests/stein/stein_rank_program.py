"""Run by ``test_stein_ranks``: one of several processes that measure the same sample."""

import datetime
import json
from pathlib import Path

import numpy as np
import torch.distributed as dist

from fathometer.stein import estimate_ksd, goodness_of_fit, graph_discrepancy, ksd, ksd_path
from fathometer.stein.tiles import SteinGram
from fathometer.work import world


def run(number, count, folder):
    if count > 1:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{folder}/meeting",
            rank=number,
            world_size=count,
            timeout=datetime.timedelta(seconds=60),
        )
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1200, 2))
    small, strips = x[:40], [0]
    plain = SteinGram._block

    def counted(self, *sides):
        strips[0] += 1
        return plain(self, *sides)

    SteinGram._block = counted
    values = [ksd(x, -x).value]
    strips, mine = [0], strips[0]
    values += [
        *ksd_path(x, -x, [100, 1200]).tolist(),
        graph_discrepancy(small, -small).value,
        goodness_of_fit(x[:300], -x[:300], replicates=20).statistic,
        estimate_ksd(x, -x, rounds=10, tolerance=0.0).squared,
    ]
    answer = {"values": [float(v).hex() for v in values], "world": world(), "strips": mine}
    (Path(folder) / f"answer-{number}.json").write_text(json.dumps(answer))
    if count > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    run(*ARGUMENTS)  # given by the test
