"""The deprojector: the states before CLIP's embedding, from the embedding.

With x the previous state of the sequence (zeros at the start), e the embedding,
h0 = W0 e + b0 and c0 = 0:

    h, c = LSTMCell(LN_x(x), (h, c))          # D to H
    c = LN_c(c);  h = LN_h(h) + h0            # both are carried on
    y = LN_final(W_h h + W_x x + W_e e + e)   # every W with a bias

LN_final is CLIP's final layer norm, copied and frozen. SOS is never predicted: a sequence is the
stored SOS state and 76 predictions.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deproj.distance import EmbeddingDistance
from deproj.errors import UserError
from deproj.files import replacing, write_whole
from deproj.hub import locate_model, model_card, upload
from deproj.recurrence import Buffers, Variant, Weights, unroll
from deproj.selection import PLACES

if TYPE_CHECKING:
    from deproj.encoder import TextEncoder

__all__ = ["Deprojector", "LSTMConfig", "LSTMDeprojector", "MLPConfig", "MLPDeprojector"]

T = TypeVar("T")
#: Kinds whose classes stand in `deproj.combine`.
COMBINED = ("ensemble", "splice")
H0_ADDED = ("both", "carried", "put_out", "neither")


class Deprojector(nn.Module):
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
        if stored["model_type"] in COMBINED:
            import deproj.combine  # noqa: F401  (it stands below, and makes its kinds known)
        wanted = kinds(cls)
        if stored["model_type"] not in wanted:
            raise UserError(f"holds a model of type {stored['model_type']!r}; this class loads: {', '.join(wanted)}.")
        made = wanted[stored["model_type"]]
        sizes = {field.name: stored[field.name] for field in fields(made.config_class)}
        return made(made.config_class(**sizes), bool(stored["projected"]), dict(stored["provenance"]))

    def save_pretrained(self, folder: str | Path, repo_id: str | None = None) -> None:
        """Writes ``config.json``, ``model.safetensors`` (float32) and a model card, ``README.md``, each whole or not at all.

        Args:
            repo_id: hub id that the card names the model by; by default the folder's name.
        """
        from safetensors.torch import save_file

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config, state = self.stored(), self.state_dict()
        if self.distance is not None:
            state |= {f"distance.{name}": value for name, value in self.distance.named_buffers()}
        state = {name: value.detach().float().cpu().contiguous() for name, value in state.items()}
        with replacing(folder / "model.safetensors") as weights:
            weights.touch()
            mode = weights.stat().st_mode
            save_file(state, weights)
            weights.chmod(mode)  # safetensors lets nobody else read it
        write_whole(folder / "config.json", json.dumps(config, indent=2) + "\n")
        if self.sheet is not None:
            with replacing(folder / "sheet.png") as picture:
                picture.write_bytes(self.sheet)
        write_whole(folder / "README.md", model_card(config, repo_id or folder.name, self.sheet is not None))

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
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder, repo_id)
            options = {"commit_description": commit_description, "revision": revision, "create_pr": create_pr}
            return upload(Path(folder), repo_id, commit_message, private, token, **options)

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
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        folder = locate_model(source, revision)
        if not (folder / "config.json").is_file() or not (folder / "model.safetensors").is_file():
            raise UserError(f"{folder} is no deprojector: it needs config.json and model.safetensors.")
        try:
            model = cls.of_config(json.loads((folder / "config.json").read_text()))
            state = load_file(folder / "model.safetensors")
            kept = {name.removeprefix("distance."): state.pop(name) for name in list(state) if name.startswith("distance.")}
            model.distance = EmbeddingDistance(**kept) if kept else None
        except UserError as error:
            raise UserError(f"{folder} {error}") from None
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError, SafetensorError) as error:
            raise UserError(f"{folder} is damaged or no deprojector of ours: {type(error).__name__}: {error}.") from None
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            raise UserError(f"{folder}: the weights do not fit config.json: {str(error).splitlines()[-1].strip()}") from None
        if (folder / "sheet.png").is_file():
            model.sheet = (folder / "sheet.png").read_bytes()
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
        trained_on = self.provenance.get("encoder")
        if trained_on is None:
            if not torch.allclose(self.sos, encoder.sos.to(self.sos), atol=1e-2):
                raise UserError(f"{source} belongs to another text encoder: its state at SOS differs.")
        elif trained_on != encoder.hash:
            raise UserError(
                f"{source} was trained on another text encoder (hash {trained_on[:12]}, this one {encoder.hash[:12]}); "
                "use the pipeline it was trained on."
            )


def kinds(base: type[T]) -> dict[str, type[T]]:
    """The classes in and under one that have a name in ``config.json``."""
    own = {base.kind: base} if "kind" in vars(base) else {}  # type: ignore[attr-defined]
    return own | {name: found for sub in base.__subclasses__() for name, found in kinds(sub).items()}


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
        if self.width < 1 or self.hidden < 1:
            raise UserError(f"width and hidden are at least 1; got {self.width} and {self.hidden}.")
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
        model = cls(LSTMConfig(width, hidden or width * 3 // 2, h0_added, eps), encoder.deprojection is not None)
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
        if self.width < 1 or self.hidden < 1:
            raise UserError(f"width and hidden are at least 1; got {self.width} and {self.hidden}.")


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
