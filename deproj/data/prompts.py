"""The six benchmark prompts, and composed prompts as plain text."""

from __future__ import annotations

__all__ = ["BENCHMARK", "COMPOSED", "SINGLE", "benchmark_seeds", "plain", "words_of"]

SINGLE = ("cat maid", "1girl red hair blue eye black skirt", "1boy 1girl in class room")


COMPOSED = ("cat, maid", "1girl, red hair, blue eye, black skirt", "1boy, 1girl, in class room")


def benchmark_seeds(first: int = 0) -> list[int]:
    """Seeds for the pictures of `SINGLE` and `COMPOSED`: a composed prompt is drawn from the same noise as its plain one."""
    return [first + number for number in range(len(SINGLE))] * 2


def plain(text: str) -> str:
    """A composed prompt as one plain text: without its commas."""
    return " ".join(text.replace(",", " ").split())


def words_of(text: str) -> str:
    return plain(text).lower()


BENCHMARK = {words_of(text) for text in SINGLE}
