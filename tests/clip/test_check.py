"""Pipelines that are something else, are damaged, or don't fit together: each refused by what it is, or read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from deproj.clip.check import check_finite
from deproj.clip.encoder import TextEncoder, load_projection
from deproj.clip.identity import peculiarities
from deproj.draw.renderer import Renderer
from deproj.draw.stable_diffusion import StableDiffusion
from deproj.pixel import WEIGHTS
from deproj.process.errors import UserError

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 1234\n"
Spoil = Callable[[Path], None]


def load(folder: Path) -> Renderer:
    """The text encoder and what draws, as every command loads them."""
    encoder = TextEncoder.from_pretrained(folder)
    return StableDiffusion.named(folder).renderer(encoder, "cpu")


def put(file: str, **changes: object) -> Spoil:
    """Changes values of a JSON file."""

    def spoil(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")

    return spoil


def write(pattern: str, content: str) -> Spoil:
    """Puts this text in the place of files."""

    def spoil(folder: Path) -> None:
        found = list(folder.glob(pattern))
        assert found
        for path in found:
            path.write_text(content, encoding="utf-8")

    return spoil


def remove(pattern: str) -> Spoil:
    return lambda folder: [path.unlink() for path in folder.glob(pattern)].clear()


def number(part: str, value: float, tensor: str | None = None) -> Spoil:
    """Puts one number into a tensor of a part, by default the last."""

    def spoil(folder: Path) -> None:
        path = next((folder / part).glob("*.safetensors"))
        weights = load_file(path)
        name = tensor or max(weights)
        weights[name].view(-1)[-1] = value
        save_file(weights, path, metadata={"format": "pt"})

    return spoil


def index(**changes: object) -> Spoil:
    return put("model_index.json", **changes)


def cut(file: str) -> Spoil:
    """Keeps the first half of a file."""

    def spoil(folder: Path) -> None:
        content = (folder / file).read_bytes()
        (folder / file).write_bytes(content[: len(content) // 2])

    return spoil


UNET, TEXT, VAE = "unet/config.json", "text_encoder/config.json", "vae/config.json"
REFUSED: dict[str, tuple[Spoil, str]] = {
    "xl": (index(_class_name="StableDiffusionXLPipeline"), "StableDiffusionXLPipeline"),
    "sd3": (index(_class_name="StableDiffusion3Pipeline"), "StableDiffusion3Pipeline"),
    "inpainting by name": (index(_class_name="StableDiffusionInpaintPipeline"), "InpaintPipeline"),
    "upscaler by name": (index(_class_name="StableDiffusionUpscalePipeline"), "UpscalePipeline"),
    "own pipeline": (index(_class_name=["pipeline", "MyPipeline"]), "MyPipeline"),
    "two encoders": (index(text_encoder_2=["transformers", "CLIPTextModel"]), "text_encoder_2"),
    "t5": (index(text_encoder=["transformers", "T5EncoderModel"]), "T5EncoderModel"),
    "transformer": (index(unet=["diffusers", "Transformer2DModel"]), "Transformer2DModel"),
    "vq": (index(vae=["diffusers", "VQModel"]), "VQModel"),
    "flow scheduler": (index(scheduler=["diffusers", "FlowMatchEulerDiscreteScheduler"]), "FlowMatchEuler"),
    "lcm scheduler": (index(scheduler=["diffusers", "LCMScheduler"]), "LCMScheduler"),
    "flow prediction": (put("scheduler/scheduler_config.json", prediction_type="flow_prediction"), "flow_prediction"),
    "inpainting": (put(UNET, in_channels=9, out_channels=4), "inpainting"),
    "depth": (put(UNET, in_channels=5, out_channels=4), "depth"),
    "upscaler": (put(UNET, in_channels=7, out_channels=4), "upscaler"),
    "pix2pix": (put(UNET, in_channels=8, out_channels=4), "pix2pix"),
    "lcm": (put(UNET, time_cond_proj_dim=256), "latent consistency"),
    "second embedding": (put(UNET, addition_embed_type="text_time"), "addition_embed_type"),
    "noise level": (put(UNET, num_class_embeds=1000), "num_class_embeds"),
    "wider u-net": (put(UNET, cross_attention_dim=768), "width 768"),
    "other vae": (put(VAE, latent_channels=16), "VAE makes 16"),
    "places": (put(TEXT, max_position_embeddings=64), "64 places"),
    "no size": (put(UNET, sample_size=None), "sample_size is null"),
    "size of words": (put(UNET, sample_size="64"), 'sample_size is "64"'),
    "no index": (write("model_index.json", "{"), "model_index.json cannot be read"),
    "list for an object": (write(UNET, "[]"), "no JSON object"),
    "cut config": (cut(TEXT), "cannot be read"),
    "no vocabulary": (remove("tokenizer/tokenizer.json"), "vocab.json is missing"),
    "cut tokenizer": (cut("tokenizer/tokenizer.json"), "no CLIP text encoder"),
    "short texts": (put("tokenizer/tokenizer_config.json", model_max_length=64), "64 tokens"),
    "sos as eos": (put("tokenizer/tokenizer_config.json", bos_token="<|endoftext|>"), "bos"),
    "padding of its own": (put("tokenizer/tokenizer_config.json", pad_token="[PAD]"), "598 tokens"),
    "other eos": (put(TEXT, eos_token_id=500), "eos_token_id is 500"),
    "pointers": (write("*/*.safetensors", POINTER), "git lfs pull"),
    "pointer of the u-net": (write("unet/*.safetensors", POINTER), "git lfs pull"),
    "pointer of the tokenizer": (write("tokenizer/tokenizer.json", POINTER), "git lfs pull"),
    "pointer of a config": (write(UNET, POINTER), "git lfs pull"),
    "empty weights": (write("unet/*.safetensors", ""), "cannot be loaded"),
    "nan in the encoder": (number("text_encoder", float("nan")), "text encoder of .* is damaged: .* NaN or infinite"),
    "nan in the u-net": (number("unet", float("nan")), "U-Net of .* is damaged: up_blocks"),
    "infinity in the u-net": (number("unet", float("-inf")), "U-Net of .* is damaged: up_blocks"),
    "nan in the vae": (number("vae", float("nan")), "VAE of .* is damaged"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refuses(kind: str, world: Path):
    spoil, said = REFUSED[kind]
    spoil(world)
    with pytest.raises(UserError, match=said):
        load(world)


def half_names(folder: Path) -> None:
    for part in ("unet", "vae", "text_encoder"):
        for path in (folder / part).glob("*.safetensors"):
            path.rename(path.with_name(path.name.replace(".safetensors", ".fp16.safetensors")))


def one_half_name(folder: Path) -> None:
    (path,) = (folder / "unet").glob("*.safetensors")
    path.rename(path.with_name(path.name.replace(".safetensors", ".fp16.safetensors")))


READ: dict[str, Spoil] = {
    "two sides": put(UNET, sample_size=[8, 8]),
    "half precision alone": half_names,
    "half precision of one part": one_half_name,
    "ancestral scheduler": index(scheduler=["diffusers", "EulerAncestralDiscreteScheduler"]),
    "image to image": index(_class_name="StableDiffusionImg2ImgPipeline"),
    "early numbers": put(TEXT, bos_token_id=0, eos_token_id=2, pad_token_id=1),
    "a pointer beside": lambda folder: (
        (folder / "unet" / "diffusion_pytorch_model.bin").write_text(POINTER, encoding="utf-8") and None
    ),
}


@pytest.mark.parametrize("kind", READ)
def test_reads(kind: str, world: Path, encoder: TextEncoder):
    READ[kind](world)
    states = encoder(["cat"]).states
    assert TextEncoder.from_pretrained(world).hash == encoder.hash
    drawn = load(world)(states, [0])
    if kind != "ancestral scheduler":
        assert torch.equal(drawn, load(WEIGHTS)(states, [0]))


def test_a_clip_that_is_damaged(world: Path, encoder: TextEncoder):
    number("clip", float("nan"), "text_projection.weight")(world)
    with pytest.raises(UserError, match=r"CLIP .* is damaged"):
        load_projection(world / "clip", encoder.model)
    write("clip/model.safetensors", POINTER)(world)
    with pytest.raises(UserError, match="git lfs pull"):
        load_projection(world / "clip", encoder.model)


def test_large_half_precision_numbers_are_finite():
    check_finite({"large": torch.full((10,), 60_000.0, dtype=torch.float16)}, "it")
    with pytest.raises(UserError, match=r"broken holds 1 of 10 .* in float16"):
        check_finite([("broken", torch.tensor([0.0] * 9 + [float("inf")], dtype=torch.float16))], "it")


def edit_tokenizer(folder: Path, change: Callable[[dict], object]) -> None:  # type: ignore[type-arg]
    path = folder / "tokenizer" / "tokenizer.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    change(stored)
    path.write_text(json.dumps(stored), encoding="utf-8")


def test_hash_covers_padding_and_merges(world: Path, encoder: TextEncoder):
    seen = {encoder.hash}
    put("tokenizer/tokenizer_config.json", pad_token="!")(world)
    padded = TextEncoder.from_pretrained(world)
    assert float((padded.empty.states - encoder.empty.states).abs().max()) > 1
    seen.add(padded.hash)
    put("tokenizer/tokenizer_config.json", pad_token="<|endoftext|>")(world)
    edit_tokenizer(world, lambda stored: stored["model"]["merges"].reverse())
    seen.add(TextEncoder.from_pretrained(world).hash)
    assert len(seen) == 3


def test_hash_covers_the_normalizer(encoder: TextEncoder, world: Path):
    from tokenizers import normalizers

    other = TextEncoder.from_pretrained(world)
    other.tokenizer.backend_tokenizer.normalizer = normalizers.NFC()  # upper case stays
    again = TextEncoder(other.tokenizer, other.model)
    assert again.hash != encoder.hash
    assert list(peculiarities(other.tokenizer)) == ["normalizer"]


def test_hash_of_the_old_form_is_the_same(world: Path, encoder: TextEncoder):
    """vocab.json and merges.txt, as early Stable Diffusions have them."""
    stored = json.loads((world / "tokenizer" / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = stored["model"]["vocab"] | {token["content"]: token["id"] for token in stored["added_tokens"]}
    (world / "tokenizer" / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    merges = [" ".join(merge) for merge in stored["model"]["merges"]]
    (world / "tokenizer" / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
    (world / "tokenizer" / "tokenizer.json").unlink()
    assert TextEncoder.from_pretrained(world).hash == encoder.hash


@pytest.mark.parametrize("where", ["states", "unet", "vae"])
def test_pictures_that_are_no_numbers_are_never_drawn(where: str, encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch):
    renderer = StableDiffusion.named("pixel").renderer(encoder, "cpu")
    states = encoder(["cat", "dog"]).states.clone()
    if where == "states":
        states[1, 5, 0] = float("nan")
        said = "the states of picture 2 of 2"
    elif where == "unet":
        renderer.pipe.unet.conv_out.bias.data[0] = float("inf")
        said = "step 1 of .* by the U-Net, for picture 1 of 2"
    else:
        renderer.pipe.vae.decoder.conv_out.bias.data[0] = float("nan")
        said = "the VAE makes in float32 of picture 1 of 2"
    with pytest.raises(UserError, match=said):
        renderer(states, [0, 1])
