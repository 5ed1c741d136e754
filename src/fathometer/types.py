"""Small types that every floor shares."""

from typing import Literal, Protocol, get_args, runtime_checkable

Kind = Literal["exact", "bound", "estimate"]
"""What a number is: exact up to rounding, a proved bound, or an estimate."""

KINDS: tuple[Kind, ...] = get_args(Kind)


@runtime_checkable
class Progress(Protocol):
    """What long work calls to report: ``progress(done, total, what)``.

    ``total`` is 0 where the amount of work is not known beforehand.
    """

    def __call__(self, done: int, total: int, what: str) -> object:
        """Report that ``done`` of ``total`` are finished, and what is under way."""
        ...
