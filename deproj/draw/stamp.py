"""What a picture was made of, kept in its PNG: under our key, and as A1111's web interface writes it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from deproj.clip.pictures import reading
from deproj.process.errors import UserError

__all__ = ["Stamp", "of_sheet"]

#: Of the text chunk that holds a stamp as JSON.
KEY = "deproj"
#: What that holds in a picture of several.
SHEET = "pictures side by side"


#: diffusers' schedulers as A1111's web interface calls them.
SAMPLERS = {
    "DDIMScheduler": "DDIM",
    "DPMSolverMultistepScheduler": "DPM++ 2M",
    "DPMSolverSDEScheduler": "DPM++ SDE",
    "DPMSolverSinglestepScheduler": "DPM++ 2S",
    "EulerAncestralDiscreteScheduler": "Euler a",
    "EulerDiscreteScheduler": "Euler",
    "HeunDiscreteScheduler": "Heun",
    "LCMScheduler": "LCM",
    "LMSDiscreteScheduler": "LMS",
    "PNDMScheduler": "PLMS",
    "UniPCMultistepScheduler": "UniPC",
}


@dataclass(frozen=True)
class Stamp:
    """All that made a picture.

    Attributes:
        prompt, negative: expressions as they were typed.
        seed: of its noise.
        steps, guidance, sampler: of the sampler; `guidance` is classifier-free guidance.
        strength: from the true states (0) to the deprojected ones (1).
        model: a run's folder, an exported model's, a hub id or a short name.
        model_hash: of the model's weights.
        sd: folder, file, hub id or ``pixel``.
        encoder: hash of its text encoder.
        width, height: as it was drawn, in pixels.
        to: the prompt that a strip leads to, or None.
        share: of the way there, 0 to 1.
        pictures: fingerprints of those that the prompts call, by their names.
    """

    prompt: str
    negative: str
    seed: int
    steps: int
    guidance: float
    sampler: str
    strength: float
    model: str
    model_hash: str
    sd: str
    encoder: str
    width: int
    height: int
    to: str | None = None
    share: float = 0.0
    pictures: dict[str, str] = field(default_factory=dict)

    @property
    def notes(self) -> dict[str, str]:
        """Text chunks of the PNG, by their keys."""
        return {KEY: json.dumps(asdict(self), ensure_ascii=False), "parameters": self.parameters}

    @property
    def parameters(self) -> str:
        """As A1111's web interface and those that read its pictures know it."""
        lines = [self.prompt if self.to is None else f"{self.prompt} to {self.to}"]
        if self.negative:
            lines.append(f"Negative prompt: {self.negative}")
        told: dict[str, Any] = {
            "Steps": self.steps,
            "Sampler": SAMPLERS.get(self.sampler, self.sampler),
            "CFG scale": f"{self.guidance:g}",
        }
        told |= {"Seed": self.seed, "Size": f"{self.width}x{self.height}", "Model": self.sd}
        told |= {"Deprojector": self.model, "Deprojector hash": self.model_hash, "Deprojector strength": f"{self.strength:g}"}
        if self.to is not None:
            told["Share"] = f"{self.share:g}"
        lines.append(", ".join(f"{name}: {quoted(value)}" for name, value in told.items()))
        return "\n".join(lines)

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """The stamp of a PNG.

        Raises:
            UserError: for what can't be read as a picture, and for one that isn't ours or of an earlier version.
        """
        texts = texts_of(path)
        content, other = texts.get(KEY), texts.get("parameters")
        if content is None and other is not None:
            prompt = (str(other).splitlines() or [""])[0][:200]
            raise UserError(
                f"{path} says what it was made of as A1111's web interface does, not as deproj does; its prompt: “{prompt}”."
            )
        if content is None:
            raise UserError(
                f"{path} doesn't say what it was made of; it is no PNG that deproj.generate wrote, or was changed since."
            )
        try:
            made_of = json.loads(content)
            if SHEET in made_of:
                raise UserError(f"{path} shows several pictures, which each have a file of their own, as {made_of[SHEET][0]}.")
            return cls(**made_of)
        except UserError:
            raise
        except (TypeError, ValueError, IndexError) as error:
            raise UserError(f"{path} says what it was made of in a way that isn't understood here: {error}") from None


def texts_of(path: Path) -> dict[str, str]:
    """A picture's text chunks, as a PNG has them.

    Raises:
        UserError: for a file that is missing, no picture, damaged, or of more pixels than Pillow takes for safe.
    """
    try:
        with reading(path) as image:
            return dict(getattr(image, "text", {}))
    except FileNotFoundError:
        raise UserError(f"there is no picture {path}.") from None


def of_sheet(files: Sequence[str]) -> dict[str, str]:
    """Text chunks of a PNG that shows several pictures.

    Args:
        files: names of theirs.
    """
    return {KEY: json.dumps({SHEET: list(files)}, ensure_ascii=False)}


def quoted(value: Any) -> str:
    """A value among others that commas part."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(letter in text for letter in ',:"\n') else text
