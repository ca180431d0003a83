"""Pictures of any kind as CLIP takes them: upright, RGB, on white where they are transparent."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps

from deproj.process.caution import caution
from deproj.process.errors import UserError

__all__ = ["as_clip_sees", "as_picture", "fingerprint", "open_picture", "open_pictures", "reading", "to_rgb"]

#: A side that CLIP's image processor can read without taking it for the colours: these are up to 4.
LEAST = 8
#: Of a picture that is longer than so many times its width, the middle is what CLIP sees.
LONGEST = 4


def open_picture(path: str | Path) -> Image.Image:
    """Reads a picture of any kind that Pillow knows, as `to_rgb` makes it.

    Raises:
        UserError: for a file that is missing, no picture, damaged, or of more pixels than Pillow takes for safe.
    """
    try:
        with reading(path) as image:
            return to_rgb(image, str(path))
    except FileNotFoundError:
        raise UserError(f"no picture at {path}.") from None


@contextmanager
def reading(path: str | Path) -> Iterator[Image.Image]:
    """A picture as its file holds it.

    Raises:
        FileNotFoundError: for a file that is missing.
        UserError: for one that is no picture, damaged, or of more pixels than Pillow takes for safe.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                image.load()
                yield image
    except (UserError, FileNotFoundError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        most = f"{Image.MAX_IMAGE_PIXELS or 0:,}"
        raise UserError(f"{path} has more than {most} pixels, which may be meant to fill the memory; make it smaller.") from None
    except Exception as error:  # whatever Pillow's readers come upon in a file that is damaged
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} cannot be read as a picture: {said}") from None


def as_picture(given: object, name: str = "an image") -> Image.Image:
    """A picture as it is, or the one that lies at a path.

    Args:
        name: for messages.

    Raises:
        UserError: for what is neither, and for a file that `open_picture` can't read.
    """
    if isinstance(given, Image.Image):
        return given
    if isinstance(given, (str, Path)):
        return open_picture(given)
    raise UserError(f"{name} is a PIL picture or the path of one; got {type(given).__name__}.")


def open_pictures(folder: Path) -> list[Image.Image]:
    """Reads all pictures of a folder.

    Raises:
        UserError: for a folder that can't be read or holds nothing, and for a file that is no picture.
    """
    try:
        paths = sorted(path for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror}.") from None
    if not paths:
        raise UserError(f"{folder} holds no pictures.")
    return [open_picture(path) for path in paths]


def to_rgb(image: Image.Image, name: str = "a picture") -> Image.Image:
    """A picture as RGB, upright as its camera was held, on white where it is transparent; of an animation the present frame.

    Grey values of 16 bits are scaled to 8, those of floats from 0 to 1 too.

    Args:
        name: for messages.

    Raises:
        UserError: for a picture without pixels, and for one whose values have no known scale.
    """
    if not all(image.size):
        raise UserError(f"{name} has no pixels: it is {image.width} x {image.height}.")
    if getattr(image, "n_frames", 1) > 1:
        frame = image.tell() + 1
        caution(f"{name} is an animation; its frame {frame} of {image.n_frames} is taken.")  # type: ignore[attr-defined]
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith(("I", "F")):
        return scaled(upright, name).convert("RGB")
    if upright.mode == "LAB":
        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(upright, *profiles, outputMode="RGB")
        assert converted is not None
        return converted
    if upright.has_transparency_data:
        shown = (upright.convert("LA") if upright.mode == "La" else upright).convert("RGBA")
        white = Image.new("RGBA", shown.size, "white")
        return Image.alpha_composite(white, shown).convert("RGB")
    return upright.convert("RGB")


def scaled(image: Image.Image, name: str) -> Image.Image:
    """A grey picture of 16 or 32 bits, or of floats, in 8 bits.

    Raises:
        UserError: for values that lie in none of the ranges 0 to 1 (floats), 0 to 255 and 0 to 65,535.
    """
    values = np.asarray(image).astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)) or low < 0 or high > 65535:
        raise UserError(f"{name} has grey values from {low:g} to {high:g}; those from 0 to 1, 255 or 65,535 are understood.")
    most = 65535.0
    if image.mode == "F" and high <= 1:
        most = 1.0
    elif high <= 255 and image.mode in ("I", "F"):
        most = 255.0
    return Image.fromarray(np.rint(values * (255 / most)).astype(np.uint8))


def fingerprint(image: Image.Image) -> str:
    """The same for the same pixels, whatever file they lie in."""
    pixels = image.convert("RGB")
    return hashlib.sha256(f"{pixels.size}".encode() + pixels.tobytes()).hexdigest()[:16]


def as_clip_sees(image: Image.Image, middle: bool) -> Image.Image:
    """The middle of a very long picture, and a tiny one enlarged: CLIP's processor would fill the memory, or fail.

    Args:
        middle: whether the processor cuts out the middle; else it takes pictures whole, however long.
    """
    width, height = image.size
    short = min(width, height)
    if middle and max(width, height) > LONGEST * short:
        box = (min(width, LONGEST * short), min(height, LONGEST * short))
        left, top = (width - box[0]) // 2, (height - box[1]) // 2
        image = image.crop((left, top, left + box[0], top + box[1]))
    if short < LEAST:
        factor = -(-LEAST // short)
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    return image
