"""What happens around training: the benchmark pictures after each epoch, and the exported model."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor

from deproj.encoder import TextEncoder
from deproj.module import DeprojectorModule
from deproj.prompts import COMPOSED, SINGLE
from deproj.render import Renderer, save_image, sheet

__all__ = ["BenchmarkSheet", "RunCheckpoint"]

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
        self.seconds = 0.0  # spent on drawing

    def draw(self, model: DeprojectorModule, path: Path) -> Image.Image:
        """Draws a sheet and writes it to `path`."""
        start = time.monotonic()
        states = model.model.generate(self.embedding.to(model.device)).to(self.true_states)
        if self.reference is None:  # both rows in one batch
            pictures = self.renderer(torch.cat([self.true_states, states]), SEEDS * 2)
            self.reference, pictures = pictures[: len(PROMPTS)], pictures[len(PROMPTS) :]
        else:
            pictures = self.renderer(states, SEEDS)
        image = sheet({"no deprojector": self.reference, self.label: pictures}, PROMPTS)
        save_image(image, path)
        self.seconds += time.monotonic() - start
        return image

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, DeprojectorModule)
        epoch = trainer.current_epoch + 1
        if epoch % self.every:
            return
        if trainer.is_global_zero:
            image = self.draw(module, self.folder / "sheets" / f"epoch-{epoch:03d}.png")
            for logger in trainer.loggers:
                log_image(logger, "benchmark", image, trainer.global_step)
        trainer.strategy.barrier("benchmark sheet")


class RunCheckpoint(ModelCheckpoint):
    """Lightning's checkpoints, in a run's folder that may have been moved since: Lightning forgets the best score
    of a run that is resumed in another place, and would then overwrite the best checkpoint with a worse one."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        before, now = str(state_dict["dirpath"]), str(self.dirpath)
        moved = {k: v.replace(before, now, 1) if isinstance(v, str) else v for k, v in state_dict.items()}
        moved["best_k_models"] = {k.replace(before, now, 1): v for k, v in state_dict["best_k_models"].items()}
        super().load_state_dict(moved)


def log_image(logger: object, name: str, image: Image.Image, step: int) -> None:
    """Hands a picture to a logger that takes pictures."""
    if isinstance(logger, pl.loggers.WandbLogger):
        logger.log_image(name, [image], step=None, caption=["rows: no deprojector, this run"])
    elif isinstance(logger, pl.loggers.TensorBoardLogger):
        logger.experiment.add_image(name, np.asarray(image), step, dataformats="HWC")
