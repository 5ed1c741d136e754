"""A network of one's own, as ``fathometer survey`` takes it.

    python examples/my_model.py        # trains it; writes my_weights.safetensors and my_data.npz
    fathometer survey examples/my_model.py:make --weights my_weights.safetensors \
        --data my_data.npz --loss cross_entropy --out my_report.html

Two spirals have to be told apart. The task is small, the loss surface is not trivial.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn


def make():
    """The factory: builds the network, untrained. ``--weights`` fills it."""
    return nn.Sequential(nn.Linear(2, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 2))


def spirals(examples=300, noise=0.08, seed=0):
    """Points (n, 2) on two spirals, and which spiral each is on (n,)."""
    rng = np.random.default_rng(seed)
    label = np.arange(examples) % 2
    turn = np.sqrt(rng.uniform(0.05, 1.0, examples)) * 3 * np.pi
    angle = turn + np.pi * label
    points = np.stack([turn * np.cos(angle), turn * np.sin(angle)], axis=1) / (3 * np.pi)
    return (points + noise * rng.normal(size=points.shape)).astype(np.float32), label


def train(model, inputs, labels, steps=600, seed=0):
    """Full-batch Adam to a small gradient; returns the share of right answers."""
    torch.manual_seed(seed)
    for layer in model:
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()
    x, y = torch.from_numpy(inputs), torch.from_numpy(labels)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=1e-4)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return (model(x).argmax(1) == y).float().mean().item()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path(), help="where the two files go")
    parser.add_argument("--steps", type=int, default=600, help="steps of Adam")
    options = parser.parse_args()
    model, (inputs, labels) = make(), spirals()
    accuracy = train(model, inputs, labels, options.steps)
    save_file(model.state_dict(), options.folder / "my_weights.safetensors")
    np.savez(options.folder / "my_data.npz", inputs=inputs, targets=labels)
    print(f"accuracy {accuracy:.3f}; wrote my_weights.safetensors and my_data.npz")


if __name__ == "__main__":
    main()
