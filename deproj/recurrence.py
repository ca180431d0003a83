"""The recurrence of `LSTMDeprojector`, forward and backward by hand.

The equations are those of `deproj.model`. What makes it faster than a loop of cells under autograd:

- fed the true states, everything that doesn't depend on the carried state is one product over all places, before
  the loop (inputs) or after it (outputs); fed its own output, a step is two products, on the joined
  [LN_x(x), h] and on the joined [h, x];
- backward keeps the gradients of the gates and makes each weight's gradient in one product over all places;
- buffers are made before the loops.

P places, B batch, D width of a state, H of the LSTM. Buffers are (P, B, ·), so that a place is contiguous.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["Variant", "Weights", "unroll"]

_norm = torch.native_layer_norm
_norm_backward = torch.ops.aten.native_layer_norm_backward


class Weights(NamedTuple):
    """Parameters, by the letters of the equations."""

    w_ih: Tensor  # (4H, D), gates i, f, g, o
    w_hh: Tensor  # (4H, H)
    b_gates: Tensor  # (4H,), the sum of both biases
    x_weight: Tensor  # LN_x, (D,)
    x_bias: Tensor
    c_weight: Tensor  # LN_c, (H,)
    c_bias: Tensor
    h_weight: Tensor  # LN_h, (H,)
    h_bias: Tensor
    w_h: Tensor  # (D, H)
    w_x: Tensor  # (D, D)
    y_weight: Tensor  # LN_final, (D,), frozen
    y_bias: Tensor


class Variant(NamedTuple):
    """What is not a tensor: whether h0 is added to what is carried and to what is put out, and the norms' epsilon."""

    carried: bool
    put_out: bool
    eps: float


def unroll(weights: Weights, variant: Variant, h0: Tensor, skip: Tensor, places: int, fed: Tensor | None) -> Tensor:
    """The first `places` predictions.

    Args:
        h0: first hidden state, (B, H).
        skip: what every output is added to, W_e e + e and the biases of W_h, W_x and W_e, (B, D).
        fed: previous states, (B, P, D), or None for the model's own outputs.

    Returns:
        (B, P, D).
    """
    outputs: Tensor = _Unroll.apply(variant, places, fed, h0, skip, *weights)  # type: ignore[no-untyped-call]
    return outputs.transpose(0, 1)


class _Unroll(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, variant: Variant, places: int, fed: Tensor | None, h0: Tensor, skip: Tensor, *weights: Tensor
    ) -> Tensor:
        w = Weights(*weights)
        (b, hidden), d = h0.shape, skip.shape[1]
        new = h0.new_empty
        inputs = new(places, b, d + hidden)  # [LN_x(x), h]
        gates = new(places, b, 4 * hidden)
        raw_c, tanh_c, c = new(places, b, hidden), new(places, b, hidden), new(places, b, hidden)
        outputs = new(places, b, hidden + d)  # [what is put out, x]
        z, y = new(places, b, d), new(places, b, d)
        stats: list[tuple[Tensor, ...]] = []
        h_before, c_before, x = h0, torch.zeros_like(h0), torch.zeros_like(skip)
        joined_in: Tensor | None = None
        joined_out: Tensor | None = None
        x_mean = x_rstd = None
        if fed is not None:
            outputs[:, :, hidden:] = fed.transpose(0, 1)
            normed, x_mean, x_rstd = _norm(outputs[:, :, hidden:].contiguous(), (d,), w.x_weight, w.x_bias, variant.eps)
            inputs[:, :, :d] = normed
            torch.addmm(w.b_gates, normed.view(-1, d), w.w_ih.T, out=gates.view(-1, 4 * hidden))
        else:
            joined_in = torch.cat([w.w_ih, w.w_hh], 1).T.contiguous()
            joined_out = torch.cat([w.w_h, w.w_x], 1).T.contiguous()
        for p in range(places):
            inputs[p, :, d:] = h_before
            if joined_in is None:
                gates[p].addmm_(h_before, w.w_hh.T)
                norm_x: tuple[Tensor, ...] = ()
            else:
                normed, *mean_rstd = _norm(x, (d,), w.x_weight, w.x_bias, variant.eps)
                norm_x = tuple(mean_rstd)
                inputs[p, :, :d] = normed
                torch.addmm(w.b_gates, inputs[p], joined_in, out=gates[p])
            i_f, g, o = gates[p, :, : 2 * hidden], gates[p, :, 2 * hidden : 3 * hidden], gates[p, :, 3 * hidden :]
            i_f.sigmoid_()
            g.tanh_()
            o.sigmoid_()
            torch.mul(i_f[:, hidden:], c_before, out=raw_c[p]).addcmul_(i_f[:, :hidden], g)
            torch.tanh(raw_c[p], out=tanh_c[p])
            c[p], *norm_c = _norm(raw_c[p], (hidden,), w.c_weight, w.c_bias, variant.eps)
            h, *norm_h = _norm(o * tanh_c[p], (hidden,), w.h_weight, w.h_bias, variant.eps)
            h_before, c_before = (h + h0 if variant.carried else h), c[p]
            outputs[p, :, :hidden] = h + h0 if variant.put_out else h
            norm_y: list[Tensor] = []
            if joined_out is not None:
                outputs[p, :, hidden:] = x
                torch.addmm(skip, outputs[p], joined_out, out=z[p])
                y[p], *norm_y = _norm(z[p], (d,), w.y_weight, w.y_bias, variant.eps)
                x = y[p]
            stats.append((*norm_x, *norm_c, *norm_h, *norm_y))
        y_mean = y_rstd = None
        if fed is not None:
            torch.mm(outputs.view(-1, hidden + d), torch.cat([w.w_h, w.w_x], 1).T, out=z.view(-1, d))
            z += skip
            y, y_mean, y_rstd = _norm(z, (d,), w.y_weight, w.y_bias, variant.eps)
        ctx.variant, ctx.fed, ctx.w, ctx.stats = variant, fed is not None, w, stats
        ctx.whole = (x_mean, x_rstd, y_mean, y_rstd)
        ctx.buffers = (inputs, gates, raw_c, tanh_c, c, outputs, z)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        (dy_all,), variant, w = grads, ctx.variant, ctx.w
        inputs, gates, raw_c, tanh_c, c, outputs, z = ctx.buffers
        x_mean, x_rstd, y_mean, y_rstd = ctx.whole
        places, b, hidden = raw_c.shape
        d = z.shape[2]
        new = z.new_empty
        dh_normed, dc_normed = new(places, b, hidden), new(places, b, hidden)
        raw_h, dgates = new(places, b, hidden), new(places, b, 4 * hidden)
        dh0, dskip = torch.zeros_like(raw_c[0]), torch.zeros_like(z[0])
        dh_next, dc_next = torch.zeros_like(raw_c[0]), torch.zeros_like(raw_c[0])
        joined_in = joined_out = None
        dx = torch.zeros_like(dskip)
        if ctx.fed:  # nothing below y flows from place to place: one call for all
            dz_all = _norm_backward(dy_all.contiguous(), z, (d,), y_mean, y_rstd, w.y_weight, w.y_bias, (True, False, False))[0]
            dskip = dz_all.sum(0)
            d_out = (dz_all.view(-1, d) @ w.w_h).view(places, b, hidden)
        else:
            joined_in, joined_out = torch.cat([w.w_ih, w.w_hh], 1), torch.cat([w.w_h, w.w_x], 1)
            dz_all = torch.empty_like(z)
            dx_normed = new(places, b, d)
        for p in reversed(range(places)):
            if joined_out is None:
                (c_stats, h_stats), dput = (ctx.stats[p][:2], ctx.stats[p][2:4]), d_out[p]
            else:
                x_stats, c_stats, h_stats, y_stats = (ctx.stats[p][k : k + 2] for k in (0, 2, 4, 6))
                dy = dy_all[p] + dx
                dz = _norm_backward(dy, z[p], (d,), *y_stats, w.y_weight, w.y_bias, (True, False, False))[0]
                dskip += dz
                dz_all[p] = dz
                both = dz @ joined_out
                dput, dx = both[:, :hidden], both[:, hidden:]
            torch.add(dput, dh_next, out=dh_normed[p])
            if variant.put_out:
                dh0 += dput
            if variant.carried:
                dh0 += dh_next
            o = gates[p, :, 3 * hidden :]
            torch.mul(o, tanh_c[p], out=raw_h[p])
            dh = _norm_backward(dh_normed[p], raw_h[p], (hidden,), *h_stats, w.h_weight, w.h_bias, (True, False, False))[0]
            dc_normed[p] = dc_next
            dc = _norm_backward(dc_next, raw_c[p], (hidden,), *c_stats, w.c_weight, w.c_bias, (True, False, False))[0]
            dc += dh * o * (1 - tanh_c[p].square())
            i, f, g = gates[p, :, :hidden], gates[p, :, hidden : 2 * hidden], gates[p, :, 2 * hidden : 3 * hidden]
            dc_next = dc * f
            do = dh * tanh_c[p] * o * (1 - o)
            df = dc * c[p - 1] * f * (1 - f) if p else torch.zeros_like(dc)
            di, dg = dc * g * i * (1 - i), dc * i * (1 - g.square())
            torch.cat([di, df, dg, do], 1, out=dgates[p])
            if joined_in is None:
                dh_next = dgates[p] @ w.w_hh
            else:
                both = dgates[p] @ joined_in
                dx_normed[p], dh_next = both[:, :d], both[:, d:]
                x = outputs[p, :, hidden:].contiguous()
                dx = dx + _norm_backward(dx_normed[p], x, (d,), *x_stats, w.x_weight, w.x_bias, (True, False, False))[0]
        dh0 += dh_next  # h0 is also the first carried state

        def norm_weights(
            grad: Tensor, value: Tensor, stats: tuple[Tensor, Tensor], weight: Tensor, bias: Tensor
        ) -> tuple[Tensor, Tensor]:
            done = _norm_backward(grad, value, weight.shape, *stats, weight, bias, (False, True, True))
            return done[1], done[2]

        def stacked(k: int) -> tuple[Tensor, Tensor]:
            return torch.stack([s[k] for s in ctx.stats]), torch.stack([s[k + 1] for s in ctx.stats])

        flat_gates, flat_dz = dgates.view(-1, 4 * hidden), dz_all.reshape(-1, d)
        d_in = flat_gates.T @ inputs.view(-1, d + hidden)
        d_w_out = flat_dz.T @ outputs.view(-1, hidden + d)
        x_all = outputs[:, :, hidden:].contiguous()
        d_fed = None
        if ctx.fed:
            dx_normed = (flat_gates @ w.w_ih).view(places, b, d)
            if ctx.needs_input_grad[2]:
                d_fed = _norm_backward(dx_normed, x_all, (d,), x_mean, x_rstd, w.x_weight, w.x_bias, (True, False, False))[0]
                d_fed = (d_fed + (flat_dz @ w.w_x).view(places, b, d)).transpose(0, 1)
            c_at, x_stats = 0, (x_mean, x_rstd)
        else:
            c_at, x_stats = 2, stacked(0)
        dxw, dxb = norm_weights(dx_normed, x_all, x_stats, w.x_weight, w.x_bias)
        dcw, dcb = norm_weights(dc_normed, raw_c, stacked(c_at), w.c_weight, w.c_bias)
        dhw, dhb = norm_weights(dh_normed, raw_h, stacked(c_at + 2), w.h_weight, w.h_bias)
        weights = (d_in[:, :d], d_in[:, d:], flat_gates.sum(0), dxw, dxb, dcw, dcb, dhw, dhb)
        return (None, None, d_fed, dh0, dskip, *weights, d_w_out[:, :hidden], d_w_out[:, hidden:], None, None)
