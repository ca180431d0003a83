"""A residual MLP from the embedding to all places, or to a few states of which all places are mixed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deproj.model.sizes import check_sizes
from deproj.process.errors import UserError
from deproj.process.numbers import as_whole
from deproj.selection import PLACES

if TYPE_CHECKING:
    from deproj.clip.encoder import TextEncoder
from deproj.model.base import Deprojector

__all__ = ["ResidualConfig", "ResidualDeprojector"]


@dataclass(frozen=True)
class ResidualConfig:
    """Sizes of a `ResidualDeprojector`.

    Attributes:
        width: D, of a state.
        hidden: H, of the residual stream.
        blocks: how many blocks follow one another.
        expansion: the hidden width of a block, in H.
        rank: R, how many states all places are mixed of; 0 for a state of its own for every place.
    """

    width: int
    hidden: int
    blocks: int = 3
    expansion: int = 2
    rank: int = 0
    layer_norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        check_sizes(self, "width", "hidden", "blocks", "expansion")
        if not 0 <= (-1 if (rank := as_whole(self.rank)) is None else rank) < PLACES:
            raise UserError(f"the model's rank is 0, for none, to {PLACES - 1}; got {self.rank!r}.")


class ResidualDeprojector(Deprojector):
    """From the embedding to all places at once, through blocks that each add to a stream of width H.

    With x₀ = U e, and a block xₖ₊₁ = xₖ + A φ(B LN(xₖ)), φ = GELU, every product with a bias, n = LN(x) of the last:

        y_p = LN_final(V_p n + e)                     rank 0
        y_p = LN_final(b_p + Σ_r m_pr V_r n + e)      rank R: far fewer parameters

    What it is fed makes no difference.
    """

    kind = "residual"
    config_class = ResidualConfig

    def __init__(self, config: ResidualConfig, projected: bool = True, provenance: dict[str, Any] | None = None) -> None:
        super().__init__(config, projected, provenance)
        d, h, eps = config.width, config.hidden, config.layer_norm_eps
        self.enter = nn.Linear(d, h)
        inner = config.expansion * h
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(h, eps), nn.Linear(h, inner), nn.GELU(), nn.Linear(inner, h)) for _ in range(config.blocks)
        )
        self.norm = nn.LayerNorm(h, eps)
        self.out = nn.Linear(h, (config.rank or PLACES - 1) * d)
        if config.rank:
            # at first every place is one of the states, in turn
            self.mixing = nn.Parameter(torch.eye(config.rank).repeat(-(-PLACES // config.rank), 1)[: PLACES - 1])
            self.places = nn.Parameter(torch.zeros(PLACES - 1, d))

    @classmethod
    def for_encoder(
        cls, encoder: TextEncoder, hidden: int | None = None, blocks: int = 3, expansion: int = 2, rank: int = 0
    ) -> ResidualDeprojector:
        """An untrained model for an encoder; by default its hidden width is four times a state's."""
        d, eps = encoder.width, encoder.final_norm.eps
        model = cls(
            ResidualConfig(d, 4 * d if hidden is None else hidden, blocks, expansion, rank, eps), encoder.deprojection is not None
        )
        model.take_over(encoder)
        return model

    def unroll(self, embedding: Tensor, places: int, fed: Tensor | None = None) -> Tensor:
        d, x = self.config.width, self.enter(embedding)
        for block in self.blocks:
            x = x + block(x)
        n = self.norm(x)
        if self.config.rank:
            states = self.out(n).view(-1, self.config.rank, d)
            made = self.places[:places] + self.mixing[:places] @ states
        else:
            made = F.linear(n, self.out.weight[: places * d], self.out.bias[: places * d]).view(-1, places, d)
        return self.final_norm(made + embedding[:, None])
