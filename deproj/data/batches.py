"""Batches of samples: their order, each process's part of them, and the data module."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from deproj.clip.encoder import TextEncoder
from deproj.data.cache import CachedSamples, Planned, Rows, build_cache, plan_cache
from deproj.data.mix import Mix
from deproj.data.pictures import Latents
from deproj.data.seen import TokensSeen
from deproj.data.settings import DataSettings
from deproj.data.sources import PromptSource
from deproj.process.progress import SILENT, Progress
from deproj.selection import PLACES, TokenSelection

__all__ = ["EpochOrder", "SamplesModule", "Shard", "sorting_pays"]


class Shard(Dataset[Rows]):
    """A process's part of every batch: indexed with the rows of a whole batch, it reads every n-th of them.

    Together the processes see the batch that one process would see.

    Args:
        rank, world: the number of this process, and how many there are.
    """

    def __init__(self, samples: CachedSamples, rank: int, world: int) -> None:
        self.samples, self.rank, self.world = samples, rank, world

    def __getitem__(self, rows: Sequence[int]) -> Rows:
        mine = rows[self.rank :: self.world]
        # where there are fewer rows than processes, one computes a row that doesn't count
        return self.samples[mine or rows[:1]]._replace(share=len(mine) / len(rows), whole=len(rows))


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
        done: batches of all epochs that a run which goes on has seen: the epoch in which it stopped begins after them.
    """

    WINDOW = 20

    def __init__(self, rows: int, batch_size: int, seed: int | None, lengths: np.ndarray | None = None, done: int = 0) -> None:
        self.rows, self.batch_size, self.seed, self.lengths, self.epoch = rows, batch_size, seed, lengths, 0
        self.stopped_in, self.seen = divmod(done, len(self))

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.rows // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        size = self.batch_size
        batches = list(range(len(self)))
        if self.seed is None:
            order = np.arange(self.rows)
        else:
            random = np.random.default_rng([self.seed, self.epoch])
            order = random.permutation(self.rows)
            if self.lengths is not None:
                whole = self.rows // size * size
                for start in range(0, whole, self.WINDOW * size):
                    window = order[start : min(start + self.WINDOW * size, whole)]
                    window[:] = window[np.argsort(self.lengths[window], kind="stable")]
                batches[: whole // size] = random.permutation(whole // size).tolist()
        for batch in batches[self.seen if self.epoch == self.stopped_in else 0 :]:
            yield order[batch * size : (batch + 1) * size].tolist()


def sorting_pays(selection: TokenSelection, lengths: np.ndarray, batch_size: int) -> bool:
    """Whether batches of like lengths save at least a quarter of the places that a selection computes."""
    lengths = lengths[: 10 * EpochOrder.WINDOW * batch_size]  # enough to tell

    def places(sorted_by: np.ndarray | None) -> int:
        order = EpochOrder(len(lengths), batch_size, 0, sorted_by)
        return sum(selection(torch.from_numpy(lengths[batch].astype(np.int64))).places - 1 for batch in order)

    return places(lengths) < 0.75 * places(None)


class SamplesModule(pl.LightningDataModule):
    """Training and held-out samples of a source, kept in the cache.

    Args:
        seed: of the order of the batches.
        steps_done: by the run that goes on.
        rank, world: the number of this process, and how many there are; each gets its part of every batch.
        latents: of the training samples' pictures, where an objective takes them.
    """

    def __init__(
        self,
        settings: DataSettings,
        source: PromptSource,
        encoder: TextEncoder,
        selection: TokenSelection,
        seed: int,
        steps_done: int = 0,
        rank: int = 0,
        world: int = 1,
        latents: Latents | None = None,
    ) -> None:
        super().__init__()
        self.latents = latents
        self.settings, self.encoder, self.selection, self.seed = settings, encoder, selection, seed
        self.source = source.seen_by(TokensSeen(encoder))
        self.steps_done, self.rank, self.world = steps_done, rank, world
        self.train: CachedSamples | None = None
        self.held_out: CachedSamples | None = None

    @property
    def mix(self) -> Mix:
        s = self.settings
        return Mix(s.split, s.combine, parts=s.parts, variants=s.variants)

    def keys(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the training samples and the held-out ones depend on, besides the encoder and their number."""
        mix, source = self.mix, {"source": self.source.fingerprint}
        drawn: dict[str, Any] = source | {"mix": mix.key, "part": "train", "seed": self.settings.seed}
        if self.latents is not None:
            drawn["latents"] = self.latents.key
        return drawn, source | {"mix": mix.of_one_variant.key, "part": "held-out"}

    def planned(self) -> dict[str, Planned]:
        """The caches that `setup` would open or make, by what they hold."""
        s, (drawn, apart) = self.settings, self.keys()
        return {
            "samples": plan_cache(s.caches, drawn, s.size, self.encoder, s.keep),
            "held-out samples": plan_cache(s.caches, apart, s.held_out, self.encoder),
        }

    def setup(self, stage: str = "fit", progress: Progress = SILENT) -> None:
        """Opens the caches, where there are none after encoding the samples."""
        if self.train is not None:
            return
        s, mix = self.settings, self.mix
        drawn, apart = self.keys()

        def fits(text: str) -> bool:
            return not bool(self.encoder.tokenize([text])[1][0])

        samples = mix.samples(self.source, s.size, s.seed, fits)
        held_out = mix.testing(self.source, s.held_out, fits)
        root = s.caches
        self.held_out = build_cache(root, apart, held_out, s.held_out, self.encoder, "held-out samples", progress=progress)
        self.train = build_cache(root, drawn, samples, s.size, self.encoder, "samples", s.keep, progress, self.latents)
        if cut := self.train.header["truncated"]:
            print(f"{cut} of {s.size} samples are longer than {PLACES} tokens and were cut.")

    def train_dataloader(self) -> DataLoader[Rows]:
        assert self.train is not None
        batch_size, lengths = self.settings.batch_size, self.train.length
        sort = self.settings.like_lengths
        if sort == "auto":
            sort = sorting_pays(self.selection, lengths, batch_size)
        order = EpochOrder(len(self.train), batch_size, self.seed, lengths if sort else None, self.steps_done)
        return self.loader(self.train, order)

    def val_dataloader(self) -> DataLoader[Rows]:
        assert self.held_out is not None
        return self.loader(self.held_out, EpochOrder(len(self.held_out), 200, None))

    def loader(self, samples: CachedSamples, order: EpochOrder) -> DataLoader[Rows]:
        return DataLoader(Shard(samples, self.rank, self.world), sampler=order, batch_size=None)
