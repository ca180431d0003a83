"""What a text must be, and the count of what was read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from deproj.data.captions.values import WRITTEN_OUT
from deproj.process.errors import UserError
from deproj.process.letters import check_encodable
from deproj.texts import marks

__all__ = ["Reading", "Record"]

#: What CLIP's tokenizers take for the start and the end of a text, wherever it stands.
ENDS = re.compile(r"<\|(?:startoftext|endoftext)\|>", re.IGNORECASE)
#: How a list or an object that is written as a text may begin.
WRITTEN = ("[", "{", "(", "b")
#: A byte order mark that stood at the start of a file before files were joined.
MARK = "\ufeff"


class Record(NamedTuple):
    """A caption as it stands in a file.

    Attributes:
        place: number of the line or row, from 1.
        text: None where there is none: a null, or a row that ends before its column.
        short: whether the row has fewer fields than the header.
        bare: whether the text has commas that no quotes hold.
    """

    place: int
    text: str | None
    short: bool = False
    bare: bool = False


@dataclass
class Reading:
    """What was read, counted.

    Attributes:
        name: of the file, folder, pattern or data set.
        column: of the texts; None where there are no columns.
        files: that were read, where there are several.
        strays: text files that were left out, since they stand beside no picture, where others do.
        captions: that were found.
        empty: that were left out, since nothing was in them.
        short: rows with fewer fields than the header.
        bare: texts with commas that no quotes hold.
        lines: texts of several lines, as where a quote closes lines after it opens.
        nulls: texts that U+0000 was taken out of.
        ends: texts that a start or an end token was taken out of.
        marked: texts with the web's marks; `mark` is the first one.
        long: texts of more than 77 tokens, and the `longest`, where the tokenizer has been asked.
    """

    name: str
    column: str | None = None
    files: int = 1
    strays: int = 0
    captions: int = 0
    empty: int = 0
    short: int = 0
    bare: int = 0
    lines: int = 0
    nulls: int = 0
    ends: int = 0
    marked: int = 0
    mark: str = ""
    long: int = 0
    longest: int = 0

    def clean(self, record: Record, unit: str, name: str, strip_marks: bool = False) -> str | None:
        """A record's text as it is trained on; None where nothing is in it.

        Args:
            unit, name: of the place, for messages: "line" and the file.

        Raises:
            UserError: for a text that can't be encoded, and for a list or an object that is written as one.
        """
        self.short += record.short
        self.bare += record.bare
        text = record.text or ""
        if text.lstrip()[:1] in WRITTEN and WRITTEN_OUT.fullmatch(text):
            place = f"{name}, {unit} {record.place}"
            raise UserError(f"{place}: a list or an object is written as a text; save it as .jsonl instead.")
        if "\0" in text:
            self.nulls += 1
            text = text.replace("\0", "")
        self.ends += "<|" in text and ENDS.search(text) is not None
        text = without_ends(text)
        if not text.isascii():
            check_encodable(text, f"{name}, {unit} {record.place}")
        if hints := marks.found(text):
            self.marked += 1
            self.mark = self.mark or hints[0].mark
            if strip_marks:
                text = without_ends(marks.stripped(text))  # whose brackets may have parted one
        text = text.strip().strip(MARK).strip()
        if not text or not (text.isascii() or any(letter.isprintable() and not letter.isspace() for letter in text)):
            self.empty += 1
            return None
        self.lines += "\n" in text or "\r" in text
        self.captions += 1
        return text

    def parts(self, strip_marks: bool = False) -> Iterator[str]:
        """What there is to say of it, part by part."""
        of = self.name if self.files == 1 else f"{self.name} ({self.files:,} files)"
        column = "" if self.column is None else f" (column {self.column})"
        yield f"{counted(self.captions, 'caption')} of {of}{column}"
        if self.strays:
            yield f"{counted(self.strays, 'text file')} beside no picture left out"
        if self.empty:
            yield f"{self.empty:,} empty left out"
        if self.short:
            yield f"{counted(self.short, 'row')} shorter than the header"
        if self.bare:
            yield f"{self.bare:,} with commas that no quotes hold, told from others by the space after them"
        if self.lines:
            yield f"{self.lines:,} of several lines"
        if self.nulls:
            yield f"U+0000 taken out of {self.nulls:,}"
        if self.ends:
            yield f"start and end tokens taken out of {self.ends:,}"
        if self.marked:
            what = "taken out" if strip_marks else "read as letters (data.marks=strip takes them out)"
            yield f"{self.marked:,} with the web's marks, such as {self.mark}, which are {what}"
        if self.long:
            yield f"{self.long:,} cut to 77 tokens (the longest has {self.longest:,})"

    @property
    def noteworthy(self) -> bool:
        """Whether anything was left out, taken out or cut."""
        return self.altered or any((self.strays, self.empty, self.marked, self.long))

    @property
    def altered(self) -> bool:
        """Whether there may be other texts than a file seems to hold; blank lines between texts are none."""
        empty = self.empty if self.column is not None else 0
        return any((self.short, self.bare, self.lines, self.nulls, self.ends, empty))


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def without_ends(text: str) -> str:
    """A text without start and end tokens."""
    while "<|" in text and ENDS.search(text):  # taking one out may join another
        text = ENDS.sub(" ", text)
    return text
