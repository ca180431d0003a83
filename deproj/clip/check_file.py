"""Whether a single file is a Stable Diffusion 1.x: found from the names and shapes in its header, before a weight is read."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from deproj.clip.check import CHANNELS, WANTED, read_json
from deproj.process.errors import UserError
from deproj.process.files import refuse_pointer

__all__ = ["check_file", "shapes_of"]

UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer.text_model."
#: What a file is that has a name with such a beginning.
OTHERS = {
    "conditioner.embedders.": "a Stable Diffusion XL",
    "cond_stage_model.model.": "a Stable Diffusion 2.x",
    "model.diffusion_model.joint_blocks.": "a Stable Diffusion 3",
    "model.diffusion_model.double_blocks.": "a Flux",
    "double_blocks.": "a Flux",
    "text_encoders.": "a model of another kind than Stable Diffusion 1.x",
    "control_model.": "a ControlNet",
    "lora_": "a LoRA",
    "cond_stage_model.transformer.embeddings.": "of an older layout, without text_model in the text encoder's names",
}
#: One weight of each part, and what a file without it lacks.
PARTS = {
    f"{UNET}input_blocks.0.0.weight": "U-Net",
    f"{UNET}out.2.weight": "U-Net",
    f"{VAE}decoder.conv_in.weight": "VAE",
    f"{VAE}encoder.conv_in.weight": "VAE's encoder",
    f"{TEXT}embeddings.token_embedding.weight": "text encoder",
    f"{TEXT}embeddings.position_embedding.weight": "text encoder",
}


def check_file(path: Path, config: Path) -> None:
    """Refuses a file that is no whole Stable Diffusion 1.x, or of other sizes than its configuration.

    Args:
        config: folder of its configuration, checked.

    Raises:
        UserError: with what the file is, lacks, or has other than the configuration.
    """
    shapes = shapes_of(path)
    for start, what in OTHERS.items():
        if any(name.startswith(start) for name in shapes):
            raise UserError(f"{path} is {what}. {WANTED}")
    for name, part in PARTS.items():
        if name not in shapes:
            raise UserError(f"{path} has no {part}: {name} is missing. {WANTED}")
    made, taken = shapes[f"{UNET}out.2.weight"][0], shapes[f"{UNET}input_blocks.0.0.weight"][1]
    if taken != made:
        what = CHANNELS.get(taken, "another kind of model")
        raise UserError(f"{path}: a U-Net of {taken} input channels that gives out {made} is {what}. {WANTED}")
    check_sizes(path, shapes, config)
    read = read_json(config / "scheduler" / "scheduler_config.json")
    if "v_pred" in shapes and read.get("prediction_type", "epsilon") != "v_prediction":
        raise UserError(
            f'{path} is made for v-prediction; name a folder whose scheduler_config.json has "prediction_type": "v_prediction" '
            "with sd.config=."
        )


def check_sizes(path: Path, shapes: dict[str, list[int]], config: Path) -> None:
    """Holds a file's sizes against its configuration's: diffusers would leave out what is too much, in silence."""
    text, unet = (read_json(config / part / "config.json") for part in ("text_encoder", "unet"))
    vocabulary, width = shapes[f"{TEXT}embeddings.token_embedding.weight"]
    layers = {name.removeprefix(f"{TEXT}encoder.layers.").split(".")[0] for name in shapes if name.startswith(f"{TEXT}encoder.")}
    found = {
        "places of the text encoder": (shapes[f"{TEXT}embeddings.position_embedding.weight"][0], text["max_position_embeddings"]),
        "tokens of the text encoder": (vocabulary, text["vocab_size"]),
        "width of the text encoder": (width, text["hidden_size"]),
        "layers of the text encoder": (len(layers), text["num_hidden_layers"]),
        "first channels of the U-Net": (shapes[f"{UNET}input_blocks.0.0.weight"][0], unet["block_out_channels"][0]),
    }
    for what, (ours, theirs) in found.items():
        if ours != theirs:
            raise UserError(
                f"{path}: {what}: {ours}, but {theirs} by the configuration in {config}. "
                "Name a diffusers folder with the file's configuration, sd.config=FOLDER."
            )


def shapes_of(path: Path) -> dict[str, list[int]]:
    """Shapes of all tensors in a safetensors file, by their names.

    Raises:
        UserError: for a pointer, a pickle, a file that was cut off, and one that is no safetensors.
    """
    if path.suffix.lower() != ".safetensors":
        raise UserError(
            f"{path} is a pickle or another file that is not opened, since a pickle may run any program; take a .safetensors "
            "copy of it, or convert it where you trust it."
        )
    if not path.is_file():
        raise UserError(f"no file {path}: give a .safetensors file, a diffusers folder, or a hub id such as owner/name.")
    refuse_pointer(path)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} is no whole safetensors file ({said}); it may have been cut off: load it anew.") from None
