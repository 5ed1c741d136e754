"""One survey of a trained network: all instruments, one report.

``fathometer.survey`` is this package and, because the survey is what most people came for,
also a function: the module itself can be called. Whether ``fm.survey`` or
``import fathometer.survey`` comes first, the name means the same callable module, so that
``fm.survey(model, loss, data)`` and ``fathometer.survey.report`` both work.
"""

import sys
from types import ModuleType
from typing import Any

from fathometer.survey.report import build_report
from fathometer.survey.run import SurveyResult, survey
from fathometer.survey.vocabulary import Fact, Section, Skipped

__all__ = ["Fact", "Section", "Skipped", "SurveyResult", "build_report", "survey"]


class _CallableModule(ModuleType):
    """This package, which can be called like the function `survey`."""

    def __call__(self, *args: Any, **options: Any) -> SurveyResult:
        return survey(*args, **options)


sys.modules[__name__].__class__ = _CallableModule
