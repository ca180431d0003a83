"""The LightningModule: an objective made small, and watched on held-out samples."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from deproj.data.cache import Rows
from deproj.feed import Recursive
from deproj.process.errors import UserError
from deproj.process.ranks import summed, world_size
from deproj.training.graphs import GraphedFeed
from deproj.training.objective.base import Learner, Objective

__all__ = ["DeprojectorModule"]


def cosine(step: int, steps: int) -> float:
    """Share of the learning rate: a rise over the first twentieth of the steps, then half a cosine to 0."""
    rise = max(steps // 20, 1)
    return (step + 1) / rise if step < rise else 0.5 + 0.5 * math.cos(math.pi * min((step - rise) / max(steps - rise, 1), 1.0))


class DeprojectorModule(pl.LightningModule):
    """Trains a deprojector by an objective.

    Logs ``train/loss`` of batches, ``train/epoch_loss``, their mean over an epoch, and of the held-out samples ``val/loss``: the
    objective's loss of free-running generation, whatever the feed in training, so that both feeds are stopped by one measure.

    Args:
        learner: its products may be in bfloat16, by autocast there and not by Lightning's precision, which refuses to clip
            the gradients of a fused optimizer.
    """

    def __init__(self, learner: Learner, objective: Objective, learning_rate: float, schedule: str = "constant") -> None:
        super().__init__()
        if not learning_rate > 0:
            raise UserError(f"optimizer.learning_rate is above 0; got {learning_rate}.")
        self.model, self.learner, self.objective = learner.model, learner, objective
        self.learning_rate, self.schedule = learning_rate, schedule
        self.passed: Tensor
        self.register_buffer("passed", torch.zeros(2), persistent=False)  # in this epoch: the sum of the losses, and the steps

    def training_step(self, rows: Rows, index: int) -> Tensor:
        loss = self.objective.loss(self.learner, rows.in_epoch(self.current_epoch)) * rows.share
        whole = self.finite(summed(loss), "the loss")
        self.passed = self.passed * (index > 0) + torch.stack([whole.detach().float(), torch.ones_like(whole, dtype=torch.float)])
        self.log("train/loss", whole, on_step=True, on_epoch=False, prog_bar=True, batch_size=len(rows.length))
        self.log("learning_rate", self.optimizers().param_groups[0]["lr"], on_step=True, on_epoch=False)  # type: ignore[union-attr]
        return loss * world_size()  # the gradients are averaged over the processes

    @property
    def epoch_loss(self) -> float:
        """The mean of the training losses in this epoch."""
        total, steps = self.passed.tolist()
        return float(total / steps)

    def on_train_epoch_end(self) -> None:
        self.log("train/epoch_loss", self.epoch_loss, sync_dist=True)  # the same in all processes

    def on_fit_end(self) -> None:
        if isinstance(self.learner.feed, GraphedFeed):
            self.learner.feed.release()  # pictures and measures come after training, and may need the room

    def validation_step(self, rows: Rows, index: int) -> None:
        free = replace(self.learner, feed=Recursive())
        loss = self.finite(summed(self.objective.held_out(free, rows, index) * rows.share), "the held-out free-running loss")
        self.log("val/loss", loss, prog_bar=True, batch_size=rows.whole or len(rows.length))

    def finite(self, loss: Tensor, name: str) -> Tensor:
        """The loss, unless it is NaN or infinite: that ends the run."""
        if not torch.isfinite(loss):
            raise UserError(
                f"{name} became {loss.item()} at step {self.global_step}; lower optimizer.learning_rate "
                "or set trainer.gradient_clip_val."
            )
        return loss

    def configure_optimizers(self) -> Any:
        adam = torch.optim.Adam((p for p in self.parameters() if p.requires_grad), self.learning_rate, fused=True)
        if self.schedule == "constant":
            return adam
        share = partial(cosine, steps=int(self.trainer.estimated_stepping_batches))
        return [adam], [{"scheduler": torch.optim.lr_scheduler.LambdaLR(adam, share), "interval": "step"}]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["deprojector"] = self.model.stored()  # with which the weights can be drawn from before the run is done
        checkpoint["epoch_loss"] = self.passed.tolist()
        if state := self.objective.state():
            checkpoint["objective"] = state

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.passed = torch.tensor(checkpoint.get("epoch_loss", [0.0, 0.0]), device=self.passed.device)
        if "objective" in checkpoint:
            self.objective.restore(checkpoint["objective"])
