"""The recurrence of `LSTMDeprojector`, forward and backward by hand.

The equations are those of `deproj.model.lstm`. What makes it faster than a loop of cells under autograd:

- fed the true states, everything that doesn't depend on the carried state is one product over all places, before
  the loop (inputs) or after it (outputs); fed its own output, a step is two products, on the joined
  [h, LN_x(x)] and on the joined [x, h], which are parts of one row;
- on a CPU the weights are laid out for many small products once (`_Product`), and the memory of a step is used
  again by the next (`Buffers`);
- backward keeps the gradients of the gates and makes each weight's gradient in one product over all places;
- without a gradient, nothing is kept of a place but its output.

Under autocast to bfloat16 the products take bfloat16, and where it is fed the two products of a gate are added in it; norms,
nonlinearities, cell state and the sums over places stay in float32.

P places, B batch, D width of a state, H of the LSTM. Buffers are (P, B, ·), so that a place is contiguous.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Buffers", "Variant", "Weights", "unroll"]

_norm = torch.native_layer_norm
_norm_backward = torch.ops.aten.native_layer_norm_backward
_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
_tanh_backward = torch.ops.aten.tanh_backward


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


class Buffers:
    """Memory on the CPU that is used again from step to step.

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


class _Product:
    """x ↦ x Wᵀ + b for many x of few rows; on a CPU, W (N, K) is laid out for them once.

    oneDNN with weights in its own layout runs products of 100 rows 1.4 to 1.8 times as fast as MKL on the row-major
    ones (float32), 1.1 times in bfloat16.
    """

    def __init__(self, weight: Tensor, rows: int, bias: Tensor | None = None) -> None:
        self.weight: Tensor | None = weight
        self.bias, self.packed = bias, None
        # below a million products, calling it costs more than it saves
        if weight.device.type == "cpu" and weight.numel() * rows >= 2**20 and _packs(weight.dtype):
            self.packed = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
            self.weight = None  # not kept twice

    def __call__(self, x: Tensor) -> Tensor:
        """(B, K) to (B, N), of the dtype of the weight."""
        if self.weight is not None:
            if x.dtype == torch.bfloat16 and x.device.type == "cpu":
                # On a CPU with AMX this product reads past a slice whose width is no multiple of 32, into what may be unwritten.
                x = x.contiguous()
            return F.linear(x, self.weight, None if self.bias is None else self.bias.to(x.dtype))
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")
        return out


def _join(left: Tensor, right: Tensor, work: torch.dtype) -> Tensor:
    """Two weights beside each other, of the dtype of the products."""
    return torch.cat([left.to(work), right.to(work)], 1)


def _packs(work: torch.dtype) -> bool:
    if not torch.backends.mkldnn.is_available():
        return False
    return work == torch.float32 or (work == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def unroll(
    weights: Weights, variant: Variant, h0: Tensor, skip: Tensor, places: int, fed: Tensor | None, buffers: Buffers
) -> Tensor:
    """The first `places` predictions; products in bfloat16 under autocast to it.

    Args:
        h0: first hidden state, (B, H).
        skip: what every output is added to, W_e e + e and the biases of W_h, W_x and W_e, (B, D).
        fed: previous states, (B, P, D), or None for the model's own outputs.
        buffers: memory to use again.

    Returns:
        (B, P, D), of the dtype of the weights.
    """
    work = full = weights.w_ih.dtype
    device = h0.device.type
    if full == torch.float32 and torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.bfloat16:
        work = torch.bfloat16
    h0, skip = h0.to(full), skip.to(full)
    if fed is not None:
        fed = fed.to(full).transpose(0, 1).contiguous()
    with torch.autocast(device, enabled=False):
        tensors = (h0, skip, *weights) if fed is None else (h0, skip, *weights, fed)
        outputs: Tensor
        if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
            outputs = _Unroll.apply(variant, places, work, buffers, fed, h0, skip, *weights)  # type: ignore[no-untyped-call]
        else:
            outputs = _forward(_Way(variant, work, buffers.lease()), weights, h0, skip, places, fed, keep=False)[0]
    return outputs.transpose(0, 1)


class _Way(NamedTuple):
    """How a pass computes: the variant of the equations, the dtype of the products, and the memory that it uses."""

    variant: Variant
    work: torch.dtype
    lease: Lease


class _Columns(NamedTuple):
    """Where in a row each part stands; carried and put out are one where the variant makes them equal."""

    x: slice
    put: slice
    carried: slice
    normed: slice

    @classmethod
    def of(cls, variant: Variant, d: int, hidden: int) -> _Columns:
        put = slice(d, d + hidden)
        carried = put if variant.carried == variant.put_out else slice(put.stop, put.stop + hidden)
        return cls(slice(0, d), put, carried, slice(carried.stop, carried.stop + d))

    @property
    def out(self) -> slice:
        return slice(self.x.start, self.put.stop)

    @property
    def into(self) -> slice:
        return slice(self.carried.start, self.normed.stop)


class _Kept(NamedTuple):
    """What backward needs of forward, beside the states that were fed."""

    lease: Lease
    rows: Tensor  # (P + 1, B, ·): of place p - 1 what it was fed and put out, of place p the carried h and LN_x(x)
    gates: Tensor  # (P, B, 4H), after their nonlinearities
    raw_c: Tensor  # (P, B, H), the cell state before its norm
    z: Tensor  # (P, B, D), outputs before their norm
    norms: list[list[Tensor]]  # of each place, means and 1/deviations: of c, h and, where it fed itself, x and y
    fed_norms: list[Tensor]  # where it was fed: those of x and y, all places at once


def _forward(
    way: _Way, w: Weights, h0: Tensor, skip: Tensor, places: int, fed: Tensor | None, keep: bool
) -> tuple[Tensor, _Kept]:
    """Outputs (P, B, D), and what backward needs if it is to be kept; `fed` is (P, B, D)."""
    variant, work, lease = way
    (b, hidden), d = h0.shape, skip.shape[1]
    full, device, eps = h0.dtype, h0.device, variant.eps
    at = _Columns.of(variant, d, hidden)
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
    out_product = _Product(_join(w.w_x, w.w_h, work), b)
    if fed is None:
        in_product = _Product(_join(w.w_hh, w.w_ih, work), b, w.b_gates)
        x = torch.zeros_like(skip)
    else:
        in_product = _Product(w.w_hh.to(work), b)
        normed, *fed_norms = _norm(fed, (d,), w.x_weight, w.x_bias, eps)
        whole = lease.get("whole", (places, b, 4 * hidden), work, device)
        torch.addmm(w.b_gates.to(work), normed.to(work).view(-1, d), w.w_ih.T.to(work), out=whole.view(-1, 4 * hidden))
        rows[:-1, :, at.normed] = normed
        rows[1:, :, at.x] = fed
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
        torch.add(out_product(rows[1:].view(places * b, -1)[:, at.out]).view(places, b, d), skip, out=z)
        y, *norm_y = _norm(z, (d,), w.y_weight, w.y_bias, eps)
        fed_norms += norm_y
    return y, _Kept(lease, rows, gates, raw_c, z, norms, fed_norms)


class _Unroll(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        variant: Variant,
        places: int,
        work: torch.dtype,
        buffers: Buffers,
        fed: Tensor | None,
        h0: Tensor,
        skip: Tensor,
        *weights: Tensor,
    ) -> Tensor:
        way = _Way(variant, work, buffers.lease())
        y, kept = _forward(way, Weights(*weights), h0, skip, places, fed, keep=True)
        # What autograd saves, it lets go of after backward. The buffers hang on such a tensor, so that they are free
        # for the next step even while this one's loss is still referred to.
        token = torch.empty(0)
        token.kept = kept  # type: ignore[attr-defined]
        ctx.save_for_backward(token, y if fed is None else fed, h0, skip, *weights)
        ctx.variant, ctx.work, ctx.buffers, ctx.fed = variant, work, buffers, fed is not None
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        token, states, h0, skip, *rest = ctx.saved_tensors
        weights, buffers = Weights(*rest), ctx.buffers
        with torch.autocast(states.device.type, enabled=False):
            if token.kept is None:  # a second backward: the first has used up what was kept
                way = _Way(ctx.variant, ctx.work, buffers.lease())
                token.kept = _forward(way, weights, h0, skip, len(states), states if ctx.fed else None, keep=True)[1]
            kept, token.kept = token.kept, None
            way = _Way(ctx.variant, ctx.work, buffers.lease())
            found = _backward(way, weights, kept, states, ctx.fed, ctx.needs_input_grad[4], grads[0])
        return (None, None, None, None, found.fed, found.h0, found.skip, *found.weights)


class _Gradients(NamedTuple):
    """Of the inputs and of the weights; those of the frozen norm are None, and so is that of `fed` where nobody asks for it."""

    fed: Tensor | None
    h0: Tensor
    skip: Tensor
    weights: tuple[Tensor | None, ...]  # in the order of `Weights`


class _NormGradients(NamedTuple):
    """Of the weights and biases of the three norms inside the recurrence, added up over the places."""

    x_weight: Tensor
    x_bias: Tensor
    c_weight: Tensor
    c_bias: Tensor
    h_weight: Tensor
    h_bias: Tensor

    @classmethod
    def zeros(cls, w: Weights) -> _NormGradients:
        return cls(*(torch.zeros_like(getattr(w, name)) for name in cls._fields))


def _weight_gradients(
    way: _Way, kept: _Kept, at: _Columns, dgates: Tensor, dz: Tensor, norms: _NormGradients
) -> tuple[Tensor | None, ...]:
    """Gradients in the order of `Weights`: each weight's is one product over all places.

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

    found: dict[str, Tensor | None] = {
        "w_ih": product(flat_gates, before[:, at.normed]),
        "w_hh": product(flat_gates, before[:, at.carried]),
        "b_gates": flat_gates.sum(0).to(full),  # added up in float32 also in bfloat16
        **norms._asdict(),
        "w_h": product(flat_dz, after[:, at.put]),
        "w_x": product(flat_dz, after[:, at.x]),
        "y_weight": None,  # frozen
        "y_bias": None,
    }
    return tuple(found[name] for name in Weights._fields)


def _backward(way: _Way, w: Weights, kept: _Kept, states: Tensor, fed: bool, fed_wanted: bool, dy_all: Tensor) -> _Gradients:
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
    at = _Columns.of(variant, d, hidden)
    dz_all = lease.get("dz", (places, b, d), work, device)
    dgates = kept.gates if work == full else lease.get("dgates", (places, b, 4 * hidden), work, device)
    dact = lease.get("dact", (b, 4 * hidden), full, device)
    di, df, dg, do = dact.chunk(4, 1)
    dx, dskip, zeros = torch.zeros_like(states[0]), torch.zeros_like(states[0]), torch.zeros_like(kept.raw_c[0])
    dh0, dh_next, dc_next, first_x = zeros.clone(), zeros, zeros, torch.zeros_like(states[0])
    norms = _NormGradients.zeros(w)
    if fed:  # nothing below y flows from place to place: one call for all
        x_norm, y_norm = kept.fed_norms[:2], kept.fed_norms[2:]
        dz_whole = _norm_backward(dy_all, kept.z, (d,), *y_norm, w.y_weight, w.y_bias, (True, False, False))[0]
        dz_all.copy_(dz_whole)
        dskip = dz_whole.sum(0)
        dput_all = lease.get("dput", (places, b, hidden), work, device)
        torch.mm(dz_all.view(-1, d), w.w_h.to(work), out=dput_all.view(-1, hidden))
        in_product = out_product = _Product(w.w_hh.to(work).T, b)
    else:
        in_product = _Product(_join(w.w_hh, w.w_ih, work).T, b)
        out_product = _Product(_join(w.w_x, w.w_h, work).T, b)
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
        dnormed_all = (dgates.view(-1, 4 * hidden) @ w.w_ih.to(work)).view(places, b, d).to(full)
        d_fed, dw, db = _norm_backward(dnormed_all, states, (d,), *x_norm, w.x_weight, w.x_bias, (fed_wanted, True, True))
        norms = norms._replace(x_weight=dw, x_bias=db)
        if fed_wanted:
            d_fed = d_fed + (dz_all.view(-1, d) @ w.w_x.to(work)).view(places, b, d)
    return _Gradients(d_fed, dh0, dskip, _weight_gradients(way, kept, at, dgates, dz_all, norms))
