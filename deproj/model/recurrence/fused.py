"""The passes with a place's pointwise work in one kernel between two products, on a CPU in float32.

Where the weights fit into a core's cache, the batch is parted between two threads, which is faster than two threads at each
product: they meet once, not at each of some thousand operations.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deproj.model.recurrence import kernels
from deproj.model.recurrence.parts import Columns, Gradients, Kept, NormGradients, Way, Weights
from deproj.model.recurrence.products import SMALL, Product, joined
from deproj.model.recurrence.whole import fed_backward, fed_gates, fed_gradients, fed_outputs, weight_gradients

__all__ = ["backward", "forward"]

#: Columns of what is kept of a place's norms: mean and 1 / deviation of c, h, x and y.
KEPT = 8
#: Rows that a thread is given at least, and from how many on the size of the weights doesn't matter.
FEWEST, MANY = 24, 400


def array(tensor: Tensor) -> np.ndarray:
    """A tensor's memory as the kernels take it."""
    found = tensor.detach()
    return (found.view(torch.uint16) if found.dtype == torch.bfloat16 else found).numpy()


def each(tensor: Tensor, rows: slice) -> list[np.ndarray]:
    """Some rows of each place of (P, B, ·)."""
    return list(array(tensor)[:, rows])


def parted(gates: np.ndarray) -> np.ndarray:
    """(…, 4H) as (…, 4, H)."""
    return gates.reshape(*gates.shape[:-1], 4, -1)


def gates_of(tensor: Tensor, rows: slice) -> list[np.ndarray]:
    """As `each`, of (P, B, 4H), each (B, 4, H)."""
    return list(map(parted, each(tensor, rows)))


def norms_of(*tensors: Tensor) -> np.ndarray:
    """Weights and biases of norms, one a row."""
    return np.stack([array(tensor) for tensor in tensors])


@cache
def other_thread() -> ThreadPoolExecutor:
    """A thread that stays, since it takes longer to start one than to compute twenty places."""
    return ThreadPoolExecutor(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=other_thread.cache_clear)  # the thread isn't there


def parted_pays(rows: int, weights: int) -> bool:
    """Whether two threads that take half of the rows each are faster than two at each product."""
    return torch.get_num_threads() > 1 and rows >= 2 * FEWEST and (weights <= SMALL or rows >= MANY)


def count(w: Weights) -> int:
    """Numbers in the weights that every place multiplies with."""
    return sum(weight.numel() for weight in (w.w_ih, w.w_hh, w.w_h, w.w_x))


def pays(rows: int, w: Weights) -> bool:
    """Whether this is faster than `plain`, whose pointwise work has all threads: not between large products of both."""
    weights = count(w)
    return torch.get_num_threads() == 1 or rows < FEWEST or weights <= SMALL or parted_pays(rows, weights)


def in_parts(run: Callable[[slice], Any], rows: int, halved: bool) -> list[Any]:
    """Runs on all rows, or in two threads on half of them each, which share the cores; returns what it returns, in order."""
    if not halved:
        return [run(slice(0, rows))]
    threads = torch.get_num_threads()

    def alone(part: slice) -> Any:
        if torch.get_num_threads() != threads // 2:
            torch.set_num_threads(threads // 2)  # of this thread, as no_grad is
        with torch.no_grad():
            return run(part)

    second = other_thread().submit(alone, slice(rows // 2, rows))
    try:
        first = alone(slice(0, rows // 2))
    finally:
        second.exception()  # waits, so that nothing is written behind the caller's back
        torch.set_num_threads(threads)
    return [first, second.result()]


def forward(way: Way, w: Weights, h0: Tensor, skip: Tensor, places: int, fed: Tensor | None, keep: bool) -> tuple[Tensor, Kept]:
    """As `plain.forward`."""
    (b, hidden), d, keep = h0.shape, skip.shape[1], keep or fed is not None
    at, eps = Columns.of(way.variant, d, hidden), np.float32(way.variant.eps)
    kept_places = places if keep else 1

    def buffer(name: str, width: int, dtype: torch.dtype = h0.dtype, more: int = 0) -> Tensor:
        return way.lease.get(name, (kept_places + more, b, width), dtype, h0.device)

    rows, gates = buffer("rows", at.normed.stop, way.work, 1), buffer("gates", 4 * hidden)
    raw_c, z, kept = buffer("raw_c", hidden), buffer("z", d), buffer("norms", KEPT)
    y = torch.empty(places, b, d, dtype=h0.dtype)
    whole, fed_norms = (None, []) if fed is None else fed_gates(way, w, at, fed, rows)
    rows[0, :, at.carried] = h0
    if fed is None:
        rows[0, :, at.normed], rows[1, :, at.x] = w.x_bias, 0
    halved = parted_pays(b, count(w))
    size = b // 2 if halved else b
    into = Product((w.w_hh, w.w_ih) if fed is None else (w.w_hh,), way.work, size)
    out = Product((w.w_x, w.w_h), way.work, size) if fed is None else None
    bias = parted(array(w.b_gates)[None])
    of_c_and_h, of_y_and_x = norms_of(*w[5:9]), norms_of(w.y_weight, w.y_bias, w.x_weight, w.x_bias)
    raised, columns = (way.variant.put_out, way.variant.carried), (at.put.start, at.carried.start)
    before, after = at.into if fed is None else at.carried, at.out

    def run(part: slice) -> None:
        rows_here = part.stop - part.start
        first, more, c = array(h0)[part], array(skip)[part], np.zeros((rows_here, hidden), np.float32)
        row, taken, put = each(rows, part), rows[:, part, before].unbind(), rows[:, part, after].unbind()
        state, added = each(y, part), [bias] * places if whole is None else gates_of(whole, part)
        gate_product, out_product = (torch.empty(rows_here, width, dtype=way.work) for width in (4 * hidden, d))
        gate_sums, out_sums = parted(array(gate_product)), array(out_product)
        gate, raw, out_z, norm = gates_of(gates, part), each(raw_c, part), each(z, part), each(kept, part)
        none = np.empty((0, 0), row[0].dtype)
        for p in range(places):
            k, here, then = (p, p, p + 1) if keep else (0, p % 2, (p + 1) % 2)
            into(taken[here], gate_product)
            kernels.forward_gates(
                gate_sums, added[p], first, c, raised, columns, of_c_and_h, eps,
                gate[k], raw[k], row[then], norm[k],
            )  # fmt: skip
            if out is None:
                continue
            out(put[then], out_product)
            last = p == places - 1
            kernels.forward_output(
                out_sums, more, of_y_and_x, eps, at.normed.start, out_z[k], state[p], none if last else row[then],
                none if last else row[p + 2 if keep else p % 2], norm[k], norm[k if last or not keep else k + 1],
            )  # fmt: skip

    in_parts(run, b, halved)
    if fed is not None:
        y, norm_y = fed_outputs(way, w, at, rows, skip, z)
        fed_norms += norm_y
    return y, Kept(way.lease, rows, gates, raw_c, z, kept, fed_norms)


def backward(way: Way, w: Weights, kept: Kept, states: Tensor, fed: bool, fed_wanted: bool, dy_all: Tensor) -> Gradients:
    """As `plain.backward`."""
    places, b, hidden = kept.raw_c.shape
    d, full, device = states.shape[2], states.dtype, states.device
    at = Columns.of(way.variant, d, hidden)
    dz_all = way.lease.get("dz", (places, b, d), way.work, device)
    dgates = kept.gates if way.work == full else way.lease.get("dgates", (places, b, 4 * hidden), way.work, device)
    dh0, dskip, dy_all = torch.zeros_like(kept.raw_c[0]), torch.zeros_like(states[0]), dy_all.contiguous()
    dput_all = dgates
    if fed:
        dskip, dput_all = fed_backward(way, w, kept, dy_all, dz_all)
    halved = parted_pays(b, count(w))
    size = b // 2 if halved else b
    laid_out = {"into": Product(((w.w_hh if fed else joined((w.w_hh, w.w_ih))).T,), way.work, size)}
    if not fed:
        laid_out["out"] = Product((joined((w.w_x, w.w_h)).T,), way.work, size)
    of_c_and_h, x_weight, y_weight = norms_of(*w[5:9]), array(w.x_weight), array(w.y_weight)
    raised = (way.variant.put_out, way.variant.carried)

    def run(part: slice) -> tuple[np.ndarray, np.ndarray]:
        rows_here = part.stop - part.start
        dc, dx = np.zeros((rows_here, hidden), np.float32), np.zeros((rows_here, d), np.float32)
        of_norms, of_x_norm = np.zeros((4, hidden), np.float32), np.zeros((2, d), np.float32)
        gate, raw = gates_of(kept.gates, part), each(kept.raw_c, part)
        z, norm, y, dy = (each(tensor, part) for tensor in (kept.z, kept.norms, states, dy_all))
        dz, into_gates = each(dz_all, part), gates_of(dgates, part)
        of_dz, of_dgates, of_put = dz_all[:, part].unbind(), dgates[:, part].unbind(), each(dput_all, part)
        of_h0, of_skip = array(dh0)[part], array(dskip)[part]
        work, none = of_put[0].dtype, np.empty((0, 0), np.float32)
        before, direct = (
            torch.empty(rows_here, width, dtype=way.work) for width in ((hidden if fed else hidden + d), d + hidden)
        )
        none_later, later, through = np.empty((0, 0), work), array(before), array(direct)
        for p in reversed(range(places)):
            if fed:
                put, column = of_put[p], 0
            else:
                if p < places - 1:
                    kernels.backward_input(through, later, hidden, y[p], norm[p + 1], x_weight, dx, of_x_norm)
                kernels.backward_output(dy[p], dx, z[p], norm[p], y_weight, of_skip, dz[p])
                laid_out["out"](of_dz[p], direct)
                put, column = through, d
            kernels.backward_gates(
                put, column, later if p < places - 1 else none_later, raised, gate[p], raw[p], raw[p - 1] if p else none,
                norm[p], norm[p - 1] if p else none, of_c_and_h, dc, of_h0, into_gates[p], of_norms,
            )  # fmt: skip
            laid_out["into"](of_dgates[p], before)
        dh0[part] += before[:, :hidden]  # h0 is also the first carried state
        if not fed:  # the first place was fed zeros: their norm is its bias
            of_x_norm[1] += before[:, hidden:].float().sum(0).numpy()
        return of_norms, of_x_norm

    found = in_parts(run, b, halved)
    c_and_h, of_x = (torch.from_numpy(sum(some)) for some in zip(*found, strict=True))
    norms = NormGradients(of_x[0], of_x[1], *c_and_h)
    laid_out.clear()  # room for the weights' gradients
    d_fed = None
    if fed:
        d_fed, dweight, dbias = fed_gradients(way, w, kept, states, dgates, dz_all, fed_wanted)
        norms = norms._replace(x_weight=dweight, x_bias=dbias)
    return Gradients(d_fed, dh0, dskip, weight_gradients(kept, at, dgates, dz_all, norms))
