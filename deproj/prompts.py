"""Texts: where they come from, which are held out, and how samples are mixed from them.

A sample has a *whole* text, whose states are learnt, and *parts*, whose embeddings are added as
differences to the empty prompt's: the whole itself, its two halves (split), or two texts whose
joining is the whole (combine).
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import itertools
import json
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from deproj.errors import UserError

__all__ = [
    *("COMPOSED", "SINGLE", "FilePrompts", "GrammarPrompts", "HubPrompts", "Mix"),
    *("ListedPrompts", "PromptSource", "Sample", "open_prompts", "plain"),
]

SINGLE = ("cat maid", "1girl red hair blue eye black skirt", "1boy 1girl in class room")
COMPOSED = ("cat, maid", "1girl, red hair, blue eye, black skirt", "1boy, 1girl, in class room")


Judge = Callable[[str], bool]


@dataclass(frozen=True)
class Sample:
    """A whole text and the parts its embedding is added up from (the whole alone, or two)."""

    whole: str
    parts: tuple[str, ...]


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


def plain(text: str) -> str:
    """A composed prompt as one plain text: without its commas."""
    return " ".join(text.replace(",", " ").split())


def words_of(text: str) -> str:
    return plain(text).lower()


_BENCHMARK = {words_of(text) for text in SINGLE}


@dataclass(frozen=True)
class GrammarPrompts(PromptSource):
    """Captions by the pixel world's grammar. Held out is what its `grammar.held_out` says, and the benchmark prompts."""

    @property
    def fingerprint(self) -> str:
        from deproj.pixel import grammar, scenes

        sources = [Path(module.__file__ or "").read_bytes() for module in (grammar, scenes)]
        return "grammar-" + hashlib.blake2b(b"".join(sources), digest_size=16).hexdigest()

    def held_out(self, text: str) -> bool:
        from deproj.pixel import grammar

        return words_of(text) in _BENCHMARK or grammar.held_out(text)

    def training(self, seed: int) -> Iterator[str]:
        from deproj.pixel import grammar

        return (text for text in grammar.training_texts(seed) if not self.held_out(text))

    def testing(self, seed: int) -> Iterator[str]:
        from deproj.pixel import grammar

        for turn in itertools.count():
            yield from grammar.held_out_prompts(1000, seed + 7919 * turn)

    def composed(self, count: int, seed: int) -> list[str]:
        from deproj.pixel import grammar

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
        words = words_of(text)
        return words in _BENCHMARK or hashlib.blake2b(words.encode()).digest()[0] * 10 < 256

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


class Lines:
    """Lines of a UTF-8 file from a byte on.

    Attributes:
        at: the byte after the last line that was read.
    """

    def __init__(self, file: BinaryIO, start: int) -> None:
        self.file, self.at = file, start
        file.seek(start)

    def __iter__(self) -> Iterator[str]:
        for line in self.file:
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                raise UserError(f"{self.file.name} is not UTF-8 (byte {self.at + error.start}); convert it first.") from None
            self.at += len(line)
            yield text


class LinesBlocks:
    """Blocks of about 64 KB of a ``.txt``, ``.csv`` or ``.jsonl`` file, whose first bytes are found by reading it once.

    Args:
        column: of the texts, None for ``.txt``.
    """

    SIZE = 1 << 16

    def __init__(self, path: Path, column: str | None) -> None:
        self.path, self.column = path, column
        self.header: list[str] | None = None  # of a .csv
        with path.open("rb") as file:
            lines = Lines(file, len(codecs.BOM_UTF8) if file.read(3) == codecs.BOM_UTF8 else 0)  # Excel's mark is no text
            if path.suffix == ".csv":
                try:
                    self.header = next(csv.reader(iter(lines)), [])
                except csv.Error as error:
                    raise UserError(f"{path} is not CSV: {error}.") from None
            self.starts = [lines.at]
            for _ in self._records(lines):
                if lines.at - self.starts[-1] >= self.SIZE:
                    self.starts.append(lines.at)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, number: int, /) -> list[str]:
        end = self.starts[number + 1] if number + 1 < len(self.starts) else None
        texts = []
        with self.path.open("rb") as file:
            lines = Lines(file, self.starts[number])
            for text in self._records(lines):
                texts.append(text)
                if end is not None and lines.at >= end:
                    break
        return texts

    def _records(self, lines: Lines) -> Iterator[str]:
        if self.column is None:
            yield from lines
            return
        rows: Iterator[Any]
        if self.header is not None:
            if self.column not in self.header:
                raise UserError(wrong_column(self.path, self.column, self.header))
            rows = csv.DictReader(iter(lines), self.header)
        else:
            rows = (json.loads(line) for line in lines if line.strip())
        try:
            for row in rows:
                if not isinstance(row, dict) or self.column not in row:
                    raise UserError(wrong_column(self.path, self.column, row if isinstance(row, dict) else ()))
                yield "" if row[self.column] is None else str(row[self.column])
        except csv.Error as error:
            raise UserError(f"{self.path} is not CSV: {error}.") from None
        except json.JSONDecodeError as error:
            raise UserError(f"{self.path} is not JSON in every line: {error}.") from None


class ParquetBlocks:
    """The row groups of a ``.parquet`` file."""

    def __init__(self, path: Path, column: str) -> None:
        try:
            import pyarrow.parquet as parquet
        except ImportError:
            raise UserError("reading .parquet needs pyarrow: pip install 'deproj[data]'.") from None
        try:
            self.file, self.column = parquet.ParquetFile(path), column
        except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
            raise UserError(f"{path} cannot be read as parquet: {error}") from None
        if column not in (names := self.file.schema_arrow.names):
            raise UserError(wrong_column(path, column, names))

    def __len__(self) -> int:
        return int(self.file.num_row_groups)

    def __getitem__(self, number: int, /) -> list[str]:
        texts = self.file.read_row_group(number, columns=[self.column])[self.column].to_pylist()
        return [str(text) for text in texts if text is not None]


class HubBlocks:
    """Every thousand rows of a data set on the Hub, its ``train`` split, which lies in memory maps."""

    SIZE = 1000

    def __init__(self, name: str, column: str) -> None:
        try:
            from datasets import load_dataset
        except ImportError:
            raise UserError("hub data sets need the package datasets: pip install 'deproj[data]'.") from None
        try:
            self.rows, self.column = load_dataset(name, split="train"), column
        except Exception as error:
            raise UserError(f"no data set {name!r}: {type(error).__name__}: {str(error)[:200]}") from None
        if column not in self.rows.column_names:
            raise UserError(wrong_column(name, column, self.rows.column_names))
        self.rows = self.rows.select_columns([column])

    def __len__(self) -> int:
        return -(-len(self.rows) // self.SIZE)

    def __getitem__(self, number: int, /) -> list[str]:
        texts = self.rows[number * self.SIZE : (number + 1) * self.SIZE][self.column]
        return [str(text) for text in texts if text is not None]


READERS = (".txt", ".csv", ".jsonl", ".parquet")


def FilePrompts(path: str | Path, column: str | None = None) -> ListedPrompts:
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


def wrong_column(name: object, column: str, names: object) -> str:
    listed = ", ".join(str(n) for n in names) if names else "none"  # type: ignore[attr-defined]
    return f"{name} has no column {column!r}; it has: {listed}."


def HubPrompts(name: str, column: str | None) -> ListedPrompts:
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
        return HubPrompts(prompts.removeprefix("hub:"), column)
    return FilePrompts(prompts, column)


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
            fits: tells whether a joined text fits without being truncated; by default all do.
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
