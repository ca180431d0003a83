"""Files as text: compression, encoding, lines.

One rule for lines everywhere: they end in LF, CR or CRLF, and nowhere else.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
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
)
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
                line = error.object[error.start : error.start + 200].splitlines()[0]
                break
            number += lines_in(before)
    name = "UTF-8" if encoding.startswith("utf-8") else encoding.upper()
    return UserError(f"{path} is not {name}, from line {number} on{guess(line)}; save it as UTF-8.")


def lines_in(text: str) -> int:
    return text.replace("\r\n", "\n").replace("\r", "\n").count("\n")


def guess(line: bytes) -> str:
    """What the rest of a line looks like, from the first byte that is not UTF-8 on; nothing where that can't be told."""
    if not line or not any(line):
        return ""
    high = sum(byte >= 0x80 for byte in line)
    if high * 3 < len(line):  # a letter with an accent now and then
        return " (it looks like Windows-1252, Western European)"
    for name, encoding in EASTERN:
        try:
            line[: len(line) // 2 * 2].decode(encoding)
        except UnicodeDecodeError:
            continue
        return f" (it looks like {name})"
    return ""


def line_records(path: Path) -> Iterator[Record]:
    """A caption a line."""
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            yield Record(number, line)


def whole_record(path: Path) -> Iterator[Record]:
    """The whole file as one caption, as it stands beside a picture; its lines are joined."""
    with open_text(path) as file:
        yield Record(1, " ".join(line.strip() for line in file.read().split("\n")))
