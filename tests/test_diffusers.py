"""Every row of docs/diffusers.md."""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import copy, deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from deproj.clip.encoder import TextEncoder
from deproj.fullsize import make
from deproj.model.mlp import MLPDeprojector
from deproj.pipeline import DeprojectorPipeline
from deproj.pixel import WEIGHTS
from deproj.process.errors import UserError

TABLE = Path(__file__).parents[1] / "docs" / "diffusers.md"
FEW: dict[str, Any] = {"num_inference_steps": 2, "output_type": "np"}
ROWS: dict[str, Callable[..., None]] = {}


def row(first: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Marks what tests the row that begins so."""

    def marked(check: Callable[..., None]) -> Callable[..., None]:
        ROWS[first] = check
        return check

    return marked


@pytest.fixture(scope="module")
def model(encoder: TextEncoder) -> MLPDeprojector:
    """Untrained: what it says is nonsense, how it is handled is not."""
    torch.manual_seed(0)
    return MLPDeprojector.for_encoder(encoder, hidden=32)


@pytest.fixture
def pipe(model: MLPDeprojector) -> DeprojectorPipeline:
    return DeprojectorPipeline.from_pretrained("pixel", deepcopy(model), device="cpu")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable Diffusion with another scheduler, random and tiny, as a folder and as a single file."""
    from shapes import SMALL

    folder = tmp_path_factory.mktemp("small") / "made"
    make(folder, SMALL, single_file=True)
    return folder


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(pipe: DeprojectorPipeline, **options: Any) -> np.ndarray:
    return pipe("cat, maid", generator=seeded(), **{**FEW, **options}).images


def test_every_row_has_its_check():
    lines = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    rows = [line.split("|")[1].strip() for line in lines if not line.startswith("| diffusers |")]
    assert rows == list(ROWS), set(rows) ^ set(ROWS)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "check" in metafunc.fixturenames:
        metafunc.parametrize("check", list(ROWS.values()), ids=[re.sub(r"\W+", "-", name).strip("-") for name in ROWS])


def test_row(check: Callable[..., None], request: pytest.FixtureRequest):
    names = check.__code__.co_varnames[: check.__code__.co_argcount]
    check(**{name: request.getfixturevalue(name) for name in names})


@row("`from_pretrained(folder or hub id)`")
def folders(model: MLPDeprojector, pipe: DeprojectorPipeline, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "mine")
    for arguments in ((WEIGHTS, tmp_path / "mine"), ("pixel", model), (tmp_path / "mine",)):
        loaded = DeprojectorPipeline.from_pretrained(*arguments, device="cpu")
        assert np.allclose(drawn(loaded, guidance_scale=3.0), drawn(pipe), atol=1e-4)


@row("`from_single_file`")
def single_files(small: Path) -> None:
    file, tokenizer = small / "model.safetensors", small / "sd" / "tokenizer"
    from deproj.draw.settings import SdSettings

    settings = SdSettings("mine", str(file), None, 2, 5.0, True, None, 1, str(small / "sd"), str(tokenizer))
    encoder = TextEncoder.from_pretrained(file, config=small / "sd", tokenizer=tokenizer)
    loaded = DeprojectorPipeline.from_pretrained(settings, MLPDeprojector.for_encoder(encoder, hidden=8), device="cpu")
    assert drawn(loaded).shape[0] == 1


@row("`torch_dtype=`, `dtype=`")
def dtypes(model: MLPDeprojector) -> None:
    for name in ("torch_dtype", "dtype"):
        loaded = DeprojectorPipeline.from_pretrained("pixel", model, device="cpu", **{name: torch.bfloat16})
        assert loaded.dtype == loaded.vae.dtype == torch.bfloat16
        assert loaded.encoder.model.dtype == loaded.model.sos.dtype == torch.float32
        assert np.isfinite(drawn(loaded)).all()
    with pytest.raises(UserError, match="say different things"):
        DeprojectorPipeline.from_pretrained("pixel", model, torch_dtype=torch.float32, dtype=torch.bfloat16)
    with pytest.raises(UserError, match=r"torch_dtype is torch\.float32, float16 or bfloat16; got 'fp16'"):
        DeprojectorPipeline.from_pretrained("pixel", model, torch_dtype="fp16")


@row("`variant=`")
def variants(pipe: DeprojectorPipeline, model: MLPDeprojector, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path / "mine", variant="fp16")
    assert (tmp_path / "mine" / "unet" / "diffusion_pytorch_model.fp16.safetensors").is_file()
    for options in ({}, {"variant": "fp16"}):
        loaded = DeprojectorPipeline.from_pretrained(tmp_path / "mine", device="cpu", **options)
        assert np.array_equal(drawn(loaded), drawn(pipe))
    with pytest.raises(UserError, match="cannot be loaded"):
        DeprojectorPipeline.from_pretrained(WEIGHTS, model, variant="ema")


@row("`device_map=`")
def device_maps(model: MLPDeprojector) -> None:
    assert DeprojectorPipeline.from_pretrained("pixel", model, device_map="cpu").device.type == "cpu"
    for given in ("balanced", "auto", {"unet": 0}):
        with pytest.raises(UserError, match="device_map is one device"):
            DeprojectorPipeline.from_pretrained("pixel", model, device_map=given)


@row("`safety_checker=None`")
def no_safety_checker(model: MLPDeprojector) -> None:
    options = {"safety_checker": None, "requires_safety_checker": False, "feature_extractor": None}
    assert DeprojectorPipeline.from_pretrained("pixel", model, device="cpu", **options).sd.safety_checker is None
    with pytest.raises(UserError, match="takes no 'safety_checker'"):
        DeprojectorPipeline.from_pretrained("pixel", model, safety_checker=object())


def refused(model: MLPDeprojector, said: str, *names: str) -> None:
    for name in names:
        with pytest.raises(UserError, match=f"takes no '{name}': .*{said}"):
            DeprojectorPipeline.from_pretrained("pixel", model, **{name: "x"})


@row("`scheduler=`, `unet=`, `vae=`")
def no_parts(model: MLPDeprojector) -> None:
    refused(model, "set it afterwards", "scheduler", "unet", "vae")


@row("`text_encoder=`, `tokenizer=`")
def no_text_parts(model: MLPDeprojector) -> None:
    refused(model, "inverts one text encoder as it is", "text_encoder", "tokenizer")


@row("`revision=`, `token=`, `cache_dir=`, `local_files_only=`, `force_download=`")
def no_hub_options(model: MLPDeprojector) -> None:
    refused(model, "hf download", "revision", "token", "cache_dir", "local_files_only", "force_download")


@row("`custom_pipeline=`, `quantization_config=`, `use_safetensors=`, `low_cpu_mem_usage=`")
def no_further_options(model: MLPDeprojector) -> None:
    refused(model, "", "custom_pipeline", "quantization_config", "use_safetensors", "low_cpu_mem_usage", "nonsense")


@row("`to(device)`, `to(dtype)`")
def moves(pipe: DeprojectorPipeline) -> None:
    before = drawn(pipe)
    assert pipe.to("cpu", torch.bfloat16) is pipe
    assert pipe.dtype == pipe.vae.dtype == torch.bfloat16
    assert pipe.model.sos.dtype == torch.float32
    assert np.abs(drawn(pipe) - before).mean() < 0.05
    pipe.to(torch.float32)
    assert pipe.dtype == torch.float32
    pipe.to("meta")
    assert {pipe.device.type, pipe.encoder.sos.device.type, pipe.pictures.mean.device.type, pipe.unet.device.type} == {"meta"}


@row("`device`, `dtype`")
def where_it_is(pipe: DeprojectorPipeline) -> None:
    assert (pipe.device, pipe.dtype) == (torch.device("cpu"), torch.float32)


@row("`save_pretrained(folder)`")
def saves(pipe: DeprojectorPipeline, small: Path, tmp_path: Path) -> None:
    from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline

    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    pipe.save_pretrained(tmp_path / "mine")
    for arguments in ((tmp_path / "mine",), (tmp_path / "mine", pipe.model)):
        loaded = DeprojectorPipeline.from_pretrained(*arguments, device="cpu")
        assert isinstance(loaded.scheduler, EulerDiscreteScheduler)
        assert (loaded.name, loaded.guidance) == ("pixel", 3.0)
        assert np.array_equal(drawn(loaded), drawn(pipe))
        photo = Image.new("RGB", (32, 32), "red")
        assert torch.equal(loaded.embed([photo]), pipe.embed([photo]))
    theirs = StableDiffusionPipeline.from_pretrained(tmp_path / "mine")
    theirs.set_progress_bar_config(disable=True)
    assert theirs("cat maid", **FEW).images.shape == (1, 32, 32, 3)
    with pytest.raises(UserError, match="is there already"):
        pipe.save_pretrained(tmp_path / "mine")
    other = MLPDeprojector.for_encoder(TextEncoder.from_pretrained(small / "sd"), hidden=8)
    with pytest.raises(UserError, match="this model has states of width 32, the text encoder 128"):
        DeprojectorPipeline.from_pretrained(tmp_path / "mine", other)


@row("`push_to_hub`")
def no_push(pipe: DeprojectorPipeline) -> None:
    no_attribute(pipe, "push_to_hub", "pipe.model.push_to_hub")


@row("`enable_model_cpu_offload()`, `enable_sequential_cpu_offload()`")
def offloads(pipe: DeprojectorPipeline) -> None:
    before = drawn(pipe)
    pipe.enable_model_cpu_offload(device="cpu")  # the processor as the card, which moves nothing but goes the whole way
    assert np.array_equal(drawn(pipe), before)
    pipe.sd.remove_all_hooks()
    pipe.enable_sequential_cpu_offload(device="cpu")
    assert pipe.unet.device.type == "meta", "its weights lie elsewhere than it computes"
    assert pipe.device.type == "cpu"  # accelerate's hooks themselves can't draw with the processor as the card


@row("`components`")
def components(pipe: DeprojectorPipeline) -> None:
    assert pipe.components["text_encoder"] is None
    assert {"unet", "vae", "scheduler"} <= set(pipe.components)


@row("`from_pipe`")
def no_from_pipe(pipe: DeprojectorPipeline) -> None:
    no_attribute(pipe, "from_pipe", r"StableDiffusionImg2ImgPipeline\(\*\*pipe\.components")


def no_attribute(pipe: DeprojectorPipeline, name: str, said: str) -> None:
    with pytest.raises(AttributeError, match=said):
        getattr(pipe, name)
    assert not hasattr(pipe, name)


@row("`scheduler`, `unet`, `vae`")
def parts(pipe: DeprojectorPipeline, small: Path) -> None:
    from diffusers import DPMSolverMultistepScheduler, EulerDiscreteScheduler, PNDMScheduler

    before = drawn(pipe)
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    assert pipe.sd.scheduler is pipe.scheduler
    assert not np.allclose(drawn(pipe), before, atol=1e-2)
    pipe.unet, pipe.vae = pipe.sd.unet, pipe.sd.vae
    assert "unet" not in vars(pipe)
    encoder = TextEncoder.from_pretrained(small / "sd")
    of_folder = DeprojectorPipeline.from_pretrained(small / "sd", MLPDeprojector.for_encoder(encoder, hidden=8), device="cpu")
    assert type(of_folder.scheduler) is PNDMScheduler, "the folder's own"
    assert type(of_folder.world.renderer(encoder, "cpu").pipe.scheduler) is DPMSolverMultistepScheduler, "of sheets and measures"


@row("`text_encoder`, `tokenizer`")
def no_text_attributes(pipe: DeprojectorPipeline) -> None:
    no_attribute(pipe, "text_encoder", "pipe.encoder.model")
    no_attribute(pipe, "tokenizer", "pipe.encoder.tokenizer")


@row("`safety_checker`, `feature_extractor`")
def no_checkers(pipe: DeprojectorPipeline) -> None:
    no_attribute(pipe, "safety_checker", "none is loaded")
    no_attribute(pipe, "feature_extractor", "pipe.pictures")
    no_attribute(pipe, "nonsense", "neither DeprojectorPipeline nor diffusers' StableDiffusionPipeline has 'nonsense'")


@row("`load_lora_weights`, `set_adapters`, `fuse_lora`, `unload_lora_weights`")
def loras(pipe: DeprojectorPipeline, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    name, before = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k", drawn(pipe)
    wide, narrow = pipe.unet.get_submodule(name).weight.shape
    lora = {
        "lora_A.weight": torch.randn(4, narrow, generator=seeded()),
        "lora_B.weight": torch.randn(wide, 4, generator=seeded()),
    }
    save_file({f"unet.{name}.{side}": weight for side, weight in lora.items()}, tmp_path / "lora.safetensors")
    pipe.load_lora_weights(tmp_path / "lora.safetensors", "mine")
    changed = drawn(pipe)
    assert not np.allclose(changed, before, atol=1e-2)
    with pytest.raises(UserError, match="a LoRA is loaded, which wouldn't be saved"):
        pipe.save_pretrained(tmp_path / "mine")
    assert not (tmp_path / "mine").exists()
    pipe.set_adapters(["mine"], [0.0])
    assert np.allclose(drawn(pipe), before, atol=1e-4)
    pipe.set_adapters(["mine"], [1.0])
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    assert np.allclose(drawn(pipe), changed, atol=1e-3)
    pipe.save_pretrained(tmp_path / "mine")
    assert np.allclose(drawn(DeprojectorPipeline.from_pretrained(tmp_path / "mine", device="cpu")), changed, atol=1e-3)


@row("`load_textual_inversion`")
def inversions(pipe: DeprojectorPipeline, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"<mine>": torch.randn(2, pipe.encoder.width, generator=seeded())}, tmp_path / "mine.safetensors")
    assert pipe.load_textual_inversion(tmp_path / "mine.safetensors", token="mywords") == "mywords"
    assert not torch.allclose(pipe.embed(["mywords"]), pipe.embed([""]), atol=1e-2)
    pipe.load_textual_inversion(tmp_path / "mine.safetensors")
    assert torch.allclose(pipe.embed(["<mine>"]), pipe.embed(['"<mine>"']))
    with pytest.raises(UserError, match="no picture is named <other>"):
        pipe.embed(["<other>"])
    with pytest.raises(UserError, match=r"textual inversions \(mywords, <mine>\) aren't saved"):
        pipe.save_pretrained(tmp_path / "saved")


@row("`unload_textual_inversion`")
def no_unloading(pipe: DeprojectorPipeline) -> None:
    no_attribute(pipe, "unload_textual_inversion", "load the pipeline anew")


@row("`load_ip_adapter`, `set_ip_adapter_scale`")
def ip_adapters(pipe: DeprojectorPipeline) -> None:
    before = drawn(pipe)
    pipe.load_ip_adapter(ip_adapter(pipe), subfolder="", weight_name="", image_encoder_folder=None)
    embedded = {"ip_adapter_image_embeds": [torch.randn(2, 1, 16, generator=seeded())]}
    changed = drawn(pipe, **embedded)
    assert not np.allclose(changed, before, atol=1e-2)
    pipe.set_ip_adapter_scale(0.0)
    assert np.allclose(drawn(pipe, **embedded), before, atol=1e-4)
    pipe.unload_ip_adapter()
    assert np.allclose(drawn(pipe), before, atol=1e-4)


def ip_adapter(pipe: DeprojectorPipeline) -> dict[str, Any]:
    """Random weights of an IP-Adapter for embeddings of width 16, four tokens of them."""
    width, layers = pipe.encoder.width, {}
    crossing = [name for name in pipe.unet.attn_processors if "attn2" in name]
    for k, name in enumerate(crossing):
        to_k = pipe.unet.get_submodule(name.removesuffix(".processor")).to_k.weight
        for part in ("k", "v"):
            layers[f"{2 * k + 1}.to_{part}_ip.weight"] = torch.randn(to_k.shape, generator=seeded(k)) / width**0.5
    projection = {"proj.weight": torch.randn(4 * width, 16, generator=seeded()), "proj.bias": torch.zeros(4 * width)}
    return {"image_proj": projection | {"norm.weight": torch.ones(width), "norm.bias": torch.zeros(width)}, "ip_adapter": layers}


@row("ControlNet, img2img, inpainting")
def other_pipelines(small: Path) -> None:
    from diffusers import StableDiffusionInpaintPipeline  # ControlNet and img2img: tests/pipeline/test_pipeline.py

    encoder = TextEncoder.from_pretrained(small / "sd")
    pipe = DeprojectorPipeline.from_pretrained(small / "sd", MLPDeprojector.for_encoder(encoder, hidden=8), device="cpu")
    inpainting = StableDiffusionInpaintPipeline(**pipe.components, requires_safety_checker=False)
    inpainting.set_progress_bar_config(disable=True)
    side = pipe.unet.config.sample_size * pipe.sd.vae_scale_factor
    mask = Image.new("L", (side, side))
    mask.paste(255, (side // 2, 0, side, side))
    of = {"image": Image.new("RGB", (side, side), "red"), "mask_image": mask, "height": side, "width": side}
    made = []
    for prompt in ("cat", "red hair"):
        states, negative = pipe.encode_prompt(prompt)
        given = {"prompt_embeds": 9 * states, "negative_prompt_embeds": negative, "num_inference_steps": 4}
        made.append(inpainting(**of, **given, output_type="latent", generator=seeded()).images)
    half = made[0].shape[-1] // 2
    assert torch.equal(made[0][..., :half], made[1][..., :half]), "what is kept"
    assert not torch.equal(made[0][..., half:], made[1][..., half:]), "what is drawn"


@row("`vae.enable_tiling()`, `vae.enable_slicing()`, `enable_attention_slicing()`, `enable_freeu(…)`")
def savings(pipe: DeprojectorPipeline) -> None:
    before = drawn(pipe)
    pipe.vae.enable_tiling()
    pipe.vae.enable_slicing()
    pipe.enable_attention_slicing()
    assert np.allclose(drawn(pipe), before, atol=1e-3)
    pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)
    assert pipe.unet.up_blocks[0].s1 == 0.9


@row("`set_progress_bar_config`")
def bars(pipe: DeprojectorPipeline, capsys: pytest.CaptureFixture[str]) -> None:
    drawn(pipe)
    assert capsys.readouterr().err == ""
    with pytest.raises(UserError, match="has no 'disabled'; did you mean 'disable'"):
        pipe.set_progress_bar_config(disabled=False)
    with pytest.raises(UserError, match="has no 'total'"):
        pipe.set_progress_bar_config(total=5)
    pipe.set_progress_bar_config(disable=False)
    drawn(pipe)
    assert "2/2" in capsys.readouterr().err


@row("`prompt`")
def prompts(pipe: DeprojectorPipeline) -> None:
    photo = Image.new("RGB", (32, 32), "red")
    given = ["cat, maid:1.2", pipe.embed(["cat"])[0], photo]
    assert pipe(given, **FEW).images.shape == (3, 32, 32, 3)
    with pytest.raises(UserError, match="give one of prompt, embedding and image; got 2"):
        pipe(["a", "b"], embedding=torch.zeros(128))


@row("`negative_prompt`")
def negatives(pipe: DeprojectorPipeline) -> None:
    assert not np.allclose(drawn(pipe, negative_prompt="red hair"), drawn(pipe), atol=1e-2)
    assert np.array_equal(drawn(pipe, negative_prompt=""), drawn(pipe))


@row("`prompt_embeds`, `negative_prompt_embeds`")
def states(pipe: DeprojectorPipeline) -> None:
    made, negative = pipe.encode_prompt("cat, maid", "red hair")
    given = pipe(prompt_embeds=made, negative_prompt_embeds=negative, generator=seeded(), **FEW).images
    assert np.allclose(given, drawn(pipe, negative_prompt="red hair"), atol=1e-4)
    assert np.allclose(pipe(prompt_embeds=made, generator=seeded(), **FEW).images, drawn(pipe), atol=1e-4)
    with pytest.raises(UserError, match="prompt_embeds are states"):
        pipe("cat", prompt_embeds=made)
    with pytest.raises(UserError, match="negative_prompt or negative_prompt_embeds"):
        pipe("cat", negative_prompt="dog", negative_prompt_embeds=negative)


@row("`num_inference_steps`, `guidance_scale`")
def sampling(pipe: DeprojectorPipeline) -> None:
    assert (pipe.steps, pipe.guidance) == (20, 3.0)
    assert np.array_equal(drawn(pipe, guidance_scale=3.0), drawn(pipe))
    assert not np.allclose(drawn(pipe, guidance_scale=7.5), drawn(pipe), atol=1e-2)
    assert not np.allclose(drawn(pipe, num_inference_steps=3), drawn(pipe), atol=1e-2)


@row("`guidance_rescale`, `eta`, `timesteps`, `sigmas`")
def finer_sampling(pipe: DeprojectorPipeline) -> None:
    from diffusers import DDIMScheduler, EulerDiscreteScheduler

    assert not np.allclose(drawn(pipe, guidance_rescale=0.7), drawn(pipe), atol=1e-3)
    times: list[int] = []
    drawn(pipe, timesteps=[900, 500, 100], callback_on_step_end=noting(times))
    assert times == [900, 500, 100]
    sigmas: list[int] = []
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    drawn(pipe, sigmas=[10.0, 1.0, 0.1, 0.0], callback_on_step_end=noting(sigmas))
    assert len(sigmas) == 3
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    assert not np.allclose(drawn(pipe, eta=1.0), drawn(pipe), atol=1e-3)


def noting(times: list[int]) -> Callable[..., dict[str, Any]]:
    def note(pipe: Any, step: int, time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        times.append(int(time))
        return tensors

    return note


@row("`generator`, `num_images_per_prompt`, `latents`")
def noises(pipe: DeprojectorPipeline) -> None:
    both = pipe("cat, maid", num_images_per_prompt=2, generator=[seeded(0), seeded(1)], **FEW).images
    assert np.allclose(both[:1], drawn(pipe), atol=1e-3)
    noise = torch.randn(1, pipe.unet.config.in_channels, 8, 8, generator=seeded())
    assert np.allclose(pipe("cat, maid", latents=noise, **FEW).images, drawn(pipe), atol=1e-3)


@row("`height`, `width`")
def sizes(pipe: DeprojectorPipeline) -> None:
    assert drawn(pipe, height=48, width=64).shape == (1, 48, 64, 3)


@row("`output_type`, `return_dict`")
def outputs(pipe: DeprojectorPipeline) -> None:
    few = {"num_inference_steps": 2, "generator": seeded()}
    assert pipe("cat", num_inference_steps=2).images[0].size == (256, 256)
    raw = pipe("cat", **few, size=0).images[0]
    assert raw.size == (32, 32)
    (large,) = pipe("cat", num_inference_steps=2, generator=seeded(), size=64, return_dict=False)[0]
    assert np.array_equal(np.asarray(large)[::2, ::2], np.asarray(raw))
    assert pipe("cat", **FEW).images.shape == (1, 32, 32, 3)
    assert isinstance(pipe("cat", **{**FEW, "output_type": "latent"}).images, torch.Tensor)


@row("`callback_on_step_end`, `cross_attention_kwargs`")
def callbacks(pipe: DeprojectorPipeline) -> None:
    times: list[int] = []
    assert np.array_equal(drawn(pipe, callback_on_step_end=noting(times), cross_attention_kwargs={}), drawn(pipe))
    assert len(times) == 2


@row("`ip_adapter_image`, `ip_adapter_image_embeds`")
def ip_images(pipe: DeprojectorPipeline, tmp_path: Path) -> None:
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    pipe.load_ip_adapter(ip_adapter(pipe), subfolder="", weight_name="", image_encoder_folder=None)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 16}
    vision = CLIPVisionModelWithProjection(CLIPVisionConfig(**sizes, image_size=32, projection_dim=16)).eval()
    pipe.sd.register_modules(image_encoder=vision, feature_extractor=CLIPImageProcessor(size=32, crop_size=32))
    red, blue = (drawn(pipe, ip_adapter_image=Image.new("RGB", (32, 32), colour)) for colour in ("red", "blue"))
    assert not np.allclose(red, blue, atol=1e-3)


@row("`clip_skip`")
def no_clip_skip(pipe: DeprojectorPipeline) -> None:
    with pytest.raises(UserError, match=r"clip_skip is refused: .*sd\.clip_skip="):
        pipe("cat", clip_skip=1)


@row("any other option")
def no_strange_options(pipe: DeprojectorPipeline) -> None:
    with pytest.raises(UserError, match="no option 'strenght'"):
        pipe("cat", strenght=0.5)


@row("`encode_prompt`")
def encodes(pipe: DeprojectorPipeline) -> None:
    made, negative = pipe.encode_prompt(["cat", "maid"], "red hair")
    assert made.shape == negative.shape == (2, 77, 128)


def test_a_copy_is_whole(pipe: DeprojectorPipeline):

    assert np.array_equal(drawn(copy(pipe)), drawn(pipe))
