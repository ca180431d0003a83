"""What an error of the states does to the U-Net, as an objective."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from deproj.data.cache import Rows
from deproj.draw.denoiser import Denoiser
from deproj.process.errors import UserError
from deproj.training.objective.base import Learner, Objective, States, states_error
from deproj.training.objective.ways import Asked, Pool, noised, way

__all__ = ["Attention", "Conditioning", "ThroughUNet"]

#: Of how many steps of their ways held-out samples are measured.
HELD_OUT_STEPS = 4


@dataclass
class ThroughUNet(Objective):
    """An objective on what the U-Net makes of generated states ĉ beside the true ones c, at x_t on the true states' way.

    Which states a selection selects makes no difference to it: all 77 are generated freely, and the U-Net takes them in any
    order. Guidance makes none either: it multiplies ε(ĉ) - ε(c), and the empty prompt's share is the same for both.

    Args:
        states: the error of the states is added, times this.
        states_first: so many steps learn the states alone, before the first that goes through the U-Net.
        pool: captions on their way, in batches.
        steps: of each way.
    """

    through_unet: ClassVar[bool] = True

    states: float = 0.0
    states_first: int = 0
    pool: int = 4
    steps: int = 20
    held: dict[int, list[Asked]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.states < 0 or self.states_first < 0 or self.pool < 1 or self.steps < HELD_OUT_STEPS:
            raise UserError(
                f"objective.states and states_first are 0 or more, pool at least 1 and steps at least {HELD_OUT_STEPS}; "
                f"got {self.states}, {self.states_first}, {self.pool} and {self.steps}."
            )

    def bind(self, denoiser: Denoiser, seed: int) -> None:
        self.denoiser, self.ways, self.done = denoiser, Pool(self.pool, self.steps, seed), 0

    def loss(self, learner: Learner, rows: Rows) -> Tensor:
        self.done += 1
        if self.done <= self.states_first:
            return States().loss(learner, rows)
        asked = self.asked(rows)
        made = generated(learner, asked.rows)
        above, below = self.errors(asked, made)
        loss = above.sum() / below.sum()
        if self.states:  # of the states at hand: a CUDA graph can't be replayed twice before its backward
            loss = loss + self.states * states_error(learner.selection, asked.rows, lambda true: made[:, 1 : 1 + true.shape[1]])
        return loss

    def asked(self, rows: Rows) -> Asked:
        """Of the captions' pictures, where there are any, else of captions on their way."""
        if rows.latents is not None:
            return noised(self.denoiser, rows, self.ways.generator)
        return self.ways.draw(self.denoiser, rows)

    def held_out(self, learner: Learner, rows: Rows, number: int) -> Tensor:
        """The conditioning error at some steps of the ways of held-out samples, whichever part of it is trained on."""
        if number not in self.held:
            chosen = [(2 * k + 1) * self.steps // (2 * HELD_OUT_STEPS) for k in range(HELD_OUT_STEPS)]
            generator = torch.Generator().manual_seed(number)
            self.held[number] = [
                asked for some in in_parts(rows, self.denoiser.chunk)
                for asked in way(self.denoiser, some, self.steps, chosen, generator)
            ]  # fmt: skip
        made: dict[int, Tensor] = {}
        sums = torch.zeros(2, dtype=torch.float64)
        for asked in self.held[number]:
            if id(asked.rows) not in made:
                made = {id(asked.rows): generated(learner, asked.rows)}
            above, below = conditioning_errors(self.denoiser, asked, made[id(asked.rows)])
            sums += torch.stack([above.sum(), below.sum()]).double().cpu()
        return (sums[0] / sums[1]).to(rows.embedding)

    @abstractmethod
    def errors(self, asked: Asked, made: Tensor) -> tuple[Tensor, Tensor]:
        """What is made small, and what the empty prompt's states would make of it: both (B,).

        Args:
            made: generated states, (B, 77, D), with a gradient.
        """

    def state(self) -> dict[str, Any]:
        return {"ways": self.ways.state(), "done": self.done}

    def restore(self, state: dict[str, Any]) -> None:
        self.ways.restore(state["ways"], self.denoiser.signal.device)
        self.done = int(state["done"])


@dataclass
class Conditioning(ThroughUNet):
    """Σ wₜ |ε(xₜ,t,ĉ) - ε(xₜ,t,c)|² / Σ wₜ |ε(xₜ,t,∅) - ε(xₜ,t,c)|², its gradient taken through the frozen U-Net.

    wₜ = 1 + extra / ᾱₜ; with extra = 0 it is the evaluation's conditioning error. In terms of v a level's weight is ᾱₜ + extra:
    without it the noisiest levels, where the picture is laid out, would count for nothing.

    Args:
        checkpointing: whether the U-Net's layers are computed anew for the gradient, to save memory.
    """

    extra: float = 0.2
    checkpointing: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.extra < 0:
            raise UserError(f"objective.extra is 0 or more; got {self.extra}.")

    def bind(self, denoiser: Denoiser, seed: int) -> None:
        super().bind(denoiser, seed)
        if self.checkpointing:
            denoiser.unet.enable_gradient_checkpointing()

    def errors(self, asked: Asked, made: Tensor) -> tuple[Tensor, Tensor]:
        return conditioning_errors(self.denoiser, asked, made, self.extra)


@dataclass
class Attention(ThroughUNet):
    """Σ |A(q,ĉ) - A(q,c)|² / Σ |A(q,∅) - A(q,c)|² of each cross-attention A, mean over the layers.

    q is what the U-Net asks on its way with c, so the gradient goes through the cross-attentions only, and not through the
    depth of the U-Net.
    """

    def errors(self, asked: Asked, made: Tensor) -> tuple[Tensor, Tensor]:
        denoiser, above, below = self.denoiser, [], []
        empty = denoiser.empty[None].expand_as(made)
        with torch.no_grad(), denoiser.queries() as seen:
            denoiser.noise(asked.x, asked.t, asked.rows.states)
        for layer, asking, true in seen:
            with torch.no_grad():
                without = squares(layer(asking, encoder_hidden_states=empty.to(asking)), true)
            above.append(squares(layer(asking, encoder_hidden_states=made.to(asking)), true) / without.sum())
            below.append(without / without.sum())
        return torch.stack(above).mean(0), torch.stack(below).mean(0)


def conditioning_errors(denoiser: Denoiser, asked: Asked, made: Tensor, extra: float = 0.0) -> tuple[Tensor, Tensor]:
    """Squared differences to the true states' noise, of generated states (B, 77, D) and of the empty prompt's, each (B,)."""
    weight = 1 + extra / denoiser.signal[asked.t]
    above = squares(denoiser.noise(asked.x, asked.t, made), asked.true)
    return weight * above, weight * squares(asked.without, asked.true)


def squares(one: Tensor, other: Tensor) -> Tensor:
    """Sums of squared differences, (B,), in float32 or more."""
    difference = one - other
    return difference.to(torch.promote_types(difference.dtype, torch.float32)).square().flatten(1).sum(1)


def generated(learner: Learner, rows: Rows) -> Tensor:
    """All 77 states, SOS first, generated freely, (B, 77, D), with a gradient."""
    model = learner.model
    made = learner.predict(rows.embedding, rows.states[:, 1:])
    return torch.cat([model.sos.to(made).expand(len(made), 1, -1), made], 1)


def in_parts(rows: Rows, size: int) -> list[Rows]:
    """Rows in parts of a size."""
    parts = zip(rows.embedding.split(size), rows.states.split(size), rows.length.split(size), strict=True)
    return [Rows(*part) for part in parts]
