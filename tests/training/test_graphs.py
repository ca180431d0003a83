"""CUDA graphs as far as a CPU allows: what is captured, with a capture of the same contract."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deproj.feed import Batch, FeedMode, Recursive
from deproj.model.base import Deprojector
from deproj.model.lstm import LSTMConfig, LSTMDeprojector
from deproj.model.mlp import MLPConfig, MLPDeprojector
from deproj.training.graphs import GraphedFeed


class Capture:
    """Calls the module, and holds it to what a graph allows: the shapes it was captured with, and a gradient."""

    def __init__(self) -> None:
        self.shapes: list[torch.Size] = []

    def __call__(self, module: nn.Module, samples: tuple[Tensor, ...], **options: Any) -> Any:
        assert options["allow_unused_input"]
        assert all(not sample.requires_grad for sample in samples)
        assert {id(p) for p in module.parameters()} >= {id(p) for p in module.model.parameters()}
        self.shapes.append(samples[1].shape)

        def replay(*arguments: Tensor) -> Tensor:
            assert [a.shape for a in arguments] == [s.shape for s in samples]
            assert not torch.is_autocast_cache_enabled()
            return module(*arguments)

        return replay


@pytest.mark.parametrize("feed", [Recursive(), Batch()])
@pytest.mark.parametrize("half", [False, True])
def test_gives_what_the_eager_feed_gives(feed: FeedMode, half: bool):
    torch.manual_seed(0)
    model, capture = LSTMDeprojector(LSTMConfig(16, 24)), Capture()
    graphed = GraphedFeed(feed, 4, capture)
    for rows, places in ((4, 5), (4, 7), (4, 8), (4, 20), (3, 5), (4, 5)):
        embedding, target = torch.randn(rows, 16), torch.randn(rows, places, 16)
        found = []
        for mode in (feed, graphed):
            model.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                y = mode(model, embedding, target)
            (y - target).square().sum().backward()
            found.append((y, [p.grad.clone() for p in model.parameters() if p.grad is not None]))
        assert found[0][0].shape == found[1][0].shape == target.shape
        tolerance = 0.05 if half else 1e-4
        assert torch.allclose(found[0][0], found[1][0], atol=tolerance)
        for a, b in zip(found[0][1], found[1][1], strict=True):
            assert (a - b).norm() <= tolerance * a.norm() + 1e-6
    assert [shape[1] for shape in capture.shapes] == [8, 24]  # one for 5, 7 and 8 places; the odd batch went the eager way


@pytest.mark.parametrize("model", [LSTMDeprojector(LSTMConfig(4, 6)), MLPDeprojector(MLPConfig(4, 6))])
def test_no_more_places_than_a_model_has(model: Deprojector):
    capture = Capture()
    graphed = GraphedFeed(Batch(), 2, capture)
    embedding, target = torch.randn(2, 4), torch.randn(2, 74, 4)
    assert torch.allclose(graphed(model, embedding, target), Batch()(model, embedding, target), atol=1e-6)
    assert capture.shapes == [(2, 76, 4)]


def test_what_needs_no_gradient_is_not_captured():
    model, capture = LSTMDeprojector(LSTMConfig(8, 12)), Capture()
    with torch.no_grad():
        GraphedFeed(Recursive(), 2, capture)(model, torch.randn(2, 8), torch.randn(2, 3, 8))
    assert capture.shapes == []
