"""What ComfyUI's CONDITIONING holds, and how an embedding is taken out of it and put into it.

A CONDITIONING is a list of pairs: states (B, T, D), and a dictionary with "pooled_output" (B, D) beside areas, masks and
controls, which are passed on. For Stable Diffusion 1.x, ComfyUI's pooled output is the state at the first EOS after the final
norm, unprojected (`SD1CheckpointClipModel`, `return_projected_pooled=False`): deproj's embedding. Three things follow.

- It is one of the states, by which it is recognised, unless the states are of another layer ("CLIP Set Last Layer"), or the
  pooled output has been projected (Stable Diffusion XL and 3) or averaged.
- Weights as in ``(word:1.2)`` change the states of words, and never that of EOS: the pooled output doesn't know them.
- Of a prompt of more than 77 tokens, in several chunks (B, 154, D), it is that of the first chunk alone.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

from deproj.clip.distance import FAR, in_words
from deproj.model.base import Deprojector
from deproj.process.errors import UserError
from deproj.selection import PLACES

__all__ = ["MADE", "check_states", "deprojected", "ends", "of_embedding", "pooled"]

#: Marks a pair whose pooled output is an embedding of ours, which no prompt needs to have: the hash of its text encoder.
MADE = "deproj_encoder"
#: States of one encoder differ by less, whatever the precision of its weights.
CLOSE = {"atol": 1e-2, "rtol": 1e-2}
OTHER_ENCODER = (
    "the conditioning is not of the text encoder that this deprojector was trained on: its state at SOS differs. Take the "
    "checkpoint that it was trained on; load LoRAs for the model alone (LoraLoaderModelOnly), and leave out CLIP Set Last Layer."
)


def pooled(options: dict[str, Any], model: Deprojector) -> Tensor:
    """The embedding of a pair, (B, D), by its dictionary.

    Raises:
        UserError: where there is none, and for one of another width.
    """
    embedding = options.get("pooled_output")
    width = len(model.sos)
    if embedding is None:
        raise UserError("the conditioning has no pooled output; take that of a CLIP Text Encode node.")
    if embedding.ndim != 2 or embedding.shape[1] != width:
        raise UserError(f"the pooled output is (B, {width}) for this deprojector; got {tuple(embedding.shape)}.")
    if options.get(MADE, model.provenance.get("encoder")) != model.provenance.get("encoder"):
        raise UserError("the embedding is another deprojector's, of another text encoder; take one deprojector for both.")
    return embedding


def check_states(states: Tensor, model: Deprojector) -> None:
    """Refuses states (B, T, D) of several chunks, and those of another encoder or layer.

    Raises:
        UserError: for these.
    """
    if states.shape[1] != PLACES:
        raise UserError(
            f"the prompt is longer than {PLACES} tokens: it was encoded as {states.shape[1] // PLACES} chunks, and an embedding "
            "is of one. Shorten it, or write its parts into Deproject Expression, parted by commas."
        )
    sos = states[:, 0].float()
    if sos.shape[-1] != len(model.sos) or not torch.allclose(sos, model.sos.to(sos).expand_as(sos), **CLOSE):
        raise UserError(OTHER_ENCODER)


def ends(states: Tensor, embedding: Tensor) -> Tensor:
    """Where the first EOS of states (B, T, D) stands, by the embeddings (B, D): (B,) int64.

    Raises:
        UserError: where an embedding is none of its states.
    """
    there = torch.isclose(states.float(), embedding[:, None].to(states.device).float(), **CLOSE).all(-1)
    if not there.any(1).all():
        raise UserError(
            "the pooled output is none of the conditioning's states, so it is no embedding of deproj's: it has been projected or "
            "averaged, or the states are another layer's. Take a CLIP Text Encode node of Stable Diffusion 1.x by itself; "
            "Mix Embeddings mixes."
        )
    return there.int().argmax(1)


def deprojected(states: Tensor, options: dict[str, Any], model: Deprojector, made: Tensor, strength: float) -> Tensor:
    """States `made` of a pair's embedding, blended with its own where `strength` is below 1, (B, 77, D).

    Raises:
        UserError: where they can't be blended.
    """
    if MADE in options:
        if strength < 1:
            raise UserError("strength below 1 needs true states, and these are deprojected already; set it to 1.")
        return made
    check_states(states, model)
    at = ends(states, options["pooled_output"])
    if strength == 1:
        return made
    if model.selection is None:
        raise UserError("strength below 1 needs to know the order of the model's states, which this one doesn't tell.")
    true = model.selection(at.cpu() + 1).arrange(states.float().cpu())
    return torch.lerp(true.to(made), made, strength)


def of_embedding(embedding: Tensor, states: Tensor, model: Deprojector, options: dict[str, Any] | None = None) -> list[Any]:
    """A pair of a CONDITIONING; says in the log where the embedding is far from those of the training."""
    if model.distance is not None and (far := float(model.distance(embedding.to(model.sos)).max())) > FAR:
        logging.warning("deproj: the embedding is %s", in_words(far))
    return [states, {**(options or {}), "pooled_output": embedding, MADE: model.provenance.get("encoder")}]
