"""What is one product over all places, before the loop over them or after it."""

from __future__ import annotations

import torch
from torch import Tensor

from deproj.model.recurrence.parts import Columns, Kept, NormGradients, Way, Weights
from deproj.model.recurrence.products import SMALL

__all__ = ["fed_backward", "fed_gates", "fed_gradients", "fed_outputs", "weight_gradients"]

_norm = torch.native_layer_norm
_norm_backward = torch.ops.aten.native_layer_norm_backward


def fed_gates(way: Way, w: Weights, at: Columns, fed: Tensor, rows: Tensor) -> tuple[Tensor, list[Tensor]]:
    """What the states that are fed (P, B, D) add to the gates, (P, B, 4H), and their means and 1 / deviations; fills the rows."""
    places, b, d = fed.shape
    normed, *norms = _norm(fed, (d,), w.x_weight, w.x_bias, way.variant.eps)
    whole = way.lease.get("whole", (places, b, len(w.b_gates)), way.work, fed.device)
    torch.addmm(
        w.b_gates.to(way.work), normed.to(way.work).view(-1, d), w.w_ih.T.to(way.work), out=whole.view(-1, len(w.b_gates))
    )
    rows[:-1, :, at.normed] = normed
    rows[1:, :, at.x] = fed
    return whole, norms


def fed_outputs(way: Way, w: Weights, at: Columns, rows: Tensor, skip: Tensor, z: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Outputs (P, B, D), with the means and 1 / deviations of `z`, which is put out."""
    places, b, d = z.shape
    both = torch.cat([w.w_x.to(way.work), w.w_h.to(way.work)], 1)
    torch.add((rows[1:].view(places * b, -1)[:, at.out] @ both.T).view(places, b, d), skip, out=z)
    y, *norms = _norm(z, (d,), w.y_weight, w.y_bias, way.variant.eps)
    return y, norms


def fed_backward(way: Way, w: Weights, kept: Kept, dy: Tensor, dz: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of `skip` (B, D) and of what is put out (P, B, H); puts out `dz`, that of the outputs before their norm."""
    places, b, hidden = kept.raw_c.shape
    whole = _norm_backward(dy, kept.z, (dy.shape[2],), *kept.fed_norms[2:], w.y_weight, w.y_bias, (True, False, False))[0]
    dz.copy_(whole)
    dput = way.lease.get("dput", (places, b, hidden), way.work, dy.device)
    torch.mm(dz.view(places * b, -1), w.w_h.to(way.work), out=dput.view(-1, hidden))
    return whole.sum(0), dput


def fed_gradients(
    way: Way, w: Weights, kept: Kept, states: Tensor, dgates: Tensor, dz: Tensor, wanted: bool
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Gradients of what was fed, if they are wanted, and of LN_x's weight and bias."""
    places, b, d = states.shape
    dnormed = (dgates.view(places * b, -1) @ w.w_ih.to(way.work)).view(places, b, d).to(states.dtype)
    of_norm = (*kept.fed_norms[:2], w.x_weight, w.x_bias, (wanted, True, True))
    d_fed, dweight, dbias = _norm_backward(dnormed, states, (d,), *of_norm)
    if wanted:
        d_fed = d_fed + (dz.view(-1, d) @ w.w_x.to(way.work)).view(places, b, d)
    return d_fed, dweight, dbias


def weight_gradients(kept: Kept, at: Columns, dgates: Tensor, dz: Tensor, norms: NormGradients) -> tuple[Tensor | None, ...]:
    """Gradients in the order of `Weights`: each weight's is one product over all places, small ones of joined inputs one for two.

    Args:
        dgates: gradients of the gates before their nonlinearities, (P, B, 4H).
        dz: gradients of the outputs before their norm, (P, B, D).
    """
    places, b, hidden = kept.raw_c.shape
    full = kept.z.dtype
    flat_gates, flat_dz, rows = dgates.view(-1, 4 * hidden), dz.view(places * b, -1), kept.rows.view(-1, at.normed.stop)
    before, after = rows[: places * b], rows[b:]

    def product(of: Tensor, inputs: Tensor) -> Tensor:
        return (of.T @ inputs).to(full)

    def products(of: Tensor, inputs: Tensor, one: slice, other: slice) -> tuple[Tensor, Tensor]:
        """Those of two parts that stand beside each other."""
        if of.shape[1] * (other.stop - one.start) > SMALL:  # a large one, parted, would take twice its memory
            return product(of, inputs[:, one]), product(of, inputs[:, other])
        whole = product(of, inputs[:, one.start : other.stop])
        return whole[:, : one.stop - one.start].contiguous(), whole[:, one.stop - one.start :].contiguous()

    w_hh, w_ih = products(flat_gates, before, at.carried, at.normed)
    w_x, w_h = products(flat_dz, after, at.x, at.put)
    found: dict[str, Tensor | None] = {
        "w_ih": w_ih,
        "w_hh": w_hh,
        "b_gates": flat_gates.sum(0).to(full),  # added up in float32 also in bfloat16
        **norms._asdict(),
        "w_h": w_h,
        "w_x": w_x,
        "y_weight": None,  # frozen
        "y_bias": None,
    }
    return tuple(found[name] for name in Weights._fields)
