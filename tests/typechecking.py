"""The judge of the typed run (``./run typed``): beartype, to which an int is a float, as to pyright."""

import functools
import inspect

import numba
from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def _bare(compiler):
    """A compiler that is given the function itself: the judge's wrapper cannot be compiled."""

    @functools.wraps(compiler)
    def decorate(*args, **options):
        if args and inspect.isfunction(args[0]):
            return compiler(inspect.unwrap(args[0]), *args[1:], **options)
        made = compiler(*args, **options)
        return lambda function: made(inspect.unwrap(function))

    return decorate


numba.njit = _bare(numba.njit)
numba.vectorize = _bare(numba.vectorize)
