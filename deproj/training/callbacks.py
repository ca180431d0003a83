"""What happens around training: the benchmark pictures after each epoch, and the end that a signal makes."""

from __future__ import annotations

import hashlib
import signal
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from PIL import Image
from torch import Tensor

from deproj.clip.encoder import TextEncoder
from deproj.draw.renderer import Renderer
from deproj.draw.sheets import TRUE_STATES, enlarged, save_image, sheet
from deproj.process.interruption import Interrupted, Interruption
from deproj.process.kept import kept
from deproj.process.progress import SILENT, Progress
from deproj.process.system import give_back
from deproj.runs.folder import RunFolder
from deproj.texts.benchmark import PROMPTS, seeds
from deproj.training.dashboards import Dashboard, Picture, picture_name
from deproj.training.module import DeprojectorModule

__all__ = ["BenchmarkSheet", "LevelMemory", "SpentSeconds", "StopOnSignal"]

SEEDS = seeds()
#: Height of a picture on a dashboard, in pixels.
SHOWN = 160


class BenchmarkSheet(pl.Callback):
    """Draws the six benchmark prompts every n epochs, with the same seeds every time.

    A sheet has two rows, the true states of the prompts as plain text and this run's, and is written to
    ``sheets/`` and shown on the dashboards, as are the pictures one by one. Rank zero alone has this callback; the others
    wait for it in their next step.

    Args:
        folder: of the run.
        label: of this run's row.
        every: epochs between sheets.
        cache: folder of the first row's pictures, which all runs share.
        progress: is told how far a sheet is.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        renderer: Renderer,
        folder: RunFolder,
        label: str,
        every: int,
        cache: Path,
        progress: Progress = SILENT,
    ) -> None:
        self.encoder, self.renderer, self.folder, self.label, self.every = encoder, renderer, folder, label, every
        self.embedding = encoder.compose(PROMPTS)
        self.cache, self.progress = cache, progress
        self.reference: Tensor | None = None  # the first row
        self.seconds = 0.0  # spent on drawing

    def draw(self, model: DeprojectorModule, path: Path) -> tuple[Image.Image, Tensor]:
        """Draws a sheet and writes it to `path`; returns it and the pictures of this run's row, (6, height, width, 3) uint8."""
        start = time.monotonic()
        if self.reference is None:
            self.reference = self.first_row()
        states = model.model.generate(self.embedding.to(model.device))
        pictures = self.pictures(states)
        image = sheet({TRUE_STATES: self.reference, self.label: pictures}, PROMPTS)
        save_image(image, path)
        self.seconds += time.monotonic() - start
        return image, pictures

    def pictures(self, states: Tensor) -> Tensor:
        """Pictures of the benchmark prompts, (6, height, width, 3) uint8, from their states (6, 77, D)."""
        total = len(PROMPTS) * self.renderer.settings.steps
        with self.progress.phase("drawing the benchmark prompts", total) as phase:
            return self.renderer(states, SEEDS, phase.advance)

    def first_row(self) -> Tensor:
        """Pictures of the true states, (6, height, width, 3) uint8, drawn once for all runs."""
        made_from = repr((self.encoder.texts_hash, self.renderer.hash, PROMPTS, SEEDS))
        path = self.cache / f"benchmark-{hashlib.sha256(made_from.encode()).hexdigest()[:20]}.safetensors"
        states = self.encoder(PROMPTS).states
        return kept(path, lambda: {"pictures": self.pictures(states)}, "the benchmark pictures of the true states")["pictures"]

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, DeprojectorModule)
        epoch = trainer.current_epoch + 1
        if epoch % self.every:
            return
        image, pictures = self.draw(module, self.folder.sheet(epoch))
        shown = self.shown(image, pictures, epoch)
        for logger in trainer.loggers:
            if isinstance(logger, Dashboard):
                logger.pictures(shown, epoch, trainer.global_step)

    def shown(self, image: Image.Image, pictures: Tensor, epoch: int) -> dict[str, Picture]:
        """A sheet and its pictures by name, with captions; the true states' pictures with a run's first sheet only."""
        columns = " · ".join(PROMPTS)
        shown = {"benchmark": (image, f"epoch {epoch}; above: {TRUE_STATES}; below: {self.label}; columns: {columns}")}
        rows = {("pictures", f"{self.label}, epoch {epoch}"): pictures}
        if epoch == self.every and self.reference is not None:
            rows["true_states", TRUE_STATES] = self.reference
        for (section, caption), row in rows.items():
            for prompt, picture in zip(PROMPTS, row, strict=True):
                shown[f"{section}/{picture_name(prompt)}"] = (
                    enlarged(Image.fromarray(picture.numpy()), SHOWN),
                    f"{prompt}: {caption}",
                )
        return shown


class LevelMemory(pl.Callback):
    """Keeps memory from growing with the number of batches."""

    #: Batches from one time to the next: 10 and 50 have the same peak, and times within the noise (experiments/LOG.md).
    EVERY = 50

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        if trainer.global_step % self.EVERY == 0:
            give_back()


class SpentSeconds(pl.Callback):
    """Has checkpoints keep the seconds that training and pictures took, in all the processes that a run went on in.

    Args:
        before: by phase, in those before.
        sheets: what draws during training, if anything does.
    """

    def __init__(self, before: dict[str, float], sheets: BenchmarkSheet | None) -> None:
        self.before, self.sheets = before, sheets
        self.began = time.monotonic()

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.began = time.monotonic()

    def state_dict(self) -> dict[str, float]:
        drawing = 0.0 if self.sheets is None else self.sheets.seconds
        spent = {"training": time.monotonic() - self.began - drawing, "pictures": drawing}
        return {name: round(seconds + self.before.get(name, 0.0), 1) for name, seconds in spent.items()}


class StopOnSignal(pl.Callback):
    """Stops training after the batch in which a signal came, with a checkpoint of that very step.

    Args:
        checkpoint: that a resumed run goes on from.
    """

    def __init__(self, interruption: Interruption, checkpoint: Path) -> None:
        self.interruption, self.checkpoint = interruption, checkpoint

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.interruption.install()  # Lightning has put its own in their place
        self.interruption.patient = True

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        # after the last batch of an epoch come validation and the epoch's own checkpoint
        if not trainer.is_last_batch and self.stopping(trainer):
            trainer.save_checkpoint(self.checkpoint)
            self.stop()

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.stopping(trainer):
            self.stop()

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.interruption.patient = False
        if self.stopping(trainer):
            self.stop()

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        self.interruption.patient = False

    def stopping(self, trainer: pl.Trainer) -> bool:
        """Whether a signal has come, to any process."""
        here = self.interruption.received is not None
        return trainer.strategy.reduce_boolean_decision(here, all=False) if trainer.world_size > 1 else here

    def stop(self) -> None:
        raise Interrupted(self.interruption.received or signal.SIGTERM)
