"""A worked example on real data: digits seen from four sides.

The paper trains nothing. Here photographs of handwritten digits (8 x 8) lie in any of four
orientations, as on a table that people sit around. A network whose weights are tied along
quarter turns is set beside untied ones of the same width and of the same number of weights;
all see the same images, turned at random in every step.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from fathometer.drawing import Axis, Line, Panel, Picture, Points
from fathometer.model import digits
from fathometer.papers.item import Outcome, check, item
from fathometer.results import Row, Table
from fathometer.symmetry import Action, TiedLinear, check_equivariance
from fathometer.work import generator, threads

FILTERS = 32
"""Tied filters of a hidden layer; each is seen in four orientations."""

TURNS = Action.grid(8, 8, translations=False, rotations=True, outputs=Action.cyclic(4))
"""Quarter turns of the image; the hidden set is the group itself, so every layer is unique."""


def tied(seed: int) -> nn.Module:
    """64 pixels, twice 32 filters in 4 orientations, 10 classes that do not turn."""
    return nn.Sequential(
        TiedLinear(TURNS, 1, FILTERS, seed=3 * seed),
        nn.ReLU(),
        TiedLinear(Action.cyclic(4), FILTERS, FILTERS, seed=3 * seed + 1),
        nn.ReLU(),
        TiedLinear(Action.cyclic(4, outputs="invariant"), FILTERS, 10, seed=3 * seed + 2),
        nn.Flatten(),
    )


def untied(width: int) -> Callable[[int], nn.Module]:
    """64 pixels, two hidden layers of this width, 10 classes."""

    def make(seed: int) -> nn.Module:
        stream = generator(seed, "untied")
        layers = []
        for a, b in ((64, width), (width, width), (width, 10)):
            layer = nn.utils.skip_init(nn.Linear, a, b)
            for part in layer.parameters():  # the start of torch.nn.Linear, and of TiedLinear
                nn.init.uniform_(part, -(a**-0.5), a**-0.5, generator=stream)
            layers += [layer, nn.ReLU()]
        return nn.Sequential(nn.Flatten(), *layers[:-1])

    return make


def parameters(model: nn.Module) -> int:
    """Number of free parameters."""
    return sum(p.numel() for p in model.parameters())


def equal_parameters() -> int:
    """The width at which the untied network has as many parameters as the tied one."""
    goal = parameters(tied(0))
    return min(range(8, 4 * FILTERS), key=lambda w: abs(65 * w + (w + 1) * w + 10 * (w + 1) - goal))


def turned(images: Tensor, quarters: Tensor) -> Tensor:
    """Each image (count, 1, 64) turned by its own number of quarters."""
    squares = images.reshape(-1, 8, 8)
    sides = torch.stack([torch.rot90(squares, k, (1, 2)) for k in range(4)])
    return sides[quarters, torch.arange(len(images))].reshape(-1, 1, 64)


def train(model: nn.Module, images: Tensor, labels: Tensor, steps: int, seed: int) -> None:
    """Adam on all images in every step, each in a random orientation; the rate falls to zero."""
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    stream = generator(seed, "orientations")
    for _ in range(steps):
        quarters = torch.randint(4, (len(images),), generator=stream)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(turned(images, quarters)), labels).backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def error(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of the images, in all four orientations, that are classified wrongly."""
    wrong = [
        (model(turned(images, torch.full((len(images),), k))).argmax(1) != labels).double().mean()
        for k in range(4)
    ]
    return float(torch.stack(wrong).mean())


def compare(sizes: tuple[int, ...], seeds: int, steps: int, seed: int = 0) -> Table:
    """Test errors of the three networks for each number of training images, over seeds."""
    x, y, x_test, y_test = digits()
    x, x_test = (part.reshape(len(part), 1, 64).float() for part in (x, x_test))
    narrow = equal_parameters()
    makers = {
        "tied to quarter turns": tied,
        "untied, as many parameters": untied(narrow),
        "untied, as wide": untied(4 * FILTERS),
    }
    rows = []
    for size in sizes:
        found: dict[str, list[float]] = {name: [] for name in makers}
        for run in range(seed, seed + seeds):
            chosen = torch.randperm(len(x), generator=generator(run, "training images"))[:size]
            for name, make in makers.items():
                model = make(run)
                with threads(1):  # matrices this small gain nothing from more
                    train(model, x[chosen], y[chosen], steps, run)
                found[name].append(error(model, x_test, y_test))
        for name, make in makers.items():
            rows.append(_row(name, size, make(0), found[name], found["tied to quarter turns"]))
    return Table(
        title=f"Test error on digits in four orientations, {seeds} seeds, {steps} steps", rows=tuple(rows)
    )


def _row(name: str, size: int, model: nn.Module, errors: list[float], tied_errors: list[float]) -> Row:
    gaps = np.array(errors) - np.array(tied_errors)
    root = math.sqrt(len(errors))
    return Row(
        network=name,
        images=size,
        parameters=parameters(model),
        width=4 * FILTERS if "parameters" not in name else equal_parameters(),
        test_error=float(np.mean(errors)),
        error=float(np.std(errors, ddof=1)) / root,
        gap=float(gaps.mean()),
        gap_error=float(gaps.std(ddof=1)) / root,
        kind="estimate",
    )


@item("digits", "Digits seen from four sides: tied against untied networks", seconds=60)
def digits_from_four_sides(*, full: bool = False, seed: int = 0) -> Outcome:
    """Beyond the paper: test errors over seeds, at equal numbers of parameters and at equal width."""
    sizes, seeds, steps = ((100, 200, 400, 800, 1438), 20, 600) if full else ((300, 1438), 6, 300)
    table = compare(sizes, seeds, steps, seed)
    rows = {row.network: row for row in table if row.images == sizes[-1]}
    small, wide = rows["untied, as many parameters"], rows["untied, as wide"]
    tied_row = rows["tied to quarter turns"]
    model = tied(seed)
    still = Action.grid(8, 8, translations=False, rotations=True, outputs="invariant")
    commutes = check_equivariance(lambda x: model(x)[..., None], still, samples=64)
    return Outcome(
        checks=(
            check(
                "with as many parameters, the untied network errs more (mean over seeds, 3 standard errors)",
                "gap > 0",
                f"{small.gap:.4f} +- {small.gap_error:.4f}",
                small.gap > 3 * small.gap_error,
            ),
            check(
                "as wide, with four times the parameters, it is not better (2 standard errors)",
                "gap > -2 standard errors",
                f"{wide.gap:.4f} +- {wide.gap_error:.4f}",
                wide.gap > -2 * wide.gap_error,
                note=f"{wide.parameters} parameters against {tied_row.parameters}",
            ),
            check("the tied network does not see turns", "0", commutes.value, commutes.ok),
        ),
        table=table,
        pictures=(_picture(table, sizes), TURNS.tying().picture()),
    )


def _picture(table: Table, sizes: tuple[int, ...]) -> Picture:
    marks = []
    for color, name in enumerate(dict.fromkeys(row.network for row in table)):
        rows = [row for row in table if row.network == name]
        means, errors = (np.array([row[key] for row in rows]) for key in ("test_error", "error"))
        label = f"{name} ({rows[0].parameters} parameters)"
        marks.append(Line(x=np.array(sizes), y=means, color=color, label=label))
        marks.append(Points(x=np.array(sizes), y=means, error=errors, color=color))
    return Picture(
        title="Digits seen from four sides",
        caption="Mean test error over seeds with its standard error; lower is better.",
        panels=(
            Panel(
                marks=tuple(marks), x=Axis(label="training images", scale="log"), y=Axis(label="test error")
            ),
        ),
    )
