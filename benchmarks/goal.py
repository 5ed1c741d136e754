"""What a race sets out to reach, in a form that can be missed.

A goal is a number found in the race and a limit for it. ``faster`` and ``within`` compare times
with another contender, ``seconds`` and ``megabytes`` look at ours alone, ``answer`` looks at what
was computed. The verdict of a race is the verdicts of its goals; whether a peer is faster is said
beside the peer.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Find = Callable[[dict[str, dict[str, Any]], dict[str, Any]], float | None]
"""From the rows and the answers of all contenders, by name, to the number; None if it was not measured."""


@dataclass(frozen=True)
class Goal:
    """A number that must be at least or at most a limit.

    Attributes:
        words: What is asked, with the limit ("at least 5 times as fast as PyHessian").
        find: Finds the number.
        least: The number must not be below; None if only ``most`` counts.
        most: The number must not be above; None if only ``least`` counts.
        form: How the number found is written.
    """

    words: str
    find: Find
    least: float | None = None
    most: float | None = None
    form: str = "{:.3g}"

    def judge(self, rows: dict[str, dict[str, Any]], answers: dict[str, Any]) -> dict[str, Any]:
        """The verdict as a record: words, found (as text), met (None: not measured)."""
        try:
            value = self.find(rows, answers)
        except KeyError as cause:
            raise ValueError(f"the goal '{self.words}' names {cause}; there is {', '.join(rows)}.") from cause
        if value is None:
            return {"words": self.words, "found": "not measured", "met": None}
        met = not math.isnan(value) and (self.least is None or value >= self.least)
        met = met and (self.most is None or value <= self.most)
        return {"words": self.words, "found": self.form.format(value), "met": met}


def faster(peer: str, times: float) -> Goal:
    """The peer takes at least so many times our time."""
    words = f"at least {times:g} times as fast as {peer}" if times != 1 else f"no slower than {peer}"
    return Goal(words, lambda rows, _: rows[peer]["ratio"], least=times, form="{:.3g} times as fast")


def within(peer: str, times: float) -> Goal:
    """We take at most so many times the time of that contender."""

    def find(rows: dict[str, dict[str, Any]], _: dict[str, Any]) -> float | None:
        ratio = rows[peer]["ratio"]
        return 1 / ratio if ratio else None

    words = f"at most {times:g} times the time of {peer}" if times != 1 else f"at most the time of {peer}"
    return Goal(words, find, most=times, form="{:.3g} times the time")


def seconds(limit: float) -> Goal:
    """Our median time."""
    return Goal(f"at most {limit:g} s", _own("seconds"), most=limit, form="{:.3g} s")


def megabytes(limit: float) -> Goal:
    """The rise of the peak of our memory."""
    return Goal(f"at most {limit:g} MB of memory", _own("megabytes"), most=limit, form="{:.0f} MB")


def answer(
    words: str,
    find: Callable[[Any, dict[str, Any]], float],
    *,
    least: float | None = None,
    most: float | None = None,
    needs: str = "",
) -> Goal:
    """Something about the answers: ``find(ours, peers)``; not measured if the peer ``needs`` did not run."""

    def found(_: dict[str, dict[str, Any]], answers: dict[str, Any]) -> float | None:
        peers = dict(answers)
        if "fathometer" not in peers or (needs and needs not in peers):
            return None
        return float(find(peers.pop("fathometer"), peers))

    return Goal(words, found, least, most)


def _own(what: str) -> Find:
    return lambda rows, _: rows["fathometer"][what]
