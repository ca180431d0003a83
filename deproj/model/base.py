"""What every deprojector is: the states before CLIP's embedding, from the embedding."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import torch
from torch import Tensor, nn

from deproj.clip.distance import EmbeddingDistance
from deproj.model import store
from deproj.process.errors import UserError
from deproj.runs.commands import train_again
from deproj.runs.folder import RunFolder
from deproj.runs.records import RunResult
from deproj.selection import PLACES, TokenSelection, stored_selection

if TYPE_CHECKING:
    from deproj.clip.encoder import TextEncoder

__all__ = ["Deprojector", "load"]

T = TypeVar("T")


class Deprojector(nn.Module, ABC):
    """What a model must do to be trained, evaluated and drawn from.

    Attributes:
        kind: names the class in ``config.json``.
        config: sizes and variant, an instance of `config_class`.
        provenance: what it was trained on and how: the encoder's hash, selection, feed, and what came of it. Saved with it.
        sheet: PNG of the benchmark prompts, which its card shows, or None.
        sos: the encoder's state at SOS, (D,), the same for every prompt.
        deprojection: inverse of CLIP's text projection, (D, D), or None where no projection was known.
        final_norm: the encoder's, frozen, which every state has been through.
        distance: of embeddings to those that it was trained on, or None where that was not kept.
    """

    kind: ClassVar[str]
    config_class: ClassVar[type]
    config: Any
    provenance: dict[str, Any]
    sos: Tensor
    deprojection: Tensor | None
    sheet: bytes | None = None
    distance: EmbeddingDistance | None

    def __init__(self, config: Any, projected: bool = True, provenance: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.config = config
        self.provenance = provenance or {}
        self.register_buffer("sos", torch.zeros(config.width))
        self.register_buffer("deprojection", torch.eye(config.width) if projected else None)
        self.final_norm = nn.LayerNorm(config.width, config.layer_norm_eps).requires_grad_(False)
        self.distance = None

    def __repr__(self) -> str:
        learnt = [str(node["name"]) for key in ("selection", "feed") if "name" in (node := self.provenance.get(key) or {})]
        sizes = [f"{k} {v}" for k, v in asdict(self.config).items() if isinstance(v, int) and not isinstance(v, bool)]
        count = sum(parameter.numel() for parameter in self.parameters())
        return f"{type(self).__name__}({', '.join([*learnt, *sizes, f'{count:,} parameters'])})"

    @property
    def selection(self) -> TokenSelection | None:
        """In whose order its states stand: the selection it was trained on, or None where that is none of ours.

        Raises:
            UserError: where it can't be made of what was stored.
        """
        node = self.provenance.get("selection") or {}
        try:
            return stored_selection(node)
        except (AttributeError, TypeError, ValueError) as error:
            raise UserError(f"the selection in this model's config.json can't be made: {error}") from None

    @property
    def weights_hash(self) -> str:
        """Of its weights, ten letters."""
        digest = hashlib.sha256()
        for name, value in sorted(self.state_dict().items()):
            digest.update(name.encode() + value.detach().float().cpu().numpy().tobytes())
        return digest.hexdigest()[:10]

    @property
    def clip_skip(self) -> int:
        """From which of the text encoder's layers its states are, counted from the end: 1 for the last."""
        return int(self.provenance.get("clip_skip", 1))

    @abstractmethod
    def unroll(self, embedding: Tensor, places: int, fed: Tensor | None = None) -> Tensor:
        """Predicts the first `places` states after SOS, (B, places, D).

        Args:
            embedding: (B, D).
            fed: the previous state of every place, (B, places, D); by default the model's own output.
        """

    def start(self, embedding: Tensor) -> Any:
        """What `step` needs before the first place, of embeddings (B, D)."""
        return embedding, []

    def step(self, state: Any, fed: Tensor) -> tuple[Tensor, Any]:
        """One place of `unroll`, for what is fed place by place: here by unrolling anew, to be overridden by what is quicker.

        Args:
            state: of `start` or of the step before.
            fed: previous state of the sequence, (B, D), zeros at the start.

        Returns:
            The prediction, (B, D), and the state for the next step.
        """
        embedding, before = state
        before = [*before, fed]
        return self.unroll(embedding, len(before), torch.stack(before, 1))[:, -1], (embedding, before)

    @torch.no_grad()
    def generate(self, embedding: Tensor, from_projected: bool = False, places: int = PLACES) -> Tensor:
        """Gives the states back, free-running, SOS first.

        Args:
            embedding: (B, D); with `from_projected` in the space shared with images.
            places: how many states, SOS counted, 1 to 77.

        Returns:
            States in the order in which the model learned them, (B, places, D).

        Raises:
            UserError: for another width, for numbers that are not finite, and for a projected
                embedding where the model was trained without a projection.
        """
        width = len(self.sos)
        if embedding.ndim != 2 or embedding.shape[1] != width:
            raise UserError(f"an embedding is (B, {width}) for this model; got {tuple(embedding.shape)}.")
        if not torch.isfinite(embedding).all():
            raise UserError("the embedding holds NaN or infinity; every number must be finite.")
        if not 1 <= places <= PLACES:
            raise UserError(f"places is 1 to {PLACES}; got {places}.")
        embedding = embedding.to(self.sos)
        if from_projected:
            if self.deprojection is None:
                raise UserError(
                    "this model was trained without CLIP's text projection, so it cannot take projected embeddings; "
                    "train it with sd.clip set."
                )
            embedding = embedding @ self.deprojection.T
        sos = self.sos.expand(len(embedding), 1, width)
        if places == 1:
            return sos.clone()
        return torch.cat([sos, self.unroll(embedding, places - 1)], dim=1)

    def take_over(self, encoder: TextEncoder) -> None:
        """Copies from an encoder what is not learnt: final norm, SOS state and projection; remembers its hash."""
        self.final_norm.load_state_dict(encoder.final_norm.state_dict())
        self.sos.copy_(encoder.sos)
        if encoder.deprojection is not None and self.deprojection is not None:
            self.deprojection.copy_(encoder.deprojection)
        self.provenance["encoder"] = encoder.hash
        if encoder.clip_skip > 1:
            self.provenance["clip_skip"] = encoder.clip_skip

    def describe(self, run: RunFolder, result: RunResult) -> None:
        """Notes what its card reports of its run: losses, numbers, the command, and the sheet of benchmark prompts."""
        told: dict[str, Any] = {"command": train_again(run.read_config())}
        told |= {"val_loss": result.val_loss, "epochs": result.epochs}
        if run.evaluation().is_file():
            told["evaluation"] = run.read_evaluation().summarized()
        self.provenance["results"] = told
        if run.best_sheet.is_file():
            self.sheet = run.best_sheet.read_bytes()

    def stored(self) -> dict[str, Any]:
        """What ``config.json`` holds: kind, sizes, variant and provenance."""
        config = {"model_type": self.kind, **asdict(self.config), "projected": self.deprojection is not None}
        return config | {"provenance": self.provenance}

    @classmethod
    def of_config(cls, stored: dict[str, Any]) -> Self:
        """An untrained model from what ``config.json`` holds.

        Raises:
            UserError: for a kind that this class doesn't load.
            KeyError, TypeError: for what is no such content.
        """
        wanted = kinds(cls)
        if stored["model_type"] not in wanted:
            raise UserError(f"holds a model of type {stored['model_type']!r}; this class loads: {', '.join(wanted)}.")
        made = wanted[stored["model_type"]]
        sizes = {field.name: stored[field.name] for field in fields(made.config_class)}
        return made(made.config_class(**sizes), bool(stored["projected"]), dict(stored["provenance"]))

    def save_pretrained(self, folder: str | Path, repo_id: str | None = None, *, half: bool = False) -> None:
        """Writes ``config.json``, ``model.safetensors`` and a model card, ``README.md``, each whole or not at all.

        Args:
            repo_id: hub id that the card names the model by; by default the folder's name.
            half: stores what is learnt in float16, in half the space; by default all is float32.
        """
        store.save(self, Path(folder), repo_id, half)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "Upload deprojector",
        commit_description: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        revision: str | None = None,
        create_pr: bool = False,
    ) -> str:
        """Uploads what `save_pretrained` writes to the Hub, as transformers' models do.

        Args:
            repo_id: ``owner/name``, or ``name`` for one's own; made where there is none.
            private: whether a new repository is private; by default as the owner has set.
            token: by default that of ``hf auth login`` or ``HF_TOKEN``.

        Returns:
            The address of the commit, or of the pull request.

        Raises:
            UserError: where the Hub refuses or can't be reached.
        """
        options = {"commit_description": commit_description, "revision": revision, "create_pr": create_pr}
        return store.push(self, repo_id, commit_message, private, token, **options)

    @classmethod
    def from_pretrained(cls, source: str | Path, encoder: TextEncoder | None = None, *, revision: str | None = None) -> Self:
        """Loads what `save_pretrained` wrote, without Lightning or Hydra; on `Deprojector` itself, any kind.

        Args:
            source: the folder, a run's folder, the short name of a shipped model, or a hub id.
            encoder: the encoder it will be used with; one that it was not trained on is refused.
            revision: branch, tag or commit on the Hub.

        Raises:
            UserError: for a folder that holds no deprojector, one that is damaged, or another encoder's.
        """
        folder = store.locate_model(source, revision)
        model = store.load(cls, folder)
        if encoder is not None:
            model.check_encoder(encoder, folder)
        return model.eval()

    def check_encoder(self, encoder: TextEncoder, source: str | Path = "this model") -> None:
        """Refuses an encoder that the model was not trained on, by its hash and not only by its width.

        A model taken over from the reference has no hash; its SOS state is held against the
        encoder's instead.
        """
        if self.config.width != encoder.width:
            raise UserError(f"{source} has states of width {self.config.width}, the text encoder {encoder.width}.")
        if self.clip_skip != encoder.clip_skip:
            raise UserError(
                f"{source} was trained with clip skip {self.clip_skip}, the pipeline has {encoder.clip_skip}; set it to "
                f"{self.clip_skip}, as sd.clip_skip={self.clip_skip} (1 is none, as A1111 and ComfyUI count)."
            )
        trained_on = self.provenance.get("encoder")
        if trained_on is None:
            if not torch.allclose(self.sos, encoder.sos.to(self.sos), atol=1e-2):
                raise UserError(f"{source} belongs to another text encoder: its state at SOS differs.")
        elif trained_on != encoder.hash:
            raise UserError(
                f"{source} was trained on another text encoder (hash {trained_on[:12]}, this one {encoder.hash[:12]}); "
                "use the pipeline it was trained on."
            )


def load(source: str | Path, encoder: TextEncoder | None = None, *, revision: str | None = None) -> Deprojector:
    """A deprojector of any kind, as `Deprojector.from_pretrained` loads it.

    Args:
        source: a run's folder, an exported model's, a hub id, or the short name of a shipped model, as ``all-batch``.
        encoder: the encoder it will be used with; one that it was not trained on is refused.
        revision: branch, tag or commit on the Hub.
    """
    return Deprojector.from_pretrained(source, encoder, revision=revision)


def kinds(base: type[T]) -> dict[str, type[T]]:
    """The classes in and under one that have a name in ``config.json``."""
    own = {base.kind: base} if "kind" in vars(base) else {}  # type: ignore[attr-defined]
    return own | {name: found for sub in base.__subclasses__() for name, found in kinds(sub).items()}
