"""What a dashboard is: a Lightning logger that also takes pictures, the evaluation and the exported model."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from deproj.runs.records import KINDS, Evaluation

__all__ = ["COLUMNS", "Dashboard", "Picture", "evaluation_rows", "from_one", "picture_name"]

#: A picture with its caption.
Picture = tuple[Image.Image, str]


COLUMNS = ["prompts", "measure", "value", "low", "high", "n"]


class Dashboard(ABC):
    """What a logger shows besides numbers."""

    @abstractmethod
    def pictures(self, pictures: Mapping[str, Picture], epoch: int, step: int) -> None:
        """Shows pictures by name.

        Args:
            epoch: that is complete, from 1.
            step: of training.
        """

    @abstractmethod
    def evaluation(self, evaluation: Evaluation, step: int) -> None:
        """Shows what ``evaluation.json`` holds as a table."""

    @abstractmethod
    def summary(self, told: Mapping[str, Any], measures: Mapping[str, float]) -> None:
        """Keeps how the run ended.

        Args:
            told: best epoch and loss, seconds, samples a second, parameters, command, by name.
            measures: of the evaluation, by ``kind/name``; none where there was none.
        """

    @abstractmethod
    def model(self, folder: Path) -> None:
        """Keeps the exported model, where models are kept."""

    @abstractmethod
    def finish(self, code: int) -> None:
        """Ends the run with its exit code; a run that was never begun has no end."""


def from_one(metrics: Mapping[str, float]) -> dict[str, float]:
    """Numbers with their epoch counted from 1, as everywhere else; Lightning counts from 0."""
    return {name: value + 1 if name == "epoch" else value for name, value in metrics.items()}


def picture_name(prompt: str) -> str:
    """A prompt as a name that every dashboard takes: ``composed_cat_maid``."""
    return re.sub(r"\W+", "_", f"{'composed' if ',' in prompt else 'single'} {prompt}")


def evaluation_rows(evaluation: Evaluation) -> list[list[Any]]:
    """An evaluation's rows, by `COLUMNS`."""
    return [
        [kind, measure, summary.value, summary.low, summary.high, summary.n]
        for kind in KINDS
        for measure, summary in evaluation.of(kind).summaries.items()
    ]
