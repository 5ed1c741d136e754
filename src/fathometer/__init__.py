"""Sound the depths of deep networks.

Five instruments (``spectra``, ``sharpness``, ``stein``, ``symmetry``,
``approximation``) and one survey that runs them all on a trained network.
Names are loaded on first use, so that ``import fathometer`` itself is instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_ROOMS = (
    "spectra",
    "sharpness",
    "stein",
    "symmetry",
    "approximation",
    "linalg",
    "model",
    "work",
    "drawing",
    "survey",  # a package that can be called: see its docstring
)
_NAMES = {
    "BudgetError": "errors",
    "CapabilityError": "errors",
    "FathometerError": "errors",
    "InputError": "errors",
    "TheoryWarning": "errors",
    "Estimate": "results",
    "Result": "results",
    "Table": "results",
    "load": "results",
    "Picture": "drawing.picture",
    "Eigenpairs": "linalg",
    "LinearOperator": "linalg",
    "as_operator": "linalg",
    "diagonal": "linalg",
    "eigenpairs": "linalg",
    "frobenius_norm": "linalg",
    "trace": "linalg",
    "LossSurface": "model",
    "ParamSpace": "model",
    "budget": "work",
    "SurveyResult": "survey",
}

if TYPE_CHECKING:
    from fathometer import approximation as approximation
    from fathometer import drawing as drawing
    from fathometer import linalg as linalg
    from fathometer import model as model
    from fathometer import sharpness as sharpness
    from fathometer import spectra as spectra
    from fathometer import stein as stein
    from fathometer import symmetry as symmetry
    from fathometer import work as work
    from fathometer.survey.run import survey as survey

__all__ = ["__version__", *_ROOMS, *_NAMES]  # pyright: ignore[reportUnsupportedDunderAll] - said once


def __getattr__(name: str) -> Any:
    """Load a room or a public name when it is first asked for."""
    if name in _ROOMS:
        return import_module(f"fathometer.{name}")
    if name in _NAMES:
        value = getattr(import_module(f"fathometer.{_NAMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'fathometer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
