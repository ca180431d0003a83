"""What diffusers' pipelines have, and how far ours has it: docs/diffusers.md is the table for users."""

from __future__ import annotations

import inspect
import math
from difflib import get_close_matches
from typing import Any

import torch

from deproj.process.errors import UserError
from deproj.process.numbers import as_number, as_whole

__all__ = [
    "PARTS",
    "check_call",
    "check_device",
    "check_loading",
    "check_progress",
    "check_strength",
    "check_values",
    "passed_on",
]

#: Parts of the diffusers pipeline that may be replaced, as in ``pipe.scheduler = …``.
PARTS = ("scheduler", "unet", "vae")

TEXTS = "a deprojector inverts one text encoder as it is"
#: Pixels that a picture is enlarged to at most.
LARGEST = 8192
#: Attributes of diffusers' pipelines that have no meaning here.
ATTRIBUTES = {
    "text_encoder": f"{TEXTS}; look at it as pipe.encoder.model",
    "tokenizer": f"{TEXTS}; look at it as pipe.encoder.tokenizer",
    "safety_checker": "none is loaded; make one a step of your own, on the pictures",
    "feature_extractor": "CLIP's image encoder is pipe.pictures",
    "from_pipe": "other pipelines are made of the parts: StableDiffusionImg2ImgPipeline(**pipe.components, …)",
    "push_to_hub": "pipe.model.push_to_hub uploads the deprojector",
    "unload_textual_inversion": f"{TEXTS}; load the pipeline anew without it",
    "maybe_convert_prompt": "words of several vectors are read by pipe.encoder",
}
#: Arguments of diffusers' calls.
CALL = {"clip_skip": f"{TEXTS}; its clip skip is the model's own, pipe.encoder.clip_skip (train with sd.clip_skip=)"}
#: What other programs call arguments of a call.
ELSEWHERE = {
    "seed": "generator=torch.Generator().manual_seed(0) is its seed",
    **dict.fromkeys(("steps", "num_steps", "sampler_steps"), "num_inference_steps is how many there are"),
    **dict.fromkeys(("guidance", "cfg", "cfg_scale"), "guidance_scale is how much there is"),
    **dict.fromkeys(("negative", "negative_prompts"), "negative_prompt is what is avoided"),
    **dict.fromkeys(("num_images", "count", "n"), "num_images_per_prompt is how many there are"),
    "images": "image takes one, or a list of them",
    "embeddings": "embedding takes (D,) or (B, D)",
}
#: Arguments of diffusers' `from_pretrained`.
LOADING = {
    **dict.fromkeys(PARTS, "set it afterwards, as in pipe.scheduler = …"),
    **dict.fromkeys(("text_encoder", "tokenizer"), TEXTS),
    **dict.fromkeys(("revision", "token", "cache_dir"), "download with `hf download` and name the folder"),
    **dict.fromkeys(("local_files_only", "force_download"), "set HF_HUB_OFFLINE=1, or download with `hf download`"),
    "use_safetensors": "safetensors are read where there are any",
    "custom_pipeline": "the picture is drawn by diffusers' StableDiffusionPipeline; make others of pipe.components",
    "quantization_config": "make the U-Net so, and set it: pipe.unet = …",
    "low_cpu_mem_usage": "it is so already",
}


def passed_on(sd: Any, name: str) -> Any:
    """An attribute of the diffusers pipeline.

    Raises:
        AttributeError: where it has none of the name, or one that has no meaning here.
    """
    if name in ATTRIBUTES:
        raise AttributeError(f"DeprojectorPipeline has no {name}: {ATTRIBUTES[name]}.")
    if not hasattr(sd, name):
        raise AttributeError(f"neither DeprojectorPipeline nor diffusers' {type(sd).__name__} has {name!r}.")
    return getattr(sd, name)


def check_call(sd: Any, options: dict[str, Any]) -> None:
    """Refuses options of a call that diffusers would pass over, or that have no meaning here."""
    known = inspect.signature(type(sd).__call__).parameters
    for name in options:
        if name in CALL:
            raise UserError(f"{name} is refused: {CALL[name]}.")
        if name not in known:
            meant = ELSEWHERE.get(name, "see DeprojectorPipeline.__call__ and diffusers' own")
            raise UserError(f"the pipeline has no option {name!r}; {meant}.")
    if (options.get("height") is None) != (options.get("width") is None):
        raise UserError("height and width are given both, or neither: diffusers passes over one alone.")


def check_progress(options: dict[str, Any]) -> None:
    """Refuses what no progress bar has, and how long it is, which diffusers would find out while it draws."""
    from tqdm import tqdm

    known = [name for name in inspect.signature(tqdm.__init__).parameters if name not in ("self", "iterable", "total", "kwargs")]
    for name in options:
        if name not in known:
            near = get_close_matches(name, known, 1)
            meant = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}."
            raise UserError(f"a progress bar has no {name!r}; {meant}")


def check_values(
    steps: int, guidance: float, strength: float, count: int, size: int, generator: Any, called: dict[str, Any], width: int
) -> None:
    """Refuses values of a call that can't be, before anything is computed.

    Args:
        called: states that are handed over, or None, by their names.
        width: D, of a state.
    """
    for name, number in (("num_inference_steps", steps), ("num_images_per_prompt", count)):
        if (as_whole(number) or 0) < 1:
            raise UserError(f"{name} is a whole number, at least 1; got {number!r}.")
    if not math.isfinite(math.nan if (scale := as_number(guidance)) is None else scale):
        raise UserError(f"guidance_scale is a finite number, up to 1 without guidance; got {guidance!r}.")
    check_strength(strength)
    if not 0 <= (-1 if (pixels := as_whole(size)) is None else pixels) <= LARGEST:
        raise UserError(f"size is a whole number of pixels, 0 (as drawn) to {LARGEST}; got {size!r}.")
    generators = [] if generator is None else generator if isinstance(generator, list) else [generator]
    if generator == [] or not all(isinstance(one, torch.Generator) for one in generators):
        raise UserError("generator is a torch.Generator, or a list of one a picture: torch.Generator().manual_seed(0).")
    for name, states in called.items():
        if states is None:
            continue
        shape = tuple(states.shape) if isinstance(states, torch.Tensor) else type(states).__name__
        if not isinstance(states, torch.Tensor) or states.ndim != 3 or states.shape[2] != width:
            raise UserError(f"{name} is a tensor of states, (B, 77, {width}); got {shape}.")


def check_strength(strength: Any) -> None:
    """Refuses a strength that isn't from 0 to 1."""
    if not 0 <= (-1 if (number := as_number(strength)) is None else number) <= 1:
        raise UserError(f"strength is 0 to 1; got {strength!r}.")


def check_device(given: Any) -> None:
    """Refuses a device that there isn't."""
    try:
        device = torch.device(f"cuda:{given}" if isinstance(given, int) else given)
    except (RuntimeError, TypeError):
        raise UserError(f"a device is 'cpu', 'cuda' or 'cuda:0'; got {given!r}.") from None
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        why = str(error).strip().partition("\n")[0].rstrip(".")
        raise UserError(f"there is no device {str(device)!r} here ({why}); take 'cpu', or a torch that has it.") from None


def check_loading(device: str | None, dtype: torch.dtype | None, options: dict[str, Any]) -> tuple[str, torch.dtype | None]:
    """The device and the dtype that are asked for.

    Args:
        options: diffusers' own beside them.

    Raises:
        UserError: for options that there aren't or that have no meaning here, and for two that say different things.
    """
    options = dict(options)
    dtype = one_of("torch_dtype and dtype", dtype, options.pop("dtype", None))
    device = one_of("device and device_map", device, options.pop("device_map", None))
    for name in ("safety_checker", "requires_safety_checker", "feature_extractor"):  # often said, and always so here
        if options.get(name) in (None, False):
            options.pop(name, None)
    for name in options:
        raise UserError(f"from_pretrained takes no {name!r}: {LOADING.get(name, 'see DeprojectorPipeline.from_pretrained')}.")
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise UserError(f"torch_dtype is torch.float32, float16 or bfloat16; got {dtype!r}.")
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu", dtype
    try:
        device = str(torch.device(device))
    except (RuntimeError, TypeError):
        raise UserError(
            f"device_map is one device, as 'cuda': got {device!r}. Where the card is too small, load to 'cpu' and call "
            "pipe.enable_model_cpu_offload()."
        ) from None
    check_device(device)
    return device, dtype


def one_of(names: str, first: Any, second: Any) -> Any:
    """The one that is given; both only where they are the same."""
    if first is not None and second is not None and first != second:
        raise UserError(f"{names} say different things, {first} and {second}; give one.")
    return second if first is None else first
