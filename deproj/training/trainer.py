"""Lightning's trainer for a run: its callbacks, loggers and the processes that train together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.loggers import Logger

from deproj.process.interruption import Interrupted, Interruption
from deproj.process.progress import SILENT, Progress
from deproj.runs.folder import RunFolder
from deproj.training.callbacks import LevelMemory, SpentSeconds, StopOnSignal
from deproj.training.checkpoints import Behind, RunCheckpoint, WholeCheckpoints
from deproj.training.dashboards import Dashboard
from deproj.training.metrics_file import MetricsFile
from deproj.training.parts import Parts, Pictures
from deproj.training.place import Place
from deproj.training.progress import EpochLines
from deproj.training.settings import RunSettings

__all__ = ["Training", "seed_everything"]


def seed_everything(seed: int) -> None:
    """Seeds the generators of Python, numpy and torch."""
    pl.seed_everything(seed, verbose=False)


@dataclass(frozen=True)
class Training:
    """A trainer and what it logs to."""

    trainer: pl.Trainer

    @property
    def loggers(self) -> list[Logger]:
        return self.trainer.loggers

    @property
    def max_epochs(self) -> int:
        return int(self.trainer.max_epochs or 0)

    @classmethod
    def of(
        cls,
        config: dict[str, Any],
        chosen: RunSettings,
        place: Place,
        parts: Parts,
        pictures: Pictures,
        before: Behind,
        folder: RunFolder,
        interruption: Interruption,
        progress: Progress,
    ) -> Training:
        """Makes the trainer; only rank zero logs, draws and shows progress."""
        callbacks: list[pl.Callback] = [EarlyStopping("val/loss", patience=chosen.trainer.patience)]
        callbacks += [StopOnSignal(interruption, folder.last_checkpoint), LevelMemory()]
        callbacks += [SpentSeconds(before.phases, pictures.benchmark)]
        callbacks += [] if pictures.benchmark is None else [pictures.benchmark]
        callbacks += [EpochLines(progress)] * (progress is not SILENT)
        callbacks += [RunCheckpoint(folder.checkpoints)]
        together = place.rank.together()
        trainer = pl.Trainer(
            default_root_dir=folder.path,
            max_epochs=chosen.trainer.max_epochs,
            accelerator="gpu" if place.cuda else "cpu",
            devices=place.rank.devices,
            precision="64-true" if place.precision == 64 else "32-true",
            logger=make_loggers(config, chosen, folder, before.steps) if place.first else False,
            callbacks=callbacks,
            plugins=[WholeCheckpoints(), *together.pop("plugins", [])],
            gradient_clip_val=chosen.trainer.gradient_clip_val,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            log_every_n_steps=min(10, len(parts.data.train_dataloader())),
            **together,
        )
        return cls(trainer)

    def fit(self, parts: Parts, folder: RunFolder, before: Behind) -> None:
        """Trains, from the last checkpoint where the run goes on."""
        self.trainer.fit(parts.module, parts.data, ckpt_path=str(folder.last_checkpoint) if before.steps else None)

    @contextmanager
    def dashboards_closed(self) -> Iterator[None]:
        """Ends the dashboards with the block, however that ends: with exit code 0, that of a signal, or 1."""
        code = 1
        try:
            yield
            code = 0
        except Interrupted as stopped:
            code = 128 + stopped.number
            raise
        finally:
            for logger in self.loggers:
                if isinstance(logger, Dashboard):
                    logger.finish(code)


def make_loggers(config: dict[str, Any], chosen: RunSettings, folder: RunFolder, steps: int) -> list[Logger]:
    """metrics.csv, and the dashboard that was chosen beside it.

    Args:
        steps: that the run has behind it.
    """
    loggers: list[Logger] = [MetricsFile(folder.metrics, steps)]
    if chosen.logger.kind == "tensorboard":
        from deproj.training.tensorboard import TensorBoardDashboard  # an extra

        loggers.append(TensorBoardDashboard(config, folder.path, steps))
    elif chosen.logger.kind == "wandb":
        from deproj.training.weights_and_biases import WandbDashboard  # half a second, for those who ask for it

        loggers.append(WandbDashboard(config, folder, chosen.logger.project, chosen.logger.details))
    return loggers
