"""The dashboard of TensorBoard. Rank zero alone logs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only

from deproj.runs.records import Evaluation
from deproj.training.dashboards import COLUMNS, Dashboard, Picture, evaluation_rows

__all__ = ["TensorBoardDashboard"]


class TensorBoardDashboard(TensorBoardLogger, Dashboard):
    """Event files in the run's folder. The step of a picture is its epoch, since TensorBoard has no captions.

    Args:
        folder: of the run.
        steps: that the run has behind it; what an interrupted run has shown beyond is taken back.
    """

    def __init__(self, folder: Path, steps: int) -> None:
        super().__init__(folder, name="", version="tensorboard", purge_step=steps + 1 if steps else None)

    @rank_zero_only
    def pictures(self, pictures: Mapping[str, Picture], epoch: int, step: int) -> None:
        for name, (picture, _) in pictures.items():
            self.experiment.add_image(name, np.asarray(picture), epoch, dataformats="HWC")

    @rank_zero_only
    def evaluation(self, evaluation: Evaluation, step: int) -> None:
        lines = [COLUMNS, ["---"] * len(COLUMNS), *evaluation_rows(evaluation)]
        self.experiment.add_text("evaluation", "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines), step)

    @rank_zero_only
    def model(self, folder: Path) -> None:
        pass  # TensorBoard keeps no models

    @rank_zero_only
    def finish(self, code: int) -> None:
        self.finalize("failed" if code else "success")
