"""Texts in pictures: how wide they are, where they break, how numbers are written.

Widths are estimated from letter classes of common sans-serif faces, a little on the
wide side, so that what is planned not to touch does not touch in another face.
"""

import html
import math
import re

_NARROW = frozenset("ijl.,:;'|!()[]{}I ·`")
_SLIM = frozenset('ftrJ-"*/\\')
_WIDE = frozenset("mwMW@%ＭＷ—")
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
# what XML cannot hold, and marks that turn the reading direction of what follows
_CONTROL = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
MINUS = "−"


def clean(text: str) -> str:
    """``text`` with a replacement mark for control characters and marks of reading direction."""
    return _CONTROL.sub("\ufffd", text)


def escape(text: object) -> str:
    """``text`` as harmless XML, `clean`."""
    return html.escape(clean(str(text)), quote=True)


def tag(name: str, content: str | None = None, /, **attributes: object) -> str:
    """An XML element; ``content`` is markup already, attribute values are escaped.

    A trailing underscore is dropped from attribute names, other underscores become hyphens;
    attributes that are None are left out.
    """
    pairs = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_coordinate(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{pairs}/>" if content is None else f"<{name}{pairs}>{content}</{name}>"


def _coordinate(value: object) -> object:
    return pixel(value) if isinstance(value, float) else value


def pixel(value: float) -> str:
    """A coordinate with at most one decimal."""
    text = f"{value:.1f}"
    return text[:-2] if text.endswith(".0") else text


def width(text: str, size: float = 12.0) -> float:
    """Estimated width of one line of ``text`` in pixels."""
    total = 0.0
    for letter in text:
        if letter in _NARROW:
            total += 0.36
        elif letter in _SLIM:
            total += 0.44
        elif letter in _WIDE:
            total += 0.98
        elif ord(letter) > 0x2E80:
            total += 1.05
        elif letter.isupper():
            total += 0.72
        else:
            total += 0.63
    return total * size


def shorten(text: str, room: float, size: float = 12.0) -> str:
    """``text``, cut with an ellipsis where it is wider than ``room``."""
    if width(text, size) <= room:
        return text
    while text and width(text + "…", size) > room:
        text = text[:-1]
    return text.rstrip() + "…"


def wrap(text: str, room: float, size: float = 12.0, lines: int = 3) -> list[str]:
    """``text`` in at most ``lines`` lines of at most ``room`` pixels; the last may end in an ellipsis."""
    words = text.split()
    if not words:
        return []
    rows = [words[0]]
    for word in words[1:]:
        if width(f"{rows[-1]} {word}", size) <= room:
            rows[-1] += f" {word}"
        else:
            rows.append(word)
    if len(rows) > lines:
        rows = [*rows[: lines - 1], " ".join(rows[lines - 1 :])]
    return [shorten(row, room, size) for row in rows]


def power_of_ten(exponent: int) -> str:
    """``10`` with a raised exponent."""
    return "10" + str(exponent).translate(_SUPERSCRIPT)


def number(value: float, digits: int = 4) -> str:
    """``value`` with up to ``digits`` significant digits: ``0.0125``, ``−3``, ``2.5×10⁻⁷``."""
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return {math.inf: "∞", -math.inf: MINUS + "∞"}.get(value, "not a number")
    exponent = math.floor(math.log10(abs(value)))
    if -4 <= exponent < 6:
        text = f"{value:.{max(0, digits - 1 - exponent)}f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
        return text.replace("-", MINUS)
    mantissa, power = f"{value:.{digits - 1}e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    times = {"1": "", "-1": MINUS}.get(mantissa, mantissa.replace("-", MINUS) + "×")
    return times + power_of_ten(int(power))
