"""The text encoder: texts to states, embedding and length; the projection and its inverse.

States are a layer's hidden states after the final layer norm, with no attention mask, as Stable Diffusion 1.x takes them:
the last layer's, or with clip skip n those of the n-th layer from the end, as A1111 and ComfyUI count (diffusers counts one
less). The embedding is the last layer's state at the first EOS.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from deproj.clip.check import SMALL_FILES, check_finite, check_folder, check_tokenizer, variant
from deproj.clip.identity import hash_encoder, text_weights
from deproj.clip.inversions import add_inversion
from deproj.clip.single_file import SingleFile, is_file
from deproj.pixel import local
from deproj.process.errors import UserError
from deproj.process.files import refuse_pointer
from deproj.process.hub import download, reach
from deproj.process.letters import check_encodable
from deproj.process.quiet import quiet_loading
from deproj.selection import PLACES
from deproj.texts.benchmark import parts_of

#: What transformers and diffusers raise for a folder that is missing, incomplete or damaged.
LOAD_ERRORS = (OSError, ValueError, RuntimeError, SafetensorError, pickle.UnpicklingError)

__all__ = ["LOAD_ERRORS", "Encoded", "TextEncoder", "locate"]


def locate(pipeline: str | Path) -> str:
    """A pipeline's local folder, single file or hub id; the name ``pixel`` is the world that ships with the package.

    A single file is looked at where it is read (`SingleFile`).

    Raises:
        UserError: for a local folder that is no diffusers pipeline, a shipped world that is damaged, a hub id that is
            neither on the Hub nor downloaded, and for a pipeline that is no Stable Diffusion 1.x (`deproj.clip.check`).
    """
    pipeline = local(pipeline)
    if is_file(pipeline):
        return pipeline
    folder = Path(pipeline)
    if folder.is_dir() and not (folder / "model_index.json").is_file():
        raise UserError(f"{folder} is no diffusers pipeline: it has no model_index.json.")
    if not folder.exists() and (folder.is_absolute() or len(folder.parts) != 2):
        raise UserError(
            f"no pipeline at {str(pipeline)!r}: give 'pixel', a local folder or file, or a hub id such as owner/name."
        )
    check_folder(folder if folder.is_dir() else download(pipeline, SMALL_FILES))
    return pipeline


@dataclass(frozen=True)
class Encoded:
    """B encoded texts.

    Attributes:
        states: (B, 77, D).
        embedding: the last layer's state at the first EOS, (B, D).
        length: tokens, SOS and EOS counted, (B,) int64, 2 to 77.
        truncated: whether a text was longer and has been cut to 77 tokens, (B,) bool.
    """

    states: Tensor
    embedding: Tensor
    length: Tensor
    truncated: Tensor


class TextEncoder:
    """A pipeline's tokenizer and text encoder, and CLIP's text projection where one is known.

    Attributes:
        width: D.
        final_norm: the encoder's final layer norm.
        sos: the state at SOS, (D,): the same for every text, since the encoder is causal.
        empty: the encoded empty prompt (B = 1).
        projection: W, (D, D), or None; `deprojection` is its inverse.
        clip_skip: from which layer the states are, counted from the end: 1 for the last.
        hash: of all that the tokenizer does, of the text weights in float16, so that copies of one
            encoder saved in either precision have the same, and of a clip skip above 1. A model is trained for it.
        inversions: hashes of textual inversions by their words.
        vectors: token ids of a textual inversion's vectors by its own.
    """

    def __init__(self, tokenizer: Any, model: Any, projection: Tensor | None = None, clip_skip: int = 1) -> None:
        layers = int(model.config.num_hidden_layers)
        if not 1 <= clip_skip <= layers:
            raise UserError(f"clip skip is 1 (the last layer, none skipped) to {layers}, the layers there are; got {clip_skip}.")
        self.tokenizer, self.clip_skip = tokenizer, clip_skip
        self.model: Any = model
        self.model.eval().requires_grad_(False)
        self.width = int(self.model.config.hidden_size)
        self.final_norm: nn.LayerNorm = find_final_norm(self.model)
        self.projection = projection
        self.deprojection = None if projection is None else invert(projection)
        self.hash = hash_encoder(tokenizer, model, clip_skip)
        self.inversions: dict[str, str] = {}
        self.vectors: dict[int, list[int]] = {}
        self.empty = self([""])
        self.sos = self.empty.states[0, 0].clone()

    def __repr__(self) -> str:
        clip = "with" if self.projection is not None else "without"
        words = f", {len(self.inversions)} textual inversions" if self.inversions else ""
        return (
            f"TextEncoder(width {self.width}, clip skip {self.clip_skip}, {clip} CLIP's projection{words}, hash {self.hash[:12]})"
        )

    @classmethod
    def from_pretrained(
        cls,
        pipeline: str | Path,
        clip: str | Path | None = None,
        device: str | torch.device = "cpu",
        config: str | Path | None = None,
        tokenizer: str | Path | None = None,
        clip_skip: int = 1,
    ) -> TextEncoder:
        """Loads the text encoder of a pipeline, in float32.

        Args:
            pipeline: local folder, single file or hub id of any Stable Diffusion 1.x, or ``pixel``.
            clip: folder or hub id of the CLIP it comes from, for its text projection. Its text
                weights must be the pipeline's own, to float16 precision.
            config, tokenizer: of a single file, the folders of its configuration and of its vocabulary, where these aren't
                found by themselves (`SingleFile`).
            clip_skip: from which layer the states are, counted from the end: 1 for the last.

        Raises:
            UserError: for a folder that is no pipeline, a CLIP without a text projection, or one
                whose text weights are not the pipeline's.
        """
        where = locate(pipeline)
        words, model = load_text(where, config, tokenizer)
        check_finite(model.state_dict(), f"the text encoder of {where!r}")
        check_tokenizer(words, model, where)
        projection = None if clip is None else load_projection(clip, model)
        return cls(words, model.to(device), None if projection is None else projection.to(device), clip_skip)

    def to(self, device: str | torch.device) -> Self:
        """Moves it to a device."""
        self.model.to(device)
        self.projection = None if self.projection is None else self.projection.to(device)
        self.deprojection = None if self.deprojection is None else self.deprojection.to(device)
        self.empty = self([""])
        self.sos = self.empty.states[0, 0].clone()
        return self

    @property
    def texts_hash(self) -> str:
        """Of all that the states of a text depend on: `hash`, and the textual inversions."""
        return "-".join([self.hash, *(self.inversions[word] for word in sorted(self.inversions))])

    def load_textual_inversion(self, source: str | Path, token: str | None = None) -> str:
        """Adds a word to what prompts and captions can say, and returns it.

        Args:
            source: local file (.safetensors, .pt, .bin) or hub id of a textual inversion for this text encoder.
            token: the word; by default the file's own, or its name.

        Raises:
            UserError: for what is no textual inversion of this width, and for a word that is taken or is none.
        """
        word, ids, digest = add_inversion(source, token, self.tokenizer, self.model)
        self.inversions[word] = digest
        self.vectors[ids[0]] = ids
        return word

    def tokenize(self, texts: Sequence[str]) -> tuple[list[list[int]], Tensor]:
        """Token ids of each text, SOS and EOS included, cut to 77, and which were cut, (B,) bool."""
        ids = self.token_ids(texts)
        cut = torch.tensor([len(row) > PLACES for row in ids], dtype=torch.bool)
        return [row if len(row) <= PLACES else [*row[: PLACES - 1], self.tokenizer.eos_token_id] for row in ids], cut

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, SOS and EOS included, however many; no text has another SOS or EOS within it."""
        if isinstance(texts, str):
            raise UserError("texts are a list of strings; got one string.")
        for text in texts:
            if not text.isascii():
                check_encodable(text, f"the text {text[:60]!a}")
        ids = self.tokenizer(list(texts), verbose=False, return_attention_mask=False).input_ids if texts else []
        ends = {self.tokenizer.bos_token_id, self.tokenizer.eos_token_id}
        rows = [
            row if ends.isdisjoint(inner := row[1:-1]) else [row[0], *(one for one in inner if one not in ends), row[-1]]
            for row in ids
        ]
        if not self.vectors:
            return rows
        return [[vector for one in row for vector in self.vectors.get(one, [one])] for row in rows]

    def run(self, ids: list[list[int]], places: int) -> tuple[Tensor, Tensor, Tensor]:
        """States (B, places, D), embeddings (B, D) and lengths (B,) of token ids, padded to `places`."""
        device = self.model.device
        padded = torch.full((len(ids), places), self.tokenizer.pad_token_id, dtype=torch.long)
        for row, tokens in zip(padded, ids, strict=True):
            row[: len(tokens)] = torch.tensor(tokens)
        out = self.model(input_ids=padded.to(device), output_hidden_states=self.clip_skip > 1)
        last, length = out.last_hidden_state, torch.tensor([len(tokens) for tokens in ids], device=device)
        states = last if self.clip_skip == 1 else self.final_norm(out.hidden_states[-self.clip_skip])
        return states, last[torch.arange(len(ids), device=device), length - 1], length

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Encoded:
        """Encodes texts; those over 77 tokens are truncated as CLIP does, keeping EOS last."""
        ids, cut = self.tokenize(texts)
        return Encoded(*self.run(ids, PLACES), cut)

    @torch.no_grad()
    def embed(self, texts: Sequence[str]) -> Tensor:
        """Embeddings alone, (B, D): the encoder is causal, so nothing after the longest text's EOS is computed."""
        ids, _ = self.tokenize(texts)
        return self.run(ids, max(map(len, ids)))[1]

    def compose(self, prompts: Sequence[str], mean: bool = False) -> Tensor:
        """Embeddings of composed prompts, (B, D): each chunk between commas embedded by itself, the
        differences to the empty prompt added, sum(e_i - e0) + e0. Without a comma: the prompt's own.

        Args:
            mean: take the mean of the chunks' embeddings instead.
        """
        empty = self.empty.embedding[0]
        composed = []
        for prompt in prompts:
            chunks = parts_of(prompt)
            if not chunks:
                composed.append(empty)
                continue
            each = self.embed(chunks)
            composed.append(each.mean(0) if mean else (each - empty).sum(0) + empty)
        return torch.stack(composed)

    def project(self, embedding: Tensor) -> Tensor:
        """Embeddings (B, D) into the space shared with images: e Wᵀ."""
        if self.projection is None:
            raise UserError("no CLIP projection is known: load the encoder with clip set.")
        return embedding @ self.projection.T


def load_text(where: str, config: str | Path | None, tokenizer: str | Path | None) -> tuple[Any, Any]:
    """The tokenizer and the text encoder of a folder, a single file or a hub id; the model whole and in float32."""
    from transformers import CLIPTextModel, CLIPTokenizer  # a second or two, for whoever loads one

    try:
        if is_file(where):
            single = SingleFile.of(where, config)
            # the vocabulary stands alone: where its texts are cut is the encoder's affair (ComfyUI's says 8,192)
            words = CLIPTokenizer.from_pretrained(str(single.vocabulary(tokenizer)), model_max_length=PLACES)
            return words, single.text_encoder()
        words = CLIPTokenizer.from_pretrained(where, subfolder="tokenizer")
        with quiet_loading():
            model, info = CLIPTextModel.from_pretrained(
                where, subfolder="text_encoder", dtype=torch.float32, output_loading_info=True,
                variant=variant(where, ["text_encoder"]),
            )  # fmt: skip
    except LOAD_ERRORS as error:
        raise UserError(f"no CLIP text encoder at {where!r}: {first_line(error)}") from None
    if info["missing_keys"]:
        raise UserError(f"the text encoder of {where!r} is incomplete: {sorted(info['missing_keys'])[0]} is missing.")
    return words, model


def find_final_norm(model: Any) -> nn.LayerNorm:
    # transformers flattened CLIPTextModel in 5.6; before that the norm sat in .text_model
    inner = getattr(model, "text_model", model)
    norm: nn.LayerNorm = inner.final_layer_norm
    return norm


def invert(projection: Tensor) -> Tensor:
    """W⁻¹, computed in float64."""
    rows, columns = projection.shape
    if rows != columns:
        raise UserError(f"CLIP's text projection is {rows} x {columns}; only a square one has an inverse.")
    inverse, failed = torch.linalg.inv_ex(projection.double())
    if failed:
        raise UserError("CLIP's text projection has no inverse (it is singular).")
    return inverse.to(projection)


def load_projection(clip: str | Path, text_encoder: Any) -> Tensor:
    """W of a CLIP folder or hub id, after checking that its text weights are the encoder's."""
    from transformers import CLIPTextModelWithProjection  # see `from_pretrained`

    clip = local(clip, "clip")
    reach(clip, "config.json", "CLIP")
    refuse_pointer(Path(clip) / "model.safetensors")
    try:
        with quiet_loading():
            model, info = CLIPTextModelWithProjection.from_pretrained(
                str(clip), dtype=torch.float32, output_loading_info=True, variant=variant(str(clip), [""])
            )
    except LOAD_ERRORS as error:
        raise UserError(f"no CLIP at {str(clip)!r}: {first_line(error)}") from None
    if any("text_projection" in key for key in info["missing_keys"]):
        raise UserError(
            f"{str(clip)!r} has no text projection (a plain text encoder?); give a whole CLIP model, or sd.clip=null."
        )
    check_finite(model.state_dict(), f"the CLIP {str(clip)!r}")
    theirs, ours = text_weights(model), text_weights(text_encoder)
    layers, made = (int(m.config.num_hidden_layers) for m in (model, text_encoder))
    if layers != made:  # as of Stable Diffusion 2.x, whose text encoder lacks the last one
        raise UserError(
            f"the CLIP {str(clip)!r} has {layers} text layers, the pipeline's text encoder {made}, so that its embeddings are "
            "not CLIP's; set sd.clip=null (pictures can't be embedded then)."
        )
    for name, value in ours.items():
        other = theirs.get(name)
        if other is None or other.shape != value.shape or not torch.allclose(other, value, rtol=2e-3, atol=1e-6):
            raise UserError(
                f"the text weights of {str(clip)!r} are not the pipeline's ({name} differs); "
                "give the CLIP that the pipeline was made with, or sd.clip=null."
            )
    projection: Tensor = model.text_projection.weight.detach()
    return projection


def first_line(error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError):  # torch's advice would be to load it all the same
        return "its weights are a pickle that holds more than weights, which is not opened; take a safetensors copy."
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
