"""What a place computes beside its products, each pass over its rows in one kernel, compiled by numba on the user's machine.

A row is one sample. Arrays are C-contiguous float32, but for the rows and products of bfloat16, which numba doesn't know: they
are its bits, uint16. Column numbers say where in a row a part begins. The kernels hold no lock, so that threads share a batch.

Importing this takes a second, and the first call of each kernel compiles it; numba keeps what it compiled beside this file, or in
the user's cache folder.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

__all__ = ["backward_gates", "backward_input", "backward_output", "forward_gates", "forward_output"]

F = np.float32
ZERO, HALF, ONE, TWO = F(0), F(0.5), F(1), F(2)
LOG2_E, LN_2_HIGH, LN_2_LOW = F(math.log2(math.e)), F(0.693359375), F(math.log(2) - 0.693359375)
#: 1 / n! of the exponential's series.
E2, E3, E4, E5, E6 = (F(1 / math.factorial(n)) for n in range(2, 7))
#: Of the hyperbolic tangent's.
T3, T5, T7, T9 = F(-1 / 3), F(2 / 15), F(-17 / 315), F(62 / 2835)
#: Beyond these the exponential isn't a normal number.
LOWEST, HIGHEST = F(-87), F(88)
#: Below it, squared, the series of the tangent is nearer than a difference of exponentials.
SMALL = F(0.0625)

#: No check for division by zero, which keeps loops from being vectorised, and no lock. Not a number stays what it is.
PLAIN: dict[str, Any] = {"error_model": "numpy", "nogil": True, "cache": True, "fastmath": {"contract"}}
#: Sums may be added up in any order.
SUMS = PLAIN | {"fastmath": {"contract", "reassoc", "nsz"}}


@intrinsic
def floor(_context: Any, x: Any) -> Any:
    """The largest whole number not above x, a float as x is; Python's own would be an int64."""

    def code(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.call(builder.module.declare_intrinsic("llvm.floor", [ir.FloatType()]), arguments)

    return types.float32(types.float32), code


@intrinsic
def scaled(_context: Any, x: Any, power: Any) -> Any:
    """x · 2ᵖ, by the bits of the exponent."""

    def code(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        whole = builder.fptosi(arguments[1], ir.IntType(32))
        bits = builder.shl(builder.add(whole, ir.Constant(ir.IntType(32), 127)), ir.Constant(ir.IntType(32), 23))
        return builder.fmul(arguments[0], builder.bitcast(bits, ir.FloatType()))

    return types.float32(types.float32, types.float32), code


@intrinsic
def widened(_context: Any, bits: Any) -> Any:
    """The float32 of a bfloat16's bits."""

    def code(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        wide = builder.zext(arguments[0], ir.IntType(32))
        return builder.bitcast(builder.shl(wide, ir.Constant(ir.IntType(32), 16)), ir.FloatType())

    return types.float32(types.uint16), code


@intrinsic
def rounded(_context: Any, x: Any) -> Any:
    """The bits of the nearest bfloat16, of two as near the even one; not a number stays that."""

    def code(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        word, short = ir.IntType(32), ir.IntType(16)
        bits = builder.bitcast(arguments[0], word)
        odd = builder.and_(builder.lshr(bits, ir.Constant(word, 16)), ir.Constant(word, 1))
        up = builder.add(bits, builder.add(odd, ir.Constant(word, 0x7FFF)))
        near = builder.trunc(builder.lshr(up, ir.Constant(word, 16)), short)
        unordered = builder.fcmp_unordered("uno", arguments[0], arguments[0])
        return builder.select(unordered, ir.Constant(short, 0x7FC0), near)

    return types.uint16(types.float32), code


def read(x):  # noqa: ANN001
    """An element of a product as float32."""
    raise NotImplementedError  # within kernels only


def like(to, x):  # noqa: ANN001
    """A float32 as an element of an array, rounded where that is of bfloat16."""
    raise NotImplementedError  # within kernels only


# numba compares the signatures, so these have no annotations.
@overload(read, jit_options={"fastmath": {"contract"}})
def _read(x):  # noqa: ANN001
    return (lambda x: widened(x)) if x == types.uint16 else (lambda x: x)


@overload(like, jit_options={"fastmath": {"contract"}})
def _like(to, x):  # noqa: ANN001
    return (lambda to, x: rounded(x)) if to.dtype == types.uint16 else (lambda to, x: x)


@njit(**PLAIN)
def exp(x: Any) -> Any:
    """eˣ to 2 units in the last place: 2ᵏ times a series for |r| ≤ ln 2 / 2, with x = k ln 2 + r."""
    x = LOWEST if x < LOWEST else x
    x = HIGHEST if x > HIGHEST else x
    k = floor(x * LOG2_E + HALF)
    r = x - k * LN_2_HIGH - k * LN_2_LOW
    return scaled(ONE + r * (ONE + r * (E2 + r * (E3 + r * (E4 + r * (E5 + r * E6))))), k)


@njit(**PLAIN)
def sigmoid(x: Any) -> Any:
    return ONE / (ONE + exp(-x))


@njit(**PLAIN)
def tanh(x: Any) -> Any:
    s = x * x
    near = x + x * s * (T3 + s * (T5 + s * (T7 + s * T9)))
    return near if s < SMALL else ONE - TWO / (ONE + exp(TWO * x))


@njit(**SUMS)
def moments(x: Any, eps: Any) -> Any:
    """Mean and 1 / deviation, as of a layer norm."""
    total = ZERO
    for j in range(x.size):
        total += x[j]
    mean = total / F(x.size)
    squares = ZERO
    for j in range(x.size):
        squares += (x[j] - mean) * (x[j] - mean)
    return mean, ONE / np.sqrt(squares / F(x.size) + eps)


@njit(**SUMS)
def norm_sums(grad: Any, x_hat: Any) -> Any:
    """Means over a row of g and of g x̂, which the gradient of a layer norm takes."""
    one, other = ZERO, ZERO
    for j in range(grad.size):
        one += grad[j]
        other += grad[j] * x_hat[j]
    return one / F(grad.size), other / F(grad.size)


@njit(**SUMS)
def norm_backward(grad: Any, x_hat: Any, weight: Any, scale: Any, dweight: Any, dbias: Any) -> None:
    """Of a row: from the gradient of x̂ w + b to that of x, in its place; adds to those of w and b."""
    for j in range(grad.size):
        dweight[j] += grad[j] * x_hat[j]
    for j in range(grad.size):
        dbias[j] += grad[j]
    for j in range(grad.size):
        grad[j] *= weight[j]
    one, other = norm_sums(grad, x_hat)
    for j in range(grad.size):
        grad[j] = (grad[j] - one - x_hat[j] * other) * scale


@njit(**SUMS)
def forward_gates(
    product: Any,
    added: Any,
    h0: Any,
    c: Any,
    raised: tuple[bool, bool],
    columns: tuple[int, int],
    norms: Any,
    eps: Any,
    gates: Any,
    raw: Any,
    after: Any,
    kept: Any,
) -> None:
    """From the gates' products to what the place carries and puts out.

    Args:
        product: (B, 4, H), and what is added to it, (B, 4, H) or (1, 4, H).
        c: cell state, normed, (B, H); that of before in, that of this place out.
        raised: whether h0 is added to what is put out, and to what is carried.
        columns: of `after` where these begin.
        norms: weights and biases of LN_c and LN_h, (4, H).
        gates: out, after their nonlinearities, (B, 4, H).
        raw: out, the cell state before its norm, (B, H).
        after: out, the row that they are put into.
        kept: out, mean and 1 / deviation of c and of h in the first four columns.
    """
    rows, hidden = h0.shape
    c_weight, c_bias, h_weight, h_bias = norms[0], norms[1], norms[2], norms[3]
    i, f, g, o = np.empty(hidden, F), np.empty(hidden, F), np.empty(hidden, F), np.empty(hidden, F)
    cell, out = np.empty(hidden, F), np.empty(hidden, F)
    for r in range(rows):
        b = r if len(added) > 1 else 0
        for j in range(hidden):
            i[j] = sigmoid(read(product[r, 0, j]) + read(added[b, 0, j]))
        for j in range(hidden):
            f[j] = sigmoid(read(product[r, 1, j]) + read(added[b, 1, j]))
        for j in range(hidden):
            g[j] = tanh(read(product[r, 2, j]) + read(added[b, 2, j]))
        for j in range(hidden):
            o[j] = sigmoid(read(product[r, 3, j]) + read(added[b, 3, j]))
        for j in range(hidden):
            cell[j] = f[j] * c[r, j] + i[j] * g[j]
        for j in range(hidden):
            out[j] = o[j] * tanh(cell[j])
        for j in range(hidden):
            gates[r, 0, j] = i[j]
        for j in range(hidden):
            gates[r, 1, j] = f[j]
        for j in range(hidden):
            gates[r, 2, j] = g[j]
        for j in range(hidden):
            gates[r, 3, j] = o[j]
        for j in range(hidden):
            raw[r, j] = cell[j]
        mean, scale = moments(cell, eps)
        kept[r, 0], kept[r, 1] = mean, scale
        for j in range(hidden):
            c[r, j] = (cell[j] - mean) * scale * c_weight[j] + c_bias[j]
        mean, scale = moments(out, eps)
        kept[r, 2], kept[r, 3] = mean, scale
        for j in range(hidden):
            out[j] = (out[j] - mean) * scale * h_weight[j] + h_bias[j]
        for k in range(2):
            if k == 0 or columns[0] != columns[1]:
                put = after[r, columns[k] : columns[k] + hidden]
                for j in range(hidden):
                    put[j] = like(put, out[j] + h0[r, j] if raised[k] else out[j])


@njit(**SUMS)
def forward_output(
    product: Any,
    skip: Any,
    norms: Any,
    eps: Any,
    column: int,
    z: Any,
    y: Any,
    here: Any,
    after: Any,
    kept: Any,
    next_kept: Any,
) -> None:
    """From the output's products to the state, and to what the next place takes of it.

    Args:
        product: (B, D); skip, (B, D), is added.
        norms: weights and biases of LN_final and LN_x, (4, D).
        column: of `here` where LN_x(y) begins.
        z: out, the output before its norm, (B, D).
        y: out, the state, (B, D).
        here: out, the row of the next place, and `after` the row behind it, which begins with y; no rows at the last place.
        kept: out, mean and 1 / deviation of z in the last two columns; `next_kept` those of y in the two before.
    """
    rows, width = skip.shape
    y_weight, y_bias, x_weight, x_bias = norms[0], norms[1], norms[2], norms[3]
    state = np.empty(width, F)
    for r in range(rows):
        for j in range(width):
            state[j] = read(product[r, j]) + skip[r, j]
        for j in range(width):
            z[r, j] = state[j]
        mean, scale = moments(state, eps)
        kept[r, 6], kept[r, 7] = mean, scale
        for j in range(width):
            state[j] = (state[j] - mean) * scale * y_weight[j] + y_bias[j]
        for j in range(width):
            y[r, j] = state[j]
        if len(here):
            mean, scale = moments(state, eps)
            next_kept[r, 4], next_kept[r, 5] = mean, scale
            normed, fed = here[r, column : column + width], after[r, :width]
            for j in range(width):
                normed[j] = like(normed, (state[j] - mean) * scale * x_weight[j] + x_bias[j])
            for j in range(width):
                fed[j] = like(fed, state[j])


@njit(**SUMS)
def backward_input(direct: Any, dnormed: Any, hidden: int, x: Any, kept: Any, weight: Any, dx: Any, dnorm: Any) -> None:
    """From the gradient of LN_x(x) to that of x.

    Args:
        direct: what reaches x without the norm, its first D columns, (B, ·).
        dnormed: from column `hidden` on, (B, ·).
        x: what was fed, (B, D); kept: its mean and 1 / deviation in columns 4 and 5.
        dx: out, (B, D).
        dnorm: of the norm's weight and bias, (2, D); added to.
    """
    rows, width = x.shape
    grad, x_hat, dweight, dbias = np.empty(width, F), np.empty(width, F), dnorm[0], dnorm[1]
    for r in range(rows):
        taken = dnormed[r, hidden : hidden + width]
        mean, scale = kept[r, 4], kept[r, 5]
        for j in range(width):
            grad[j] = read(taken[j])
        for j in range(width):
            x_hat[j] = (x[r, j] - mean) * scale
        norm_backward(grad, x_hat, weight, scale, dweight, dbias)
        for j in range(width):
            dx[r, j] = read(direct[r, j]) + grad[j]


@njit(**SUMS)
def backward_output(dy: Any, dx: Any, z: Any, kept: Any, weight: Any, dskip: Any, dz: Any) -> None:
    """From the gradient of the state to that of the output before its norm.

    Args:
        dy: from the loss, and `dx` from the next place, (B, D).
        z: (B, D); kept: its mean and 1 / deviation in columns 6 and 7.
        weight: of LN_final, (D,).
        dskip: (B, D); added to.
        dz: out, (B, D).
    """
    rows, width = z.shape
    grad, x_hat = np.empty(width, F), np.empty(width, F)
    for r in range(rows):
        mean, scale = kept[r, 6], kept[r, 7]
        for j in range(width):
            grad[j] = (dy[r, j] + dx[r, j]) * weight[j]
        for j in range(width):
            x_hat[j] = (z[r, j] - mean) * scale
        one, other = norm_sums(grad, x_hat)
        for j in range(width):
            grad[j] = (grad[j] - one - x_hat[j] * other) * scale
        for j in range(width):
            dskip[r, j] += grad[j]
        for j in range(width):
            dz[r, j] = like(dz, grad[j])


@njit(**SUMS)
def backward_gates(
    dput: Any,
    column: int,
    dcarried: Any,
    raised: tuple[bool, bool],
    gates: Any,
    raw: Any,
    raw_before: Any,
    kept: Any,
    kept_before: Any,
    norms: Any,
    dc: Any,
    dh0: Any,
    dgates: Any,
    dnorms: Any,
) -> None:
    """From the gradients of what a place puts out and carries to those of its gates before their nonlinearities.

    Args:
        dput: from column `column` on, (B, ·); dcarried: the first H columns of (B, ·), no rows at the last place.
        raised: as in `forward_gates`.
        gates: (B, 4, H).
        raw: the cell state before its norm, (B, H); raw_before: that of the place before, no rows at the first one.
        kept, kept_before: as `forward_gates` put them out.
        norms: weights and biases of LN_c and LN_h, (4, H).
        dc: in: gradient of the normed cell state that the next place takes; out: of that which this one takes, (B, H).
        dh0: (B, H); added to.
        dgates: out, (B, 4, H); may be the gates' own memory.
        dnorms: of `norms`, (4, H); added to.
    """
    rows, hidden = raw.shape
    c_weight, c_bias, h_weight = norms[0], norms[1], norms[2]
    dc_weight, dc_bias, dh_weight, dh_bias = dnorms[0], dnorms[1], dnorms[2], dnorms[3]
    # copies: loops that write where they read from aren't vectorised
    i, f, g, o = np.empty(hidden, F), np.empty(hidden, F), np.empty(hidden, F), np.empty(hidden, F)
    dh, of_c, of_tanh, x_hat = np.empty(hidden, F), np.empty(hidden, F), np.empty(hidden, F), np.empty(hidden, F)
    for r in range(rows):
        put_out = dput[r, column : column + hidden]
        for j in range(hidden):
            i[j] = gates[r, 0, j]
        for j in range(hidden):
            f[j] = gates[r, 1, j]
        for j in range(hidden):
            g[j] = gates[r, 2, j]
        for j in range(hidden):
            o[j] = gates[r, 3, j]
        for j in range(hidden):
            dh[j] = read(put_out[j])
        if raised[0]:
            for j in range(hidden):
                dh0[r, j] += dh[j]
        if len(dcarried):
            for j in range(hidden):
                dh[j] += read(dcarried[r, j])
            if raised[1]:
                for j in range(hidden):
                    dh0[r, j] += read(dcarried[r, j])
        for j in range(hidden):
            of_tanh[j] = tanh(raw[r, j])
        mean, scale = kept[r, 2], kept[r, 3]
        for j in range(hidden):
            x_hat[j] = (o[j] * of_tanh[j] - mean) * scale
        norm_backward(dh, x_hat, h_weight, scale, dh_weight, dh_bias)  # from here on of o tanh(c)
        for j in range(hidden):
            of_c[j] = dc[r, j]
        if len(dcarried):
            mean, scale = kept[r, 0], kept[r, 1]
            for j in range(hidden):
                x_hat[j] = (raw[r, j] - mean) * scale
            norm_backward(of_c, x_hat, c_weight, scale, dc_weight, dc_bias)
        for j in range(hidden):
            of_c[j] += dh[j] * o[j] * (ONE - of_tanh[j] * of_tanh[j])
        if len(raw_before):
            mean, scale = kept_before[r, 0], kept_before[r, 1]
            for j in range(hidden):
                x_hat[j] = (raw_before[r, j] - mean) * scale * c_weight[j] + c_bias[j]
        else:
            for j in range(hidden):
                x_hat[j] = ZERO
        for j in range(hidden):
            dgates[r, 0, j] = like(dgates, of_c[j] * g[j] * i[j] * (ONE - i[j]))
        for j in range(hidden):
            dgates[r, 1, j] = like(dgates, of_c[j] * x_hat[j] * f[j] * (ONE - f[j]))
        for j in range(hidden):
            dgates[r, 2, j] = like(dgates, of_c[j] * i[j] * (ONE - g[j] * g[j]))
        for j in range(hidden):
            dgates[r, 3, j] = like(dgates, dh[j] * of_tanh[j] * o[j] * (ONE - o[j]))
        for j in range(hidden):
            dc[r, j] = of_c[j] * f[j]
