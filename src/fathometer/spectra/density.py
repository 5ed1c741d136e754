"""The spectrum of a Hessian or any symmetric operator as weighted nodes, with brackets.

Small matrices are diagonalized: the nodes are the eigenvalues. Large ones are seen through
random probes, each with a Gauss rule of its Krylov space: stochastic Lanczos quadrature (Golub & Meurant
2010; for Hessians of networks Ghorbani, Krishnan & Xiao 2019).
Such a rule is a good picture of the spectrum and a bad count of it: near zero, where many
eigenvalues crowd, its nodes say little about signs. Therefore every statement about a share
of eigenvalues comes as a bracket, from two facts:

* For the measure of one probe, Gauss nodes t_k with weights w_k satisfy the Chebyshev-Markov-
  Stieltjes inequalities ``sum_{i<k} w_i <= mu(-inf, t_k) <= mu(-inf, t_k] <= sum_{i<=k} w_i``.
  They hold for any measure and any number of steps; only the width shrinks with the steps.
* A probe is a uniform random direction. The share it sees of a set of eigenvalues of true
  share F has mean F and variance ``2 F (1 - F) / (P + 2)`` (a Beta distribution), and probes
  are independent. That gives a score interval without any estimated variance.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from scipy.stats import norm

from fathometer.calculus.stieltjes import like_input
from fathometer.drawing.picture import Picture
from fathometer.errors import InputError
from fathometer.linalg import Eigenpairs, LinearOperator, as_operator, eigenpairs, slq
from fathometer.results import Result
from fathometer.types import Kind
from fathometer.work import allowance

EXACT_LIMIT = 3000
DEFAULT_STEPS = 100
FIRST_STEPS, MOST_STEPS, MOST_PRODUCTS = 16, 1024, 16_384
"""Where a wanted accuracy is searched for: steps at first and at most, and products of one trial."""
Method = Literal["auto", "exact", "lanczos"]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SpectralDensity(Result):
    """Distribution of the eigenvalues of a symmetric matrix.

    Attributes:
        nodes: (m,) ascending, in the units of the eigenvalues; torch, or numpy for a numpy matrix.
        weights: (m,) share of the spectrum at each node; they sum to one.
        size: P, the number of eigenvalues.
        rules: (2, probes, steps) nodes and weights of each probe, or (2, 0, 0) if exact.
        known: (r,) eigenvalues that were computed one by one (all of them, if exact).
        products: Products with the operator that were spent.
        name: What was measured.
    """

    nodes: Any
    weights: Any
    size: int
    rules: np.ndarray
    known: np.ndarray
    products: int
    name: str = "operator"

    @cached_property
    def points(self) -> tuple[np.ndarray, np.ndarray]:
        """Nodes and weights as numpy arrays."""
        return np.asarray(self.nodes), np.asarray(self.weights)

    @property
    def value(self) -> tuple[float, float]:
        """The lowest and the highest node."""
        return float(self.nodes[0]), float(self.nodes[-1])

    @property
    def kind(self) -> Kind:
        """Exact if all eigenvalues were computed."""
        return "exact" if self.rules.size == 0 else "estimate"

    @property
    def error(self) -> float:
        """Half the width of the widest bracket of the distribution function; zero if exact."""
        if self.kind == "exact":
            return 0.0
        lower, upper = self.bracket(self.points[0])
        return float(0.5 * np.max(upper - lower))

    @property
    def probes(self) -> int:
        """Random probes behind the answer; 0 if exact."""
        return self.rules.shape[1]

    @property
    def mean(self) -> float:
        """Mean eigenvalue."""
        return float(self.nodes @ self.weights)

    @property
    def wasserstein(self) -> float:
        """Bound of the mean distance of quantiles (Wasserstein-1) from the true spectrum, in its units.

        The area between the estimate and the farther end of its bracket, within the range of the nodes.
        """
        return self._area(0.999)

    def _area(self, confidence: float) -> float:
        """Area of the farther half of the bracket; that of the steps alone at a confidence of zero."""
        if self.kind == "exact":
            return 0.0
        nodes = np.unique(self.points[0])
        middle = 0.5 * (nodes[1:] + nodes[:-1])
        lower, upper = self.bracket(middle, confidence)
        share = self.cdf(middle)
        return float(np.maximum(upper - share, share - lower) @ np.diff(nodes))

    def pdf(self, x: Any, width: float | None = None) -> Any:
        """Density at ``x`` (any shape), each node smoothed by a Gaussian of deviation ``width``.

        Args:
            x: Where; the same kind comes back.
            width: In the units of the eigenvalues; by default 1% of the range of the nodes.

        Raises:
            InputError: If the width is not positive.
        """
        nodes, weights = self.points
        if width is None:
            low, high = self.value
            width = 0.01 * (high - low if high > low else max(abs(low), 1.0))
        if not (math.isfinite(width) and width > 0):
            raise InputError(f"width is {width}; the deviation of the smoothing must be positive.")

        def smoothed(points: np.ndarray) -> np.ndarray:
            image = np.empty_like(points)
            block = max(1, 2**22 // len(nodes))
            for start in range(0, len(points), block):
                t = (points[start : start + block, None] - nodes) / width
                image[start : start + block] = np.exp(-0.5 * t**2) @ weights
            return image / (width * math.sqrt(2 * math.pi))

        return like_input(x, smoothed)

    def cdf(self, x: Any) -> Any:
        """Share of the spectrum at or below ``x`` (any shape): the weights of the nodes there."""
        nodes, weights = self.points
        total = np.arange(self.size + 1) / self.size
        if self.kind == "estimate":
            total = np.concatenate([[0.0], np.cumsum(weights[:-1]), [1.0]])
        return like_input(x, lambda points: total[np.searchsorted(nodes, points, side="right")])

    def bracket(self, x: Any, confidence: float = 0.999) -> tuple[Any, Any]:
        """Lower and upper bound of the share of eigenvalues at or below ``x`` (any shape).

        The steps enter with a guarantee, the probes with probability ``confidence`` at each point.
        If all eigenvalues are known both bounds are the exact share.

        Args:
            x: Where; the same kind comes back.
            confidence: Probability of the interval over the random probes, in (0, 1).

        Raises:
            InputError: If ``confidence`` is not in (0, 1).
        """
        if not 0 < confidence < 1:
            raise InputError(f"confidence is {confidence}; it is a probability between 0 and 1.")
        if self.kind == "exact":
            return self.cdf(x), self.cdf(x)
        z = float(norm.ppf(0.5 + 0.5 * confidence))
        return (
            like_input(x, lambda points: self._bound(points, z, upper=False)),
            like_input(x, lambda points: self._bound(points, z, upper=True)),
        )

    def _bound(self, x: np.ndarray, z: float, *, upper: bool) -> np.ndarray:
        nodes, weights = self.rules
        probes, steps = nodes.shape
        mean = np.zeros_like(x)
        for t, w in zip(nodes, weights, strict=True):
            total = np.concatenate([[0.0, 0.0], np.cumsum(w), [1.0]])
            total[-2] = 1.0
            if upper:  # all nodes up to and including the first one at or above x
                mean += total[np.minimum(np.searchsorted(t, x, side="left") + 2, steps + 1)]
            else:  # all nodes strictly below the last one at or below x
                mean += total[np.searchsorted(t, x, side="right")]
        rest = self.size - len(self.known)
        share = _score_bound(mean / probes, z, 2.0 / ((rest + 2) * probes), upper=upper)
        below = np.searchsorted(np.sort(self.known), x, side="right")
        return np.clip((below + rest * share) / self.size, 0.0, 1.0)

    def scaled(self, factor: float, name: str = "") -> "SpectralDensity":
        """The spectrum of ``factor`` times the matrix, for a positive factor, called ``name``.

        Raises:
            InputError: If the factor is not positive.
        """
        if not (math.isfinite(factor) and factor > 0):
            raise InputError(f"factor is {factor}; a positive number keeps the order of the eigenvalues.")
        rules = self.rules * np.array([factor, 1.0])[:, None, None]
        return replace(
            self,
            nodes=self.nodes * factor,
            rules=rules,
            known=self.known * factor,
            products=0,
            name=name or self.name,
        )

    def picture(self) -> Picture:
        """The density on a signed logarithmic axis."""
        from fathometer.spectra.pictures import density_picture

        return density_picture(self)

    def __str__(self) -> str:
        low, high = self.value
        how = f"{self.probes} probes x {self.rules.shape[2]} steps" if self.probes else "all eigenvalues"
        head = f"spectrum of {self.name}: {self.size} eigenvalues in [{low:.4g}, {high:.4g}]"
        return f"{head} ({how}, {self.kind})"


def density(
    A_or_surface: Any,
    probes: int = 10,
    steps: int | None = None,
    seed: int = 0,
    *,
    deflate: int = 0,
    method: Method = "auto",
    accuracy: float | None = None,
) -> SpectralDensity:
    """Measure the spectrum of a symmetric matrix, an operator, or the Hessian of a surface.

    Args:
        A_or_surface: A symmetric matrix (P, P), a `LinearOperator`, or a `LossSurface`, whose
            Hessian at its own point is meant.
        probes: Random probes.
        steps: Nodes of each probe, 1 to P; by default 100, or P if that is less.
        seed: Of the probes.
        deflate: Eigenvalues of largest size to compute one by one first, so that outliers do not
            use up the nodes.
        method: "auto" diagonalizes where that costs no more products than the probes do and
            P is at most 3000; "exact" always does, "lanczos" never.
        accuracy: Share of the range of the nodes that `SpectralDensity.wasserstein` shall not exceed:
            steps or probes are doubled, from one probe of 16 steps, until the brackets prove it (or one
            trial has taken 16,384 products). Deflate outliers: they make the range.

    Returns:
        The nodes and weights; see `SpectralDensity.bracket` for what they prove.

    Raises:
        InputError: If the operator is not symmetric, or probes, steps or deflate is out of range.
        BudgetError: If the work does not fit the memory budget.

    >>> density(np.diag([1.0, 2.0, 2.0])).cdf(1.5) == 1 / 3
    np.True_
    """
    A = symmetric_operator(A_or_surface)
    P = A.shape[0]
    _check(P, probes, steps, deflate, method)
    used = min(DEFAULT_STEPS, P) if steps is None else steps
    if accuracy is not None and not 0 < accuracy < 1:
        raise InputError(
            f"accuracy is {accuracy}; it is a share of the range of the spectrum, between 0 and 1."
        )
    limit = min(probes * used, EXACT_LIMIT) if accuracy is None else 0
    if method == "exact" or (method == "auto" and limit >= P and fits_dense(P)):
        return of_eigenvalues(all_eigenvalues(A_or_surface), like=A_or_surface, name=A.name)
    pairs: Eigenpairs | None = None
    if deflate:
        pairs = eigenpairs(A, deflate, which="magnitude", seed=seed)
    if accuracy is not None:
        return _adapted(A_or_surface, A, accuracy, seed, pairs, method)
    return _sampled(A_or_surface, A, probes, min(used, P - deflate) if steps is None else steps, seed, pairs)


def _adapted(
    subject: Any, A: LinearOperator, accuracy: float, seed: int, pairs: Eigenpairs | None, method: str
) -> SpectralDensity:
    """Double steps or probes, whichever the bracket is wide by, until its area is small enough."""
    P = A.shape[0]
    free, probes, steps, spent = P - (0 if pairs is None else len(pairs.values)), 1, FIRST_STEPS, 0
    while True:
        if method == "auto" and probes * steps >= P and P <= EXACT_LIMIT and fits_dense(P):
            found = of_eigenvalues(all_eigenvalues(subject), like=subject, name=A.name)
        else:
            found = _sampled(subject, A, probes, min(steps, free), seed, pairs)
        spent += found.products
        span = found.value[1] - found.value[0]
        area, sure = found.wasserstein, found._area(1e-9)
        most = min(free, MOST_STEPS)
        if area <= accuracy * span or probes * min(steps, most) >= MOST_PRODUCTS:
            return replace(found, products=spent)
        if 2.0 * sure > area and steps < most:
            steps *= 2
        else:
            probes *= 2


def _sampled(
    subject: Any, A: LinearOperator, probes: int, steps: int, seed: int, pairs: Eigenpairs | None
) -> SpectralDensity:
    """The density by quadrature."""
    found = slq(A, probes, steps, seed, deflate=pairs)
    nodes, weights = found.merged()
    return SpectralDensity(
        nodes=_kind(nodes.numpy(), subject),
        weights=_kind(weights.numpy() / float(weights.sum()), subject),
        size=A.shape[0],
        rules=np.stack([found.nodes.numpy(), found.weights.numpy()]),
        known=found.exact.numpy(),
        products=found.products + (pairs.products if pairs is not None else 0),
        name=A.name,
    )


def of_eigenvalues(values: np.ndarray, *, like: Any = None, name: str = "operator") -> SpectralDensity:
    """The density of eigenvalues (P,) that are all known; ``like`` says the kind of array."""
    values, P = np.sort(values), len(values)
    return SpectralDensity(
        nodes=_kind(values, like),
        weights=_kind(np.full(P, 1.0 / P), like),
        size=P,
        rules=np.zeros((2, 0, 0)),
        known=values,
        products=P,
        name=name,
    )


def _kind(values: np.ndarray, like: Any) -> Any:
    return values if isinstance(like, np.ndarray) else torch.from_numpy(values)


def symmetric_operator(subject: Any) -> LinearOperator:
    """The operator that is meant: the Hessian of a surface, an operator itself, or a matrix.

    Raises:
        InputError: If it is not symmetric.
    """
    hessian: Callable[[], LinearOperator] | None = getattr(subject, "hessian", None)
    A = hessian() if callable(hessian) else as_operator(subject)
    if not A.symmetric:
        raise InputError(f"{A.name} of shape {A.shape} is not symmetric; its spectrum is not real.")
    return A


def all_eigenvalues(subject: Any) -> np.ndarray:
    """All eigenvalues (P,), ascending, in float64; a surface is evaluated in float64 too.

    Raises:
        InputError: If the operator is not symmetric.
    """
    double = getattr(subject, "double", None)
    if hasattr(subject, "hessian") and callable(double):
        subject = double()
    matrix = symmetric_operator(subject).to_dense().detach().cpu().double()
    # products of a symmetric operator differ from symmetry by rounding
    return torch.linalg.eigvalsh(0.5 * (matrix + matrix.T)).numpy()


def fits_dense(P: int) -> bool:
    """Whether a matrix of P rows and the workspace to diagonalize it fit the memory budget."""
    return allowance() >= 24 * P * P


def _check(P: int, probes: int, steps: int | None, deflate: int, method: str) -> None:
    if method not in ("auto", "exact", "lanczos"):
        raise InputError(f"method is {method!r}; it is one of auto, exact, lanczos.")
    if not isinstance(probes, int) or probes < 1:
        raise InputError(f"probes is {probes!r}; at least 1 random probe is needed.")
    if steps is not None and not (isinstance(steps, int) and 1 <= steps <= P):
        raise InputError(f"steps is {steps!r}; an operator of size {P} takes 1 to {P} steps.")
    if not isinstance(deflate, int) or not 0 <= deflate < P:
        raise InputError(f"deflate is {deflate!r}; 0 to {P - 1} of the {P} eigenvalues can be taken out.")


def _score_bound(mean: np.ndarray, z: float, spread: float, *, upper: bool) -> np.ndarray:
    """The share F farthest from ``mean`` with ``(mean - F)^2 <= z^2 spread F (1 - F)``."""
    c = z * z * spread
    center = mean + 0.5 * c
    root = np.sqrt(np.maximum(c * mean * (1.0 - mean) + 0.25 * c * c, 0.0))
    return (center + root if upper else center - root) / (1.0 + c)
