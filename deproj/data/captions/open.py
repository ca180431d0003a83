"""The one way in: a path, a pattern or a data set to texts that were checked, cleaned and counted."""

from __future__ import annotations

import os.path
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from deproj.data.captions.csv_files import table_column, table_records
from deproj.data.captions.folders import KINDS, files_of, is_beside_picture, pictures_in
from deproj.data.captions.hub import HubCaptions
from deproj.data.captions.json_files import document_column, document_records
from deproj.data.captions.parquet import parquet_column, parquet_records
from deproj.data.captions.reading import Reading, Record
from deproj.data.captions.spool import Spool
from deproj.data.captions.text_files import kind_of, line_records, whole_record
from deproj.process.errors import UserError

__all__ = ["KINDS", "READERS", "Captions", "read_captions"]


@dataclass(frozen=True)
class Captions:
    """Texts, and what was counted while they were read.

    Attributes:
        blocks: of the texts, each readable again and again.
    """

    blocks: Spool
    reading: Reading
    strip: bool = False

    def texts(self) -> Iterator[str]:
        for number in range(len(self.blocks)):
            yield from self.blocks[number]

    def __str__(self) -> str:
        """What was read, in a line."""
        return ", ".join(self.reading.parts(self.strip)) + "."


@dataclass(frozen=True)
class FileReader:
    """How one kind of file is read.

    Attributes:
        column: (path, the column that was asked for) to that of the captions; None where there are no columns, or no rows.
        records: (path, the column that was asked for, that of the captions) to what stands there.
        unit: what messages count in such a file.
    """

    column: Callable[[Path, str | None], str | None]
    records: Callable[[Path, str | None, str | None], Iterator[Record]]
    unit: str = "line"


def no_column(path: Path, column: str | None) -> None:
    """Refuses a column where there are none."""
    if column is not None:
        raise UserError(f"{path} has no columns; leave data.column out.")


def of_column(records: Callable[[Path, str], Iterator[Record]]) -> Callable[[Path, str | None, str | None], Iterator[Record]]:
    """Records that one column alone decides; none where a file has no rows to find it by."""
    return lambda path, asked, column: iter(()) if column is None else records(path, column)


TEXT = FileReader(no_column, lambda path, asked, column: line_records(path))
TABLE = FileReader(table_column, of_column(table_records))
JSON = FileReader(document_column, document_records)
PARQUET = FileReader(parquet_column, of_column(parquet_records), "row")
#: By the end of the name; `folders.KINDS` lists them too.
READERS = {
    ".txt": TEXT, ".caption": TEXT, ".csv": TABLE, ".tsv": TABLE, ".jsonl": JSON, ".json": JSON, ".parquet": PARQUET
}  # fmt: skip
#: A text file beside a picture is one caption.
BESIDE_A_PICTURE = FileReader(no_column, lambda path, asked, column: whole_record(path))


def read_captions(prompts: str, column: str | None = None, marks: str = "keep", folder: Path | None = None) -> Captions:
    """Reads captions, strictly and once.

    Args:
        prompts: the path of a file or a folder, a pattern of shards, or ``hub:owner/name``.
        column: of the captions, where there are columns; None finds it.
        marks: whether the web's marks are kept, or stripped.
        folder: of the temporary file that the texts are copied to.

    Raises:
        UserError: for what isn't there, holds no text, or can't be read in one way only, with the line or row.
    """
    prompts = os.path.expanduser(prompts)
    name = prompts.removeprefix("hub:")
    reading, strip = Reading(name), marks == "strip"
    captions = Captions(Spool(folder), reading, strip)

    def take(records: Iterator[Record], unit: str, name: str) -> None:
        for record in records:
            text = reading.clean(record, unit, name, strip)
            if text is not None:
                captions.blocks.add(text)

    if prompts.startswith("hub:"):
        data = HubCaptions(name, column)
        reading.column = data.column
        take(iter(data), "row", name)
    else:
        paths = files_of(prompts)
        pictures = cache(pictures_in)
        beside = [] if paths == [Path(prompts)] else [path for path in paths if is_beside_picture(path, pictures(path.parent))]
        if beside:  # a text beside no picture is a list of classes, or a note
            reading.strays = len(paths) - len(beside)
            paths = beside
        reading.files = len(paths)
        for path in paths:
            reader = READERS[kind_of(path)]
            if beside and reader is TEXT:
                reader = BESIDE_A_PICTURE
            chosen = reader.column(path, column)
            if reading.column not in (None, chosen) and chosen is not None:
                raise UserError(
                    f"{name}: the column is {reading.column!r} in some files, {chosen!r} in others; set data.column=."
                )
            reading.column = reading.column or chosen
            take(reader.records(path, column, chosen), reader.unit, str(path))
    if not reading.captions:
        raise UserError(
            f"{name} holds no texts."
            + (f" ({reading.empty:,} {'is' if reading.empty == 1 else 'are'} empty.)" if reading.empty else "")
        )
    return captions
