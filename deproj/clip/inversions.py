"""Textual inversions: words that a file adds to a text encoder, each of one vector or of several."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from deproj.process.errors import UserError
from deproj.process.quiet import quiet_loading
from deproj.texts.benchmark import COMMAS

__all__ = ["add_inversion"]

#: The key of the vectors in many files of the web. As in A1111, the word is then the file's name.
NAMELESS = "emb_params"


def add_inversion(source: str | Path, token: str | None, tokenizer: Any, model: Any) -> tuple[str, list[int], str]:
    """Adds a textual inversion to a tokenizer and a text encoder, as diffusers' pipelines do.

    Args:
        source: local file (.safetensors, .pt, .bin) or hub id.
        token: the word in prompts; by default the file's own, or its name.

    Returns:
        The word, the token ids of its vectors, and a hash of them.

    Raises:
        UserError: for what is no textual inversion of this width, and for a word that is taken or can't stand in a prompt.
    """
    own, vectors = read_inversion(source)
    word = token or own
    vectors = vectors.reshape(-1, vectors.shape[-1]).float()
    width = model.get_input_embeddings().weight.shape[1]
    if vectors.shape[1] != width:
        raise UserError(f"{source} has vectors of width {vectors.shape[1]}, the text encoder {width}: it is another model's.")
    if not torch.isfinite(vectors).all():
        raise UserError(f"{source} holds NaN or infinity.")
    if not word or any(letter.isspace() or letter in COMMAS for letter in word):
        raise UserError(f"{source} is called {word!r}, which is no one word in a prompt; name one with token=.")
    if word in tokenizer.get_vocab():
        raise UserError(f"the text encoder knows {word!r} already; name another word for {source} with token=.")
    with quiet_loading("diffusers"):
        loader().load_textual_inversion({word: vectors}, tokenizer=tokenizer, text_encoder=model)
    model.requires_grad_(False)
    ids = [tokenizer.convert_tokens_to_ids(f"{word}_{k}" if k else word) for k in range(len(vectors))]
    return word, ids, hashlib.sha256(word.encode() + vectors.half().numpy().tobytes()).hexdigest()


def loader() -> Any:
    """diffusers' own, without a pipeline around it."""
    from diffusers.loaders import TextualInversionLoaderMixin  # a second to import, of use to few

    class Loader(TextualInversionLoaderMixin):  # type: ignore[misc]
        hf_device_map = None
        components: ClassVar[dict[str, Any]] = {}

    return Loader()


def read_inversion(source: str | Path) -> tuple[str, Tensor]:
    """The word that a file names itself by, and its vectors, (n, D) or (D,)."""
    from diffusers.loaders.textual_inversion import load_textual_inversion_state_dicts  # see above

    path = Path(source)
    try:
        with quiet_loading("diffusers"):
            (state,) = load_textual_inversion_state_dicts([str(source)])
    except Exception as error:  # of the Hub, the network, and whatever the file is read with
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"no textual inversion at {str(source)!r}: {said[:200]}") from None
    if isinstance(state, dict) and "string_to_param" in state:
        state = {NAMELESS: state["string_to_param"]["*"]}
    if not isinstance(state, dict) or len(state) != 1:
        held = ", ".join(sorted(map(str, state))[:3]) if isinstance(state, dict) else type(state).__name__
        raise UserError(f"{source} is no textual inversion of a Stable Diffusion 1.x; it holds {held}.")
    ((name, vectors),) = state.items()
    if not isinstance(vectors, Tensor) or vectors.ndim not in (1, 2):
        raise UserError(f"{source} is no textual inversion: {name} is no vector and no list of them.")
    return path.stem if name == NAMELESS else str(name), vectors.detach()
