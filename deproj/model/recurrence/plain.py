"""The passes in torch's own operations: on every device, in every dtype."""

from __future__ import annotations

import torch
from torch import Tensor

from deproj.model.recurrence.parts import Columns, Gradients, Kept, NormGradients, Way, Weights
from deproj.model.recurrence.products import Product, joined
from deproj.model.recurrence.whole import fed_backward, fed_gates, fed_gradients, fed_outputs, weight_gradients

__all__ = ["backward", "forward"]

_norm = torch.native_layer_norm
_norm_backward = torch.ops.aten.native_layer_norm_backward
_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
_tanh_backward = torch.ops.aten.tanh_backward


def forward(way: Way, w: Weights, h0: Tensor, skip: Tensor, places: int, fed: Tensor | None, keep: bool) -> tuple[Tensor, Kept]:
    """Outputs (P, B, D), and what backward needs if it is to be kept; `fed` is (P, B, D)."""
    variant, work, lease = way
    (b, hidden), d = h0.shape, skip.shape[1]
    full, device, eps = h0.dtype, h0.device, variant.eps
    at = Columns.of(variant, d, hidden)
    keep = keep or fed is not None

    def buffer(name: str, width: int, dtype: torch.dtype = full, more: int = 0) -> tuple[Tensor, list[Tensor]]:
        """A buffer and its places; where nothing is kept, all places are the same memory."""
        block = lease.get(name, ((places if keep else 1) + more, b, width), dtype, device)
        return block, list(block.unbind()) * (1 if keep else places)

    rows, row = buffer("rows", at.normed.stop, work, 1)
    gates, gate = buffer("gates", 4 * hidden)
    raw_c, raw = buffer("raw_c", hidden)
    z, z_at = buffer("z", d)
    y = torch.empty(places, b, d, dtype=full, device=device)
    norms: list[list[Tensor]] = []
    fed_norms: list[Tensor] = []
    if fed is None:
        out_product = Product((w.w_x, w.w_h), work, b)
        in_product = Product((w.w_hh, w.w_ih), work, b, w.b_gates)
        x = torch.zeros_like(skip)
    else:
        in_product = Product((w.w_hh,), work, b)
        whole, fed_norms = fed_gates(way, w, at, fed, rows)
    row[0][:, at.carried] = h0
    c = torch.zeros_like(h0)
    for p in range(places):
        here, after = row[p], row[p + 1]
        norm_x: list[Tensor] = []
        norm_y: list[Tensor] = []
        if fed is None:
            normed, *norm_x = _norm(x, (d,), w.x_weight, w.x_bias, eps)
            here[:, at.normed] = normed
            before = in_product(here[:, at.into]).to(full)
        else:
            before = (in_product(here[:, at.carried]) + whole[p]).to(full)
        i, f, g, o = gate[p].chunk(4, 1)
        torch.sigmoid(before, out=gate[p])  # of all four in one sweep, g's put right at once
        torch.tanh(before[:, 2 * hidden : 3 * hidden], out=g)
        torch.mul(f, c, out=raw[p]).addcmul_(i, g)
        c, *norm_c = _norm(raw[p], (hidden,), w.c_weight, w.c_bias, eps)
        h, *norm_h = _norm(o * torch.tanh(raw[p]), (hidden,), w.h_weight, w.h_bias, eps)
        raised = h + h0 if variant.carried or variant.put_out else h
        after[:, at.carried] = raised if variant.carried else h
        if at.put != at.carried:
            after[:, at.put] = raised if variant.put_out else h
        if fed is None:
            after[:, at.x] = x
            torch.add(out_product(after[:, at.out]), skip, out=z_at[p])
            x, *norm_y = _norm(z_at[p], (d,), w.y_weight, w.y_bias, eps)
            y[p] = x
        if keep:
            norms.append([*norm_c, *norm_h, *norm_x, *norm_y])
    if fed is not None:
        y, norm_y = fed_outputs(way, w, at, rows, skip, z)
        fed_norms += norm_y
    return y, Kept(lease, rows, gates, raw_c, z, norms, fed_norms)


def backward(way: Way, w: Weights, kept: Kept, states: Tensor, fed: bool, fed_wanted: bool, dy_all: Tensor) -> Gradients:
    """Gradients of all that forward takes.

    Args:
        kept: used up: where all dtypes are one, the gates' gradients take the gates' place.
        states: what was fed, or, where it fed itself, the outputs, (P, B, D).
        fed_wanted: whether anybody asks for the gradient of what was fed.
        dy_all: gradient of the outputs, (P, B, D).
    """
    variant, work, lease = way
    places, b, hidden = kept.raw_c.shape
    d, full, device = states.shape[2], states.dtype, states.device
    at = Columns.of(variant, d, hidden)
    dz_all = lease.get("dz", (places, b, d), work, device)
    dgates = kept.gates if work == full else lease.get("dgates", (places, b, 4 * hidden), work, device)
    dact = lease.get("dact", (b, 4 * hidden), full, device)
    di, df, dg, do = dact.chunk(4, 1)
    dx, dskip, zeros = torch.zeros_like(states[0]), torch.zeros_like(states[0]), torch.zeros_like(kept.raw_c[0])
    dh0, dh_next, dc_next, first_x = zeros.clone(), zeros, zeros, torch.zeros_like(states[0])
    norms = NormGradients.zeros(w)
    if fed:  # nothing below y flows from place to place: one call for all
        dskip, dput_all = fed_backward(way, w, kept, dy_all, dz_all)
        in_product = out_product = Product((w.w_hh.T,), work, b)
    else:
        in_product = Product((joined((w.w_hh, w.w_ih)).T,), work, b)
        out_product = Product((joined((w.w_x, w.w_h)).T,), work, b)
    for p in reversed(range(places)):
        c_norm, h_norm, x_norm_p, y_norm_p = (kept.norms[p][k : k + 2] for k in (0, 2, 4, 6))
        if fed:
            dput = dput_all[p].to(full)
        else:
            dz = _norm_backward(dy_all[p] + dx, kept.z[p], (d,), *y_norm_p, w.y_weight, w.y_bias, (True, False, False))[0]
            dskip += dz
            dz_all[p] = dz
            dx, dput = out_product(dz_all[p]).to(full).split((d, hidden), 1)
        dh = dput + dh_next
        if variant.carried and variant.put_out:
            dh0 += dh
        elif variant.carried:
            dh0 += dh_next
        elif variant.put_out:
            dh0 += dput
        gates, tanh = kept.gates[p], torch.tanh(kept.raw_c[p])
        i, f, g, o = gates.chunk(4, 1)
        dh, dw, db = _norm_backward(dh, o * tanh, (hidden,), *h_norm, w.h_weight, w.h_bias, (True, True, True))
        norms.h_weight.add_(dw)
        norms.h_bias.add_(db)
        if p == places - 1:
            dc = zeros.clone()
        else:
            dc, dw, db = _norm_backward(dc_next, kept.raw_c[p], (hidden,), *c_norm, w.c_weight, w.c_bias, (True, True, True))
            norms.c_weight.add_(dw)
            norms.c_bias.add_(db)
        dc += _tanh_backward(dh * o, tanh)
        torch.mul(dc, g, out=di)
        c_before = _norm(kept.raw_c[p - 1], (hidden,), w.c_weight, w.c_bias, variant.eps)[0] if p else zeros
        torch.mul(dc, c_before, out=df)
        torch.mul(dc, i, out=dg)
        torch.mul(dh, tanh, out=do)
        dc_next = dc * f
        into, of_g = dgates[p], _tanh_backward(dg, g)
        # Not straight into bfloat16: CUDA computes in the dtype of the output, and 1 - σ of a saturated gate would be zero.
        before = into if work == full else dact
        _sigmoid_backward(dact, gates, grad_input=before)
        before[:, 2 * hidden : 3 * hidden] = of_g
        if work != full:
            into.copy_(dact)
        if fed:
            dh_next = in_product(into).to(full)
        else:
            dh_next, dnormed = in_product(into).to(full).split((hidden, d), 1)
            x = states[p - 1] if p else first_x
            through, dw, db = _norm_backward(dnormed, x, (d,), *x_norm_p, w.x_weight, w.x_bias, (True, True, True))
            dx = dx + through
            norms.x_weight.add_(dw)
            norms.x_bias.add_(db)
    dh0 += dh_next  # h0 is also the first carried state
    del in_product, out_product  # room for the weights' gradients
    d_fed = None
    if fed:
        d_fed, dw, db = fed_gradients(way, w, kept, states, dgates, dz_all, fed_wanted)
        norms = norms._replace(x_weight=dw, x_bias=db)
    return Gradients(d_fed, dh0, dskip, weight_gradients(kept, at, dgates, dz_all, norms))
