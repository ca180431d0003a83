"""The settings of a Stable Diffusion, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from deproj.process.errors import UserError
from deproj.process.numbers import as_number, as_whole

__all__ = ["SdSettings", "check_sampling"]


@dataclass(frozen=True)
class SdSettings:
    """The settings under ``sd``: which Stable Diffusion, and how it samples.

    Attributes:
        name: ``pixel`` for the miniature world, else any name, which messages use.
        path: folder, single file or hub id of the pipeline.
        clip: folder or hub id of its CLIP, or None.
        steps: of the sampler, DPM-Solver++.
        guidance: classifier-free guidance, 1 for none.
        cpu: whether it is quick enough to draw without CUDA.
        prompts, samples: what data.prompts and data.size are by default.
        clip_skip: from which of the text encoder's layers states are, as A1111 and ComfyUI count: 1 for the last.
        textual_inversions: files or hub ids, whose words captions may use.
        config, tokenizer: of a single file, folders of its configuration and of CLIP's vocabulary, or None.
    """

    name: str
    path: str
    clip: str | None
    steps: int
    guidance: float
    cpu: bool
    prompts: str | None
    samples: int
    config: str | None = None  # version 0.1's runs have neither
    tokenizer: str | None = None
    clip_skip: int = 1
    textual_inversions: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if (self.config or self.tokenizer) and not self.path.lower().endswith((".safetensors", ".ckpt")):
            raise UserError("sd.config and sd.tokenizer are for a single file, sd.path=model.safetensors; a folder has its own.")
        check_sampling(self.steps, self.guidance, "sd.steps", "sd.guidance")


def check_sampling(steps: int, guidance: float, of_steps: str, of_guidance: str) -> None:
    """Refuses steps of a sampler and guidance out of range.

    Args:
        of_steps, of_guidance: their names where they are set.
    """
    if (as_whole(steps) or 0) < 1:
        raise UserError(f"{of_steps} is a whole number, at least 1; got {steps!r}.")
    if not 1 <= (as_number(guidance) or 0.0) < math.inf:
        raise UserError(f"{of_guidance} is finite and at least 1, where 1 is without; got {guidance!r}.")
