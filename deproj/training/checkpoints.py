"""A run's checkpoints: which there are, written whole or not at all."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from deproj.process.checkpoint import read_checkpoint
from deproj.process.errors import UserError
from deproj.process.files import replacing

__all__ = ["Behind", "RunCheckpoint", "WholeCheckpoints"]


class RunCheckpoint(ModelCheckpoint):
    """``best.ckpt``, of the epoch with the least held-out loss, and ``last.ckpt``, of every epoch.

    Lightning's own last checkpoint is of the last epoch that was also the best, and its best score is forgotten when a
    run is resumed in a folder that has been moved: it would then overwrite the best checkpoint with a worse one.

    Args:
        folder: of both.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "best", monitor="val/loss", enable_version_counter=False)
        self.last = folder / "last.ckpt"

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        super().on_train_epoch_end(trainer, module)
        trainer.save_checkpoint(self.last)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        before, now = str(state_dict["dirpath"]), str(self.dirpath)
        moved = {k: v.replace(before, now, 1) if isinstance(v, str) else v for k, v in state_dict.items()}
        moved["best_k_models"] = {k.replace(before, now, 1): v for k, v in state_dict["best_k_models"].items()}
        super().load_state_dict(moved)


class WholeCheckpoints(TorchCheckpointIO):
    """Writes checkpoints whole or not at all. Lightning's own way goes through the system's folder for temporary files,
    from which, on another disk, a file is copied and not renamed."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with replacing(Path(path)) as temporary:
            torch.save(checkpoint, temporary)


@dataclass(frozen=True)
class Behind:
    """What a checkpoint has behind it; nothing where there is none.

    Attributes:
        steps: of training.
        epochs: that are complete.
        best: held-out loss.
        stopped: whether the held-out loss has stopped falling, and with it the training.
        phases: the seconds that training and pictures took.
    """

    steps: int = 0
    epochs: int = 0
    best: float = float("inf")
    stopped: bool = False
    phases: dict[str, float] = field(default_factory=dict)

    def done(self, max_epochs: int) -> bool:
        """Whether there is nothing left to train."""
        return self.stopped or self.epochs >= max_epochs

    @classmethod
    def of(cls, checkpoint: Path) -> Behind:
        """Reads a checkpoint, weights-only.

        Raises:
            UserError: for one that is damaged.
        """
        if not checkpoint.exists():
            return cls()
        instead = "put best.ckpt in its place"
        content = read_checkpoint(checkpoint, instead)
        try:
            callbacks = {name.partition("{")[0]: state for name, state in content["callbacks"].items()}
            early, best = callbacks["EarlyStopping"], callbacks["RunCheckpoint"]["best_model_score"]
            return cls(
                int(content["global_step"]),
                int(content["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]),
                float("inf") if best is None else float(best),
                early["wait_count"] >= early["patience"],
                {name: float(seconds) for name, seconds in callbacks.get("SpentSeconds", {}).items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{checkpoint} is none of ours ({type(error).__name__}); {instead}, or delete the run.") from None
