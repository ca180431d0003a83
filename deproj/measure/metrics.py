"""The numbers: how good generated states are, as states, to the U-Net, and as pictures.

Everything is of free-running generation. ĉ are generated states and c the true ones, i numbers the prompts. A number is
a ratio of sums over prompts, Σ aᵢ / Σ bᵢ (a mean has b = 1), so that one bootstrap over prompts serves all of them.

To add a measure, write its function here, call it in `deproj.measure.evaluator`, name it in `deproj.runs.records.MEASURES`, and
explain it above the table of `deproj.report.page`. Evaluations of before lack it; where a measure is computed in another way, its
`VERSION` goes up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from deproj.clip.check import variant
from deproj.clip.encoder import LOAD_ERRORS, first_line
from deproj.draw.renderer import Renderer
from deproj.measure.compare import of_prompts
from deproj.pixel.colours import two_coloured
from deproj.pixel.grammar import asked
from deproj.pixel.reader import Reader
from deproj.pixel.redraw import VERSION as REDRAW_VERSION
from deproj.pixel.redraw import redraw
from deproj.pixel.scenes import fingerprint as scenes_fingerprint
from deproj.process.errors import UserError
from deproj.process.kept import digest, kept
from deproj.process.progress import SILENT, Progress
from deproj.process.quiet import quiet_loading
from deproj.selection import PLACES, Plan

#: Pictures that a CLIP scores at once.
SCORED_AT_ONCE = 50

__all__ = [
    *("Measure", "Reference", "clip_scores", "conditioning_error", "distances", "likeness"),
    *("reader_fidelity", "redrawing", "state_errors"),
]


@dataclass(frozen=True)
class Measure:
    """One number with what it is made of.

    Attributes:
        above, below: aᵢ and bᵢ, (N,); the value is Σ aᵢ / Σ bᵢ. A prompt of which there is nothing to measure has
            both 0.
    """

    above: np.ndarray
    below: np.ndarray

    @classmethod
    def mean(cls, values: Sequence[float] | np.ndarray) -> Measure:
        """The mean of one value a prompt; nan stands for a prompt without one."""
        array = np.asarray(values, float)
        return cls(np.nan_to_num(array), (~np.isnan(array)).astype(float))

    @property
    def value(self) -> float:
        below = self.below.sum()
        return float(self.above.sum() / below) if below else float("nan")

    def interval(self) -> tuple[float, float]:
        """95 %: a percentile bootstrap over prompts (Efron and Tibshirani 1993, chapter 13), as in reports."""
        ratios = of_prompts(np.array([[self.above], [self.below]], float))
        if np.isnan(ratios).all():
            return float("nan"), float("nan")
        low, high = np.nanquantile(ratios, [0.025, 0.975])  # a resample may hold nothing to measure
        return float(low), float(high)


# --- States ---------------------------------------------------------------------------------------


def state_errors(
    sequence: Tensor, states: Tensor, length: Tensor, plan: Plan
) -> tuple[dict[str, Measure], dict[str, bool], Tensor]:
    """How far states are from the true ones, by region.

    With S the (prompt, position) pairs of a region, m_p the mean true state at position p over the prompts:

        mse     mean over S of |ĉ - c|² / D
        cosine  mean over S of ĉ·c / |ĉ||c|
        r2      1 - Σ_S |ĉ - c|² / Σ_S |c - m_p|²

    Regions: words (positions 1..L-2), eos (position L-1), padding (L..76). SOS is constant and left out.

    Args:
        sequence: generated states by place, (N, 77, D).
        states: true ones by position, (N, 77, D).
        plan: of the model's selection for these lengths: places are put back to positions by it.

    Returns:
        Measures by name, as in ``mse words``; for each region whether the selection trains any of it; and the squared
        error at each *place*, mean over prompts and D, (77,).
    """
    position = torch.arange(PLACES)[None]
    last = length[:, None] - 1
    regions = {"words": (position > 0) & (position < last), "eos": position == last, "padding": position > last}
    made = plan.restore(sequence.double())
    true = states.double()
    squared = (made - true).square().mean(-1)
    spread = (true - true.mean(0)).square().mean(-1)
    cosine = torch.cosine_similarity(made, true, dim=-1)
    trained = plan.restore(plan.weight[:, :, None])[:, :, 0] > 0
    measures, is_trained = {}, {}
    for name, region in regions.items():
        count = region.sum(1).double().numpy()

        def over(values: Tensor, region: Tensor = region) -> np.ndarray:
            return (values * region).sum(1).numpy()

        measures[f"mse_{name}"] = Measure(over(squared), count)
        measures[f"cosine_{name}"] = Measure(over(cosine), count)
        measures[f"r2_{name}"] = Measure(over(spread) - over(squared), over(spread))
        is_trained[name] = bool((trained & region).any())
    by_place = (sequence.double() - plan.arrange(true)).square().mean((0, 2))
    return measures, is_trained, by_place


# --- The U-Net ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reference:
    """What one Stable Diffusion makes of the true states of the prompts, whatever model is evaluated: computed once.

    Attributes:
        pictures: from the true states, (N, height, width, 3) uint8.
        latents: what the U-Net saw at each step on the way there, (steps, N, channels, h, w).
        steps: the timesteps, (steps,).
        noise: the U-Net's ε(xₜ, t, c), as `latents`.
        below: Σₜ |ε(xₜ, t, ∅) - ε(xₜ, t, c)|², (N,).
    """

    pictures: Tensor
    latents: Tensor
    steps: Tensor
    noise: Tensor
    below: Tensor

    @classmethod
    def of(
        cls,
        renderer: Renderer,
        states: Tensor,
        seeds: Sequence[int],
        key: dict[str, Any],
        cache: Path,
        progress: Progress = SILENT,
    ) -> Reference:
        """Computes it, or takes it from the cache folder, where `key` names what it was made from."""
        named = hashlib.blake2b(repr((sorted(key.items()), renderer.hash, list(seeds))).encode(), digest_size=10)
        path = cache / f"{named.hexdigest()}.safetensors"
        return cls(**kept(path, lambda: vars(cls.drawn(renderer, states, seeds, progress)), "the pictures from the true states"))

    @classmethod
    def drawn(cls, renderer: Renderer, states: Tensor, seeds: Sequence[int], progress: Progress = SILENT) -> Reference:
        """Computes it."""
        parts = []
        # at every step of the sampler the U-Net is asked for each picture, and afterwards once more with states and without
        total = 3 * renderer.settings.steps * len(states)
        with progress.phase(f"drawing {len(states)} pictures from the true states", total) as phase:

            def found(latents: Tensor, steps: Tensor, states: Tensor) -> Tensor:
                noises = []
                for x, t in zip(latents, steps, strict=True):
                    noises.append(renderer.noise(x, t, states))
                    phase.advance(len(states))
                return torch.stack(noises)

            for start in range(0, len(states), renderer.chunk):
                part = states[start : start + renderer.chunk]
                pictures, latents, steps = renderer.trajectory(part, seeds[start : start + renderer.chunk], phase.advance)
                noise = found(latents, steps, part)
                without = found(latents, steps, renderer.empty[None].expand(len(part), -1, -1))
                below = (without - noise).double().square().sum((0, 2, 3, 4))
                parts.append((pictures, latents, noise, below))
        pictures_all, below_all = torch.cat([p[0] for p in parts]), torch.cat([p[3] for p in parts])
        return cls(pictures_all, torch.cat([p[1] for p in parts], 1), steps, torch.cat([p[2] for p in parts], 1), below_all)


def conditioning_error(renderer: Renderer, reference: Reference, states: Tensor, progress: Progress = SILENT) -> Measure:
    """Σᵢₜ |ε(xₜ,t,ĉ) - ε(xₜ,t,c)|² / Σᵢₜ |ε(xₜ,t,∅) - ε(xₜ,t,c)|², xₜ on the true states' own way.

    0: drives the U-Net as the true states do; 1: no better than an empty prompt.

    Args:
        states: (N, T, D).
    """
    above = torch.zeros_like(reference.below)
    with progress.phase("measuring the conditioning error", len(reference.steps) * len(states)) as phase:
        for start in range(0, len(states), renderer.chunk):
            rows = slice(start, start + renderer.chunk)
            for x, t, noise in zip(reference.latents[:, rows], reference.steps, reference.noise[:, rows], strict=True):
                above[rows] += (renderer.noise(x, t, states[rows]) - noise).double().square().sum((1, 2, 3))
                phase.advance(len(x))
    return Measure(above.numpy(), reference.below.numpy())


# --- Pictures -------------------------------------------------------------------------------------


def reader_fidelity(pictures: Tensor, prompts: Sequence[str], reader: Reader) -> Measure:
    """Prompt fidelity in the pixel world: of the attributes a prompt asks for, the share its reader finds."""
    shares = reader.fidelity(pictures.permute(0, 3, 1, 2).float() / 127.5 - 1, [asked(prompt) for prompt in prompts])
    return Measure.mean(shares)


@torch.no_grad()
def clip_scores(pictures: Tensor, prompts: Sequence[str], clip: str, device: str) -> Measure:
    """CLIP score, 100 cos(image, text) (Hessel et al. 2021, w = 100 and not cut off at 0).

    Computed on CLIPModel's features, since torchmetrics' own fails with this transformers.

    Args:
        clip: folder or hub id, with tokenizer and preprocessor.

    Raises:
        UserError: for what is no whole CLIP.
    """
    from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer  # seconds, and no need of them in the pixel world

    try:
        with quiet_loading():
            model = CLIPModel.from_pretrained(clip, dtype=torch.float32, variant=variant(clip, [""])).eval().to(device)
            tokenizer, processor = CLIPTokenizer.from_pretrained(clip), CLIPImageProcessor.from_pretrained(clip)
    except LOAD_ERRORS as error:
        raise UserError(f"no CLIP at {clip!r} to score pictures with: {first_line(error)}") from None
    scores = []
    for start in range(0, len(prompts), SCORED_AT_ONCE):
        some = slice(start, start + SCORED_AT_ONCE)
        tokens = tokenizer(list(prompts[some]), padding=True, truncation=True, return_tensors="pt").to(device)
        images = [Image.fromarray(picture.numpy()) for picture in pictures[some]]
        pixels = processor(images=images, return_tensors="pt")["pixel_values"].to(device)
        output = model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"], pixel_values=pixels)
        scores.append(100 * torch.cosine_similarity(output.image_embeds, output.text_embeds))
    return Measure.mean(torch.cat(scores).cpu().numpy())


def distances(pictures: Tensor, reader: Reader, cache: Path, progress: Progress = SILENT) -> Tensor:
    """Distances of the true states' pictures to their nearest drawings, (N,), computed or taken from the cache folder."""
    made_from = (REDRAW_VERSION, scenes_fingerprint(), digest({"pictures": pictures, **reader.state_dict()}))
    name = hashlib.blake2b(repr(made_from).encode(), digest_size=10).hexdigest()

    def found() -> dict[str, Tensor]:
        return {"distance": redraw(pictures, reader, progress=progress).distance}

    return kept(cache / f"{name}-redrawn.safetensors", found, "the drawings nearest to the pictures from the true states")[
        "distance"
    ]


def redrawing(pictures: Tensor, reference: Tensor, reader: Reader, progress: Progress = SILENT) -> dict[str, Measure]:
    """How clean pictures are in the pixel world, by their nearest drawings (`deproj.pixel.redraw`).

    Args:
        reference: distances of the true states' pictures to theirs, (N,).

    Returns:
        ``noise``, how much farther pictures are from what the scene code can draw than those of the true states: the ratio of the
        mean root mean square differences. It rises with noise added to latents, and changes less with the content than skimage's
        `estimate_sigma` does (`experiments/noise`). And ``two colours``, the share of pictures whose hair or eyes are of two
        colours, of those of one girl or boy (`deproj.pixel.colours`).
    """
    nearest = redraw(pictures, reader, progress=progress)
    noise = Measure(nearest.distance.double().numpy(), reference.double().numpy())
    return {"noise": noise, "two_colours": Measure.mean(two_coloured(pictures, nearest.scenes).double().numpy())}


def likeness(pictures: Tensor, reference: Tensor) -> Measure:
    """Structural similarity (Wang et al. 2004) to the picture of the true states from the same seed."""
    found = []
    for both in zip(pictures.split(20), reference.split(20), strict=True):
        ours, theirs = (images.permute(0, 3, 1, 2).float() / 255 for images in both)
        similarity = structural_similarity_index_measure(ours, theirs, data_range=1.0, reduction="none")
        assert isinstance(similarity, Tensor)
        found.append(similarity.reshape(-1))
    return Measure.mean(torch.cat(found).numpy())
