"""LoRAs through the pipeline: the U-Net's part is taken, the text encoder's left out with a warning."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deproj.pipeline import DeprojectorPipeline
from deproj.process.errors import UserError


def with_adapters(pipe: DeprojectorPipeline) -> tuple[Any, Any]:
    """A copy of the U-Net, and of the text encoder, with LoRAs of random weights, scaled by 8 / 4."""
    from peft import LoraConfig

    torch.manual_seed(0)
    parts = copy.deepcopy(pipe.sd.unet), copy.deepcopy(pipe.encoder.model)
    for part, layers in zip(parts, (["to_q", "to_k", "to_v", "to_out.0"], ["q_proj", "v_proj"]), strict=True):
        part.add_adapter(LoraConfig(r=4, lora_alpha=8, target_modules=layers))
        for name, weight in part.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.3)
    return parts


@pytest.mark.parametrize("form", ["diffusers", "kohya"])
def test_a_loras_unet_part_is_taken(form: str, pipe: DeprojectorPipeline, tmp_path: Path):
    from diffusers import StableDiffusionPipeline
    from peft.utils import get_peft_model_state_dict
    from safetensors.torch import save_file

    unet, text_encoder = with_adapters(pipe)
    layers = [get_peft_model_state_dict(part) for part in (unet, text_encoder)]
    if form == "diffusers":
        adapter = {"r": 4, "lora_alpha": 8, "target_modules": ["to_q", "to_k", "to_v", "to_out.0"]}
        StableDiffusionPipeline.save_lora_weights(tmp_path, *layers, unet_lora_adapter_metadata=adapter)
        where = tmp_path
    else:
        flat = {}
        for prefix, part in zip(("lora_unet", "lora_te_text_model"), layers, strict=True):
            for key, weight in part.items():
                layer, side = key.removesuffix(".weight").rsplit(".", 1)
                name = f"{prefix}_{layer.replace('.', '_')}"
                flat[f"{name}.{'lora_down' if side == 'lora_A' else 'lora_up'}.weight"] = weight
                flat[f"{name}.alpha"] = torch.tensor(8.0)
        where = tmp_path / "kohya.safetensors"
        save_file(flat, where)
    options = {"num_inference_steps": 3, "output_type": "np"}
    plain = pipe("cat, maid", generator=torch.Generator().manual_seed(0), **options).images
    with pytest.warns(UserWarning, match="part for the text encoder is left out"):
        pipe.load_lora_weights(where, "mine")
    try:
        latents, states = torch.randn(1, *pipe.sd.unet.conv_in.weight.shape[1:2], 8, 8), pipe.states_of("cat, maid")
        with torch.no_grad():
            ours, theirs = (part(latents, 500, states).sample for part in (pipe.sd.unet, unet))
        assert torch.allclose(ours, theirs, atol=1e-4)
        assert not np.allclose(pipe("cat, maid", generator=torch.Generator().manual_seed(0), **options).images, plain, atol=1e-2)
        pipe.sd.set_adapters(["mine"], [0.0])
        assert np.allclose(pipe("cat, maid", generator=torch.Generator().manual_seed(0), **options).images, plain, atol=1e-4)
    finally:
        pipe.sd.unload_lora_weights()
    assert np.array_equal(pipe("cat, maid", generator=torch.Generator().manual_seed(0), **options).images, plain)


def test_refuses_what_is_no_lora(pipe: DeprojectorPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from safetensors.torch import save_file

    down, up = torch.zeros(4, 999), torch.zeros(999, 4)
    name = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    save_file({f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up}, tmp_path / "wide.safetensors")
    save_file({"text_encoder.layers.0.lora_A.weight": down}, tmp_path / "text.safetensors")
    (tmp_path / "pickle.bin").write_bytes(b"\x80\x02}q\x00.")
    good = {f"unet.{name}.lora_A.weight": torch.zeros(4, 128), f"unet.{name}.lora_B.weight": torch.zeros(128, 4)}
    save_file(good | {f"unet.{name}.lora_B.weight": torch.full((128, 4), float("nan"))}, tmp_path / "nan.safetensors")
    save_file(good | {f"unet.{name}.lora_A.weight": torch.full((4, 128), float("-inf"))}, tmp_path / "infinite.safetensors")
    save_file(good, tmp_path / "good.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "good.safetensors").read_bytes()[:-100])
    (tmp_path / "empty.safetensors").write_bytes(b"")
    (tmp_path / "page.safetensors").write_bytes(b"<!DOCTYPE html><html>404</html>")
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n"
    (tmp_path / "pointer.safetensors").write_bytes(pointer)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "pytorch_lora_weights.safetensors").write_bytes(pointer)
    (tmp_path / "nothing").mkdir()
    before = set(pipe.sd.unet.state_dict())
    for file, said in (
        ("nan.safetensors", r"the LoRA .*nan\.safetensors is damaged: .*to_q.* 512 of 512 numbers that are NaN or infinite"),
        ("infinite.safetensors", "is damaged: .*lora.* NaN or infinite"),
        ("cut.safetensors", "is no LoRA"),
        ("empty.safetensors", "is no LoRA"),
        ("page.safetensors", "is no LoRA"),
        ("pointer.safetensors", "git lfs pull"),
        ("folder", "git lfs pull"),
        ("nothing", "is no LoRA"),
        ("wide.safetensors", "is no LoRA for this Stable Diffusion"),
        ("text.safetensors", "no weights for a U-Net"),
        ("pickle.bin", "is no LoRA"),
        ("nowhere.safetensors", "no LoRA at"),
    ):
        with pytest.raises(UserError, match=said):
            pipe.load_lora_weights(tmp_path / file)
    assert set(pipe.sd.unet.state_dict()) == before, "nothing is left of what failed"
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"pip install 'deproj\[lora\]'"):
        pipe.load_lora_weights(tmp_path)
