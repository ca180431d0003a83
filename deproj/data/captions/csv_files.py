"""``.csv`` and ``.tsv``: rows whose fields stand under the header's names, or a refusal with the line's number."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import NoReturn

from deproj.data.captions.columns import KNOWN, SAMPLED, choose
from deproj.data.captions.headers import SEPARATORS, Row, check_header, check_separator, header_of
from deproj.data.captions.reading import Record
from deproj.data.captions.text_files import kind_of, open_text
from deproj.data.captions.values import is_nothing
from deproj.process.errors import UserError

__all__ = ["table_column", "table_records"]

#: What Excel takes for a separator that is named in the first line.
NAMED = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
#: Quotes that are no quotes of CSV: a word processor's, and those of other programs.
OPENING, CLOSING = "“„‟«‘‚”＂″〝'`", "”“»‟’‘\"＂″〞'`"
#: Letters of one field at most; a quote that never closes takes in no more than these.
MOST = 1 << 24
csv.field_size_limit(MOST)
#: Stands for a comma that is part of a text, while `csv` reads; no text has this letter, which Unicode never assigns.
COMMA = "\ufdd0"


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
            found[separator] = [name.strip() for name in next(parsed(Watched(iter([header])), separator), [])]
        except csv.Error:  # a quote that doesn't fit
            continue
    for wanted in ({column}, set(KNOWN)):
        if with_it := {separator: names for separator, names in found.items() if wanted.intersection(names)}:
            found = with_it
            break
    return max(found, key=lambda separator: len(found[separator]), default=",")


def refuse(path: Path, watched: Watched, error: csv.Error) -> NoReturn:
    """Says in the words of whoever wrote the file what `csv` found."""
    said, place = str(error), f"{path}, line {watched.start}"
    if "field larger" in said and len(watched.lines) == 1:
        raise UserError(f"{place}: a field of more than {MOST:,} letters, which is no caption; part it into captions.")
    if "unexpected end of data" in said or "field larger" in said:
        raise UserError(f"{place}: a quote that opens here never closes; a quote that is part of a text is doubled.")
    if "expected after" in said:
        line = watched.lines[0].strip()
        shown = line if len(line) <= 60 else f"{line[:59]}…"
        raise UserError(
            f"{place}: a quote that opens here closes within a text or never ({shown}); a quote that is part of one is doubled."
        )
    raise UserError(f"{place}: no CSV: {said}.")


def table_column(path: Path, column: str | None) -> str | None:
    """The column of the captions; None for a file without rows."""
    with closing(rows(path, column)) as records:
        header = header_of(path, records)
        if not header:
            return None
        found = [row._replace(lines=[]) for row in itertools.islice(records, SAMPLED)]
    if not found:
        return None
    check_separator(path, header, found)
    empty = dict.fromkeys(header)
    sample = [(f"line {row.place}", empty | dict(zip(header, row.fields, strict=False))) for row in found]
    chosen = choose(str(path), column, sample)
    if column is None:
        check_header(path, header, chosen, found)
    return chosen


def table_records(path: Path, column: str) -> Iterator[Record]:
    """The captions of a column.

    Raises:
        UserError: for rows with more fields than the header, and for typographic quotes around a text.
    """
    bare = has_bare_commas(path, column)
    records = rows(path, column, bare)
    header = header_of(path, records)
    at = header.index(column)
    for row in records:
        if has_extra(row, header) or any(is_curly(text, row) for text in row.fields[at : at + 1]):
            refuse_row(path, row, header)
        text = row.fields[at] if at < len(row.fields) else None
        if is_nothing(text):
            text = None
        short = 0 < len(row.fields) < len(header)
        yield Record(row.place, text and text.replace(COMMA, ","), short, bare=text is not None and COMMA in text)


def has_extra(row: Row, header: list[str]) -> bool:
    """Whether a row has more fields than the header, with anything in them."""
    return any(text.strip() for text in row.fields[len(header) :])


def has_bare_commas(path: Path, column: str) -> bool:
    """Whether the texts have commas that no quotes hold, and yet can be told apart.

    That is where the captions are the first column, so that no field before them can take a part of them, where no row has too
    many fields if a comma before a space is part of a text, and where no such comma parts the header's names.
    """

    def too_long(bare: bool) -> bool:
        with closing(rows(path, column, bare)) as records:
            header = header_of(path, records)
            return any(has_extra(row, header) for row in records)

    with closing(rows(path, column)) as records:
        if header_of(path, records).index(column) != 0:
            return False
    with closing(rows(path, column)) as records:
        if any(", " in line for line in next(records).lines):
            return False
    return too_long(bare=False) and not too_long(bare=True)


def is_curly(text: str, row: Row) -> bool:
    """Whether a text stands in quotes that are none of CSV, or begins with one that isn't closed, and in no others."""
    text = text.strip()
    if len(text) < 2 or text[0] not in OPENING or any(f'"{text[0]}' in line for line in row.lines):
        return False
    if text[0] in "'`":  # apostrophes
        return text[-1] == text[0] and text.count(text[0]) == 2
    return text[-1] in CLOSING or not any(sign in text[1:] for sign in CLOSING)


def refuse_row(path: Path, row: Row, header: list[str]) -> NoReturn:
    """Says what is wrong with a row."""
    place = f"{path}, line {row.place}"
    starts = [text[0] for text in row.fields if text and text[0] in OPENING]
    if starts and not any(f'"{start}' in line for line in row.lines for start in starts):
        what = f"{starts[0]}, as some programs" if starts[0] in "'`" else f"typographic ({starts[0]}), as word processors"
        raise UserError(f'{place}: its quotes are {what} write them; use " instead.')
    names = f"{len(header)} name{'s' * (len(header) > 1)}"
    raise UserError(f"{place}: {len(row.fields)} fields under {names}; put a text that has commas of its own in quotes.")
