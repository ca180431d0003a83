"""Tensors that are made once for all processes and kept in a file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from deproj.process.files import alone, replacing

__all__ = ["digest", "kept"]


def kept(path: Path, make: Callable[[], dict[str, Tensor]], what: str) -> dict[str, Tensor]:
    """Tensors that are made once and kept in a file, by one process for all; made again where the file is damaged.

    Args:
        path: of the safetensors file, named by a hash of all that the tensors depend on.
        what: they are, for a user who has to wait or whose file was damaged.
    """
    if path.is_file() and (found := read(path)) is not None:  # without the lock, since a shared folder may be read-only
        return found
    with alone(path.with_suffix(".lock"), waiting=f"Another process is making {what}; waiting for it."):
        if path.is_file():
            if (found := read(path)) is not None:
                return found
            print(f"{path} is damaged; {what} are made again.")
        tensors = {name: tensor.contiguous() for name, tensor in make().items()}
        with replacing(path) as temporary:
            save_file(tensors, temporary, {"digest": digest(tensors)})
    return tensors


def read(path: Path) -> dict[str, Tensor] | None:
    """The tensors of a file, if it is whole."""
    try:
        with safe_open(path, "pt") as file:
            stored = (file.metadata() or {}).get("digest")
        tensors: dict[str, Tensor] = load_file(path)
    except SafetensorError:
        return None
    return tensors if digest(tensors) == stored else None


def digest(tensors: Mapping[str, Tensor]) -> str:
    """A hash of the tensors' names and bytes."""
    state = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        state.update(name.encode() + tensors[name].detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return state.hexdigest()
