"""Races of the approximation room: knots, polynomials into networks, trained networks, certificates."""

import importlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.goal import Goal, answer, faster, seconds
from benchmarks.race import Race
from fathometer.approximation import approximate, certify, shallow, trained
from fathometer.approximation.layering import layered
from fathometer.approximation.network import Builder, SkipNetwork

PEERS = ["pwlf==2.7.0", "bound-propagation==0.4.7"]
PWLF = "pwlf fitfast (least squares)"
OTHERS = {"x^3": (0, 1), "sin(pi*x)": (0, 1), "tanh(x)": (0, 3), "1/(1+25*x^2)": (-1, 1)}


def races() -> Iterator[Race]:
    """Knots, certified networks, certificates."""
    yield Race(
        title="Best fit of exp with 8 linear pieces",
        goal=(_fold("sup error", PWLF, 4 / 3), faster(PWLF, 10)),
        ours=lambda: shallow("exp(x)", (0, 1), pieces=8).error,
        peers={PWLF: _pwlf},
        agree=lambda ours, peers: _ratios("sup error", ours, peers),
        repeats=3,
    )
    yield Race(
        title="30,000 optimal knots for exp",
        goal=seconds(0.05),
        ours=lambda: shallow("exp(x)", (0, 1), pieces=30_000).error,
        peers={},
        agree=lambda ours, peers: (
            f"n^2 E 16 / I^2 = {ours * 30_000**2 * 16 / (2 * (np.e**0.5 - 1)) ** 2:.9f}"
        ),
        repeats=3,
    )
    for error in (1e-4, 1e-6):
        yield Race(
            title=f"exp to a certified network at {error:g}",
            goal=seconds(2 if error > 1e-5 else 10),
            ours=lambda error=error: approximate("exp(x)", (0, 1), error),
            peers={
                "Chebyshev emulation": lambda error=error: approximate(
                    "exp(x)", (0, 1), error, method="chebyshev"
                )
            },
            agree=_units,
            repeats=2,
            note="The emulation is written down at once and needs two to three times as many units; ours is "
            "searched for and proved.",
        )
    for f, domain in OTHERS.items():
        yield Race(
            title=f"{f} to a certified network at 0.0001",
            goal=seconds(2),
            ours=lambda f=f, domain=domain: approximate(f, domain, 1e-4),
            peers={},
            agree=_units,
            repeats=2,
        )
    yield Race(
        title="exp with 11 units: construction or training (L-BFGS, one seed)",
        goal=_fold("certified error", "Adam and L-BFGS, [11]", 10),
        ours=lambda: approximate("exp(x)", (0, 1), 1e-4).value,
        peers={"Adam and L-BFGS, [11]": _trained},
        agree=lambda ours, peers: _ratios("certified sup error", ours, peers),
        repeats=1,
        note="Training is over sooner, at an error some 90 times as large (the goal is about the error).",
    )
    yield Race(
        title="Certificate of a network with 65,536 pieces",
        goal=seconds(2),
        ours=lambda: certify(_tents(16), "x^2", (0, 1), 1e-3).upper,
        peers={},
        agree=lambda ours, peers: f"upper / exact = {ours * 2.0**35:.6f}",
        repeats=2,
    )
    yield Race(
        title="Certificate of a layered network of 512 pieces, its pieces not told (CROWN: told as boxes)",
        goal=_fold("bound", "bound-propagation CROWN on aligned boxes", 0.999),
        ours=lambda: certify(_tents(9), "x^2", (0, 1), 1e-3).upper,
        peers={"bound-propagation CROWN on aligned boxes": _crown},
        agree=_same_bound,
        repeats=2,
    )


def _tents(levels: int) -> SkipNetwork:
    """x^2 up to exactly 2^(-2 levels - 3)."""
    build = Builder(1)
    tent = total = build.variable()
    for s in range(1, levels + 1):
        tent = 2.0 * tent - 4.0 * build.relu(tent - 0.5)
        total = total - 4.0**-s * tent
    return build.network(total - 2.0 ** (-2 * levels - 3))


def _pwlf() -> float:
    pwlf = importlib.import_module("pwlf")
    x = np.linspace(0, 1, 1001)
    fit = pwlf.PiecewiseLinFit(x, np.exp(x), seed=0)
    fit.fitfast(8)
    dense = np.linspace(0, 1, 20_001)
    return float(np.abs(fit.predict(dense) - np.exp(dense)).max())


def _trained() -> float:
    return trained("exp(x)", (0, 1), [11], steps=500, seeds=(0,)).value


def _crown() -> float:
    """Distance of x^2 from the two lines that enclose the network on each box, in closed form."""
    peer = importlib.import_module("bound_propagation")
    net: Any = layered(_tents(9), (0.0, 1.0)).module
    chain: list[nn.Module] = []
    for linear in net.layers:
        chain += [linear, nn.ReLU()]
    bounded = peer.BoundModelFactory().build(nn.Sequential(*chain, net.output))
    edges = torch.linspace(0, 1, 513, dtype=torch.float64)[:, None]
    bounds = bounded.crown(peer.HyperRectangle(edges[:-1], edges[1:]))
    worst = 0.0
    for slope, intercept in (bounds.lower, bounds.upper):
        slope, intercept = slope.detach()[:, 0], intercept.detach()
        for x in (edges[:-1], edges[1:], (slope / 2).clamp(edges[:-1], edges[1:])):
            worst = max(worst, float((slope * x + intercept - x**2).abs().max()))
    return worst


def _fold(what: str, peer: str, times: float) -> Goal:
    """The peer's number is at least so many times ours."""
    words = f"the {what} of {peer} is at least {times:.3g} times ours"
    return answer(words, lambda ours, peers: peers[peer] / ours, least=times, needs=peer)


def _ratios(what: str, ours: float, peers: dict[str, float]) -> str:
    parts = [f"{name} {value:.3g} ({value / ours:.3g} times)" for name, value in peers.items()]
    return f"{what}: ours {ours:.3g}; " + "; ".join(parts)


def _same_bound(ours: float, peers: dict[str, float]) -> str:
    for name, value in peers.items():
        if abs(value / ours - 1) > 1e-3:
            raise AssertionError(f"{name} bounds the error by {value:.6g}, we by {ours:.6g}")
    return _ratios("bound of the error", ours, peers)


def _units(ours: Any, peers: dict[str, Any]) -> str:
    parts = [f"{name} {net.units} units ({net.value:.2g})" for name, net in peers.items()]
    return "; ".join([f"ours {ours.units} units ({ours.value:.2g})", *parts])
