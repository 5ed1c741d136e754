"""Traces, norms and diagonals of operators that are known by their products.

* Hutchinson (1990): the mean of w' A w over random signs w. The error falls like one over
  the square root of the products.
* Hutch++ (Meyer, Musco, Musco & Woodruff 2021): a third of the products finds the dominant
  range, whose trace is exact; Hutchinson does the rest.
* XTrace (Epperly, Tropp & Webber 2024, sec. 2, normalized): every random vector serves for
  both purposes, by leaving each out in turn. Unbiased. The spread of the n estimates gives the
  standard error; they are not independent, and interactions of two vectors, each counted in
  two estimates, can double the variance of their mean: the spread is taken times the root of 2.

All take blocks of products and grow until the standard error meets the tolerance, without
repeating a product. An operator that is small, or is there as a matrix, gets the exact answer.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from fathometer.errors import InputError
from fathometer.linalg.counted import DENSE_LIMIT, Counted, check_square, normal, signs
from fathometer.linalg.operator import LinearOperator, as_operator
from fathometer.linalg.sketch import Sketch
from fathometer.results import Estimate
from fathometer.work import chunk_size, generator

Method = Literal["auto", "exact", "hutchinson", "hutch++", "xtrace"]

FIRST = 10
"""Samples before their spread is believed."""
GROWTH = 1.5
"""How much larger each round is; a last round overshoots by no more than this."""

SHARED = math.sqrt(2)
"""Factor on the spread of leave-one-out estimates; without it the error is up to a third too small."""

Round = Callable[[int], tuple[float, float]]
"""Takes up to that many more samples; gives the mean of all so far and its standard error."""


def trace(
    A: Any,
    method: Method = "auto",
    tolerance: float = 0.01,
    seed: int = 0,
    *,
    absolute: float = 0.0,
    max_products: int = 3000,
) -> Estimate:
    """The sum of the eigenvalues.

    Args:
        A: Square `LinearOperator` (P, P) or a plain square matrix; it need not be symmetric.
        method: "auto" is exact for matrices, for P up to 512 and where the estimate would
            cost more than P products; else XTrace.
        tolerance: Standard error wanted, relative to the trace.
        seed: Of the random vectors.
        absolute: Standard error that is enough whatever the trace: set it where the
            trace may be zero.
        max_products: Where to stop if the tolerance is not met; ``error`` then says how far it
            came. An exact trace takes the P products it needs.

    Returns:
        An `Estimate`: kind "exact", or "estimate" with its standard error.

    Raises:
        InputError: If A is not square or gives a product that is not finite, or an argument is
            out of range.
        BudgetError: If no block of products fits the memory budget.

    >>> trace([[2, 1], [1, 3]]).value
    5.0
    """
    A = as_operator(A)
    check_square(A, "trace")
    _check(tolerance, absolute, max_products)
    if method not in get_args(Method):
        raise InputError(f"method is {method!r}; it is one of {', '.join(get_args(Method))}.")
    product = Counted(A)
    if method == "exact" or (method == "auto" and _is_small(A)):
        return _exact(float(_diagonal_by_units(product).double().sum()), product)
    rounds, unit = {
        "hutchinson": (_hutchinson, 1),
        "hutch++": (_hutchpp, 3),
        "xtrace": (_xtrace, 2),
        "auto": (_xtrace, 2),
    }[method]
    limit = min(max_products, A.shape[0]) if method == "auto" else max_products
    if unit > 1:  # a sketch cannot have more columns than the operator
        limit = min(limit, unit * A.shape[0])
    found, error = _sample(rounds(product, seed), product, unit, limit, tolerance, absolute)
    if method == "auto" and A.shape[0] <= max_products and not error <= max(tolerance * abs(found), absolute):
        return _exact(float(_diagonal_by_units(product).double().sum()), product)
    name = "xtrace" if method == "auto" else method
    return Estimate(value=found, kind="estimate", error=error, method=name, cost=product.spent)


def frobenius_norm(A: Any, tolerance: float = 0.01, seed: int = 0, *, max_products: int = 3000) -> Estimate:
    """The root of the sum of the squared entries, which for symmetric A are the squared eigenvalues.

    For symmetric operators by leave-one-out as in XTrace, applied to |A (I - Q Q')|^2: a sample
    costs two products with A, where XTrace of A' A would cost four. Other operators, also
    rectangular ones, by the mean of |A w|^2.

    Args:
        A: `LinearOperator` (m, n) or a plain matrix.
        tolerance: Standard error wanted, relative to the norm.
        seed: Of the random vectors.
        max_products: Where to stop if the tolerance is not met.

    Raises:
        InputError: If a product is not finite or an argument is out of range.
        BudgetError: If no block of products fits the memory budget.

    >>> frobenius_norm([[3.0, 0.0], [0.0, 4.0]]).value
    5.0
    """
    A = as_operator(A)
    _check(tolerance, 0.0, max_products)
    product = Counted(A)
    if _is_small(A):
        return _exact(float(torch.linalg.matrix_norm(product.written_down().double())), product)
    sample, unit = (_squared_norm, 2) if A.symmetric else (_plain_squared_norm, 1)
    limit, scale = min(max_products, unit * A.shape[0]), _Scale()
    square, error = _sample(sample(product, seed, scale), product, unit, limit, 2 * tolerance, 0.0)
    norm = math.sqrt(max(square, 0.0))
    spread = scale.size * (error / (2 * norm) if norm else math.sqrt(error))
    norm *= scale.size
    method = "leave-one-out" if A.symmetric else "hutchinson"
    return Estimate(value=norm, kind="estimate", error=spread, method=method, cost=product.spent)


def diagonal(A: Any, tolerance: float = 0.01, seed: int = 0, *, max_products: int = 3000) -> Estimate:
    """The diagonal (P,), each entry with its standard error.

    XDiag (Epperly, Tropp & Webber 2024, sec. 2.5) for symmetric operators and those with a transpose.

    Args:
        A: Square `LinearOperator` (P, P) or a plain square matrix.
        tolerance: Euclidean length of the standard errors, relative to that of the diagonal.
        seed: Of the random signs.
        max_products: Where to stop if the tolerance is not met. Where P products are allowed
            and the estimate would cost as many, the answer is exact.

    Returns:
        An `Estimate` whose value and error are arrays (P,).

    Raises:
        InputError: If A is not square or has no transpose, a product is not finite, or an
            argument is out of range.
        BudgetError: If no block of products fits the memory budget.
    """
    A = as_operator(A)
    check_square(A, "diagonal")
    _check(tolerance, 0.0, max_products)
    product = Counted(A)
    if not _is_small(A):
        sketch, random = Sketch(product, product.transposed()), generator(seed, "diagonal")
        value, error = torch.zeros(A.shape[0], dtype=A.dtype, device=A.device), torch.tensor(math.inf)
        limit, columns = min(max_products, A.shape[0]), FIRST
        while (columns := min(columns, (limit - product.spent) // 2)) > 0:
            sketch.add(signs(A, columns, random))
            before, (value, error) = value, _xdiag(sketch)
            moved = (value - before).norm() / error.norm()
            if not sketch.saturated:
                error = error * moved.clamp(
                    min=1.0
                )  # as for the trace: wrong together, until more columns come
            if sketch.saturated or error.norm() <= tolerance * value.norm():
                break
            columns = math.ceil((GROWTH - 1) * sketch.O.shape[1])
        if error.norm() <= tolerance * value.norm() or A.shape[0] > max_products:
            return Estimate(value=value, kind="estimate", error=error, method="xdiag", cost=product.spent)
    entries = _diagonal_by_units(product)
    return Estimate(
        value=entries, kind="exact", error=torch.zeros_like(entries), method="exact", cost=product.spent
    )


def _check(tolerance: float, absolute: float, max_products: int) -> None:
    if not tolerance > 0:
        raise InputError(f"tolerance is {tolerance}; it must be positive, for example 0.01.")
    if not absolute >= 0:
        raise InputError(f"absolute is {absolute}; a standard error is not negative.")
    if max_products < 3 * FIRST:
        raise InputError(f"max_products is {max_products}; a standard error needs at least {3 * FIRST}.")


def _is_small(A: LinearOperator) -> bool:
    return A.dense is not None or max(A.shape) <= DENSE_LIMIT


def _exact(value: float, product: Counted) -> Estimate:
    return Estimate(value=value, kind="exact", error=0.0, method="exact", cost=product.spent)


def _diagonal_by_units(product: Counted) -> Tensor:
    """The diagonal (P,) by products with unit vectors, without keeping the matrix."""
    A = product.operator
    if A.dense is not None:
        return A.dense.diagonal().clone()
    size = A.shape[0]
    block = min(64, chunk_size(size, 4 * size * A.dtype.itemsize, what=f"columns of {A.name}"))
    parts = []
    for at in torch.arange(size, device=A.device).split(block):
        units = torch.zeros(size, len(at), dtype=A.dtype, device=A.device)
        column = torch.arange(len(at), device=A.device)
        units[at, column] = 1.0
        parts.append(product(units)[at, column])
    return torch.cat(parts)


def _sample(
    take: Round, product: Counted, unit: int, limit: int, tolerance: float, absolute: float
) -> tuple[float, float]:
    """Take rounds of samples until the standard error is small enough or the products are spent."""
    value, error, samples, columns = 0.0, math.inf, 0, FIRST
    room = chunk_size(max(1, limit), 5 * sum(product.operator.shape) * product.operator.dtype.itemsize)
    while True:
        columns = min(columns, (limit - product.spent) // unit, room)
        if columns < 1:
            return value, error
        value, error = take(columns)
        samples += columns
        if samples >= FIRST and error <= max(tolerance * abs(value), absolute):
            return value, error
        columns = math.ceil((GROWTH - 1) * samples)


def _mean(samples: Tensor) -> tuple[float, float]:
    """Mean and standard error of samples (n,)."""
    spread = samples.std().item() / math.sqrt(len(samples)) if len(samples) > 1 else math.inf
    return samples.mean().item(), spread


def _leave_one_out_mean(samples: Tensor, rounds: list[float]) -> tuple[float, float]:
    """Mean and standard error, not below what the value moved since the round before.

    All estimates share one sketch. Just below the rank of a spectrum with a step they agree
    with each other and are wrong together; more columns give them away.
    """
    mean, spread = _mean(samples)
    rounds.append(mean)
    moved = abs(mean - rounds[-2]) if len(rounds) > 1 else math.inf
    return mean, max(SHARED * spread, moved)


def _column_products(X: Tensor, Y: Tensor) -> Tensor:
    """x_i . y_i for each pair of columns, summed in float64."""
    return (X * Y).sum(0, dtype=torch.float64).cpu()


def _hutchinson(product: Counted, seed: int) -> Round:
    random, samples = generator(seed, "hutchinson"), []

    def take(columns: int) -> tuple[float, float]:
        W = signs(product.operator, columns, random)
        samples.append(_column_products(W, product(W)))
        return _mean(torch.cat(samples))

    return take


class _Scale:
    """A power of two by which images are divided before they are squared.

    Squares of numbers like 1e-25 are zero in float32, and those of 1e25 infinite.
    """

    size = 0.0

    def __call__(self, images: Tensor) -> Tensor:
        if not self.size:
            largest = images.abs().max().item()
            self.size = 2.0 ** round(math.log2(largest)) if largest else 1.0
            self.size = 1.0 if 1e-8 < self.size < 1e8 else self.size
        return images if self.size == 1.0 else images / self.size


def _plain_squared_norm(product: Counted, seed: int, scale: _Scale) -> Round:
    random, samples = generator(seed, "frobenius"), []

    def take(columns: int) -> tuple[float, float]:
        image = scale(product(normal(product.operator, columns, random)))
        samples.append(_column_products(image, image))
        return _mean(torch.cat(samples))

    return take


def _hutchpp(product: Counted, seed: int) -> Round:
    random, sketch = generator(seed, "hutch++"), Sketch(product)
    seen: list[tuple[Tensor, Tensor]] = []

    def take(columns: int) -> tuple[float, float]:
        A = product.operator
        sketch.add(signs(A, columns, random))
        G = signs(A, columns, random)
        seen.append((G, product(G)))
        inside = _column_products(sketch.Q, sketch.Z).sum().item()
        if sketch.saturated:
            return inside, _missing(sketch)
        rest = []
        for G, AG in seen:
            C = sketch.Q.T @ G
            outside = G - sketch.Q @ C
            rest.append(_column_products(outside, AG - sketch.Z @ C))
        mean, error = _mean(torch.cat(rest))
        return inside + mean, error

    return take


def _xtrace(product: Counted, seed: int) -> Round:
    random, sketch = generator(seed, "xtrace"), Sketch(product)
    rounds: list[float] = []

    def take(columns: int) -> tuple[float, float]:
        sketch.add(normal(product.operator, columns, random))
        inside = _column_products(sketch.Q, sketch.Z).sum().item()
        if sketch.saturated:
            return inside, _missing(sketch)
        S, X, lengths = _left_out(sketch)
        H = (sketch.Q.T @ sketch.Z).cpu().double()
        W = (sketch.Q.T @ sketch.O).cpu().double()
        T = (sketch.Z.T @ sketch.O).cpu().double()
        # mu' A mu with mu = o - Q x: o' A o, o' A Q x, x' Q' A o and x' H x
        form = (W * sketch.R).sum(0) - (T * X).sum(0) - (X * sketch.R).sum(0) + (X * (H @ X)).sum(0)
        free = product.operator.shape[0] - len(S) + 1
        samples = inside - (S * (H @ S)).sum(0) + free * form / lengths
        mean, error = _leave_one_out_mean(samples, rounds)
        return mean, math.hypot(error, sketch.rounding)

    return take


def _squared_norm(product: Counted, seed: int, scale: _Scale) -> Round:
    random, sketch = generator(seed, "frobenius"), Sketch(product)
    rounds: list[float] = []

    def take(columns: int) -> tuple[float, float]:
        sketch.add(normal(product.operator, columns, random))
        Z = scale(sketch.Z)
        G, R = (Z.T @ Z).cpu().double(), sketch.R / scale.size
        if sketch.saturated:
            square = G.trace().item()
            rounding, outside = sketch.rounding / scale.size, sketch.outside / scale.size
            return square, 2 * math.sqrt(square) * rounding + outside**2
        S, X, lengths = _left_out(sketch)
        cross = (Z.T @ sketch.Q).cpu().double() @ R  # Z' A O
        # |A mu|^2 with A mu = Y - Z x
        form = R.square().sum(0) - 2 * (X * cross).sum(0) + (X * (G @ X)).sum(0)
        free = product.operator.shape[0] - len(S) + 1
        return _leave_one_out_mean(G.trace() - (S * (G @ S)).sum(0) + free * form / lengths, rounds)

    return take


def _missing(sketch: Sketch) -> float:
    """Error of a trace over a saturated basis: a trace is at most the norm times the root of the size."""
    free = sketch.Q.shape[0] - sketch.Q.shape[1]
    return math.hypot(sketch.rounding, math.sqrt(max(free, 0)) * sketch.outside)


def _left_out(sketch: Sketch) -> tuple[Tensor, Tensor, Tensor]:
    """The directions S, the coefficients X of each o_i in the basis without it, and |o_i - Q x_i|^2."""
    S = sketch.leave_one_out()
    W = (sketch.Q.T @ sketch.O).cpu().double()
    X = W - S * (S * W).sum(0)
    outside = sketch.O - sketch.Q @ X.to(sketch.Q)
    return S, X, _column_products(outside, outside)


def _xdiag(sketch: Sketch) -> tuple[Tensor, Tensor]:
    inside = (sketch.Q * sketch.Z).sum(1)
    if sketch.saturated:
        size = math.hypot(sketch.rounding, sketch.outside)
        return inside, torch.full_like(inside, size / math.sqrt(len(inside)))
    S = sketch.leave_one_out()
    QS, ZS = sketch.Q @ S.to(sketch.Q), sketch.Z @ S.to(sketch.Q)
    # (I - Q_i Q_i') A o_i = Q s_i (s_i' R e_i)
    outside = QS * (S * sketch.R).sum(0).to(QS)
    samples = sketch.O * outside - QS * ZS
    return inside + samples.mean(1), SHARED * samples.std(1) / math.sqrt(samples.shape[1])
