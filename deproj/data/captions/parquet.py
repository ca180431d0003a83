"""``.parquet``, a thousand rows at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deproj.data.captions.columns import MISSING, SAMPLED, choose, field, texts_of
from deproj.data.captions.reading import Record
from deproj.process.errors import UserError
from deproj.process.files import refuse_pointer

__all__ = ["parquet_column", "parquet_records"]

#: Rows that are decoded at once.
AT_ONCE = 1000


def opened(path: Path) -> Any:
    """The file as pyarrow opens it.

    Raises:
        UserError: without pyarrow, and for what is no parquet or has two columns of one name.
    """
    try:
        import pyarrow.parquet as parquet  # an extra
    except ImportError:
        raise UserError("reading .parquet needs pyarrow: pip install 'deproj[data]'.") from None
    refuse_pointer(path)
    if path.suffix.lower() != ".parquet":
        raise UserError(f"{path}: parquet is compressed within; unpack the file.")
    try:
        file = parquet.ParquetFile(path)
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        raise UserError(f"{path} cannot be read as parquet: {first_line(error)}.") from None
    names = file.schema_arrow.names
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{path} has two columns of the name {name!r}; rename one of them.")
    return file


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def rows(path: Path, wanted: list[str], at_once: int = AT_ONCE) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows with their numbers, from 1.

    Args:
        wanted: columns that are decoded.
    """
    number = 0
    with opened(path) as file:
        try:
            for batch in file.iter_batches(at_once, columns=wanted):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
        except (OSError, ValueError, NotImplementedError) as error:
            raise UserError(f"{path} cannot be read from row {number + 1} on: {first_line(error)}.") from None


def parquet_column(path: Path, column: str | None) -> str | None:
    """The column of the captions; None for a file without rows."""
    with opened(path) as file:
        schema = file.schema_arrow
        # pictures are not decoded to look for texts
        wanted = [name for name in schema.names if name == column or "binary" not in str(schema.field(name).type)]
    sample = [(f"row {number}", row) for number, row in itertools.islice(rows(path, wanted, SAMPLED), SAMPLED)]
    if not sample:
        return None
    return choose(str(path), column, [(place, dict.fromkeys(schema.names) | row) for place, row in sample])


def parquet_records(path: Path, column: str) -> Iterator[Record]:
    """The captions of a column."""
    with opened(path) as file:
        names = file.schema_arrow.names
    for number, row in rows(path, [column if column in names else column.partition(".")[0]]):
        value = field(row, column)
        if value is MISSING:
            yield Record(number, None)
            continue
        for text in texts_of(value, f"{path}, row {number}: the column {column!r}"):
            yield Record(number, text)
