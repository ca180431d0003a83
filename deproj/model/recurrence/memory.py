"""Memory on the CPU that is used again from step to step."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Buffers", "Lease"]


class Buffers:
    """Blocks that are free, to be leased.

    Blocks of this size come fresh from the system each time, and touching a fresh page costs far more than
    computing on it (`experiments/speed`). Where two graphs are alive, each has buffers of its own.
    CUDA's own allocator does this already.
    """

    def __init__(self) -> None:
        self.free: list[dict[tuple[str, torch.dtype], Tensor]] = []

    def lease(self) -> Lease:
        return Lease(self.free)

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return Buffers, ()  # a copy of a model starts with none


class Lease:
    """The buffers of one forward or backward pass; they go back when nothing refers to it any more."""

    def __init__(self, free: list[dict[tuple[str, torch.dtype], Tensor]]) -> None:
        self.free = free
        self.blocks = free.pop() if free else {}

    def get(self, name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        """Uninitialised memory."""
        if device.type != "cpu":
            return torch.empty(shape, dtype=dtype, device=device)
        size = torch.Size(shape).numel()
        block = self.blocks.get((name, dtype))
        if block is None or block.numel() < size:
            block = self.blocks[name, dtype] = torch.empty(size, dtype=dtype)
        return block[:size].view(shape)

    def __del__(self) -> None:
        self.free.append(self.blocks)
