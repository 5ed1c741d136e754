"""Squaring chains: polynomials that are cheap in squarers, fitted to a function.

A squarer on an interval of length l with m ReLUs errs by exactly ``l^2 4^-m / 8``, and no network of
m units can do better. So instead of emulating a given polynomial, one that is cheap in squares is fitted:

    q_1 = p_1(x),  y_j = q_j^2,  q_j = p_j(x) + sum_{i<j} a_ji y_i,  out = p_0(x) + sum_j d_j y_j

where all p_j are piecewise linear with the same K - 1 free knots, one ReLU a knot. Two
squarers hold every quartic, four every polynomial of degree 8. The output is linear: it is
eliminated (variable projection), and the rest is fitted by Levenberg-Marquardt with an analytic
Jacobian from random starts, then leveled by Lawson's weights. The levels m_j
are then lowered one at a time while the error allows. Nothing here is trusted: the network
that comes out is certified afterwards.
"""

from dataclasses import dataclass

import numpy as np

from fathometer.approximation.network import Affine, Builder, SkipNetwork
from fathometer.approximation.target import Target
from fathometer.work import numpy_generator

SAMPLES = 241


@dataclass(frozen=True, eq=False, kw_only=True)
class Chain:
    """A fitted chain over s in [-1, 1].

    Attributes:
        knots: (K - 1,) places of the shared kinks.
        stages: One row a squarer: coefficients of ``1, s, kinks..., y_1, ..., y_{j-1}``.
        error: Largest residual at the samples, with exact squares.
    """

    knots: np.ndarray
    stages: tuple[np.ndarray, ...]
    error: float


def fit_chain(target: Target, kinks: int, squarers: int, *, seed: int, starts: int = 10) -> Chain:
    """The best chain of several starts, with exact squares.

    Args:
        target: A function of one variable.
        kinks: Free knots K - 1.
        squarers: Number of squares k, at least 1.
        seed: Of the random starts.
        starts: How many.
    """
    a, b = target.interval
    s = np.cos(np.pi * np.arange(SAMPLES) / (SAMPLES - 1))[::-1].copy()
    y = target.values((a + b) / 2 + (b - a) / 2 * s)
    y = y / (np.abs(y).max() or 1.0)
    size = float(np.abs(target.values((a + b) / 2 + (b - a) / 2 * s)).max() or 1.0)
    best = Chain(knots=np.empty(0), stages=(), error=np.inf)
    trivial = kinks == 0 and squarers == 1
    for start in range(1 if trivial else starts):
        generator = numpy_generator(seed, kinks, squarers, start)
        problem = _Problem(s, y, kinks, squarers)
        theta = problem.start(generator)
        theta, error = problem.solve(theta)
        if error * size < best.error:
            best = Chain(knots=theta[:kinks].copy(), stages=problem.rows(theta), error=error * size)
        if best.error < 1e-13 * size:
            break
    return best


class _Problem:
    """Residuals and Jacobian of one structure."""

    def __init__(self, s: np.ndarray, y: np.ndarray, kinks: int, squarers: int) -> None:
        self.s, self.y, self.kinks, self.squarers = s, y, kinks, squarers
        self.weights = np.ones_like(s)
        lengths = [2 + kinks + j for j in range(squarers)]
        self.offsets = kinks + np.concatenate([[0], np.cumsum(lengths)]).astype(int)

    def start(self, generator: np.random.Generator) -> np.ndarray:
        """Random knots and stages, every stage scaled to [-1, 1]."""
        theta = generator.normal(size=int(self.offsets[-1]))
        theta[: self.kinks] = np.sort(generator.uniform(-0.9, 0.9, self.kinks))
        for j in range(self.squarers):
            row = theta[self.offsets[j] : self.offsets[j + 1]]
            row[1] = 1.0 + 0.3 * row[1] if j == 0 else row[1]
            row[0] *= 0.5
        return self._normalized(theta)

    def rows(self, theta: np.ndarray) -> tuple[np.ndarray, ...]:
        """Coefficients of each stage."""
        return tuple(theta[self.offsets[j] : self.offsets[j + 1]].copy() for j in range(self.squarers))

    def _normalized(self, theta: np.ndarray) -> np.ndarray:
        """The same chain with every q_j in [-1, 1]: y = 2 q^2 - 1 moves affinely, later stages absorb it."""
        theta = theta.copy()
        for j in range(self.squarers):
            q = self._features(theta, upto=j + 1)[1][j]
            r = float(np.abs(q).max())
            if not np.isfinite(r) or r < 1e-12:
                continue
            theta[self.offsets[j] : self.offsets[j + 1]] /= r
            for later in range(j + 1, self.squarers):
                at = self.offsets[later] + 2 + self.kinks + j
                theta[self.offsets[later]] += theta[at] * (r * r - 1)
                theta[at] *= r * r
        return theta

    def _features(self, theta: np.ndarray, upto: int) -> tuple[np.ndarray, list[np.ndarray]]:
        """Columns ``1, s, kinks, y_1, ...`` and the q_j."""
        base = [np.ones_like(self.s), self.s, *(np.maximum(self.s - k, 0.0) for k in theta[: self.kinks])]
        stages = []
        for j in range(upto):
            row = theta[self.offsets[j] : self.offsets[j + 1]]
            q = np.column_stack(base) @ row
            stages.append(q)
            base.append(2 * q * q - 1)
        return np.column_stack(base), stages

    def residual(
        self, theta: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list[np.ndarray]]:
        """Residual, orthonormal basis, output weights, features and stages."""
        features, stages = self._features(theta, self.squarers)
        weighted = features * self.weights[:, None]
        q, r = np.linalg.qr(weighted)
        goal = self.y * self.weights
        project = q.T @ goal
        with np.errstate(all="ignore"):
            try:
                output = np.linalg.solve(r + 1e-15 * np.abs(r).max() * np.eye(len(r)), project)
            except np.linalg.LinAlgError:
                output = np.linalg.lstsq(weighted, goal, rcond=None)[0]
        return goal - q @ project, q, output, features, stages

    def jacobian(
        self,
        theta: np.ndarray,
        basis: np.ndarray,
        output: np.ndarray,
        features: np.ndarray,
        stages: list[np.ndarray],
    ) -> np.ndarray:
        """Kaufman's Jacobian of the projected residual."""
        n, total = len(self.s), int(self.offsets[-1])
        kinks, first = self.kinks, 2 + self.kinks
        slopes = [np.zeros((n, total)) for _ in range(kinks)]
        for i in range(kinks):
            slopes[i][:, i] = np.where(self.s > theta[i], -1.0, 0.0)
        change = np.zeros((n, total))
        for i in range(kinks):
            change += output[2 + i] * slopes[i]
        squares: list[np.ndarray] = []
        for j in range(self.squarers):
            row = theta[self.offsets[j] : self.offsets[j + 1]]
            dq = np.zeros((n, total))
            dq[:, self.offsets[j] : self.offsets[j + 1]] = features[:, : first + j]
            for i in range(kinks):
                dq += row[2 + i] * slopes[i]
            for i in range(j):
                dq += row[first + i] * squares[i]
            squares.append(4 * stages[j][:, None] * dq)
            change += output[first + j] * squares[j]
        change *= self.weights[:, None]
        return -(change - basis @ (basis.T @ change))

    def solve(self, theta: np.ndarray) -> tuple[np.ndarray, float]:
        """Levenberg-Marquardt, then Lawson's reweighting; best sup residual."""
        theta = self._descend(theta, 60)
        best, error = theta, self._sup(theta)
        weights = np.ones_like(self.s)
        for _ in range(12):
            r = np.abs(self.residual(theta)[0] / self.weights)
            weights = weights * np.sqrt(r + 0.02 * r.max())
            weights /= weights.mean()
            self.weights = np.sqrt(weights)
            theta = self._descend(theta, 4)
            now = self._sup(theta)
            if now < error:
                best, error = theta, now
        self.weights = np.ones_like(self.s)
        return best, error

    def _sup(self, theta: np.ndarray) -> float:
        value = float(np.abs(self.residual(theta)[0] / self.weights).max())
        return value if np.isfinite(value) else np.inf

    def _descend(self, theta: np.ndarray, steps: int) -> np.ndarray:
        damping = 1e-3
        r, basis, output, features, stages = self.residual(theta)
        cost = float(r @ r)
        if int(self.offsets[-1]) == 2 and self.kinks == 0:
            return theta  # one square of a line: every quadratic is already in the span
        for step in range(steps):
            J = self.jacobian(theta, basis, output, features, stages)
            gram, gradient = J.T @ J, J.T @ r
            scale = np.diag(gram) + 1e-12 * np.trace(gram) + 1e-300
            improved = False
            trial, fresh, fresh_cost = theta, (r, basis, output, features, stages), cost
            for _ in range(8):
                try:
                    move = np.linalg.solve(gram + damping * np.diag(scale), -gradient)
                except np.linalg.LinAlgError:
                    damping *= 10
                    continue
                trial = theta + move
                fresh = self.residual(trial)
                fresh_cost = float(fresh[0] @ fresh[0])
                if fresh_cost < cost:
                    improved = True
                    break
                damping *= 5
            if not improved:
                break
            gain = (cost - fresh_cost) / cost
            theta, cost, damping = trial, fresh_cost, damping * 0.2
            r, basis, output, features, stages = fresh
            if step % 12 == 11:
                theta = self._normalized(theta)
                r, basis, output, features, stages = self.residual(theta)
                cost = float(r @ r)
            if gain < 1e-4 and step > 8:
                break
        return self._normalized(theta)


class Realized:
    """A chain whose squares are tent cascades of given levels; its output is fitted to the real features."""

    def __init__(self, target: Target, chain: Chain, levels: list[int], points: int) -> None:
        a, b = target.interval
        self.interval, self.chain, self.levels = (a, b), chain, list(levels)
        half, middle = (b - a) / 2, (a + b) / 2
        s = np.linspace(-1.0, 1.0, points)
        self.y = target.values(np.clip(middle + half * s, a, b))
        columns = [np.ones_like(s), s, *(np.maximum(s - k, 0.0) for k in chain.knots)]
        self.ranges: list[tuple[float, float]] = []
        for row, m in zip(chain.stages, self.levels, strict=True):
            q = np.column_stack(columns) @ row
            low, high = float(q.min()), float(q.max())
            margin = 1e-9 * (high - low) + 1e-12
            low, high = low - margin, high + margin
            self.ranges.append((low, high))
            columns.append(2 * (low * low + 2 * low * (high - low) * (u := (q - low) / (high - low))
                                + (high - low) ** 2 * interpolated_square(u, m)) - 1)  # fmt: skip
        self.features = np.column_stack(columns)
        self.output, self.error = minimax(self.features, self.y)

    def network(self) -> SkipNetwork:
        """The graph: knots first, then one cascade a stage."""
        a, b = self.interval
        build = Builder(1)
        x = build.variable()
        s = (x - (a + b) / 2) * (2 / (b - a))
        columns = [Affine({}, 1.0), s, *(build.relu(s - float(k)) for k in self.chain.knots)]
        for row, m, (low, high) in zip(self.chain.stages, self.levels, self.ranges, strict=True):
            q = sum((float(c) * v for c, v in zip(row, columns, strict=True)), Affine({}))
            u = (q - low) * (1 / (high - low))
            square = low * low + 2 * low * (high - low) * u + (high - low) ** 2 * squared(build, u, m)
            columns.append(2.0 * square - 1.0)
        return build.network(
            sum((float(c) * v for c, v in zip(self.output, columns, strict=True)), Affine({}))
        )


def squared(build: Builder, u: Affine, levels: int) -> Affine:
    """Interpolant of u^2 on the grid 2^-levels of [0, 1], by tents: one ReLU a level."""
    tent, total = u, u
    for level in range(1, levels + 1):
        tent = 2.0 * tent - 4.0 * build.relu(tent - 0.5)
        total = total - 4.0**-level * tent
    return total


def interpolated_square(u: np.ndarray, levels: int) -> np.ndarray:
    """What `squared` computes, for u in [0, 1]."""
    n = 2.0**levels
    cell = np.clip(np.floor(u * n), 0, n - 1)
    return ((2 * cell + 1) * u - cell * (cell + 1) / n) / n


def minimax(features: np.ndarray, y: np.ndarray, rounds: int = 40) -> tuple[np.ndarray, float]:
    """Linear fit of least sup error, by Lawson's weights; the best seen."""
    weights = np.ones(len(y))
    scale = np.abs(features).max(axis=0)
    scaled = features / scale
    best, error = np.zeros(features.shape[1]), np.inf
    for _ in range(rounds):
        root = np.sqrt(weights)
        output = np.linalg.lstsq(scaled * root[:, None], y * root, rcond=1e-15)[0]
        r = np.abs(y - scaled @ output)
        if (sup := float(r.max())) < error:
            if sup > 0.9999 * error and error < np.inf:
                best, error = output, sup
                break
            best, error = output, sup
        if sup == 0.0:
            break
        weights = weights * (r + 0.01 * sup) / sup
        weights /= weights.mean()
    return best / scale, error


def lowered(target: Target, chain: Chain, error: float) -> Realized | None:
    """Fewest levels, greedily, that keep the error; None if the chain itself is too coarse."""
    if chain.error > error:
        return None
    y = target.values(np.linspace(*target.interval, 33))
    size = float(np.abs(y).max()) or 1.0
    top = max(2, int(np.ceil(0.5 * np.log2(size / error))) + 3)
    levels = [top] * len(chain.stages)
    now = _realized(target, chain, levels)
    while now.error > error and levels[0] < 26:
        levels = [m + 1 for m in levels]
        now = _realized(target, chain, levels)
    if now.error > error:
        return None
    while True:
        trials = []
        for j in range(len(levels)):
            if now.levels[j] > 1:
                fewer = [m - (i == j) for i, m in enumerate(now.levels)]
                trials.append(_realized(target, chain, fewer))
        trials = [t for t in trials if t.error <= error]
        if not trials:
            return now
        now = min(trials, key=lambda t: t.error)


def _realized(target: Target, chain: Chain, levels: list[int]) -> Realized:
    points = int(min(6001, 1201 + 4 * 2 ** max(levels)))
    return Realized(target, chain, levels, points | 1)
