"""``metrics.csv``: what is logged in a run, a row a time."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from deproj.process.files import write_whole
from deproj.runs.folder import first_epoch
from deproj.training.dashboards import from_one

__all__ = ["MetricsFile"]

#: Columns, before those of the measures.
FIRST = ("epoch", "step", "train/loss", "train/epoch_loss", "val/loss", "learning_rate")


class MetricsFile(Logger):
    """``metrics.csv``: a row for each time that something is logged.

    Lightning's own CSVLogger deletes the rows of the run that it goes on with, and has them back only with the next ones.

    Args:
        path: of the file. What it holds already is kept, but for a row that was cut short.
        steps: that the run has behind it; later rows are dropped.
    """

    def __init__(self, path: Path, steps: int) -> None:
        super().__init__()
        self.path = path
        self.rows = [row for row in self.read() if int(row["step"]) < steps]  # that the file doesn't hold yet, or is to keep
        self.written: list[str] = []  # columns of the file, once it holds no more than it should

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *_: Any, **__: Any) -> None:
        pass  # config.yaml holds them

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.rows.append({name: str(value) for name, value in from_one(metrics).items()} | {"step": str(step)})

    def read(self) -> list[dict[str, str]]:
        """The whole rows of the file."""
        if not self.path.exists():
            return []
        whole = self.path.read_text(encoding="utf-8").rpartition("\n")[0]
        rows = [row for row in csv.DictReader(io.StringIO(whole), restkey="more") if whole_row(row)]
        first = first_epoch(rows)
        return [row | {"epoch": str(int(row["epoch"]) + 1 - first)} if row.get("epoch") else row for row in rows]

    @rank_zero_only
    def save(self) -> None:
        """Appends the new rows; writes the file anew, whole or not at all, where they bring new columns."""
        if not self.rows:
            return
        names = {*self.written, *(name for row in self.rows for name in row)}
        columns = [*(name for name in FIRST if name in names), *sorted(names.difference(FIRST))]
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        if columns == self.written:
            writer.writerows(self.rows)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(text.getvalue())
        else:
            writer.writeheader()
            writer.writerows([*(self.read() if self.written else []), *self.rows])
            write_whole(self.path, text.getvalue())
        self.written, self.rows = columns, []


def whole_row(row: dict[str, Any]) -> bool:
    """Whether a row of metrics.csv has a step and as many fields as there are columns."""
    return str(row.get("step")).isdigit() and "more" not in row and None not in row.values()
