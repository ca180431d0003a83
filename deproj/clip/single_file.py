"""A Stable Diffusion in one file, as checkpoints have on the web, read by diffusers without a network.

The file holds weights alone. Its configuration and CLIP's vocabulary come from elsewhere, each from the first place that has it:

- the configuration from `sd.config`, from a folder beside the file that has its name (``model/`` for ``model.safetensors``), or
  from the package, which ships that of Stable Diffusion 1.5;
- the vocabulary from `sd.tokenizer`, from ``tokenizer/`` in the configuration's folder or in the one beside the file, or from
  the Hub's cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from deproj.clip.check import WANTED, check_folder, check_tokenizer_files
from deproj.clip.check_file import UNET, check_file, shapes_of
from deproj.process.errors import UserError
from deproj.process.hub import cached
from deproj.process.quiet import quiet_loading

__all__ = ["SHIPPED", "SingleFile", "is_file"]

#: The configuration of Stable Diffusion 1.5, without its vocabulary.
SHIPPED = Path(__file__).parent / "sd15"
#: Where the Hub's cache may have CLIP's vocabulary: the repository and the folder in it.
VOCABULARIES = (("openai/clip-vit-large-patch14", ""), ("stable-diffusion-v1-5/stable-diffusion-v1-5", "tokenizer"))
#: Parts that are never loaded.
WITHOUT = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}


def is_file(pipeline: str | Path) -> bool:
    """Whether what names a pipeline names a single file, be it there or not."""
    path = Path(pipeline)
    return path.is_file() or (path.suffix.lower() in (".safetensors", ".ckpt") and not path.is_dir())


@dataclass(frozen=True)
class SingleFile:
    """A checkpoint of one file, and the folder of its configuration."""

    path: Path
    config: Path

    @classmethod
    def of(cls, path: str | Path, config: str | Path | None = None) -> SingleFile:
        """A checkpoint, once its header and its configuration have been checked.

        Args:
            config: a diffusers folder, of which the configuration alone is read; by default see above.

        Raises:
            UserError: for what is no Stable Diffusion 1.x, is damaged, or isn't of its configuration's sizes.
        """
        path = Path(path)
        shapes_of(path)  # a file that can't be read is told before a folder that is missing
        beside = path.with_suffix("")
        folder = Path(config) if config is not None else beside if (beside / "model_index.json").is_file() else SHIPPED
        for part in ("model_index.json", *(f"{part}/config.json" for part in ("text_encoder", "unet", "vae"))):
            if not (folder / part).is_file():
                raise UserError(f"{folder} is no configuration of a Stable Diffusion: {folder / part} is missing. {WANTED}")
        check_folder(folder)
        check_file(path, folder)
        return cls(path, folder)

    def text_encoder(self) -> Any:
        """CLIP's text encoder in float32."""
        return self.load(torch.float32, tokenizer=None, unet=None, vae=None, scheduler=None).text_encoder

    def pipeline(self, dtype: torch.dtype) -> Any:
        """A diffusers pipeline without text encoder and tokenizer."""
        pipe = self.load(dtype, text_encoder=None, tokenizer=None)
        stored = sum(name.startswith(UNET) for name in shapes_of(self.path))
        if (taken := len(pipe.unet.state_dict())) != stored:
            raise UserError(
                f"{self.path}: its U-Net has {stored} tensors, but {taken} by the configuration in {self.config}. "
                "Name a diffusers folder with the file's configuration, sd.config=FOLDER."
            )
        return pipe

    def load(self, dtype: torch.dtype, **parts: Any) -> Any:
        """A diffusers pipeline; parts that are given are taken as they are."""
        with quiet_loading():  # diffusers imports image processors that want torchvision; we use none
            from diffusers import StableDiffusionPipeline

        with quiet_loading("diffusers"):
            try:
                pipe = StableDiffusionPipeline.from_single_file(
                    str(self.path), config=str(self.config), local_files_only=True, dtype=dtype, **WITHOUT, **parts
                )
            except NotImplementedError:  # torch's, of a weight without numbers: diffusers leaves so what the file lacks
                raise UserError(f"'{self.path}' is incomplete: weights of its U-Net or its VAE are missing.") from None
        for name, value in [] if pipe.text_encoder is None else pipe.text_encoder.state_dict().items():
            if value.is_meta:
                raise UserError(f"the text encoder of '{self.path}' is incomplete: {name} is missing.")
        return pipe

    def vocabulary(self, tokenizer: str | Path | None = None) -> Path:
        """The folder of CLIP's vocabulary.

        Args:
            tokenizer: one that has it.

        Raises:
            UserError: where it is nowhere, with how to get it.
        """
        if tokenizer is not None:
            if not (folder := Path(tokenizer)).is_dir():
                raise UserError(f"no folder {folder}: sd.tokenizer is one with vocab.json and merges.txt, or tokenizer.json.")
            check_tokenizer_files(folder)
            return folder
        for folder in (self.config / "tokenizer", self.path.with_suffix("") / "tokenizer"):
            if folder.is_dir():
                check_tokenizer_files(folder)
                return folder
        for repository, inner in VOCABULARIES:
            if (found := cached(repository)) is not None and complete(found / inner):
                return found / inner
        raise UserError(
            f"{self.path} holds no vocabulary, and the Hub's cache has none of CLIP's: run `hf download {VOCABULARIES[0][0]} "
            "tokenizer.json tokenizer_config.json vocab.json merges.txt` once, or name a folder that has these, "
            "sd.tokenizer=FOLDER (ComfyUI's is comfy/sd1_tokenizer)."
        )


def complete(folder: Path) -> bool:
    """Whether a folder has a vocabulary's files."""
    there = [(folder / name).is_file() for name in ("tokenizer.json", "vocab.json", "merges.txt")]
    return there[0] or all(there[1:])
