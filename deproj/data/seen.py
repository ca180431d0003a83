"""What the encoder sees of a text: the token ids that are left of it, by which held-out texts are told from others."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from deproj.clip.encoder import TextEncoder
from deproj.selection import PLACES
from deproj.texts.benchmark import COMMAS, words_of

__all__ = ["Seen", "Sight", "TokensSeen", "words_seen"]


class Seen(NamedTuple):
    """What is seen of a text.

    Attributes:
        key: the same for texts that can't be told apart, whatever commas stand in them.
        tokens: of the whole text, SOS and EOS counted; 0 where that is not known.
    """

    key: bytes
    tokens: int = 0


#: From texts to what is seen of each.
Sight = Callable[[Sequence[str]], list[Seen]]


def words_seen(texts: Sequence[str]) -> list[Seen]:
    """What any encoder sees, as far as that is known without its tokenizer: the words, in lower case, after Unicode's NFC."""
    return [Seen(words_of(unicodedata.normalize("NFC", text)).encode()) for text in texts]


class TokensSeen:
    """What one encoder sees: token ids, up to 77, after Unicode's NFC, without those of commas.

    Commas are left out so that a composed prompt is held out when its plain text is.
    """

    def __init__(self, encoder: TextEncoder) -> None:
        self.encoder = encoder
        self.commas = [letters(ids[1:-1]) for ids in encoder.token_ids([",,", *COMMAS])]

    def __call__(self, texts: Sequence[str]) -> list[Seen]:
        ids = self.encoder.token_ids([unicodedata.normalize("NFC", text) for text in texts])
        return [Seen(self.key(row), len(row)) for row in ids]

    def key(self, ids: list[int]) -> bytes:
        seen = letters(ids[1:-1] if len(ids) < PLACES else ids[1 : PLACES - 1])
        for comma in self.commas:
            seen = seen.replace(comma, "")
        return seen.encode("utf-8", "surrogatepass")


def letters(ids: Sequence[int]) -> str:
    """Token ids as a text of as many letters, which is searched faster than a list."""
    return np.asarray(ids, "<u4").tobytes().decode("utf-32-le", "surrogatepass")
