"""Samples mixed from texts: as they are, split, and joined.

A sample has a *whole* text, whose states are learnt, and *parts*, whose embeddings are added as differences to the empty
prompt's: the whole itself, its two halves (split), or two texts whose joining is the whole (combine).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from deproj.data.sources import Judge, PromptSource
from deproj.process.errors import UserError

__all__ = ["Mix", "Sample"]


@dataclass(frozen=True)
class Sample:
    """A whole text and the parts its embedding is added up from (the whole alone, or two)."""

    whole: str
    parts: tuple[str, ...]


@dataclass(frozen=True)
class Mix:
    """Shares of the samples that are split and combined; the rest are texts as they are.

    Attributes:
        split, combine: 0 to 1, together at most 1.
        empty_every: one sample in so many is the empty prompt.
    """

    split: float = 0.3
    combine: float = 0.3
    empty_every: int = 10_000

    def __post_init__(self) -> None:
        if not (self.split >= 0 and self.combine >= 0 and self.split + self.combine <= 1):
            raise UserError(f"data.split and data.combine are shares, together at most 1; got {self.split} and {self.combine}.")

    def samples(self, source: PromptSource, count: int, seed: int, fits: Judge = lambda _: True) -> Iterator[Sample]:
        """`count` training samples: no part of them and no whole is held out.

        Args:
            fits: returns whether a joined text fits without being truncated; by default all do.
        """
        texts, rng = source.training(seed), random.Random(f"mix {seed}")
        for number in range(count):
            if number % self.empty_every == self.empty_every // 2:
                yield Sample("", ("",))
            else:
                yield self._draw(texts, rng, source.held_out, fits)

    def testing(self, source: PromptSource, count: int, fits: Judge = lambda _: True) -> Iterator[Sample]:
        """`count` held-out samples, the same whatever the seed; every whole is made of held-out texts."""
        texts, rng = source.testing(0), random.Random("held-out mix")
        for _ in range(count):
            yield self._draw(texts, rng, lambda _: False, fits)

    def _draw(self, texts: Iterator[str], rng: random.Random, forbidden: Judge, fits: Judge) -> Sample:
        text, kind = next(texts), rng.random()
        if kind < self.combine:
            other = next(texts)
            joined = f"{text} {other}"
            if fits(joined) and not forbidden(joined):
                return Sample(joined, (text, other))
        if kind < self.combine + self.split:
            cuts = [k for k, letter in enumerate(text) if letter == " "]
            rng.shuffle(cuts)
            for cut in cuts:
                halves = (text[:cut].strip(), text[cut + 1 :].strip())
                if all(halves) and not any(map(forbidden, halves)):
                    return Sample(text, halves)
        return Sample(text, (text,))
