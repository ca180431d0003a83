"""Random weights in Stable Diffusion 1.5's folders: the true shapes, and a whole run through smaller ones."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import Ended, call
from safetensors.torch import load_file
from shapes import SMALL

from deproj import fullsize
from deproj.clip.encoder import TextEncoder
from deproj.clip.ldm import web_weights
from deproj.fullsize import Shapes, main, make, make_tokenizer
from deproj.process.errors import UserError


def test_the_true_shapes():
    """Parameters of the published models: CLIP ViT-L/14, and Stable Diffusion 1.5's text encoder, VAE and U-Net."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel

    shapes = Shapes()
    text = CLIPTextConfig(**shapes.text, vocab_size=shapes.vocabulary)
    with torch.device("meta"):
        config = CLIPConfig(text_config=text.to_dict(), vision_config=dict(shapes.vision), projection_dim=768)
        parts = [CLIPModel(config), CLIPTextModel(text), AutoencoderKL(**shapes.vae), UNet2DConditionModel(**shapes.unet)]
    counts = [sum(p.numel() for p in part.parameters()) for part in parts]
    assert counts == [427_616_513, 123_060_480, 83_653_863, 859_520_964]
    assert 2 * sum(counts) < fullsize.SIZE < 2.1 * sum(counts)


def test_the_tokenizer_has_clips_ids():
    tokenizer = make_tokenizer(49408)
    ids = tokenizer("1girl, red hair").input_ids
    assert (len(tokenizer), ids[0], ids[-1], tokenizer.pad_token_id) == (49408, 49406, 49407, 49407)
    assert tokenizer.decode(ids[1:-1]).replace(" ", "") == "1girl,redhair"
    with pytest.raises(ValueError, match="at least"):
        make_tokenizer(10)


def test_a_run_goes_through_it(train: Callable[..., Ended], tmp_path: Path):
    make(tmp_path / "full", SMALL)
    encoder = TextEncoder.from_pretrained("full/sd", clip="full/clip")
    assert (encoder.width, len(encoder.tokenizer)) == (32, 700)
    make(tmp_path / "again", SMALL)
    assert TextEncoder.from_pretrained("again/sd").hash == encoder.hash
    make(tmp_path / "other", SMALL, seed=1)
    with pytest.raises(UserError, match="not the pipeline's"):
        TextEncoder.from_pretrained("full/sd", clip="other/clip")

    ended = train(
        *("sd=sd15", "sd.path=full/sd", "sd.clip=full/clip", "sd.cpu=true", "sd.steps=2", "data.prompts=grammar"),
        *("evaluate=2", "render=1", "hydra.run.dir=run"),
    )
    assert ended.code == 0, ended.err
    found = json.loads((tmp_path / "run" / "evaluation.json").read_text(encoding="utf-8"))["composed"]
    assert found["conditioning_error"]["value"] > 0
    assert -100 <= found["clip_score"]["value"] <= 100
    assert (tmp_path / "run" / "sheets" / "best.png").is_file()


def test_the_single_file_has_the_webs_layout(tmp_path: Path):
    """diffusers' own reading of the layout gives the folder's weights back, under names that the web's files have."""
    from diffusers.loaders import single_file_utils as read

    make(tmp_path / "full", SMALL, single_file=True)
    weights = load_file(tmp_path / "full" / "model.safetensors")
    for part, convert in (("unet", read.convert_ldm_unet_checkpoint), ("vae", read.convert_ldm_vae_checkpoint)):
        folder = tmp_path / "full" / "sd" / part
        found = convert(weights, json.loads((folder / "config.json").read_text(encoding="utf-8")))
        expected = load_file(folder / "diffusion_pytorch_model.safetensors")
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], value) for name, value in expected.items())
    text = read.convert_ldm_clip_checkpoint(weights)
    assert text.pop("text_model.embeddings.position_ids").tolist() == [list(range(77))]
    expected = load_file(tmp_path / "full" / "sd" / "text_encoder" / "model.safetensors")
    assert {name.removeprefix("text_model.") for name in text} == {name.removeprefix("text_model.") for name in expected}


def test_the_true_shapes_have_the_published_files_names():
    """Names that diffusers tells a Stable Diffusion 1.x by, and counts of the published file without its EMA and schedule."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from diffusers.loaders.single_file_utils import infer_diffusers_model_type
    from transformers import CLIPTextConfig, CLIPTextModel

    shapes = Shapes()
    with torch.device("meta"):
        text = CLIPTextModel(CLIPTextConfig(**shapes.text, vocab_size=shapes.vocabulary))
        weights = web_weights(text, UNet2DConditionModel(**shapes.unet), AutoencoderKL(**shapes.vae))
    assert infer_diffusers_model_type(weights) == "v1"
    counts = [sum(name.startswith(part) for name in weights) for part in ("model.", "first_stage_model.", "cond_stage_model.")]
    assert counts == [686, 248, 197]
    assert weights["model.diffusion_model.output_blocks.2.1.conv.weight"].shape == (1280, 1280, 3, 3)
    assert weights["model.diffusion_model.output_blocks.8.2.conv.weight"].shape == (640, 640, 3, 3)
    assert weights["first_stage_model.decoder.mid.attn_1.q.weight"].shape == (512, 512, 1, 1)
    assert weights["first_stage_model.decoder.up.0.block.0.nin_shortcut.weight"].shape == (128, 256, 1, 1)


def test_mistakes_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    ended = call(main, ["full"], monkeypatch, capsys)
    assert ended.code == 1
    assert "full is there already" in ended.err
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2e9))
    ended = call(main, ["new"], monkeypatch, capsys)
    assert ended.code == 1
    assert "take 3.1 GB" in ended.err
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=4e9))
    ended = call(main, ["new", "--single-file"], monkeypatch, capsys)
    assert ended.code == 1
    assert "take 5.2 GB" in ended.err

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fullsize, "make_pipeline", full)
    with pytest.raises(OSError, match="No space"):
        make(Path("new"), SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
