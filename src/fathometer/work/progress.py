"""Progress reports of long work: silent unless the caller passes a callback.

The library calls ``progress(done, total, what)`` and never prints. `phase` lets a
piece of work report inside a share of a larger one.
"""

from fathometer.types import Progress

_STEPS = 1000


def silent(done: int, total: int, what: str) -> None:
    """Take a report of ``what`` is ``done`` of ``total``, and do nothing."""


def phase(progress: Progress | None, start: float, stop: float, what: str = "") -> Progress:
    """A callback whose 0..total is the share ``start``..``stop`` of the whole work.

    Args:
        progress: The callback of the whole work; None for silence.
        start: Share of the whole that is done when the phase begins, in [0, 1].
        stop: Share that is done when it ends.
        what: Name of the phase; a report's own name is added to it.

    >>> seen = []
    >>> second_half = phase(lambda done, total, what: seen.append((done, total, what)), 0.5, 1.0, "trace")
    >>> second_half(1, 2, "probe")
    >>> seen
    [(750, 1000, 'trace: probe')]
    """
    if progress is None:
        return silent
    outer = what

    def report(done: int, total: int, what: str) -> None:
        share = done / total if total else 0.0
        name = ": ".join(part for part in (outer, what) if part)
        progress(round(_STEPS * (start + (stop - start) * share)), _STEPS, name)

    return report
