"""A transformer decoder whose queries are the places and whose memory is the embedding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from deproj.model.sizes import check_sizes
from deproj.process.errors import UserError
from deproj.selection import PLACES

if TYPE_CHECKING:
    from deproj.clip.encoder import TextEncoder
from deproj.model.base import Deprojector

__all__ = ["TransformerConfig", "TransformerDeprojector"]


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes of a `TransformerDeprojector`.

    Attributes:
        width: D, of a state and of the decoder.
        layers: how many.
        heads: of its attention; they divide D.
        memory: tokens that the embedding is turned into.
    """

    width: int
    layers: int = 2
    heads: int = 4
    memory: int = 8
    layer_norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        check_sizes(self, "width", "layers", "heads", "memory")
        if self.width % self.heads:
            raise UserError(f"the model's heads divide its width, {self.width}; got {self.heads}.")


class TransformerDeprojector(Deprojector):
    """All places at once, which look at one another and at the embedding.

    The embedding becomes M memory tokens by one product. A learnt query for each place goes through pre-norm layers of
    self-attention, attention to the memory and an MLP of 4 D (Vaswani et al. 2017, as `torch.nn.TransformerDecoderLayer`),
    to q_p; y_p = LN_final(W q_p + e). What it is fed makes no difference.
    """

    kind = "transformer"
    config_class = TransformerConfig

    def __init__(self, config: TransformerConfig, projected: bool = True, provenance: dict[str, Any] | None = None) -> None:
        super().__init__(config, projected, provenance)
        d, eps = config.width, config.layer_norm_eps
        self.memory = nn.Linear(d, config.memory * d)
        self.queries = nn.Parameter(torch.randn(PLACES - 1, d) * d**-0.5)
        options: dict[str, Any] = {"dropout": 0.0, "activation": "gelu", "layer_norm_eps": eps}
        options |= {"batch_first": True, "norm_first": True}
        self.layers = nn.ModuleList(nn.TransformerDecoderLayer(d, config.heads, 4 * d, **options) for _ in range(config.layers))
        self.norm = nn.LayerNorm(d, eps)
        self.out = nn.Linear(d, d)

    @classmethod
    def for_encoder(
        cls, encoder: TextEncoder, layers: int = 2, heads: int | None = None, memory: int = 8
    ) -> TransformerDeprojector:
        """An untrained model for an encoder; by default a head is 32 wide, or 64 from a width of 512 on."""
        d, eps = encoder.width, encoder.final_norm.eps
        heads = max(d // (64 if d >= 512 else 32), 1) if heads is None else heads
        model = cls(TransformerConfig(d, layers, heads, memory, eps), encoder.deprojection is not None)
        model.take_over(encoder)
        return model

    def unroll(self, embedding: Tensor, places: int, fed: Tensor | None = None) -> Tensor:
        b, d = embedding.shape
        memory = self.memory(embedding).view(b, self.config.memory, d)
        # all places, however many are asked for: they look at one another
        x = self.queries.expand(b, -1, -1)
        for layer in self.layers:
            x = layer(x, memory)
        return self.final_norm(self.out(self.norm(x)) + embedding[:, None])[:, :places]
