"""Which chain is the smallest: structures fitted from the cheapest on, the promising ones realized.

A structure has some knots and some squarers. Its fit with exact squares says what is left for the
squarers, and so how many levels they need; those with the least sum are then fitted again with their
tents and lowered level by level. A function that is even about the middle of its interval is fitted on
one half of it: one ReLU folds the other half over.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from fathometer.approximation.chains import Chain, fit_chains, lowered, polished, settled, spent, trimmed
from fathometer.approximation.composing import inlined
from fathometer.approximation.network import Builder, SkipNetwork
from fathometer.approximation.target import Target

MOST_SQUARERS = 4
MOST_KINKS = 6
_SURE = 1 / 16  # of the error: a fit that good gains nothing from another knot or squarer
_TRIED = 10
_STARTS = 20
_FAR = 1000.0  # times the error: with one knot still that far off, more knots will not do
_HARD = 2e-5  # of the size of f: below it more starts, among which better fits are found
_FINISHED = 4  # chains whose levels are lowered with polished fits
_POLISH = 1.6
_SMALL = 16  # units up to which a long last fit is worth its time


@dataclass(eq=False, kw_only=True)
class ChainSearch:
    """Fits of one function, kept between calls.

    Attributes:
        target: A smooth function of one variable.
        seed: Of the random starts.
        fits: (knots, squarers) to the fits with exact squares.
        starts: Random starts of a structure.
    """

    target: Target
    seed: int
    fits: dict[tuple[int, int], tuple[Chain, ...]] = field(default_factory=dict)
    starts: int = _STARTS

    def __post_init__(self) -> None:
        half = even_half(self.target)
        self.folded = half is not None
        self.part = half or self.target
        grid = np.linspace(*self.part.interval, 65)
        self.size = float(np.abs(self.target.values(grid)).max()) or 1.0

    def fit(self, kinks: int, squarers: int) -> tuple[Chain, ...]:
        """The fits of a structure, the best first, made when first asked for."""
        key = (kinks, squarers)
        if key not in self.fits:
            fewer = self.fits.get((kinks - 1, squarers), ())[: 4 if self.starts > _STARTS else 1]
            self.fits[key] = fit_chains(
                self.part, kinks, squarers, seed=self.seed, starts=self.starts, fewer=fewer
            )
        return self.fits[key]

    def smallest(self, error: float, count: Callable[[SkipNetwork], int]) -> SkipNetwork | None:
        """The network of fewest units, as counted by ``count``, that meets an error at the samples."""
        if error < _HARD * self.size and self.starts == _STARTS:
            self.starts, self.fits = 3 * _STARTS, {}
        candidates = sorted(self._promising(error), key=lambda pair: pair[0])
        found: list[Chain] = []
        for tried, (expected, chain) in enumerate(candidates):
            if found and (tried >= _TRIED or expected > min(c.units for c in found) + 2):
                break
            small = lowered(self.part, chain, error)
            if small is not None:
                found.append(small)
        finished: list[SkipNetwork] = []
        for chain in sorted(found, key=lambda c: (c.units, c.error))[:_FINISHED]:
            rounds = 100 if chain.units <= _SMALL else 8
            small = settled(self.part, trimmed(self.part, chain, error, rounds, _POLISH), error)
            finished += [] if small is None else [self._unfolded(small)]
        return min(finished, key=count, default=None)

    def closest(self, units: int) -> SkipNetwork | None:
        """The network of least error at the samples with a number of units."""
        left = units - self.folded
        found: list[tuple[float, Chain]] = []
        for squarers in range(1, MOST_SQUARERS + 1):
            for kinks in range(min(MOST_KINKS, left - squarers) + 1):
                chain = self.fit(kinks, squarers)[0]
                share = 4.0 ** -((left - kinks) / squarers)
                mean = math.exp(float(np.log(np.maximum(chain.weights, 1e-300)).mean()))
                found.append((chain.error + squarers * mean * share, chain))
                if chain.error < share * self.size / 64:
                    break
            if found and squarers > 1 and min(c.error for _, c in found) < 0.01 * min(e for e, _ in found):
                break
        chains = [spent(self.part, chain, left) for _, chain in sorted(found, key=lambda p: p[0])[:_TRIED]]
        best = sorted((c for c in chains if c is not None), key=lambda c: c.error)[:3]
        return (
            self._unfolded(min((polished(self.part, c) for c in best), key=lambda c: c.error))
            if best
            else None
        )

    def _promising(self, error: float) -> Iterator[tuple[int, Chain]]:
        """Fits below the error with the units they should need; hopeless structures are not fitted."""
        levels = max(1, math.ceil(0.5 * math.log2(max(1.0, self.size / (8 * error)))) - 2)
        least = 10**6
        for squarers in range(1, MOST_SQUARERS + 1):
            before = 10**6
            for kinks in range(MOST_KINKS + 1):
                if kinks + squarers * levels > least + 1:
                    break
                chains = self.fit(kinks, squarers)
                here = 10**6
                for chain in chains:
                    if chain.error < error:
                        expected = kinks + sum(chain.levels_for(error, 1.5))
                        here = min(here, expected)
                        yield expected + self.folded, chain
                least = min(least, here)
                far = kinks > 0 and chains[0].error > _FAR * error
                useless = chains[0].error < _SURE * error and here >= before  # accurate, by terms that cancel
                if far or useless or self._settled(chains, error):
                    break
                before = here
            if self._settled(self.fit(0, squarers), error):
                return

    def _settled(self, chains: tuple[Chain, ...], error: float) -> bool:
        """Whether a better fit would not save a level: accurate, and not by terms that cancel."""
        return chains[0].error < _SURE * error and float(chains[0].weights.max()) < 2 * self.size

    def _unfolded(self, chain: Chain) -> SkipNetwork:
        network = chain.network(self.part.interval)
        if not self.folded:
            return network
        middle = self.part.interval[0]
        build = Builder(1)
        x = build.variable() - middle
        return build.network(inlined(build, network, 2.0 * build.relu(x) - x + middle))


def even_half(target: Target) -> Target | None:
    """The right half of a function that is even about the middle of its interval; None for any other."""
    a, b = target.interval
    middle = (a + b) / 2
    h = (b - a) / 2 * np.sqrt(np.linspace(0.003, 0.997, 41))
    left, right = target.values(middle - h), target.values(np.minimum(middle + h, b))
    if np.abs(left - right).max() > 4e-14 * np.abs(right).max() + 1e-300:
        return None
    return replace(target, domain=((middle, b),))
