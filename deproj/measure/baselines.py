"""What a deprojector has to beat: baselines in closed form, fitted to the samples that it was trained on.

Each learns every place of a selection's order, weighted or not. The words_eos order is that of all, and so are its baselines.
The trained baseline, `deproj.model.MLPDeprojector`, is a model like any other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from deproj.data.cache import CachedSamples, Rows
from deproj.process.progress import SILENT, Progress
from deproj.selection import PLACES, TokenSelection

__all__ = ["BASELINES", "Baseline", "Broadcast", "MeanStates", "Nearest", "Ridge"]

#: Strengths that a ridge is tried with, relative to the mean variance of the embedding's components.
STRENGTHS = tuple(10.0**k for k in range(-7, 3))


class Baseline(ABC):
    """Fitted to samples, it generates states from embeddings as a deprojector does."""

    def __init__(self, samples: CachedSamples, selection: TokenSelection, progress: Progress = SILENT) -> None:
        self.samples, self.selection, self.sos = samples, selection, samples[[0]].states[0, 0].cpu()
        self.progress = progress

    @abstractmethod
    def predict(self, embedding: Tensor) -> Tensor:
        """States by place without SOS, (B, 76, D)."""

    def generate(self, embedding: Tensor) -> Tensor:
        """Embeddings (B, D) to states by place, SOS first, (B, 77, D)."""
        sos = self.sos.expand(len(embedding), 1, -1)
        return torch.cat([sos, self.predict(embedding.float().cpu())], 1)

    def read(self, rows: Sequence[int]) -> Rows:
        """Samples on the CPU, where the closed forms are computed; encoded anew they come from the encoder's device."""
        batch = self.samples[rows]
        return Rows(batch.embedding.cpu(), batch.states.cpu(), batch.length.cpu())

    def batches(self, count: int | None = None, size: int = 250) -> Iterator[tuple[Rows, Tensor]]:
        """Samples with their targets by place, (B, 76, D)."""
        rows = len(self.samples) if count is None else count
        with self.progress.phase("fitting", rows) as phase:
            for start in range(0, rows, size):
                batch = self.read(range(start, min(start + size, rows)))
                yield batch, self.selection(batch.length).arrange(batch.states)[:, 1:]
                phase.advance(len(batch.length))


class MeanStates(Baseline):
    """At every place the mean state of the samples."""

    def __init__(self, samples: CachedSamples, selection: TokenSelection, progress: Progress = SILENT) -> None:
        super().__init__(samples, selection, progress)
        total = torch.zeros(PLACES - 1, samples.width, dtype=torch.float64)
        for _, target in self.batches():
            total += target.double().sum(0)
        self.mean = (total / len(samples)).float()

    def predict(self, embedding: Tensor) -> Tensor:
        return self.mean.expand(len(embedding), -1, -1)


class Broadcast(Baseline):
    """At every place the embedding itself, which is the true state at EOS."""

    def predict(self, embedding: Tensor) -> Tensor:
        return embedding[:, None].expand(-1, PLACES - 1, -1)


class Ridge(Baseline):
    """Ridge regression from the embedding to every place, in closed form (Hoerl and Kennard 1970).

    With X and Y centred, (XᵀX + λ n s I) W = XᵀY, s the mean variance of X's columns. λ is the one of `STRENGTHS` with the
    least error on a tenth of the samples, left out for that; then all of them are used.
    """

    def __init__(self, samples: CachedSamples, selection: TokenSelection, progress: Progress = SILENT) -> None:
        super().__init__(samples, selection, progress)
        kept = len(samples) - max(len(samples) // 10, 1)
        held_out = self.read(range(kept, min(kept + 1000, len(samples))))
        target = selection(held_out.length).arrange(held_out.states)[:, 1:].flatten(1).double()
        moments = self.moments(kept)
        errors = []
        for strength in STRENGTHS:
            weight, bias = self.solve(moments, strength)
            errors.append(float((held_out.embedding.double() @ weight + bias - target).square().mean()))
        self.strength = STRENGTHS[errors.index(min(errors))]
        weight, bias = self.solve(self.moments(len(samples)), self.strength)
        self.weight, self.bias = weight.float(), bias.float()

    def moments(self, count: int) -> tuple[int, Tensor, Tensor, Tensor, Tensor]:
        """n, mean of X and of Y, and the centred XᵀX (D, D) and XᵀY (D, 76·D), all float64."""
        d = self.samples.width
        xx, xy = torch.zeros(d, d, dtype=torch.float64), torch.zeros(d, (PLACES - 1) * d, dtype=torch.float64)
        x_sum, y_sum = xx[0].clone(), xy[0].clone()
        for batch, target in self.batches(count):
            x, y = batch.embedding.double(), target.flatten(1).double()
            xx += x.T @ x
            xy += x.T @ y
            x_sum += x.sum(0)
            y_sum += y.sum(0)
        x_mean, y_mean = x_sum / count, y_sum / count
        return count, x_mean, y_mean, xx - count * x_mean.outer(x_mean), xy - count * x_mean.outer(y_mean)

    @staticmethod
    def solve(moments: tuple[int, Tensor, Tensor, Tensor, Tensor], strength: float) -> tuple[Tensor, Tensor]:
        """W (D, 76·D) and b (76·D,)."""
        _, x_mean, y_mean, xx, xy = moments
        weight = torch.linalg.solve(xx + strength * xx.diagonal().mean() * torch.eye(len(xx), dtype=xx.dtype), xy)
        return weight, y_mean - x_mean @ weight

    def predict(self, embedding: Tensor) -> Tensor:
        return (embedding @ self.weight + self.bias).view(len(embedding), PLACES - 1, -1)


class Nearest(Baseline):
    """The states of the sample whose embedding has the largest cosine to the given one."""

    def __init__(self, samples: CachedSamples, selection: TokenSelection, progress: Progress = SILENT) -> None:
        super().__init__(samples, selection, progress)
        self.known = F.normalize(torch.cat([batch.embedding for batch, _ in self.batches()]), dim=1)

    def predict(self, embedding: Tensor) -> Tensor:
        nearest = (F.normalize(embedding, dim=1) @ self.known.T).argmax(1)
        rows = self.read(nearest.tolist())
        return self.selection(rows.length).arrange(rows.states)[:, 1:]


BASELINES: dict[str, type[Baseline]] = {"mean": MeanStates, "broadcast": Broadcast, "ridge": Ridge, "nearest": Nearest}
