"""The settings of a run that concern its data, checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deproj.process.errors import UserError
from deproj.process.system import user_cache
from deproj.settings.nodes import settings

if TYPE_CHECKING:
    from deproj.data.sources import PromptSource

__all__ = ["KEPT", "DataSettings"]

#: What a cache may keep of a sample (`deproj.data.cache.KEEPS`).
KEPT = ("states", "tokens")
#: What may become of the web's marks (`deproj.texts.marks`).
KEEP_OR_STRIP = ("keep", "strip")


@dataclass(frozen=True)
class DataSettings:
    """The settings under ``data``.

    Attributes:
        prompts: ``grammar``, the path of a file or folder, a pattern of shards, or ``hub:owner/name``; None where the world has
            none of its own.
        column: of the captions, where there are columns; None finds it.
        size: training samples.
        split, combine: shares of samples that are split and combined.
        parts: most parts that a sample's embedding is added up from, 2 or more.
        pictures: of the captions, of which an objective through the U-Net takes its noised latents: ``scenes``, which the pixel
            world draws, or a folder; None for captions alone.
        variants: ways in which the embedding of each sample is added up.
        held_out: held-out samples.
        batch_size: of training.
        like_lengths: whether batches are of like lengths: True, False, or "auto" for where it saves much.
        keep: what the cache keeps of a sample: its states, or its tokens, from which the states are encoded for every batch.
        cache: folder of all caches of samples; None for the user's cache folder.
        seed: of the samples, apart from the run's own, so that runs of several seeds share a cache.
        marks: whether the web's marks in captions, as in ``(cat:1.2)``, are kept or stripped.
    """

    prompts: str | None
    column: str | None
    size: int
    split: float
    combine: float
    parts: int
    held_out: int
    batch_size: int
    like_lengths: bool | str
    cache: str | None
    seed: int
    keep: str = "states"
    marks: str = "keep"
    variants: int = 1
    pictures: str | None = None

    def __post_init__(self) -> None:
        for name in ("size", "held_out", "batch_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise UserError(f"data.{name} is a whole number of at least 1; got {value!r}.")
        if self.like_lengths not in (True, False, "auto"):
            raise UserError(f"data.like_lengths is true, false or auto; got {self.like_lengths!r}.")
        if self.keep not in KEPT:
            raise UserError(f"data.keep is {' or '.join(KEPT)}; got {self.keep!r}.")
        if self.marks not in KEEP_OR_STRIP:
            raise UserError(f"data.marks is {' or '.join(KEEP_OR_STRIP)}; got {self.marks!r}.")

    @property
    def caches(self) -> Path:
        """Folder of all caches of samples."""
        return Path(self.cache) if self.cache else user_cache() / "samples"

    @property
    def references(self) -> Path:
        """Folder of the pictures of true states, which all runs share."""
        return self.caches.parent / "worlds"

    @classmethod
    def of(cls, config: dict[str, Any]) -> DataSettings:
        """The settings of a run's config.

        Raises:
            UserError: for values that are not allowed, and where no texts are named.
        """
        chosen = settings(cls, config["data"], "data")
        if not chosen.prompts:
            raise UserError(
                f"sd={config['sd']['name']} has no prompts of its own; name yours: data.prompts=captions.txt (or grammar)."
            )
        return chosen

    def source(self) -> PromptSource:
        """The texts that are named, opened."""
        from deproj.data.sources import open_prompts  # reads files, and imports what that takes

        assert self.prompts is not None
        return open_prompts(self.prompts, self.column, self.marks, self.caches)
