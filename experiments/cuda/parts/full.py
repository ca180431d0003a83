"""Part 3: at full size. Stable Diffusion 1.5's shapes with random weights: training, every objective, pictures.

On a CPU, and in the short form, the same on small shapes.
"""

from __future__ import annotations

import torch
from shared import CUDA, DEVICE, SHORT, WORK, check, deproj, end, keep, timed

from deproj.draw.renderer import Renderer
from deproj.draw.stable_diffusion import SdSettings, StableDiffusion
from deproj.fullsize import Shapes, make
from deproj.runs.folder import RunFolder
from deproj.settings.shipped import CONF

LARGE = CUDA and not SHORT
SMALL = Shapes(
    vocabulary=2000,
    text={"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "projection_dim": 64},
    vision={
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "projection_dim": 64,
        "image_size": 32, "patch_size": 8,
    },
    vae={"block_out_channels": (32,), "down_block_types": ("DownEncoderBlock2D",), "up_block_types": ("UpDecoderBlock2D",),
         "latent_channels": 4, "sample_size": 32},
    unet={
        "sample_size": 16, "block_out_channels": (32, 64), "cross_attention_dim": 64, "attention_head_dim": 8,
        "layers_per_block": 1, "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    },
)  # fmt: skip


def train(objectives: list[str]) -> None:
    """The first 200 steps of an epoch from kept states and from kept tokens, and a run of every other objective."""
    size, batch = (20_000, 100) if LARGE else (60, 20)
    common = ["sd=sd15", f"sd.path={WORK}/full/sd", f"sd.clip={WORK}/full/clip", "data.prompts=grammar", f"data.size={size}"]
    common += [f"data.batch_size={batch}", "data.held_out=100" if LARGE else "data.held_out=10", "trainer.max_epochs=1"]
    common += ["evaluate=0", "render=off", "precision=bf16", f"data.cache={WORK}/cache/samples"]
    for name, more in {
        "states": ["data.keep=states"],
        "tokens": ["data.keep=tokens"],
        **{objective: [f"objective={objective}"] for objective in objectives if objective != "states"},
    }.items():
        seconds, _ = deproj("train", *common, *more, f"hydra.run.dir=full-{name}")
        result = RunFolder(WORK / f"full-{name}").read_result()
        told = {"seconds": round(seconds, 1), "phases": result.phases, "steps": -(-size // batch), "val_loss": result.val_loss}
        keep(f"training, {name}", told)
        check(result.val_loss == result.val_loss, f"{name}: the held-out loss is a number")


def pictures() -> None:
    """Six pictures of 20 steps in each precision: seconds, peak memory, and that every number is finite."""
    steps = 20 if LARGE else 2
    settings = SdSettings("sd15", f"{WORK}/full/sd", f"{WORK}/full/clip", steps, 7.5, True, None, 100)
    encoder = StableDiffusion(settings).encoder(DEVICE)
    states = encoder(["cat maid"] * 6).states
    for name, dtype in {"float16": torch.float16, "float32": torch.float32}.items():
        if name == "float16" and not CUDA:
            continue
        renderer = Renderer(settings, encoder.empty.states[0], DEVICE, dtype)
        seconds, peak = timed(lambda renderer=renderer: renderer(states, range(6)), 1, 2)
        drawn = renderer(states[:1], [0])
        keep(f"six pictures, {name}", {"seconds": round(seconds, 2), "peak MiB": peak, "size": list(drawn.shape[1:3])})
        noise = renderer.noise(torch.randn(1, 4, *[renderer.pipe.unet.config.sample_size] * 2), torch.tensor(500), states[:1])
        check(bool(torch.isfinite(noise).all()), f"{name}: what the U-Net finds is finite")


make(WORK / "full", None if LARGE else SMALL)
found = sorted(path.stem for path in (CONF / "objective").glob("*.yaml"))
keep("objectives", found or ["states"])
train(found)
pictures()
end()
