"""The LSTM deprojector, the article's model.

With x the previous state of the sequence (zeros at the start), e the embedding,
h0 = W0 e + b0 and c0 = 0:

    h, c = LSTMCell(LN_x(x), (h, c))          # D to H
    c = LN_c(c);  h = LN_h(h) + h0            # both are carried on
    y = LN_final(W_h h + W_x x + W_e e + e)   # every W with a bias

LN_final is CLIP's final layer norm, copied and frozen. SOS is never predicted: a sequence is the
stored SOS state and 76 predictions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from deproj.model.recurrence import Buffers, Variant, Weights, unroll
from deproj.model.sizes import check_sizes
from deproj.process.errors import UserError

if TYPE_CHECKING:
    from deproj.clip.encoder import TextEncoder
from deproj.model.base import Deprojector

__all__ = ["H0_ADDED", "LSTMConfig", "LSTMDeprojector"]

H0_ADDED = ("both", "carried", "put_out", "neither")


@dataclass(frozen=True)
class LSTMConfig:
    """Sizes and variant of an `LSTMDeprojector`.

    Attributes:
        width: D, of a state.
        hidden: H, of the LSTM; the reference's 1.5 D.
        h0_added: to what h0 is added at every step: "both" (what is carried and what is put out),
            "carried", "put_out" or "neither".
    """

    width: int
    hidden: int
    h0_added: str = "both"
    layer_norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        check_sizes(self, "width", "hidden")
        if self.h0_added not in H0_ADDED:
            raise UserError(f"h0_added is one of {', '.join(H0_ADDED)}; got {self.h0_added!r}.")


class LSTMDeprojector(Deprojector):
    """One LSTM layer with layer norms inside the recurrence (see the module's docstring)."""

    kind = "lstm"
    config_class = LSTMConfig

    def __init__(self, config: LSTMConfig, projected: bool = True, provenance: dict[str, Any] | None = None) -> None:
        super().__init__(config, projected, provenance)
        d, h, eps = config.width, config.hidden, config.layer_norm_eps
        self.h0 = nn.Linear(d, h)
        self.x_norm = nn.LayerNorm(d, eps)
        self.cell = nn.LSTMCell(d, h)
        self.c_norm = nn.LayerNorm(h, eps)
        self.h_norm = nn.LayerNorm(h, eps)
        self.out_h = nn.Linear(h, d)
        self.out_x = nn.Linear(d, d)
        self.out_e = nn.Linear(d, d)
        self.step_buffers = Buffers()

    @classmethod
    def for_encoder(cls, encoder: TextEncoder, hidden: int | None = None, h0_added: str = "both") -> LSTMDeprojector:
        """An untrained model for an encoder: its width, final norm, SOS state and projection."""
        eps, width = encoder.final_norm.eps, encoder.width
        model = cls(
            LSTMConfig(width, width * 3 // 2 if hidden is None else hidden, h0_added, eps), encoder.deprojection is not None
        )
        model.take_over(encoder)
        return model

    def unroll(self, embedding: Tensor, places: int, fed: Tensor | None = None) -> Tensor:
        h0 = self.h0(embedding)
        skip = self.out_e(embedding) + embedding + self.out_h.bias + self.out_x.bias
        weights = Weights(
            w_ih=self.cell.weight_ih,
            w_hh=self.cell.weight_hh,
            b_gates=self.cell.bias_ih + self.cell.bias_hh,
            x_weight=self.x_norm.weight,
            x_bias=self.x_norm.bias,
            c_weight=self.c_norm.weight,
            c_bias=self.c_norm.bias,
            h_weight=self.h_norm.weight,
            h_bias=self.h_norm.bias,
            w_h=self.out_h.weight,
            w_x=self.out_x.weight,
            y_weight=self.final_norm.weight,
            y_bias=self.final_norm.bias,
        )
        added = self.config.h0_added
        variant = Variant(added in ("both", "carried"), added in ("both", "put_out"), self.config.layer_norm_eps)
        return unroll(weights, variant, h0, skip, places, fed, self.step_buffers)

    def start(self, embedding: Tensor) -> Any:
        h0 = self.h0(embedding)
        return h0, torch.zeros_like(h0), h0, self.out_e(embedding) + embedding

    def step(self, state: Any, fed: Tensor) -> tuple[Tensor, Any]:
        h, c, h0, skip = state
        added = self.config.h0_added
        h, c = self.cell(self.x_norm(fed), (h, c))
        c, normed = self.c_norm(c), self.h_norm(h)
        h = normed + h0 if added in ("both", "carried") else normed
        put_out = normed + h0 if added in ("both", "put_out") else normed
        return self.final_norm(self.out_h(put_out) + self.out_x(fed) + skip), (h, c, h0, skip)
