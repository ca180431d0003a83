"""``.csv`` and ``.tsv``: rows whose fields stand under the header's names, or a refusal with the line's number."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, NoReturn

from deproj.data.captions.columns import SAMPLED, choose
from deproj.data.captions.lines import kind_of, open_text
from deproj.data.captions.reading import Record
from deproj.process.errors import UserError

__all__ = ["table_column", "table_records"]

#: What may stand between fields; Excel writes semicolons in half of Europe.
SEPARATORS = (",", ";", "\t", "|")
#: What Excel takes for a separator that is named in the first line.
NAMED = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
#: Quotes of a word processor.
OPENING, CLOSING = "“„‟«‘‚", "”“»‟’‘"
#: What databases and data frames write where there is nothing.
NULL = ("NULL", "null", "None", "NaN", "nan", "N/A", "<NA>", r"\N")
#: What they write where there is a list or an object.
WRITTEN_OUT = re.compile(r"""\s*(?:\[\s*(["']).*\1\s*\]|\{\s*(["']).*\})\s*""", re.DOTALL)
#: Stands for a comma that is part of a text, while `csv` reads; no text has this letter, which Unicode never assigns.
COMMA = "\ufdd0"


class Row(NamedTuple):
    """Fields of a record, and the lines that it stands in.

    Attributes:
        place: number of the first line.
    """

    place: int
    fields: list[str]
    lines: list[str]


class Watched:
    """Lines that `csv` takes, of which those of the present record are kept.

    Args:
        read: lines that went before.
        bare: whether a comma before a space is part of a text; where a line has quotes, these say so.
    """

    def __init__(self, lines: Iterator[str], read: int = 0, bare: bool = False) -> None:
        self.source, self.lines, self.read, self.bare = lines, list[str](), read, bare

    def __iter__(self) -> Watched:
        return self

    def __next__(self) -> str:
        line = next(self.source)
        self.lines.append(line)
        self.read += 1
        return line.replace(", ", f"{COMMA} ") if self.bare and '"' not in line else line

    @property
    def start(self) -> int:
        """Number of the record's first line."""
        return self.read - len(self.lines) + 1


def parsed(watched: Watched, separator: str) -> Iterator[list[str]]:
    """Records as `csv` reads them, strictly; a space after a separator isn't part of a field."""
    return csv.reader(watched, delimiter=separator, strict=True, skipinitialspace=True)


def rows(path: Path, column: str | None, bare: bool = False) -> Generator[Row]:
    """The header, and then every record.

    Args:
        bare: as in `Watched`.

    Raises:
        UserError: for quotes that never close or close within a field.
    """
    with open_text(path, newline="") as file:
        lines = enumerate(file, 1)
        number, first = next(((number, line) for number, line in lines if line.strip()), (0, ""))
        if (named := NAMED.fullmatch(first)) is not None:
            separator = named[1]
            number, first = next(lines, (0, ""))
        else:
            separator = separator_of(path, first, column)
        if not first:
            return
        watched = Watched(itertools.chain([first], (line for _, line in lines)), number - 1, bare)
        records = parsed(watched, separator)
        while True:
            watched.lines.clear()
            try:
                fields = next(records, None)
            except csv.Error as error:
                refuse(path, watched, error)
            if fields is None:
                return
            yield Row(watched.start, fields, watched.lines)


def separator_of(path: Path, header: str, column: str | None) -> str:
    """What stands between the fields of a file, by its header."""
    if kind_of(path) == ".tsv":
        return "\t"
    found = {}
    for separator in SEPARATORS:
        try:
            found[separator] = next(parsed(Watched(iter([header])), separator), [])
        except csv.Error:  # a quote that doesn't fit
            continue
    if column is not None and (with_it := {s: names for s, names in found.items() if column in map(str.strip, names)}):
        found = with_it
    return max(found, key=lambda separator: len(found[separator]), default=",")


def refuse(path: Path, watched: Watched, error: csv.Error) -> NoReturn:
    """Says in the words of whoever wrote the file what `csv` found."""
    said, place = str(error), f"{path}, line {watched.start}"
    if "unexpected end of data" in said or "field larger" in said:
        raise UserError(f"{place}: a quote that opens here never closes; a quote that is part of a text is doubled.")
    if "expected after" in said:
        line = watched.lines[0].strip()
        shown = line if len(line) <= 60 else f"{line[:59]}…"
        raise UserError(
            f"{place}: a quote that opens here closes within a text or never ({shown}); a quote that is part of one is doubled."
        )
    raise UserError(f"{place}: no CSV: {said}.")


def header_of(path: Path, records: Iterator[Row]) -> list[str]:
    """The names of the columns.

    Raises:
        UserError: for two of one name, and for a caption in their place.
    """
    header = [name.strip() for name in next(records, Row(1, [], [])).fields]
    for name in header:
        if name and header.count(name) > 1:
            raise UserError(f"{path} has two columns of the name {name!r}; rename one of them.")
    if len(header) == 1 and ("," in header[0] or len(header[0].split()) > 3):
        raise UserError(f"{path} begins with {header[0]!r}, where the column's name is needed; write a first line: caption.")
    return header


def table_column(path: Path, column: str | None) -> str | None:
    """The column of the captions; None for a file without rows."""
    with closing(rows(path, column)) as records:
        header = header_of(path, records)
        if not header:
            return None
        sample = [
            (f"line {row.place}", dict.fromkeys(header) | dict(zip(header, row.fields, strict=False)))
            for row in itertools.islice(records, SAMPLED)
        ]
        if not sample:
            return None
        return choose(str(path), column, sample)


def table_records(path: Path, column: str) -> Iterator[Record]:
    """The captions of a column.

    Raises:
        UserError: for rows with more fields than the header, for typographic quotes around a text, and for a list or an object
            that is written as one.
    """
    bare = has_bare_commas(path, column)
    records = rows(path, column, bare)
    header = header_of(path, records)
    at = header.index(column)
    for row in records:
        if has_extra(row, header) or any(is_curly(text, row) for text in row.fields[at : at + 1]):
            refuse_row(path, row, header)
        text = row.fields[at] if at < len(row.fields) else None
        if text is not None and text.strip() in NULL:
            text = None
        elif text is not None and WRITTEN_OUT.fullmatch(text):
            raise UserError(f"{path}, line {row.place}: a list or an object is written as a text; save it as .jsonl instead.")
        short = 0 < len(row.fields) < len(header)
        yield Record(row.place, text and text.replace(COMMA, ","), short, bare=text is not None and COMMA in text)


def has_extra(row: Row, header: list[str]) -> bool:
    """Whether a row has more fields than the header, with anything in them."""
    return any(text.strip() for text in row.fields[len(header) :])


def has_bare_commas(path: Path, column: str) -> bool:
    """Whether the texts have commas that no quotes hold, and yet can be told apart.

    That is where the captions are the first column, so that no field before them can take a part of them, and where no row
    has too many fields if a comma before a space is part of a text.
    """

    def too_long(bare: bool) -> bool:
        with closing(rows(path, column, bare)) as records:
            header = header_of(path, records)
            return any(has_extra(row, header) for row in records)

    with closing(rows(path, column)) as records:
        if header_of(path, records).index(column) != 0:
            return False
    return too_long(bare=False) and not too_long(bare=True)


def is_curly(text: str, row: Row) -> bool:
    """Whether a text stands in typographic quotes, and in no others."""
    text = text.strip()
    return len(text) > 1 and text[0] in OPENING and text[-1] in CLOSING and not any(f'"{text[0]}' in line for line in row.lines)


def refuse_row(path: Path, row: Row, header: list[str]) -> NoReturn:
    """Says what is wrong with a row."""
    place = f"{path}, line {row.place}"
    starts = [text[0] for text in row.fields if text and text[0] in OPENING]
    if starts and not any(f'"{start}' in line for line in row.lines for start in starts):
        raise UserError(f'{place}: its quotes are typographic ({starts[0]}), as word processors write them; use " instead.')
    names = f"{len(header)} name{'s' * (len(header) > 1)}"
    raise UserError(f"{place}: {len(row.fields)} fields under {names}; put a text that has commas of its own in quotes.")
