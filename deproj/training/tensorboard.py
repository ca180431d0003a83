"""The dashboard of TensorBoard. Rank zero alone logs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from torch.utils.tensorboard.summary import hparams

from deproj.runs.records import Evaluation
from deproj.settings.nodes import leaves
from deproj.training.dashboards import COLUMNS, Dashboard, Picture, evaluation_rows, from_one

__all__ = ["TensorBoardDashboard"]


def hyperparameters(config: dict[str, Any]) -> dict[str, bool | int | float | str]:
    """What the HPARAMS tab can sort and filter runs by: choices, and the settings of data, model, objective and training."""
    found: dict[str, Any] = {group: config["choices"].get(group) for group in ("selection", "feed", "model", "objective")}
    found["seed"] = config["seed"]
    for group in ("data", "model", "objective", "optimizer", "trainer"):
        found |= {key: value for key, value in leaves(config[group], group) if not key.endswith(("_target_", "_partial_"))}
    kept = {key: value for key, value in found.items() if not key.startswith(("data.cache", "trainer.progress"))}
    return {key: value if isinstance(value, bool | int | float) else str(value) for key, value in kept.items()}


class TensorBoardDashboard(TensorBoardLogger, Dashboard):
    """Event files in the run's folder. The step of a picture is its epoch, since TensorBoard has no captions.

    Args:
        config: the run's settings.
        folder: of the run.
        steps: that the run has behind it; what an interrupted run has shown beyond is taken back.
    """

    def __init__(self, config: dict[str, Any], folder: Path, steps: int) -> None:
        purge = steps + 1 if steps else None
        super().__init__(folder, name="", version="tensorboard", default_hp_metric=False, purge_step=purge)
        self.settings = hyperparameters(config)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *_: Any, **__: Any) -> None:
        pass  # they are shown when the run has measures, which its tab shows beside them

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        super().log_metrics(from_one(metrics), step)

    @rank_zero_only
    def pictures(self, pictures: Mapping[str, Picture], epoch: int, step: int) -> None:
        for name, (picture, _) in pictures.items():
            self.experiment.add_image(name, np.asarray(picture), epoch, dataformats="HWC")

    @rank_zero_only
    def evaluation(self, evaluation: Evaluation, step: int) -> None:
        lines = [COLUMNS, ["---"] * len(COLUMNS), *evaluation_rows(evaluation)]
        self.experiment.add_text("evaluation", "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines), step)

    @rank_zero_only
    def summary(self, told: Mapping[str, Any], measures: Mapping[str, float]) -> None:
        numbers = {name: value for name, value in told.items() if isinstance(value, int | float)} | dict(measures)
        for part in hparams(self.settings, dict.fromkeys(numbers, 0.0)):
            self.experiment._get_file_writer().add_summary(part)  # `add_hparams` would make another run of it
        for name, value in numbers.items():
            self.experiment.add_scalar(name, value, 0)

    @rank_zero_only
    def model(self, folder: Path) -> None:
        pass  # TensorBoard keeps no models

    @rank_zero_only
    def finish(self, code: int) -> None:
        self.finalize("failed" if code else "success")
