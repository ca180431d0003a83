"""Reports a training as it goes: a line at the end of each epoch, and between these how far it is."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytorch_lightning as pl

from deproj.process.progress import Phase, Progress, about, duration
from deproj.training.log import LOG
from deproj.training.module import DeprojectorModule

__all__ = ["EpochLines"]


class EpochLines(pl.Callback):
    """Reports steps and epochs to a `Progress`, in place of Lightning's bar.

    Stands after the callbacks whose time is the epoch's too, as the drawing of sheets.
    """

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.open = ExitStack()
        self.phase: Phase | None = None
        self.begun = 0.0  # when the epoch began, in seconds of the phase

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert trainer.max_epochs is not None
        total = trainer.max_epochs * int(trainer.num_training_batches)
        self.begun = 0.0
        self.phase = self.open.enter_context(self.progress.phase("training", total, done=trainer.global_step))

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        if self.phase is not None:
            loss = float(trainer.callback_metrics["train/loss"])  # of the whole batch, where processes share it
            self.phase.advance(note=f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}, loss {loss:.4f}")

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.phase is None:
            return
        assert isinstance(module, DeprojectorModule)
        now, held_out = self.phase.seconds, trainer.callback_metrics.get("val/loss")
        said = [f"train loss {module.epoch_loss:.4f}"]
        said += [] if held_out is None else [f"held-out loss {float(held_out):.4f}"]
        said += [duration(now - self.begun), about(self.phase.left)]
        line = f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}: {', '.join(filter(None, said))}"
        self.progress.say(line)
        LOG.info(line)
        self.begun = now

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.should_stop:
            self.progress.say("stopped early: the held-out loss falls no more")
        self.open.close()

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        self.open.close()
