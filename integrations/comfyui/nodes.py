"""The nodes."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import folder_paths  # ComfyUI's
import torch
from torch import Tensor

from deproj.clip.images import way_across
from deproj.expression import embed, hints_at, parse
from deproj.model.base import Deprojector
from deproj.process.errors import UserError

from .conditioning import check_states, deprojected, of_embedding, pooled
from .devices import Managed

__all__ = ["DeprojectConditioning", "DeprojectExpression", "DeprojectImage", "LoadDeprojector", "MixEmbeddings"]

FOLDER = "deprojectors"
folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))

#: Files that a deprojector is made of.
FILES = ("config.json", "model.safetensors")
CATEGORY = "deproj"
DEPROJECTOR = ("DEPROJECTOR", {"tooltip": "Of Load Deprojector."})
CLIP = ("CLIP", {"tooltip": "The text encoder that the deprojector was trained on, without LoRAs and without clip skip."})
MADE = "States that the deprojector made, with the embedding as pooled output."


def found() -> dict[str, Path]:
    """Deprojectors in ComfyUI's folders, by their path below them."""
    there = {}
    for top in map(Path, folder_paths.get_folder_paths(FOLDER)):
        for folder, _, files in os.walk(top, followlinks=True):
            if set(FILES) <= set(files):
                there.setdefault(Path(folder).relative_to(top).as_posix(), Path(folder))
    return dict(sorted(there.items()))


def weight(about: str, default: float = 1.0) -> tuple[str, dict[str, Any]]:
    return "FLOAT", {"default": default, "min": -10.0, "max": 10.0, "step": 0.05, "tooltip": about}


class LoadDeprojector:
    """Loads a deprojector from ``models/deprojectors``, or from a path."""

    CATEGORY, FUNCTION = CATEGORY, "load"
    DESCRIPTION = "Loads a deprojector: a folder with config.json and model.safetensors, as deproj writes it."
    RETURN_TYPES, RETURN_NAMES = ("DEPROJECTOR",), ("deprojector",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        path = "Instead: the folder of a run or of an exported model anywhere, or a Hugging Face hub id."
        return {
            "required": {"model": (list(found()) or [""], {"tooltip": "A folder in models/deprojectors."})},
            "optional": {"path": ("STRING", {"default": "", "tooltip": path})},
        }

    @classmethod
    def IS_CHANGED(cls, model: str, path: str = "") -> str:
        folder = Path(path.strip()) if path.strip() else found().get(model, Path(model))
        files = [file for name in FILES for file in (folder / name, folder / "deprojector" / name) if file.is_file()]
        stamps = [(str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files]
        return hashlib.sha256(repr((model, path, stamps)).encode()).hexdigest()

    def load(self, model: str, path: str = "") -> tuple[Managed]:
        there = found()
        if not path.strip() and model not in there:
            raise UserError(f"no deprojector {model!r} in models/{FOLDER}; put a model's folder there, or give its path.")
        loaded = Deprojector.from_pretrained(path.strip() or there[model])
        if loaded.clip_skip > 1:  # in ComfyUI the pooled output, by which EOS is found, isn't among the states then
            raise UserError(
                f"this deprojector was trained with clip skip {loaded.clip_skip}; the nodes take those of clip skip 1."
            )
        return (Managed(loaded),)


class DeprojectConditioning:
    """Puts the pooled output of a conditioning through the deprojector."""

    CATEGORY, FUNCTION = CATEGORY, "deproject"
    DESCRIPTION = (
        "Draws from the pooled output alone: the states are what the deprojector makes of it. Weights as in (word:1.2) "
        "aren't in the pooled output, so they have no effect at strength 1. A prompt of more than 77 tokens is refused."
    )
    RETURN_TYPES, OUTPUT_TOOLTIPS = ("CONDITIONING",), (MADE,)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        blend = {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.05}
        about = "From the true states (0) to the deprojected ones (1), blended place by place in the model's order."
        return {
            "required": {
                "deprojector": DEPROJECTOR,
                "conditioning": ("CONDITIONING", {"tooltip": "Of CLIP Text Encode, for Stable Diffusion 1.x."}),
                "strength": ("FLOAT", blend | {"tooltip": about}),
            }
        }

    def deproject(self, deprojector: Managed, conditioning: list[Any], strength: float) -> tuple[list[Any]]:
        model, made = deprojector.model, []
        for states, options in conditioning:
            embedding = pooled(options, model)
            blended = deprojected(states, options, model, deprojector.generate(embedding), strength)
            made.append(of_embedding(embedding, blended, model, options))
        return (made,)


class Encoder:
    """ComfyUI's CLIP as the text encoder that `deproj.expression.embed` asks.

    Args:
        model: whose encoder it must be.

    Raises:
        UserError: for another text encoder.
    """

    def __init__(self, clip: Any, model: Deprojector) -> None:
        if clip is None:
            raise UserError("there is no CLIP: the checkpoint has none; load one.")
        self.clip, self.model = clip, model
        self.empty = SimpleNamespace(embedding=self.embed([""]))

    def embed(self, texts: list[str]) -> Tensor:
        """Embeddings, (B, D): brackets are letters here, not weights.

        Raises:
            UserError: for a text of more than 77 tokens.
        """
        embedded = []
        for text in texts:
            tokens = self.clip.tokenize(text.replace("(", "\\(").replace(")", "\\)"))
            states, embedding = self.clip.encode_from_tokens(tokens, return_pooled="unprojected")
            check_states(states, self.model)
            embedded.append(pooled({"pooled_output": embedding}, self.model))
        return torch.cat(embedded)


class DeprojectExpression:
    """Embeds an expression, and puts it through the deprojector."""

    CATEGORY, FUNCTION = CATEGORY, "deproject"
    DESCRIPTION = "Arithmetic on prompts: 'cat, maid', '1girl, red hair:1.2, -black skirt', 'a | b @ 0.3'. A term is a prompt."
    RETURN_TYPES, OUTPUT_TOOLTIPS = ("CONDITIONING",), (MADE,)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        about = 'a, b is the sum, a:1.2 a weight, -a the difference, a | b the mean; "a, b" is a text as it stands.'
        text = ("STRING", {"multiline": True, "dynamicPrompts": True, "tooltip": about})
        return {"required": {"deprojector": DEPROJECTOR, "clip": CLIP, "text": text}}

    def deproject(self, deprojector: Managed, clip: Any, text: str) -> tuple[list[Any]]:
        for hint in hints_at([text]):
            logging.warning("deproj: %s", hint)
        embedding = embed([parse(text)], Encoder(clip, deprojector.model))  # type: ignore[arg-type]
        return ([of_embedding(embedding, deprojector.generate(embedding), deprojector.model)],)


class DeprojectImage:
    """Takes a picture's CLIP embedding across to the texts', and puts it through the deprojector."""

    CATEGORY, FUNCTION = CATEGORY, "deproject"
    DESCRIPTION = (
        "Draws from a picture as if it were a prompt. Both come of CLIP Vision Encode with CLIP ViT-L/14, from which Stable "
        "Diffusion 1.x has its text encoder; the reference is a batch of pictures of all kinds, which tells where pictures lie."
    )
    RETURN_TYPES, OUTPUT_TOOLTIPS = ("CONDITIONING",), (MADE,)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        about = "Of a batch of pictures of all kinds, a hundred or more: their mean is what all pictures have in common."
        return {
            "required": {
                "deprojector": DEPROJECTOR,
                "picture": ("CLIP_VISION_OUTPUT", {"tooltip": "Of CLIP Vision Encode, crop center."}),
                "reference": ("CLIP_VISION_OUTPUT", {"tooltip": about}),
            }
        }

    def deproject(self, deprojector: Managed, picture: Any, reference: Any) -> tuple[list[Any]]:
        model = deprojector.model
        if model.distance is None:
            raise UserError("this deprojector hasn't kept which embeddings it was trained on, so it takes no pictures.")
        if model.deprojection is None:
            raise UserError(
                "this deprojector was trained without CLIP's projection, so it takes no pictures; train with sd.clip."
            )
        seen, projected = (output["image_embeds"].to(model.sos) for output in (reference, picture))
        if seen.shape[-1] != len(model.sos) or projected.shape[-1] != len(model.sos):
            raise UserError(f"pictures' embeddings are {len(model.sos)} wide here, as CLIP ViT-L/14's; got {seen.shape[-1]}.")
        if len(seen) < 2:
            raise UserError(f"the reference is a batch of pictures of all kinds, a hundred or more; got {len(seen)}.")
        mean = seen.double().mean(0)
        spread = (seen.double() - mean).square().sum(1).mean()
        start, across = way_across(torch.linalg.inv(model.deprojection.double()).to(seen), spread, model.distance)
        embedding = (start + (projected - mean.to(projected)) @ across.T).to(picture["image_embeds"].device)
        return ([of_embedding(embedding, deprojector.generate(embedding), model)],)


class MixEmbeddings:
    """Adds the pooled outputs of conditionings, and puts the sum through the deprojector."""

    CATEGORY, FUNCTION = CATEGORY, "mix"
    DESCRIPTION = (
        "The weighted sum of pooled outputs, relative to the empty prompt. Weights 1 and 1 add; 0.5 and 0.5 are the mean; 0.7 "
        "and 0.3 lie between; -1 takes away. Areas, masks and controls of the inputs are left out."
    )
    RETURN_TYPES, OUTPUT_TOOLTIPS = ("CONDITIONING",), (MADE,)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        one = ("CONDITIONING", {"tooltip": "Of CLIP Text Encode or of a node of deproj; one prompt."})
        return {
            "required": {
                "deprojector": DEPROJECTOR,
                "clip": CLIP,
                "a": one,
                "weight_a": weight("Of a."),
                "b": one,
                "weight_b": weight("Of b."),
            },
            "optional": {"c": one, "weight_c": weight("Of c.")},
        }

    def mix(
        self,
        deprojector: Managed,
        clip: Any,
        a: list[Any],
        weight_a: float,
        b: list[Any],
        weight_b: float,
        c: list[Any] | None = None,
        weight_c: float = 1.0,
    ) -> tuple[list[Any]]:
        model = deprojector.model
        empty = Encoder(clip, model).empty.embedding
        total = empty
        for given, share in ((a, weight_a), (b, weight_b), (c, weight_c)):
            if given is None:
                continue
            if len(given) != 1:
                raise UserError(f"a conditioning to mix is one prompt; got {len(given)} combined ones.")
            ((states, options),) = given
            embedding = pooled(options, model)
            deprojected(states, options, model, embedding, 1.0)  # refuses what is no embedding
            total = total + share * (embedding - empty)
        return ([of_embedding(total, deprojector.generate(total), model)],)
