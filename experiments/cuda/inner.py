"""Every use that the trial makes of deproj's inner modules: what no command does. Change it here when these move."""

from __future__ import annotations

import itertools
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def prompts(count: int) -> list[str]:
    """Texts of the pixel world's grammar."""
    from deproj.data.sources import GrammarPrompts

    return list(itertools.islice(GrammarPrompts().training(0), count))


def states(count: int, device: str, kind: str) -> Tensor:
    """States of prompts on a device, (B, 77, D) float32 on the CPU; `kind` as in `DTYPES`, by autocast."""
    from deproj.clip.encoder import TextEncoder

    encoder = TextEncoder.from_pretrained("pixel", "pixel", device)
    half = torch.autocast(device, DTYPES[kind]) if kind != "fp32" else nullcontext()
    with half:
        return encoder(prompts(count)).states.float().cpu()


def generated(folder: Path, count: int, device: str, dtype: torch.dtype) -> Tensor:
    """States that an exported model gives to the embeddings of prompts, (B, 77, D) float64 on the CPU."""
    from deproj.clip.encoder import TextEncoder
    from deproj.model.base import Deprojector

    encoder = TextEncoder.from_pretrained("pixel", "pixel")
    model = Deprojector.from_pretrained(folder, encoder).to(device, dtype)
    return model.generate(encoder(prompts(count)).embedding.to(device, dtype)).double().cpu()


def stable_diffusion(config: dict[str, Any]) -> Any:
    """The Stable Diffusion of settings."""
    from deproj.draw.settings import SdSettings
    from deproj.draw.stable_diffusion import StableDiffusion
    from deproj.settings.nodes import settings

    return StableDiffusion(settings(SdSettings, config["sd"], "sd"))


def encoder(config: dict[str, Any], device: str) -> Any:
    return stable_diffusion(config).encoder(device)


def renderer(config: dict[str, Any], of: Any, device: str, half: bool) -> Any:
    """A renderer at either precision, for an encoder; by itself it draws in float16 on a card and in float32 on a CPU."""
    made = stable_diffusion(config).renderer(of, device if half else "cpu")
    if not half:
        made.pipe, made.device = made.pipe.to(device), device
    return made


def evaluation(folder: Path, count: int, device: str, half: bool, cache: Path, settings: list[str]) -> dict[str, Any]:
    """What ``evaluation.json`` holds of an exported model of the pixel world, pictures drawn on a device."""
    from deproj.data.settings import DataSettings
    from deproj.measure.evaluator import Evaluator, evaluation_prompts
    from deproj.model.base import Deprojector
    from deproj.settings.compose import compose_config

    config = compose_config(settings)
    of = encoder(config, device)
    model = Deprojector.from_pretrained(folder, of).to(device)
    assert model.selection is not None
    chosen = evaluation_prompts(DataSettings.of(config).source(), count, 0)
    evaluator = Evaluator(of, renderer(config, of, device, half), chosen, None, cache)
    return json.loads(json.dumps(evaluator(model, model.selection).to_json()))


def small_shapes() -> Any:
    """Stable Diffusion's parts with few and narrow layers, for the rehearsal."""
    from deproj.fullsize import Shapes

    narrow = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "projection_dim": 32}
    return Shapes(
        vocabulary=700,
        text=Shapes().text | narrow,
        vision=Shapes().vision | narrow | {"image_size": 28},
        vae=Shapes().vae | {"block_out_channels": (32,) * 4, "layers_per_block": 1, "sample_size": 64},
        unet=Shapes().unet
        | {"block_out_channels": (32, 32, 64, 64), "layers_per_block": 1, "cross_attention_dim": 32, "sample_size": 8},
    )
