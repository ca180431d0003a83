"""Captions' pictures: scenes of the pixel world, folders, and their latents in the cache."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Ended
from PIL import Image

from deproj.clip.encoder import TextEncoder
from deproj.data.cache import build_cache
from deproj.data.mix import Mix
from deproj.data.pictures import FolderPictures, ScenePictures, open_caption_pictures
from deproj.data.sources import GrammarPrompts
from deproj.draw.stable_diffusion import StableDiffusion
from deproj.pixel import grammar, scenes
from deproj.pixel.shown import scenes_of
from deproj.process.errors import UserError
from deproj.training.latents import CaptionLatents


def test_a_scene_shows_all_that_its_caption_asks_for():
    texts = list(itertools.islice(grammar.training_texts(1), 500))
    found = scenes_of(texts, np.random.default_rng(0))
    for text, values in zip(texts, found.values, strict=True):
        shown = {(name, scenes.ATTRIBUTES[name][value - 1]) for name, value in zip(scenes.NAMES, values, strict=True) if value}
        assert grammar.asked(text) <= shown, text
    assert len({row.tobytes() for row in scenes_of(["cat ears"] * 20, np.random.default_rng(0)).values}) > 10, "else at random"
    assert len(scenes_of(["", "1girl red hair blue hair"], np.random.default_rng(0))) == 2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    for k, (name, text) in enumerate([("a", "1girl red hair"), ("b", "1boy in forest"), ("more/c", "cat, at night")]):
        Image.new("RGB", (40 + k, 50), (80 * k, 10, 10)).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(text + "\n", encoding="utf-8")
    (folder / "notes.txt").write_text("beside no picture", encoding="utf-8")
    return folder


def test_a_folder_has_a_picture_for_each_caption(folder: Path):
    pictures = FolderPictures(folder)
    found = pictures.of(["cat, at night", "1girl red hair"], 0)
    assert [picture.getpixel((3, 3)) for picture in found] == [(160, 10, 10), (0, 10, 10)]
    with pytest.raises(UserError, match=r"has the caption 'a dog'; data\.prompts names the same folder"):
        pictures.of(["a dog"], 0)
    before = pictures.fingerprint
    assert FolderPictures(folder).fingerprint == before
    Image.new("RGB", (90, 50)).save(folder / "a.png")
    assert FolderPictures(folder).fingerprint != before, "another picture"


def test_capitals_in_names_make_no_difference(folder: Path):
    Image.new("RGB", (40, 50), (1, 2, 3)).save(folder / "IMG_1.PNG")
    (folder / "img_1.txt").write_text("a tree", encoding="utf-8")
    (folder / "D.TXT").write_text("a house", encoding="utf-8")
    Image.new("RGB", (40, 50), (4, 5, 6)).save(folder / "d.Jpg", quality=100)
    tree, house = FolderPictures(folder).of(["a tree", "a house"], 0)
    assert tree.getpixel((3, 3)) == (1, 2, 3)
    assert house.size == (40, 50)


def test_latents_of_a_vae_in_bfloat16_are_kept(encoder: TextEncoder):
    renderer = StableDiffusion.named("pixel").renderer(encoder, "cpu", torch.bfloat16)
    found = CaptionLatents(ScenePictures(), renderer, (8, 8, 8)).of(["cat"], 0)
    assert found.dtype == np.float16
    assert np.isfinite(found).all()


def test_what_has_no_pictures_is_refused(folder: Path, tmp_path: Path):
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.txt").write_text("text", encoding="utf-8")
    for wrong, said in (("missing", "no folder"), ("none", "no picture with a caption beside it")):
        with pytest.raises(UserError, match=said):
            open_caption_pictures(str(tmp_path / wrong), "keep", 0.0, True)
    with pytest.raises(UserError, match=r"two joined captions have no picture .* data\.combine=0"):
        open_caption_pictures(str(folder), "keep", 0.3, True)
    with pytest.raises(UserError, match="the pixel world's"):
        open_caption_pictures("scenes", "keep", 0.3, False)
    assert isinstance(open_caption_pictures("scenes", "keep", 0.3, True), ScenePictures)


def test_latents_are_kept_with_the_samples_and_decode_to_the_pictures(tmp_path: Path, encoder: TextEncoder):
    renderer = StableDiffusion.named("pixel").renderer(encoder, "cpu")
    latents = CaptionLatents(ScenePictures(), renderer, (8, 8, 8))
    drawn = list(Mix().samples(GrammarPrompts(), 60, 0))
    key = {"mix": Mix().key, "latents": latents.key}
    cached = build_cache(tmp_path, key, iter(drawn), 60, encoder, "samples", latents=latents)
    rows = cached[[0, 7, 59]]
    assert rows.latents is not None
    assert rows.latents.shape == (3, 8, 8, 8)
    wholes = [sample.whole for sample in drawn]
    pictures = [*ScenePictures().of(wholes[:50], 0), *ScenePictures().of(wholes[50:], 50)]
    with torch.no_grad():
        back = renderer.pipe.vae.decode(rows.latents).sample
    for made, number in zip(back, (0, 7, 59), strict=True):
        wanted = torch.from_numpy(np.asarray(pictures[number]).copy()).permute(2, 0, 1) / 127.5 - 1
        assert (made - wanted).abs().mean() < 0.05
    assert cached.folder != build_cache(tmp_path, {"mix": Mix().key}, iter(drawn), 60, encoder, "samples").folder


TINY = ["objective=conditioning", "objective.steps=4", "data.batch_size=6", "data.size=24", "data.held_out=4"]


def test_runs_take_pictures(train: Callable[..., Ended], folder: Path):
    ended = train(*TINY, "data.pictures=scenes", "hydra.run.dir=scenes", "trainer.max_epochs=2")
    assert ended.code == 0, ended.err
    assert train(*TINY, "data.pictures=scenes", "hydra.run.dir=parts").code == 0
    assert train("resume=parts", "trainer.max_epochs=2", defaults=False).code == 0
    whole, parts = (Path(name, "deprojector", "model.safetensors").read_bytes() for name in ("scenes", "parts"))
    assert whole == parts, "to the bit"
    for k in range(40):
        Image.new("RGB", (32, 32), (6 * k, 0, 0)).save(folder / f"{k}.png")
        (folder / f"{k}.txt").write_text(f"1girl hair number {k}", encoding="utf-8")
    with_folder = [f"data.prompts={folder.as_posix()}", f"data.pictures={folder.as_posix()}", "data.combine=0"]
    assert train(*TINY, *with_folder, "evaluate=0").code == 0


def test_pictures_are_for_an_objective_through_the_unet(train: Callable[..., Ended]):
    ended = train("data.pictures=scenes")
    assert ended.code == 1
    assert "data.pictures is for an objective through the U-Net; objective=states" in ended.err
