"""Pictures of every kind, each right or refused in one line."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import CLIPImageProcessor

from deproj.clip.encoder import TextEncoder
from deproj.clip.images import ImageEncoder
from deproj.clip.pictures import as_clip_sees, open_picture, to_rgb
from deproj.process.errors import UserError

RED, WHITE, BLUE = (255, 0, 0), (255, 255, 255), (0, 0, 255)


def palette(transparent: int | None) -> Image.Image:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 255, 255, 0, 0])
    if transparent is not None:
        image.info["transparency"] = transparent
    return image


def grey_with_transparency() -> Image.Image:
    image = Image.new("L", (4, 4), 7)
    image.info["transparency"] = 7
    return image


def grey(value: float, kind: type) -> Image.Image:
    return Image.fromarray(np.full((4, 4), value, kind))


#: Pictures of one colour, and the colour that CLIP is shown.
SHOWN: dict[str, tuple[Image.Image, tuple[int, int, int]]] = {
    "RGB": (Image.new("RGB", (4, 4), RED), RED),
    "RGBA, opaque": (Image.new("RGBA", (4, 4), (*RED, 255)), RED),
    "RGBA, hidden colour": (Image.new("RGBA", (4, 4), (*RED, 0)), WHITE),
    "RGBA, half": (Image.new("RGBA", (4, 4), (0, 0, 0, 128)), (127, 127, 127)),
    "RGBa": (Image.new("RGBA", (4, 4), (*RED, 0)).convert("RGBa"), WHITE),
    "LA, hidden": (Image.new("LA", (4, 4), (0, 0)), WHITE),
    "La": (Image.new("LA", (4, 4), (0, 0)).convert("La"), WHITE),
    "L": (Image.new("L", (4, 4), 100), (100, 100, 100)),
    "L with a transparent value": (grey_with_transparency(), WHITE),
    "1": (Image.new("1", (4, 4), 1), WHITE),
    "P": (palette(None), RED),
    "P, transparent": (palette(1), WHITE),
    "P, another transparent": (palette(0), RED),
    "PA": (Image.new("PA", (4, 4), (0, 0)), WHITE),
    "CMYK": (Image.new("CMYK", (4, 4), (0, 255, 255, 0)), RED),
    "YCbCr": (Image.new("RGB", (4, 4), (128, 128, 128)).convert("YCbCr"), (128, 128, 128)),
    "HSV": (Image.new("RGB", (4, 4), RED).convert("HSV"), RED),
    "LAB": (Image.new("LAB", (4, 4), (255, 128, 128)), WHITE),
    "16 bits": (grey(30000, np.uint16), (117, 117, 117)),
    "16 bits, white": (grey(65535, np.uint16), WHITE),
    "16 bits, dark": (grey(200, np.uint16), (1, 1, 1)),
    "32 bits of 16": (grey(65535, np.int32), WHITE),
    "32 bits of 8": (grey(255, np.int32), WHITE),
    "floats to 1": (grey(0.5, np.float32), (128, 128, 128)),
    "floats to 255": (grey(200, np.float32), (200, 200, 200)),
    "floats to 65535": (grey(65535, np.float32), WHITE),
}


@pytest.mark.parametrize("kind", SHOWN)
def test_what_is_shown(kind: str):
    image, colour = SHOWN[kind]
    shown = to_rgb(image)
    assert shown.mode == "RGB"
    assert shown.size == image.size
    assert np.abs(np.asarray(shown).astype(int) - colour).max() <= 1


@pytest.mark.parametrize("kind", [kind for kind in SHOWN if SHOWN[kind][0].mode in ("RGB", "RGBA", "LA", "L", "1", "P", "I;16")])
def test_files_show_what_pictures_show(kind: str, tmp_path: Path):
    image, colour = SHOWN[kind]
    image.save(tmp_path / "a.png", **({"transparency": image.info["transparency"]} if "transparency" in image.info else {}))
    assert np.abs(np.asarray(open_picture(tmp_path / "a.png")).astype(int) - colour).max() <= 1


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (grey(-1, np.int32), "grey values from -1 to -1"),
        (grey(70000, np.int32), "to 70000"),
        (grey(float("nan"), np.float32), "grey values from nan"),
        (grey(1e9, np.float32), r"to 1e\+09"),
        (Image.new("RGB", (0, 4)), "no pixels: it is 0 x 4"),
    ],
)
def test_values_without_a_scale_are_refused(image: Image.Image, said: str):
    with pytest.raises(UserError, match=said):
        to_rgb(image)


@pytest.mark.parametrize("turn", range(1, 9))
def test_cameras_are_held_in_eight_ways(tmp_path: Path, turn: int):
    upright = Image.new("RGB", (40, 20), RED)
    upright.paste(BLUE, (0, 0, 20, 20))
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # what undoes each
    held = upright if turn == 1 else upright.transpose(Image.Transpose(back[turn]))
    exif = Image.Exif()
    exif[0x0112] = turn
    held.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(np.asarray(open_picture(tmp_path / "a.png")), np.asarray(upright))


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp"])
def test_of_an_animation_the_first_frame_is_taken_and_that_is_said(tmp_path: Path, name: str):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **({"lossless": True} if "webp" in name else {}))
    with pytest.warns(UserWarning, match=r"is an animation; its frame 1 of 2 is taken"):
        shown = open_picture(tmp_path / name)
    assert np.abs(np.asarray(shown).astype(int) - RED).max() <= 2


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(10_000, 10_000), (100_000, 100_000)])
def test_a_bomb_is_refused(tmp_path: Path, size: tuple[int, int]):
    (tmp_path / "a.png").write_bytes(png_header(*size))
    with pytest.raises(UserError, match="more than 89,478,485 pixels"):
        open_picture(tmp_path / "a.png")


def saved(kind: str) -> bytes:
    file = io.BytesIO()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8)).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, kind: str):
    content = saved(kind)
    (tmp_path / "a").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="cannot be read as a picture"):
        open_picture(tmp_path / "a")


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(
    kind=st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "TGA", "PPM", "ICO"]),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_no_damaged_file_gives_a_traceback(tmp_path: Path, kind: str, changes: list[tuple[float, int]]):
    content = bytearray(saved(kind))
    for where, byte in changes:
        content[int(where * len(content))] = byte
    (tmp_path / "a").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tags that Pillow passes over
        try:
            shown = open_picture(tmp_path / "a")
        except UserError:
            return
    assert shown.mode == "RGB"


@pytest.fixture(scope="module")
def seeing() -> ImageEncoder:
    return ImageEncoder("pixel", TextEncoder.from_pretrained("pixel", "pixel"))


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (1, 50), (3, 224), (20_000, 10), (10, 20_000)])
def test_pictures_of_any_size_are_seen(seeing: ImageEncoder, size: tuple[int, int]):
    seen = seeing.project([Image.new("RGB", size, RED)])
    assert np.allclose(seen, seeing.project([Image.new("RGB", (64, 64), RED)]), atol=1e-4)


@pytest.mark.parametrize("size", [(640, 64), (64, 640)])
def test_the_middle_of_a_long_picture_is_what_clip_sees(size: tuple[int, int]):
    """By the processor of CLIP-L, which cuts out the middle."""
    processor = CLIPImageProcessor()
    assert processor.do_center_crop
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8))
    whole, cut = (processor(images=[one])["pixel_values"][0] for one in (image, as_clip_sees(image, middle=True)))
    assert np.allclose(whole, cut, atol=0.05)
    assert max(as_clip_sees(Image.new("RGB", (20_000, 10)), middle=True).size) == 40
    assert as_clip_sees(image, middle=False) is image


@pytest.mark.parametrize("kind", SHOWN)
def test_pictures_of_python_are_seen_as_files_are(seeing: ImageEncoder, kind: str):
    image, _ = SHOWN[kind]
    assert np.array_equal(seeing.project([image]), seeing.project([to_rgb(image)]))
