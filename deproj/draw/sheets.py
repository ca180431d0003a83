"""Labelled sheets of pictures, and pictures as files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from deproj.process.files import replacing

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["TRUE_STATES", "enlarged", "save_image", "sheet"]

#: Label of the row that no deprojector has drawn.
TRUE_STATES = "true states"


def sheet(
    rows: dict[str, Tensor],
    columns: Sequence[str],
    side: int = 160,
    halves: bool = True,
    notes: Mapping[tuple[str, int], str] | None = None,
) -> Image.Image:
    """A labelled sheet of pictures.

    Args:
        rows: a label, then one picture a column, (columns, height, width, 3) uint8.
        columns: labels, a prompt each.
        side: of a picture on the sheet, in pixels; small ones are enlarged without smoothing.
        halves: whether a gap parts the first half of the columns from the second.
        notes: written over cells, by row and column: why there is no picture.
    """
    font, small = ImageFont.load_default(15), ImageFont.load_default(13)
    widest = max((font.getlength(word) for label in rows for word in label.split()), default=0)
    left, top, gap, middle = min(max(150, int(widest) + 20), 300), 64, 8, 24
    half = len(columns) // 2 if halves else len(columns)

    def x_of(column: int) -> int:
        return left + column * (side + gap) + (middle if column >= half else 0)

    image = Image.new("RGB", (x_of(len(columns)) + gap, top + len(rows) * (side + gap) + gap), "white")
    pen = ImageDraw.Draw(image)
    for column, label in enumerate(columns):
        lines = wrap(label, small, side).split("\n")
        label = "\n".join(lines if len(lines) <= 3 else [*lines[:2], f"{lines[2]} …"])
        pen.multiline_text((x_of(column), 8), label, "black", small, spacing=2)
    for row, (label, pictures) in enumerate(rows.items()):
        y = top + row * (side + gap)
        pen.multiline_text((8, y + 8), wrap(label, font, left - 16), "black", font)
        for column, picture in enumerate(pictures):
            tile = enlarged(Image.fromarray(picture.numpy()), side)
            image.paste(tile.resize((side, side), Image.Resampling.LANCZOS), (x_of(column), y))
            if note := (notes or {}).get((label, column)):
                pen.multiline_text((x_of(column) + 8, y + 8), wrap(note, small, side - 16), "#555", small)
    return image


def enlarged(image: Image.Image, side: int) -> Image.Image:
    """A picture that is `side` pixels high at least; a smaller one in sharp pixels, a whole number of times as large."""
    times = -(-side // image.height)
    return image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST) if times > 1 else image


def wrap(text: str, font: Any, width: int) -> str:
    """Text broken into lines that fit a width in pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) > width and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    return "\n".join(lines)


def save_image(image: Image.Image, path: Path, about: dict[str, str] | None = None) -> None:
    """Writes a PNG whole or not at all.

    Args:
        about: notes that are stored in the file.
    """
    notes = PngInfo()
    for name, value in (about or {}).items():
        notes.add_itxt(name, value.encode("utf-8", "surrogateescape").decode(errors="replace"))  # a path as the system gave it
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        image.save(temporary, "PNG", pnginfo=notes)
