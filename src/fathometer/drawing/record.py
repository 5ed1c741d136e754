"""Pictures as plain dictionaries, so that a saved answer can keep its pictures.

Only the classes of `drawing.picture` are made from a record; nothing in a file names code.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, get_args

from fathometer.drawing.picture import Axis, Mark, Panel, Picture
from fathometer.errors import InputError

_CLASSES: dict[str, Any] = {c.__name__: c for c in (Axis, Panel, Picture, *get_args(Mark))}


def to_record(picture: Picture) -> dict[str, Any]:
    """A picture as nested dictionaries, tuples, arrays and plain values."""
    return _record(picture)


def from_record(record: Mapping[str, Any]) -> Picture:
    """The picture that `to_record` wrote down.

    Raises:
        InputError: If the record is not one of a picture.
    """
    picture = _object(record)
    if not isinstance(picture, Picture):
        raise InputError(f"the record is one of a {type(picture).__name__}, not of a Picture.")
    return picture


def _record(value: Any) -> Any:
    if type(value).__name__ in _CLASSES and dataclasses.is_dataclass(value):
        fields = {f.name: _record(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"is": type(value).__name__, **fields}
    if isinstance(value, tuple):
        return tuple(_record(v) for v in value)
    return value


def _object(value: Any) -> Any:
    if isinstance(value, Mapping):
        name = value.get("is")
        if name not in _CLASSES:
            raise InputError(f"the record names a {name!r}; a picture is made of {', '.join(_CLASSES)}.")
        return _CLASSES[name](**{k: _object(v) for k, v in value.items() if k != "is"})
    if isinstance(value, tuple):
        return tuple(_object(v) for v in value)
    return value
