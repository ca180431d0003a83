"""The model's equations as they stand in the design, a sample and a place at a time, in float64 numpy.

Slow and plain on purpose: the oracle that the model is held against.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray
Weights = dict[str, Array]


def layer_norm(x: Array, weight: Array, bias: Array, eps: float = 1e-5) -> Array:
    centred = x - x.mean()
    return centred / np.sqrt((centred**2).mean() + eps) * weight + bias


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def sequence(w: Weights, e: Array, places: int, fed: Array | None, h0_added: str) -> Array:
    """The `places` predictions after SOS of one sample, (places, D); `fed` (places, D) or None for recursive."""
    h0 = w["h0.weight"] @ e + w["h0.bias"]
    h, c = h0, np.zeros_like(h0)
    y = np.zeros_like(e)
    out = []
    for place in range(places):
        x = y if fed is None else fed[place]
        normed = layer_norm(x, w["x_norm.weight"], w["x_norm.bias"])
        gates = w["cell.weight_ih"] @ normed + w["cell.bias_ih"] + w["cell.weight_hh"] @ h + w["cell.bias_hh"]
        i, f, g, o = np.split(gates, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        raw = sigmoid(o) * np.tanh(c)
        c = layer_norm(c, w["c_norm.weight"], w["c_norm.bias"])
        normed_h = layer_norm(raw, w["h_norm.weight"], w["h_norm.bias"])
        h = normed_h + h0 if h0_added in ("both", "carried") else normed_h
        seen = normed_h + h0 if h0_added in ("both", "put_out") else normed_h
        y = w["out_h.weight"] @ seen + w["out_h.bias"] + w["out_x.weight"] @ x + w["out_x.bias"]
        y = y + w["out_e.weight"] @ e + w["out_e.bias"] + e
        y = layer_norm(y, w["final_norm.weight"], w["final_norm.bias"])
        out.append(y)
    return np.stack(out)
