"""Watch the sharpness while a network trains: does it climb to the edge of stability?

    python examples/sharpness_during_training.py

Gradient descent with step size eta is stable where the largest eigenvalue of the Hessian is below 2 / eta. In
full-batch training it climbs to that line and stays there (Cohen et al. 2021). The monitor reads it every few
steps for some four Hessian products a reading, and every reading carries its residual.
"""

import argparse
from pathlib import Path

import torch
from torch import nn

import fathometer as fm


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=600, help="steps of gradient descent")
    parser.add_argument("--step-size", type=float, default=1.8)
    options = parser.parse_args()

    images, labels, _, _ = fm.model.digits()
    inputs, targets = images[:400].flatten(1), nn.functional.one_hot(labels[:400], 10).float()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))

    monitor = fm.spectra.SharpnessMonitor(
        lambda: fm.LossSurface(model, "half_mse", (inputs, targets)), step_size=options.step_size, every=20
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=options.step_size)
    for step in range(options.steps):
        optimizer.zero_grad()
        loss = (model(inputs) - targets).square().mean() / 2
        loss.backward()
        optimizer.step()
        monitor(step)
    history = monitor.result()
    for row in history.rows[:: max(1, len(history.rows) // 8)]:
        print(f"step {row.step:5d}  sharpness {row.value:7.3f} +- {row.error:.1g}  edge {row.edge:.3g}")
    print(history)
    file = Path("sharpness_during_training.svg")
    file.write_text(fm.drawing.to_svg(history.picture()), encoding="utf-8")
    print(f"final loss {loss.item():.4g}; wrote {file}")


if __name__ == "__main__":
    main()
