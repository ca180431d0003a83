"""Captions' pictures as the latents of a Stable Diffusion's VAE."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from deproj.data.pictures import CaptionPictures
from deproj.draw.renderer import Renderer
from deproj.process.kept import digest

__all__ = ["CaptionLatents"]


class CaptionLatents:
    """Pictures cut to the shape that a U-Net draws, from the middle, and encoded without noise.

    Attributes:
        shape: of one picture's latents, (channels, h, w).
    """

    def __init__(self, pictures: CaptionPictures, renderer: Renderer, shape: tuple[int, int, int]) -> None:
        self.pictures, self.renderer, self.shape = pictures, renderer, shape

    @cached_property
    def key(self) -> dict[str, Any]:
        weights = self.renderer.pipe.vae.state_dict()
        return {"pictures": self.pictures.fingerprint, "vae": digest(weights), "shape": list(self.shape)}

    @torch.no_grad()
    def of(self, texts: Sequence[str], seed: int) -> np.ndarray:
        """(B, channels, h, w) float16."""
        vae, scale = self.renderer.pipe.vae, self.renderer.pipe.vae_scale_factor
        size = (self.shape[2] * scale, self.shape[1] * scale)
        fitted = [ImageOps.fit(picture, size, Image.Resampling.LANCZOS) for picture in self.pictures.of(texts, seed)]
        pixels = torch.from_numpy(np.stack([np.asarray(picture) for picture in fitted])).permute(0, 3, 1, 2)
        found = []
        for some in pixels.split(self.renderer.chunk):
            latents = vae.encode((some.to(vae.device, vae.dtype) / 127.5) - 1).latent_dist.mode()
            found.append((latents - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor)
        return torch.cat(found).float().cpu().numpy().astype(np.float16)
