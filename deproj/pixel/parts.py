"""The parts of the pixel world, untrained: tokenizer, CLIP, VAE, U-Net, scheduler.

Shapes: pictures (B, 3, 32, 32) in [-1, 1]; latents (B, 8, 8, 8); states (B, 77, 128).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, UNet2DConditionModel
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTokenizer, CLIPVisionConfig

WIDTH = 128
PLACES = 77
SOS, EOS = "<|startoftext|>", "<|endoftext|>"


def train_tokenizer(texts: list[str], folder: Path) -> Any:
    """Trains CLIP's kind of byte-pair encoding on texts; SOS and EOS come last, padding is EOS."""
    bpe = Tokenizer(models.BPE(unk_token=EOS, end_of_word_suffix="</w>", continuing_subword_prefix=""))
    reference = CLIPTokenizer().backend_tokenizer  # CLIP's own normaliser and word splitting
    bpe.normalizer = reference.normalizer or normalizers.Lowercase()
    bpe.pre_tokenizer = reference.pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=1000, end_of_word_suffix="</w>", initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(texts, trainer)
    model = json.loads(bpe.to_str())["model"]
    merges = [tuple(pair) if isinstance(pair, list) else tuple(pair.split()) for pair in model["merges"]]
    tokens = alphabet + [letter + "</w>" for letter in alphabet] + ["".join(pair) for pair in merges]
    vocab = {token: k for k, token in enumerate(dict.fromkeys(tokens))}
    vocab[SOS], vocab[EOS] = len(vocab), len(vocab) + 1
    tokenizer = CLIPTokenizer(
        vocab=vocab, merges=merges, bos_token=SOS, eos_token=EOS, pad_token=EOS, unk_token=EOS, model_max_length=PLACES
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def make_clip(tokenizer: Any) -> Any:
    """A CLIPModel of 4 + 4 layers, width 128, with square projections."""
    tower: dict[str, Any] = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "projection_dim": WIDTH,
        "hidden_act": "quick_gelu",
    }
    text = CLIPTextConfig(
        **tower,
        vocab_size=len(tokenizer),
        max_position_embeddings=PLACES,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vision = CLIPVisionConfig(**tower, image_size=32, patch_size=8)
    return CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=WIDTH))


def make_vae() -> Any:
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 64, 96),
        layers_per_block=1,
        latent_channels=8,
        norm_num_groups=8,
        sample_size=32,
        scaling_factor=1.0,
        mid_block_add_attention=False,
    )


def make_unet() -> Any:
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=8,
        out_channels=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),  # attention at 4 x 4: half the time of both
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(96, 192),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def make_scheduler() -> Any:
    return DPMSolverMultistepScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        steps_offset=1,
    )
