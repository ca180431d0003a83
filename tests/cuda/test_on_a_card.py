"""On a card: graphs, pictures in float16, the encoder's states, memory, and runs that repeat."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Ended
from torch import Tensor

from deproj.clip.encoder import TextEncoder
from deproj.draw.stable_diffusion import StableDiffusion
from deproj.feed import Batch, FeedMode, Recursive
from deproj.model.lstm import LSTMConfig, LSTMDeprojector
from deproj.model.mlp import MLPConfig, MLPDeprojector
from deproj.texts.benchmark import PROMPTS
from deproj.training.graphs import GraphedFeed

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA here")]
D, BATCH = 64, 8


@pytest.fixture(autouse=True)
def exact_products() -> Iterator[None]:
    """Without TF32, and with what a test took given back."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def made(kind: str = "lstm") -> Any:
    torch.manual_seed(0)
    model = LSTMDeprojector(LSTMConfig(D, D * 3 // 2)) if kind == "lstm" else MLPDeprojector(MLPConfig(D, D * 3 // 2))
    return model.cuda()


def step(model: Any, feed: FeedMode, places: int, half: bool = False, rows: int = BATCH) -> tuple[Tensor, list[Tensor]]:
    """Predictions and gradients of one step on random states."""
    generator = torch.Generator().manual_seed(places)
    embedding = torch.randn(rows, D, generator=generator).cuda()
    target = torch.randn(rows, places, D, generator=generator).cuda()
    model.zero_grad()
    with torch.autocast("cuda", torch.bfloat16, enabled=half):
        y = feed(model, embedding, target)
    (y.float() - target).square().mean().backward()
    return y.detach().clone(), [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]


def alike(one: Tensor, other: Tensor, bar: float) -> None:
    assert (one - other).norm() <= bar * one.norm() + 1e-12
    assert one.isfinite().all()


@pytest.mark.parametrize("kind", ["lstm", "mlp"])
@pytest.mark.parametrize("feed", [Recursive(), Batch()], ids=["recursive", "batch"])
@pytest.mark.parametrize("half", [False, True], ids=["fp32", "bf16"])
def test_graphs_equal_eager(feed: FeedMode, half: bool, kind: str):
    """Also in the second replay, for places that were rounded up, and for the odd last batch."""
    model = made(kind)
    graphed = GraphedFeed(feed, BATCH)
    for rows, places in ((BATCH, 16), (BATCH, 13), (BATCH, 76), (3, 16), (BATCH, 16)):
        (y, eager), (z, replayed) = (step(model, mode, places, half, rows) for mode in (feed, graphed))
        bar = 2e-2 if half else 1e-5
        alike(y.float(), z.float(), bar)
        for a, b in zip(eager, replayed, strict=True):
            alike(a, b, bar)
    assert len(graphed.graphs) == 2


def test_graphs_follow_the_weights():
    """Those that an optimizer changes in place, and those that lie elsewhere than when they were captured."""
    model, graphed = made(), GraphedFeed(Recursive(), BATCH)
    optimizer = torch.optim.Adam((p for p in model.parameters() if p.requires_grad), 1e-2, fused=True)
    for _ in range(3):
        step(model, graphed, 16)
        optimizer.step()
    alike(step(model, Recursive(), 16)[0], step(model, graphed, 16)[0], 1e-5)
    model.cpu().cuda()
    with torch.no_grad():
        model.out_h.weight.mul_(1.5)
    alike(step(model, Recursive(), 16)[0], step(model, graphed, 16)[0], 1e-5)


def test_the_pools_memory_is_returned():
    model, graphed = made(), GraphedFeed(Recursive(), 256)

    def taken() -> int:
        model.zero_grad()
        gc.collect()
        torch._C._cuda_clearCublasWorkspaces()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        return torch.cuda.memory_reserved()

    step(model, Recursive(), 76, rows=256)
    before = taken()
    for places in (16, 40, 76):
        step(model, graphed, places, rows=256)
    assert taken() > before + 2**22, "graphs keep memory while they live"
    graphed.release()
    assert taken() <= before + 2**22


def test_pictures_in_half_precision_are_those_in_full():
    sd = StableDiffusion.named("pixel")
    encoder = sd.encoder("cuda")
    renderer = sd.renderer(encoder, "cuda")
    assert renderer.dtype == torch.float16
    states = encoder(PROMPTS).states
    pictures, latents, _ = renderer.trajectory(states, range(len(PROMPTS)))
    assert latents.isfinite().all()
    exact = sd.renderer(sd.encoder("cpu"), "cpu")(states.cpu(), range(len(PROMPTS)))
    assert pictures.shape == exact.shape
    assert (pictures.float() - exact.float()).abs().mean() < 8, "of 255"


def test_states_are_the_cpus(encoder: TextEncoder):
    found = StableDiffusion.named("pixel").encoder("cuda")(PROMPTS)
    exact = encoder(PROMPTS)
    torch.testing.assert_close(found.states.cpu(), exact.states, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.embedding.cpu(), exact.embedding, rtol=1e-4, atol=1e-4)
    assert found.length.tolist() == exact.length.tolist()


@pytest.mark.parametrize("graphs", [False, True], ids=["eager", "graphs"])
def test_two_runs_with_one_seed_are_equal(graphs: bool, train: Callable[..., Ended], tmp_path: Path):
    for name in ("one", "other"):
        ended = train(f"hydra.run.dir={name}", f"trainer.cuda_graphs={graphs}", "trainer.max_epochs=2", "precision=bf16")
        assert ended.code == 0, ended.err
    one, other = (json.loads((tmp_path / name / "result.json").read_text(encoding="utf-8")) for name in ("one", "other"))
    assert one["val_loss"] == other["val_loss"]
    assert "CPU" not in one["machine"]["device"]
    weights = [(tmp_path / name / "deprojector" / "model.safetensors").read_bytes() for name in ("one", "other")]
    assert weights[0] == weights[1]
    assert torch.cuda.memory_allocated() < 2**28, "a run gives its memory back"
