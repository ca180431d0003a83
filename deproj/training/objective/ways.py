"""Captions on their way from noise to a picture: where the U-Net looks at states, without a picture being needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deproj.data.cache import Rows
from deproj.draw.denoiser import Denoiser

__all__ = ["Asked", "Pool", "noised", "way"]

#: What a pool keeps of a sample.
KEPT = ("variants", "states", "length")


@dataclass(frozen=True)
class Asked:
    """B samples with what the U-Net is asked about them.

    Attributes:
        rows: the samples.
        x: noised latents, (B, channels, h, w).
        t: noise level of each, (B,) int64.
        true: the noise that the U-Net finds with the true states, as `x`.
        without: that of the empty prompt.
    """

    rows: Rows
    x: Tensor
    t: Tensor
    true: Tensor
    without: Tensor


def levels(steps: int, jitter: Tensor, of: int) -> Tensor:
    """Noise levels of ways, from noise to the picture, (B, steps) int64.

    Args:
        jitter: by what share of a step each way's levels are moved, (B,) in [0, 1).
        of: noise levels that there are.
    """
    at = torch.arange(steps, 0, -1, device=jitter.device)[None] - jitter[:, None]
    return (at * of / steps).long().clamp(max=of - 1)


@torch.no_grad()
def answers(denoiser: Denoiser, x: Tensor, t: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
    """The noise found with the true states and with the empty prompt's, in one call."""
    empty = denoiser.empty.to(states)[None].expand_as(states)
    found = denoiser.noise(torch.cat([x, x]), torch.cat([t, t]), torch.cat([states, empty]))
    true, without = found.chunk(2)
    return true, without


@torch.no_grad()
def way(denoiser: Denoiser, rows: Rows, steps: int, chosen: list[int], generator: torch.Generator) -> list[Asked]:
    """What the U-Net is asked at some of the steps of whole ways, each from a noise of its own.

    Args:
        chosen: numbers of the steps, 0 the noisiest.
        generator: on the CPU.
    """
    count, device = len(rows.length), denoiser.signal.device
    jitter = torch.rand(count, generator=generator).to(device)
    x = torch.randn(count, *denoiser.latent_shape, generator=generator).to(rows.states)
    grid, asked = levels(steps, jitter, denoiser.levels), []
    for k in range(max(chosen) + 1):
        true, without = answers(denoiser, x, grid[:, k], rows.states)
        if k in chosen:
            asked.append(Asked(rows, x, grid[:, k], true, without))
        to = grid[:, k + 1] if k + 1 < steps else torch.full_like(grid[:, k], -1)
        x = denoiser.moved(x, denoiser.guided(true, without), grid[:, k], to)
    return asked


@torch.no_grad()
def noised(denoiser: Denoiser, rows: Rows, generator: torch.Generator) -> Asked:
    """What the U-Net is asked about pictures of the captions, each at a noise level of its own, drawn evenly.

    Args:
        rows: with latents.
        generator: on the CPU.
    """
    assert rows.latents is not None
    t = torch.randint(denoiser.levels, (len(rows.length),), generator=generator).to(denoiser.signal.device)
    noise = torch.randn(rows.latents.shape, generator=generator).to(rows.latents)
    a, b = denoiser.of_signal(t)
    x = (a * rows.latents + b * noise).to(rows.states)
    true, without = answers(denoiser, x, t, rows.states)
    return Asked(rows, x, t, true, without)


class Pool:
    """Captions on their way, each moved on by a step of DDIM, guided by its true states, whenever it is used.

    Whenever a caption is used, one of the variants of its embedding is drawn. Captions stand at different steps, so that a batch
    has all noise levels, and a step of training costs one call of the U-Net without a gradient, not a whole way. A caption that
    has come to its end makes room for one of the next batch; the first ones are made to end early, each at another step, so
    that they don't go in step.

    Args:
        batches: how many batches of captions are on their way.
        steps: of a way.
        seed: of noise and levels.
    """

    def __init__(self, batches: int, steps: int, seed: int) -> None:
        self.batches, self.steps = batches, steps
        self.generator = torch.Generator().manual_seed(seed)
        self.turn = 0
        self.held: dict[str, Tensor] = {}

    def draw(self, denoiser: Denoiser, rows: Rows) -> Asked:
        """The captions whose turn it is, `rows` in the place of those that have come to their end, and moves them on."""
        if not self.held:
            self.make_room(denoiser, rows)
        size = len(self.held["at"]) // self.batches
        turn = torch.arange(size) + self.turn % self.batches * size
        self.take_in(denoiser, rows, turn[self.held["at"][turn] >= self.held["end"][turn]])
        self.turn += 1
        there = turn[self.held["at"][turn] < self.held["end"][turn]]
        where = there.to(denoiser.signal.device)
        held = {name: self.held[name][where] for name in ("variants", "states", "length", "x", "levels")}
        at = self.held["at"][there].to(where)
        t = held["levels"].gather(1, at[:, None])[:, 0]
        true, without = answers(denoiser, held["x"], t, held["states"])
        to = torch.where(at + 1 < self.steps, held["levels"].gather(1, (at + 1).clamp(max=self.steps - 1)[:, None])[:, 0], -1)
        self.held["x"][where] = denoiser.moved(held["x"], denoiser.guided(true, without), t, to)
        self.held["at"][there] += 1
        used = Rows(self.one_of(held["variants"]), held["states"], held["length"], rows.share, rows.whole)
        return Asked(used, held["x"], t, true, without)

    def one_of(self, variants: Tensor) -> Tensor:
        """An embedding of each sample's, (B, D), drawn from all of its variants (B, variants, D)."""
        count, of, _ = variants.shape
        if of == 1:
            return variants[:, 0]
        drawn = torch.randint(of, (count,), generator=self.generator).to(variants.device)
        return variants[torch.arange(count, device=variants.device), drawn]

    def make_room(self, denoiser: Denoiser, rows: Rows) -> None:
        count, device = self.batches * len(rows.length), denoiser.signal.device

        def empty(like: Tensor) -> Tensor:
            return torch.zeros(count, *like.shape[1:], dtype=like.dtype, device=device)

        self.held = {name: empty(getattr(rows, name)) for name in KEPT}
        self.held["x"] = torch.zeros(count, *denoiser.latent_shape, dtype=rows.states.dtype, device=device)
        self.held["levels"] = torch.zeros(count, self.steps, dtype=torch.int64, device=device)
        # on the CPU, so that no step waits for the device
        self.held |= {"at": torch.zeros(count, dtype=torch.int64), "end": torch.zeros(count, dtype=torch.int64)}

    def take_in(self, denoiser: Denoiser, rows: Rows, free: Tensor) -> None:
        """Begins the ways of some rows of a batch, drawn at random since batches may be sorted, in the places that are free."""
        free = free[: len(rows.length)]
        count, device = len(free), denoiser.signal.device
        where, new = free.to(device), torch.randperm(len(rows.length), generator=self.generator)[:count].to(rows.length.device)
        for name in KEPT:
            self.held[name][where] = getattr(rows, name)[new].to(device)
        jitter = torch.rand(count, generator=self.generator)
        noise = torch.randn(count, *denoiser.latent_shape, generator=self.generator)
        self.held["levels"][where] = levels(self.steps, jitter, denoiser.levels).to(device)
        self.held["x"][where] = noise.to(self.held["x"])
        early = torch.randint(1, self.steps + 1, (count,), generator=self.generator)
        self.held["at"][free] = 0
        self.held["end"][free] = early if self.turn < self.batches else self.steps

    def state(self) -> dict[str, Any]:
        return {"held": self.held, "turn": self.turn, "generator": self.generator.get_state()}

    def restore(self, state: dict[str, Any], device: torch.device) -> None:
        self.held = {name: value.to("cpu" if name in ("at", "end") else device) for name, value in state["held"].items()}
        self.turn = int(state["turn"])
        self.generator.set_state(state["generator"].cpu())
