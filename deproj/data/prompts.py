"""The six benchmark prompts, and composed prompts as plain text."""

from __future__ import annotations

__all__ = ["BENCHMARK", "COMPOSED", "SINGLE", "plain", "words_of"]

SINGLE = ("cat maid", "1girl red hair blue eye black skirt", "1boy 1girl in class room")


COMPOSED = ("cat, maid", "1girl, red hair, blue eye, black skirt", "1boy, 1girl, in class room")


def plain(text: str) -> str:
    """A composed prompt as one plain text: without its commas."""
    return " ".join(text.replace(",", " ").split())


def words_of(text: str) -> str:
    return plain(text).lower()


BENCHMARK = {words_of(text) for text in SINGLE}
