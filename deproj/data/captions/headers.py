"""The first line of a ``.csv`` or ``.tsv``: the names of the columns, or a refusal of what stands in their place."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from deproj.data.captions.columns import KNOWN
from deproj.process.errors import UserError

__all__ = ["SEPARATORS", "Row", "check_header", "check_separator", "header_of"]

#: What may stand between fields; Excel writes semicolons in half of Europe.
SEPARATORS = (",", ";", "\t", "|")
#: Words that columns are called by, besides those of `columns`.
USUAL = ("description", "title", "label", "tag", "tags", "alt", "name", "sentence", "content", "instruction", "string", "value")


class Row(NamedTuple):
    """Fields of a record, and the lines that it stands in.

    Attributes:
        place: number of the first line.
    """

    place: int
    fields: list[str]
    lines: list[str]


def header_of(path: Path, records: Iterator[Row]) -> list[str]:
    """The names of the columns.

    Raises:
        UserError: for two of one name, for none that has a name, and for a caption in their place.
    """
    first = next(records, Row(1, [], []))
    header = [name.strip() for name in first.fields]
    if header and not any(header):
        raise UserError(f"{path}, line {first.place}: no column has a name; write a first line: caption.")
    for name in header:
        if name and header.count(name) > 1:
            raise UserError(f"{path}, line {first.place} has two columns of the name {name!r}; rename one of them.")
    if len(header) == 1 and ("," in header[0] or len(header[0].split()) > 3):
        raise no_header(path, header[0])
    return header


def no_header(path: Path, found: str) -> UserError:
    return UserError(f"{path} begins with {found!r}, where the column's name is needed; write a first line: caption.")


def check_header(path: Path, header: Sequence[str], column: str, sample: Sequence[Row]) -> None:
    """Refuses a caption in the place of the column's name, where nobody has named it.

    Raises:
        UserError: for no name, one of several words or that begins with a digit, or whose words the rows have too.
    """
    if not column:
        raise UserError(f"{path}: the column of the captions has no name; write it in the first line: caption.")
    words = re.findall(r"[^\W_]+", column.lower())
    alone = len(header) == 1 and any(sign in column for sign in " :/")  # which may stand between names
    if set(words) & {*KNOWN, *USUAL} and not alone:
        return
    texts = " ".join(field for row in sample for field in row.fields).lower()
    if alone or " " in column or column[0].isdigit() or (words and re.search(rf"\b{re.escape(words[0])}\b", texts)):
        raise UserError(
            f"{path} begins with {column!r}, where the column's name is needed; write a first line: caption. "
            f"(If it is the name, set data.column={column!r}.)"
        )


def check_separator(path: Path, header: list[str], sample: Sequence[Row]) -> None:
    """Refuses rows that something else parts than the header."""
    rows = [row for row in sample if row.fields]
    if rows and len(header) > 1 and all(len(row.fields) == 1 for row in rows):
        for other in SEPARATORS:
            if all(row.fields[0].count(other) == len(header) - 1 for row in rows):
                raise UserError(
                    f"{path}, line {rows[0].place}: {other!r} stands between the fields, but not in the header; write both alike."
                )
