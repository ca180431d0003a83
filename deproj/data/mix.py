"""Samples mixed from texts: as they are, split, and joined.

A sample has a *whole* text, whose states are learnt, and *parts*, whose embeddings are added as differences to the empty
prompt's: the whole itself, pieces of it (split), or those of two texts whose joining is the whole (combine).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from deproj.data.sources import Judge, PromptSource
from deproj.process.errors import UserError
from deproj.texts.benchmark import COMMAS

__all__ = ["MOST_PARTS", "Mix", "Sample"]

#: More would leave no words for a part of most prompts.
MOST_PARTS = 16
#: More hardly differ.
MOST_VARIANTS = 64


@dataclass(frozen=True)
class Sample:
    """A whole text and the parts its embedding is added up from (the whole alone, or several); other ways to add it up."""

    whole: str
    parts: tuple[str, ...]
    others: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Mix:
    """Shares of the samples that are split and combined; the rest are texts as they are.

    Attributes:
        split, combine: 0 to 1, together at most 1.
        parts: most parts of a sample. 2: halves of one text, or two whole texts, as in the article. Above 2 a sample has two
            to so many, as likely each; half of the texts that have commas are parted there only, and without them.
        empty_every: one sample in so many is the empty prompt.
        variants: ways in which each sample's embedding is added up; above 1 one is drawn whenever the sample is used.
    """

    split: float = 0.3
    combine: float = 0.3
    empty_every: int = 10_000
    parts: int = 2
    variants: int = 1

    def __post_init__(self) -> None:
        if not (self.split >= 0 and self.combine >= 0 and self.split + self.combine <= 1):
            raise UserError(f"data.split and data.combine are shares, together at most 1; got {self.split} and {self.combine}.")
        if not 2 <= self.parts <= MOST_PARTS:
            raise UserError(f"data.parts is 2 to {MOST_PARTS}; got {self.parts}.")
        if not 1 <= self.variants <= MOST_VARIANTS:
            raise UserError(f"data.variants is 1 to {MOST_VARIANTS}; got {self.variants}.")

    @property
    def of_one_variant(self) -> Mix:
        return replace(self, variants=1)

    @property
    def key(self) -> dict[str, Any]:
        """What names the samples in a cache; without `parts` and `variants` where they are as before there were any."""
        return {name: value for name, value in asdict(self).items() if value != {"parts": 2, "variants": 1}.get(name)}

    def samples(self, source: PromptSource, count: int, seed: int, fits: Judge = lambda _: True) -> Iterator[Sample]:
        """`count` training samples: no part of them and no whole is held out.

        Args:
            fits: returns whether a joined text fits without being truncated; by default all do.
        """
        texts, rng = source.training(seed), random.Random(f"mix {seed}")
        for number in range(count):
            if number % self.empty_every == self.empty_every // 2:
                yield Sample("", ("",), (("",),) * (self.variants - 1))
            else:
                yield self._draw(texts, rng, source.held_out, fits)

    def testing(self, source: PromptSource, count: int, fits: Judge = lambda _: True) -> Iterator[Sample]:
        """`count` held-out samples, the same whatever the seed; every whole is made of held-out texts, in one variant."""
        texts, rng, one = source.testing(0), random.Random("held-out mix"), self.of_one_variant
        for _ in range(count):
            yield one._draw(texts, rng, lambda _: False, fits)

    def _draw(self, texts: Iterator[str], rng: random.Random, forbidden: Judge, fits: Judge) -> Sample:
        text, kind = next(texts), rng.random()
        if kind < self.combine:
            other = next(texts)
            joined = f"{text} {other}"
            if fits(joined) and not forbidden(joined):
                ways = [self._way([text, other], rng, forbidden) for _ in range(self.variants)]
                return Sample(joined, ways[0], tuple(ways[1:]))
        pieces = self._way([text], rng, forbidden) if kind < self.combine + self.split else (text,)
        share = self.split / (1 - self.combine) if self.combine < 1 else 0.0
        others = [self._way([text], rng, forbidden) if rng.random() < share else (text,) for _ in range(self.variants - 1)]
        return Sample(text, pieces, tuple(others))

    def _way(self, texts: list[str], rng: random.Random, forbidden: Judge) -> tuple[str, ...]:
        """The parts that one text is split into, or that two are joined of."""
        if self.parts > 2:
            return self._parted(texts, rng, forbidden)
        return tuple(texts) if len(texts) == 2 else halves(texts[0], rng, forbidden)

    def _parted(self, texts: list[str], rng: random.Random, forbidden: Judge) -> tuple[str, ...]:
        """One text or two, each in pieces, two to `parts` in all where the texts have so many words."""
        wanted = rng.randint(2, self.parts) - len(texts) + 1  # cuts, and one
        first = rng.randint(1, wanted) if len(texts) == 2 else wanted
        counts = [first, wanted - first + 1][: len(texts)]
        return tuple(piece for text, count in zip(texts, counts, strict=True) for piece in pieces_of(text, count, rng, forbidden))


def halves(text: str, rng: random.Random, forbidden: Judge) -> tuple[str, ...]:
    """A text cut at a random space; the text itself where that can't be."""
    cuts = [k for k, letter in enumerate(text) if letter == " "]
    rng.shuffle(cuts)
    for cut in cuts:
        found = (text[:cut].strip(), text[cut + 1 :].strip())
        if all(found) and not any(map(forbidden, found)):
            return found
    return (text,)


def pieces_of(text: str, count: int, rng: random.Random, forbidden: Judge, tries: int = 4) -> tuple[str, ...]:
    """A text cut at random spaces, or at some of its commas only, into `count` pieces or as many as it has.

    Where a piece is forbidden other cuts are tried, and at last the text stays whole.
    """
    spaces = [k for k, letter in enumerate(text) if letter == " "]
    commas = [k for k, letter in enumerate(text) if letter in COMMAS]
    for _ in range(tries if count > 1 else 0):
        places = commas if commas and rng.random() < 0.5 else spaces
        cuts = sorted(rng.sample(places, min(count - 1, len(places))))
        found = tuple(
            piece
            for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)
            if (piece := text[start:end].strip(f" {COMMAS}"))
        )
        if len(found) > 1 and not any(map(forbidden, found)):
            return found
    return (text,)
