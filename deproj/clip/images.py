"""Pictures to embeddings, as if they were texts: CLIP's image encoder, and the way across the gap.

In the space that CLIP's projections share, pictures and texts lie apart (Liang et al. 2022, "Mind the gap"), and pictures
vary in directions in which texts do not, which the inverse of the text projection W makes large. With z a picture's
projected embedding, z̄ the mean and v the mean of |z - z̄|² over pictures of all kinds, ē the mean embedding that the
deprojector was trained on and d(e) the distance from there (`deproj.clip.distance`), the picture's embedding is the e with
the least

    |W (e - ē) - (z - z̄)|² / v + λ d(e)²,    by default λ = 0.01.

Where the training embeddings are not known, it is W⁻¹ (W e∅ + z - z̄). `experiments/images_in` compares ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from deproj.clip.check import check_finite, variant
from deproj.clip.distance import EmbeddingDistance
from deproj.clip.encoder import LOAD_ERRORS, TextEncoder, first_line
from deproj.clip.pictures import as_clip_sees, open_picture, open_pictures, to_rgb
from deproj.pixel import NAME, local
from deproj.pixel.scenes import draw, sample
from deproj.process.errors import UserError
from deproj.process.hub import reach
from deproj.process.quiet import quiet_loading

__all__ = ["ImageEncoder", "open_picture", "open_pictures", "to_rgb", "way_across"]

#: Pictures that the mean is taken over, in the pixel world.
DRAWN = 500
#: λ
HOLD = 0.01


class ImageEncoder:
    """CLIP's image encoder.

    Args:
        clip: folder or hub id of the CLIP that the text encoder comes from.
        encoder: the text encoder, loaded with its projection.
        distance: of the deprojector, or None where it has none.
        pictures: of all kinds, a hundred or more. None in the pixel world, which draws its own.
        hold: λ, above 0: how much embeddings are held near the training embeddings.

    Attributes:
        mean: z̄, (D,).
        across: from z - z̄ to the difference to `start`, (D, D).
        start: the embedding of a picture like all others, (D,): ē or e∅.

    Raises:
        UserError: for a CLIP without image encoder, or without pictures.
    """

    def __init__(
        self,
        clip: str | Path,
        encoder: TextEncoder,
        distance: EmbeddingDistance | None = None,
        pictures: Sequence[Image.Image] | None = None,
        hold: float = HOLD,
    ) -> None:
        if encoder.projection is None or encoder.deprojection is None:
            raise UserError("no CLIP projection is known: load the encoder with clip set.")
        with quiet_loading():
            from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection
        if pictures is None and str(clip) == NAME:
            pictures = drawings()
        where = local(clip, "clip")
        if not pictures:
            raise UserError(f"pictures need the mean embedding of pictures of all kinds: hand over some for {where!r}.")
        reach(where, "config.json", "CLIP")
        try:
            with quiet_loading():
                model, info = CLIPVisionModelWithProjection.from_pretrained(
                    where, dtype=torch.float32, output_loading_info=True, variant=variant(where, [""])
                )
                self.processor = CLIPImageProcessor.from_pretrained(where)
        except LOAD_ERRORS as error:
            raise UserError(f"no CLIP at {where!r}: {first_line(error)}") from None
        if info["missing_keys"]:
            raise UserError(f"{where!r} has no whole image encoder: {sorted(info['missing_keys'])[0]} is missing.")
        check_finite(model.state_dict(), f"the image encoder of {where!r}")
        self.model: Any = model.eval().requires_grad_(False).to(encoder.model.device)
        seen = torch.cat([self.project(pictures[k : k + 50]) for k in range(0, len(pictures), 50)]).double()
        self.mean = seen.mean(0).float()
        self.encoder, self.hold = encoder, hold
        self.spread = (seen - seen.mean(0)).square().sum(1).mean()
        self.start, self.across = self.way(distance)

    def __repr__(self) -> str:
        return f"ImageEncoder(width {self.mean.shape[0]}, on {self.mean.device})"

    def way(self, distance: EmbeddingDistance | None) -> tuple[Tensor, Tensor]:
        """`start` and `across` for a deprojector with this distance."""
        encoder = self.encoder
        assert encoder.projection is not None
        assert encoder.deprojection is not None
        if distance is None:
            return encoder.empty.embedding[0], encoder.deprojection
        return way_across(encoder.projection, self.spread, distance, self.hold)

    def with_distance(self, distance: EmbeddingDistance | None) -> ImageEncoder:
        """The same image encoder for another deprojector."""
        other = copy(self)
        other.start, other.across = self.way(distance)
        return other

    def to(self, device: str | torch.device) -> Self:
        """Moves it, and not the text encoder, to a device."""
        self.model.to(device)
        self.mean, self.start, self.across = (one.to(device) for one in (self.mean, self.start, self.across))
        self.spread = self.spread.to(device)
        return self

    @torch.no_grad()
    def project(self, images: Sequence[Image.Image]) -> Tensor:
        """Projected embeddings z of pictures, (B, D), as CLIP computes them."""
        middle = bool(self.processor.do_center_crop)
        shown = [as_clip_sees(to_rgb(image), middle) for image in images]
        pixels = self.processor(images=shown, return_tensors="pt")["pixel_values"]
        embedded: Tensor = self.model(pixel_values=pixels.to(self.model.device)).image_embeds
        return embedded

    def __call__(self, images: Sequence[Image.Image]) -> Tensor:
        """Embeddings of pictures as if they were texts, (B, D)."""
        return self.start + (self.project(images) - self.mean) @ self.across.T


def way_across(projection: Tensor, spread: Tensor, distance: EmbeddingDistance, hold: float = HOLD) -> tuple[Tensor, Tensor]:
    """From a picture's projected embedding to its embedding as if it were a text.

    Args:
        projection: W, (D, D).
        spread: v, of pictures of all kinds, ().
        distance: of the deprojector.
        hold: λ.

    Returns:
        ē (D,), and the matrix that z - z̄ is multiplied by, (D, D).
    """
    w, whitening = projection.double(), distance.whitening.to(projection).double()
    normal = w.T @ w / spread + hold * whitening.T @ whitening
    return distance.mean.to(projection), torch.linalg.solve(normal, w.T / spread).float()


def drawings() -> list[Image.Image]:
    """Scenes of the pixel world, the same ones every time."""
    return [Image.fromarray(picture) for picture in draw(sample(DRAWN, np.random.default_rng(0)))]
