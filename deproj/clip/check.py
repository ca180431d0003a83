"""Whether a pipeline is a Stable Diffusion 1.x that fits together: found before and after its weights are loaded.

`check_folder` reads the small files of a pipeline, `check_tokenizer` holds the tokenizer against the encoder, and
`check_finite` looks at every weight. Each refuses with the file or the tensor, and with what to do.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from deproj.process.errors import UserError
from deproj.process.files import refuse_pointer
from deproj.process.hub import names_of
from deproj.selection import PLACES

__all__ = ["SMALL_FILES", "check_finite", "check_folder", "check_tokenizer", "check_tokenizer_files", "variant"]

#: What `check_folder` reads of a pipeline; no weights.
SMALL_FILES = ("model_index.json", "*/*config.json", "tokenizer/*")
#: Pipelines of the same parts as Stable Diffusion 1.x.
PIPELINES = ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline")
#: Parts by their classes; a checkpoint of another class takes other states or makes other latents.
CLASSES = {
    "text_encoder": ("CLIPTextModel", "CLIPTextModelWithProjection"),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL", "AsymmetricAutoencoderKL", "AutoencoderTiny"),
}
#: Schedulers that diffusers lets replace each other; from their settings DPM-Solver++ can be made.
SCHEDULERS = (
    "DDIM", "DDPM", "PNDM", "LMSDiscrete", "EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "DPMSolverMultistep",
    "DPMSolverSinglestep", "DPMSolverSDE", "KDPM2Discrete", "KDPM2AncestralDiscrete", "DEISMultistep", "UniPCMultistep",
)  # fmt: skip
#: Settings of a U-Net that ask for more than latents, a timestep and states, and what has them.
EXTRAS = {
    "time_cond_proj_dim": "a latent consistency model, whose U-Net takes the guidance as an embedding",
    "addition_embed_type": "Stable Diffusion XL or another U-Net that takes a second embedding",
    "class_embed_type": "a U-Net that takes a class or a noise level",
    "num_class_embeds": "an upscaler, whose U-Net takes a noise level",
    "encoder_hid_dim_type": "a U-Net that projects other states than CLIP's",
    "encoder_hid_dim": "a U-Net that projects other states than CLIP's",
}
#: What a U-Net with this many channels more than it gives out is.
CHANNELS = {5: "a depth model", 7: "an upscaler", 8: "an editing model (pix2pix)", 9: "an inpainting model"}
WANTED = "Take a Stable Diffusion 1.x for text to image: a diffusers folder, or a whole .safetensors checkpoint."


def check_folder(folder: Path) -> None:
    """Refuses a pipeline's folder that is no Stable Diffusion 1.x, or lacks files. Parts that aren't there are passed over.

    Raises:
        UserError: with what the pipeline is, or which file is missing or wrong.
    """
    index = read_json(folder / "model_index.json")
    name = index.get("_class_name")
    if name is not None and name not in PIPELINES:
        said = name[-1] if isinstance(name, list) and name else name
        raise UserError(f"{folder} is a {said}, not a Stable Diffusion 1.x. {WANTED}")
    for part in sorted(index):
        if part.endswith(("_2", "_3")) and filled(index[part]):
            raise UserError(f"{folder} has a {part}: it is no Stable Diffusion 1.x, which has one. {WANTED}")
    for part, allowed in CLASSES.items():
        if filled(index.get(part)) and index[part][1] not in allowed:
            raise UserError(f"{folder}: its {part} is a {index[part][1]}; Stable Diffusion 1.x has a {allowed[0]}. {WANTED}")
    if filled(index.get("scheduler")):
        check_scheduler(folder, index["scheduler"][1])
    for part in ("text_encoder", "unet", "vae"):
        for path in weight_files(folder / part):
            refuse_pointer(path)
    check_tokenizer_files(folder / "tokenizer")
    check_configs(folder)


def check_scheduler(folder: Path, name: str) -> None:
    if name.removesuffix("Scheduler") not in SCHEDULERS:
        raise UserError(f"{folder}: its scheduler is a {name}, from which DPM-Solver++ can't be made. {WANTED}")
    path = folder / "scheduler" / "scheduler_config.json"
    prediction = read_json(path).get("prediction_type", "epsilon") if path.parent.is_dir() else "epsilon"
    if prediction not in ("epsilon", "v_prediction"):
        raise UserError(f"{path}: prediction_type is {prediction!r}; it is epsilon or v_prediction.")


def check_tokenizer_files(folder: Path) -> None:
    """transformers makes a tokenizer of two tokens, and no error, where the vocabulary's files are missing."""
    if not folder.is_dir():
        return
    for name in ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).is_file():
            refuse_pointer(folder / name)
    if not (folder / "tokenizer.json").is_file():
        for name in ("vocab.json", "merges.txt"):
            if not (folder / name).is_file():
                raise UserError(f"{folder / name} is missing: a tokenizer is vocab.json and merges.txt, or tokenizer.json.")


def check_configs(folder: Path) -> None:
    """Holds the sizes of text encoder, U-Net and VAE against each other, as far as these are there."""
    text, unet, vae = (
        read_json(folder / part / "config.json") if (folder / part).is_dir() else None for part in ("text_encoder", "unet", "vae")
    )
    if text is not None:
        text = {**text, **text.get("text_config", {})} if isinstance(text.get("text_config", {}), dict) else text
        if (places := text.get("max_position_embeddings", PLACES)) != PLACES:
            raise UserError(f"{folder / 'text_encoder'} has {places} places; a deprojector's text encoder has {PLACES}. {WANTED}")
    if unet is None:
        return
    check_unet(folder / "unet" / "config.json", unet)
    widths = unet.get("cross_attention_dim", 1280)
    made = None if text is None else text.get("hidden_size", 512)
    for width in widths if isinstance(widths, list) else [widths]:
        if text is not None and width != made:
            raise UserError(f"{folder}: its U-Net takes states of width {width}, its text encoder makes {made}. {WANTED}")
    taken, given = unet.get("in_channels", 4), None if vae is None else vae.get("latent_channels", 4)
    if given is not None and given != taken:
        raise UserError(f"{folder}: its U-Net takes {taken} channels, its VAE makes {given}. {WANTED}")


def check_unet(path: Path, unet: Mapping[str, Any]) -> None:
    """Refuses a U-Net that takes more than latents, a timestep and states, or whose size isn't known."""
    taken, made = unet.get("in_channels", 4), unet.get("out_channels", 4)
    if taken != made:
        what = CHANNELS.get(taken, "another kind of model")
        raise UserError(f"{path}: a U-Net of {taken} input channels that gives out {made} is {what}. {WANTED}")
    for name, what in EXTRAS.items():
        if unet.get(name) is not None:
            raise UserError(f"{path}: {name} is {unet[name]!r}; this is {what}. {WANTED}")
    size = unet.get("sample_size")
    sides = size if isinstance(size, list) else [size]
    if len(sides) not in (1, 2) or not all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in sides):
        raise UserError(f"{path}: sample_size is {json.dumps(size)}; it is the latents' side or two sides (64 for 512 pixels).")


def check_tokenizer(tokenizer: Any, model: Any, where: str) -> None:
    """Refuses a tokenizer whose tokens aren't the rows of a text encoder, or that sets no SOS and EOS.

    Raises:
        UserError: with both numbers.
    """
    rows, places = model.get_input_embeddings().weight.shape[0], model.config.max_position_embeddings
    if places != PLACES:
        raise UserError(f"the text encoder of {where!r} has {places} places; a deprojector's has {PLACES}. {WANTED}")
    if len(tokenizer) != rows:
        raise UserError(
            f"the tokenizer of {where!r} has {len(tokenizer)} tokens, its text encoder {rows} rows: "
            "tokenizer and text_encoder are of two models, or a file of the tokenizer is missing or cut off."
        )
    most = tokenizer.model_max_length
    if most != PLACES and most < 10**9:  # a huge number stands for none
        raise UserError(f"the tokenizer of {where!r} cuts texts at {most} tokens (model_max_length); it is {PLACES}.")
    ids = {name: getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    for name, number in ids.items():
        if number is None or not 0 <= number < rows:
            raise UserError(f"the tokenizer of {where!r} has no {name}_token of its vocabulary (id {number}); set it.")
    if list(tokenizer([""]).input_ids[0]) != [ids["bos"], ids["eos"]] or ids["bos"] == ids["eos"]:
        raise UserError(
            f"the tokenizer of {where!r} doesn't put its bos_token {tokenizer.bos_token!r} before a text and its eos_token "
            f"{tokenizer.eos_token!r} behind it."
        )
    # 0 and 2 are what early files say of SOS and EOS, whatever these are
    for name, early in (("bos", 0), ("eos", 2)):
        noted = getattr(model.config, f"{name}_token_id", None)
        if noted not in (None, early, ids[name]):
            raise UserError(f"{where!r}: {name}_token_id is {noted} for the text encoder, {ids[name]} for the tokenizer.")


def check_finite(tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]], part: str) -> None:
    """Refuses weights with a number that is none.

    Args:
        part: what they are of, as "the U-Net of 'folder'".

    Raises:
        UserError: with the tensor's name.
    """
    for name, value in tensors.items() if isinstance(tensors, Mapping) else tensors:
        # a sum alone may overflow in float16
        if value.is_floating_point() and not (torch.isfinite(value.sum()) or torch.isfinite(value).all()):
            wrong = int((~torch.isfinite(value)).sum())
            raise UserError(
                f"{part} is damaged: {name} holds {wrong} of {value.numel()} numbers that are NaN or infinite"
                f"{' in ' + str(value.dtype).removeprefix('torch.') if value.dtype != torch.float32 else ''}; load it anew."
            )


def variant(where: str, parts: Iterable[str]) -> str | None:
    """``fp16`` for a folder or hub id in which one of the parts has weights under the names of that variant alone.

    Args:
        parts: folders; "" for a model that is no part of a pipeline.
    """
    folder = Path(where)
    there = None if folder.is_dir() else [PurePosixPath(name) for name in names_of(where)]
    for part in parts:
        if there is None:
            names = [path.name for path in weight_files(folder / part)]
        else:
            names = of_weights([path.name for path in there if path.parent == PurePosixPath(part)])
        if names and all(".fp16." in name for name in names):
            return "fp16"
    return None


def weight_files(folder: Path) -> list[Path]:
    """Files of weights of a part, those that are loaded."""
    return [folder / name for name in of_weights([path.name for path in folder.iterdir()] if folder.is_dir() else [])]


def of_weights(names: Iterable[str]) -> list[str]:
    """Names of files of weights that are loaded: safetensors where there are any, and no variant where there is a plain one."""
    names = sorted(names)
    found = [name for name in names if name.endswith(".safetensors")] or [name for name in names if name.endswith(".bin")]
    plain = [name for name in found if ".fp16" not in name and ".non_ema" not in name]
    return plain or found


def filled(entry: Any) -> bool:
    return isinstance(entry, list) and len(entry) == 2 and entry[1] is not None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file."""
    refuse_pointer(path)
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {str(error) or type(error).__name__}") from None
    if not isinstance(read, dict):
        raise UserError(f"{path} holds no JSON object.")
    return read
