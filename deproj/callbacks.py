"""What happens around training: the benchmark pictures after each epoch, and the exported model."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor

from deproj.encoder import TextEncoder
from deproj.module import DeprojectorModule
from deproj.prompts import COMPOSED, SINGLE
from deproj.render import Renderer, save_image, sheet

__all__ = ["BenchmarkSheet"]

log = logging.getLogger(__name__)

PROMPTS = SINGLE + COMPOSED
#: A composed prompt is drawn from the same noise as its plain one.
SEEDS = tuple(range(len(SINGLE))) * 2


class BenchmarkSheet(pl.Callback):
    """Draws the six benchmark prompts every n epochs, with the same seeds every time.

    A sheet has two rows, the true states of the prompts as plain text and this run's, and is written to
    ``sheets/`` and to the loggers. Only rank zero draws; the others wait for it.

    Args:
        folder: of the run.
        label: of this run's row.
        every: epochs between sheets.
    """

    def __init__(self, encoder: TextEncoder, renderer: Renderer, folder: Path, label: str, every: int) -> None:
        self.renderer, self.folder, self.label, self.every = renderer, folder, label, every
        self.embedding = encoder.compose(PROMPTS)
        self.true_states = encoder(PROMPTS).states
        self.reference: Tensor | None = None  # the first row, drawn once

    def draw(self, model: DeprojectorModule, path: Path) -> Image.Image:
        """Draws a sheet and writes it to `path`."""
        states = model.model.generate(self.embedding.to(model.device)).to(self.true_states)
        if self.reference is None:  # both rows in one batch
            pictures = self.renderer(torch.cat([self.true_states, states]), SEEDS * 2)
            self.reference, pictures = pictures[: len(PROMPTS)], pictures[len(PROMPTS) :]
        else:
            pictures = self.renderer(states, SEEDS)
        image = sheet({"no deprojector": self.reference, self.label: pictures}, PROMPTS)
        save_image(image, path)
        return image

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, DeprojectorModule)
        epoch = trainer.current_epoch + 1
        if epoch % self.every and epoch != trainer.max_epochs:
            return
        if trainer.is_global_zero:
            image = self.draw(module, self.folder / "sheets" / f"epoch-{epoch:03d}.png")
            for logger in trainer.loggers:
                log_image(logger, "benchmark", image, trainer.global_step)
        trainer.strategy.barrier("benchmark sheet")


def log_image(logger: object, name: str, image: Image.Image, step: int) -> None:
    """Hands a picture to a logger that takes pictures."""
    if isinstance(logger, pl.loggers.WandbLogger):
        logger.log_image(name, [image], step=None, caption=["rows: no deprojector, this run"])
    elif isinstance(logger, pl.loggers.TensorBoardLogger):
        logger.experiment.add_image(name, np.asarray(image), step, dataformats="HWC")
