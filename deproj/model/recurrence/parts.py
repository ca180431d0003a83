"""What the passes of the recurrence are given, keep and return.

P places, B batch, D width of a state, H of the LSTM. Buffers are (P, B, ·), so that a place is contiguous.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from deproj.model.recurrence.memory import Lease

__all__ = ["Columns", "Gradients", "Kept", "NormGradients", "Variant", "Way", "Weights"]


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


class Way(NamedTuple):
    """How a pass computes: the variant of the equations, the dtype of the products, and the memory that it uses."""

    variant: Variant
    work: torch.dtype
    lease: Lease


class Columns(NamedTuple):
    """Where in a row each part stands; carried and put out are one where the variant makes them equal."""

    x: slice
    put: slice
    carried: slice
    normed: slice

    @classmethod
    def of(cls, variant: Variant, d: int, hidden: int) -> Columns:
        put = slice(d, d + hidden)
        carried = put if variant.carried == variant.put_out else slice(put.stop, put.stop + hidden)
        return cls(slice(0, d), put, carried, slice(carried.stop, carried.stop + d))

    @property
    def out(self) -> slice:
        return slice(self.x.start, self.put.stop)

    @property
    def into(self) -> slice:
        return slice(self.carried.start, self.normed.stop)


class Kept(NamedTuple):
    """What backward needs of forward, beside the states that were fed."""

    lease: Lease
    rows: Tensor  # (P + 1, B, ·): of place p - 1 what it was fed and put out, of place p the carried h and LN_x(x)
    gates: Tensor  # (P, B, 4H), after their nonlinearities
    raw_c: Tensor  # (P, B, H), the cell state before its norm
    z: Tensor  # (P, B, D), outputs before their norm
    norms: Any  # of each place, means and 1/deviations: of c, h and, where it fed itself, x and y
    fed_norms: list[Tensor]  # where it was fed: those of x and y, all places at once


class Gradients(NamedTuple):
    """Of the inputs and of the weights; those of the frozen norm are None, and so is that of `fed` where nobody asks for it."""

    fed: Tensor | None
    h0: Tensor
    skip: Tensor
    weights: tuple[Tensor | None, ...]  # in the order of `Weights`


class NormGradients(NamedTuple):
    """Of the weights and biases of the three norms inside the recurrence, added up over the places."""

    x_weight: Tensor
    x_bias: Tensor
    c_weight: Tensor
    c_bias: Tensor
    h_weight: Tensor
    h_bias: Tensor

    @classmethod
    def zeros(cls, w: Weights) -> NormGradients:
        return cls(*(torch.zeros_like(getattr(w, name)) for name in cls._fields))
