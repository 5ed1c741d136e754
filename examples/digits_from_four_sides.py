"""Digits that may lie in any of four orientations: tied weights against untied ones.

    python examples/digits_from_four_sides.py

Real photographs of handwritten digits, 8 x 8, turned at random in training and in testing. One network
is tied to quarter turns: a hidden layer is 32 filters, each seen in four orientations (the regular action
of the group), and the last layer does not turn. Beside it stand untied networks with as many parameters
and with as many hidden units. Means and standard errors are over three seeds.
"""

import torch
from torch import nn

import fathometer as fm
from fathometer.symmetry import Action, TiedLinear

PIXELS_TO_TURNS = Action.grid(8, 8, translations=False, rotations=True, outputs=Action.cyclic(4))
TURNS = Action.cyclic(4)
IMAGES, STEPS, SEEDS = 600, 200, 3


def tied():
    seeds = torch.randint(2**31, (3,)).tolist()
    return nn.Sequential(
        TiedLinear(PIXELS_TO_TURNS, 1, 32, seed=seeds[0]),
        nn.ReLU(),
        TiedLinear(TURNS, 32, 32, seed=seeds[1]),
        nn.ReLU(),
        TiedLinear(Action.cyclic(4, outputs="invariant"), 32, 10, seed=seeds[2]),
        nn.Flatten(),
    )


def untied(width):
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, 10),
    )


def turned(images, quarters):
    sides = torch.stack([torch.rot90(images.view(-1, 8, 8), k, (1, 2)) for k in range(4)])
    return sides[quarters, torch.arange(len(images))].reshape(-1, 1, 64)


def test_error(model, x, y, x_test, y_test):
    """Train on images in random orientations; the error over all four orientations of the others."""
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(turned(x, torch.randint(4, (len(x),)))), y).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        wrong = [(model(turned(x_test, k)).argmax(1) != y_test).float().mean() for k in range(4)]
    return sum(wrong) / 4


def main():
    print(PIXELS_TO_TURNS.tying().automorphisms())
    x, y, x_test, y_test = fm.model.digits()
    networks = {
        "tied to quarter turns": tied,
        "untied, as many parameters": lambda: untied(51),
        "untied, as wide": lambda: untied(128),
    }
    torch.set_num_threads(1)  # matrices this small gain nothing from more
    print(f"{IMAGES} training images; test error over {SEEDS} seeds:")
    for name, make in networks.items():
        errors = []
        for seed in range(SEEDS):
            torch.manual_seed(seed)
            chosen = torch.randperm(len(x))[:IMAGES]
            errors.append(test_error(make(), x[chosen], y[chosen], x_test, y_test))
        found = torch.stack(errors)
        size = sum(p.numel() for p in make().parameters())
        bar = found.std() / SEEDS**0.5
        print(f"{name:28} {size:6} parameters  {found.mean():.3f} +- {bar:.3f}")


if __name__ == "__main__":
    main()
