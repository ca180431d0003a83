"""The pictures of a report: the benchmark prompts of every trained setting, from several seeds."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from deproj.draw.renderer import Renderer
from deproj.draw.sheets import TRUE_STATES, save_image, sheet
from deproj.draw.stable_diffusion import StableDiffusion
from deproj.measure.results import LeftOut, Setting
from deproj.model.base import Deprojector
from deproj.process.errors import UserError
from deproj.process.progress import Progress
from deproj.texts.benchmark import PROMPTS, seeds

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
    rows, damaged = {TRUE_STATES: encoder(PROMPTS).states}, []
    for setting in found:
        if (source := setting.first.model) is None:
            continue
        embedding = encoder.compose(PROMPTS, mean=setting.first.mean)
        try:
            rows[setting.label] = Deprojector.from_pretrained(source, encoder).to(device).generate(embedding)
        except UserError as error:
            damaged.append((Path(source), f"not drawn: {error}"))
    if len(rows) > 1:
        draw_rows(rows, sd.renderer(encoder, device), noises, out, progress)
    return list(rows) if len(rows) > 1 else [], damaged


def draw_rows(rows: dict[str, Tensor], renderer: Renderer, noises: int, out: Path, progress: Progress) -> None:
    """Draws states of the benchmark prompts, (6, 77, D) by label, as often as there are noises."""
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
