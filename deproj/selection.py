"""Token selections: which states a model is trained on, and in which order.

A selection looks at the lengths alone and returns the order (which position of the encoder's output
stands at each place of the sequence) and the weight of each place. Place 0 is always SOS, weight 0.
With L the length (SOS and EOS counted) and T = 77 places:

    all                 as they are                              5 for words and the first EOS, 1 for padding; mean 1
    words_eos           as they are                              1 for words and the first EOS, else 0
    words_eos_reversed  positions L-1 down to 1, then L..76      1 at places 1..L-1, else 0
    eos_onward          positions L-1..76, then the words 1..L-2 1 at places 1..78-L, else 0
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = [
    *("PLACES", "SELECTIONS", "AllTokens", "EosOnward", "Plan", "TokenSelection", "WordsEos", "WordsEosReversed"),
    "stored_selection",
]

PLACES = 77


@dataclass(frozen=True)
class Plan:
    """The order and the weights of the places of B prompts.

    Attributes:
        order: the position at each place, (B, 77) int64, a permutation of 0..76 in every row.
        weight: (B, 77) float32, not negative, 0 at place 0.
    """

    order: Tensor
    weight: Tensor

    @property
    def places(self) -> int:
        """Places up to the last one with a weight, SOS counted: the rest need not be computed."""
        used = (self.weight > 0).any(0).nonzero()
        return int(used.max()) + 1 if len(used) else 1

    def arrange(self, states: Tensor) -> Tensor:
        """States by position (B, 77, D) to states by place."""
        return states.gather(1, self.order[:, :, None].expand_as(states))

    def restore(self, sequence: Tensor) -> Tensor:
        """States by place (B, 77, D) back to states by position: the inverse of `arrange`."""
        index = self.order[:, :, None].expand_as(sequence)
        return torch.empty_like(sequence).scatter_(1, index, sequence)


class TokenSelection(ABC):
    """Lengths to a `Plan`. To add one, subclass it and write `plan`."""

    def __call__(self, lengths: Tensor) -> Plan:
        """Plans the sequences of B prompts.

        Args:
            lengths: tokens of each prompt, SOS and EOS counted, (B,) integers in 2..77.
        """
        if lengths.ndim != 1 or lengths.is_floating_point():
            raise ValueError(f"lengths are a (B,) tensor of integers; got {tuple(lengths.shape)} {lengths.dtype}.")
        if len(lengths) and not (int(lengths.min()) >= 2 and int(lengths.max()) <= PLACES):
            raise ValueError(f"lengths count SOS and EOS, so they are 2 to {PLACES}; got {lengths.tolist()}.")
        place = torch.arange(PLACES, device=lengths.device)
        plan = self.plan(place[None], lengths.long()[:, None])
        return Plan(plan.order.expand(len(lengths), PLACES), plan.weight.float().expand(len(lengths), PLACES))

    @abstractmethod
    def plan(self, place: Tensor, length: Tensor) -> Plan:
        """Order and weight, broadcast from `place` (1, 77) int64 and `length` (B, 1) int64."""


@dataclass(frozen=True)
class AllTokens(TokenSelection):
    """All states, words and the first EOS weighted five times, the mean weight of every sample 1."""

    words: float = 5.0
    padding: float = 1.0

    def __post_init__(self) -> None:
        if min(self.words, self.padding) < 0 or self.words + self.padding <= 0:
            raise ValueError(f"weights are 0 or more, and not both 0; got {self.words} and {self.padding}.")

    def plan(self, place: Tensor, length: Tensor) -> Plan:
        weight = torch.where(place < length, self.words, self.padding) * (place > 0)
        return Plan(place, weight / weight.mean(1, keepdim=True))


@dataclass(frozen=True)
class WordsEos(TokenSelection):
    """Words and the first EOS, in their own order."""

    def plan(self, place: Tensor, length: Tensor) -> Plan:
        return Plan(place, (place > 0) & (place < length))


@dataclass(frozen=True)
class WordsEosReversed(TokenSelection):
    """The first EOS and then the words, the last one first."""

    def plan(self, place: Tensor, length: Tensor) -> Plan:
        inside = (place > 0) & (place < length)
        return Plan(torch.where(inside, length - place, place), inside)


@dataclass(frozen=True)
class EosOnward(TokenSelection):
    """The first EOS and all that comes after it; the words, without weight, at the end."""

    def plan(self, place: Tensor, length: Tensor) -> Plan:
        tail = PLACES - length + 1  # states from the first EOS on
        order = torch.where(place <= tail, place + length - 2, place - tail)
        return Plan(torch.where(place == 0, 0, order), (place > 0) & (place <= tail))


#: Those that ship, by the names of their settings, in the article's order.
SELECTIONS: dict[str, TokenSelection] = {
    "all": AllTokens(),
    "words_eos": WordsEos(),
    "words_eos_reversed": WordsEosReversed(),
    "eos_onward": EosOnward(),
}


def stored_selection(node: Mapping[str, Any]) -> TokenSelection | None:
    """The selection that a model's settings name, if that is one of those that ship.

    Args:
        node: its class as ``_target_``, and what it was made with.

    Raises:
        TypeError, ValueError: for what the class doesn't take.
    """
    classes = {f"{__name__}.{type(selection).__name__}": type(selection) for selection in SELECTIONS.values()}
    made = classes.get(str(node.get("_target_")))
    if made is None:
        return None
    return made(**{key: value for key, value in node.items() if key not in ("_target_", "name")})
