"""Checkpoints of one file: the same as the folder of the same weights, read without a network, or refused in one line."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Ended
from safetensors.torch import load_file, save_file
from shapes import SMALL
from torch import Tensor

from deproj.clip import single_file
from deproj.clip.check_file import check_sizes
from deproj.clip.encoder import TextEncoder
from deproj.clip.ldm import web_weights
from deproj.clip.single_file import SHIPPED, SingleFile
from deproj.draw.renderer import Renderer
from deproj.draw.settings import SdSettings
from deproj.draw.stable_diffusion import StableDiffusion
from deproj.fullsize import Shapes, make
from deproj.pipeline import DeprojectorPipeline
from deproj.process.errors import UserError

UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer.text_model."


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``sd``, ``clip`` and ``model.safetensors`` of the same weights."""
    folder = tmp_path_factory.mktemp("made") / "full"
    make(folder, SMALL, single_file=True)
    return folder


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(self: socket.socket, address: object) -> None:
        raise AssertionError(f"connects to {address}")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def chosen(path: Path, config: Path | None = None, tokenizer: Path | None = None) -> SdSettings:
    names = [None if folder is None else str(folder) for folder in (config, tokenizer)]
    return SdSettings("sd15", str(path), None, 2, 7.5, True, None, 1, *names)


def loaded(settings: SdSettings) -> tuple[TextEncoder, Renderer]:
    encoder = StableDiffusion(settings).encoder("cpu")
    return encoder, StableDiffusion(settings).renderer(encoder, "cpu", torch.float32)


def test_a_file_is_its_folder_to_the_bit(made: Path, caplog: pytest.LogCaptureFixture):
    texts = ["1girl, red hair", "", "cat " * 90]
    (theirs, folder), (ours, file) = loaded(chosen(made / "sd")), loaded(chosen(made / "model.safetensors", made / "sd"))
    assert ours.hash == theirs.hash
    states = theirs(texts).states
    assert torch.equal(ours(texts).states, states)
    assert torch.equal(file(states, [0, 1, 2]), folder(states, [0, 1, 2]))
    assert file(states, [0, 1, 2]).float().std() > 1
    assert file.hash == folder.hash
    assert file.chunk == folder.chunk
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_a_vocabulary_says_nothing_of_where_texts_are_cut(made: Path, tmp_path: Path):
    """ComfyUI's folder of the vocabulary says 8,192."""
    folder = shutil.copytree(made / "sd" / "tokenizer", tmp_path / "vocabulary")
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"model_max_length": 8192}), encoding="utf-8")
    theirs = TextEncoder.from_pretrained(made / "sd")
    ours = TextEncoder.from_pretrained(made / "model.safetensors", config=made / "sd", tokenizer=folder)
    assert ours.hash == theirs.hash
    assert torch.equal(ours(["cat " * 90]).states, theirs(["cat " * 90]).states)


def test_the_shipped_schedule_samples_as_the_folders(made: Path, tmp_path: Path):
    """A folder whose schedule writes today's defaults out would have another sampler made of it than the published one."""
    config = shutil.copytree(made / "sd", tmp_path / "config", ignore=shutil.ignore_patterns("*.safetensors", "scheduler"))
    shutil.copytree(SHIPPED / "scheduler", config / "scheduler")
    (_, folder), (encoder, file) = loaded(chosen(made / "sd")), loaded(chosen(made / "model.safetensors", config))
    assert dict(file.pipe.scheduler.config) == dict(folder.pipe.scheduler.config)
    assert torch.equal(file(encoder.empty.states, [0]), folder(encoder.empty.states, [0]))


def test_the_hash_is_the_same_in_every_process(made: Path):
    """diffusers lists the schedule's defaults in the order of a set of words."""
    _, file = loaded(chosen(made / "model.safetensors", made / "sd"))
    expected = file.hash
    _, again = loaded(chosen(made / "model.safetensors", made / "sd"))
    config = dict(again.pipe.scheduler.config)
    assert len(config["_use_default_values"]) > 1
    again.pipe.scheduler._internal_dict = config | {"_use_default_values": config["_use_default_values"][::-1]}
    assert again.hash == expected


def test_a_run_takes_a_file_and_shares_caches_and_models(made: Path, train: Callable[..., Ended], tmp_path: Path):
    """The folder beside the file, of its name, has its configuration; for whatever takes a path and no settings."""
    shutil.copytree(made / "sd", tmp_path / "anime")
    shutil.copyfile(made / "model.safetensors", tmp_path / "anime.safetensors")
    shutil.rmtree(tmp_path / "anime" / "unet")
    (tmp_path / "anime" / "unet").mkdir()
    shutil.copyfile(made / "sd" / "unet" / "config.json", tmp_path / "anime" / "unet" / "config.json")
    common = ("sd=sd15", "sd.clip=null", "sd.cpu=true", "sd.steps=2", "data.prompts=grammar", "data.cache=cache", "render=1")
    ended = train(*common, "sd.path=anime.safetensors", "hydra.run.dir=run")
    assert ended.code == 0, ended.err
    cached = sorted(path.name for path in Path("cache").rglob("*"))
    assert cached
    ended = train(*common, f"sd.path={made / 'sd'}", "hydra.run.dir=other", "init_from=run")
    assert ended.code == 0, ended.err
    assert sorted(path.name for path in Path("cache").rglob("*")) == cached

    pipe = DeprojectorPipeline.from_pretrained("anime.safetensors", "other", device="cpu")
    assert torch.equal(pipe.embed(["cat"]), TextEncoder.from_pretrained(made / "sd").embed(["cat"]))
    assert pipe("cat", size=0).images[0].size == (64, 64)


def test_the_shipped_configuration_is_stable_diffusion_15s(tmp_path: Path):
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    shapes = Shapes()
    with torch.device("meta"):
        text = CLIPTextModel(CLIPTextConfig.from_pretrained(SHIPPED / "text_encoder"))
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(SHIPPED, subfolder="unet"))
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(SHIPPED, subfolder="vae"))
    assert text.num_parameters() == 123_060_480
    for part, made in ((unet, UNet2DConditionModel), (vae, AutoencoderKL)):
        with torch.device("meta"):
            other = made(**(shapes.unet if part is unet else shapes.vae))
        ignored = ("_class_name", "_use_default_values", "_diffusers_version", "_name_or_path")
        assert {k: v for k, v in part.config.items() if k not in ignored} == {
            k: list(v) if isinstance(v, tuple) else v for k, v in other.config.items() if k not in ignored
        }
    check_sizes(tmp_path, {name: list(value.shape) for name, value in web_weights(text, unet, vae).items()}, SHIPPED)


def test_the_vocabulary_comes_from_where_it_is(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = shutil.copytree(made / "sd", tmp_path / "config", ignore=shutil.ignore_patterns("tokenizer", "*.safetensors"))
    expected = TextEncoder.from_pretrained(made / "sd").hash
    assert loaded(chosen(made / "model.safetensors", config, made / "sd" / "tokenizer"))[0].hash == expected

    asked: list[str] = []
    monkeypatch.setattr(single_file, "cached", lambda repository: asked.append(repository))
    with pytest.raises(
        UserError, match=r"hf download openai/clip-vit-large-patch14 tokenizer.json.*sd.tokenizer=FOLDER"
    ) as error:
        loaded(chosen(made / "model.safetensors", config))
    assert asked == ["openai/clip-vit-large-patch14", "stable-diffusion-v1-5/stable-diffusion-v1-5"]
    assert "\n" not in str(error.value)
    (tmp_path / "cut").mkdir()
    found = {"openai/clip-vit-large-patch14": tmp_path / "cut", "stable-diffusion-v1-5/stable-diffusion-v1-5": made / "sd"}
    monkeypatch.setattr(single_file, "cached", found.get)
    assert loaded(chosen(made / "model.safetensors", config))[0].hash == expected

    with pytest.raises(UserError, match=r"vocab.json is missing"):
        loaded(chosen(made / "model.safetensors", config, tmp_path / "cut"))
    with pytest.raises(UserError, match="no folder"):
        loaded(chosen(made / "model.safetensors", config, tmp_path / "nowhere"))
    with pytest.raises(UserError, match="single file"):
        chosen(made / "sd", tokenizer=tmp_path)


def without(start: str) -> Callable[[dict[str, Tensor]], object]:
    return lambda weights: [weights.pop(name) for name in list(weights) if name.startswith(start)]


def has(name: str) -> Callable[[dict[str, Tensor]], object]:
    return lambda weights: weights.update({name: torch.zeros(1)})


def broken(name: str) -> Callable[[dict[str, Tensor]], object]:
    return lambda weights: weights[name].view(-1)[-1:].fill_(torch.nan)


REFUSED: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "xl": (has("conditioner.embedders.1.model.ln_final.weight"), "is a Stable Diffusion XL"),
    "2.x": (has("cond_stage_model.model.ln_final.weight"), "is a Stable Diffusion 2.x"),
    "3": (has(f"{UNET}joint_blocks.0.x_block.attn.qkv.weight"), "is a Stable Diffusion 3"),
    "lora": (lambda weights: (weights.clear(), has("lora_unet_down.alpha")(weights)), "is a LoRA"),
    "inpainting": (
        lambda weights: weights.update({f"{UNET}input_blocks.0.0.weight": torch.zeros(32, 9, 3, 3)}),
        "9 input channels that gives out 4 is an inpainting model",
    ),
    "v-prediction": (has("v_pred"), "v-prediction"),
    "no u-net": (without(UNET), "has no U-Net"),
    "no vae": (without(VAE), "has no VAE"),
    "no text encoder": (without("cond_stage_model."), "has no text encoder"),
    "a layer less": (without(f"{TEXT}encoder.layers.1."), "layers of the text encoder: 1, but 2"),
    "text norm": (without(f"{TEXT}final_layer_norm.weight"), "text encoder of .* is incomplete: final_layer_norm.weight"),
    "a block less": (without(f"{UNET}output_blocks.7."), "is incomplete: weights of its U-Net or its VAE"),
    "a weight more": (has(f"{UNET}label_emb.0.0.weight"), "tensors, but"),
    "vae's bias": (without(f"{VAE}decoder.norm_out.bias"), "is incomplete: weights of its U-Net or its VAE"),
    "nan in the text encoder": (broken(f"{TEXT}final_layer_norm.bias"), "text encoder of .* is damaged: final_layer_norm.bias"),
    "nan in the u-net": (broken(f"{UNET}out.2.bias"), "U-Net of .* is damaged: conv_out.bias"),
    "nan in the vae": (broken(f"{VAE}decoder.conv_out.bias"), "VAE of .* is damaged: decoder.conv_out.bias"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(made: Path, tmp_path: Path, case: str):
    spoil, said = REFUSED[case]
    weights = load_file(made / "model.safetensors")
    spoil(weights)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=said) as error:
        loaded(chosen(tmp_path / "model.safetensors", made / "sd"))
    assert "\n" not in str(error.value)


def test_refuses_what_cannot_be_read(made: Path, tmp_path: Path):
    whole = (made / "model.safetensors").read_bytes()
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1234\n"
    for content, said in (
        (whole[: len(whole) // 2], "cut off"),
        (whole[:5], "cut off"),
        (b"", "cut off"),
        (pointer, "git lfs pull"),
    ):
        (tmp_path / "model.safetensors").write_bytes(content)
        with pytest.raises(UserError, match=said) as error:
            loaded(chosen(tmp_path / "model.safetensors"))
        assert "\n" not in str(error.value)
    for name in ("model.ckpt", "model.pt"):
        (tmp_path / name).write_bytes(b"pickle")
        with pytest.raises(UserError, match=r"is a pickle .* take a .safetensors copy"):
            loaded(chosen(tmp_path / name))
    with pytest.raises(UserError, match="no file"):
        loaded(chosen(tmp_path / "nowhere.safetensors"))


def test_refuses_other_sizes_than_the_configurations(made: Path, tmp_path: Path):
    with pytest.raises(UserError, match=r"tokens of the text encoder: 700, but 49408 .*sd.config=FOLDER"):
        SingleFile.of(made / "model.safetensors")
    with pytest.raises(UserError, match=r"model_index.json is missing"):
        SingleFile.of(made / "model.safetensors", tmp_path)
    config = shutil.copytree(made / "sd", tmp_path / "config", ignore=shutil.ignore_patterns("*.safetensors"))
    unet = json.loads((config / "unet" / "config.json").read_text(encoding="utf-8"))
    (config / "unet" / "config.json").write_text(json.dumps(unet | {"block_out_channels": [32, 32, 64, 96]}), encoding="utf-8")
    with pytest.raises(UserError, match="cannot be loaded") as error:
        loaded(chosen(made / "model.safetensors", config))
    assert "\n" not in str(error.value)
