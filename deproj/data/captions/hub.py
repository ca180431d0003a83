"""Data sets on the Hub, their ``train`` split, a thousand rows at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from deproj.data.captions.columns import MISSING, SAMPLED, choose, field, texts_of
from deproj.data.captions.reading import Record
from deproj.process.errors import UserError

__all__ = ["HubCaptions"]

#: Rows that are read at once.
AT_ONCE = 1000


class HubCaptions:
    """The captions of a data set, which `datasets` downloads and keeps in memory maps.

    Raises:
        UserError: without that package, for a data set that can't be had, and for a wrong column.
    """

    def __init__(self, name: str, column: str | None) -> None:
        if not re.fullmatch(r"[\w-][\w.-]*(?:/[\w-][\w.-]*)?", name):
            raise UserError(f"hub:{name} names no data set; write hub:owner/name.")
        try:
            from datasets import load_dataset  # an extra
        except ImportError:
            raise UserError("hub data sets need the package datasets: pip install 'deproj[data]'.") from None
        try:
            data: Any = load_dataset(name, split="train")
        except Exception as error:  # of the network, the Hub, and whatever the files are read with
            raise UserError(f"no data set {name!r}: {type(error).__name__}: {str(error)[:200]}") from None
        self.name = name
        textual = [key for key, kind in data.features.items() if not type(kind).__name__.startswith(("Image", "Audio", "Video"))]
        sample = data.select_columns(textual)[:SAMPLED]
        count = min(len(data), SAMPLED)
        self.column = choose(name, column, [(f"row {k + 1}", {key: sample[key][k] for key in textual}) for k in range(count)])
        self.rows = data.select_columns([self.column if self.column in textual else self.column.partition(".")[0]])

    def __iter__(self) -> Iterator[Record]:
        for start in range(0, len(self.rows), AT_ONCE):
            block = self.rows[start : start + AT_ONCE]
            for k in range(min(AT_ONCE, len(self.rows) - start)):
                number = start + k + 1
                value = field({key: values[k] for key, values in block.items()}, self.column)
                texts = [None] if value is MISSING else texts_of(value, f"{self.name}, row {number}: the column {self.column!r}")
                for text in texts:
                    yield Record(number, text)
