"""Feed modes: what a model is given as its previous state while it is trained.

Generation is always recursive; only training can be fed otherwise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from deproj.model.base import Deprojector

__all__ = ["Batch", "FeedMode", "Recursive"]


class FeedMode(ABC):
    """How the predictions of a training step are made. To add one, subclass it and write `__call__`."""

    @abstractmethod
    def __call__(self, model: Deprojector, embedding: Tensor, target: Tensor) -> Tensor:
        """Predicts the sequence after SOS.

        Args:
            embedding: (B, D).
            target: true states by place, without SOS, (B, P, D).

        Returns:
            Predictions, (B, P, D).
        """


@dataclass(frozen=True)
class Batch(FeedMode):
    """Teacher forcing (一括入力): the true previous state, zeros for the first place. SOS is never fed."""

    def __call__(self, model: Deprojector, embedding: Tensor, target: Tensor) -> Tensor:
        fed = torch.cat([torch.zeros_like(target[:, :1]), target[:, :-1]], dim=1)
        return model.unroll(embedding, target.shape[1], fed)


@dataclass(frozen=True)
class Recursive(FeedMode):
    """The model's own previous output (再帰的入力), the gradient flowing through all steps."""

    def __call__(self, model: Deprojector, embedding: Tensor, target: Tensor) -> Tensor:
        return model.unroll(embedding, target.shape[1])
