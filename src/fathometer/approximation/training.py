"""How far training stays behind a construction of the same size.

A layered ReLU network is trained on even points, by Adam and then L-BFGS in float64, from several seeds; the
best is certified like any other network, so what is compared is the true sup error and not the
error at the points, and its linear pieces are counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from fathometer.approximation.certificates import Certified, certify
from fathometer.approximation.export import from_module
from fathometer.approximation.network import SkipNetwork
from fathometer.approximation.segments import pieces
from fathometer.approximation.target import as_target
from fathometer.errors import InputError
from fathometer.work import generator

if TYPE_CHECKING:
    from fathometer.drawing.picture import Picture


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Trained(Certified):
    """The best trained network of several seeds.

    Attributes:
        certificate: The enclosure of its sup error.
        widths: Units of each hidden layer.
        optimizer: "adam" or "lbfgs" (Adam first).
        pieces: Linear pieces that it uses on the domain.
        errors: Largest error at the training points, one a seed.
        table: Its weights, as `SkipNetwork.table`.
    """

    widths: tuple[int, ...]
    optimizer: str
    pieces: int
    errors: tuple[float, ...]
    table: dict[str, np.ndarray]

    @property
    def units(self) -> int:
        """Hidden units."""
        return sum(self.widths)

    @property
    def network(self) -> SkipNetwork:
        """The exact graph."""
        return SkipNetwork.from_table(self.table)

    def __str__(self) -> str:
        return f"{self.units} units trained by {self.optimizer}, {self.pieces} pieces: {self.certificate}"

    def picture(self) -> "Picture":
        """The error curve."""
        return self.certificate.picture()


def trained(
    f: Any,
    domain: Any,
    widths: Sequence[int],
    *,
    optimizer: str = "lbfgs",
    steps: int = 2000,
    points: int = 513,
    seeds: Sequence[int] = (0, 1, 2),
) -> Trained:
    """Train layered ReLU networks on a function of one variable; keep the best, certified.

    Args:
        f: A function of one variable, as in `approximate`.
        domain: ``(a, b)``.
        widths: Units of each hidden layer.
        optimizer: "adam", or "lbfgs" for Adam with L-BFGS after it.
        steps: Of Adam, learning rate falling from 1e-2 to 0 along a cosine; L-BFGS takes up to 500.
        points: Even training points.
        seeds: One network each.

    Raises:
        InputError: If the widths, steps, points or the optimizer make no sense.
    """
    if not len(widths) or any(not isinstance(w, int) or isinstance(w, bool) or w < 1 for w in widths):
        raise InputError(f"widths is {widths!r}; one whole number from 1 on for each hidden layer is needed.")
    if optimizer not in ("adam", "lbfgs"):
        raise InputError(f"optimizer is {optimizer!r}; there are 'adam' and 'lbfgs'.")
    if steps < 1 or points < 2 or not len(seeds):
        raise InputError(
            f"steps={steps}, points={points}, seeds={seeds!r}: at least 1, 2 and one are needed."
        )
    target = as_target(f, domain)
    x = np.linspace(*target.interval, points)
    y = target.values(x)
    size = float(np.abs(y).max()) or 1.0
    s, t = torch.from_numpy(np.linspace(-1.0, 1.0, points))[:, None], torch.from_numpy(y / size)[:, None]
    networks = []
    for seed in seeds:
        module = _initial(widths, seed)
        _descend(module, s, t, optimizer, steps)
        networks.append(_on_domain(module, target.interval, size))
    errors = tuple(float(np.abs(net(x) - y).max()) for net in networks)
    best = networks[int(np.argmin(errors))]
    return Trained(
        certificate=certify(best, target, target.domain, 1e-4),
        widths=tuple(widths),
        optimizer=optimizer,
        pieces=int(pieces(best, target.interval)),
        errors=errors,
        table=best.table(),
    )


def _initial(widths: Sequence[int], seed: int) -> nn.Sequential:
    """He's initialization, biases spread so that the first kinks lie in the interval."""
    stream = generator(seed, *widths)
    layers: list[nn.Module] = []
    for n, m in zip([1, *widths], [*widths, 1], strict=True):
        linear: Any = torch.nn.utils.skip_init(nn.Linear, n, m, dtype=torch.float64)
        with torch.no_grad():
            linear.weight.copy_(torch.randn(m, n, generator=stream, dtype=torch.float64) * (2 / n) ** 0.5)
            linear.bias.copy_(torch.rand(m, generator=stream, dtype=torch.float64) * 2 - 1)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _descend(module: nn.Sequential, s: torch.Tensor, t: torch.Tensor, optimizer: str, steps: int) -> None:
    with torch.enable_grad():
        adam = torch.optim.Adam(module.parameters(), lr=1e-2)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
        for _ in range(steps):
            adam.zero_grad()
            (module(s) - t).square().mean().backward()
            adam.step()
            schedule.step()
        if optimizer == "adam":
            return
        second = torch.optim.LBFGS(
            module.parameters(), max_iter=500, tolerance_grad=1e-14, tolerance_change=1e-16, history_size=50,
            line_search_fn="strong_wolfe",
        )  # fmt: skip

        def closure() -> torch.Tensor:
            second.zero_grad()
            loss = (module(s) - t).square().mean()
            loss.backward()
            return loss

        second.step(closure)


def _on_domain(module: nn.Sequential, interval: tuple[float, float], size: float) -> SkipNetwork:
    """The same network reading x and writing f instead of their scaled forms."""
    a, b = interval
    first: Any = module[0]
    last: Any = module[-1]
    with torch.no_grad():
        slope = 2 / (b - a)
        first.bias -= first.weight[:, 0] * slope * (a + b) / 2
        first.weight *= slope
        last.weight *= size
        last.bias *= size
    return from_module(module)
