"""The folder of a run: the one place that knows the names of its files.

config.yaml          the settings, resolved              metrics.csv       what was logged
checkpoints/         best.ckpt and last.ckpt             sheets/           a picture an epoch, and best.png
deprojector/         the exported model                  evaluation.json   its measures
result.json          how the run ended                   evaluation-mean.json   composed as the mean of the parts
job.json             in a sweep: the job                 baseline.json     instead of config.yaml: a baseline
captions.json        which captions it began with        error.txt         why it failed, unless in a sweep
measured.json        instead of config.yaml: a model without a run that was measured
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf

from deproj.process.errors import UserError
from deproj.process.files import below, write_whole
from deproj.runs.records import BaselineRecord, CaptionsRecord, Evaluation, JobRecord, ModelRecord, RunResult
from deproj.settings.compose import read_config
from deproj.settings.earlier import completed

__all__ = ["RunFolder"]

Record = TypeVar("Record")


@dataclass(frozen=True, init=False)
class RunFolder:
    """A run's folder by its path. Nothing is read or written before it is asked for."""

    path: Path

    def __init__(self, path: str | Path) -> None:
        object.__setattr__(self, "path", Path(path))

    def __repr__(self) -> str:
        return f"RunFolder({self.path.as_posix()}: {self.told()})"

    def told(self) -> str:
        """What the folder holds, in a few words."""
        if self.is_baseline:
            return "a baseline"
        if self.is_measured_model:
            return "a measured model"
        if not self.is_run:
            return "no run"
        try:
            choices = self.read_config()["choices"]
            named = [str(choices["selection"]), str(choices["feed"])]
        except (UserError, KeyError, TypeError):
            return "a run whose config.yaml can't be read"
        if (result := self.finished()) is None:
            return ", ".join([*named, "unfinished"])
        epochs = f"{result.epochs} epoch{'s' * (result.epochs != 1)}"
        return ", ".join([*named, epochs, f"held-out loss {result.val_loss:.4f}"])

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    @property
    def captions(self) -> Path:
        return self.path / "captions.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def job(self) -> Path:
        return self.path / "job.json"

    @property
    def error(self) -> Path:
        return self.path / "error.txt"

    @property
    def baseline(self) -> Path:
        return self.path / "baseline.json"

    @property
    def measured(self) -> Path:
        return self.path / "measured.json"

    @property
    def lock(self) -> Path:
        return self.path / ".lock"

    @property
    def log(self) -> Path:
        return self.path / "train.log"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def last_checkpoint(self) -> Path:
        return self.checkpoints / "last.ckpt"

    @property
    def best_checkpoint(self) -> Path:
        return self.checkpoints / "best.ckpt"

    @property
    def model(self) -> Path:
        """Folder of the exported model."""
        return self.path / "deprojector"

    @property
    def best_sheet(self) -> Path:
        return self.path / "sheets" / "best.png"

    def sheet(self, epoch: int) -> Path:
        """The benchmark sheet of an epoch, counted from 1."""
        return self.path / "sheets" / f"epoch-{epoch:03d}.png"

    def evaluation(self, mean: bool = False) -> Path:
        """Measures; with `mean` those with composed prompts as the mean of their parts."""
        return self.path / ("evaluation-mean.json" if mean else "evaluation.json")

    @classmethod
    def under(cls, folder: Path) -> list[RunFolder]:
        """The runs, baselines, measured models and jobs of sweeps in a folder and below it, by path."""
        names = ("config.yaml", "baseline.json", "measured.json", "job.json")
        return [cls(path) for path in sorted({path.parent for path in below(folder) if path.name in names})]

    @property
    def is_run(self) -> bool:
        return self.config.is_file()

    @property
    def is_baseline(self) -> bool:
        return self.baseline.is_file()

    @property
    def is_measured_model(self) -> bool:
        return self.measured.is_file() and not self.is_run

    def begin(self, config: dict[str, Any]) -> None:
        """Writes the settings, and removes what an earlier end of the run has left, of fewer epochs."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_whole(self.config, OmegaConf.to_yaml(OmegaConf.create(config)))
        measured = (self.result, self.evaluation(), self.evaluation(mean=True))
        for path in (*measured, self.error, self.best_sheet, self.model / "sheet.png"):
            path.unlink(missing_ok=True)

    def write(
        self, path: Path, record: Evaluation | RunResult | BaselineRecord | ModelRecord | JobRecord | CaptionsRecord
    ) -> None:
        """Writes a record whole or not at all."""
        self.path.mkdir(parents=True, exist_ok=True)
        indent = None if isinstance(record, Evaluation) else 2
        write_whole(path, json.dumps(record.to_json(), indent=indent) + "\n")

    def read_config(self) -> dict[str, Any]:
        """The settings of the run, with what those of an earlier version stand for today.

        Raises:
            UserError: where they can't be read or aren't resolved.
        """
        return completed(read_config(self.config))

    def read_result(self) -> RunResult:
        return self._read(self.result, RunResult.from_json)

    def read_evaluation(self, mean: bool = False) -> Evaluation:
        return self._read(self.evaluation(mean), Evaluation.from_json)

    def read_baseline(self) -> BaselineRecord:
        return self._read(self.baseline, BaselineRecord.from_json)

    def read_measured(self) -> ModelRecord:
        return self._read(self.measured, ModelRecord.from_json)

    def read_job(self) -> JobRecord:
        return self._read(self.job, JobRecord.from_json)

    def known_captions(self) -> CaptionsRecord | None:
        """Which captions the run began with; None where that was not noted."""
        try:
            return self._read(self.captions, CaptionsRecord.from_json)
        except OSError:
            return None

    def _read(self, path: Path, parse: Callable[[Any], Record]) -> Record:
        """A record of a file.

        Raises:
            FileNotFoundError: where there is none.
            UserError: where it is damaged.
        """
        try:
            return parse(json.loads(path.read_text(encoding="utf-8")))
        except ValueError as error:  # UnicodeDecodeError and JSONDecodeError too
            raise UserError(f"broken: {path.name} cannot be read: {str(error).splitlines()[0]}") from None

    def finished(self, max_epochs: int = 0) -> RunResult | None:
        """The result of a run that needs no more training than these epochs; None where there is none, or a damaged one."""
        try:
            result = self.read_result()
        except (OSError, UserError):
            return None
        return result if result.stopped_early or result.epochs >= max_epochs else None

    def learning_curve(self) -> list[tuple[int, float]]:
        """Epoch, counted from 1, and held-out free-running loss."""
        with self.metrics.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row.get("val/loss")]
        first = first_epoch(rows)
        return [(int(row["epoch"]) + 1 - first, float(row["val/loss"])) for row in rows]


def first_epoch(rows: Sequence[Mapping[str, str]]) -> int:
    """What the first epoch of ``metrics.csv`` is called: 1, or 0 in the files of version 0.1."""
    return min((int(row["epoch"]) for row in rows if row.get("epoch")), default=1) and 1
