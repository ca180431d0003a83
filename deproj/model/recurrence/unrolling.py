"""`unroll`, and its gradient."""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from deproj.model.recurrence import plain
from deproj.model.recurrence.memory import Buffers
from deproj.model.recurrence.parts import Variant, Way, Weights

__all__ = ["unroll"]


@cache
def fused() -> ModuleType | None:
    """The passes with compiled kernels, where numba is installed and finds a folder for what it compiles."""
    try:
        from deproj.model.recurrence import fused
    except (ImportError, RuntimeError):
        return None
    return fused


def passes_for(weights: Weights, rows: int) -> ModuleType:
    """The fastest passes that there are for weights and a number of rows."""
    found = fused() if weights.w_ih.device.type == "cpu" and weights.w_ih.dtype == torch.float32 else None
    return found if found is not None and found.pays(rows, weights) else plain


def unroll(
    weights: Weights,
    variant: Variant,
    h0: Tensor,
    skip: Tensor,
    places: int,
    fed: Tensor | None,
    buffers: Buffers,
    passes: ModuleType | None = None,
) -> Tensor:
    """The first `places` predictions; products in bfloat16 under autocast to it.

    Args:
        h0: first hidden state, (B, H).
        skip: what every output is added to, W_e e + e and the biases of W_h, W_x and W_e, (B, D).
        fed: previous states, (B, P, D), or None for the model's own outputs.
        buffers: memory to use again.
        passes: `plain` or `fused`; by default the fastest that there are.

    Returns:
        (B, P, D), of the dtype of the weights.
    """
    work = full = weights.w_ih.dtype
    device = h0.device.type
    if full == torch.float32 and torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.bfloat16:
        work = torch.bfloat16
    passes = passes or passes_for(weights, len(h0))
    h0, skip = h0.to(full), skip.to(full)
    if fed is not None:
        fed = fed.to(full).transpose(0, 1).contiguous()
    with torch.autocast(device, enabled=False):
        tensors = (h0, skip, *weights) if fed is None else (h0, skip, *weights, fed)
        outputs: Tensor
        if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
            outputs = _Unroll.apply(passes, variant, places, work, buffers, fed, h0, skip, *weights)  # type: ignore[no-untyped-call]
        else:
            outputs = passes.forward(Way(variant, work, buffers.lease()), weights, h0, skip, places, fed, keep=False)[0]
    return outputs.transpose(0, 1)


class _Unroll(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        passes: ModuleType,
        variant: Variant,
        places: int,
        work: torch.dtype,
        buffers: Buffers,
        fed: Tensor | None,
        h0: Tensor,
        skip: Tensor,
        *weights: Tensor,
    ) -> Tensor:
        way = Way(variant, work, buffers.lease())
        y, kept = passes.forward(way, Weights(*weights), h0, skip, places, fed, keep=True)
        # What autograd saves, it lets go of after backward. The buffers hang on such a tensor, so that they are free
        # for the next step even while this one's loss is still referred to.
        token = torch.empty(0)
        token.kept = kept  # type: ignore[attr-defined]
        ctx.save_for_backward(token, y if fed is None else fed, h0, skip, *weights)
        ctx.passes, ctx.variant, ctx.work, ctx.buffers, ctx.fed = passes, variant, work, buffers, fed is not None
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        token, states, h0, skip, *rest = ctx.saved_tensors
        weights, buffers = Weights(*rest), ctx.buffers
        with torch.autocast(states.device.type, enabled=False):
            if token.kept is None:  # a second backward: the first has used up what was kept
                way = Way(ctx.variant, ctx.work, buffers.lease())
                fed = states if ctx.fed else None
                token.kept = ctx.passes.forward(way, weights, h0, skip, len(states), fed, keep=True)[1]
            kept, token.kept = token.kept, None
            way = Way(ctx.variant, ctx.work, buffers.lease())
            found = ctx.passes.backward(way, weights, kept, states, ctx.fed, ctx.needs_input_grad[5], grads[0])
        return (None, None, None, None, None, found.fed, found.h0, found.skip, *found.weights)
