"""Which step size for stochastic gradient Langevin dynamics? Ask the discrepancy.

    python examples/sgld_step_size.py

Data are 53 prostate cancer patients (in the package), the target is the posterior of a logistic regression.
A larger step makes draws less alike, and so a larger effective sample size, long after the draws have
left the target. The kernel Stein discrepancy sees bias and spread at once.
"""

import argparse
from pathlib import Path

import torch

import fathometer as fm


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=400, help="draws of each step size")
    options = parser.parse_args()
    posterior = fm.stein.examples.nodal_posterior()
    start = torch.zeros(6, dtype=torch.float64)

    def run(step_size, seed):
        return fm.stein.samplers.stochastic_gradient_langevin(
            posterior, start, options.draws, step_size, batch_size=10, warmup=200, seed=seed
        )

    table = fm.stein.select(run, (0.001, 0.003, 0.01, 0.03, 0.1, 0.3), seeds=2)
    print(table)
    print(f"the discrepancy chooses {table.best}, the effective sample size {table.best_by_ess}")
    file = Path("sgld_step_size.svg")
    file.write_text(fm.drawing.to_svg(table.picture()), encoding="utf-8")
    print(f"wrote {file}")


if __name__ == "__main__":
    main()
