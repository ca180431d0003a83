"""The loss and the LightningModule."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from torch import Tensor

from deproj.data.cache import Rows
from deproj.feed import FeedMode, Recursive
from deproj.model.base import Deprojector
from deproj.process.errors import UserError
from deproj.process.ranks import summed, world_size
from deproj.selection import TokenSelection
from deproj.training.graphs import GraphedFeed

__all__ = ["DeprojectorModule", "weighted_loss"]


def weighted_loss(prediction: Tensor, target: Tensor, weight: Tensor, places: int) -> Tensor:
    """Mean over all B · places · D elements of (weight · (prediction - target))².

    The weight stands inside the square, as in the reference. Losses of different selections are
    not comparable.

    Args:
        prediction, target: (B, P, D), places without a weight left out.
        weight: (B, P).
        places: how many places the mean is over, 77 with SOS and those left out.
    """
    b, _, d = target.shape
    return (weight[:, :, None] * (prediction - target)).square().sum() / (b * places * d)


class DeprojectorModule(pl.LightningModule):
    """Trains a deprojector on what a selection selects, fed as a feed mode feeds.

    Logs ``train/loss``, and of the held-out samples ``val/loss``: the same loss of free-running
    generation, whatever the feed in training, so that both feeds are stopped by one measure.

    Args:
        half_products: whether products are taken in bfloat16, by autocast: here and not by Lightning's precision, which
            refuses to clip the gradients of a fused optimizer.
    """

    def __init__(
        self, model: Deprojector, selection: TokenSelection, feed: FeedMode, learning_rate: float, half_products: bool = False
    ) -> None:
        super().__init__()
        if not learning_rate > 0:
            raise UserError(f"optimizer.learning_rate is above 0; got {learning_rate}.")
        self.model, self.selection, self.feed = model, selection, feed
        self.learning_rate, self.half_products = learning_rate, half_products

    def loss(self, rows: Rows, feed: FeedMode) -> Tensor:
        """The loss of a batch, its predictions made by a feed mode."""
        plan = self.selection(rows.length)
        used = plan.places
        target = plan.arrange(rows.states)[:, 1:used]
        with torch.autocast(target.device.type, torch.bfloat16, enabled=self.half_products):
            prediction = feed(self.model, rows.embedding, target)
        return weighted_loss(prediction, target, plan.weight[:, 1:used], plan.weight.shape[1])

    def training_step(self, rows: Rows, index: int) -> Tensor:
        loss = self.loss(rows, self.feed) * rows.share
        whole = self.finite(summed(loss), "the loss")
        self.log("train/loss", whole, on_step=True, on_epoch=False, prog_bar=True, batch_size=len(rows.length))
        return loss * world_size()  # the gradients are averaged over the processes

    def on_fit_end(self) -> None:
        if isinstance(self.feed, GraphedFeed):
            self.feed.release()  # pictures and measures come after training, and may need the room

    def validation_step(self, rows: Rows, index: int) -> None:
        loss = self.finite(summed(self.loss(rows, Recursive()) * rows.share), "the held-out free-running loss")
        self.log("val/loss", loss, prog_bar=True, batch_size=rows.whole or len(rows.length))

    def finite(self, loss: Tensor, name: str) -> Tensor:
        """The loss, unless it is NaN or infinite: that ends the run."""
        if not torch.isfinite(loss):
            raise UserError(
                f"{name} became {loss.item()} at step {self.global_step}; lower optimizer.learning_rate "
                "or set trainer.gradient_clip_val."
            )
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam((p for p in self.parameters() if p.requires_grad), self.learning_rate, fused=True)
