"""Exact traces and loss landscapes against the usual ways to get them.

The loop that most people run for a landscape is written out here: for every point copy the weights
in, go through a data loader, average (as Li et al. 2018 and the packages after them do). It is given every
second to fifth row and column, and its time multiplied: it takes the same for every point. Same weights in
float32, same data, one thread.
"""

import copy
from functools import cache

import numpy as np
import torch
from torch import nn

import fathometer as fm
from benchmarks.goal import answer, faster
from benchmarks.networks import convolutional, perceptron
from benchmarks.race import Race
from fathometer.model.embedded import digits
from fathometer.sharpness.paths import filter_direction

PEERS = ["pyhessian==0.1", "loss-landscapes==3.0.6"]
POINTS = 51


class Block(nn.Module):
    """Basic block of He et al. 2016, with a projection where the shape changes."""

    def __init__(self, i, o, stride):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU(),
            nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o),
        )  # fmt: skip
        same = i == o and stride == 1
        self.skip = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))
        )

    def forward(self, x):
        return torch.relu(self.body(x) + self.skip(x))


def resnet20():
    """He et al. 2016, section 4.2: three stages of three blocks with 16, 32 and 64 channels."""
    stem = (nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    shapes = [(16, 16, 1), (16, 16, 1), (16, 16, 1), (16, 32, 2), (32, 32, 1), (32, 32, 1)]
    shapes += [(32, 64, 2), (64, 64, 1), (64, 64, 1)]
    blocks = [Block(*shape) for shape in shapes]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


@cache
def trained(build, examples):
    """(surface, model, x, y) after some epochs of Adam on the embedded digits, blown up to 28 x 28.

    The ResNet sees them as they are, 8 x 8, and is held in evaluation mode.
    """
    images, classes, _, _ = digits()
    size = (8, 8) if build is resnet20 else (28, 28)
    x, y = nn.functional.interpolate(images[:examples], size=size), classes[:examples]
    x = x.flatten(1) if build is perceptron else x
    torch.manual_seed(0)
    model = build()
    adam = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(30 if build is resnet20 else 10):
        adam.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        adam.step()
    model.eval()
    return fm.LossSurface(model, "cross_entropy", (x, y)), model, x, y


def plane(build, examples):
    """The two directions of the picture, as tensors in the order of the parameters."""
    surface = trained(build, examples)[0]
    directions = (filter_direction(surface, 0, i) for i in (0, 1))
    return [list(surface.space.split(d).values()) for d in (surface.theta, *directions)]


def plain_loop(build, examples, every):
    """Losses on every so many rows and columns of the grid, one point at a time through a data loader."""
    _, model, x, y = trained(build, examples)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=128)
    moved, criterion = copy.deepcopy(model), nn.CrossEntropyLoss()
    parts = plane(build, examples)
    axis = np.linspace(-1, 1, POINTS)[::every]
    losses = np.empty((len(axis), len(axis)))
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


def loss_landscapes(build, examples, steps):
    """Grid of the package between a corner of the plane and its neighbors, and where its points are.

    It takes a step before it reads, so that its lines are shifted by one step in alternation.
    """
    import loss_landscapes as peer
    from loss_landscapes.metrics import Loss

    _, model, x, y = trained(build, examples)
    theta, u, v = plane(build, examples)
    corners = [copy.deepcopy(model) for _ in range(3)]
    with torch.no_grad():
        for corner, (a, b) in zip(corners, ((-1, -1), (1, -1), (-1, 1)), strict=True):
            for p, w, d, e in zip(corner.parameters(), theta, u, v, strict=True):
                p.copy_(w + a * d + b * e)
        return peer.planar_interpolation(*corners, Loss(nn.CrossEntropyLoss(), x, y), steps=steps)


def pyhessian_trace(surface, model, x, y):
    from pyhessian import hessian

    return float(np.mean(hessian(model, nn.CrossEntropyLoss(), data=(x, y), cuda=False).trace()))


def races():
    surface, model, x, y = trained(perceptron, 512)
    yield Race(
        title="Hessian trace, 784-256-256-10, 512 examples",
        goal=faster("pyhessian", 5),
        ours=lambda: float(fm.sharpness.hessian_trace(surface).value),
        peers={"pyhessian": lambda: pyhessian_trace(surface, model, x, y)},
        agree=lambda ours, peers: f"ours {ours:.6g} (exact); " + ", ".join(
            f"{name} {value:.6g}, {value / ours - 1:+.1%}" for name, value in peers.items()),
        repeats=3,
    )  # fmt: skip
    for build, goal, every in ((perceptron, 25, 2), (convolutional, 9, 3), (resnet20, 9, 5)):
        yield picture(build, goal, every)


def picture(build, goal, every, examples=512):
    """A landscape; the share that the peers are given stands in their names."""
    surface = trained(build, examples)[0]
    rows = len(range(0, POINTS, every))
    few = f"({rows} x {rows} of the points, times {(POINTS / rows) ** 2:.3g})"
    loop, package = f"one point at a time {few}", f"loss-landscapes {few}"

    def gap(found, peers):
        spread = float(np.ptp(peers[loop]))
        return float(abs(found.values[::every, ::every] - peers[loop]).max()) / spread

    def agree(found, peers):
        if loop not in peers:
            raise AssertionError("the loop did not run")
        scale, share = float(np.ptp(peers[loop])), gap(found, peers)
        if share > 0.02:
            raise AssertionError(f"the grids differ by {share:.1%} of the range")
        line = f"largest difference {share:.2%} of the range ({found.evaluations} evaluations, {found.kind})"
        if package not in peers:
            return line
        off = shifted(build, examples, peers[package]) / scale
        return f"{line}; loss-landscapes {off:.1%} off the loss at its points"

    return Race(
        title=f"Landscape {POINTS} x {POINTS}, {build.__name__}, {examples} examples",
        goal=(faster(loop, goal), answer("the same within 2 % of the range", gap, most=0.02, needs=loop)),
        ours=lambda: fm.sharpness.landscape(surface, "filter", POINTS),
        peers={
            loop: lambda: plain_loop(build, examples, every),
            package: lambda: loss_landscapes(build, examples, rows),
        },
        agree=agree,
        repeats=2,
        shares=dict.fromkeys((loop, package), (rows / POINTS) ** 2),
    )


def shifted(build, examples, values):
    """Largest difference of two of the package's lines from the loss, at the points it should stand for."""
    surface = trained(build, examples)[0]
    u, v = (filter_direction(surface, 0, i) for i in (0, 1))
    step = 2 / len(values)
    off = 0.0
    for i in (0, 1):
        for j in range(0, len(values), 5):
            at = surface.theta + (i * step - 1) * u + (j * step - 1) * v
            off = max(off, abs(float(values[i, j]) - float(surface.energy(at))))
    return off
