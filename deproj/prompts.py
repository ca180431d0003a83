"""Texts: where they come from, which are held out, and how samples are mixed from them.

A sample has a *whole* text, whose states are learnt, and *parts*, whose embeddings are added as
differences to the empty prompt's: the whole itself, its two halves (split), or two texts whose
joining is the whole (combine).
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from deproj.errors import UserError

__all__ = [
    *("COMPOSED", "SINGLE", "FilePrompts", "GrammarPrompts", "HubPrompts", "Mix"),
    *("PromptSource", "Sample", "open_prompts", "plain"),
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
        """Endless held-out texts."""

    def trained_on(self, text: str) -> bool:
        """Whether a text may have been trained on."""
        return not self.held_out(text)

    def composed(self, count: int, seed: int) -> list[str]:
        """Up to `count` different held-out texts with commas between their parts; without the commas they are held out too.

        A text that has no comma of its own gets one at the space nearest to its middle.
        """
        found: dict[str, None] = {}
        for text in itertools.islice(self.testing(seed), 20 * count):
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


@dataclass(frozen=True)
class ListedPrompts(PromptSource):
    """A list of texts. A tenth, chosen by each text's own hash, is held out."""

    texts: tuple[str, ...]
    name: str

    def __post_init__(self) -> None:
        kept = sum(map(self.held_out, self.texts))
        if kept == 0 or kept == len(self.texts):
            raise UserError(
                f"{self.name} has {len(self.texts)} texts, {kept} of them held out (a tenth, by hash); "
                "both kinds are needed: give more texts."
            )

    @property
    def fingerprint(self) -> str:
        digest = hashlib.blake2b(digest_size=16)
        for text in self.texts:
            digest.update(text.encode() + b"\0")
        return "list-" + digest.hexdigest()

    def held_out(self, text: str) -> bool:
        words = words_of(text)
        return words in _BENCHMARK or hashlib.blake2b(words.encode()).digest()[0] * 10 < 256

    def trained_on(self, text: str) -> bool:
        return words_of(text) in self._words and not self.held_out(text)

    @cached_property
    def _words(self) -> set[str]:
        return set(map(words_of, self.texts))

    def _shuffled(self, texts: list[str], seed: int) -> Iterator[str]:
        for turn in itertools.count():
            random.Random(f"{seed} {turn}").shuffle(texts)
            yield from texts

    def training(self, seed: int) -> Iterator[str]:
        return self._shuffled([text for text in self.texts if not self.held_out(text)], seed)

    def testing(self, seed: int) -> Iterator[str]:
        return self._shuffled([text for text in self.texts if self.held_out(text)], seed)


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
    try:
        texts = _read(path, column or "")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start}); convert it first.") from None
    except csv.Error as error:
        raise UserError(f"{path} is not CSV: {error}.") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON in every line: {error}.") from None
    texts = [text.strip() for text in texts if text and text.strip()]
    if not texts:
        raise UserError(f"{path} holds no texts.")
    return ListedPrompts(tuple(texts), str(path))


def _read(path: Path, column: str) -> list[str]:
    if path.suffix == ".txt":
        return path.read_text("utf-8-sig").splitlines()  # Excel's byte order mark is no text
    if path.suffix == ".parquet":
        try:
            import pyarrow.parquet as parquet
        except ImportError:
            raise UserError("reading .parquet needs pyarrow: pip install 'deproj[data]'.") from None
        try:
            names = parquet.read_schema(path).names
            table = parquet.read_table(path, columns=[column]) if column in names else None
        except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
            raise UserError(f"{path} cannot be read as parquet: {error}") from None
        if table is None:
            raise UserError(wrong_column(path, column, names))
        return [str(text) for text in table[column].to_pylist() if text is not None]
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows: Iterator[dict[str, object]]
        rows = csv.DictReader(file) if path.suffix == ".csv" else (json.loads(line) for line in file if line.strip())
        texts = []
        for row in rows:
            if not isinstance(row, dict) or column not in row:
                raise UserError(wrong_column(path, column, row if isinstance(row, dict) else ()))
            texts.append("" if row[column] is None else str(row[column]))
    return texts


def wrong_column(name: object, column: str, names: object) -> str:
    listed = ", ".join(str(n) for n in names) if names else "none"  # type: ignore[attr-defined]
    return f"{name} has no column {column!r}; it has: {listed}."


def HubPrompts(name: str, column: str | None) -> ListedPrompts:
    """Texts of a data set on the Hub, its ``train`` split."""
    try:
        from datasets import load_dataset
    except ImportError:
        raise UserError("hub data sets need the package datasets: pip install 'deproj[data]'.") from None
    if column is None:
        raise UserError(f"{name} needs data.column=, the name of the texts' column.")
    try:
        rows = load_dataset(name, split="train")
    except Exception as error:
        raise UserError(f"no data set {name!r}: {type(error).__name__}: {str(error)[:200]}") from None
    if column not in rows.column_names:
        raise UserError(wrong_column(name, str(column), rows.column_names))
    texts = tuple(text for value in rows[column] if value is not None and (text := str(value).strip()))
    return ListedPrompts(texts, name)


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
