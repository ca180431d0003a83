"""Training steps captured as CUDA graphs.

A step is 76 dependent places of small kernels, so that on a GPU launching them takes longer than computing them. A graph
is launched whole. Its shapes are fixed: there is one for each number of places, rounded up.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deproj.feed import FeedMode
from deproj.model.base import Deprojector
from deproj.selection import PLACES

__all__ = ["GraphedFeed"]


class GraphedFeed(FeedMode):
    """A feed mode whose forward and backward are replayed as graphs; not measured on a GPU yet.

    Odd last batches and what needs no gradient go the eager way. Places are rounded up to a multiple of `BUCKET`, or to all
    76, and those that were added are cut off, so that they get no gradient.

    Args:
        feed: the one to capture.
        batch_size: of the batches that are captured.
        capture: makes a graphed callable of a module and sample arguments, as `torch.cuda.make_graphed_callables` does.
    """

    BUCKET = 8

    def __init__(self, feed: FeedMode, batch_size: int, capture: Callable[..., Any] = torch.cuda.make_graphed_callables) -> None:
        self.feed, self.batch_size, self.capture = feed, batch_size, capture
        self.graphs: dict[tuple[Any, ...], Any] = {}
        self.pool: Any = None

    def __call__(self, model: Deprojector, embedding: Tensor, target: Tensor) -> Tensor:
        places = target.shape[1]
        if not torch.is_grad_enabled() or len(target) != self.batch_size:
            return self.feed(model, embedding, target)
        device = target.device.type
        half = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        padded = min(-(-places // self.BUCKET) * self.BUCKET, PLACES - 1)
        target = F.pad(target, (0, 0, 0, padded - places))
        # A graph reads the weights where they lay when it was captured.
        weights = tuple(parameter.data_ptr() for parameter in model.parameters())
        key = (weights, model.training, target.shape, half)
        # The cache of autocast holds copies of weights from one call to the next, which a graph must not.
        with torch.autocast(device, half, enabled=half is not None, cache_enabled=False):
            if key not in self.graphs:
                if self.pool is None and torch.cuda.is_available():
                    self.pool = torch.cuda.graph_pool_handle()
                samples = (torch.zeros_like(embedding), torch.zeros_like(target))
                step = _Step(model, self.feed).train(model.training)
                self.graphs[key] = self.capture(step, samples, allow_unused_input=True, pool=self.pool)
            prediction: Tensor = self.graphs[key](embedding, target)
        return prediction[:, :places]

    def release(self) -> None:
        """Returns the memory of the graphs to the device; the next call captures anew."""
        self.graphs.clear()
        self.pool = None
        gc.collect()  # a captured module refers to itself
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


class _Step(nn.Module):
    """What is captured; a module, so that the parameters are known."""

    def __init__(self, model: Deprojector, feed: FeedMode) -> None:
        super().__init__()
        self.model, self.feed = model, feed

    def forward(self, embedding: Tensor, target: Tensor) -> Tensor:
        return self.feed(self.model, embedding, target)
