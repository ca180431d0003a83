"""Samples, their cache on disk, and the data module.

A cache is a folder of flat arrays read through memory maps, and `header.json`: what it was made
from (hashes of encoder, prompts, settings) and the shapes. It is written beside its place and renamed
when it is whole. Every row carries a checksum that is verified whenever the row is read. It depends
on neither selection nor feed, so all settings share it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm import tqdm

from deproj.encoder import TextEncoder
from deproj.errors import UserError
from deproj.prompts import Mix, PromptSource, Sample
from deproj.selection import PLACES, TokenSelection

__all__ = ["CachedSamples", "Rows", "SamplesModule", "build_cache"]

#: Raised whenever samples are drawn, mixed or stored in another way, so that older caches are not taken for ours.
VERSION = 1


class Rows(NamedTuple):
    """A batch of samples: embedding (B, D), states by position (B, 77, D), both float32, length (B,) int64."""

    embedding: Tensor
    states: Tensor
    length: Tensor


class CachedSamples(Dataset[Rows]):
    """Samples of a cache folder; indexed with a list of rows it gives a `Rows`.

    Raises:
        UserError: for a folder that is no cache, or one that is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.header: dict[str, Any] = json.loads((folder / "header.json").read_text())
            n, width = int(self.header["rows"]), int(self.header["width"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._damaged(f"its header cannot be read ({type(error).__name__})") from None
        self.rows, self.width = n, width
        shapes = {"states": (n, PLACES, width), "embedding": (n, width), "length": (n,), "checksum": (n,)}
        self.arrays: dict[str, np.ndarray] = {}
        for name, shape in shapes.items():
            path, dtype = folder / f"{name}.bin", np.dtype(DTYPES[name])
            expected = int(np.prod(shape)) * dtype.itemsize
            if not path.is_file() or path.stat().st_size != expected:
                raise self._damaged(f"{path.name} is not the {expected} bytes it should be")
            # as a plain array: indexing one row of a memmap costs 70 µs
            self.arrays[name] = np.asarray(np.memmap(path, dtype, "r", shape=shape))

    def _damaged(self, why: str) -> UserError:
        return UserError(f"the cache {self.folder} is damaged: {why}. Delete the folder; it will be made again.")

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, rows: Sequence[int]) -> Rows:
        index = np.asarray(rows)
        states, embedding = self.arrays["states"][index], self.arrays["embedding"][index]
        length = self.arrays["length"][index]
        for k, row in enumerate(rows):
            if row_checksum(states[k], embedding[k], length[k]) != self.arrays["checksum"][row]:
                raise self._damaged(f"row {row} does not match its checksum")
        return Rows(
            torch.from_numpy(embedding.astype(np.float32)),
            torch.from_numpy(states.astype(np.float32)),
            torch.from_numpy(length.astype(np.int64)),
        )


#: States are kept in float16, as Stable Diffusion's weights are; sums of embeddings in float32.
DTYPES = {"states": "<f2", "embedding": "<f4", "length": "<i2", "checksum": "<u4"}


def row_checksum(states: np.ndarray, embedding: np.ndarray, length: np.ndarray) -> int:
    return zlib.crc32(length.tobytes(), zlib.crc32(embedding.tobytes(), zlib.crc32(states.tobytes())))


def build_cache(
    root: Path, key: dict[str, Any], samples: Iterator[Sample], count: int, encoder: TextEncoder, title: str
) -> CachedSamples:
    """Opens the cache of a key, encoding the samples first where there is none.

    Args:
        root: folder of all caches.
        key: what the samples depend on; its hash names the folder.
        samples: `count` samples, drawn from only where they must be encoded.
        title: of the progress bar.

    Raises:
        UserError: where the cache is damaged, or cannot be written.
    """
    key = {"version": VERSION, "encoder": encoder.hash, "rows": count, "width": encoder.width, **key}
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:20]
    folder = root / name
    if folder.exists():
        cached = CachedSamples(folder)
        if all(cached.header.get(k) == v for k, v in key.items()):
            return cached
        shutil.rmtree(folder)  # made from something else under this name: made again
    part = root / f"{name}.part{os.getpid()}"
    try:
        part.mkdir(parents=True, exist_ok=True)
        truncated = write_arrays(part, samples, count, encoder, title)
        (part / "header.json").write_text(json.dumps(key | {"truncated": truncated}, indent=2) + "\n")
        try:
            os.rename(part, folder)
        except OSError:
            if not folder.exists():  # else another process was faster with the same samples
                raise
    except OSError as error:
        raise UserError(
            f"the cache cannot be written to {root}: {error.strerror}. Set data.cache= to a folder with room."
        ) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return CachedSamples(folder)


def write_arrays(part: Path, samples: Iterator[Sample], count: int, encoder: TextEncoder, title: str) -> int:
    """Encodes samples into the arrays of a folder; returns how many wholes were truncated."""
    truncated, step = 0, 50  # larger chunks of states don't fit a CPU's caches
    empty = encoder.empty.embedding[0].float()
    files = {name: (part / f"{name}.bin").open("wb") for name in DTYPES}
    try:
        bar = tqdm(total=count, desc=title, unit="sample", disable=not sys.stderr.isatty() and count < 1000, mininterval=1)
        while chunk := list(itertools.islice(samples, step)):
            encoded = encoder([sample.whole for sample in chunk])
            truncated += int(encoded.truncated.sum())
            embedding = encoded.embedding.float()
            mixed = [k for k, sample in enumerate(chunk) if len(sample.parts) > 1]
            if mixed:
                parts = [part for k in mixed for part in chunk[k].parts]
                added = (encoder.embed(parts).float() - empty).reshape(len(mixed), 2, -1).sum(1) + empty
                embedding[mixed] = added
            arrays = {
                "states": encoded.states.float().cpu().numpy().astype(DTYPES["states"]),
                "embedding": embedding.cpu().numpy().astype(DTYPES["embedding"]),
                "length": encoded.length.cpu().numpy().astype(DTYPES["length"]),
            }
            sums = [row_checksum(*row) for row in zip(arrays["states"], arrays["embedding"], arrays["length"], strict=True)]
            arrays["checksum"] = np.array(sums, DTYPES["checksum"])
            for name, array in arrays.items():
                files[name].write(array.tobytes())
            bar.update(len(chunk))
        bar.close()
    finally:
        for file in files.values():
            file.close()
    return truncated


class EpochOrder(Sampler[list[int]]):
    """Batches of row numbers in an order that is a function of (seed, epoch) alone.

    Checkpoints hold no state of random generators, so this is what makes a resumed run go on with
    the batches that the undisturbed run would have seen.

    With lengths, batches are of like lengths: each window of `WINDOW` batches of the epoch's permutation is sorted by
    length and cut into batches, and the batches are shuffled. A row stands in every batch of the epoch with the same
    probability, since neither the permutation nor the last shuffle looks at lengths, and the loss is divided by the
    same number whatever the lengths: so the expected gradient of a step is that of uniform sampling. Its variance is
    another. The odd last batch is left out of the sorting, so that it is a random one too.

    Args:
        seed: None for the rows as they stand.
        lengths: (rows,), or None for batches regardless of length.
    """

    WINDOW = 20

    def __init__(self, rows: int, batch_size: int, seed: int | None, lengths: np.ndarray | None = None) -> None:
        self.rows, self.batch_size, self.seed, self.lengths, self.epoch = rows, batch_size, seed, lengths, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.rows // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        size, order = self.batch_size, np.arange(self.rows)
        batches = list(range(len(self)))
        if self.seed is not None:
            random = np.random.default_rng([self.seed, self.epoch])
            order = random.permutation(self.rows)
            if self.lengths is not None:
                whole = self.rows // size * size
                for start in range(0, whole, self.WINDOW * size):
                    window = order[start : min(start + self.WINDOW * size, whole)]
                    window[:] = window[np.argsort(self.lengths[window], kind="stable")]
                batches[: whole // size] = random.permutation(whole // size).tolist()
        for batch in batches:
            yield order[batch * size : (batch + 1) * size].tolist()


def sorting_pays(selection: TokenSelection, lengths: np.ndarray, batch_size: int) -> bool:
    """Whether batches of like lengths save at least a quarter of the places that a selection computes."""

    def places(sorted_by: np.ndarray | None) -> int:
        order = EpochOrder(len(lengths), batch_size, 0, sorted_by)
        return sum(selection(torch.from_numpy(lengths[batch].astype(np.int64))).places - 1 for batch in order)

    return places(lengths) < 0.75 * places(None)


@dataclass(frozen=True)
class DataSettings:
    """The settings under ``data``.

    Attributes:
        prompts: ``grammar``, a file's path, or ``hub:owner/name``; None where the world has none of its own.
        column: of the texts, where a file has columns.
        size: training samples.
        split, combine: shares of samples that are split and combined.
        held_out: held-out samples.
        batch_size: of training.
        like_lengths: whether batches are of like lengths: True, False, or "auto" for where it saves much.
        cache: folder of all caches.
        seed: of the samples, apart from the run's own, so that runs of several seeds share a cache.
    """

    prompts: str | None
    column: str | None
    size: int
    split: float
    combine: float
    held_out: int
    batch_size: int
    like_lengths: bool | str
    cache: str
    seed: int

    def __post_init__(self) -> None:
        for name in ("size", "held_out", "batch_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise UserError(f"data.{name} is a whole number of at least 1; got {value!r}.")
        if self.like_lengths not in (True, False, "auto"):
            raise UserError(f"data.like_lengths is true, false or auto; got {self.like_lengths!r}.")


class SamplesModule(pl.LightningDataModule):
    """Training and held-out samples of a source, encoded once and kept in the cache."""

    def __init__(
        self, settings: DataSettings, source: PromptSource, encoder: TextEncoder, selection: TokenSelection, seed: int
    ) -> None:
        super().__init__()
        self.settings, self.source, self.encoder, self.selection, self.seed = settings, source, encoder, selection, seed
        self.train: CachedSamples | None = None
        self.held_out: CachedSamples | None = None

    def setup(self, stage: str = "fit") -> None:
        if self.train is not None:
            return
        s = self.settings
        mix = Mix(s.split, s.combine)
        key = {"source": self.source.fingerprint, "mix": asdict(mix)}

        def fits(text: str) -> bool:
            return not bool(self.encoder.tokenize([text])[1][0])

        samples = mix.samples(self.source, s.size, s.seed, fits)
        held_out = mix.testing(self.source, s.held_out, fits)
        root = Path(s.cache)
        self.held_out = build_cache(root, key | {"part": "held-out"}, held_out, s.held_out, self.encoder, "held-out samples")
        self.train = build_cache(root, key | {"part": "train", "seed": s.seed}, samples, s.size, self.encoder, "samples")
        if cut := self.train.header["truncated"]:
            print(f"{cut} of {s.size} training texts were longer than {PLACES} tokens and were truncated.")

    def train_dataloader(self) -> DataLoader[Rows]:
        assert self.train is not None
        batch_size, lengths = self.settings.batch_size, self.train.arrays["length"]
        sort = self.settings.like_lengths
        if sort == "auto":
            sort = sorting_pays(self.selection, lengths, batch_size)
        order = EpochOrder(len(self.train), batch_size, self.seed, lengths if sort else None)
        return DataLoader(self.train, sampler=order, batch_size=None)

    def val_dataloader(self) -> DataLoader[Rows]:
        assert self.held_out is not None
        return DataLoader(self.held_out, sampler=EpochOrder(len(self.held_out), 200, None), batch_size=None)
