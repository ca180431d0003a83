"""A whole pipeline as a folder: a diffusers pipeline, its text encoder included, with the deprojector and CLIP beside it."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from deproj.clip.check import weight_files
from deproj.clip.encoder import TextEncoder
from deproj.draw.settings import SdSettings
from deproj.model.base import Deprojector
from deproj.pixel import local
from deproj.process.errors import UserError
from deproj.process.hub import download
from deproj.settings.inside import PIPELINE_FILE

__all__ = ["save_pipeline"]

#: What is copied of a CLIP beside its weights.
CLIP_FILES = ("config.json", "preprocessor_config.json", "model.safetensors.index.json")


def save_pipeline(
    folder: Path, sd: Any, encoder: TextEncoder, model: Deprojector, settings: SdSettings, variant: str | None = None
) -> None:
    """Writes what `DeprojectorPipeline.from_pretrained` reads; diffusers' own pipelines read the folder too.

    ``deprojector/`` holds the model as `Deprojector.save_pretrained` writes it, ``clip/`` the CLIP for pictures and
    projected embeddings, and ``deproj.json`` the settings, as steps and guidance.

    Args:
        folder: that isn't there yet, or is empty.
        sd: the diffusers pipeline, without text encoder.
        variant: in the names of the files of the weights, as ``fp16``.

    Raises:
        UserError: for a folder that holds something, and for LoRAs and textual inversions, which stay files of their own.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already; name a folder that isn't, or is empty.")
    if hasattr(sd.unet, "peft_config"):
        raise UserError("a LoRA is loaded, which wouldn't be saved; call pipe.fuse_lora() and pipe.unload_lora_weights() before.")
    if encoder.inversions:
        words = ", ".join(encoder.inversions)
        raise UserError(f"textual inversions ({words}) aren't saved with a pipeline; save one without, and load them again.")
    parts = {**sd.components, "text_encoder": encoder.model, "tokenizer": encoder.tokenizer}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        made = Path(temporary) / "pipeline"
        type(sd)(**parts, requires_safety_checker=False).save_pretrained(made, variant=variant)
        model.save_pretrained(made / "deprojector")
        if settings.clip is not None:
            copy_clip(settings.clip, made / "clip")
        inside = replace(settings, path=".", clip=settings.clip and "clip", config=None, tokenizer=None)
        (made / PIPELINE_FILE).write_text(json.dumps({"sd": asdict(inside)}, indent=2) + "\n", encoding="utf-8")
        if folder.exists():
            folder.rmdir()
        shutil.move(made, folder)


def copy_clip(clip: str, to: Path) -> None:
    """Copies what is read of a CLIP, of a folder, a hub id or ``pixel``."""
    source = Path(local(clip, "clip"))
    if not source.is_dir():
        source = download(clip, [*CLIP_FILES, "*.safetensors", "*.bin"])
    to.mkdir()
    for path in [*weight_files(source), *(source / name for name in CLIP_FILES)]:
        if path.is_file():
            shutil.copyfile(path, to / path.name)
