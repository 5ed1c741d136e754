"""Time and memory against P, N, n and d."""

import math
from functools import partial

import numpy as np
import torch
from torch import nn

import fathometer as fm
from benchmarks.race import Scaling

PEERS = ["curvlinops-for-pytorch", "stein-thinning"]
EXAMPLES, PARAMETERS = 2048, 50_000


def scalings():
    """Curvature products against P and N, the Stein discrepancy against n and d, orbits against N."""
    products = {"fathometer": _ours, "autograd, twice backward": _autograd, "curvlinops": _curvlinops}
    yield Scaling(
        f"Hessian-vector product, perceptron, N = {EXAMPLES} examples",
        "parameters P",
        (1_000, 10_000, 100_000, 1_000_000),
        {name: partial(_product, make, EXAMPLES) for name, make in products.items()},
    )
    yield Scaling(
        f"Hessian-vector product, perceptron, P = {PARAMETERS:,} parameters",
        "examples N",
        (256, 1_024, 4_096, 16_384),
        {name: partial(_product_over_examples, make) for name, make in products.items()},
    )
    discrepancies = {
        "fathometer": _our_ksd,
        "NumPy, whole matrix": _numpy_ksd,
        "stein-thinning (every prefix)": _thinning_ksd,
    }
    yield Scaling(
        "Kernel Stein discrepancy of n points in 10 dimensions",
        "points n",
        (500, 1_000, 2_000, 4_000, 8_000),
        {name: partial(_sample, make, dimension=10) for name, make in discrepancies.items()},
    )
    yield Scaling(
        "Kernel Stein discrepancy of 2,000 points in d dimensions",
        "dimensions d",
        (2, 8, 32, 128),
        {name: partial(_sample_in, make) for name, make in discrepancies.items()},
    )
    yield Scaling(
        "Orbits of a grid's translations and rotations on pairs of its cells",
        "cells N",
        (64, 256, 1_024, 4_096),
        {
            "fathometer, whole table": _table,
            "fathometer, lazy, 1,000 labels": _lazy,
            "union-find in Python": _union,
        },
    )


def _problem(parameters, examples):
    """A perceptron with about that many parameters, and data."""
    torch.manual_seed(0)
    inputs, classes = 20, 10
    b = inputs + classes + 2
    width = max(2, round((-b + math.sqrt(b * b + 4 * parameters)) / 2))
    sizes = ((inputs, width), (width, width), (width, classes))
    model = nn.Sequential(*[part for a, c in sizes for part in (nn.Linear(a, c), nn.Tanh())][:-1])
    return model, torch.randn(examples, inputs), torch.randint(classes, (examples,))


def _product(make, examples, parameters):
    model, x, y = _problem(parameters, examples)
    v = torch.randn(sum(p.numel() for p in model.parameters()))
    return make(model, x, y, v)


def _product_over_examples(make, examples):
    return _product(make, examples, PARAMETERS)


def _ours(model, x, y, v):
    A = fm.LossSurface(model, "cross_entropy", (x, y)).hessian()
    return lambda: A @ v


def _autograd(model, x, y, v):
    parameters, loss = list(model.parameters()), nn.CrossEntropyLoss()

    def product():
        gradient = torch.autograd.grad(loss(model(x), y), parameters, create_graph=True)
        flat = torch.cat([part.flatten() for part in gradient])
        return torch.cat([part.flatten() for part in torch.autograd.grad(flat @ v, parameters)])

    return product


def _curvlinops(model, x, y, v):
    from curvlinops import HessianLinearOperator

    parameters = dict(model.named_parameters())
    try:
        A = HessianLinearOperator(
            model, nn.CrossEntropyLoss(), parameters, [(x, y)], check_deterministic=False
        )
    except (TypeError, AttributeError):  # older versions take a list
        A = HessianLinearOperator(
            model, nn.CrossEntropyLoss(), list(parameters.values()), [(x, y)], check_deterministic=False
        )
    return lambda: A @ v


def _sample(make, points, dimension):
    x = np.random.default_rng(0).normal(size=(points, dimension))
    return make(x, -x)


def _sample_in(make, dimension):
    return _sample(make, 2_000, dimension)


def _our_ksd(x, s):
    return lambda: fm.stein.ksd(x, s).value


def _numpy_ksd(x, s):
    """The formula on whole matrices, as one would write it."""

    def value():
        d = x.shape[1]
        square = ((x**2).sum(1)[:, None] + (x**2).sum(1) - 2 * x @ x.T).clip(0)
        base = 1 + square
        cross = (s * x).sum(1)
        slope = cross[:, None] + cross - s @ x.T - x @ s.T
        k0 = s @ s.T / base**0.5 + (slope + d) / base**1.5 - 3 * square / base**2.5
        return math.sqrt(k0.mean())

    return value


def _thinning_ksd(x, s):
    from stein_thinning.kernel import make_imq
    from stein_thinning.stein import ksd

    kernel = make_imq(x, "id")
    return lambda: ksd(lambda i, j: kernel(x[i], x[j], s[i], s[j]), len(x))[-1]


def _grid(cells):
    side = round(math.sqrt(cells))
    index = np.arange(side * side).reshape(side, side)
    moves = [np.roll(index, 1, 0), np.roll(index, 1, 1), np.rot90(index)]
    return [np.ascontiguousarray(move).ravel() for move in moves]


def _table(cells):
    moves = _grid(cells)
    return lambda: fm.symmetry.Action(moves, moves).tying().num_orbits


def _lazy(cells):
    moves = _grid(cells)
    pairs = np.random.default_rng(0).integers(0, cells, size=(1_000, 2)).tolist()

    def labels():
        tying = fm.symmetry.Action(moves, moves).tying(lazy=True)
        return [tying.label(n, m) for n, m in pairs]

    return labels


def _union(cells):
    moves = [move.tolist() for move in _grid(cells)]
    if cells > 1_024:
        raise MemoryError("minutes in pure Python; left out")

    def orbits():
        parent = list(range(cells * cells))

        def find(i):
            while parent[i] != i:
                parent[i] = parent[parent[i]]
                i = parent[i]
            return i

        for move in moves:
            for a in range(cells):
                for b in range(cells):
                    i, j = find(a * cells + b), find(move[a] * cells + move[b])
                    parent[i] = j
        return sum(parent[i] == i for i in range(cells * cells))

    return orbits
