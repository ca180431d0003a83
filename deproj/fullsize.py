"""A Stable Diffusion 1.5 and its CLIP ViT-L/14 of the true shapes, with random weights: ``python -m deproj.fullsize OUT``.

For trying what Stable Diffusion's size takes (time, memory, disk) where the real weights are not at hand: OUT/sd is a diffusers
pipeline folder, OUT/clip a CLIP folder with the same text weights, both float16 safetensors as on the Hub, without the safety
checker. The tokenizer is the pixel world's, filled up to CLIP's 49,408 tokens. The pictures are noise. With ``--single-file``
the pipeline's weights are also in OUT/model.safetensors, in the layout that checkpoints have on the web.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deproj.pixel import WEIGHTS
from deproj.process.arguments import Parser
from deproj.process.errors import UserError, run_command
from deproj.process.files import named_path
from deproj.process.system import quoted, replace

__all__ = ["Shapes", "make"]

#: Bytes that the two folders take, and the single file.
SIZE = 3_100_000_000
SIZE_OF_FILE = 2_150_000_000


@dataclass(frozen=True)
class Shapes:
    """Of every part, as keywords of its config class; the true ones by default."""

    vocabulary: int = 49408
    text: dict[str, Any] = field(
        default_factory=lambda: {
            "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
            "projection_dim": 768, "hidden_act": "quick_gelu",
        }
    )  # fmt: skip
    vision: dict[str, Any] = field(
        default_factory=lambda: {
            "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
            "projection_dim": 768, "hidden_act": "quick_gelu", "image_size": 224, "patch_size": 14,
        }
    )  # fmt: skip
    vae: dict[str, Any] = field(
        default_factory=lambda: {
            "block_out_channels": (128, 256, 512, 512), "down_block_types": ("DownEncoderBlock2D",) * 4,
            "up_block_types": ("UpDecoderBlock2D",) * 4, "layers_per_block": 2, "latent_channels": 4, "sample_size": 512,
        }
    )  # fmt: skip
    unet: dict[str, Any] = field(
        default_factory=lambda: {
            "sample_size": 64, "block_out_channels": (320, 640, 1280, 1280), "cross_attention_dim": 768,
            "attention_head_dim": 8, "layers_per_block": 2,
        }
    )  # fmt: skip


def make(out: Path, shapes: Shapes | None = None, seed: int = 0, single_file: bool = False) -> None:
    """Writes the folders ``sd`` and ``clip`` into `out`, which is new, whole or not at all.

    Args:
        single_file: also writes ``model.safetensors``, the weights of ``sd`` in the web's layout.

    Raises:
        UserError: where `out` is there already, or its disk has too little room.
    """
    if out.exists():
        raise UserError(f"{out} is there already; name a new folder, or delete it.")
    parent = out.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(parent).free
    size = SIZE + SIZE_OF_FILE * single_file
    if shapes is None and free < size:
        raise UserError(f"the folders take {size / 1e9:.1f} GB, and {parent} has {free / 1e9:.1f} GB left; name another disk.")
    shapes = shapes or Shapes()

    import torch  # with transformers and diffusers: seconds, and a full disk is told before

    from deproj.clip.ldm import save_single_file
    from deproj.process.quiet import quiet_loading

    torch.manual_seed(seed)
    unfinished = parent / f".{out.name}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed
    try:
        with quiet_loading(), torch.no_grad():
            tokenizer = make_tokenizer(shapes.vocabulary)
            text_encoder = make_clip(shapes, tokenizer, unfinished / "clip")
            unet, vae = make_pipeline(shapes, tokenizer, text_encoder, unfinished / "sd")
            if single_file:
                save_single_file(unfinished / "model.safetensors", text_encoder, unet, vae)
        replace(unfinished, out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def make_tokenizer(size: int) -> Any:
    """The pixel world's tokenizer with tokens that no text contains between its own and SOS and EOS, which come last."""
    from transformers import CLIPTokenizer  # see `make`

    from deproj.pixel.parts import EOS, PLACES, SOS

    stored = json.loads((WEIGHTS / "tokenizer" / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    tokens = [token for token in stored["vocab"] if token not in (SOS, EOS)]
    if size < len(tokens) + 2:
        raise ValueError(f"a vocabulary has {len(tokens) + 2} tokens at least; got {size}.")
    tokens += [f"<|unused{k}|>" for k in range(size - len(tokens) - 2)]
    return CLIPTokenizer(
        vocab={token: k for k, token in enumerate([*tokens, SOS, EOS])},
        merges=[tuple(pair) for pair in stored["merges"]],
        **dict.fromkeys(("eos_token", "pad_token", "unk_token"), EOS),
        bos_token=SOS,
        model_max_length=PLACES,
    )


def make_clip(shapes: Shapes, tokenizer: Any, folder: Path) -> Any:
    """Writes a CLIP and returns its text tower as a pipeline has it, both in float16."""
    # see `make`
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTextConfig, CLIPTextModel, CLIPVisionConfig

    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    text = CLIPTextConfig(**shapes.text, **ids, vocab_size=len(tokenizer))
    vision = CLIPVisionConfig(**shapes.vision)
    config = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=shapes.text["projection_dim"])
    clip: Any = CLIPModel(config)
    print(f"CLIP: {clip.num_parameters():,} parameters.", flush=True)
    text_encoder: Any = CLIPTextModel(config.text_config)
    text_encoder.load_state_dict(clip.text_model.state_dict())
    clip.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    side = shapes.vision["image_size"]
    CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side}).save_pretrained(folder)
    return text_encoder.half()


def make_pipeline(shapes: Shapes, tokenizer: Any, text_encoder: Any, folder: Path) -> tuple[Any, Any]:
    """Writes a diffusers pipeline with a text encoder, in float16; returns its U-Net and VAE."""
    # see `make`
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel

    from deproj.clip.single_file import SHIPPED

    vae, unet = AutoencoderKL(**shapes.vae).half(), UNet2DConditionModel(**shapes.unet).half()
    for name, part in (("text encoder", text_encoder), ("VAE", vae), ("U-Net", unet)):
        print(f"{name}: {part.num_parameters():,} parameters.", flush=True)
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=PNDMScheduler.from_pretrained(SHIPPED / "scheduler"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    # as published, without today's defaults written out: a sampler made of these would take them for settings
    shutil.copy(SHIPPED / "scheduler" / "scheduler_config.json", folder / "scheduler")
    return unet, vae


def main() -> int:
    parser = Parser(prog="python -m deproj.fullsize", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=named_path, metavar="OUT", help=f"a new folder; it will hold {SIZE / 1e9:.1f} GB")
    parser.add_argument(
        "--single-file", action="store_true", help=f"also OUT/model.safetensors as on the web, {SIZE_OF_FILE / 1e9:.1f} GB more"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the weights")
    args = parser.parse_args()

    def command() -> None:
        make(args.out, seed=args.seed, single_file=args.single_file)
        paths = " ".join(quoted(f"sd.{key}={args.out / name}") for key, name in (("path", "sd"), ("clip", "clip")))
        if args.single_file:
            file = (
                quoted(f"sd.{key}={args.out / name}")
                for key, name in (("path", "model.safetensors"), ("tokenizer", "sd/tokenizer"))
            )
            print(f"The single file is named by: {' '.join(file)}")
        print(f"Wrote {args.out}. To train on it: python -m deproj.train sd=sd15 {paths} data.prompts=captions.txt")

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
