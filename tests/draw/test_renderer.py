"""Pictures: real diffusers, the same from the same seed, whatever the batch."""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from deproj.clip.encoder import TextEncoder
from deproj.draw.renderer import Renderer
from deproj.draw.settings import SdSettings
from deproj.draw.sheets import sheet
from deproj.process.errors import UserError
from deproj.settings.nodes import settings
from deproj.settings.shipped import CONF
from deproj.texts.benchmark import COMPOSED, SINGLE

SD = settings(SdSettings, OmegaConf.to_container(OmegaConf.load(CONF / "sd" / "pixel.yaml")), "sd")


@pytest.fixture(scope="module")
def renderer(encoder: TextEncoder) -> Renderer:
    return Renderer(SD, encoder.empty.states[0], "cpu")


@pytest.fixture(scope="module")
def pictures(renderer: Renderer, encoder: TextEncoder) -> torch.Tensor:
    return renderer(encoder(SINGLE).states, [0, 1, 2])


def test_shape_and_range(pictures: torch.Tensor):
    assert pictures.shape == (3, 32, 32, 3)
    assert pictures.dtype == torch.uint8
    assert pictures.float().std() > 20, "not a blank"


def test_same_seed_same_pixels(renderer: Renderer, encoder: TextEncoder, pictures: torch.Tensor):
    assert torch.equal(renderer(encoder(SINGLE).states, [0, 1, 2]), pictures)
    assert not torch.equal(renderer(encoder(SINGLE).states, [5, 6, 7]), pictures)


def test_picture_does_not_depend_on_its_batch(renderer: Renderer, encoder: TextEncoder, pictures: torch.Tensor):
    alone = renderer(encoder(SINGLE[1:2]).states, [1])
    assert (alone[0].int() - pictures[1].int()).abs().max() <= 2


def test_order_of_the_states_does_not_matter(renderer: Renderer, encoder: TextEncoder, pictures: torch.Tensor):
    order = torch.randperm(77, generator=torch.Generator().manual_seed(0))
    turned = renderer(encoder(SINGLE).states[:, order], [0, 1, 2])
    assert (turned.int() - pictures.int()).abs().max() <= 2


def test_is_what_the_whole_pipeline_draws(encoder: TextEncoder, pictures: torch.Tensor):
    """Text in, through the pipeline's own tokenizer and encoder: the very same picture."""
    from diffusers import StableDiffusionPipeline

    from deproj.pixel import WEIGHTS

    pipe = StableDiffusionPipeline.from_pretrained(WEIGHTS, dtype=torch.float32, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    drawn = pipe(
        list(SINGLE), guidance_scale=SD.guidance, num_inference_steps=SD.steps,
        generator=[torch.Generator().manual_seed(seed) for seed in range(3)], output_type="pt",
    ).images  # fmt: skip
    assert (drawn.permute(0, 2, 3, 1) * 255 - pictures.float()).abs().max() <= 2


def test_sheet_holds_the_pictures(pictures: torch.Tensor):
    tiles = torch.cat([pictures, pictures])
    image = sheet({"true states": tiles, "this run": tiles}, SINGLE + COMPOSED, side=64)
    assert image.width > 6 * 64
    assert image.height > 2 * 64
    found = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).reshape(image.height, image.width, 3)
    tile = tiles[0].repeat_interleave(2, 0).repeat_interleave(2, 1)
    windows = [
        (y, x) for y in range(image.height - 63) for x in range(140, 160) if torch.equal(found[y : y + 64, x : x + 64], tile)
    ]
    assert len(windows) == 2, "the first picture, in both rows, untouched"


def test_refuses_what_is_no_pipeline(tmp_path: Path, encoder: TextEncoder):
    from dataclasses import replace

    with pytest.raises(UserError, match="no diffusers pipeline"):
        Renderer(replace(SD, path=str(tmp_path)), encoder.empty.states[0], "cpu")
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}', encoding="utf-8")
    with pytest.raises(UserError, match="cannot be loaded"):
        Renderer(replace(SD, path=str(tmp_path)), encoder.empty.states[0], "cpu")


def test_refuses_bad_numbers():
    from dataclasses import replace

    for changed in ({"steps": 0}, {"guidance": 0.5}):
        with pytest.raises(UserError, match="at least 1"):
            replace(SD, **changed)


def test_a_drawing_that_fails_leaves_nothing_behind(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch):
    """No hook stays on the U-Net or the VAE, to note every later drawing."""
    own = Renderer(SD, encoder.empty.states[0], "cpu")
    parts = (own.pipe.unet, own.pipe.vae.decoder)
    states = encoder(SINGLE).states

    def hooks() -> int:
        return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in parts)

    before, latents = hooks(), own.trajectory(states, [0, 1, 2])[1]
    bias = own.pipe.unet.conv_out.bias.data.clone()
    own.pipe.unet.conv_out.bias.data.fill_(float("nan"))
    with pytest.raises(UserError, match="step 1 of"):
        own.trajectory(states, [0, 1, 2])
    assert hooks() == before
    own.pipe.unet.conv_out.bias.data.copy_(bias)

    def stop(made: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        own.trajectory(states, [0, 1, 2], stop)
    assert hooks() == before
    assert torch.equal(own.trajectory(states, [0, 1, 2])[1], latents)
