"""Exact traces and loss landscapes against the usual ways to get them.

The loop that most people run for a landscape is written out here: for every point copy the weights
in, go through a data loader, average (as Li et al. 2018 and the packages after them do). Same weights in
float32, same data, one thread.
"""

from functools import cache

import numpy as np
import torch
from torch import nn

import fathometer as fm
from benchmarks.race import Race
from fathometer.model.embedded import digits
from fathometer.sharpness.paths import filter_direction

PEERS = ["pyhessian==0.1"]
POINTS = 51


def perceptron():
    return nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))


def convolutional():
    def block(i, o):
        return nn.Conv2d(i, o, 3, padding=1, stride=2), nn.ReLU()

    return nn.Sequential(*block(1, 16), *block(16, 32), *block(32, 32), nn.Flatten(), nn.Linear(512, 10))


@cache
def trained(build, examples):
    """(surface, model, x, y) after some epochs of Adam on the embedded digits, blown up to 28 x 28."""
    images, classes, _, _ = digits()
    x, y = nn.functional.interpolate(images[:examples], size=(28, 28)), classes[:examples]
    x = x.flatten(1) if build is perceptron else x
    torch.manual_seed(0)
    model = build()
    adam = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(10):
        adam.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        adam.step()
    return fm.LossSurface(model, "cross_entropy", (x, y)), model, x, y


def plain_loop(build, examples, points):
    """Losses on the grid, one point at a time through a data loader."""
    surface, _, x, y = trained(build, examples)
    u, v = (filter_direction(surface, 0, i) for i in (0, 1))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=128)
    moved, criterion = build(), nn.CrossEntropyLoss()
    parts = [surface.space.split(d).values() for d in (surface.theta, u, v)]
    axis = np.linspace(-1, 1, points)
    losses = np.empty((points, points))
    with torch.no_grad():
        for i, a in enumerate(axis):
            for j, b in enumerate(axis):
                for p, w, d, e in zip(moved.parameters(), *parts, strict=True):
                    p.copy_(w + a * d + b * e)
                total = 0.0
                for inputs, targets in loader:
                    total += criterion(moved(inputs), targets).item() * len(targets)
                losses[i, j] = total / len(y)
    return losses


def pyhessian_trace(surface, model, x, y):
    from pyhessian import hessian

    return float(np.mean(hessian(model, nn.CrossEntropyLoss(), data=(x, y), cuda=False).trace()))


def races():
    surface, model, x, y = trained(perceptron, 512)
    yield Race(
        title="Hessian trace, 784-256-256-10, 512 examples",
        goal="at least 5 times less time than PyHessian at its defaults, and exact",
        ours=lambda: float(fm.sharpness.hessian_trace(surface).value),
        peers={"pyhessian": lambda: pyhessian_trace(surface, model, x, y)},
        agree=lambda ours, peers: f"ours {ours:.6g} (exact); " + ", ".join(
            f"{name} {value:.6g}, {value / ours - 1:+.1%}" for name, value in peers.items()),
        repeats=3,
    )  # fmt: skip
    for build, goal in ((perceptron, 25), (convolutional, 9)):
        here = trained(build, 512)[0]

        def ours(here=here):
            return fm.sharpness.landscape(here, "filter", POINTS)

        def agree(found, peers):
            worst = max(float(abs(found.values - other).max()) for other in peers.values())
            share = worst / float(np.ptp(next(iter(peers.values()))))
            if share > 0.02:
                raise AssertionError(f"the grids differ by {share:.1%} of the range")
            return (
                f"largest difference {share:.2%} of the range ({found.evaluations} evaluations, {found.kind})"
            )

        yield Race(
            title=f"Landscape {POINTS} x {POINTS}, {build.__name__}, 512 examples",
            goal=f"at least {goal} times less time than one point at a time",
            ours=ours,
            peers={"one point at a time": lambda build=build: plain_loop(build, 512, POINTS)},
            agree=agree,
            repeats=1,
        )
