"""Texts of a command line, and texts that no tokenizer and no file can take."""

from __future__ import annotations

from deproj.process.errors import UserError

__all__ = ["check_encodable", "typed_text"]


def check_encodable(text: str, place: str) -> None:
    """Refuses a text with half a letter in it.

    Args:
        place: where it stands, for the message.

    Raises:
        UserError: with the place, and the byte where Python has read one from a command line that is no UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        number = ord(text[error.start])
        if 0xDC80 <= number <= 0xDCFF:
            half = f"U+{number:04X}, a lone surrogate; on a command line the byte {number - 0xDC00:#04x}, which is no UTF-8"
        else:
            half = f"U+{number:04X}, a lone surrogate"
        raise UserError(f"{place}: the text has half a letter ({half}); write the letter whole.") from None


def typed_text(argument: str) -> str:
    """A text of a command line: where the locale is ASCII, Python has left its UTF-8 undecoded."""
    try:
        return argument.encode("utf-8", "surrogateescape").decode()
    except UnicodeError:  # which `check_encodable` tells
        return argument
