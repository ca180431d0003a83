"""Several deprojectors as one: ensembles, whose outputs are averaged, and splices, words from one and the rest from another.

**Ensemble.** K members that learnt one order of places. At every place p member k is fed x_k and puts out y_k; the ensemble's
output is the mean ȳ of the y_k. What is fed next is a mix of a member's own output and the mean, with f = `fuse`:

    x_k = (1 - f) y_k + f ȳ

f = 0: the mean of independent runs; f = 1: all members go on from the same states.

**Splice.** Two models, `first` and `rest`, whose orders may differ. The states of both are put back to positions, as if the
prompt had n words; positions 1 to n are those of `first`, the positions from n + 1 on, EOS and padding, those of `rest`. So a
words_eos and an eos_onward model make a whole sequence, in the order of `all`. n is fixed, or predicted for each prompt by a
`LengthHead` from its embedding.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deproj.model.base import Deprojector
from deproj.process.errors import UserError
from deproj.selection import PLACES, SELECTIONS, TokenSelection

__all__ = ["Ensemble", "EnsembleConfig", "LengthHead", "Splice", "SpliceConfig"]

#: Most words of a prompt: all places but SOS and EOS.
WORDS = PLACES - 2
#: By the names that a model's provenance stores.
ORDERS = {f"deproj.selection.{type(selection).__name__}": selection for selection in SELECTIONS.values()}


class Combined(Deprojector):
    """A model of other models, with the SOS state, projection and distance of the first, saved whole as one folder."""

    def __init__(self, config: Any, projected: bool = True, provenance: dict[str, Any] | None = None) -> None:
        super().__init__(config, projected, provenance)
        self.members = nn.ModuleList(Deprojector.of_config(member) for member in config.members)

    def fill(self, members: Sequence[Deprojector]) -> None:
        """Takes over the members' weights, and from the first what is not learnt."""
        self.to(members[0].sos)
        for ours, theirs in zip(self.members, members, strict=True):
            ours.load_state_dict(theirs.state_dict())
        self.sos.copy_(members[0].sos)
        self.final_norm.load_state_dict(members[0].final_norm.state_dict())
        self.distance = copy.deepcopy(members[0].distance)
        if self.deprojection is not None and members[0].deprojection is not None:
            self.deprojection.copy_(members[0].deprojection)
        self.eval()


def check_together(members: Sequence[Deprojector]) -> None:
    """Refuses models of different text encoders."""
    first = members[0]
    for other in members[1:]:
        hashes = [model.provenance.get("encoder") for model in (first, other)]
        if other.sos.shape != first.sos.shape:
            raise UserError(f"models of one width go together; got {len(first.sos)} and {len(other.sos)}.")
        if (None not in hashes and hashes[0] != hashes[1]) or not torch.allclose(first.sos.cpu(), other.sos.cpu(), atol=1e-2):
            raise UserError("models of one text encoder go together; these were trained on different ones.")


def learnt(model: Deprojector) -> dict[str, Any]:
    """The selection that a model was trained on, as its provenance names it; empty where it names none."""
    return dict(model.provenance.get("selection") or {})


def provenance_of(members: Sequence[Deprojector], selection: dict[str, Any]) -> dict[str, Any]:
    """The provenance of a combination; its members keep theirs."""
    return {"encoder": members[0].provenance.get("encoder"), "selection": selection}


@dataclass(frozen=True)
class EnsembleConfig:
    """An ensemble's members, as `Deprojector.stored` returns them.

    Attributes:
        width: D, of a state.
        fuse: share of the mean in what a member is fed, 0 to 1.
    """

    width: int
    members: list[dict[str, Any]]
    fuse: float
    layer_norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        if not self.members:
            raise UserError("an ensemble has one member at least.")
        if not 0 <= self.fuse <= 1:
            raise UserError(f"fuse is 0 (each member on its own) to 1 (all fed the mean); got {self.fuse}.")


class Ensemble(Combined):
    """The mean of its members' outputs at every place (see the module's docstring)."""

    kind = "ensemble"
    config_class = EnsembleConfig

    @classmethod
    def of(cls, members: Sequence[Deprojector], fuse: float = 0.0) -> Ensemble:
        """An ensemble of copies of models.

        Raises:
            UserError: for no models, another `fuse` than 0 to 1, and models of different encoders or orders.
        """
        config = EnsembleConfig(len(members[0].sos) if members else 0, [model.stored() for model in members], fuse)
        check_together(members)
        orders = {learnt(model).get("_target_") for model in members}
        if len(orders) > 1:
            names = sorted(str(learnt(model).get("name")) for model in members)
            raise UserError(f"the mean of states is of models that learnt one order; got selections {', '.join(names)}.")
        projected = all(model.deprojection is not None for model in members)
        made = cls(config, projected, provenance_of(members, learnt(members[0])))
        made.fill(members)
        return made

    def unroll(self, embedding: Tensor, places: int, fed: Tensor | None = None) -> Tensor:
        models: list[Any] = list(self.members)
        if fed is not None or self.config.fuse == 0:  # no member hears of another
            return torch.stack([model.unroll(embedding, places, fed) for model in models]).mean(0)
        states = [model.start(embedding) for model in models]
        inputs = [torch.zeros_like(embedding)] * len(models)
        out = []
        for _ in range(places):
            stepped = [model.step(state, x) for model, state, x in zip(models, states, inputs, strict=True)]
            mean = torch.stack([y for y, _ in stepped]).mean(0)
            inputs = [torch.lerp(y, mean, self.config.fuse) for y, _ in stepped]
            states = [state for _, state in stepped]
            out.append(mean)
        return torch.stack(out, 1)


class LengthHead(nn.Module):
    """How many words a prompt has, from its embedding: a layer norm and an MLP to a logit for each number, 0 to 75."""

    def __init__(self, width: int, hidden: int = 256) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, WORDS + 1))

    def forward(self, embedding: Tensor) -> Tensor:
        """Logits (B, 76) of embeddings (B, D)."""
        logits: Tensor = self.body(embedding)
        return logits

    @torch.no_grad()
    def words(self, embedding: Tensor) -> Tensor:
        """The likeliest number of words, (B,) int64, 0 to 75."""
        return self(embedding).argmax(1)

    @classmethod
    def fit(cls, embedding: Tensor, length: Tensor, epochs: int = 20, seed: int = 0) -> LengthHead:
        """Trains a head by Adam on the cross-entropy, in batches of 100.

        Args:
            embedding: (N, D), mixed ones too where sums are to be told.
            length: (N,) tokens of each prompt, SOS and EOS counted.
        """
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            head, words = cls(embedding.shape[1]).to(embedding.device), length.to(embedding.device).long() - 2
            steps = epochs * -(-len(words) // 100)
            optimizer = torch.optim.Adam(head.parameters(), 1e-3)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
            for _ in range(epochs):
                for rows in torch.randperm(len(words)).split(100):
                    optimizer.zero_grad()
                    F.cross_entropy(head(embedding[rows]), words[rows]).backward()
                    optimizer.step()
                    schedule.step()
        return head.eval().requires_grad_(False)


@dataclass(frozen=True)
class SpliceConfig:
    """A splice's two models, as `Deprojector.stored` returns them.

    Attributes:
        width: D, of a state.
        words: n, 0 to 75, or None where a head predicts it.
    """

    width: int
    members: list[dict[str, Any]]
    words: int | None
    layer_norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        if len(self.members) != 2:
            raise UserError(f"a splice has two models; got {len(self.members)}.")
        if self.words is not None and not 0 <= self.words <= WORDS:
            raise UserError(f"a splice takes 0 to {WORDS} words from its first model; got {self.words}.")


class Splice(Combined):
    """Words from one model, EOS and padding from another, in the order of `all` (see the module's docstring)."""

    kind = "splice"
    config_class = SpliceConfig

    def __init__(self, config: SpliceConfig, projected: bool = True, provenance: dict[str, Any] | None = None) -> None:
        super().__init__(config, projected, provenance)
        self.head = LengthHead(config.width) if config.words is None else None
        self.orders = [order_of(model) for model in self.members]

    @classmethod
    def of(cls, first: Deprojector, rest: Deprojector, words: int | LengthHead) -> Splice:
        """A splice of copies of two models.

        Args:
            first: the model of the words: it learnt all, words_eos or words_eos_reversed.
            rest: the model of EOS and padding: it learnt all or eos_onward.
            words: how many states are the first model's, or the head that predicts it for each prompt.

        Raises:
            UserError: for models of different encoders, or that didn't learn what is taken from them.
        """
        fixed = None if isinstance(words, LengthHead) else words
        config = SpliceConfig(len(first.sos), [first.stored(), rest.stored()], fixed)
        check_together([first, rest])
        for model, region, what in ((first, slice(1, 5), "words"), (rest, slice(6, PLACES), "padding")):
            plan = order_of(model)(torch.tensor([7]))
            if not plan.restore(plan.weight[:, :, None])[0, region].all():
                raise UserError(f"selection={learnt(model).get('name')} didn't learn {what}, so a splice can't take them.")
        projected = first.deprojection is not None and rest.deprojection is not None
        selection = {"_target_": "deproj.selection.AllTokens", "name": "all"}
        made = cls(config, projected, provenance_of([first, rest], selection))
        made.fill([first, rest])
        if made.head is not None and isinstance(words, LengthHead):
            made.head.load_state_dict(words.state_dict())
        return made

    def words(self, embedding: Tensor) -> Tensor:
        """How many states are the first model's, (B,) int64."""
        if self.head is None:
            return torch.full((len(embedding),), self.config.words, device=embedding.device)
        return self.head.words(embedding)

    def unroll(self, embedding: Tensor, places: int, fed: Tensor | None = None) -> Tensor:
        if fed is not None:
            raise UserError("a splice generates and is not fed; train or fuse its models by themselves.")
        words = self.words(embedding)
        models: list[Any] = list(self.members)
        first, rest = (
            order(words + 2).restore(model.generate(embedding)) for order, model in zip(self.orders, models, strict=True)
        )
        own = torch.arange(PLACES, device=embedding.device) <= words[:, None]
        return torch.where(own[:, :, None], first, rest)[:, 1 : places + 1]


def order_of(model: Any) -> TokenSelection:
    """The selection whose order a model learnt."""
    name = learnt(model).get("_target_")
    if name not in ORDERS:
        raise UserError(f"a splice knows the orders of {', '.join(ORDERS)}; one of its models learnt {name or 'an unknown one'}.")
    return ORDERS[name]
