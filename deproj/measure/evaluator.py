"""All measures of one model or baseline on one set of prompts.

All settings get the same held-out prompts and the same seeds. The composed prompts are the single ones with commas; their
true states and reference pictures are those of the plain text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from deproj.clip.encoder import TextEncoder
from deproj.data.prompts import plain
from deproj.data.sources import PromptSource
from deproj.draw.renderer import Renderer
from deproj.measure import metrics
from deproj.measure.metrics import Measure, World
from deproj.process.errors import UserError
from deproj.selection import TokenSelection

__all__ = ["Evaluator", "evaluation_prompts", "prompts_of_file"]

VERSION = 1


class Subject(Protocol):
    """What can be evaluated."""

    def generate(self, embedding: Tensor) -> Tensor:
        """Embeddings (B, D) to states by place, SOS first, (B, 77, D)."""


def evaluation_prompts(source: PromptSource, count: int, seed: int) -> list[str]:
    """Held-out prompts with commas between their parts."""
    prompts = source.composed(count, seed)
    if len(prompts) < count:
        print(f"There are only {len(prompts)} held-out prompts; all of them are used.")
    return prompts


def prompts_of_file(path: Path, source: PromptSource) -> list[str]:
    """Prompts of a text file, a line each, none of which may have been trained on."""
    try:
        lines = path.read_text("utf-8-sig").splitlines()
        texts = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}.") from None
    if len(texts) < 2:
        raise UserError(f"{path} holds {len(texts) or 'no'} prompts; two different ones are needed at least.")
    if seen := source.trained_on(texts):
        raise UserError(
            f"{len(seen)} of the {len(texts)} prompts of {path} are among the training prompts, such as {seen[0]!r}; "
            "take them out."
        )
    return texts


@dataclass
class Evaluator:
    """Evaluates on one set of prompts in one Stable Diffusion; what belongs to these is computed once.

    Attributes:
        prompts: composed, (N,).
        renderer: None where pictures take too long: only the states are measured then.
        score_clip: folder or hub id of the CLIP of the CLIP score, where the world has no reader.
        cache: folder of what is computed once.
        seed: picture i is drawn with seed · N + i.
        compose_mean: whether composed prompts are the mean of their parts' embeddings, not the sum of the differences.
    """

    encoder: TextEncoder
    renderer: Renderer | None
    prompts: list[str]
    score_clip: str | None
    cache: Path
    seed: int = 0
    compose_mean: bool = False

    def __call__(self, subject: Subject, selection: TokenSelection) -> dict[str, Any]:
        """All measures of a subject whose states stand in a selection's order.

        Returns:
            What ``evaluation.json`` holds: for ``single`` and ``composed`` prompts each measure's value, 95 % interval over
            prompts and sample size, whether each region was trained, the error by place, and what every number is made of.
        """
        texts = [plain(prompt) for prompt in self.prompts]
        encoded = self.encoder(texts)
        states, length = encoded.states.float().cpu(), encoded.length.cpu()
        plan = selection(length)
        embeddings = {"single": encoded.embedding, "composed": self.encoder.compose(self.prompts, self.compose_mean)}
        world = self.world(states)
        result: dict[str, Any] = {"version": VERSION, "world": self.world_hash, "seed": self.seed, "prompts": self.prompts}
        result["by_place"], result["raw"] = {}, {}
        for kind, embedding in embeddings.items():
            with torch.no_grad():
                made = subject.generate(embedding.float()).float().cpu()
            found, result["trained"], by_place = metrics.state_errors(made, states, length, plan)
            if self.renderer is not None and world is not None:
                pictures = self.draw(made)
                found["conditioning error"] = metrics.conditioning_error(self.renderer, world, made)
                found |= self.of_pictures(pictures, world.pictures, texts)
            result[kind] = {name: summary(measure) for name, measure in found.items()}
            result["by_place"][kind] = rounded(by_place.tolist())
            result["raw"][kind] = {name: [rounded(m.above.tolist()), rounded(m.below.tolist())] for name, m in found.items()}
        return result

    @property
    def world_hash(self) -> str:
        """Of the text encoder and of all that pictures depend on: numbers compare within one world only."""
        if self.renderer is None:
            return self.encoder.hash[:16]
        scored = "" if self.renderer.settings.name == "pixel" or self.score_clip is None else f"-{self.score_clip}"
        return f"{self.encoder.hash[:16]}-{self.renderer.hash[:16]}{scored}"

    def draw(self, states: Tensor) -> Tensor:
        """Pictures of all prompts, (N, height, width, 3) uint8."""
        assert self.renderer is not None
        seeds, size = self.seeds(len(states)), self.renderer.chunk
        return torch.cat([self.renderer(states[k : k + size], seeds[k : k + size]) for k in range(0, len(states), size)])

    def seeds(self, count: int) -> list[int]:
        return list(range(self.seed * count, (self.seed + 1) * count))

    def world(self, states: Tensor) -> World | None:
        if self.renderer is None:
            return None
        key = {"version": VERSION, "encoder": self.encoder.hash, "prompts": self.prompts}
        return World.of(self.renderer, states, self.seeds(len(states)), key, self.cache)

    def of_pictures(self, pictures: Tensor, reference: Tensor, texts: list[str]) -> dict[str, Measure]:
        """Fidelity, noise and likeness."""
        assert self.renderer is not None
        found = {"likeness": metrics.likeness(pictures, reference)}
        if self.renderer.settings.name == "pixel":
            found["fidelity"] = metrics.reader_fidelity(pictures, texts)
            found["noise"] = metrics.redrawing(pictures, reference)
        elif self.score_clip is not None:
            found["clip score"] = metrics.clip_scores(pictures, texts, self.score_clip, self.renderer.device)
        return found


def summary(measure: Measure) -> dict[str, Any]:
    low, high = measure.interval()
    return dict(zip(("value", "low", "high"), rounded([measure.value, low, high]), strict=True)) | {
        "n": int((measure.below != 0).sum())
    }


def rounded(values: Sequence[float]) -> list[float | None]:
    """Numbers as JSON takes them: six digits, null for nan."""
    return [None if value != value else float(f"{value:.6g}") for value in values]
