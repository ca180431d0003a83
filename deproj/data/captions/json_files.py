"""``.jsonl``, an object a line, and ``.json``, one document, read piece by piece."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from deproj.data.captions.columns import KNOWN, MISSING, SAMPLED, choose, field, texts_of, wrong_column
from deproj.data.captions.json_lines import DECODER, ERRORS, Row, TwoOfOneName, is_certain, is_cut, line_rows, reason
from deproj.data.captions.reading import Record
from deproj.data.captions.text_files import kind_of, open_text
from deproj.data.captions.values import described, listed, sort_of
from deproj.process.errors import UserError

__all__ = ["document_column", "document_records"]

#: Letters that are read of a document at once.
PIECE = 1 << 16


class Document:
    """A JSON document, decoded piece by piece, so that no more than one element and a piece of the file is in memory."""

    def __init__(self, file: TextIO, path: Path) -> None:
        self.file, self.path = file, path
        self.text, self.at, self.ended = "", 0, False
        self.line, self.counted = 1, 0  # of the line that this place of the text is in

    def _more(self) -> bool:
        """Reads on, and forgets what was passed."""
        self.line, self.counted = self.place, 0
        # as much again as there is, so that an element of any length is tried few times
        piece = self.file.read(max(PIECE, len(self.text) - self.at))
        self.text, self.at, self.ended = self.text[self.at :] + piece, 0, not piece
        return bool(piece)

    @property
    def place(self) -> int:
        """The number of the line."""
        self.line += self.text.count("\n", self.counted, self.at)
        self.counted = self.at
        return self.line

    def peek(self) -> str:
        """The next character that is no space; nothing at the end."""
        while True:
            while self.at < len(self.text):
                if self.text[self.at] not in " \t\r\n":
                    return self.text[self.at]
                self.at += 1
            if not self._more():
                return ""

    def take(self, signs: str) -> str:
        """Passes one of these characters."""
        found = self.peek()
        if not found or found not in signs:
            raise self.wrong(f"{' or '.join(signs)} is needed, not {found}" if found else "")
        self.at += 1
        return found

    def wrong(self, why: str, ahead: int = 0) -> UserError:
        """What is wrong here, or so many letters ahead; without a reason, that the document ends."""
        place = f"{self.path}, line {self.place + self.text.count(chr(10), self.at, self.at + ahead)}"
        return UserError(f"{place} is not JSON: {why}." if why else f"{place}: the document is cut off; the file is not whole.")

    def value(self) -> Any:
        """Passes a value and returns it."""
        self.peek()
        while True:
            try:
                value, end = DECODER.raw_decode(self.text, self.at)
                if end < len(self.text) or self.ended:  # a number at the end of a piece may go on
                    self.at = end
                    return value
            except TwoOfOneName as error:
                raise self.wrong(str(error)) from None
            except ERRORS as error:
                if self.ended or is_certain(error):
                    ahead = error.pos - self.at if isinstance(error, json.JSONDecodeError) else 0
                    raise self.wrong("" if is_cut(error) else reason(error), ahead) from None
            self._more()

    def elements(self) -> Iterator[Row]:
        """Passes a list, element by element."""
        self.take("[")
        if self.peek() == "]":
            self.at += 1
            return
        while True:
            self.peek()
            place = self.place
            yield Row(place, self.value())
            if self.take(",]") == "]":
                return
            if self.peek() == "]":
                raise self.wrong("a comma with nothing behind it, before ]")

    def names(self) -> Iterator[str]:
        """Passes an object; whoever asks passes the value after each name."""
        self.take("{")
        if self.peek() == "}":
            self.at += 1
            return
        while True:
            if self.peek() != '"':
                found = self.peek()
                raise self.wrong(f'a name in " is needed, not {found}' if found else "")
            name = self.value()
            self.take(":")
            yield name
            if self.take(",}") == "}":
                return


class Member(NamedTuple):
    """A member of a document that is one object: its name and what it is, a list of so many elements or another value.

    An object whose names are numbers is a list too: the column of a data frame, as pandas writes one.
    """

    name: str
    kind: str
    size: int


def members(path: Path) -> tuple[list[Member], bool]:
    """The members of the object that a document is, and whether nothing follows it."""
    with open_text(path) as file:
        document = Document(file, path)
        found = []
        for name in document.names():
            if document.peek() == "[":
                found.append(Member(name, "list", sum(1 for _ in document.elements())))
            else:
                value = document.value()
                column = isinstance(value, dict) and value and all(key.isdecimal() for key in value)
                found.append(Member(name, "list", len(value)) if column else Member(name, type(value).__name__, 1))
        alone = not document.peek()
        if alone and len(names := Counter(member.name for member in found)) < len(found):
            raise UserError(f"{path} has two members of the name {names.most_common(1)[0][0]!r}; rename one of them.")
        return found, alone


def member_rows(path: Path, chosen: str | None) -> Iterator[Row]:
    """The elements of one member of the object that a document is; with None each member's value, but for lists."""
    with open_text(path) as file:
        document = Document(file, path)
        for name in document.names():
            if name == chosen and document.peek() == "{":
                for _ in document.names():  # of a data frame's column, by the rows' numbers
                    place = document.place
                    yield Row(place, document.value())
            elif name == chosen:
                yield from document.elements()
            elif document.peek() == "[":
                for _ in document.elements():
                    pass
            else:
                value = document.value()
                if chosen is None:
                    yield Row(document.place, value)


def top(path: Path) -> str:
    """The first character of a document."""
    with open_text(path) as file:
        return Document(file, path).peek()


def list_rows(path: Path) -> Iterator[Row]:
    """The elements of the list that a document is."""
    with open_text(path) as file:
        document = Document(file, path)
        yield from document.elements()
        if document.peek():
            raise document.wrong("nothing may follow the list")


def rows_of(path: Path, column: str | None) -> tuple[Iterator[Row], str | None]:
    """The rows of a file, and the column in them that is asked for.

    A document is a list of rows; an object of one such list (COCO's is ``annotations``); an object whose members are the
    rows, by some name; or, as in a ``.jsonl``, an object after the other.

    Raises:
        UserError: for an object that may be meant in several ways.
    """
    if kind_of(path) == ".jsonl" or not (start := top(path)):
        return line_rows(path), column
    if start == "[":
        return list_rows(path), column
    if start != "{":
        return line_rows(path), column
    found, alone = members(path)
    if not alone:
        return line_rows(path), column
    lists = [member.name for member in found if member.kind == "list" and member.size]
    if "annotations" in lists:
        return member_rows(path, "annotations"), column
    known = [name for name in lists if name.lower() in KNOWN]
    if column in lists or (column is None and len(known) == 1):
        return member_rows(path, column or known[0]), None
    if len(found) > 1 and all(member.kind == "dict" for member in found):
        return member_rows(path, None), column
    if len(lists) == 1:
        return member_rows(path, lists[0]), column
    if lists:
        raise UserError(f"{path} holds several lists; name the captions' by data.column=: {listed(lists)}.")
    if column is None and len(found) > 1 and all(member.kind == "str" for member in found):
        return member_rows(path, None), None  # captions by their pictures' names
    return whole_row(path), column


def whole_row(path: Path) -> Iterator[Row]:
    """The object that a document is, as one row."""
    with open_text(path) as file:
        yield Row(1, Document(file, path).value())


def document_column(path: Path, column: str | None) -> str | None:
    """The column of the captions; None where the rows are texts themselves, and for an empty file.

    Raises:
        UserError: for rows that are neither objects nor texts.
    """
    found, asked = rows_of(path, column)
    with closing(found) as records:  # type: ignore[type-var]
        sample = [row for row in itertools.islice(records, SAMPLED) if row.value is not None]
    if all(isinstance(row.value, (str, list)) for row in sample):
        if asked is not None and sample:
            raise wrong_column(path, asked, ())
        check_rows(path, sample)
        return None
    for row in sample:
        if not isinstance(row.value, dict):
            where = f"{path}, line {row.place}"
            raise UserError(f"{where} is {described(row.value)}, where an object with the captions' column is needed.")
    return choose(str(path), asked, [(f"line {row.place}", row.value) for row in sample])


def check_rows(path: Path, sample: list[Row]) -> None:
    """Refuses rows without columns that hold no captions, as numbers or pairs of a picture's name and its caption."""
    for row in sample:
        where = f"{path}, line {row.place}"
        if isinstance(row.value, list) and any(isinstance(one, dict) for one in row.value):
            raise UserError(f"{where} is a list of objects; a document that is one list ends its name in .json.")
        if isinstance(row.value, list) and len(row.value) > 1 and any(isinstance(v, str) and sort_of(v) for v in row.value):
            raise UserError(f"{where} is a list of a caption and something else; write objects with a name for each.")
    texts = [(row.place, text) for row in sample for text in texts_of(row.value, f"{path}, line {row.place}") if text]
    if texts and None not in (sorts := [sort_of(text) for _, text in texts]):
        raise UserError(f"{path}, line {texts[0][0]} holds {sorts[0]} ({texts[0][1]}), where texts are needed.")


def document_records(path: Path, column: str | None, chosen: str | None) -> Iterator[Record]:
    """The captions of a file.

    Args:
        column: as it was asked for.
        chosen: of `document_column`.
    """
    for row in rows_of(path, column)[0]:
        where = f"{path}, line {row.place}"
        if chosen is None or row.value is None:
            value = row.value
        elif not isinstance(row.value, dict):
            raise UserError(f"{where} is {described(row.value)}, where an object with the column {chosen!r} is needed.")
        else:
            value = field(row.value, chosen)
            where += f": the column {chosen!r}"
        if value is MISSING:
            yield Record(row.place, None)
            continue
        for text in texts_of(value, where):
            yield Record(row.place, text)
