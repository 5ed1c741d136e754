"""Random networks against an oracle that knows no operations: are all rescalings found, and no others?"""

import random
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev
from torch.nn import functional as F

from fathometer.errors import CapabilityError
from fathometer.papers.item import Outcome, check, item
from fathometer.results import Row, Table
from fathometer.sharpness import rescalings
from fathometer.work import generator

WIDTH = 4
ACTIVATIONS = (
    F.relu, F.leaky_relu, torch.tanh, F.gelu, F.relu6, torch.abs, torch.square, torch.sort, torch.atan,
)  # fmt: skip
"""The last one has no rule."""
MEAN = "norms.0.running_mean"
KINDS = ("layer", "layer", "layer", "activation", "activation", "add", "multiply", "norm", "gain")


class RandomNetwork(nn.Module):
    """A chain of two to seven random steps; each may look back at any activation and share any layer."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        choice = random.Random(seed)
        biased = [choice.random() < 0.6 for _ in range(4)]
        self.steps = [
            (choice.choice(KINDS), choice.randrange(4), choice.randrange(9), choice.randrange(i + 1))
            for i in range(choice.randint(2, 7))
        ]
        used = {(kind, which % 2 if kind == "norm" else which) for kind, which, *_ in self.steps}
        # nothing that the steps leave out: its weights would be free, and found too easily
        self.layers = nn.ModuleDict(
            {str(i): nn.Linear(WIDTH, WIDTH, bias=biased[i]) for i in range(4) if ("layer", i) in used}
        )
        # with a large eps: by a small one, the oracle takes a nearly invariant scale for an invariant one
        norms = (nn.BatchNorm1d(WIDTH), nn.LayerNorm(WIDTH, eps=0.5))
        self.norms = nn.ModuleDict({str(i): norms[i] for i in (0, 1) if ("norm", i) in used})
        if any(kind == "gain" for kind, _ in used):
            self.gain = nn.Parameter(torch.ones(WIDTH))
        self.head = nn.Linear(WIDTH, 2)
        draw = generator(seed, "random network")
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=draw))
            for name, buffer in self.named_buffers():
                if name == MEAN:
                    buffer.copy_(torch.randn(WIDTH, generator=draw))

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (n, 2)."""
        seen = [x]
        for kind, which, function, back in self.steps:
            h: Any = seen[-1]
            if kind == "layer":
                h = self.layers[str(which)](h)
            elif kind == "activation":
                h = ACTIVATIONS[function](h)
                h = h[0] if isinstance(h, tuple) else h
            elif kind == "add":
                h = h + seen[back]
            elif kind == "multiply":
                h = h * seen[back]
            elif kind == "norm":
                h = self.norms[str(which % 2)](h)
            else:
                h = h * self.gain
            seen.append(h)
        return self.head(seen[-1])


def numerical_dimension(model: nn.Module, seed: int) -> int:
    """Dimension of the rescalings by linear algebra: directions v with ``J(theta) (theta * v) = 0``.

    Jacobians at random weights and random inputs, small ones (where nothing saturates) and large ones (which
    reach the clips), are stacked until there are four rows for each weight. A running mean counts as a
    weight; torch does not differentiate by it, so its
    columns are differences.
    """
    movable = {
        name: p for name, p in (*model.named_parameters(), *model.named_buffers()) if _moves(model, name)
    }
    fixed = {name: buffer for name, buffer in model.named_buffers() if name not in movable}
    draw = generator(seed, "oracle")
    size, blocks = sum(t.numel() for t in movable.values()), []
    while sum(map(len, blocks)) < 4 * size:
        theta = {k: torch.randn(t.shape, generator=draw, dtype=torch.float64) for k, t in movable.items()}
        # few inputs for many weights: constants of the outputs are told apart by the weights only
        x = (0.1, 0.5, 5.0)[len(blocks) % 3] * torch.randn(4, WIDTH, generator=draw, dtype=torch.float64)
        blocks.append(_scaled_jacobian(model, fixed, theta, x))
    singular = torch.linalg.svdvals(torch.cat(blocks))
    return size - int((singular > 1e-7 * singular[0]).sum())


def _moves(model: nn.Module, name: str) -> bool:
    return name == MEAN or name in dict(model.named_parameters())


def _scaled_jacobian(
    model: nn.Module, fixed: dict[str, Tensor], theta: dict[str, Tensor], x: Tensor
) -> Tensor:
    """``J(theta) diag(theta)`` of the outputs on x, (outputs, weights)."""
    theta = dict(theta)
    mean = {MEAN: theta.pop(MEAN)} if MEAN in theta else {}

    def outputs(weights: dict[str, Tensor], at: dict[str, Tensor] = mean) -> Tensor:
        return functional_call(model, {**fixed, **at, **weights}, (x,)).flatten()

    columns = [(part * theta[k]).flatten(1) for k, part in jacrev(outputs)(theta).items()]
    if mean:
        for i in range(WIDTH):
            h = torch.zeros(WIDTH, dtype=torch.float64)
            h[i] = 1e-6
            up, down = (outputs(theta, {MEAN: mean[MEAN] + sign * h}) for sign in (1, -1))
            columns.append(((up - down) / 2e-6 * mean[MEAN][i])[:, None])
    return torch.cat(columns, dim=1).detach()


def found_in(seed: int) -> tuple[int, int, float]:
    """Dimension found, dimension by the oracle, and the change of outputs after a random move."""
    model = RandomNetwork(seed).double().eval()
    x = 3 * torch.randn(16, WIDTH, generator=generator(seed, "inputs"), dtype=torch.float64)
    group = rescalings(model, x[:2])
    try:
        moved = group.move(seed=seed, spread=0.5)
    except CapabilityError:  # the outputs changed on the examples already
        return group.dimension, numerical_dimension(model, seed), float("inf")
    with torch.no_grad():
        before, after = model(x), moved(x)
    change = float((after - before).abs().max() / before.abs().max())
    return group.dimension, numerical_dimension(model, seed), change


@item("beyond-random-networks", "No unsound rescaling in random networks, and hardly one missed", seconds=15)
def random_networks(*, full: bool = False, seed: int = 0) -> Outcome:
    """Random chains with shared layers, skips, products, norms, gains, clips and unknown operations.

    Each of 40 networks (full: 1,000) is moved by factors that the equations allow: its outputs must stay. The
    number of rescalings is compared with that of an oracle that sees only Jacobians at random weights.
    """
    count = 1000 if full else 40
    found = [found_in(10_000 * seed + i) for i in range(count)]
    dimensions, truth = sum(d for d, _, _ in found), sum(t for _, t, _ in found)
    exceeding = sum(d > t for d, t, _ in found)
    exact = sum(d == t for d, t, _ in found)
    change = max(c for _, _, c in found)
    share = dimensions / truth
    rows = [
        Row(
            networks=count,
            rescalings=dimensions,
            oracle=truth,
            share=share,
            all_found_in=exact,
            change=change,
        )
    ]
    return Outcome(
        checks=(
            check("largest change of the outputs", "< 1e-10", change, change < 1e-10),
            check("networks with more rescalings than the oracle's", 0, exceeding, exceeding == 0),
            check("share of the oracle's rescalings found", ">= 0.98", share, share >= 0.98),
            check("networks in which all are found", f"of {count}", exact, exact >= 0.9 * count),
        ),
        table=Table(title="Rescalings of random networks", rows=tuple(rows)),
    )
