"""Where texts come from, and which of them are held out."""

from __future__ import annotations

import hashlib
import itertools
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from deproj.benchmark import is_benchmark, words_of
from deproj.data.readers import READERS, HubBlocks, LinesBlocks, ParquetBlocks
from deproj.pixel import grammar
from deproj.pixel.scenes import ATTRIBUTES
from deproj.process.errors import UserError

__all__ = ["GrammarPrompts", "Judge", "ListedPrompts", "PromptSource", "file_prompts", "hub_prompts", "open_prompts"]

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
            if "," not in text:
                spaces = [k for k, letter in enumerate(text) if letter == " "]
                if not spaces:
                    continue
                cut = min(spaces, key=lambda k: abs(k - len(text) / 2))
                text = f"{text[:cut]},{text[cut:]}"
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


class ListedPrompts(PromptSource):
    """Texts of a file or data set, which may be larger than memory. A tenth, chosen by each text's own hash, is held out:
    half of it for the loss that chooses the weights, half to measure these on (all of it for both, where either would be none).

    Their order is a function of the seed: blocks are read in random order, and as many as hold `WINDOW` letters are
    shuffled together. So a share of the texts comes from everywhere in the file, and no more than a window is in memory.

    Args:
        blocks: of the texts.
        name: for messages.

    Raises:
        UserError: where all texts are held out, or none.
    """

    WINDOW = 2_000_000

    def __init__(self, blocks: Blocks, name: str) -> None:
        self.blocks = blocks
        count = kept = measured = 0
        digest = hashlib.blake2b(digest_size=16)
        for text in self.texts():
            count += 1
            if self.held_out(text):
                kept += 1
                measured += self._measured(text)
            digest.update(text.encode() + b"\0")
        self._digest = digest.hexdigest()
        self._halved = measured not in (0, kept)
        if not count:
            raise UserError(f"{name} holds no texts.")
        if kept in (0, count):
            raise UserError(
                f"{name} has {count} texts, {kept} of them held out (a tenth, by hash); both kinds are needed: give more texts."
            )

    @property
    def fingerprint(self) -> str:
        return "halved-" + self._digest

    def texts(self) -> Iterator[str]:
        """All texts, as they stand."""
        for number in range(len(self.blocks)):
            yield from self._read(number)

    def _read(self, number: int) -> Iterator[str]:
        return (text for line in self.blocks[number] if (text := line.strip()))

    def held_out(self, text: str) -> bool:
        return is_benchmark(text) or hashlib.blake2b(words_of(text).encode()).digest()[0] * 10 < 256

    @staticmethod
    def _measured(text: str) -> bool:
        """Of a held-out text, whether it is for measuring: by another byte of its hash."""
        return hashlib.blake2b(words_of(text).encode()).digest()[1] < 128

    def trained_on(self, texts: Iterable[str]) -> list[str]:
        asked = {words_of(text): text for text in super().trained_on(texts)}
        known = {words for text in self.texts() if (words := words_of(text)) in asked}
        return [text for words, text in asked.items() if words in known]

    def _shuffled(self, wanted: Judge, seed: int) -> Iterator[str]:
        for turn in itertools.count():
            rng = random.Random(f"{seed} {turn}")
            order = list(range(len(self.blocks)))
            rng.shuffle(order)
            window: list[str] = []
            letters = 0
            for number, block in enumerate(order, 1):
                read = list(filter(wanted, self._read(block)))
                window += read
                letters += sum(map(len, read))
                if letters >= self.WINDOW or number == len(order):
                    rng.shuffle(window)
                    yield from window
                    window, letters = [], 0

    def training(self, seed: int) -> Iterator[str]:
        return self._shuffled(lambda text: not self.held_out(text), seed)

    def testing(self, seed: int) -> Iterator[str]:
        return self._shuffled(lambda text: self.held_out(text) and not (self._halved and self._measured(text)), seed)

    def measuring(self, seed: int) -> Iterator[str]:
        return self._shuffled(lambda text: self.held_out(text) and (not self._halved or self._measured(text)), seed)


def file_prompts(path: str | Path, column: str | None = None) -> ListedPrompts:
    """Texts of a file: ``.txt`` a line each; ``.csv``, ``.jsonl`` and ``.parquet`` with a column's name.

    Raises:
        UserError: for a file that is missing, empty, not UTF-8 or of another kind, or a wrong column.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no prompts file at {path}.")
    if path.suffix not in READERS:
        raise UserError(f"{path}: prompts are read from {', '.join(READERS)} files.")
    if (column is None) != (path.suffix == ".txt"):
        need = "has no columns; leave data.column out" if column else "needs data.column=, the name of the texts' column"
        raise UserError(f"{path} {need}.")
    blocks = ParquetBlocks(path, str(column)) if path.suffix == ".parquet" else LinesBlocks(path, column)
    return ListedPrompts(blocks, str(path))


def hub_prompts(name: str, column: str | None) -> ListedPrompts:
    """Texts of a data set on the Hub, its ``train`` split."""
    if column is None:
        raise UserError(f"{name} needs data.column=, the name of the texts' column.")
    return ListedPrompts(HubBlocks(name, column), name)


def open_prompts(prompts: str, column: str | None = None) -> PromptSource:
    """``grammar``, a file's path, or ``hub:owner/name``, to a source."""
    if prompts == "grammar":
        if column is not None:
            raise UserError("data.prompts=grammar has no columns; leave data.column out.")
        return GrammarPrompts()
    if prompts.startswith("hub:"):
        return hub_prompts(prompts.removeprefix("hub:"), column)
    return file_prompts(prompts, column)
