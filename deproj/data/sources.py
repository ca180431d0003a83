"""Where texts come from, and which of them are held out."""

from __future__ import annotations

import hashlib
import itertools
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol

from deproj.data.captions.open import Captions, read_captions
from deproj.data.seen import Sight, words_seen
from deproj.pixel import grammar
from deproj.pixel.scenes import ATTRIBUTES
from deproj.process.errors import UserError
from deproj.selection import PLACES
from deproj.texts.benchmark import COMMAS, SINGLE, is_benchmark, plain

__all__ = ["GrammarPrompts", "Judge", "ListedPrompts", "PromptSource", "open_prompts"]

Judge = Callable[[str], bool]


class PromptSource(ABC):
    """Texts to train on and texts that are held out, the same ones whatever the seed."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A hash that changes when the texts do."""

    @abstractmethod
    def held_out(self, text: str) -> bool:
        """Whether a text must not be trained on."""

    @abstractmethod
    def training(self, seed: int) -> Iterator[str]:
        """Endless texts, none of them held out."""

    @abstractmethod
    def testing(self, seed: int) -> Iterator[str]:
        """Endless held-out texts, for the loss that chooses the weights which are kept."""

    def measuring(self, seed: int) -> Iterator[str]:
        """Endless held-out texts to measure the chosen weights on: others, where there are enough."""
        return self.testing(seed)

    def seen_by(self, sight: Sight) -> PromptSource:
        """The same texts, held out by what an encoder sees of them, where that decides."""
        return self

    @property
    def said(self) -> str | None:
        """What was read, in a line; None where nothing was."""
        return None

    def trained_on(self, texts: Iterable[str]) -> list[str]:
        """Those of the texts that may have been trained on."""
        return [text for text in texts if not self.held_out(text)]

    def composed(self, count: int, seed: int) -> list[str]:
        """Up to `count` different held-out texts with commas between their parts; without the commas they are held out too.

        A text that has no comma of its own gets one at the space nearest to its middle.
        """
        found: dict[str, None] = {}
        for text in itertools.islice(self.measuring(seed), 20 * count):
            text = " ".join(text.split())
            if not any(comma in text for comma in COMMAS):
                spaces = [k for k, letter in enumerate(text) if letter == " "]
                if not spaces:
                    continue
                cut = min(spaces, key=lambda k: abs(k - len(text) / 2))
                text = f"{text[:cut]},{text[cut:]}"
            if self.held_out(plain(text)):  # an encoder may see other tokens where a comma goes
                found[text] = None
            if len(found) == count:
                break
        return list(found)


@dataclass(frozen=True)
class GrammarPrompts(PromptSource):
    """Captions by the pixel world's grammar. Held out are those that `grammar.held_out` names, and the benchmark prompts."""

    @property
    def fingerprint(self) -> str:
        """A hash of what the grammar produces: of its first texts, trained on and held out, and its attributes."""
        said = [*itertools.islice(self.training(0), 1000), *grammar.held_out_prompts(100), repr(ATTRIBUTES)]
        return "grammar-" + hashlib.blake2b("\n".join(said).encode(), digest_size=16).hexdigest()

    def held_out(self, text: str) -> bool:
        return is_benchmark(text) or grammar.held_out(text)

    def training(self, seed: int) -> Iterator[str]:
        return (text for text in grammar.training_texts(seed) if not self.held_out(text))

    def testing(self, seed: int) -> Iterator[str]:
        for turn in itertools.count():
            yield from grammar.held_out_prompts(1000, seed + 7919 * turn)

    def composed(self, count: int, seed: int) -> list[str]:
        return grammar.held_out_prompts(count, 1_000_003 + seed, ", ")


class Blocks(Protocol):
    """Texts in blocks, each small enough for memory, which are read again and again."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> Sequence[str]: ...


class Counted(NamedTuple):
    """What one pass over all texts finds.

    Attributes:
        digest: of the texts.
        sides: of every text, by block: `TRAINED`, `TESTED` or `MEASURED`.
        halved: whether held-out texts are for testing or for measuring; else each is for both.
        long, longest: texts of more than 77 tokens, and the tokens of the longest text.
    """

    digest: str
    sides: list[bytes]
    halved: bool
    long: int
    longest: int


#: What a text is for: half of the held-out ones chooses the weights, half measures them.
TRAINED, TESTED, MEASURED = range(3)


class ListedPrompts(PromptSource):
    """Texts of a file or data set, which may be larger than memory. A tenth, chosen by a hash of what is seen of each text,
    is held out: half of it for the loss that chooses the weights, half to measure these on (all of it for both, where either
    would be none). So texts that look alike to the encoder lie on one side.

    Their order is a function of the seed: blocks are read in random order, and as many as hold `WINDOW` letters are
    shuffled together. So a share of the texts comes from everywhere in the file, and no more than a window is in memory.

    Args:
        blocks: of the texts.
        name: for messages.
        sight: what is seen of a text.
        captions: what was counted while the texts were read.
    """

    WINDOW = 2_000_000

    def __init__(self, blocks: Blocks, name: str, sight: Sight = words_seen, captions: Captions | None = None) -> None:
        self.blocks, self.name, self.sight, self.captions = blocks, name, sight, captions
        self.benchmark = {seen.key for seen in sight(SINGLE)}

    def seen_by(self, sight: Sight) -> ListedPrompts:
        return ListedPrompts(self.blocks, self.name, sight, self.captions)

    @cached_property
    def counted(self) -> Counted:
        """What one pass over all texts finds; it is made once.

        Raises:
            UserError: where all texts are held out, or none.
        """
        digest, sides = hashlib.blake2b(digest_size=16), []
        long = longest = 0
        for number in range(len(self.blocks)):
            texts = self._read(number)
            for text in texts:
                digest.update(text.encode() + b"\0")
            seen = self.sight(texts)
            sides.append(bytes(map(self._side, texts, (one.key for one in seen))))
            long += sum(one.tokens > PLACES for one in seen)
            longest = max([longest, *(one.tokens for one in seen)])
        count = sum(map(len, sides))
        kept, measured = count - sum(side.count(TRAINED) for side in sides), sum(side.count(MEASURED) for side in sides)
        if not count:
            raise UserError(f"{self.name} holds no texts.")
        if kept in (0, count):
            raise UserError(
                f"{self.name} has {count} texts, {kept} of them held out (a tenth, by hash); both kinds are needed: give more "
                "texts."
            )
        return Counted(digest.hexdigest(), sides, measured not in (0, kept), long, longest)

    @property
    def fingerprint(self) -> str:
        return "seen-" + self.counted.digest

    @property
    def said(self) -> str | None:
        if self.captions is None:
            return None
        self.captions.reading.long, self.captions.reading.longest = self.counted.long, self.counted.longest
        return str(self.captions)

    def texts(self) -> Iterator[str]:
        """All texts, as they stand."""
        for number in range(len(self.blocks)):
            yield from self._read(number)

    def _read(self, number: int) -> list[str]:
        return [text for line in self.blocks[number] if (text := line.strip())]

    def _side(self, text: str, key: bytes) -> int:
        """What a text is for, by two bytes of the hash of what is seen of it."""
        held, half = hashlib.blake2b(key).digest()[:2]
        if not (held * 10 < 256 or key in self.benchmark or is_benchmark(text)):
            return TRAINED
        return MEASURED if half < 128 else TESTED

    def held_out(self, text: str) -> bool:
        return self._side(text, self.sight([text])[0].key) != TRAINED

    def trained_on(self, texts: Iterable[str]) -> list[str]:
        asked = {seen.key: text for text, seen in zip(given, self.sight(given), strict=True)} if (given := list(texts)) else {}
        asked = {key: text for key, text in asked.items() if self._side(text, key) == TRAINED}
        known = {seen.key for number in range(len(self.blocks)) for seen in self.sight(self._read(number)) if seen.key in asked}
        return [text for key, text in asked.items() if key in known]

    def _shuffled(self, sides: Collection[int], seed: int) -> Iterator[str]:
        """Endless texts of these sides."""
        for turn in itertools.count():
            rng = random.Random(f"{seed} {turn}")
            order = list(range(len(self.blocks)))
            rng.shuffle(order)
            window: list[str] = []
            letters = 0
            for number, block in enumerate(order, 1):
                read = [text for text, side in zip(self._read(block), self.counted.sides[block], strict=True) if side in sides]
                window += read
                letters += sum(map(len, read))
                if letters >= self.WINDOW or number == len(order):
                    rng.shuffle(window)
                    yield from window
                    window, letters = [], 0

    def training(self, seed: int) -> Iterator[str]:
        return self._shuffled((TRAINED,), seed)

    def testing(self, seed: int) -> Iterator[str]:
        return self._shuffled((TESTED,) if self.counted.halved else (TESTED, MEASURED), seed)

    def measuring(self, seed: int) -> Iterator[str]:
        return self._shuffled((MEASURED,) if self.counted.halved else (TESTED, MEASURED), seed)


def open_prompts(prompts: str, column: str | None = None, marks: str = "keep", folder: Path | None = None) -> PromptSource:
    """``grammar``, the path of a file or folder, a pattern of shards, or ``hub:owner/name``, to a source.

    Args:
        column: of the captions, where there are columns; None finds it.
        marks: whether the web's marks are kept or stripped.
        folder: of the temporary file that captions are copied to.

    Raises:
        UserError: for what can't be read (`deproj.data.captions`).
    """
    if prompts == "grammar":
        if column is not None:
            raise UserError("data.prompts=grammar has no columns; leave data.column out.")
        return GrammarPrompts()
    captions = read_captions(prompts, column, marks, folder)
    return ListedPrompts(captions.blocks, captions.reading.name, captions=captions)
