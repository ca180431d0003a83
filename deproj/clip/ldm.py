"""The web's layout of a Stable Diffusion 1.x: one file, under the names that its first code gave the weights.

diffusers reads this layout and doesn't write it. Here is the way back, by which a pipeline becomes a single file.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

__all__ = ["save_single_file", "unet_name", "vae_name", "web_weights"]

#: What stands before the names of each part.
UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer.text_model."
#: Names outside a U-Net's blocks, and within its resnets: diffusers' and the web's.
OUTER = {
    "time_embedding.linear_1.": "time_embed.0.", "time_embedding.linear_2.": "time_embed.2.", "conv_in.": "input_blocks.0.0.",
    "conv_norm_out.": "out.0.", "conv_out.": "out.2.", "mid_block.resnets.0.": "middle_block.0.",
    "mid_block.attentions.0.": "middle_block.1.", "mid_block.resnets.1.": "middle_block.2.",
}  # fmt: skip
RESNET = {
    "norm1.": "in_layers.0.", "conv1.": "in_layers.2.", "norm2.": "out_layers.0.", "conv2.": "out_layers.3.",
    "time_emb_proj.": "emb_layers.1.", "conv_shortcut.": "skip_connection.",
}  # fmt: skip
#: Names within a VAE's parts.
WITHIN_VAE = {
    "conv_shortcut.": "nin_shortcut.", "conv_norm_out.": "norm_out.", "group_norm.": "norm.", "to_q.": "q.", "to_k.": "k.",
    "to_v.": "v.", "to_out.0.": "proj_out.", "mid_block.attentions.0.": "mid.attn_1.", "mid_block.resnets.0.": "mid.block_1.",
    "mid_block.resnets.1.": "mid.block_2.",
}  # fmt: skip
BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")


def unet_name(name: str, layers: int, attended: set[int]) -> str:
    """The web's name of a weight of a U-Net.

    Args:
        layers: of a block on the way down; those on the way up have one more.
        attended: numbers of the blocks on the way up that have attentions, behind which an upsampler stands.
    """
    if ".resnets." in name:
        name = swapped(name, RESNET)
    if (found := BLOCK.fullmatch(name)) is None:
        return swapped(name, OUTER)
    side, block, part, layer, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
    if part in ("downsamplers", "upsamplers"):
        layer = layers
    first = block * (layers + 1)
    if side == "down":
        rest = rest.replace("conv.", "op.") if part == "downsamplers" else rest
        return f"input_blocks.{first + layer + 1}.{int(part == 'attentions')}.{rest}"
    inner = {"resnets": 0, "attentions": 1, "upsamplers": 2 if block in attended else 1}[part]
    return f"output_blocks.{first + layer}.{inner}.{rest}"


def vae_name(name: str, blocks: int) -> str:
    """The web's name of a weight of a VAE of so many blocks; the web counts the decoder's from the picture's side."""
    name = swapped(name, WITHIN_VAE)
    name = re.sub(r"down_blocks\.(\d+)\.", r"down.\1.", name)
    name = re.sub(r"up_blocks\.(\d+)\.", lambda found: f"up.{blocks - 1 - int(found[1])}.", name)
    return name.replace("resnets.", "block.").replace("downsamplers.0.", "downsample.").replace("upsamplers.0.", "upsample.")


def swapped(name: str, names: dict[str, str]) -> str:
    """A name with the parts that stand in a table replaced, whole parts only."""
    for theirs, webs in names.items():
        name = re.sub(rf"(^|\.){re.escape(theirs)}", lambda found, webs=webs: found[1] + webs, name)  # type: ignore[misc]
    return name


def web_weights(text_encoder: Any, unet: Any, vae: Any) -> dict[str, Tensor]:
    """All weights of a pipeline's parts, as a single file holds them."""
    weights = {f"{TEXT}{name.removeprefix('text_model.')}": value for name, value in text_encoder.state_dict().items()}
    # transformers has ceased to store the places' numbers, which a file from the web has
    weights[f"{TEXT}embeddings.position_ids"] = torch.arange(text_encoder.config.max_position_embeddings)[None]
    states = unet.state_dict()
    attended = {int(name.split(".")[1]) for name in states if name.startswith("up_blocks.") and ".attentions." in name}
    weights |= {UNET + unet_name(name, unet.config.layers_per_block, attended): value for name, value in states.items()}
    blocks = len(vae.config.block_out_channels)
    for name, value in vae.state_dict().items():
        # the attention's matrices are convolutions of one pixel there
        matrix = ".attentions." in name and value.ndim == 2
        weights[VAE + vae_name(name, blocks)] = value[:, :, None, None] if matrix else value
    return {name: value.contiguous() for name, value in weights.items()}


def save_single_file(path: Path, text_encoder: Any, unet: Any, vae: Any) -> None:
    """Writes a pipeline's weights as one file."""
    save_file(web_weights(text_encoder, unet, vae), path, metadata={"format": "pt"})
