"""Many products of few rows with the same weights."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Product", "joined"]

#: Below so many rows, multiplying reads the weights from memory once, and so would laying them out.
FEW_ROWS = 8
#: Weights that stay in a core's cache, in numbers.
SMALL = 2**19


class Product:
    """x ↦ x Wᵀ + b for many x of few rows; on a CPU, W (N, K) is laid out for them once.

    oneDNN with weights in its own layout runs products of 100 rows 1.4 to 1.8 times as fast as MKL on the row-major
    ones (float32), 1.1 times in bfloat16. Small ones on an Intel are fastest in MKL on columns (`experiments/speed`).
    """

    def __init__(self, weight: tuple[Tensor, ...], work: torch.dtype, rows: int, bias: Tensor | None = None) -> None:
        """Lays out.

        Args:
            weight: parts of W beside each other, (N, Kᵢ).
            work: dtype of the products.
            rows: of an x.
        """
        self.bias = bias
        self.parts = tuple(part.to(work) for part in weight)
        self.packed: Tensor | None = None
        count = sum(part.numel() for part in weight)
        if weight[0].device.type != "cpu" or rows >= FEW_ROWS:
            self.parts = (joined(self.parts),)
        if rows >= FEW_ROWS and weight[0].device.type == "cpu":
            if work == torch.float32 and count <= SMALL and "Intel" in str(torch.cpu.get_capabilities().get("cpu_name")):
                self.parts = (self.parts[0].T.contiguous().T,)
            elif count * rows >= 2**20 and _packs(work):  # below a million products, calling it costs more than it saves
                self.packed = torch.ops.mkldnn._reorder_linear_weight(self.parts[0], rows)
                self.parts = ()  # not kept twice

    def __call__(self, x: Tensor, to: Tensor | None = None) -> Tensor:
        """(B, K) to (B, N), of the dtype of the products.

        Args:
            to: where it is put, if not into memory of its own.
        """
        if self.packed is not None:
            out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")
            return out if to is None else to.copy_(out)
        pieces = x.split([part.shape[1] for part in self.parts], 1) if len(self.parts) > 1 else (x,)
        if x.dtype == torch.bfloat16 and x.device.type == "cpu":
            # On a CPU with AMX this product reads past a slice whose width is no multiple of 32, into what may be unwritten.
            pieces = tuple(piece.contiguous() for piece in pieces)
        found = torch.mm(pieces[0], self.parts[0].T, out=to) if self.bias is None else self.with_bias(pieces[0], to)
        for piece, part in zip(pieces[1:], self.parts[1:], strict=True):
            found.addmm_(piece, part.T)
        return found

    def with_bias(self, x: Tensor, to: Tensor | None) -> Tensor:
        assert self.bias is not None
        return torch.addmm(self.bias.to(x.dtype), x, self.parts[0].T, out=to)


def joined(parts: tuple[Tensor, ...]) -> Tensor:
    """Weights beside each other, as one."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def _packs(work: torch.dtype) -> bool:
    if not torch.backends.mkldnn.is_available():
        return False
    return work == torch.float32 or (work == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())
