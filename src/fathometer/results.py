"""Answers that say what they are, and stay the same on disk.

Every measurement returns a frozen dataclass derived from `Result`. Its headline
is ``value``, with ``kind`` (exact, bound or estimate) and ``error``. A result
prints in one line, shows itself in a notebook, and is saved as one safetensors
file: arrays as they are, everything else as a JSON manifest in the header. There
is no pickle anywhere, so opening a result from a stranger runs no code.
"""

import dataclasses
import html
import json
import math
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from fathometer.errors import InputError
from fathometer.types import KINDS, Kind

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from fathometer.drawing.picture import Picture

SCHEMA = 1
_HEADER = "fathometer"
_ARRAY_TAGS = {f"${how}{what}" for how in ("", "complex_") for what in ("array", "tensor", "scalar")}


class Result:
    """Base of every answer. Subclasses are frozen dataclasses.

    A subclass has a headline: the field or property ``value`` with ``kind`` and
    ``error``. Fields declared with ``field(metadata={"saved": False})`` (a module,
    for instance) live in memory only and come back from disk as None.
    """

    headline: ClassVar[str] = "value"

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        _CLASSES[f"{cls.__module__}:{cls.__qualname__}"] = cls

    def picture(self) -> "Picture":
        """Describe the answer as a `Picture`; rooms override this.

        Raises:
            InputError: If this kind of answer has no picture.
        """
        raise InputError(f"a {type(self).__name__} has no picture; print it, or read its fields.")

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the picture with matplotlib (the extra ``viz``) and return the axes.

        Args:
            ax: Where to draw; a new figure if None. A picture of several panels
                needs a figure of its own: leave ``ax`` out.
        """
        from fathometer.drawing.axes import draw

        return draw(self.picture(), ax)

    def to_dict(self) -> dict[str, Any]:
        """Plain fields: arrays as nested lists, nested answers as dictionaries."""
        return {name: _plain(value) for name, value in _saved_fields(self)}

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, whole or not at all, and return its path."""
        code, arrays = pack(self)
        manifest = {"schema": SCHEMA, "result": code}
        target = Path(path)
        part = target.with_name(target.name + ".part")
        try:
            save_file(arrays, part, metadata={_HEADER: json.dumps(manifest)})
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        return target

    def __str__(self) -> str:
        answer = cast(Any, self)  # the headline is a field in one class and a property in another
        return f"{type(self).__name__}: {describe(answer.value, answer.kind, answer.error)}"

    def __repr__(self) -> str:
        parts = (f"{name}={_short(value)}" for name, value in _saved_fields(self))
        return f"{type(self).__name__}({', '.join(parts)})"

    def _repr_html_(self) -> str:
        try:
            picture = self.picture()
        except InputError:
            picture = None
        figure = ""
        if picture is not None:
            from fathometer.drawing.svg import to_svg

            figure = to_svg(picture)
        return f"<p>{html.escape(str(self))}</p>{figure}"


_CLASSES: dict[str, type[Result]] = {}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Estimate(Result):
    """One number or array with its kind and error.

    Attributes:
        value: The number.
        kind: "exact", "bound" or "estimate".
        error: Standard error, residual or half width of the bound, in the units of
            ``value``; zero up to rounding for an exact number.
        method: How it was found.
        cost: Operator products, gradients or evaluations spent (see ``cost_unit``).
        cost_unit: What ``cost`` counts.
    """

    value: Any
    kind: Kind
    error: Any
    method: str = ""
    cost: int = 0
    cost_unit: str = "products"

    def __post_init__(self) -> None:
        check_kind(self.kind)


class Row(Mapping[str, Any]):
    """One record of a table: ``row.name`` and ``row["name"]`` are the same."""

    __slots__ = ("_cells",)

    def __init__(self, **cells: Any) -> None:
        object.__setattr__(self, "_cells", cells)

    def __getattr__(self, name: str) -> Any:
        if name != "_cells" and name in self._cells:
            return self._cells[name]
        raise AttributeError(f"this row has {', '.join(self._cells)}; not {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("rows do not change")

    def __getitem__(self, name: str) -> Any:
        return self._cells[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._cells)

    def __len__(self) -> int:
        return len(self._cells)

    def __repr__(self) -> str:
        return f"Row({', '.join(f'{k}={_short(v)}' for k, v in self._cells.items())})"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Table(Result):
    """Records with the same columns; each row carries its own kind and error.

    Attributes:
        title: What the table is about.
        rows: The records, `Row` each.
        notes: What could not be treated and why, one sentence each.
    """

    title: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns, in order."""
        return tuple(self.rows[0]) if self.rows else ()

    @property
    def value(self) -> int:
        """Number of rows."""
        return len(self.rows)

    @property
    def kind(self) -> Kind:
        """The count is exact; the rows carry their own kinds."""
        return "exact"

    @property
    def error(self) -> float:
        """Zero: see the rows."""
        return 0.0

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __getitem__(self, key: int | str) -> Any:
        """A row by position, or by the text in its first column."""
        if isinstance(key, int):
            return self.rows[key]
        for row in self.rows:
            if row[self.columns[0]] == key:
                return row
        known = ", ".join(str(row[self.columns[0]]) for row in self.rows)
        raise KeyError(f"{key!r} is not in the table; it has {known}")

    def __str__(self) -> str:
        return "\n".join([self.title, *self._lines(), *self.notes])

    def _lines(self) -> list[str]:
        cells = [[str(c) for c in self.columns], *([_short(v) for v in row.values()] for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        return ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells]

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(c)}</th>" for c in self.columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(_short(v))}</td>" for v in row.values()) + "</tr>"
            for row in self.rows
        )
        return (
            f"<table><caption>{html.escape(self.title)}</caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        )


def check_kind(kind: str) -> None:
    """Refuse a kind that is not one of the three."""
    if kind not in KINDS:
        raise InputError(f"kind is {kind!r}; a number is one of {', '.join(KINDS)}.")


def describe(value: Any, kind: Kind, error: Any) -> str:
    """One phrase for a number, its error and its kind: ``3.142 +- 0.001 (estimate)``."""
    text = _short(value)
    if kind == "estimate" and error is not None and np.ndim(error) == 0 and float(error) > 0:
        text += f" +- {float(error):.2g}"
    return f"{text} ({kind})"


def pack(value: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """Plain JSON for a value, and the arrays it refers to by name.

    Results, numbers, text, None, arrays, and lists, tuples and dictionaries of them
    come back from `unpack` as they were.

    Raises:
        InputError: If something in the value has no place in a file.
    """
    arrays: dict[str, np.ndarray] = {}
    return _encode(value, arrays, ""), arrays


def unpack(code: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """The value that `pack` was given."""
    return _decode(code, arrays)


def load(path: str | Path) -> Result:
    """Read a result that `Result.save` wrote; no code of the file is run.

    Raises:
        InputError: If the file is missing, damaged, not a result, or newer than this version.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            header = (file.metadata() or {}).get(_HEADER)
            # get_tensor copies, so nothing stays bound to the file
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file.") from None
    except (SafetensorError, OSError) as cause:
        raise InputError(f"{path}: not a readable safetensors file ({cause}).") from None
    if header is None:
        raise InputError(
            f"{path}: a safetensors file without a result; weights are read by fathometer.files."
        )
    manifest = json.loads(header)
    if manifest["schema"] > SCHEMA:
        raise InputError(
            f"{path}: written by a newer version (schema {manifest['schema']}, this one reads {SCHEMA})."
        )
    return _decode(manifest["result"], arrays)


def _saved_fields(result: Result) -> list[tuple[str, Any]]:
    fields = dataclasses.fields(result)  # type: ignore[arg-type]
    return [(f.name, getattr(result, f.name)) for f in fields if f.metadata.get("saved", True)]


def _is_tensor(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "torch" and hasattr(value, "detach")


def _plain(value: Any) -> Any:
    """Only dict, list, str, numbers, bool and None."""
    if isinstance(value, Result):
        return value.to_dict()
    if _is_tensor(value):
        return value.detach().cpu().tolist()
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def _encode(value: Any, arrays: dict[str, np.ndarray], name: str) -> Any:
    """JSON for ``value``; arrays go into ``arrays`` under a path-like name."""
    if isinstance(value, Result):
        fields = {k: _encode(v, arrays, f"{name}.{k}".lstrip(".")) for k, v in _saved_fields(value)}
        return {"$result": f"{type(value).__module__}:{type(value).__qualname__}", "fields": fields}
    if (
        value is None
        or isinstance(value, bool | str | int)
        or (type(value) is float and math.isfinite(value))
    ):
        return value
    if isinstance(value, float) and not isinstance(value, np.generic):
        return {"$float": repr(value)}
    if isinstance(value, complex) and not isinstance(value, np.generic):
        return {"$complex": [repr(value.real), repr(value.imag)]}
    if _is_tensor(value) or isinstance(value, np.ndarray | np.generic):
        return _encode_array(value, arrays, name)
    if isinstance(value, list | tuple):
        kind = "$list" if isinstance(value, list) else "$tuple"
        return {kind: [_encode(v, arrays, f"{name}.{i}") for i, v in enumerate(value)]}
    if isinstance(value, Mapping):
        pairs = [[_encode(k, arrays, ""), _encode(v, arrays, f"{name}.{k}")] for k, v in value.items()]
        return {"$row" if isinstance(value, Row) else "$dict": pairs}
    raise InputError(
        f"{name} holds a {type(value).__name__}, which has no place in a file; "
        'declare the field with metadata={"saved": False}.'
    )


def _encode_array(value: Any, arrays: dict[str, np.ndarray], name: str) -> dict[str, str]:
    if _is_tensor(value):
        if str(value.dtype) == "torch.bfloat16":
            raise InputError(f"{name} is bfloat16, which NumPy does not have; save it as float32.")
        tag, array = "$tensor", np.array(value.detach().cpu().numpy(), order="C")
    else:
        tag, array = "$scalar" if isinstance(value, np.generic) else "$array", np.array(value, order="C")
    if array.dtype == np.complex128:  # safetensors has no such type: real and imaginary parts, side by side
        pairs = np.stack([np.real(array), np.imag(array)], axis=-1)
        return {f"$complex_{tag[1:]}": _encode_array(pairs, arrays, name)["$array"]}
    if array.dtype.kind not in "biufc" or array.dtype.itemsize > 8:
        raise InputError(
            f"{name} holds an array of {array.dtype}; numbers and booleans have a place in a file."
        )
    key = name or "value"
    while key in arrays:  # the keys 1 and "1", or "a.b" and "a" with "b" in it, have one path
        key += "'"
    arrays[key] = array
    return {tag: key}


def _decode_array(tag: str, array: np.ndarray) -> Any:
    if tag.startswith("$complex_"):
        array, tag = array.view(np.complex128)[..., 0], f"${tag.removeprefix('$complex_')}"
    if tag == "$tensor":
        import torch

        return torch.from_numpy(array.copy())
    return array[()] if tag == "$scalar" else array


def _decode(code: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if not isinstance(code, dict):
        return code
    (tag, body), *_ = code.items()
    if tag == "$float":
        return float(body)
    if tag == "$complex":
        return complex(float(body[0]), float(body[1]))
    if tag in _ARRAY_TAGS:
        return _decode_array(tag, arrays[body])
    if tag in ("$list", "$tuple"):
        items = [_decode(v, arrays) for v in body]
        return items if tag == "$list" else tuple(items)
    if tag in ("$dict", "$row"):
        pairs = {_decode(k, arrays): _decode(v, arrays) for k, v in body}
        return pairs if tag == "$dict" else Row(**pairs)
    cls = _result_class(body)
    fields = {k: _decode(v, arrays) for k, v in code["fields"].items()}
    missing = {f.name: None for f in dataclasses.fields(cls) if not f.metadata.get("saved", True)}  # type: ignore[arg-type]
    return cls(**missing, **fields)


def _result_class(name: str) -> type[Result]:
    """The class a file names; only result classes of this package or already imported ones."""
    module = name.partition(":")[0]
    if name not in _CLASSES and module.split(".")[0] == "fathometer":
        try:
            import_module(module)
        except ModuleNotFoundError:
            raise InputError(f"the file holds a {name}, which this version does not have.") from None
    if name not in _CLASSES:
        raise InputError(f"the file holds a {name}; import the module that defines it first.")
    return _CLASSES[name]


def _short(value: Any) -> str:
    """A value in a few characters: shapes for arrays, four digits for floats."""
    if isinstance(value, Result):
        return type(value).__name__
    if _is_tensor(value) or isinstance(value, np.ndarray):
        if value.ndim == 0:
            return _short(value.item())
        return f"array{tuple(value.shape)}"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        return f"{float(value):.4g}"
    if isinstance(value, list | tuple):
        inner = ", ".join(_short(v) for v in value[:4]) + (", ..." if len(value) > 4 else "")
        return f"[{inner}]" if isinstance(value, list) else f"({inner})"
    return str(value)
