"""All measures of one model or baseline on one set of prompts.

All settings get the same held-out prompts and the same seeds. The composed prompts are the single ones with commas; their
true states and reference pictures are those of the plain text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from deproj.clip.encoder import TextEncoder
from deproj.data.captions.open import read_captions
from deproj.data.sources import PromptSource
from deproj.draw.renderer import Renderer
from deproj.draw.stable_diffusion import StableDiffusion
from deproj.measure import metrics
from deproj.measure.metrics import Measure, Reference
from deproj.process.errors import UserError
from deproj.process.progress import SILENT, Progress
from deproj.runs.records import Evaluation, Measured, Summary
from deproj.selection import TokenSelection
from deproj.texts.benchmark import plain

__all__ = ["Evaluator", "evaluation_prompts", "prompts_of_file"]

VERSION = 1
#: Prompts that are encoded, and embeddings that are deprojected, at once: more of them might not fit a card.
AT_ONCE = 200


class Subject(Protocol):
    """What can be evaluated."""

    def generate(self, embedding: Tensor) -> Tensor:
        """Embeddings (B, D) to states by place, SOS first, (B, 77, D)."""


def evaluation_prompts(source: PromptSource, count: int, seed: int) -> list[str]:
    """Held-out prompts with commas between their parts."""
    prompts = source.composed(count, seed)
    if len(prompts) < count:
        there = f"only {len(prompts)} held-out prompts; all of them are used" if prompts else "no held-out prompts"
        print(f"There are {there}.")
    return prompts


def prompts_of_file(path: Path, source: PromptSource) -> list[str]:
    """Prompts of a file, read as captions are, none of which may have been trained on."""
    read = read_captions(str(path))
    if read.reading.altered:
        print(read)
    texts = list(dict.fromkeys(read.texts()))
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
        progress: is told how far it is.
    """

    encoder: TextEncoder
    renderer: Renderer | None
    prompts: list[str]
    score_clip: str | None
    cache: Path
    seed: int = 0
    compose_mean: bool = False
    progress: Progress = SILENT

    def __call__(self, subject: Subject, selection: TokenSelection) -> Evaluation:
        """All measures of a subject whose states stand in a selection's order."""
        with self.progress.phase("measuring"):
            return self.evaluation(subject, selection)

    def evaluation(self, subject: Subject, selection: TokenSelection) -> Evaluation:
        texts = [plain(prompt) for prompt in self.prompts]
        encoded = [self.encoder(some) for some in batched(texts, AT_ONCE)]
        states = torch.cat([some.states.float().cpu() for some in encoded])
        length = torch.cat([some.length.cpu() for some in encoded])
        plan = selection(length)
        own = torch.cat([some.embedding for some in encoded])
        embeddings = {"single": own, "composed": self.encoder.compose(self.prompts, self.compose_mean)}
        reference = self.reference(states)
        kinds: dict[str, Measured] = {}
        trained: dict[str, bool] = {}
        for kind, embedding in embeddings.items():
            with torch.no_grad():
                made = torch.cat([subject.generate(some).float().cpu() for some in embedding.float().split(AT_ONCE)])
            found, trained, by_place = metrics.state_errors(made, states, length, plan)
            if self.renderer is not None and reference is not None:
                found["conditioning_error"] = metrics.conditioning_error(self.renderer, reference, made, self.progress)
                found |= self.of_pictures(self.draw(made), reference.pictures, texts)
            kinds[kind] = measured(found, by_place)
        return Evaluation(VERSION, self.world_hash, self.seed, self.prompts, trained, kinds["single"], kinds["composed"])

    @property
    def sd(self) -> StableDiffusion:
        assert self.renderer is not None
        return StableDiffusion(self.renderer.settings)

    @property
    def world_hash(self) -> str:
        """Of the text encoder and of all that pictures depend on: numbers compare within one world only."""
        texts = self.encoder.hash[:16] + self.encoder.texts_hash.removeprefix(self.encoder.hash)
        if self.renderer is None:
            return texts
        scored = "" if self.sd.miniature or self.score_clip is None else f"-{self.score_clip}"
        return f"{texts}-{self.renderer.hash[:16]}{scored}"

    def draw(self, states: Tensor) -> Tensor:
        """Pictures of all prompts, (N, height, width, 3) uint8."""
        assert self.renderer is not None
        count, size = len(states), self.renderer.chunk
        seeds, parts = self.seeds(count), []
        with self.progress.phase(f"drawing {count} pictures", count * self.renderer.settings.steps) as phase:
            for k in range(0, count, size):
                parts.append(self.renderer(states[k : k + size], seeds[k : k + size], phase.advance))
        return torch.cat(parts)

    def seeds(self, count: int) -> list[int]:
        return list(range(self.seed * count, (self.seed + 1) * count))

    def reference(self, states: Tensor) -> Reference | None:
        """What is computed from the true states (N, 77, D); None where nothing is drawn."""
        if self.renderer is None:
            return None
        key = {"version": VERSION, "encoder": self.encoder.texts_hash, "prompts": self.prompts}
        return Reference.of(self.renderer, states, self.seeds(len(states)), key, self.cache, self.progress)

    def of_pictures(self, pictures: Tensor, reference: Tensor, texts: list[str]) -> dict[str, Measure]:
        """Fidelity, noise, two colours and likeness."""
        assert self.renderer is not None
        found = {"likeness": metrics.likeness(pictures, reference)}
        if (reader := self.sd.reader()) is not None:
            found["fidelity"] = metrics.reader_fidelity(pictures, texts, reader)
            clean = metrics.distances(reference, reader, self.cache, self.progress)
            found |= metrics.redrawing(pictures, clean, reader, self.progress)
        elif self.score_clip is not None:
            found["clip_score"] = metrics.clip_scores(pictures, texts, self.score_clip, self.renderer.device)
        return found


def batched(texts: Sequence[str], size: int) -> list[Sequence[str]]:
    """Texts in parts of a size."""
    return [texts[start : start + size] for start in range(0, len(texts), size)]


def measured(found: dict[str, Measure], by_place: Tensor) -> Measured:
    """Measures and the error by place (77,) as they are stored."""
    return Measured(
        {name: summary(measure) for name, measure in found.items()},
        {name: (sixes(m.above.tolist()), sixes(m.below.tolist())) for name, m in found.items()},
        [six(value) for value in by_place.tolist()],
    )


def summary(measure: Measure) -> Summary:
    low, high = measure.interval()
    return Summary(six(measure.value), six(low), six(high), int((measure.below != 0).sum()))


def six(value: float) -> float | None:
    """A number as JSON takes it: six digits, None for nan."""
    return None if value != value else float(f"{value:.6g}")


def sixes(values: Sequence[float]) -> list[float]:
    """Finite numbers at six digits."""
    return [float(f"{value:.6g}") for value in values]
