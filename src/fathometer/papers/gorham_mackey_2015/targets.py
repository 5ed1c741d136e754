"""Samples and targets that several items of both papers use, and distances computed by other means."""

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from fathometer.drawing import Axis, Line, Panel, Points
from fathometer.stein import Posterior

BATCH = 5


def welling_teh(seed: int) -> Posterior:
    """The mixture posterior of Welling & Teh 2011: 100 data, two modes, d = 2.

    ``y ~ N(t1, 2) / 2 + N(t1 + t2, 2) / 2`` at t = (0, 1), prior N(0, diag(10, 1)).
    """
    rng = np.random.default_rng([1506, seed])
    y = torch.from_numpy(rng.integers(0, 2, 100) + math.sqrt(2.0) * rng.standard_normal(100))

    def prior(t: torch.Tensor) -> torch.Tensor:
        return -0.5 * (t[0] ** 2 / 10 + t[1] ** 2)

    def terms(t: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        first, second = -((y[rows] - t[0]) ** 2) / 4, -((y[rows] - t[0] - t[1]) ** 2) / 4
        return torch.logaddexp(first, second)

    return Posterior(prior, terms, len(y))


def wasserstein_to(points: Float[np.ndarray, " n"], law: Any, nodes: int = 4000) -> float:
    """Wasserstein-1 distance of equally weighted points to a law on the line: ``int |F_n^-1 - F^-1|``."""
    x = np.sort(points)
    count = len(x) * max(1, min(nodes, 1_000_000 // len(x)))
    middle = (np.arange(count) + 0.5) / count
    cell = np.minimum((middle * len(x)).astype(int), len(x) - 1)
    return float(np.abs(x[cell] - law.ppf(middle)).mean())


def slope(sizes: np.ndarray, values: np.ndarray) -> float:
    """Exponent of a power law by least squares on logarithms."""
    return float(np.polyfit(np.log(np.asarray(sizes, float)), np.log(np.asarray(values, float)), 1)[0])


def unit_student(rng: np.random.Generator, n: int, freedom: int = 10) -> Float[np.ndarray, " n"]:
    """Student's t scaled to variance one."""
    return rng.standard_t(freedom, n) * math.sqrt((freedom - 2) / freedom)


def curves(sizes: np.ndarray, values: dict[str, np.ndarray], ylabel: str, title: str = "") -> Panel:
    """Curves over the sample size, both axes logarithmic."""
    sizes = np.asarray(sizes, float)
    marks = []
    for color, (name, y) in enumerate(values.items()):
        y = np.asarray(y, float)
        marks += [Line(x=sizes, y=y, label=name, color=color), Points(x=sizes, y=y, color=color)]
    return Panel(
        marks=tuple(marks),
        x=Axis(label="points n", scale="log"),
        y=Axis(label=ylabel, scale="log"),
        title=title,
    )
