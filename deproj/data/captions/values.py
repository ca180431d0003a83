"""What a value is that is no caption: nothing, a number, the name of a file, a list that is written out as a text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from numbers import Number
from typing import Any

__all__ = ["NULL", "WRITTEN_OUT", "described", "is_nothing", "listed", "sort_of"]

#: What databases, data frames and Excel write where there is nothing.
NULL = frozenset(["NULL", "null", "None", "NaN", "nan", "NA", "N/A", "n/a", "<NA>", "#N/A", "(null)", r"\N", "NaT", "[]", "{}"])
#: What they write where there is a list, an object, a tuple or bytes.
WRITTEN_OUT = re.compile(
    r"""\s*(?:\[\s*(?:(["']).*\1|\{.*\})\s*\]|\{\s*(["']).*\}|\(\s*'.*'\s*,?\s*\)|b(["']).*\3)\s*""", re.DOTALL
)
#: What a column holds, none of which is a caption, by how each of its texts looks.
SORTS = (
    ("true and false", re.compile(r"true|false", re.IGNORECASE)),
    ("dates", re.compile(r"\d{4}-\d\d-\d\d(?:[T ][\d:.+Z-]*)?")),
    ("names of files", re.compile(r"\S+\.(?:jpe?g|png|webp|gif|bmp|tiff?|avif)", re.IGNORECASE)),
    ("addresses", re.compile(r"(?:https?|s3|gs|ftp)://\S+", re.IGNORECASE)),
)
#: Names that a message lists.
LISTED = 12


def is_nothing(value: Any) -> bool:
    """Whether a value stands for nothing: a null, NaN, or a text that is written for these."""
    if isinstance(value, str):
        return value.strip() in NULL
    return value is None or (isinstance(value, float) and value != value)


def sort_of(text: str) -> str | None:
    """What a text is instead of a caption, in the plural; None for what may be one."""
    text = text.strip()
    if is_number(text):
        return "numbers"
    return next((name for name, pattern in SORTS if pattern.fullmatch(text)), None)


def is_number(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True


def described(value: Any) -> str:
    """What a value is that is no text, or no object where one is needed."""
    if value is None:
        return "null"
    if isinstance(value, str):
        return "a text"
    if isinstance(value, bool):
        return f"true or false ({str(value).lower()})"
    if isinstance(value, Number):
        return f"a number ({value})"
    if isinstance(value, bytes):
        return "bytes"
    if isinstance(value, Mapping):
        return f"an object of {listed(value)} (name one as in caption.en)"
    return f"a {type(value).__name__.lower()}"


def listed(names: Any) -> str:
    """Names for a message, the first ones of many."""
    shown = [str(name) for name in names]
    return (", ".join(shown[:LISTED]) + (", …" if len(shown) > LISTED else "")) or "none"
