"""One Stable Diffusion: its settings, and all that belongs to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deproj.draw.settings import SdSettings
from deproj.pixel.grammar import never_said, phrases, sayable
from deproj.process.errors import UserError
from deproj.settings.compose import read_config
from deproj.settings.inside import settings_inside
from deproj.settings.nodes import settings
from deproj.settings.shipped import CONF

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from PIL.Image import Image

    from deproj.clip.distance import EmbeddingDistance
    from deproj.clip.encoder import TextEncoder
    from deproj.clip.images import ImageEncoder
    from deproj.draw.renderer import Renderer
    from deproj.pixel.reader import Reader

__all__ = ["StableDiffusion"]


@dataclass(frozen=True)
class StableDiffusion:
    """A Stable Diffusion by its settings; its parts are loaded when they are asked for.

    The pixel world brings a reader of its pictures and drawings of all kinds; others have neither.
    """

    settings: SdSettings

    @classmethod
    def of(cls, config: dict[str, Any]) -> StableDiffusion:
        """That of a run's settings.

        Raises:
            UserError: where they name none, or a value that isn't allowed.
        """
        if not isinstance(node := config.get("sd"), dict):
            raise UserError(f"the run's config.yaml has no sd, but {node!r}; name the pipeline with --sd.")
        return cls(settings(SdSettings, node, "sd"))

    @classmethod
    def named(cls, sd: str | Path, clip: str | Path | None = None) -> StableDiffusion:
        """The pixel world, or any Stable Diffusion 1.x, with the settings that ship, or a saved pipeline with its own.

        Args:
            sd: ``pixel``, a folder, a single file or a hub id.
            clip: folder or hub id of the CLIP that its text encoder comes from; ``pixel`` and most saved pipelines bring their
                own.
        """
        if (inside := settings_inside(sd)) is not None:
            return cls.of(inside).with_clip(clip)
        name = "pixel" if str(sd) == "pixel" else "sd15"
        node = read_config(CONF / "sd" / f"{name}.yaml")
        if name != "pixel":
            node |= {"path": str(sd), "clip": None}
        return cls(settings(SdSettings, node, "sd")).with_clip(clip)

    @property
    def miniature(self) -> bool:
        """Whether it is the pixel world."""
        return self.settings.name == "pixel"

    @property
    def words(self) -> str | None:
        """What can be said of its pictures, where it knows a few words alone: in the pixel world."""
        return sayable() if self.miniature else None

    @property
    def vocabulary(self) -> dict[str, list[str]]:
        """The same word for word, by what it is about; empty where all can be said."""
        return phrases() if self.miniature else {}

    def never_said(self, text: str) -> list[str]:
        """The words of a text that it has never seen; none where that isn't known."""
        return never_said(text) if self.miniature else []

    def quick_on(self, device: str) -> bool:
        """Whether pictures can be drawn on a device without a wait of minutes each."""
        return device.startswith("cuda") or self.settings.cpu

    def with_clip(self, clip: str | Path | None) -> StableDiffusion:
        """The same with the CLIP of a folder or a hub id; with its own for None."""
        return self if clip is None else StableDiffusion(replace(self.settings, clip=str(clip)))

    def with_clip_skip(self, clip_skip: int) -> StableDiffusion:
        return StableDiffusion(replace(self.settings, clip_skip=clip_skip))

    def encoder(self, device: str) -> TextEncoder:
        """The text encoder, with CLIP's projection where there is a CLIP."""
        from deproj.clip.encoder import TextEncoder  # transformers takes a second to import

        chosen = self.settings
        encoder = TextEncoder.from_pretrained(chosen.path, chosen.clip, device, chosen.config, chosen.tokenizer, chosen.clip_skip)
        for source in chosen.textual_inversions:
            encoder.load_textual_inversion(source)
        return encoder

    def renderer(
        self, encoder: TextEncoder, device: str, dtype: torch.dtype | None = None, variant: str | None = None
    ) -> Renderer:
        """What draws its pictures; its weights in float16 on CUDA and float32 on a CPU, or as asked."""
        from deproj.draw.renderer import Renderer  # diffusers takes a second to import

        return Renderer(self.settings, encoder.empty.states[0], device, dtype, variant)

    def images(
        self, encoder: TextEncoder, distance: EmbeddingDistance | None, pictures: Sequence[Image] | None = None
    ) -> ImageEncoder | None:
        """CLIP's image encoder; None without a CLIP, or without the pictures of all kinds that it is set right by."""
        from deproj.clip.images import ImageEncoder, drawings  # imports torch, which a look at settings need not wait for

        seen = drawings() if pictures is None and self.miniature else pictures
        if self.settings.clip is None or not seen:
            return None
        return ImageEncoder(self.settings.clip, encoder, distance, seen)

    def reader(self) -> Reader | None:
        """What reads attributes off its pictures, in the pixel world alone."""
        if not self.miniature:
            return None
        from deproj.pixel import shipped_folder
        from deproj.pixel.reader import Reader  # imports torch: see above

        return Reader.from_pretrained(shipped_folder() / "reader")
