"""Samples kept on disk.

A cache is a folder of flat arrays and `header.json`: what it was made from (hashes of encoder, prompts, settings) and
the shapes. It is written beside its place and renamed when it is whole. Every row carries a checksum that is verified
whenever the row is read. It depends on neither selection nor feed, so all settings share it.

It keeps the states themselves or, where these would fill a disk, the token ids that they are encoded from anew for every
batch. Either way rows are read from the files when they are needed, so that memory doesn't grow with their number.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import shutil
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from deproj.clip.encoder import TextEncoder
from deproj.data.mix import Sample
from deproj.data.pictures import Latents
from deproj.process.errors import UserError
from deproj.process.files import alone
from deproj.process.progress import SILENT, Phase, Progress
from deproj.process.system import replace
from deproj.selection import PLACES

__all__ = ["KEEPS", "CachedSamples", "Keep", "Planned", "Rows", "build_cache", "encode", "plan_cache", "tokens_of"]

#: Raised whenever samples are drawn, mixed or stored in another way, so that older caches are not taken for ours.
VERSION = 1
#: Texts that are encoded at once. More don't fit a CPU's caches (100 take 1.4 times as long), and leave holes in the memory in
#: which later ones, of other lengths, find no room.
AT_ONCE = 50


class Rows(NamedTuple):
    """A batch of samples, or one process's part of it.

    Attributes:
        embedding: (B, D) float32.
        states: by position, (B, 77, D) float32.
        length: (B,) int64.
        share: of the whole batch's rows: 1 where one process has them all, 0 for a row that doesn't count.
        whole: rows of the whole batch.
        others: the embeddings of the other variants, (B, variants - 1, D) float32, or None where there is one variant.
        latents: of the captions' pictures, (B, channels, h, w) float32, or None where there are no pictures.
    """

    embedding: Tensor
    states: Tensor
    length: Tensor
    share: float = 1.0
    whole: int | None = None
    others: Tensor | None = None
    latents: Tensor | None = None

    @property
    def variants(self) -> Tensor:
        """The embeddings of all variants, (B, variants, D)."""
        own = self.embedding[:, None]
        return own if self.others is None else torch.cat([own, self.others], 1)

    def in_epoch(self, epoch: int) -> Rows:
        """With the variant whose turn it is in an epoch as the embedding, and all others behind it."""
        if self.others is None:
            return self
        variants = self.variants
        turned = variants.roll(-(epoch % variants.shape[1]), 1)
        return self._replace(embedding=turned[:, 0], others=turned[:, 1:])


class Tokens(NamedTuple):
    """Token ids of B samples: of each one's whole, and of the parts of a mixed one (else none), for each of its variants."""

    wholes: list[list[int]]
    parts: list[list[list[list[int]]]]


def tokens_of(samples: Sequence[Sample], encoder: TextEncoder) -> tuple[Tokens, int]:
    """The token ids of samples, and how many wholes were cut."""
    wholes, cut = encoder.tokenize([sample.whole for sample in samples])
    ways = [[parts if len(parts) > 1 else () for parts in (sample.parts, *sample.others)] for sample in samples]
    ids = iter(encoder.tokenize([part for variants in ways for parts in variants for part in parts])[0])
    return Tokens(wholes, [[[next(ids) for _ in parts] for parts in variants] for variants in ways]), int(cut.sum())


@torch.no_grad()
def encode(tokens: Tokens, encoder: TextEncoder) -> Rows:
    """The states of the wholes, and the embeddings."""
    parts = []
    for start in range(0, len(tokens.wholes), AT_ONCE):
        some = Tokens(tokens.wholes[start : start + AT_ONCE], tokens.parts[start : start + AT_ONCE])
        states, embedding, length = encoder.run(some.wholes, PLACES)
        parts.append((variants_of(embedding.float(), some.parts, encoder), states.float(), length))
    variants, all_states, lengths = map(torch.cat, zip(*parts, strict=True))
    return Rows(variants[:, 0], all_states, lengths, others=variants[:, 1:] if variants.shape[1] > 1 else None)


@torch.no_grad()
def encode_embeddings(tokens: Tokens, encoder: TextEncoder) -> Tensor:
    """The embeddings alone, (B, D), for far less work: the encoder is causal, so nothing behind the longest EOS is computed."""
    embedding = torch.empty(len(tokens.wholes), encoder.width, device=encoder.model.device)
    first = [variants[:1] for variants in tokens.parts]
    if whole := [k for k, variants in enumerate(first) if not variants[0]]:
        ids = [tokens.wholes[k] for k in whole]
        embedding[whole] = encoder.run(ids, max(map(len, ids)))[1].float()
    return variants_of(embedding, first, encoder)[:, 0]


def variants_of(own: Tensor, parts: list[list[list[list[int]]]], encoder: TextEncoder) -> Tensor:
    """The embeddings of all variants of B samples, (B, variants, D): the wholes' own (B, D), or those of the parts, added up."""
    embeddings = own[:, None].repeat(1, len(parts[0]), 1)
    if mixed := [(k, v) for k, variants in enumerate(parts) for v, some in enumerate(variants) if some]:
        rows, places = map(list, zip(*mixed, strict=True))
        embeddings[rows, places] = sums([parts[k][v] for k, v in mixed], encoder)
    return embeddings


def sums(parts: list[list[list[int]]], encoder: TextEncoder) -> Tensor:
    """The embeddings of samples' parts, added as differences to the empty prompt's, (B, D)."""
    flat, empty = [part for some in parts for part in some], encoder.empty.embedding[0].float()
    each = torch.cat([encoder.run(some, max(map(len, some)))[1].float() for some in batched(flat, 4 * AT_ONCE)])
    return torch.stack([some.sum(0) for some in (each - empty).split([len(some) for some in parts])]) + empty


def batched(texts: list[list[int]], size: int) -> list[list[list[int]]]:
    """Texts in parts of a size."""
    return [texts[start : start + size] for start in range(0, len(texts), size)]


class Keep(ABC):
    """What a cache keeps of its samples, and how a batch is made of that.

    Attributes:
        dtypes: of the arrays, by name; ``length`` is among them.
    """

    dtypes: ClassVar[dict[str, str]]

    @abstractmethod
    def shapes(self, width: int, parts: int, variants: int) -> dict[str, tuple[int, ...]]:
        """Of one row of each array; width is D, parts the most that a variant of a sample has."""

    @abstractmethod
    def arrays(self, tokens: Tokens, encoder: TextEncoder, parts: int) -> dict[str, np.ndarray]:
        """What is kept of B samples."""

    @abstractmethod
    def rows(self, arrays: dict[str, np.ndarray], encoder: TextEncoder, parts: int) -> Rows:
        """A batch of what was kept."""

    @abstractmethod
    def embeddings(self, arrays: dict[str, np.ndarray], encoder: TextEncoder, parts: int) -> Tensor:
        """The embeddings of that batch alone, (B, D) float32."""


class KeepStates(Keep):
    """States in float16, as Stable Diffusion's weights are; the embeddings of all variants in float32, one after the other."""

    dtypes = {"states": "<f2", "embedding": "<f4", "length": "<i2"}

    def shapes(self, width: int, parts: int, variants: int) -> dict[str, tuple[int, ...]]:
        return {"states": (PLACES, width), "embedding": (variants * width,), "length": ()}

    def arrays(self, tokens: Tokens, encoder: TextEncoder, parts: int) -> dict[str, np.ndarray]:
        rows = encode(tokens, encoder)
        made = {"states": rows.states, "embedding": rows.variants.flatten(1), "length": rows.length}
        return {name: made[name].cpu().numpy().astype(dtype) for name, dtype in self.dtypes.items()}

    def rows(self, arrays: dict[str, np.ndarray], encoder: TextEncoder, parts: int) -> Rows:
        states = torch.from_numpy(arrays["states"].astype(np.float32))
        length = torch.from_numpy(arrays["length"].astype(np.int64))
        variants = torch.from_numpy(arrays["embedding"].astype(np.float32)).unflatten(1, (-1, states.shape[2]))
        return Rows(variants[:, 0], states, length, others=variants[:, 1:] if variants.shape[1] > 1 else None)

    def embeddings(self, arrays: dict[str, np.ndarray], encoder: TextEncoder, parts: int) -> Tensor:
        return self.rows(arrays, encoder, parts).embedding


class KeepTokens(Keep):
    """Token ids of a sample's whole and of its parts, half a kilobyte where there are two of one variant; every batch is encoded
    anew."""

    dtypes = {"ids": "<u2", "counts": "<i2", "length": "<i2"}

    def shapes(self, width: int, parts: int, variants: int) -> dict[str, tuple[int, ...]]:
        return {"ids": (1 + variants * parts, PLACES), "counts": (1 + variants * parts,), "length": ()}

    def arrays(self, tokens: Tokens, encoder: TextEncoder, parts: int) -> dict[str, np.ndarray]:
        shapes = self.shapes(encoder.width, parts, len(tokens.parts[0]))
        arrays = {name: np.zeros((len(tokens.wholes), *shape), self.dtypes[name]) for name, shape in shapes.items()}
        for k, (whole, variants) in enumerate(zip(*tokens, strict=True)):
            placed = {0: whole} | {1 + v * parts + p: ids for v, some in enumerate(variants) for p, ids in enumerate(some)}
            for place, ids in placed.items():
                arrays["ids"][k, place, : len(ids)] = ids
                arrays["counts"][k, place] = len(ids)
        arrays["length"][:] = arrays["counts"][:, 0]
        return arrays

    def rows(self, arrays: dict[str, np.ndarray], encoder: TextEncoder, parts: int) -> Rows:
        return encode(self.tokens(arrays, parts), encoder)

    def embeddings(self, arrays: dict[str, np.ndarray], encoder: TextEncoder, parts: int) -> Tensor:
        return encode_embeddings(self.tokens(arrays, parts), encoder)

    def tokens(self, arrays: dict[str, np.ndarray], parts: int) -> Tokens:
        wholes, variants = [], []
        for row in zip(arrays["ids"], arrays["counts"], strict=True):
            texts = [ids[:count].tolist() for ids, count in zip(*row, strict=True)]
            wholes.append(texts[0])
            variants.append([list(filter(None, some)) for some in batched(texts[1:], parts)])
        return Tokens(wholes, variants)


#: By their names in ``data.keep``.
KEEPS: dict[str, Keep] = {"states": KeepStates(), "tokens": KeepTokens()}
CHECKSUM = {"checksum": "<u4"}


class CachedSamples(Dataset[Rows]):
    """Samples of a cache folder; indexed with a list of rows it returns a `Rows`.

    Attributes:
        length: of all samples, (rows,).

    Raises:
        UserError: for a folder that is no cache, or one that is damaged.
    """

    def __init__(self, folder: Path, encoder: TextEncoder, keep: str = "states") -> None:
        self.folder, self.encoder, self.keep = folder, encoder, KEEPS[keep]
        try:
            self.header: dict[str, Any] = json.loads((folder / "header.json").read_text(encoding="utf-8"))
            self.rows, self.width = int(self.header["rows"]), int(self.header["width"])
            self.parts = mix_of(self.header)[0]
            self.shapes, self.dtypes = arrays_of(self.header, keep)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._damaged(f"its header cannot be read ({type(error).__name__})") from None
        for name, shape in self.shapes.items():
            path = folder / f"{name}.bin"
            expected = self.rows * math.prod(shape) * np.dtype(self.dtypes[name]).itemsize
            if not path.is_file() or path.stat().st_size != expected:
                raise self._damaged(f"{path.name} is not the {expected} bytes it should be")
        self.length = np.fromfile(folder / "length.bin", self.dtypes["length"])

    def _damaged(self, why: str) -> UserError:
        return UserError(f"the cache {self.folder} is damaged: {why}. Delete the folder; it will be made again.")

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, rows: Sequence[int]) -> Rows:
        arrays = self._kept(rows)
        latents = torch.from_numpy(arrays["latents"].astype(np.float32)) if "latents" in arrays else None
        return self.keep.rows(arrays, self.encoder, self.parts)._replace(latents=latents)

    def embeddings(self, most: int) -> Tensor:
        """Embeddings of the first samples, `most` or as many as there are, (N, D) float32 on the CPU."""
        batches = torch.arange(min(most, self.rows)).split(AT_ONCE)
        kept = (self._kept(rows.tolist()) for rows in batches)
        return torch.cat([self.keep.embeddings(arrays, self.encoder, self.parts).cpu() for arrays in kept])

    def _kept(self, rows: Sequence[int]) -> dict[str, np.ndarray]:
        """What is kept of rows, by name, when their checksums have been verified."""
        arrays = {name: self._read(name, rows) for name in self.shapes}
        checksum = arrays.pop("checksum")
        for k, row in enumerate(rows):
            if row_checksum(array[k] for array in arrays.values()) != checksum[k]:
                raise self._damaged(f"row {row} does not match its checksum")
        return arrays

    def _read(self, name: str, rows: Sequence[int]) -> np.ndarray:
        """Rows of an array. Not through a memory map: its pages would count as this process's memory, and Windows would
        not let the file be replaced. For the same reason no file stays open."""
        array = np.empty((len(rows), *self.shapes[name]), self.dtypes[name])
        content = array.reshape(len(rows), -1).view(np.uint8)
        with (self.folder / f"{name}.bin").open("rb", buffering=0) as file:
            for k, row in enumerate(rows):
                file.seek(row * content.shape[1])
                if file.readinto(content[k]) != content.shape[1]:
                    raise self._damaged(f"{name}.bin ends before row {row}")
        return array


def mix_of(key: dict[str, Any]) -> tuple[int, int]:
    """The most parts that a variant of a cache's samples has, and how many variants, by the mix in its key."""
    mix = key.get("mix", {})
    return int(mix.get("parts", 2)), int(mix.get("variants", 1))


def arrays_of(key: dict[str, Any], keep: str) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Shapes of a row, and dtypes, of the arrays of a cache by their names."""
    shapes, dtypes = KEEPS[keep].shapes(int(key["width"]), *mix_of(key)), KEEPS[keep].dtypes
    if "latents" in key:
        shapes, dtypes = shapes | {"latents": tuple(key["latents"]["shape"])}, dtypes | {"latents": "<f2"}
    return shapes | {"checksum": ()}, dtypes | CHECKSUM


def row_checksum(arrays: Iterable[np.ndarray]) -> int:
    """CRC32 of a sample's part of each array, one after the other."""
    value = 0
    for array in arrays:
        value = zlib.crc32(array.tobytes(), value)
    return value


class Planned(NamedTuple):
    """A cache: its folder, the bytes of its arrays, and whether it is there."""

    folder: Path
    bytes: int
    there: bool


def named(key: dict[str, Any], count: int, encoder: TextEncoder, keep: str) -> tuple[dict[str, Any], str]:
    """The whole key of a cache, and the name that its hash gives the folder."""
    key = {"version": VERSION, "encoder": encoder.texts_hash, "rows": count, "width": encoder.width, **key}
    if keep != "states":
        key["keep"] = keep
    return key, hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:20]


def plan_cache(root: Path, key: dict[str, Any], count: int, encoder: TextEncoder, keep: str = "states") -> Planned:
    """What `build_cache` would open or make."""
    key, name = named(key, count, encoder, keep)
    shapes, dtypes = arrays_of(key, keep)
    each = sum(math.prod(shape) * np.dtype(dtypes[array]).itemsize for array, shape in shapes.items())
    return Planned(root / name, count * each, (root / name / "header.json").is_file())


def build_cache(
    root: Path,
    key: dict[str, Any],
    samples: Iterator[Sample],
    count: int,
    encoder: TextEncoder,
    title: str,
    keep: str = "states",
    progress: Progress = SILENT,
    latents: Latents | None = None,
) -> CachedSamples:
    """Opens the cache of a key, encoding the samples first where there is none.

    Args:
        root: folder of all caches.
        key: what the samples depend on; its hash names the folder.
        samples: `count` samples, drawn from only where they must be encoded.
        title: what the samples are called.
        keep: what is kept of each sample, a name of `KEEPS`.
        progress: is told how many are encoded.
        latents: of the samples' pictures, which are kept beside the rest.

    Raises:
        UserError: where the cache is damaged, or cannot be written.
    """
    key, name = named(key, count, encoder, keep)
    folder, part = root / name, root / f"{name}.part"

    def found() -> CachedSamples | None:
        cached = CachedSamples(folder, encoder, keep) if folder.exists() else None
        return cached if cached is not None and all(cached.header.get(k) == v for k, v in key.items()) else None

    if (cached := found()) is not None:  # without the lock, since a shared cache may be read-only
        return cached
    try:
        with alone(root / f"{name}.lock", waiting=f"Another process encodes the same {title}; waiting for it."):
            if (cached := found()) is not None:
                return cached
            for old in (folder, part):  # made from something else under this name; of a process that was killed
                shutil.rmtree(old, ignore_errors=True)
            try:
                part.mkdir(parents=True)
                with progress.phase(f"encoding {count:,} {title}", count) as phase:
                    truncated = write_arrays(part, samples, key, encoder, keep, phase, latents)
                (part / "header.json").write_text(json.dumps(key | {"truncated": truncated}, indent=2) + "\n", encoding="utf-8")
                replace(part, folder)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        if isinstance(error.filename, str) and not Path(error.filename).is_relative_to(root):
            raise  # of the prompts' file
        raise UserError(
            f"the cache cannot be written to {root}: {error.strerror}. Set data.cache= to a folder with room."
        ) from None
    return CachedSamples(folder, encoder, keep)


def write_arrays(
    part: Path,
    samples: Iterator[Sample],
    key: dict[str, Any],
    encoder: TextEncoder,
    keep: str,
    phase: Phase,
    latents: Latents | None = None,
) -> int:
    """Writes what is kept of samples to the arrays of a folder; returns how many wholes were cut."""
    truncated, number = 0, 0
    dtypes = arrays_of(key, keep)[1]
    files = {name: (part / f"{name}.bin").open("wb") for name in dtypes}
    try:
        while chunk := list(itertools.islice(samples, AT_ONCE)):
            tokens, cut = tokens_of(chunk, encoder)
            truncated += cut
            arrays = KEEPS[keep].arrays(tokens, encoder, mix_of(key)[0])
            if latents is not None:
                arrays["latents"] = latents.of([sample.whole for sample in chunk], number)
            kept = [arrays[name] for name in dtypes if name != "checksum"]
            arrays["checksum"] = np.array([row_checksum(row) for row in zip(*kept, strict=True)], dtypes["checksum"])
            for name, array in arrays.items():
                files[name].write(array.tobytes())
            number += len(chunk)
            phase.advance(len(chunk))
    finally:
        for file in files.values():
            file.close()
    return truncated
