"""What makes two text encoders the same: every weight, and all that the tokenizer does.

The hash of an encoder whose tokenizer is made as CLIP's is that of its vocabulary and weights, as it has always been, so that
older models and caches are recognised. A tokenizer that differs in anything else adds what it is to the hash.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from torch import Tensor, nn

__all__ = ["hash_encoder", "text_weights"]

#: Parts of a tokenizer's file that don't change which token ids a text gets, or that are looked at by themselves.
PASSING = ("version", "truncation", "padding", "decoder", "post_processor", "added_tokens", "model")


def text_weights(model: nn.Module) -> dict[str, Tensor]:
    """The text tower's weights under names that don't depend on the transformers version."""
    return {name.removeprefix("text_model."): value for name, value in model.state_dict().items() if "position_ids" not in name}


def hash_encoder(tokenizer: Any, model: nn.Module, clip_skip: int = 1) -> str:
    """Of the vocabulary, the weights in float16, what else a tokenizer does that CLIP's doesn't, and a clip skip above 1."""
    digest = hashlib.sha256(json.dumps(sorted(tokenizer.get_vocab().items())).encode())
    for name, value in sorted(text_weights(model).items()):
        digest.update(name.encode())
        digest.update(value.detach().half().cpu().contiguous().numpy().tobytes())
    if strange := peculiarities(tokenizer):
        digest.update(json.dumps(strange, sort_keys=True).encode())
    if clip_skip > 1:
        digest.update(f"clip skip {clip_skip}".encode())
    return digest.hexdigest()


def peculiarities(tokenizer: Any) -> dict[str, Any]:
    """How a tokenizer differs from CLIP's of the same vocabulary; empty where it doesn't."""
    from transformers import CLIPTokenizer  # a second or two, for whoever loads one

    theirs = json.loads(tokenizer.backend_tokenizer.to_str())
    special = {"bos_token": tokenizer.bos_token, "eos_token": tokenizer.eos_token}
    plain = CLIPTokenizer(
        vocab={tokenizer.bos_token: 0, tokenizer.eos_token: 1}, merges=[], unk_token=tokenizer.eos_token, **special
    )
    ours = json.loads(plain.backend_tokenizer.to_str())
    found = {key: theirs[key] for key in theirs if key not in PASSING and theirs[key] != ours.get(key)}
    for key, value in theirs["model"].items():
        if key not in ("vocab", "merges") and (value or None) != (ours["model"].get(key) or None):
            found[f"model.{key}"] = value
    if not in_order(theirs["model"]["vocab"], pairs := [list(pair_of(merge)) for merge in theirs["model"]["merges"]]):
        found["merges"] = pairs
    if strips := [token for token in theirs["added_tokens"] if any(token[how] for how in ("lstrip", "rstrip", "single_word"))]:
        found["added_tokens"] = strips
    if (around := list(tokenizer([""]).input_ids[0])) != [tokenizer.bos_token_id, tokenizer.eos_token_id]:
        found["around"] = around
    if tokenizer.pad_token_id != tokenizer.eos_token_id:
        found["pad"] = tokenizer.pad_token_id
    return found


def pair_of(merge: Any) -> tuple[str, str]:
    """A merge's two parts; older files write them as one text."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def in_order(vocabulary: dict[str, int], merges: list[list[str]]) -> bool:
    """Whether the merges' tokens stand in the vocabulary one after the other, as CLIP's do."""
    numbers = [vocabulary.get("".join(pair)) for pair in merges]
    return not numbers or numbers == list(range(numbers[0] or 0, (numbers[0] or 0) + len(numbers)))
