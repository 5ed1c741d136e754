"""Exact statements about the Gauss-Newton part of the Hessian, from its rows.

* **The whole spectrum.** The eigenvalues of a sum of n C outer products that are not zero are
  those of the n C x n C matrix of inner products, whatever the number of parameters.
* **The error of a Kronecker factorization.** KFAC (Martens & Grosse 2015; convolutions: Grosse &
  Martens 2016) replaces the block of a layer, the mean of ``(a a') x (d d')``, by the product of the means
  of both. The inner products that the Frobenius distance needs are sums, without either matrix.
"""

from typing import Any

import numpy as np
import torch

from fathometer.errors import BudgetError, CapabilityError, InputError
from fathometer.model.factors import gauss_newton_factors
from fathometer.model.kronecker import kronecker_products
from fathometer.model.roots import root_count
from fathometer.results import Row, Table
from fathometer.spectra.density import SpectralDensity, of_eigenvalues
from fathometer.work import allowance, in_words


def gauss_newton_spectrum(surface: Any) -> SpectralDensity:
    """All P eigenvalues of the Gauss-Newton matrix, exact, through the Gram matrix of its rows.

    Cost: C backward passes for linear layers (one row at a time for other parameters), then one
    symmetric matrix of min(n C, P) rows, n (C - 1) for cross-entropy. Zeros beyond its rank are exact zeros.

    Args:
        surface: A `LossSurface` with outputs (N, C) and a loss that is convex in them.

    Raises:
        InputError: If the surface is none, or its loss is opaque or not convex.
        CapabilityError: If the outputs are not one tensor (N, C).
        BudgetError: If the Gram matrix does not fit the memory budget.
    """
    _check(surface)
    P = surface.size
    factors = None
    outputs = root_count(surface._problem.objective, surface.outputs().shape[-1])
    rows = surface.examples * outputs
    needed, free = 24 * rows * rows, allowance()
    if rows <= P and needed > free:
        raise BudgetError(
            f"the Gram matrix of {rows} rows ({surface.examples} examples, {outputs} each) takes "
            f"{in_words(needed)} and {in_words(free)} may be used; "
            f"{int((free / 24) ** 0.5) // outputs} examples fit."
        )
    if rows <= P:
        factors = gauss_newton_factors(surface)
        matrix = factors.gram()
    else:
        matrix = surface.double().gauss_newton().to_dense()
        matrix = 0.5 * (matrix + matrix.T)
    values = torch.linalg.eigvalsh(matrix).clamp(min=0.0).numpy()
    whole = np.concatenate([np.zeros(max(P - len(values), 0)), values[-P:]])
    return of_eigenvalues(whole, name="Gauss-Newton matrix")


def kfac_error(surface: Any) -> Table:
    """How far Kronecker factors are from the Gauss-Newton blocks they stand for, layer by layer.

    Args:
        surface: A `LossSurface` with outputs (N, C) and linear or convolutional layers. Examples stream
            through it, and rows of a layer are written down some at a time, so that size is no obstacle.

    Returns:
        Rows with ``layer``, ``value`` (Frobenius distance relative to the block), ``kind`` ("exact"),
        ``error`` (0), ``cosine`` between the two, and ``norm`` of the block. Weight and bias are one block.

    Raises:
        InputError: If the surface is none, or its loss is opaque or not convex.
        CapabilityError: If no linear layer or convolution is used once, or as `gauss_newton_spectrum`.
    """
    _check(surface)
    layers = kronecker_products(surface)
    if not layers:
        raise CapabilityError("the surface has no linear layer or convolution that is used once.")
    rows = []
    for name, found in layers.items():
        block, product, both = found.block, found.product, found.both
        distance = float(np.sqrt(max(block + product - 2 * both, 0.0) / block)) if block > 0 else 0.0
        rows.append(
            Row(
                layer=name,
                value=distance,
                kind="exact",
                error=0.0,
                cosine=both / np.sqrt(block * product) if block * product > 0 else 1.0,
                norm=float(np.sqrt(block)),
            )
        )
    return Table(title="relative distance of Kronecker factors from Gauss-Newton blocks", rows=tuple(rows))


def _check(surface: Any) -> None:
    if not hasattr(surface, "gauss_newton"):
        raise InputError(f"surface is a {type(surface).__name__}; pass a LossSurface.")
