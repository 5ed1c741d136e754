"""Squaring chains: polynomials that are cheap in squarers, fitted to a function.

A squarer on an interval of length l with m ReLUs errs by exactly ``l^2 4^-m / 8``, and no network of
m units can do better. So instead of emulating a given polynomial, one that is cheap in squares is fitted:

    q_1 = p_1(x),  y_j = q_j^2,  q_j = p_j(x) + sum_{i<j} a_ji y_i,  out = p_0(x) + sum_j d_j y_j

where all p_j are piecewise linear with the same free knots, one ReLU a knot. Two squarers hold every
quartic, four every polynomial of degree 8. The output is linear: it is eliminated (variable
projection), and the rest is fitted by Levenberg-Marquardt with an analytic Jacobian, first with exact
squares from random starts, then - the levels m_j once chosen - with the tents of the real network. Lawson's
weights turn the least squares fit into one of least sup error, linear programs finish it. Nothing here
is trusted: the network that comes out is certified afterwards.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np

from fathometer.approximation.minimax import least_maximum
from fathometer.approximation.network import Affine, Builder, SkipNetwork
from fathometer.approximation.target import Target
from fathometer.work import numpy_generator

SAMPLES = 321
MOST_SAMPLES = 3001
MOST_POLISHED = 2200  # linear pieces up to which the last fit sees enough of each of them
MOST_LEVELS = 26


@dataclass(frozen=True, eq=False, kw_only=True)
class Chain:
    """A chain over s in [-1, 1], with exact squares or with tents.

    Attributes:
        theta: Knots, then one row a squarer: coefficients of ``1, s, kinks..., y_1, ..., y_{j-1}``.
        output: Coefficients of all features.
        kinks: Number of knots.
        levels: Tents of each square; None for exact squares.
        error: Largest residual at the samples.
        weights: (squarers,) by how much an error of each y_j moves the output, at most.
    """

    theta: np.ndarray
    output: np.ndarray
    kinks: int
    levels: tuple[int, ...] | None
    error: float
    weights: np.ndarray

    @property
    def squarers(self) -> int:
        """Number of squares."""
        return len(self.weights)

    @property
    def units(self) -> int:
        """ReLUs: knots and tents."""
        return self.kinks + sum(self.levels or ())

    def levels_for(self, error: float, excess: float) -> tuple[int, ...]:
        """Levels whose errors ``weight 4^-m`` add up to ``excess`` times what the error leaves for them."""
        share = excess * (error - self.error) / self.squarers
        return tuple(
            int(min(MOST_LEVELS, max(1, round(0.5 * math.log2(max(w, 1e-300) / share)))))
            for w in self.weights
        )

    def network(self, interval: tuple[float, float]) -> SkipNetwork:
        """The graph: knots first, then one cascade a stage."""
        a, b = interval
        build = Builder(1)
        s = (build.variable() - (a + b) / 2) * (2 / (b - a))
        columns = [Affine({}, 1.0), s, *(build.relu(s - float(k)) for k in self.theta[: self.kinks])]
        at = self.kinks
        for m in self.levels or ():
            row = self.theta[at : at + len(columns)]
            at += len(columns)
            u = 0.5 * (_sum(row, columns) + 1.0)
            columns.append(8.0 * (squared(build, u, m) - u) + 1.0)
        return build.network(_sum(self.output, columns))


def _sum(row: np.ndarray, columns: list[Affine]) -> Affine:
    return sum((float(c) * v for c, v in zip(row, columns, strict=True)), Affine({}))


def fit_chains(
    target: Target, kinks: int, squarers: int, *, seed: int, starts: int, fewer: Sequence[Chain] = ()
) -> tuple[Chain, ...]:
    """Chains with exact squares, the best of several starts first.

    Args:
        target: A function of one variable.
        kinks: Free knots.
        squarers: Number of squares k, at least 1.
        seed: Of the random starts.
        starts: How many; half of them are given up after a few steps, and so on.
        fewer: Chains with one knot less, to start from as well.
    """
    s = np.cos(np.pi * np.arange(SAMPLES) / (SAMPLES - 1))[::-1].copy()
    problem = _Problem(target, s, kinks, squarers, None)
    single = kinks == 0 and squarers == 1
    trials = [
        problem.start(numpy_generator(seed, kinks, squarers, i)) for i in range(1 if single else starts)
    ]
    trials += [theta for chain in fewer for theta in problem.with_new_knot(chain)]
    for steps in (10, 40, 100, 150) if starts <= 20 else (20, 60, 150, 400):
        found = sorted((problem.descend(theta, steps, 1e-3) for theta in trials), key=lambda pair: pair[1])
        trials = [
            problem.spread(theta) for theta, _ in found[: max(8 if starts > 20 else 4, len(found) // 3)]
        ]
    return tuple(
        sorted(
            (problem.leveled(theta, 14 if starts <= 20 else 30, 4) for theta in trials),
            key=lambda chain: chain.error,
        )
    )


def realized(
    target: Target, chain: Chain, levels: Sequence[int], rounds: int = 8, most: int = MOST_SAMPLES
) -> Chain:
    """The chain with tents of these levels, fitted again as a whole at up to so many samples."""
    pieces = chain.kinks + sum(2.0**m for m in levels)
    points = int(min(most, max(301, 5 * pieces))) | 1
    s = np.linspace(-1.0, 1.0, points)
    problem = _Problem(target, s, chain.kinks, chain.squarers, tuple(levels))
    theta = problem.spread(chain.theta)
    theta, _ = problem.descend(theta, 4)
    return problem.leveled(theta, rounds, 1)


def lowered(target: Target, chain: Chain, error: float) -> Chain | None:
    """Few levels that keep the error; None if the chain itself is too coarse."""
    if chain.error >= error:
        return None
    levels = chain.levels_for(error, 1.5)
    now = realized(target, chain, levels)
    most = sum(levels) + 2 + chain.squarers
    while now.error > error:
        worst = int((chain.weights * 0.25 ** np.array(levels)).argmax())
        levels = tuple(m + (j == worst) for j, m in enumerate(levels))
        if max(levels) > MOST_LEVELS or sum(levels) > most:
            return None
        now = realized(target, chain, levels)
    return trimmed(target, now, error)


def settled(target: Target, chain: Chain, error: float) -> Chain | None:
    """The chain where enough samples agree; fitted again, or with a level more, where few told too little."""
    chain = _seen(target, chain)
    for _ in range(3):
        if chain.error <= error:
            return chain
        levels = chain.levels or ()
        chain = _seen(target, realized(target, chain, levels, 8, 8 * MOST_SAMPLES))
        chain = chain if chain.error <= error else polished(target, chain, error)
        if chain.error <= error:
            return chain
        worst = int((chain.weights * 0.25 ** np.array(levels)).argmax())
        levels = tuple(m + (j == worst) for j, m in enumerate(levels))
        chain = _seen(target, realized(target, chain, levels))
    return None


def polished(target: Target, chain: Chain, goal: float = 0.0) -> Chain:
    """The chain with its largest error made smaller by linear programs; tents of few enough pieces only."""
    pieces = chain.kinks + sum(2.0**m for m in chain.levels or ())
    if pieces > MOST_POLISHED:
        return chain
    s = np.linspace(-1.0, 1.0, int(max(301, 7 * pieces)) | 1)
    problem = _Problem(target, s, chain.kinks, chain.squarers, chain.levels)
    return _seen(target, problem.minimax(chain, 0.985 * goal))


def _seen(target: Target, chain: Chain) -> Chain:
    """The same chain with its largest error at many samples of each piece."""
    pieces = chain.kinks + sum(2.0**m for m in chain.levels or ())
    fine = np.linspace(-1.0, 1.0, int(min(max(3001, 40 * pieces), 200_001)) | 1)
    return _Problem(target, fine, chain.kinks, chain.squarers, chain.levels).seen(chain)


def trimmed(target: Target, now: Chain, error: float, rounds: int = 8, polish: float = 0.0) -> Chain:
    """Levels taken away one at a time, the least needed first, while a new fit keeps the error.

    Fits within the factor ``polish`` of the error are finished by linear programs.
    """
    while True:
        levels = list(now.levels or ())
        order = np.argsort(now.weights * 0.25 ** np.array(levels))  # least harm first
        fewer = (tuple(m - (i == j) for i, m in enumerate(levels)) for j in order.tolist() if levels[j] > 1)
        fits = (realized(target, now, trial, rounds) for trial in fewer)
        trials = (polished(target, fit, error) if error < fit.error < polish * error else fit for fit in fits)
        better = next((trial for trial in trials if trial.error <= error), None)
        if better is None:
            return now
        now = better


def spent(target: Target, chain: Chain, units: int) -> Chain | None:
    """Levels given out one at a time, each where it helps most, up to a number of units."""
    left = units - chain.kinks - chain.squarers
    if left < 0:
        return None
    levels = np.ones(chain.squarers, dtype=int)
    for _ in range(left):
        levels[int((chain.weights * 0.25**levels).argmax())] += 1
    best = realized(target, chain, levels.tolist())
    for i, j in permutations(range(chain.squarers), 2):  # the weights are bounds: look around
        near = levels.copy()
        near[i] += 1
        near[j] -= 1
        if near[j] >= 1:
            trial = realized(target, chain, near.tolist())
            best = min(best, trial, key=lambda c: c.error)
    return best


class _Problem:
    """Residuals and Jacobian of one structure."""

    def __init__(
        self, target: Target, s: np.ndarray, kinks: int, squarers: int, levels: tuple[int, ...] | None
    ) -> None:
        a, b = target.interval
        y = target.values(np.clip((a + b) / 2 + (b - a) / 2 * s, a, b))
        self.size = float(np.abs(y).max()) or 1.0
        self.s, self.y, self.kinks, self.squarers, self.levels = s, y / self.size, kinks, squarers, levels
        self.root, self.damping = np.ones_like(s), 1e-3
        lengths = [2 + kinks + j for j in range(squarers)]
        self.offsets = kinks + np.concatenate([[0], np.cumsum(lengths)]).astype(int)

    def start(self, generator: np.random.Generator) -> np.ndarray:
        """Knots near even, small random bends; every stage spread over [-1, 1]."""
        theta = generator.normal(size=int(self.offsets[-1]))
        even = np.linspace(-1.0, 1.0, self.kinks + 2)[1:-1]
        theta[: self.kinks] = even + 0.1 * theta[: self.kinks]
        for j in range(self.squarers):
            row = theta[self.offsets[j] : self.offsets[j + 1]]
            row[2 : 2 + self.kinks] *= 0.2  # large bends end in poor local optima
            row[1] = 1.0 if j == 0 else row[1]
        return self.spread(theta)

    def with_new_knot(self, fewer: Chain) -> list[np.ndarray]:
        """The parameters of a chain with one knot less, and one more in the gaps between its knots."""
        old = fewer.theta[: fewer.kinks]
        ends = np.sort(np.concatenate([[-1.0], old, [1.0]]))
        thetas = []
        for place in (ends[:-1] + ends[1:]) / 2:
            parts, at = [np.append(old, place)], fewer.kinks
            for j in range(self.squarers):
                row = fewer.theta[at : at + 2 + fewer.kinks + j]
                at += len(row)
                parts.append(np.insert(row, 2 + fewer.kinks, 0.0))
            thetas.append(np.concatenate(parts))
        return thetas

    def spread(self, theta: np.ndarray) -> np.ndarray:
        """The same span with every q_j onto [-1, 1]: its square moves by what others can absorb."""
        theta = theta.copy()
        base = self._lines(theta)
        for j in range(self.squarers):
            row = theta[self.offsets[j] : self.offsets[j + 1]]
            q = base[:, : 2 + self.kinks + j] @ row
            low, high = float(q.min()), float(q.max())
            r, c = (high - low) / 2, (high + low) / 2
            if np.isfinite(r) and r > 1e-12:
                before = row.copy()
                row[0] -= c
                row /= r
                # with q = r q' + c: 2 q^2 - 1 = r^2 y' + 4 c q + r^2 - 1 - 2 c^2
                for later in range(j + 1, self.squarers):
                    at, n = self.offsets[later], 2 + self.kinks + j
                    weight = theta[at + n]
                    theta[at : at + n] += 4 * c * weight * before
                    theta[at] += weight * (r * r - 1 - 2 * c * c)
                    theta[at + n] = weight * r * r
                q = (q - c) / r
            base[:, 2 + self.kinks + j] = self._squares(j, q)[0]
        return theta

    def _lines(self, theta: np.ndarray) -> np.ndarray:
        base = np.empty((len(self.s), 2 + self.kinks + self.squarers))
        base[:, 0], base[:, 1] = 1.0, self.s
        base[:, 2 : 2 + self.kinks] = np.maximum(self.s[:, None] - theta[: self.kinks], 0.0)
        return base

    def _squares(self, j: int, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """2 q^2 - 1 and its slope, exactly or by tents (which go on as straight lines outside)."""
        if self.levels is None:
            return 2 * q * q - 1, 4 * q
        n = 2.0 ** self.levels[j]
        u = 0.5 * (q + 1)
        cell = np.clip(np.floor(u * n), 0, n - 1)
        tilt = (2 * cell + 1) / n
        return 8 * (tilt * u - cell * (cell + 1) / (n * n) - u) + 1, 4 * tilt - 4

    def _features(self, theta: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """All features of the output, and the slopes of the squares."""
        base, slopes = self._lines(theta), []
        for j in range(self.squarers):
            n = 2 + self.kinks + j
            base[:, n], slope = self._squares(j, base[:, :n] @ theta[self.offsets[j] : self.offsets[j + 1]])
            slopes.append(slope)
        return base, slopes

    def _evaluated(self, theta: np.ndarray) -> "_State":
        base, slopes = self._features(theta)
        basis, upper = _orthonormal(base * self.root[:, None])
        goal = self.y * self.root
        along = basis.T @ goal
        r = goal - basis @ along
        return _State(theta=theta, base=base, slopes=slopes, basis=basis, upper=upper, along=along, r=r)

    def _output(self, state: "_State") -> np.ndarray:
        upper = state.upper
        try:
            return np.linalg.solve(upper + 1e-15 * np.abs(upper).max() * np.eye(len(upper)), state.along)
        except np.linalg.LinAlgError:
            return np.linalg.lstsq(upper, state.along, rcond=None)[0]

    def _jacobian(self, state: "_State") -> np.ndarray:
        """Kaufman's Jacobian of the projected residual."""
        change = self._change(state.theta, state.base, state.slopes, self._output(state))
        change *= self.root[:, None]
        return state.basis @ (state.basis.T @ change) - change

    def _change(
        self, theta: np.ndarray, base: np.ndarray, slopes: list[np.ndarray], output: np.ndarray
    ) -> np.ndarray:
        """Derivative of ``base @ output`` by theta."""
        first, K, total = 2 + self.kinks, self.kinks, int(self.offsets[-1])
        steps = np.where(self.s[:, None] > theta[:K], -1.0, 0.0)
        change = np.zeros((len(self.s), total))
        change[:, :K] = steps * output[2:first]
        squares: list[np.ndarray] = []
        for j in range(self.squarers):
            start, stop = self.offsets[j], self.offsets[j + 1]
            row, dq = theta[start:stop], np.zeros((len(self.s), stop))
            dq[:, start:stop] = base[:, : first + j]
            dq[:, :K] = steps * row[2:first]
            for i, inner in enumerate(squares):
                dq[:, : inner.shape[1]] += row[first + i] * inner
            dq *= slopes[j][:, None]
            squares.append(dq)
            change[:, :stop] += output[first + j] * dq
        return change

    def minimax(self, chain: Chain, goal: float) -> Chain:
        """All parameters, output included, moved to a smaller largest residual."""
        total = int(self.offsets[-1])

        def residual(x: np.ndarray) -> np.ndarray:
            return self._features(x[:total])[0] @ x[total:] - self.y

        def jacobian(x: np.ndarray) -> np.ndarray:
            base, slopes = self._features(x[:total])
            return np.column_stack([self._change(x[:total], base, slopes, x[total:]), base])

        start = np.concatenate([chain.theta, chain.output / self.size])
        x, _ = least_maximum(residual, jacobian, start, goal / self.size)
        return self._chain(x[:total], x[total:], float(np.abs(residual(x)).max()))

    def descend(
        self, theta: np.ndarray, steps: int, damping: float | None = None
    ) -> tuple[np.ndarray, float]:
        """Levenberg-Marquardt: parameters and sum of squares; goes on with the last damping."""
        self.damping = damping or self.damping
        with np.errstate(all="ignore"):
            state = self._evaluated(theta)
            cost, damping, harder = float(state.r @ state.r), self.damping, 2.0
            if int(self.offsets[-1]) == 2:
                return theta, cost  # one square of a line: every quadratic is already in the span
            small = 0
            while steps > 0 and small < 5 and cost > 1e-28:
                J = self._jacobian(state)
                gram, gradient = J.T @ J, J.T @ state.r
                scale = np.diag(gram) + 1e-12 * np.trace(gram) + 1e-300
                fresh, fresh_cost, damping, harder = self._step(
                    state, cost, gram, gradient, scale, damping, harder
                )
                if fresh is None:
                    break
                small = small + 1 if fresh_cost > (1 - 1e-4) * cost else 0
                state, cost = fresh, fresh_cost
                steps -= 1
            self.damping = min(max(damping, 1e-9), 1e3)
        return state.theta, cost

    def _step(
        self, state: "_State", cost: float, gram: np.ndarray, gradient: np.ndarray, scale: np.ndarray,
        damping: float, harder: float,
    ) -> tuple["_State | None", float, float, float]:  # fmt: skip
        """One accepted step, damped by Nielsen's rule."""
        for _ in range(10 if self.levels is None else 4):  # tents have corners: a step may not pay
            try:
                move = np.linalg.solve(gram + np.diag(damping * scale), -gradient)
                fresh = self._evaluated(state.theta + move)
            except np.linalg.LinAlgError:
                damping, harder = damping * harder, harder * 2
                continue
            fresh_cost = float(fresh.r @ fresh.r)
            if fresh_cost < cost:
                expected = float(move @ (damping * scale * move - gradient))
                gain = (cost - fresh_cost) / max(expected, 1e-300)
                return fresh, fresh_cost, damping * max(1 / 8, 1 - (2 * gain - 1) ** 3), 2.0
            damping, harder = damping * harder, harder * 2
        return None, cost, damping, harder

    def leveled(self, theta: np.ndarray, rounds: int, steps: int) -> Chain:
        """Lawson's reweighting; the parameters of least sup residual."""
        weights = np.ones_like(self.s)
        best, error = theta, math.inf
        output = np.zeros(2 + self.kinks + self.squarers)
        for _ in range(rounds):
            with np.errstate(all="ignore"):
                state = self._evaluated(theta)
                trial = self._output(state)
                r = np.abs(self.y - state.base @ trial)
            sup = float(r.max())
            if not math.isfinite(sup):
                break
            if sup < error:
                best, error, output = theta, sup, trial
            if sup < 1e-14:
                break
            weights = weights * np.sqrt(r / sup + 0.02)
            weights /= weights.mean()
            self.root = np.sqrt(weights)
            theta, _ = self.descend(theta, steps)
        self.root = np.ones_like(self.s)
        return self._chain(best, output, error)

    def seen(self, chain: Chain) -> Chain:
        """The same chain with its largest error at these samples."""
        r = self._features(chain.theta)[0] @ chain.output - self.y * self.size
        return replace(chain, error=float(np.abs(r).max()))

    def _chain(self, theta: np.ndarray, output: np.ndarray, error: float) -> Chain:
        return Chain(
            theta=theta,
            output=output * self.size,
            kinks=self.kinks,
            levels=self.levels,
            error=error * self.size,
            weights=self._weights(theta, output) * self.size,
        )

    def _weights(self, theta: np.ndarray, output: np.ndarray) -> np.ndarray:
        """Largest total derivative of the output by each y_j."""
        slopes, first = self._features(theta)[1], 2 + self.kinks
        total = [np.full_like(self.s, d) for d in output[first:]]
        for j in reversed(range(self.squarers)):
            for i in range(j):
                total[i] = total[i] + total[j] * slopes[j] * theta[self.offsets[j] + first + i]
        return np.array([float(np.abs(t).max()) for t in total])


@dataclass(frozen=True, eq=False, kw_only=True)
class _State:
    """One evaluation: features, slopes of the squares, an orthonormal basis and the residual."""

    theta: np.ndarray
    base: np.ndarray
    slopes: list[np.ndarray]
    basis: np.ndarray
    upper: np.ndarray
    along: np.ndarray
    r: np.ndarray


def _orthonormal(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """QR; of tall matrices by Cholesky factors, twice, which is several times faster."""
    if len(columns) > 600:
        try:
            first = np.linalg.cholesky(columns.T @ columns).T
            once = columns @ np.linalg.inv(first)
            second = np.linalg.cholesky(once.T @ once).T
            return once @ np.linalg.inv(second), second @ first
        except np.linalg.LinAlgError:
            pass
    q, r = np.linalg.qr(columns)
    return q, r


def squared(build: Builder, u: Affine, levels: int) -> Affine:
    """Interpolant of u^2 on the grid 2^-levels of [0, 1], by tents: one ReLU a level."""
    tent, total = u, u
    for level in range(1, levels + 1):
        tent = 2.0 * tent - 4.0 * build.relu(tent - 0.5)
        total = total - 4.0**-level * tent
    return total
