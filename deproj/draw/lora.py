"""LoRAs for the U-Net of a diffusers pipeline that has no text encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deproj.clip.check import check_finite
from deproj.clip.encoder import LOAD_ERRORS, first_line
from deproj.process.caution import caution
from deproj.process.errors import UserError
from deproj.process.files import refuse_pointer

__all__ = ["load_lora"]


def load_lora(sd: Any, lora: str | Path, adapter_name: str | None = None, **options: Any) -> None:
    """Loads the U-Net part of a LoRA.

    Its part for the text encoder, where there is one, is left out with a warning: states come from the deprojector, which
    inverts the text encoder as it was. (The diffusers pipeline's own method fails on it, having no text encoder.)

    Args:
        sd: the diffusers pipeline.
        lora: a safetensors file, a folder or a hub id, in diffusers' form or kohya's.
        adapter_name: to call it by; one is made up otherwise.
        options: of diffusers' `lora_state_dict`, as `weight_name`.

    Raises:
        UserError: without the extra ``lora``, and for what is no LoRA for this U-Net.
    """
    try:
        import peft  # noqa: F401
    except ModuleNotFoundError:
        raise UserError("LoRAs need peft: pip install 'deproj[lora]'.") from None
    if Path(lora).suffix == ".safetensors" and not Path(lora).exists():
        raise UserError(f"no LoRA at {lora}.")
    for path in [Path(lora), *Path(lora).glob("*.safetensors")]:
        refuse_pointer(path)
    try:
        weights, alphas, metadata = sd.lora_state_dict(str(lora), use_safetensors=True, return_lora_metadata=True, **options)
        check_finite(weights, f"the LoRA {lora}")
        if not any(key.startswith("unet.") for key in weights):
            raise ValueError("there are no weights for a U-Net in it.")
        sd.load_lora_into_unet(weights, alphas, sd.unet, adapter_name, metadata=metadata, _pipeline=sd)
    except UserError:
        raise
    except LOAD_ERRORS as error:
        if not any(sd.get_list_adapters().values()):
            sd.unet.unload_lora()  # diffusers leaves the layers wrapped
        raise UserError(f"{lora} is no LoRA for this Stable Diffusion: {first_line(error)}") from None
    if any(key.startswith("text_encoder.") for key in weights):
        caution("the LoRA's part for the text encoder is left out: the states are the deprojector's.")
