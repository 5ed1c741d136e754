"""Which step size, which tolerance? Samplers compared by discrepancy, with ESS and R-hat beside it.

Effective sample size grows with the step size of a biased sampler, long after its draws have left
the target; R-hat is content with any law that all chains share. A discrepancy sees both bias and
variance (Gorham & Mackey 2015, sec. 5.2; 2017, sec. 5.3).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fathometer.errors import InputError
from fathometer.results import Row, Table
from fathometer.stein.chains import Chain, ess, rhat
from fathometer.stein.graph import graph_discrepancy
from fathometer.stein.ksd import ksd

if TYPE_CHECKING:
    from fathometer.drawing.picture import Picture

MEASURES = ("ksd", "graph")
_FEWEST = 4


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SelectionTable(Table):
    """Candidates compared: discrepancy, kind, error, ess, rhat, acceptance and evaluations of each.

    The rows are in the order of the candidates; ``discrepancy`` is the median over the seeds and
    ``error`` half its interquartile range (the discrepancy's own error for a single seed). A candidate
    whose chains left the finite numbers has an infinite one, and a note.

    Attributes:
        measure: "ksd" or "graph".
    """

    measure: str

    @property
    def best(self) -> Any:
        """The candidate with the least discrepancy."""
        return min(self.rows, key=lambda row: row.discrepancy).candidate

    @property
    def best_by_ess(self) -> Any:
        """The candidate that the effective sample size would choose."""
        return max(self.rows, key=lambda row: row.ess).candidate

    def picture(self) -> "Picture":
        """Discrepancy and effective sample size over the candidates."""
        from fathometer.stein.pictures import selection_picture

        return selection_picture(self)


def select(
    run: Callable[[Any, int], Any],
    candidates: Iterable[Any],
    *,
    kernel: Any = None,
    measure: str = "ksd",
    seeds: int = 1,
    seed: int = 0,
    standardize: bool = False,
    largest: int = 5000,
) -> SelectionTable:
    """Rank the settings of a sampler by the discrepancy of what it draws.

    Args:
        run: ``run(candidate, seed)`` gives a `Chain`, or a pair (points, scores).
        candidates: The settings to compare, two or more.
        kernel: As for `ksd`.
        measure: "ksd" or "graph" (the spanner program, for few coordinates).
        seeds: Runs of each candidate.
        seed: The first seed.
        standardize: Whether coordinates are divided by the mean absolute deviation of all draws of
            all candidates together first, so that no unit decides; one scale for all of them.
        largest: Draws used of each run at most, equally spaced.

    Returns:
        The table; ``.best`` is the choice.

    Raises:
        InputError: If there are fewer than two candidates, ``run`` gives something else, or the
            measure is unknown.
    """
    if measure not in MEASURES:
        raise InputError(f'measure is {measure!r}; it is "ksd" or "graph".')
    settings = list(candidates)
    if len(settings) < 2:
        raise InputError(f"candidates hold {len(settings)} setting; two or more are needed to choose from.")
    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1:
        raise InputError(f"seeds is {seeds!r}; a whole number, one or more, is needed.")
    runs, notes = [], []
    for candidate in settings:
        drawn = []
        for number in range(seeds):
            try:
                drawn.append(_read(run(candidate, seed + number)))
            except InputError as cause:
                if "left the finite numbers" not in str(cause):
                    raise
                notes.append(f"candidate {candidate}, seed {seed + number}: {cause}")
        runs.append(drawn)
    scale = _scale([points for drawn in runs for points, _, _ in drawn]) if standardize else 1.0
    rows = tuple(
        _row(candidate, drawn, scale, kernel, measure, largest)
        for candidate, drawn in zip(settings, runs, strict=True)
    )
    return SelectionTable(title=f"settings by {measure}", rows=rows, notes=tuple(notes), measure=measure)


def _read(answer: Any) -> tuple[np.ndarray, np.ndarray, Chain | None]:
    """Points and scores (chains, draws, d)."""
    chain = answer if isinstance(answer, Chain) else None
    try:
        points, scores = (answer.points, answer.scores) if isinstance(answer, Chain) else answer
        x, b = np.asarray(points, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(
            "run must give a Chain or a pair (points, scores) for a candidate and a seed."
        ) from None
    if x.ndim == 1:
        x, b = x[:, None], b.reshape(len(b), -1)
    return (x[None], b[None], chain) if x.ndim == 2 else (x, b, chain)


def _scale(parts: list[np.ndarray]) -> np.ndarray:
    """Mean absolute deviation of all draws, coordinate by coordinate."""
    if not parts:
        return np.ones(1)
    together = np.concatenate([part.reshape(-1, part.shape[2]) for part in parts])
    scale = np.abs(together - np.median(together, axis=0)).mean(0)
    return np.where(scale > 0, scale, 1.0)


def _row(candidate: Any, drawn: list[Any], scale: Any, kernel: Any, measure: str, largest: int) -> Row:
    """One candidate: medians over its runs."""
    values, errors, sizes, hats = [], [], [], []
    for points, scores, _ in drawn:
        x, b = (v.reshape(-1, points.shape[2]) for v in (points / scale, scores * scale))
        keep = np.unique(np.linspace(0, len(x) - 1, min(len(x), largest)).round().astype(int))
        found = ksd(x[keep], b[keep], kernel) if measure == "ksd" else graph_discrepancy(x[keep], b[keep])
        values.append(found.value)
        errors.append(found.error)
        if points.shape[1] >= _FEWEST:
            sizes.append(float(ess(points).min()))
            hats.append(float(rhat(points).max()))
    chains = [chain for _, _, chain in drawn if chain is not None]
    quarter = np.percentile(values, [25, 75]) if values else np.zeros(2)
    return Row(
        candidate=candidate,
        discrepancy=float(np.median(values)) if values else float("inf"),
        kind="exact" if len(values) == 1 else "estimate",
        error=float(max(errors)) if len(values) == 1 else float(0.5 * (quarter[1] - quarter[0])),
        ess=float(np.median(sizes)) if sizes else float("nan"),
        rhat=float(np.median(hats)) if hats else float("nan"),
        acceptance=float(np.mean([chain.acceptance for chain in chains])) if chains else float("nan"),
        evaluations=int(np.mean([chain.evaluations for chain in chains])) if chains else 0,
    )
