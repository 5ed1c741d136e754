"""Eigenpairs of a symmetric operator, each with the residual that was measured for it.

The search is a thick-restart block Lanczos method (Wu & Simon 2000; see `krylov`). What it finds is then
held to account twice:

* **Residuals** come from one fresh product with the returned vectors, not from the
  recurrence. For a symmetric operator an eigenvalue lies within the residual of every
  returned value, always.
* **Missed eigenvalues.** A Krylov space sees one direction of each eigenspace (one for each
  column of its block), so copies of a multiple eigenvalue can be missing. After convergence a
  second run from a random vector orthogonal to the returned ones (`missed`) either finds
  such a copy, and the search goes on, or excludes it at a stated confidence.

Cost: about two to three products for each well separated eigenvalue, one more for its
residual, and five to ten in all for the second check; memory: the basis, by default
``2 k + 40`` vectors.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from fathometer.errors import BudgetError, InputError
from fathometer.linalg.counted import DENSE_LIMIT, Counted, check_symmetric, normal
from fathometer.linalg.krylov import SKEW, Space
from fathometer.linalg.missed import Probe
from fathometer.linalg.operator import LinearOperator, as_operator
from fathometer.results import Result, describe
from fathometer.types import Kind
from fathometer.work import allowance, generator, in_words

Which = Literal["largest", "smallest", "magnitude"]

CHECK_LIMIT = 60
"""Most products for one look at what was missed; few are needed unless the wanted ones are no outliers."""
DENSE_MATRIX_LIMIT = 2048
"""Sizes up to which a matrix that exists is diagonalized; beyond, its products are cheaper."""
BLOCK = 1
"""Random start vectors; one needs the fewest products where eigenvalues are simple."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Eigenpairs(Result):
    """Eigenvalues with vectors, residuals and what was paid for them.

    Attributes:
        values: (k,) eigenvalues; the largest first, the smallest first, or by decreasing size.
        vectors: (P, k) orthonormal columns.
        residuals: (k,) ``|A v - value v|``, from a fresh product in the operator's precision. An
            eigenvalue of A lies within each of them of its value.
        converged: (k,) whether the residual meets the tolerance; where it does not, the pair is the
            best that was found within the limit of products.
        products: Products with A, those for the residuals and the check included.
        which: "largest", "smallest" or "magnitude".
        kind: "exact" (whole matrix diagonalized) or "estimate".
        complete_beyond: No eigenvalue beyond this level (above it, below it or larger in size, as
            ``which`` says) is missing, with probability 0.999 over the random vector of the check;
            infinite where the check was left out.
    """

    values: Any
    vectors: Any
    residuals: Any
    converged: Any
    products: int
    which: str
    kind: Kind
    complete_beyond: float

    @property
    def value(self) -> Any:
        """The eigenvalues."""
        return self.values

    @property
    def error(self) -> Any:
        """The residuals."""
        return self.residuals

    def __str__(self) -> str:
        names = {"largest": "largest", "smallest": "smallest", "magnitude": "largest in size"}
        ok, k = int(self.converged.sum()), len(self.values)
        return (
            f"{k} eigenvalues, {names[self.which]}: {describe(float(self.values[0]), self.kind, None)} to "
            f"{float(self.values[-1]):.4g}, {ok} of {k} converged, {self.products} products"
        )


def eigenpairs(
    A: Any,
    k: int,
    which: Which = "largest",
    tolerance: float = 1e-4,
    seed: int = 0,
    *,
    start: Tensor | None = None,
    check: bool = True,
    max_products: int | None = None,
    block: int = BLOCK,
) -> Eigenpairs:
    """The k largest, smallest or largest-in-size eigenvalues of a symmetric operator.

    A pair counts as converged when its residual is at most ``tolerance * |value|``; for
    values far below the norm of A, where rounding forbids that, at most
    ``tolerance * sqrt(eps)`` or ``10 * eps`` times the norm. Small operators are written
    down and diagonalized, and so are those of up to 2,048 rows whose search needs more products
    than that would (if ``max_products`` is left open). Running out of products is no error: the
    flags and the residuals say which pairs to trust, and how far.

    Args:
        A: Symmetric `LinearOperator` (P, P) or a plain symmetric matrix.
        k: Number of pairs, 1 to P.
        which: "largest" or "smallest" (algebraically), or "magnitude".
        tolerance: Of the residual, relative to the eigenvalue.
        seed: Of the random start and of the check.
        start: Vectors (P,) or (P, j) near the wanted ones, for example the last answer's.
        check: Look for missed eigenvalues with a random vector, five to ten products more
            where the wanted ones stand apart from the rest.
        max_products: Stop the search there (the residuals cost k more); default 1000 or
            40 k, whichever is more, but no more than the P of an operator that can be written down.
        block: Random start vectors; more find multiple eigenvalues sooner.

    Raises:
        InputError: If A is not symmetric or gives a product that is not finite, or an argument
            is out of range.
        BudgetError: If the basis does not fit the memory budget.

    >>> pairs = eigenpairs([[2.0, 1.0], [1.0, 2.0]], 2)
    >>> pairs.values.round().tolist(), pairs.kind
    ([3.0, 1.0], 'exact')
    """
    given_numpy = isinstance(A, np.ndarray)
    A = as_operator(A)
    _check(A, k, which, tolerance, block, max_products)
    near = _start(A, start)
    product = Counted(A)
    size = A.shape[0]
    whole = size <= (DENSE_LIMIT if A.dense is None else DENSE_MATRIX_LIMIT) or 3 * k > size
    fields: dict[str, Any] = {}
    if not whole:
        limit = max(1000, 40 * k) if max_products is None else max_products
        # where the whole matrix costs no more than the search, it is the way out
        fallback = max_products is None and size <= DENSE_MATRIX_LIMIT and 24 * size**2 <= allowance()
        limit = min(limit, size) if fallback else limit
        found = _Search(product, k, which, tolerance, seed, block, limit, check).run(near)
        fields = _measured(product, found, which, tolerance)
        done = bool(fields["converged"].all()) and (math.isfinite(fields["complete_beyond"]) or not check)
        whole = fallback and not done
    if whole:
        fields = _measured(product, _dense(product, k, which), which, tolerance)
    if given_numpy:
        fields |= {name: value.cpu().numpy() for name, value in fields.items() if isinstance(value, Tensor)}
    return Eigenpairs(**fields, products=product.spent, which=which, kind="exact" if whole else "estimate")


def _check(
    A: LinearOperator, k: int, which: str, tolerance: float, block: int, max_products: int | None
) -> None:
    check_symmetric(A, "eigenpairs")
    if not 1 <= k <= A.shape[0]:
        raise InputError(f"k is {k}; {A.name} of size {A.shape[0]} has 1 to {A.shape[0]} eigenpairs.")
    if which not in get_args(Which):
        raise InputError(f"which is {which!r}; it is one of {', '.join(get_args(Which))}.")
    if not tolerance > 0:
        raise InputError(f"tolerance is {tolerance}; it must be positive, for example 1e-4.")
    if block < 1:
        raise InputError(f"block is {block}; at least one start vector is needed.")
    if max_products is not None and max_products < k:
        raise InputError(f"max_products is {max_products}; {k} pairs need at least {k} products.")


def _start(A: LinearOperator, start: Tensor | None) -> Tensor | None:
    if start is None:
        return None
    near = torch.as_tensor(start).to(A.device, A.dtype)
    near = near[:, None] if near.ndim == 1 else near
    if near.ndim != 2 or near.shape[0] != A.shape[0] or near.shape[1] == 0:
        raise InputError(
            f"start has shape {tuple(near.shape)}; {A.name} needs ({A.shape[0]},) or ({A.shape[0]}, j)."
        )
    if not torch.isfinite(near).all():
        raise InputError("start holds NaN or infinity; leave it out for a random start.")
    return near.detach()


def _key(values: Tensor, which: str) -> Tensor:
    """What is wanted, as the largest of these."""
    return {"largest": values, "smallest": -values, "magnitude": values.abs()}[which]


def _threshold(A: LinearOperator, values: Tensor, norm: float, tolerance: float) -> Tensor:
    eps = torch.finfo(A.dtype).eps
    floor = max(tolerance * math.sqrt(eps), 10 * eps) * norm
    return (tolerance * values.abs()).clamp(min=floor)


def _dense(product: Counted, k: int, which: str) -> tuple[Tensor, float, float]:
    """The whole spectrum in float64: vectors (P, k), norm, and the level of the last one."""
    A = product.operator
    matrix = product.written_down().double()
    gap, scale = (matrix - matrix.T).abs().max().item(), matrix.abs().max().item()
    if gap > SKEW * scale:
        raise InputError(
            f"{A.name} is declared symmetric and is not: entries differ from their mirror images by up to "
            f"{gap:.3g}, where the largest is {scale:.3g}."
        )
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    order = _key(values, which).argsort(descending=True, stable=True)[:k]
    return vectors[:, order].to(A.dtype), values.abs().max().item(), values[order[-1]].item()


def _measured(
    product: Counted, found: tuple[Tensor, float, float], which: str, tolerance: float
) -> dict[str, Any]:
    """Rayleigh quotients, vectors and residuals from a fresh product, in the order promised."""
    vectors, norm, beyond = found
    image = product(vectors)
    values = (vectors * image).sum(0) / vectors.square().sum(0)
    residuals = torch.linalg.vector_norm(image - vectors * values, dim=0)
    order = _key(values, which).argsort(descending=True, stable=True)
    values, residuals = values[order], residuals[order]
    return {
        "values": values,
        "vectors": vectors[:, order],
        "residuals": residuals,
        "converged": residuals <= _threshold(product.operator, values, norm, tolerance),
        "complete_beyond": beyond,
    }


class _Search:
    """One search: expand, restart, and look for what was missed, within the limit of products."""

    def __init__(
        self,
        product: Counted,
        k: int,
        which: str,
        tolerance: float,
        seed: int,
        block: int,
        limit: int,
        check: bool,
    ) -> None:
        A = product.operator
        self.product, self.k, self.which, self.tolerance, self.limit = product, k, which, tolerance, limit
        self.block, self.check, self.seed = block, check, seed
        self.random = generator(seed, "eigenpairs", "start")
        self.norm = 0.0
        self.space = Space(product, self._capacity(A, k, block))

    @staticmethod
    def _capacity(A: LinearOperator, k: int, block: int) -> int:
        one = A.shape[0] * A.dtype.itemsize
        free = allowance() // one - 2 * (k + 2 * block)  # the answer, its image and one block's work
        least, best = k + 3 * block + 2, 2 * k + 40 + 4 * block
        if free < least:
            need = (least + 2 * (k + 2 * block)) * one
            raise BudgetError(
                f"{k} eigenpairs of {A.name} need {in_words(need)} for the basis; {in_words(allowance())} "
                "may be used. Ask for fewer, or raise fm.budget."
            )
        return min(A.shape[0], free, best)

    def run(self, near: Tensor | None) -> tuple[Tensor, float, float]:
        """Vectors (P, k), the norm of A as far as seen, and the level beyond which none is missing."""
        A, rounds = self.product.operator, 0
        self.space.add(normal(A, self.block, self.random) if near is None else near)
        while True:
            values, S, exhausted = self._converge()
            vectors = self.space.vectors(S)
            if exhausted:
                return vectors, self.norm, values[-1].item()
            if not self.check or self.product.spent >= self.limit:
                return vectors, self.norm, math.inf if self.which != "smallest" else -math.inf
            missed, beyond = self._missed(vectors, values, rounds)
            if missed is None:
                return vectors, self.norm, beyond
            rounds += 1
            self._make_room(missed.shape[1])
            self.space.add(missed)

    def _converge(self) -> tuple[Tensor, Tensor, bool]:
        """Expand until the wanted Ritz pairs converge or the limit is reached."""
        space, A = self.space, self.product.operator
        while True:
            if space.filled == space.expanded < A.shape[0]:  # an invariant space: leave it
                self._make_room(self.block)
                space.add(normal(A, self.block, self.random))
            self._make_room(space.filled - space.expanded)
            space.expand()
            values, S, residuals = space.ritz()
            self.norm = max(self.norm, values.abs().max().item())
            order = _key(values, self.which).argsort(descending=True, stable=True)[: self.k]
            allowed = _threshold(A, values[order], self.norm, self.tolerance) / 2
            whole = space.expanded == A.shape[0]
            if len(order) == self.k and (whole or bool((residuals[order] <= allowed).all())):
                return values[order], S[:, order], whole
            if self.product.spent >= self.limit and len(order) == self.k:
                return values[order], S[:, order], False

    def _make_room(self, columns: int) -> None:
        """Restart on the best Ritz pairs if ``columns`` more do not fit."""
        space = self.space
        if space.room >= columns or space.capacity == self.product.operator.shape[0]:
            return
        block = space.filled - space.expanded
        values, S, _ = space.ritz()
        most = space.capacity - 2 * max(block, columns) - 1
        kept = min(most, max(self.k + 1, space.capacity // 2))
        order = _key(values, self.which).argsort(descending=True, stable=True)[:kept]
        space.restart(values[order], S[:, order])

    def _missed(self, vectors: Tensor, values: Tensor, round_: int) -> tuple[Tensor | None, float]:
        """Directions of eigenvalues that the search does not have, or the level beyond which none is."""
        A = self.product.operator
        slack = _threshold(A, values[-1:], self.norm, self.tolerance).item()
        level = _key(values, self.which)[-1].item() + slack
        signs = {"largest": (1,), "smallest": (-1,), "magnitude": (1, -1)}[self.which]
        most = min(A.shape[0] - self.k, max(12, min(self.product.spent // 2, CHECK_LIMIT)))
        start = normal(A, 1, generator(self.seed, "eigenpairs", "check", round_))
        probe = Probe(self.product, torch.linalg.qr(vectors)[0], start, most)
        while probe.step():
            low, high = probe.ends()
            if max(high if sign > 0 else -low for sign in signs) > level:
                ritz, directions = probe.ritz()
                return directions[:, (_key(ritz, self.which) > level).to(A.device)], math.inf
            if all(probe.excludes(sign * level) for sign in signs):
                break
        beyond = max(sign * probe.beyond(sign) for sign in signs)
        return None, -beyond if self.which == "smallest" else beyond
