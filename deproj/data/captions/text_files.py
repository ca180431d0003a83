"""Files as text: compression, encoding, lines.

One rule for lines everywhere: they end in LF, CR or CRLF, and nowhere else.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from deproj.data.captions.reading import Record
from deproj.process.errors import UserError
from deproj.process.files import refuse_pointer

__all__ = ["COMPRESSED", "kind_of", "line_records", "open_text", "readable", "whole_record"]

#: Marks at the start of a file, the longer ones first, and the encoding that takes them out.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
#: How files begin that are no text, and what to do with them.
NO_TEXT = (
    (b"\x1f\x8b", "compressed by gzip; end its name in .gz"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd; end its name in .zst"),
    (b"BZh", "compressed by bzip2; end its name in .bz2"),
    (b"\xfd7zXZ", "compressed by xz; end its name in .xz"),
    (b"PK\x03\x04", "a zip archive or a spreadsheet; unpack it, or save it as CSV"),
    (b"PAR1", "parquet; end its name in .parquet"),
    (b"ARROW1", "an Arrow file; save it as parquet"),
    (b"SQLite format 3\0", "a database; save its table as CSV"),
    (b"\xd0\xcf\x11\xe0", "a document of an early Office; save it as CSV"),
    (b"{\\rtf", "a document of a word processor; save it as text"),
    (b"%PDF-", "a PDF; save its text"),
    (b"\x89PNG", "a picture; name the texts"),
    (b"\xff\xd8\xff", "a picture; name the texts"),
    (b"GIF8", "a picture; name the texts"),
)
#: How web pages begin; a server answers with one where there is no such file.
PAGES = (b"<!doctype html", b"<html")
#: A line that is no caption alone, and what the file seems to be.
NAMED_FIRST = re.compile(r"[^\t|]{1,200}\.(?:jpe?g|png|webp|gif|bmp)(?:#\d+)?\s*[\t|]", re.IGNORECASE)
#: What parts the names of columns.
PARTS = re.compile(r"[,;\t|]")
#: Encodings in which small Cyrillic letters are one byte each.
CYRILLIC = (("Windows-1251", "cp1251"), ("KOI8-R", "koi8_r"))
#: Encodings that a text in an East Asian script may have.
EASTERN = (("EUC-JP", "euc_jp"), ("Shift-JIS", "cp932"), ("GBK", "gbk"), ("Big5", "big5"), ("EUC-KR", "euc_kr"))


def open_zst(path: Path) -> Any:
    try:
        from pyarrow import CompressedInputStream, OSFile  # an extra
    except ImportError:
        raise UserError(f"reading {path} needs pyarrow: pip install 'deproj[data]', or unpack it.") from None
    return io.BufferedReader(CompressedInputStream(OSFile(str(path)), "zstd"))


#: How a compressed file is read, by the end of its name.
COMPRESSED: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": open_zst}


def kind_of(path: Path) -> str:
    """The end of a file's name in small letters, without that of its compression: ``.csv`` of ``A.CSV.GZ``."""
    return Path(path.stem if path.suffix.lower() in COMPRESSED else path.name).suffix.lower()


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns what reading may raise into the user's error.

    Raises:
        UserError: for a file that can't be opened, or is cut off or damaged where it is compressed.
    """
    try:
        yield
    except EOFError:
        raise UserError(f"{path} is cut off: its compressed content ends too early; fetch it again.") from None
    except (gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
        raise UserError(f"{path} can't be unpacked: {error}.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None


def open_bytes(path: Path) -> BinaryIO:
    """The content of a file, unpacked."""
    opener = COMPRESSED.get(path.suffix.lower())
    opened: BinaryIO = path.open("rb") if opener is None else opener(path)
    return opened


@contextmanager
def open_text(path: Path, newline: str | None = None) -> Iterator[TextIO]:
    """Opens a file as text, unpacked and decoded.

    Args:
        newline: as `io.TextIOWrapper` takes it: None turns all ends of lines into LF, "" keeps them.

    Raises:
        UserError: also while it is read, for what is no text, or in another encoding.
    """
    refuse_pointer(path)
    with readable(path):
        with open_bytes(path) as file:
            encoding = encoding_of(file.read(4096), path)
        with open_bytes(path) as file:
            try:
                yield io.TextIOWrapper(file, encoding, newline=newline)
            except UnicodeDecodeError:
                raise undecodable(path, encoding) from None


def encoding_of(head: bytes, path: Path) -> str:
    """The encoding of a file by its first bytes.

    Raises:
        UserError: for what is no text, and for UTF-16 without a mark.
    """
    for start, what in NO_TEXT:
        if head.startswith(start):
            raise UserError(f"{path} is {what}.")
    if head.lstrip().lower().startswith(PAGES):
        raise UserError(f"{path} is a web page, perhaps a server's error; fetch the file again.")
    if head[257:262] == b"ustar":
        raise UserError(f"{path} is a tar archive; unpack it.")
    for mark, encoding in MARKS:
        if head.startswith(mark):
            return encoding
    if len(head) >= 4 and head.count(0) * 4 > len(head):
        order = "little" if head[1::2].count(0) > head[::2].count(0) else "big"
        raise UserError(f"{path} looks like UTF-16 ({order}-endian) without its mark; save it as UTF-8.")
    return "utf-8"


def undecodable(path: Path, encoding: str) -> UserError:
    """Says which line can't be decoded, and what it looks like."""
    decoder = codecs.getincrementaldecoder(encoding)()
    number, line = 1, b""
    with open_bytes(path) as file:
        for part in iter(lambda: file.read(1 << 16), b""):
            try:
                before = decoder.decode(part)
            except UnicodeDecodeError as error:
                number += lines_in(error.object[: error.start].decode(encoding, "ignore"))
                line = line_around(error.object, error.start)
                break
            number += lines_in(before)
    name = "UTF-8" if encoding.startswith("utf-8") else encoding.upper()
    return UserError(f"{path} is not {name}, from line {number} on{guess(line)}; save it as UTF-8.")


def line_around(content: bytes, at: int) -> bytes:
    """The line that a byte is in, or as much of it as tells how it is encoded."""
    start = max(content.rfind(b"\n", 0, at) + 1, content.rfind(b"\r", 0, at) + 1, at - 200 + at % 2)
    end = re.compile(rb"[\r\n]").search(content, at)
    return content[start : min(end.start() if end else len(content), at + 200)]


def lines_in(text: str) -> int:
    return text.replace("\r\n", "\n").replace("\r", "\n").count("\n")


def guess(line: bytes) -> str:
    """What a line that is not UTF-8 looks like; nothing where that can't be told."""
    if not any(line):
        return ""
    if any(byte < 0x20 and byte != 9 for byte in line):  # no encoding of a byte or two a letter has these in a text
        for order, encoding in (("little", "utf-16-le"), ("big", "utf-16-be")):
            if decodes(line[: len(line) // 2 * 2], encoding):
                return f" (it looks like UTF-16, {order}-endian, without its mark)"
        return ""
    high = sum(byte >= 0x80 for byte in line)
    if high * 3 < len(line):  # a letter with an accent now and then
        signs = [sign for sign in line.decode("cp1252", "replace") if not sign.isascii()]
        western = all(sign.isalpha() or sign in "’‘“”„–—…«»°€" for sign in signs)
        return " (it looks like Windows-1252, Western European)" if western else ""
    for name, encoding in CYRILLIC:
        signs = [sign for sign in line.decode(encoding, "replace") if sign.isalpha()]
        if sum("а" <= sign <= "я" for sign in signs) * 5 > len(signs) * 4:
            return f" (it looks like {name})"
    for name, encoding in EASTERN:
        if decodes(line, encoding) or decodes(line[:-1], encoding):  # the line may be cut within a letter
            return f" (it looks like {name})"
    return ""


def decodes(line: bytes, encoding: str) -> bool:
    """Whether a line is a text in an encoding."""
    try:
        text = line.decode(encoding)
    except UnicodeDecodeError:
        return False
    halves = sum("\uff61" <= sign <= "\uff9f" for sign in text)  # which Shift-JIS makes of any high byte
    return text.isprintable() and halves * 3 < len(text)


def line_records(path: Path) -> Iterator[Record]:
    """A caption a line.

    Raises:
        UserError: for a file of another kind, by its first line or by names of pictures before the captions.
    """
    with open_text(path) as file:
        begun = False
        for number, line in enumerate(file, 1):
            if not begun and (text := line.strip()):
                begun = True
                refuse_other_kind(text, f"{path}, line {number}")
            if NAMED_FIRST.match(line):
                raise UserError(
                    f"{path}, line {number}: a picture's name stands before the caption; write a first line of names "
                    "(picture, caption) with a tab between them, and end the file's name in .tsv."
                )
            yield Record(number, line)


def refuse_other_kind(first: str, where: str) -> None:
    """Refuses a file whose first line is no caption, but of JSON or the names of columns."""
    if first in ("[", "{", "[{"):
        raise UserError(f"{where} is {first!r}, as in JSON; end the file's name in .json.")
    names = PARTS.split(first.lower())
    if set(names) & {"caption", "captions", "prompt", "prompts"} and all(name.replace("_", "").isalnum() for name in names):
        raise UserError(f"{where} is {first!r}, names of columns; end the file's name in .csv or .tsv, or take the line out.")


def whole_record(path: Path) -> Iterator[Record]:
    """The whole file as one caption, as it stands beside a picture; its lines are joined."""
    with open_text(path) as file:
        yield Record(1, " ".join(line.strip() for line in file.read().split("\n")))
