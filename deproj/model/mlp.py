"""A plain MLP from the embedding to all places at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deproj.model.sizes import check_sizes
from deproj.selection import PLACES

if TYPE_CHECKING:
    from deproj.clip.encoder import TextEncoder
from deproj.model.base import Deprojector
from deproj.model.lstm import LSTMConfig, LSTMDeprojector

__all__ = ["MLPConfig", "MLPDeprojector"]


@dataclass(frozen=True)
class MLPConfig:
    """Sizes of an `MLPDeprojector`.

    Attributes:
        width: D, of a state.
        hidden: width of both hidden layers.
    """

    width: int
    hidden: int
    layer_norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        check_sizes(self, "width", "hidden")


class MLPDeprojector(Deprojector):
    """From the embedding to all places at once: a baseline, with as many parameters as the LSTM or with more.

    y_p = LN_final(V_p φ(U₂ φ(U₁ e)) + e), φ = GELU, every product with a bias. What it is fed makes no difference.
    """

    kind = "mlp"
    config_class = MLPConfig

    def __init__(self, config: MLPConfig, projected: bool = True, provenance: dict[str, Any] | None = None) -> None:
        super().__init__(config, projected, provenance)
        d, h = config.width, config.hidden
        self.body = nn.Sequential(nn.Linear(d, h), nn.GELU(), nn.Linear(h, h), nn.GELU())
        self.out = nn.Linear(h, (PLACES - 1) * d)

    @classmethod
    def for_encoder(cls, encoder: TextEncoder, hidden: int | None = None) -> MLPDeprojector:
        """An untrained model for an encoder; by default with about as many parameters as its LSTM."""
        d = encoder.width
        if hidden is None:
            with torch.device("meta"):
                lstm = sum(p.numel() for p in LSTMDeprojector(LSTMConfig(d, d * 3 // 2)).parameters() if p.requires_grad)
            hidden = max(round((lstm - (PLACES - 1) * d) / (PLACES * d)), 1)
        model = cls(MLPConfig(d, hidden, encoder.final_norm.eps), encoder.deprojection is not None)
        model.take_over(encoder)
        return model

    def unroll(self, embedding: Tensor, places: int, fed: Tensor | None = None) -> Tensor:
        d, hidden = self.config.width, self.body(embedding)
        made = F.linear(hidden, self.out.weight[: places * d], self.out.bias[: places * d]).view(-1, places, d)
        return self.final_norm(made + embedding[:, None])
