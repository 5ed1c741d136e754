"""The exact trace of the Hessian of a piecewise-linear network, tensor by tensor.

In a network of ReLUs, leaky ReLUs, max-pooling and linear layers every parameter tensor enters
the outputs linearly as long as no unit switches. Then the second derivatives of the outputs
within one tensor vanish: the diagonal blocks of the Hessian are those of its Gauss-Newton part,
and traces of the latter are sums of squares of rows (`factors`), C backward passes in all.

Whether a network is of that kind is measured, not guessed from its layers: for a random
direction v within one tensor, ``v' H v = v' G v`` holds for a network that is linear in it
and, with probability one, for no other.
"""

from typing import TYPE_CHECKING

import torch

from fathometer.errors import CapabilityError
from fathometer.model.factors import gauss_newton_factors
from fathometer.results import Row, Table
from fathometer.work import generator

if TYPE_CHECKING:
    from fathometer.model.surface import LossSurface

AGREE = 1e-8


def exact_trace(surface: "LossSurface", *, seed: int = 0) -> Table:
    """Trace of the Hessian and of the diagonal block of every parameter tensor, exact.

    Args:
        surface: A network that is piecewise linear in every parameter tensor, outputs (N, C).
        seed: Of the directions that test for it.

    Returns:
        Rows with ``tensor``, ``value``, ``kind`` ("exact") and ``error`` (0); the first is "all".

    Raises:
        CapabilityError: If the network is not linear in a tensor; use `fathometer.trace` then.
        InputError: As `gauss_newton_factors`.
    """
    double = surface.double()
    H, G = double.hessian(check=False), double.gauss_newton(check=False)
    for name in surface.names:
        at = double.space.positions(name)
        v = torch.zeros(surface.size, dtype=torch.float64)
        v[at] = torch.randn(len(at), generator=generator(seed, "exact trace", name), dtype=torch.float64)
        bent, plain = float(v @ (H @ v)), float(v @ (G @ v))
        if abs(bent - plain) > AGREE * (abs(bent) + abs(plain)):
            raise CapabilityError(
                f"the network is not piecewise linear in {name}: curvature {bent:.6g} and Gauss-Newton "
                f"{plain:.6g} differ along a direction within it. Use fathometer.trace for an estimate."
            )
    traces = gauss_newton_factors(surface).traces()
    rows = [Row(tensor="all", value=sum(traces.values()), kind="exact", error=0.0)]
    rows += [Row(tensor=name, value=traces[name], kind="exact", error=0.0) for name in surface.names]
    return Table(title="trace of the Hessian by parameter tensor", rows=tuple(rows))
