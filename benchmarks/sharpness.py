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
from benchmarks.goal import answer, faster, seconds
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


def resnet18():
    """He et al. 2016, table 1: 18 layers, 1,000 classes, 11.7 million weights."""
    stem = (nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    shapes = [(64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1)]
    blocks = [Block(*shape) for shape in (*shapes, (256, 512, 2), (512, 512, 1))]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))


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


@cache
def large_network():
    """A ResNet-18 in evaluation mode after some steps of Adam on digits of 32 x 32, and 64 of them."""
    images, classes, _, _ = digits()
    x = nn.functional.interpolate(images[:384], size=(32, 32)).expand(-1, 3, -1, -1).contiguous()
    torch.manual_seed(0)
    model = resnet18()
    adam = torch.optim.Adam(model.parameters(), 1e-3)
    for rows in torch.arange(384).split(32):
        adam.zero_grad()
        nn.functional.cross_entropy(model(x[rows]), classes[rows]).backward()
        adam.step()
    model.eval()
    return model, x[:64], classes[:64]


def curvature_by_power_iteration(model, x, y, rounds):
    """Curvature along the direction that so many plain products, back through the gradient, end in."""
    parameters = list(model.parameters())
    random = torch.Generator().manual_seed(1)
    direction = [torch.randn(p.shape, generator=random) for p in parameters]
    slope = torch.autograd.grad(
        nn.functional.cross_entropy(model(x), y), parameters, create_graph=True
    )  # the graph serves every product
    curvature = 0.0
    for _ in range(rounds):
        norm = sum(float(d.square().sum()) for d in direction) ** 0.5
        direction = [d / norm for d in direction]
        image = torch.autograd.grad(slope, parameters, direction, retain_graph=True)
        curvature = sum(float((d * h).sum()) for d, h in zip(direction, image, strict=True))
        direction = list(image)
    return curvature


def sharpened():
    """One function, a Hessian a million times larger (Dinh et al. 2017, theorem 4), at ResNet-18."""
    model, x, y = large_network()
    surface = fm.LossSurface(model, "cross_entropy", (x, y))

    def agree(found, _):
        # the largest eigenvalue stands apart from the others at the second place only
        by_hand = [curvature_by_power_iteration(m, x, y, n) for m, n in ((model, 40), (found.model, 12))]
        off = max(
            abs(a / float(b.value) - 1) for a, b in zip(by_hand, (found.before, found.after), strict=True)
        )
        if off > 0.02:
            raise AssertionError(f"plain products give {by_hand}, off by {off:.1%}")
        return (
            f"{found}; plain products and power iteration give {by_hand[0]:.4g} and {by_hand[1]:.4g}, "
            f"within {off:.1%}; {found.moved:.3g} times the norm of the weights away"
        )

    return Race(
        title="Raise the Hessian's norm a million times, ResNet-18, 11.7 million weights, 64 images",
        goal=(
            seconds(60),
            answer("a million times within 1 %", lambda found, _: abs(found.value / 1e6 - 1), most=0.01),
            answer("outputs within 1e-5", lambda found, _: found.output_error, most=1e-5),
        ),
        ours=lambda: fm.sharpness.sharpen(surface, "hessian_norm", 1e6),
        peers={},
        agree=agree,
        repeats=1,
        note="No peer does this. float32 weights, norms confirmed in float64.",
    )


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
    yield sharpened()


def picture(build, goal, every, examples=512):
    """A landscape; the share that the peers are given stands in their names."""
    surface = trained(build, examples)[0]
    rows = len(range(0, POINTS, every))
    few = f"({rows} x {rows} of the points, times {(POINTS / rows) ** 2:.3g})"
    loop, package = f"one point at a time {few}", f"loss-landscapes {few}"

    def gap(found, peers):
        spread = float(np.ptp(peers[loop]))
        return float(abs(found.values[::every, ::every] - peers[loop]).max()) / spread

    def certified(found, _):
        return found.error / float(np.ptp(found.values))

    def agree(found, peers):
        if loop not in peers:
            raise AssertionError("the loop did not run")
        scale, share = float(np.ptp(peers[loop])), gap(found, peers)
        if share > 0.02:
            raise AssertionError(f"the grids differ by {share:.1%} of the range")
        line = f"largest difference {share:.2%} of the range ({found.evaluations} evaluations). "
        line += found.certificate()
        if package not in peers:
            return line
        off = shifted(build, examples, peers[package]) / scale
        return f"{line}; loss-landscapes {off:.1%} off the loss at its points"

    return Race(
        title=f"Landscape {POINTS} x {POINTS}, {build.__name__}, {examples} examples",
        goal=(
            faster(loop, goal),
            answer("certified within 1 % of the range", certified, most=0.01),
            answer("the same within 2 % of the range", gap, most=0.02, needs=loop),
        ),
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
