"""Every error this package raises on purpose.

A message has three parts: what was found, what was expected, what to do next.
Each class also inherits the built-in a caller would have guessed, so that
``except ValueError`` keeps working.
"""


class FathometerError(Exception):
    """Base of every error this package raises on purpose."""


class InputError(FathometerError, ValueError):
    """An argument, a file or an option is not what the call needs.

    The message names the argument, what was found and what would be right.
    """


class CapabilityError(FathometerError, RuntimeError):
    """The request is sound, but it cannot be done here.

    For example: an extra package is missing, a browser is missing, or a solver
    could not reach the accuracy that was asked for.
    """


class BudgetError(FathometerError, MemoryError):
    """The work does not fit the memory budget; the message says what would fit."""


class TheoryWarning(UserWarning):
    """The theory behind a number does not hold for this input; the message says why."""
