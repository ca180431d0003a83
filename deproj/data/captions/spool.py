"""Texts in a temporary file, in blocks that can be read again and again.

Captions are read once, strictly, from whatever they come in, and their texts are copied here. So a file that has no block
starts of its own (compressed, UTF-16, one JSON document) needs no way of its own to be read anew, and a million captions
take as little memory as ten thousand.
"""

from __future__ import annotations

import io
import tempfile
import weakref
from pathlib import Path
from typing import BinaryIO

from deproj.process.errors import UserError

__all__ = ["Spool"]

#: Ends a text; no text holds one.
END = b"\0"


class Spool:
    """Texts, added one by one and then read in blocks of about 64 KB.

    Args:
        folder: of the temporary file, which is made where the texts are more than `MEMORY` bytes; the system's where this
            one can't be written to.
    """

    SIZE = 1 << 16
    MEMORY = 1 << 20

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.file: BinaryIO = io.BytesIO()
        self.starts, self.size = [0], 0

    def add(self, text: str) -> None:
        """Appends a text.

        Raises:
            UserError: where the disk is full.
        """
        content = text.encode() + END
        if isinstance(self.file, io.BytesIO) and self.size + len(content) > self.MEMORY:
            self._move_to_disk()
        try:
            self.file.write(content)
        except OSError as error:
            raise UserError(
                f"captions are copied to a temporary file while they are read: {error.strerror}; make room."
            ) from None
        self.size += len(content)
        if self.size - self.starts[-1] >= self.SIZE:
            self.starts.append(self.size)

    def _move_to_disk(self) -> None:
        assert isinstance(self.file, io.BytesIO)
        content = self.file.getvalue()
        self.file = temporary(self.folder)
        weakref.finalize(self, self.file.close)
        self.file.write(content)

    def __len__(self) -> int:
        return len(self.starts) - (self.starts[-1] == self.size)

    def __getitem__(self, number: int, /) -> list[str]:
        end = self.starts[number + 1] if number + 1 < len(self.starts) else self.size
        self.file.seek(self.starts[number])
        texts = self.file.read(end - self.starts[number]).split(END)[:-1]
        self.file.seek(0, io.SEEK_END)
        return [text.decode() for text in texts]


def temporary(folder: Path | None) -> BinaryIO:
    """A file without a name that goes when it is closed."""
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return tempfile.TemporaryFile(dir=folder)
        except OSError:  # a cache that is shared may be read-only
            pass
    return tempfile.TemporaryFile()
