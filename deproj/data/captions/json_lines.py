"""JSON, strictly: values a line, and what is wrong with a text that is none."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from deproj.data.captions.reading import MARK
from deproj.data.captions.text_files import open_text
from deproj.process.errors import UserError

__all__ = ["DECODER", "ERRORS", "Row", "TwoOfOneName", "is_certain", "is_cut", "line_rows", "reason"]


class Row(NamedTuple):
    """A value with the number of the line that it begins in."""

    place: int
    value: Any


class TwoOfOneName(ValueError):
    """An object in which a name stands twice: a parser would take the last and say nothing."""


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of its members."""
    made = dict(pairs)
    if len(made) < len(pairs):
        name = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise TwoOfOneName(f"an object has two members of the name {name!r}")
    return made


DECODER = json.JSONDecoder(object_pairs_hook=once)
#: What the decoder raises for what is no JSON, is nested too deeply, or has a number of too many digits.
ERRORS = (ValueError, RecursionError)


#: Letters that are shown of what can't be decoded.
SHOWN = 30


def reason(error: Exception) -> str:
    """Why something can't be decoded, and what stands there."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if not isinstance(error, json.JSONDecodeError):
        return str(error)
    found = error.doc[error.pos : error.pos + SHOWN + 1].partition("\n")[0].strip()
    shown = f"{found[:SHOWN]}…" if len(found) > SHOWN else found
    if error.doc[: error.pos].rstrip().endswith(",") and found[:1] in ("}", "]"):
        return f"a comma with nothing behind it, before {shown}"
    return f"{error.msg}, at {shown}" if shown else error.msg


def is_cut(error: Exception) -> bool:
    """Whether a text that can't be decoded ends too early: in a string, or in what stands at its end."""
    if not isinstance(error, json.JSONDecodeError):
        return False
    rest = error.doc[error.pos :].strip()
    started = rest and any(word.startswith(rest) for word in ("true", "false", "null", "NaN", "Infinity", "-Infinity"))
    return not rest or bool(started) or "Unterminated" in error.msg or ("escape" in error.msg and len(rest) < 6)


def is_certain(error: Exception) -> bool:
    """Whether a text can't be decoded whatever follows it."""
    return isinstance(error, json.JSONDecodeError) and "Unterminated" not in error.msg and error.pos < len(error.doc) - SHOWN


def line_rows(path: Path) -> Iterator[Row]:
    """A value a line.

    Raises:
        UserError: for a line that is no JSON.
    """
    with open_text(path) as file:
        # a byte order mark stands where files were joined
        lines = ((number, text) for number, line in enumerate(file, 1) if (text := line.strip().strip(MARK).strip()))
        for number, line in lines:
            try:
                value = DECODER.decode(line)
            except ERRORS as error:
                raise broken_line(f"{path}, line {number}", line, number, error, next(lines, None) is None) from None
            yield Row(number, value)


def broken_line(place: str, line: str, number: int, error: Exception, last: bool) -> UserError:
    """What is wrong with a line that is no JSON."""
    if line in ("[", "{") or (number == 1 and line.startswith("[") and not last):
        return UserError(f"{place} is not JSON by itself; a document of many lines ends its name in .json.")
    if is_cut(error) and last:
        return UserError(f"{place}: the last line is cut off; the file is not whole.")
    if isinstance(error, json.JSONDecodeError) and error.msg == "Extra data":
        found = line[error.pos :].strip()
        what = "a comma" if found == "," else "another value" if found[:1] in ("{", "[", '"') else repr(found[:SHOWN])
        return UserError(f"{place} has {what} behind its value; a line holds one value and nothing else.")
    return UserError(f"{place} is not JSON: {reason(error)}.")
