"""Where a deprojector runs: ComfyUI decides, as for its text encoders, and moves it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from deproj.model.base import Deprojector

__all__ = ["Managed"]


class Managed:
    """A deprojector in the hands of ComfyUI's model management; where there is none, as in tests, it stays where it is.

    Attributes:
        model: the deprojector.
    """

    def __init__(self, model: Deprojector) -> None:
        self.model, self.patcher, self.management = model, None, None
        try:
            import comfy.model_management as management
            from comfy.model_patcher import ModelPatcher
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "comfy":  # something that ComfyUI itself lacks
                raise
            return
        self.management: Any = management
        load, offload = management.text_encoder_device(), management.text_encoder_offload_device()
        self.patcher = ModelPatcher(model.to(offload), load_device=load, offload_device=offload)

    def generate(self, embedding: Tensor) -> Tensor:
        """States of embeddings (B, D), (B, 77, D), where ComfyUI keeps what goes from node to node."""
        if self.management is None:
            return self.model.generate(embedding)
        self.management.load_models_gpu([self.patcher], force_full_load=True)
        return self.model.generate(embedding).to(self.management.intermediate_device())
