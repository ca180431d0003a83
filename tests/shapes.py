"""Shapes of a Stable Diffusion that a test makes in a second."""

from __future__ import annotations

from deproj.fullsize import Shapes

SMALL = Shapes(
    vocabulary=700,
    text=Shapes().text
    | {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "projection_dim": 32},
    vision=Shapes().vision
    | {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "projection_dim": 32}
    | {"image_size": 28},
    vae=Shapes().vae | {"block_out_channels": (32,) * 4, "layers_per_block": 1, "sample_size": 64},
    unet=Shapes().unet
    | {"block_out_channels": (32, 32, 64, 64), "layers_per_block": 1, "cross_attention_dim": 32, "sample_size": 8},
)
