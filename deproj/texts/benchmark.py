"""The six benchmark prompts: three as plain text, and the same three with commas between their parts."""

from __future__ import annotations

import re

__all__ = ["COMMAS", "COMPOSED", "PROMPTS", "SINGLE", "is_benchmark", "parts_of", "plain", "seeds", "words_of"]

#: What parts a composed prompt: the comma, and those of Japanese and Chinese.
COMMAS = ",、，"

SINGLE = ("cat maid", "1girl red hair blue eye black skirt", "1boy 1girl in class room")
COMPOSED = ("cat, maid", "1girl, red hair, blue eye, black skirt", "1boy, 1girl, in class room")
#: The columns of every sheet.
PROMPTS = SINGLE + COMPOSED


def seeds(first: int = 0) -> list[int]:
    """Seeds for the pictures of `PROMPTS`: a composed prompt is drawn from the same noise as its plain one."""
    return [first + number for number in range(len(SINGLE))] * 2


def parts_of(text: str) -> list[str]:
    """The parts of a composed prompt, between its commas."""
    return [part for piece in re.split(f"[{COMMAS}]", text) if (part := piece.strip())]


def plain(text: str) -> str:
    """A composed prompt as one plain text: without its commas."""
    return " ".join(" ".join(parts_of(text)).split())


def words_of(text: str) -> str:
    """The words of a text in lower case, whatever stands between them."""
    return plain(text).lower()


def is_benchmark(text: str) -> bool:
    """Whether a text has the words of a benchmark prompt; none of these is trained on."""
    return words_of(text) in WORDS


#: The words of the benchmark prompts.
WORDS = frozenset(map(words_of, SINGLE))
