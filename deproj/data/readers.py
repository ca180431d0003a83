"""Captions of files and of data sets on the Hub, in blocks that fit memory and can be read again and again."""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from deproj.process.errors import UserError

__all__ = ["READERS", "HubBlocks", "LinesBlocks", "ParquetBlocks", "wrong_column"]


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
            import pyarrow.parquet as parquet  # an extra
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
            from datasets import load_dataset  # an extra
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


def wrong_column(name: object, column: str, names: object) -> str:
    listed = ", ".join(str(n) for n in names) if names else "none"  # type: ignore[attr-defined]
    return f"{name} has no column {column!r}; it has: {listed}."
