"""Pictures of captions, of which an objective through the U-Net can take its noised latents."""

from __future__ import annotations

import hashlib
import os.path
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from deproj.clip.pictures import open_picture
from deproj.data.captions.folders import files_in, is_beside_picture, pictures_in
from deproj.data.captions.reading import Reading
from deproj.data.captions.text_files import whole_record
from deproj.process.errors import UserError

__all__ = ["CaptionPictures", "FolderPictures", "Latents", "ScenePictures", "open_caption_pictures"]


class CaptionPictures(ABC):
    """A picture for each caption."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Names all that the pictures depend on."""

    @abstractmethod
    def of(self, texts: Sequence[str], seed: int) -> list[Image.Image]:
        """Pictures of captions, each RGB.

        Raises:
            UserError: for a caption without one.
        """


class ScenePictures(CaptionPictures):
    """The pixel world's drawings of what captions ask for; all else in them is drawn at random."""

    @property
    def fingerprint(self) -> str:
        from deproj.pixel.scenes import fingerprint  # as below

        return f"scenes-{fingerprint()}"

    def of(self, texts: Sequence[str], seed: int) -> list[Image.Image]:
        from deproj.pixel.scenes import draw  # of no use to those who have pictures of their own
        from deproj.pixel.shown import scenes_of

        return [Image.fromarray(picture) for picture in draw(scenes_of(texts, np.random.default_rng(seed)))]


class FolderPictures(CaptionPictures):
    """Pictures of a folder and below it, each beside a text file of the same name, its caption."""

    def __init__(self, folder: Path, marks: str = "keep") -> None:
        self.folder, self.marks = folder, marks

    @cached_property
    def paths(self) -> dict[str, Path]:
        """The picture of each caption; of captions that are the same, the first one's."""
        if not self.folder.is_dir():
            raise UserError(f"data.pictures is scenes or a folder; there is no folder {self.folder}.")
        reading, found, pictures = Reading(str(self.folder)), dict[str, Path](), cache(pictures_in)
        for path in files_in(self.folder):
            there = pictures(path.parent)
            picture = there.get(path.stem.casefold())
            if picture is None or not is_beside_picture(path, there):
                continue
            for record in whole_record(path):
                text = reading.clean(record, "line", str(path), self.marks == "strip")
                if text is not None:
                    found.setdefault(text, picture)
        return found

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for text, path in sorted(self.paths.items()):
            about = path.stat()
            digest.update(f"{text}\0{path.name}\0{about.st_size}\0{about.st_mtime_ns}\0".encode())
        return digest.hexdigest()

    def of(self, texts: Sequence[str], seed: int) -> list[Image.Image]:
        for text in texts:
            if text not in self.paths:
                raise UserError(f"no picture in {self.folder} has the caption {text[:60]!r}; data.prompts names the same folder.")
        return [open_picture(self.paths[text]) for text in texts]


class Latents(Protocol):
    """Captions' pictures as a VAE's latents.

    Attributes:
        shape: of one, (channels, h, w).
        key: names all that they depend on.
    """

    shape: tuple[int, int, int]

    @property
    def key(self) -> dict[str, Any]: ...

    def of(self, texts: Sequence[str], seed: int) -> np.ndarray:
        """(B, channels, h, w) float16."""
        ...


def open_caption_pictures(pictures: str, marks: str, combine: float, miniature: bool) -> CaptionPictures:
    """The pictures that ``data.pictures`` names.

    Args:
        combine: share of samples that are joined of two texts, of which no folder has a picture.
        miniature: whether it is the pixel world's Stable Diffusion that is trained for.

    Raises:
        UserError: for scenes of another Stable Diffusion, a folder without pictures, and joined texts.
    """
    if pictures == "scenes":
        if not miniature:
            raise UserError("data.pictures=scenes are the pixel world's; name a folder of pictures with captions beside them.")
        return ScenePictures()
    if combine:
        raise UserError(f"two joined captions have no picture in {pictures}: set data.combine=0.")
    found = FolderPictures(Path(os.path.expanduser(pictures)), marks)
    if not found.paths:
        raise UserError(f"{pictures} holds no picture with a caption beside it, as cat.png with cat.txt.")
    return found
