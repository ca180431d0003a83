"""What an objective is, and the article's: the weighted error of the states."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from deproj.data.cache import Rows
from deproj.draw.denoiser import Denoiser
from deproj.feed import FeedMode
from deproj.model.base import Deprojector
from deproj.selection import TokenSelection

__all__ = ["Learner", "Objective", "States", "states_error", "weighted_loss"]


@dataclass(frozen=True)
class Learner:
    """What is trained.

    Attributes:
        selection: which states count, and in which order they stand.
        feed: what the model is given as its previous state.
        half_products: whether its products are taken in bfloat16.
    """

    model: Deprojector
    selection: TokenSelection
    feed: FeedMode
    half_products: bool = False

    def predict(self, embedding: Tensor, target: Tensor) -> Tensor:
        """The sequence after SOS, as the feed mode makes it."""
        with torch.autocast(target.device.type, torch.bfloat16, enabled=self.half_products):
            return self.feed(self.model, embedding, target)


class Objective(ABC):
    """A batch to a loss. To add one, subclass it and write `loss`.

    Attributes:
        through_unet: whether it needs a U-Net; `bind` then gets it before the first loss.
    """

    through_unet: ClassVar[bool] = False

    @abstractmethod
    def loss(self, learner: Learner, rows: Rows) -> Tensor:
        """The loss of a training batch, a scalar with a gradient to the model's weights."""

    def held_out(self, learner: Learner, rows: Rows, number: int) -> Tensor:
        """The loss of a held-out batch, the same whenever it is asked for, free-running: by it weights are chosen.

        Args:
            learner: with the feed of generation, `deproj.feed.Recursive`.
            number: of the batch.
        """
        return self.loss(learner, rows)

    def bind(self, denoiser: Denoiser, seed: int) -> None:  # noqa: B027 – for those that need it
        """Takes the U-Net of the Stable Diffusion that is trained for, and the seed of the run."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it, so that a run goes on as if it had not been stopped: tensors and numbers."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:  # noqa: B027 – for those that have one
        """Takes back what `state` gave."""


@dataclass
class States(Objective):
    """The error of the states that a selection selects, fed as a feed mode feeds."""

    def loss(self, learner: Learner, rows: Rows) -> Tensor:
        return states_error(learner.selection, rows, lambda target: learner.predict(rows.embedding, target))


def states_error(selection: TokenSelection, rows: Rows, predict: Callable[[Tensor], Tensor]) -> Tensor:
    """The error of the states that a selection selects.

    Args:
        predict: the true sequence after SOS (B, P, D) to the model's.
    """
    plan = selection(rows.length)
    used = plan.places
    target = plan.arrange(rows.states)[:, 1:used]
    return weighted_loss(predict(target), target, plan.weight[:, 1:used], plan.weight.shape[1])


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
