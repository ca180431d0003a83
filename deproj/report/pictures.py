"""The pictures of a report: the benchmark prompts of every trained setting, from several seeds."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from deproj.benchmark import PROMPTS, seeds
from deproj.clip.encoder import TextEncoder
from deproj.draw.sheets import TRUE_STATES, save_image, sheet
from deproj.draw.stable_diffusion import StableDiffusion
from deproj.measure.results import LeftOut, Setting
from deproj.model.base import Deprojector
from deproj.process.errors import UserError
from deproj.process.progress import Progress

__all__ = ["draw_pictures"]


def draw_pictures(found: list[Setting], noises: int, out: Path, progress: Progress) -> tuple[list[str], list[LeftOut]]:
    """Draws into ``pictures/``, and a sheet for each noise.

    Args:
        noises: how many times every prompt is drawn, each time from other seeds.

    Returns:
        The rows' labels, the true states first, none where nothing can be drawn; and the models that are damaged.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sd = StableDiffusion.of(found[0].first.config)
    if not sd.quick_on(device):
        return [], []
    encoder = sd.encoder(device)
    rows, damaged = states_of(found, encoder, device)
    if len(rows) == 1:  # numbers alone were kept
        return [], damaged
    renderer = sd.renderer(encoder, device)
    (out / "pictures").mkdir(parents=True, exist_ok=True)
    with progress.phase("drawing the benchmark prompts", noises * len(rows) * len(PROMPTS) * renderer.settings.steps) as phase:
        for number in range(noises):
            drawn = {label: renderer(states, seeds(100 * number), phase.advance) for label, states in rows.items()}
            for row, pictures in enumerate(drawn.values()):
                for column, picture in enumerate(pictures):
                    image = Image.fromarray(picture.numpy())
                    image.thumbnail((256, 256))
                    image.save(out / "pictures" / f"{row}-{number}-{column}.png")
            save_image(sheet(drawn, PROMPTS), out / f"sheet-{number + 1}.png")
    return list(rows), damaged


def states_of(found: list[Setting], encoder: TextEncoder, device: str) -> tuple[dict[str, Tensor], list[LeftOut]]:
    """States of the benchmark prompts, (6, 77, D), by label: the true ones, and those of each setting's first run."""
    rows, damaged = {TRUE_STATES: encoder(PROMPTS).states}, []
    for setting in found:
        folder = setting.first.run.model
        if not folder.is_dir():
            continue
        embedding = encoder.compose(PROMPTS, mean=setting.first.mean)
        try:
            rows[setting.label] = Deprojector.from_pretrained(folder, encoder).to(device).generate(embedding)
        except UserError as error:
            damaged.append((folder, f"not drawn: {error}"))
    return rows, damaged
