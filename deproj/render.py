"""States to pictures, through a diffusers pipeline; and labelled sheets of them. No Lightning."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from deproj.encoder import LOAD_ERRORS, first_line, locate, quiet_transformers
from deproj.errors import UserError
from deproj.files import replacing

__all__ = ["Renderer", "SdSettings", "sheet"]


@dataclass(frozen=True)
class SdSettings:
    """The settings under ``sd``: what tells one Stable Diffusion from another.

    Attributes:
        name: ``pixel`` or ``sd15``, for people.
        path: folder or hub id of the pipeline.
        clip: folder or hub id of its CLIP, or None.
        steps: of the sampler, DPM-Solver++.
        guidance: classifier-free guidance, 1 for none.
        cpu: whether it is quick enough to draw without CUDA.
        prompts, samples: what data.prompts and data.size are by default.
    """

    name: str
    path: str
    clip: str | None
    steps: int
    guidance: float
    cpu: bool
    prompts: str | None
    samples: int

    def __post_init__(self) -> None:
        if self.steps < 1 or not 1 <= self.guidance < math.inf:
            raise UserError(f"sd.steps and sd.guidance are finite and at least 1; got {self.steps} and {self.guidance}.")


class Renderer:
    """Draws pictures from states.

    Args:
        settings: which pipeline, and how it samples.
        empty: the true states of the empty prompt, (77, D), the negative prompt of every picture.
        device: on CUDA the weights are float16, on a CPU float32.
    """

    def __init__(self, settings: SdSettings, empty: Tensor, device: str) -> None:
        with quiet_transformers():  # diffusers imports image processors that want torchvision; we use none
            from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
            from diffusers.utils import logging

        self.settings, self.empty, self.device = settings, empty, device
        where = locate(settings.path)
        self.dtype = torch.float16 if device.startswith("cuda") else torch.float32
        logging.disable_progress_bar()
        try:
            pipe = StableDiffusionPipeline.from_pretrained(
                where, text_encoder=None, tokenizer=None, safety_checker=None, feature_extractor=None,
                requires_safety_checker=False, dtype=self.dtype,
            )  # fmt: skip
        except LOAD_ERRORS as error:
            raise UserError(f"the pipeline {where!r} cannot be loaded: {first_line(error)}") from None
        finally:
            logging.enable_progress_bar()
        pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config, algorithm_type="dpmsolver++")
        pipe.set_progress_bar_config(disable=True)
        self.pipe: Any = pipe.to(device)
        # how many pictures to draw at once where there are many: more are no faster on a CPU, or need too much memory
        self.chunk = 50 if pipe.unet.config.sample_size <= 16 else 4

    @cached_property
    def hash(self) -> str:
        """Of the U-Net's and the VAE's weights and of how pictures are sampled."""
        sampling = (self.settings.steps, self.settings.guidance, self.dtype, sorted(self.pipe.scheduler.config.items()))
        digest = hashlib.blake2b(repr(sampling).encode(), digest_size=16)
        for part in (self.pipe.unet, self.pipe.vae):
            for name, value in part.state_dict().items():
                digest.update(name.encode() + value.cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def __call__(self, states: Tensor, seeds: Sequence[int]) -> Tensor:
        """Draws one picture for each sequence of states, all in one batch.

        A picture depends on its states and its seed alone (but for rounding), not on the batch.

        Args:
            states: (B, T, D).
            seeds: one a picture.

        Returns:
            Pictures, (B, height, width, 3) uint8 on the CPU.
        """
        return self._draw(states, seeds, None)

    def trajectory(self, states: Tensor, seeds: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Draws, and tells what the U-Net saw on the way.

        Returns:
            Pictures as above, noisy latents (steps, B, channels, h, w) float32 on the CPU, timesteps (steps,).
        """
        seen: list[Tensor] = []
        pictures = self._draw(states, seeds, seen)
        return pictures, torch.stack(seen), self.pipe.scheduler.timesteps.cpu()

    @torch.no_grad()
    def noise(self, latents: Tensor, step: Tensor, states: Tensor) -> Tensor:
        """The noise that the U-Net finds in latents (B, channels, h, w) at a timestep, float32 on the CPU."""
        scheduler = self.pipe.scheduler
        x = latents.to(self.device, self.dtype)
        out = self.pipe.unet(x, step.to(self.device), encoder_hidden_states=states.to(self.device, self.dtype)).sample.float()
        if scheduler.config.prediction_type == "v_prediction":
            signal = scheduler.alphas_cumprod[int(step)].to(self.device)
            out = signal.sqrt() * out + (1 - signal).sqrt() * x.float()
        return out.cpu()

    @torch.no_grad()
    def _draw(self, states: Tensor, seeds: Sequence[int], seen: list[Tensor] | None) -> Tensor:
        """Draws; appends the latents that the U-Net sees at every step to `seen`."""

        def note(unet: Any, arguments: tuple[Tensor, ...], options: dict[str, Any]) -> None:
            assert seen is not None
            seen.append(arguments[0][-len(states) :].float().cpu())  # guidance doubles the batch

        states = states.to(self.device, self.dtype)
        negative = self.empty.to(self.device, self.dtype)[None].expand(len(states), -1, -1)
        hook = None if seen is None else self.pipe.unet.register_forward_pre_hook(note, with_kwargs=True)
        drawn = self.pipe(
            prompt_embeds=states,
            negative_prompt_embeds=negative if self.settings.guidance > 1 else None,
            guidance_scale=self.settings.guidance,
            num_inference_steps=self.settings.steps,
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            output_type="pt",
        ).images
        if hook is not None:
            hook.remove()
        pictures: Tensor = (drawn.float().permute(0, 2, 3, 1) * 255).round().clamp(0, 255).byte().cpu()
        return pictures


def sheet(rows: dict[str, Tensor], columns: Sequence[str], side: int = 160, halves: bool = True) -> Image.Image:
    """A labelled sheet of pictures.

    Args:
        rows: a label, then one picture a column, (columns, height, width, 3) uint8.
        columns: labels, a prompt each.
        side: of a picture on the sheet, in pixels; small ones are enlarged without smoothing.
        halves: whether a gap parts the first half of the columns from the second.
    """
    font, small = ImageFont.load_default(15), ImageFont.load_default(13)
    left, top, gap, middle = 150, 64, 8, 24
    half = len(columns) // 2 if halves else len(columns)

    def x_of(column: int) -> int:
        return left + column * (side + gap) + (middle if column >= half else 0)

    image = Image.new("RGB", (x_of(len(columns)) + gap, top + len(rows) * (side + gap) + gap), "white")
    pen = ImageDraw.Draw(image)
    for column, label in enumerate(columns):
        lines = wrap(label, small, side).split("\n")
        label = "\n".join(lines if len(lines) <= 3 else [*lines[:2], f"{lines[2]} …"])
        pen.multiline_text((x_of(column), 8), label, "black", small, spacing=2)
    for row, (label, pictures) in enumerate(rows.items()):
        y = top + row * (side + gap)
        pen.multiline_text((8, y + 8), wrap(label, font, left - 16), "black", font)
        for column, picture in enumerate(pictures):
            tile = enlarged(picture, side)
            image.paste(tile.resize((side, side), Image.Resampling.LANCZOS), (x_of(column), y))
    return image


def enlarged(picture: Tensor, side: int = 160) -> Image.Image:
    """A picture, (height, width, 3) uint8; one that is narrower than `side` is enlarged to it without smoothing."""
    image = Image.fromarray(picture.numpy())
    return image if image.width >= side else image.resize((side, side), Image.Resampling.NEAREST)


def wrap(text: str, font: Any, width: int) -> str:
    """Text broken into lines that fit a width in pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) > width and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    return "\n".join(lines)


def save_image(image: Image.Image, path: Path, about: dict[str, str] | None = None) -> None:
    """Writes a PNG whole or not at all.

    Args:
        about: notes that are stored in the file.
    """
    notes = PngInfo()
    for name, value in (about or {}).items():
        notes.add_itxt(name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        image.save(temporary, "PNG", pnginfo=notes)
